"""Who asks for what, and when: one file per family of workloads, all from a seed."""
