"""Prefill and decode on two engines: who may pair with whom, what it costs in seconds, and how the two requests go."""
