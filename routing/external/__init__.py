"""Model APIs outside the cluster, as targets of routes."""
