"""LoRA adapters in the ingress: requests that wait for theirs to be loaded, and what tells the platform of them."""
