"""The bottom of the house: errors, clock, ids, tasks, limits, config. Imports nothing of ours."""
