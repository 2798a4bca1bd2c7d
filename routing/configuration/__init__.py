"""The file an operator writes: all of the ingress's settings, checked, and changed while it runs where they can be."""
