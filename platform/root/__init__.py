"""The composition root: the only place where the real clock, Ray, files and environment come together.

`service` wires store, controllers and the resource API; `platform_actor` runs the service in a detached actor;
`ingress_replica` runs the ingress in Ray Serve; `lifecycle` is `hekla up` and `hekla down`.
"""
