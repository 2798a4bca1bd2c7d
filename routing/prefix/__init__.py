"""What engines hold in their prefix caches: an approximate index, an exact one, and the two as one."""
