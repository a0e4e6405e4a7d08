"""Containers: the OCI spec, cgroups, and their life in containerd."""
