"""Several routers, one after another, before the same engines with the same requests."""
