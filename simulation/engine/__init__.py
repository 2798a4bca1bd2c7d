"""A fast engine model for fleets: vLLM's scheduling at the cost of about ten events per request."""
