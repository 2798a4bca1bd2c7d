"""One file per resource kind, each ending in `KIND`."""
