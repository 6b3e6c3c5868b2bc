"""The guide's stack, and the chapters that have its parts in this lab."""

from __future__ import annotations

# The guide's table (F17): fourteen technologies with their roles, and the chapter that has each in this lab.
STACK: list[dict[str, str]] = [
    {"technology": name, "role": role, "chapter": chapter}
    for name, role, chapter in (
        ("docker-compose", "container deployment", "13 (its files are checked and corrected)"),
        ("Kubernetes", "container orchestration", "02, 04"),
        ("istio", "service mesh", "05, 06, 07"),
        ("flannel", "building the subnet", "03"),
        ("jaeger", "call-chain tracing", "11"),
        ("Prometheus", "metrics system", "10"),
        ("EFK", "log collection, storage, query", "12"),
        ("grpc+protobuf", "communication between service layers", "08, 09"),
        ("gin", "exposing the application-layer interface", "14 (the guide only names it)"),
        ("mysql", "storage layer", "14 (the guide only names it)"),
        ("redis", "cache layer", "14 (the guide only names it)"),
        ("kafka", "message queue as communication bus", "14"),
        ("swagger", "document management", "14"),
        ("gitlab", "CI/CD", "13 (Gitea, as in the guide)"),
    )
]
