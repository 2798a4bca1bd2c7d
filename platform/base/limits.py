"""The house's limits, each with its unit in its name and its reason beside it."""

from __future__ import annotations

API_BODY_BYTES_MAX = 3 * 2**20
"""One resource API request: 3 MiB, what a Kubernetes API server accepts."""

WATCH_HISTORY_EVENTS_MAX = 4096
"""Versions a watch can resume from; older ones answer 410 Expired and the watcher lists again."""

WATCH_QUEUE_EVENTS_MAX = 8192
"""A watcher this far behind is cut off with 410 rather than growing without bound."""

EVENTS_PER_NAMESPACE_MAX = 1000
"""Event objects kept per namespace; the oldest go first."""

NAME_CHARS_MAX = 253
"""DNS-1123 subdomain."""

LABEL_CHARS_MAX = 63
"""DNS-1123 label."""
