"""Policies of traffic: retries, timeouts, ejection, slow start, sticky sessions, mirrors, failover."""
