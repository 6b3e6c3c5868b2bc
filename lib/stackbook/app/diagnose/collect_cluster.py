"""Asking the API server: its lists, the last log lines of containers that exit, and why Envoy refused configuration."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from stackbook.app.diagnose.asking import ask
from stackbook.app.diagnose.cluster_probes import PATHS, READY, log_path
from stackbook.app.diagnose.snapshot import Answer, Cluster, dig, log_name, named, space
from stackbook.artifacts.resolver import Resolver
from stackbook.config.profile import Profile
from stackbook.machines.transports import Host

Asker = Callable[[Sequence[str], float], Answer]
"""Runs kubectl with these arguments, with a deadline in seconds."""
_AT_ONCE = 4
_LOGS = 8
_SHIPPER = "shipper"


def by_control_plane(host: Host) -> Asker:
    """Kubectl on the control plane's machine, with kubeadm's administrator kubeconfig there."""
    first = ("kubectl", "--kubeconfig=/etc/kubernetes/admin.conf")
    return lambda words, timeout: ask(host, [*first, *words], timeout)


def by_kubeconfig(host: Host, profile: Profile, kubeconfig: str) -> Asker | None:
    """Kubectl on this host; None if there is none yet, because a diagnosis fetches nothing."""
    program = shutil.which("kubectl") or ""
    if not program:
        resolver = Resolver.open(source=profile.source, versions=profile.versions)
        state = next((entry.state for entry in resolver.status() if entry.name == "kubectl"), "")
        program = str(resolver.path("kubectl")) if state == "cached" else ""
    if not program:
        return None
    return lambda words, timeout: ask(host, [program, *words], timeout, env={"KUBECONFIG": kubeconfig})


def get(asker: Asker, path: str, *, timeout: float = 8.0) -> Answer:
    """A GET of the API by its path, so that kubectl looks up no kinds and stores none on the disk."""
    return asker(["get", "--raw", path, f"--request-timeout={timeout:.0f}s"], timeout + 2)


def read_cluster(askers: Sequence[Asker], refusing: Sequence[tuple[str, str]] = ()) -> Cluster:
    """What the first asker that reaches the API server reads, or why none reaches it.

    Args:
        askers: the ways to ask, in this order.
        refusing: namespace and pod of proxies that have ever refused configuration.
    """
    found = Cluster(problem="there is neither a kubeconfig nor a control plane that answers")
    for asker in askers:
        ready = get(asker, READY, timeout=4)
        found.answers["readyz"] = ready
        unready = "readyz check failed" in ready.out + ready.err
        if ready.ok or unready:
            pods = get(asker, PATHS["pods"], timeout=3 if unready else 6)
            if pods.ok:
                found.problem = ""
                found.answers["pods"] = pods
                _lists(found, asker)
                _read_refused(found, asker, refusing)
                return found
            ready = pods if ready.ok else ready
        last = (ready.problem or ready.err.strip() or ready.out.strip()).splitlines()
        found.problem = last[-1][:300] if last else "no answer"
        if unready:
            break  # it answers, and the next asker would get the same answer
    return found


def _lists(found: Cluster, asker: Asker) -> None:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        asked = {name: pool.submit(get, asker, path) for name, path in PATHS.items() if name != "pods"}
        found.answers |= {name: job.result() for name, job in asked.items()}
        asked = {name: pool.submit(get, asker, path, timeout=4) for name, path in _logs(found.items("pods")).items()}
        found.answers |= {name: job.result() for name, job in asked.items()}


def _logs(pods: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The logs worth reading: those of containers that keep exiting, and of the shippers."""
    wanted: dict[str, str] = {}
    for pod in pods:
        for state in [*dig(pod, "status", "initContainerStatuses", default=[]),
                      *dig(pod, "status", "containerStatuses", default=[])]:  # fmt: skip
            ended = dig(state, "lastState", "terminated") or dig(state, "state", "terminated")
            if not state.get("ready") and ended and dig(ended, "exitCode", default=0):
                before = not dig(state, "state", "terminated")
                name = log_name(space(pod), named(pod), state["name"])
                wanted[name] = log_path(space(pod), named(pod), state["name"], previous=before)
        if dig(pod, "metadata", "labels", "app") == _SHIPPER:
            container = dig(pod, "spec", "containers", 0, "name", default="")
            path = log_path(space(pod), named(pod), container, previous=False, lines=30, seconds=_RECENT)
            wanted.setdefault(log_name(space(pod), named(pod), container), path)
    return dict(list(wanted.items())[:_LOGS])


_RECENT = 60
"""Seconds. A refused shipper reports the refusal every 2 s, so older lines no longer apply."""
_POD = re.compile(r"/var/log/pods/([^_]+)_([^_]+)_[^/]+/istio-proxy/")


def refusing(text: str) -> list[tuple[str, str]]:
    """Namespace and pod of each proxy that refused configuration, from the machines' logs."""
    return list(dict.fromkeys(_POD.findall(text)))


def _read_refused(found: Cluster, asker: Asker, pods: Sequence[tuple[str, str]]) -> None:
    """Ask the Envoy of each of these pods what it refuses now: its log also has refusals that were fixed long ago."""
    there = {(space(pod), named(pod)) for pod in found.items("pods")}
    wanted = [(namespace, pod) for namespace, pod in pods if (namespace, pod) in there][:_AT_ONCE]

    def dump(namespace: str, pod: str) -> Answer:
        words = [
            "exec",
            "-n",
            namespace,
            pod,
            "-c",
            "istio-proxy",
            "--",
            "pilot-agent",
            "request",
            "GET",
            "config_dump",
        ]
        return asker(words, 8.0)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        asked = {f"proxy {n}/{p}": pool.submit(dump, n, p) for n, p in wanted}
        found.answers |= {name: job.result() for name, job in asked.items()}
