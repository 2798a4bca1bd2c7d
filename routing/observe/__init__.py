"""Seeing inside: explanations of decisions, the debug pages, spans, and metrics of what is known."""
