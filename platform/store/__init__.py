"""Durable objects with watch: one interface, SQLite and memory behind it."""
