"""The simulated engine: vLLM's HTTP, metrics and KV events over a model of time instead of a model of language.

Start it with ``python -m hekla.deployments.simengine``; README.md beside this file names its parts.
"""
