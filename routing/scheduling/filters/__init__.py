"""Filters: one file each, in the table of `hekla.routing.scheduling.catalog`."""
