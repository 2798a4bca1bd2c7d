"""Rate limits: requests, input and output tokens per second to month, by tenant, user, key, model and prompt length."""
