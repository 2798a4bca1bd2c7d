"""ModelServing: serving groups, roles and their engines, kept as the object asks."""
