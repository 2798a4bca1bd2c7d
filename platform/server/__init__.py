"""The resource API over HTTP: Kubernetes' paths, objects and errors, and hekla's own verbs. See docs/api.md."""
