"""Prefill/decode connectors: how the KV cache finds its way, seen from the two requests. One file each."""
