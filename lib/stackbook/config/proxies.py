"""What is never asked through the host's HTTP proxy: this host itself and the lab. Downloads do go through it.

There is no common form of NO_PROXY. Go (kubectl, istioctl), curl from 7.86 on, requests and the Kubernetes client know
networks; httpx, urllib and gRPC only addresses and names. So the list has both, and whatever this library builds to ask the lab
by httpx, requests or gRPC does not look at the environment at all.
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
    """Addresses, networks and names that are asked directly.

    Of an existing cluster nothing is known but its names inside: whether its API server is reached by a proxy is its users'
    matter.

    >>> from stackbook.config.profile import Profile
    >>> inside(Profile())[4:9]
    ['192.168.98.0/24', '10.244.0.0/16', '10.0.0.0/12', '192.168.98.2', '10.0.0.1']
    """
    if profile.target == "cluster":
        return [*_HERE, *_CLUSTER]
    networks = [profile.subnet] if profile.target == "embedded" else []
    networks += [profile.pod_cidr, profile.service_cidr]
    addresses = [profile.gateway] if profile.target == "embedded" else []
    addresses += [profile.service_address, profile.dns_address, *(node.address for node in profile.nodes)]
    return list(dict.fromkeys([*_HERE, *networks, *addresses, *(node.name for node in profile.nodes), *_CLUSTER]))


def spare(profile: Profile, environment: MutableMapping[str, str] = os.environ) -> None:
    """Have this process, its kernels and its commands ask the lab directly; what the user has excepted stays so."""
    given = [part.strip() for name in NAMES for part in environment.get(name, "").split(",") if part.strip()]
    # "*" means everything, and for curl and urllib only where it stands alone.
    wanted = "*" if "*" in given else ",".join(dict.fromkeys([*given, *inside(profile)]))
    for name in NAMES:
        environment[name] = wanted
