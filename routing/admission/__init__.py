"""Who goes next, and when: a bounded fair queue per model in front of predicted engine capacity."""
