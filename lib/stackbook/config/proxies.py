"""Addresses that bypass the host's HTTP proxy: this host and the lab. Downloads use the proxy.

NO_PROXY has no common format. Go (kubectl, istioctl), curl from 7.86 on, requests and the Kubernetes client support
networks; httpx, urllib and gRPC support only addresses and names. So the list contains both, and this library's own
httpx, requests and gRPC clients for the lab ignore the environment.
https://pkg.go.dev/golang.org/x/net/http/httpproxy#Config
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from stackbook.config.profile import Profile

_HERE = ("localhost", "127.0.0.1", "::1", "127.0.0.0/8")
_CLUSTER = (".svc", ".cluster.local")
NAMES = ("no_proxy", "NO_PROXY")


def inside(profile: Profile) -> list[str]:
    """Addresses, networks and names that bypass the proxy.

    For an existing cluster, only its internal names are known. Its users decide whether they reach its API server
    through a proxy.

    >>> from stackbook.config.profile import Profile
    >>> inside(Profile())[4:9]
    ['192.168.98.0/24', '10.244.0.0/16', '10.0.0.0/12', '192.168.98.2', '10.0.0.1']
    """
    if profile.target == "cluster":
        return [*_HERE, *_CLUSTER]
    networks = [profile.subnet] if profile.creates_machines else []
    networks += [profile.pod_cidr, profile.service_cidr]
    addresses = [profile.gateway] if profile.creates_machines else []
    addresses += [profile.service_address, profile.dns_address, *(node.address for node in profile.nodes)]
    return list(dict.fromkeys([*_HERE, *networks, *addresses, *(node.name for node in profile.nodes), *_CLUSTER]))


def spare(profile: Profile, environment: MutableMapping[str, str] = os.environ) -> None:
    """Make this process, its kernels and its commands bypass the proxy for the lab; the user's own exceptions stay."""
    given = [part.strip() for name in NAMES for part in environment.get(name, "").split(",") if part.strip()]
    # "*" means everything; curl and urllib accept it only alone.
    wanted = "*" if "*" in given else ",".join(dict.fromkeys([*given, *inside(profile)]))
    for name in NAMES:
        environment[name] = wanted
