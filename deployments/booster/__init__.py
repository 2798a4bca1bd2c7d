"""ModelBooster: one object that becomes a ModelServing, a ModelServer and a ModelRoute."""
