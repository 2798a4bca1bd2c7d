"""A streamed answer whose engine dies is continued by another engine; see `decision` for how, and why so."""
