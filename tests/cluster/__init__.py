"""A cluster of one machine, for tests: it runs the rendered manifests of `k8s/` as local processes.

What it does as Kubernetes and the training operator do: containers' commands, arguments and environment (ConfigMaps,
Secrets, `$(NAME)`, completion index, PET_ variables), init containers first, restarts by policy and exit code, signals
with their grace period. What it does not: images, isolation, scheduling, limits, and network names (every pod is
127.0.0.1, so the rendezvous gets a port of its own). Mounted volumes are directories, and their mount paths are
replaced in arguments and variables.
"""
