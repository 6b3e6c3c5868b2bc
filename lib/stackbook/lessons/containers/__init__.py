"""Containers of a podman of the lab's own: its namespaces, its images, and ports between it and this host."""
