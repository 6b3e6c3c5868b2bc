"""A host behind an HTTP proxy: what is downloaded goes through it, what is of the lab never does."""

from __future__ import annotations

import ipaddress
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from labtools import ROOT, Done, sample
from proxy_server import Proxy, fenced
from stackbook.artifacts.resolver import Resolver
from stackbook.core import paths

pytestmark = pytest.mark.live

KINDS = {"wheel": "go", "Go module": "cni-flannel", "Maven": "elasticsearch"}
LAB: dict[str, Any] = {
    "target": "embedded", "lab": "sbproxy",
    "nodes": [{"name": "behind-master", "address": "192.168.94.3"}, {"name": "behind-node1", "address": "192.168.94.4"}],
    "subnet": "192.168.94.0/24", "gateway": "192.168.94.2",
}  # fmt: skip


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A host that has no way out but a proxy."""
    with fenced(tmp_path_factory.mktemp("proxy")) as found:
        yield found


def inside(space: Proxy, *args: str, timeout: float = 900, env: dict[str, str] | None = None) -> Done:
    """Run `stackbook …` there."""
    done = subprocess.run(
        [*space.prefix, sys.executable, "-m", "stackbook", *args],
        cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False,
        env={**os.environ, **space.environment, **(env or {})},
    )  # fmt: skip
    return Done(done.returncode, done.stdout + done.stderr)


def of_the_lab(space: Proxy) -> set[str]:
    """Hosts that the proxy was asked for and that only the lab has: addresses, names of machines and of services."""
    names = {str(node["name"]) for node in LAB["nodes"]}
    found = set()
    for host in space.asked():
        with suppress(ValueError):
            found.add(str(ipaddress.ip_address(host)))
        if host in names or host.endswith((".svc", ".local")) or "." not in host:
            found.add(host)
    return found


@pytest.mark.parametrize("kind", sample(KINDS, "wheel"))
def test_a_component_is_fetched_through_the_only_way_out(space: Proxy, kind: str, tmp_path: Path) -> None:
    name = KINDS[kind]
    before = len(space.log.read_text())
    done = inside(space, "fetch", name, env={"STACKBOOK_CACHE": str(tmp_path / "cache")})
    assert done.status == 0, done.output[-3000:]
    state = {each.name: each.state for each in Resolver.open(cache=tmp_path / "cache").status()}
    assert state[name] == "cached"
    assert len(space.log.read_text()) > before, "nothing went through the proxy"
    without = {**os.environ, "STACKBOOK_CACHE": str(tmp_path / "nothing")}
    refused = subprocess.run([*space.prefix, sys.executable, "-m", "stackbook", "fetch", name],
                             cwd=ROOT, capture_output=True, text=True, timeout=300, check=False, env=without)  # fmt: skip
    assert refused.returncode != 0, "there was another way out"


@pytest.mark.more
def test_a_lab_comes_up_on_a_host_behind_a_proxy(space: Proxy, tmp_path: Path) -> None:
    """Machines, cluster and mesh inside; the proxy is not asked for one address of the lab."""
    profile = tmp_path / "behind.yaml"
    profile.write_text(yaml.safe_dump(LAB))
    try:
        done = inside(space, "run", "--profile", str(profile), "--to", "05", timeout=1500)
        assert done.status == 0, done.output[-4000:]
        assert of_the_lab(space) == set()
    finally:
        gone = inside(space, "reset", "--profile", str(profile), timeout=300)
    assert gone.status == 0, gone.output[-2000:]
    assert not (paths.states() / "sbproxy" / "kubeconfig").exists()
