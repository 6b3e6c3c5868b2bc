from __future__ import annotations

from typing import Any

import pytest
from stackbook.cluster import addresses

SLICES: dict[str, Any] = {
    "items": [
        {"endpoints": [{"addresses": ["10.244.1.2"], "conditions": {"ready": True}}]},
        {"endpoints": [{"addresses": ["10.244.2.3"], "conditions": {"ready": False}}, {"addresses": ["10.244.2.4"]}]},
        {"endpoints": None},  # a Service without pods has a slice without endpoints
        {},
    ]
}


class Kube:
    """Answers the two questions that are asked, and no other."""

    def json(self, *args: str) -> Any:
        return {
            ("get", "service", "page", "-n", "shop"): {"spec": {"clusterIP": "10.96.0.7"}},
            ("get", "endpointslices", "-n", "shop", "-l", "kubernetes.io/service-name=page"): SLICES,
        }[args]


@pytest.mark.parametrize(
    ("ready", "expected"), [(False, ["10.244.1.2", "10.244.2.3", "10.244.2.4"]), (True, ["10.244.1.2"])]
)
def test_endpoints_of_all_slices(ready: bool, expected: list[str]) -> None:
    found = addresses.endpoints(Kube(), "shop", "page", ready=ready)  # type: ignore[arg-type]
    assert [endpoint["addresses"][0] for endpoint in found] == expected


def test_a_services_own_address() -> None:
    assert addresses.cluster_ip(Kube(), "shop", "page") == "10.96.0.7"  # type: ignore[arg-type]
