"""The controller runtime: one mailbox per key, level-triggered, backoff with jitter."""
