"""Docker Compose on a podman of the lab's own: its engine, its images, its health checks, and a project that is up for a while."""
