"""The cluster: nodes, placement groups, actors. Ray implementation and an in-memory fake under one contract."""
