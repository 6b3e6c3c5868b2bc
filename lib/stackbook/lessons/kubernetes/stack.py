"""The guide's stack, and where this lab has its parts."""

from __future__ import annotations

# The guide's table (F17): fourteen technologies with their roles, and the chapter that has each in this lab.
STACK: list[dict[str, str]] = [
    {"technology": name, "role": role, "chapter": chapter}
    for name, role, chapter in (
        ("docker-compose", "container deployment", "not yet (the guide uses it for Gitea and Drone only)"),
        ("Kubernetes", "container orchestration", "02, 04"),
        ("istio", "service mesh", "05, 06, 07"),
        ("flannel", "building the subnet", "03"),
        ("jaeger", "call-chain tracing", "not yet"),
        ("Prometheus", "metrics system", "not yet"),
        ("EFK", "log collection, storage, query", "not yet"),
        ("grpc+protobuf", "communication between service layers", "08, 09"),
        ("gin", "exposing the application-layer interface", "not yet (the guide never describes it)"),
        ("mysql", "storage layer", "not yet (the guide never describes it)"),
        ("redis", "cache layer", "not yet (the guide never describes it)"),
        ("kafka", "message queue as communication bus", "not yet"),
        ("swagger", "document management", "not yet"),
        ("gitlab", "CI/CD", "not yet (the guide itself uses Gitea and Drone)"),
    )
]
