"""LoRA adapters: which engines hold which, and how they come and go without an interrupted request."""
