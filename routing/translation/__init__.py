"""OpenAI's chat completions as Anthropic's messages, and back: requests, answers, streams, errors. Pure but for `exchange.py`."""
