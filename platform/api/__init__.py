"""Resource kinds: pydantic models that validate what the CLI, the HTTP API and the shim accept."""
