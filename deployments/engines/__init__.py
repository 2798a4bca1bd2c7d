"""One file per engine type, and the parts a supervisor is made of: life cycle, process, log, probe, claims."""
