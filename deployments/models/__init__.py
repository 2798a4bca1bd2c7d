"""Model weights on a node's disk: one file per source, one cache, one download at a time."""
