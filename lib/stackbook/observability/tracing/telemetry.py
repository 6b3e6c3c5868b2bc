"""How the mesh traces: its provider, the Telemetry resource with the share of requests, and the proxies' configuration.

https://istio.io/latest/docs/tasks/observability/distributed-tracing/telemetry-api/
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from stackbook.cluster.own_namespaces import ASK_ADMINISTRATOR
from stackbook.config.namespaces import MESH, Namespaces, here
from stackbook.core import yaml_text
from stackbook.core.errors import CheckFailed, CommandFailed
from stackbook.core.waiting import until
from stackbook.mesh import envoy_admin
from stackbook.mesh.bookinfo import WORKLOADS
from stackbook.mesh.rules import Rule, percent, propagate

if TYPE_CHECKING:
    from stackbook.cluster.kube import Kube

NAME, PROVIDER = "mesh-default", "jaeger"
RESOURCE = "telemetries.telemetry.istio.io"
TRACER = "envoy.tracers.opentelemetry"
AT_ONCE, INTERVAL = "tracing.opentelemetry.min_flush_spans", "tracing.opentelemetry.flush_interval_ms"
"""Envoy's runtime keys: each thread sends its spans when it has this many (default 5), and at this interval in ms (default 5000).

github.com/envoyproxy/envoy source/extensions/tracers/opentelemetry/tracer.cc; a new interval counts from the next time on.
"""
PROMPT = {AT_ONCE: "1", INTERVAL: "1000"}


def provider(spaces: Namespaces | None = None) -> str:
    """The name of the extension provider that sends spans to this lab's Jaeger; each learner on an existing cluster has one.

    An administrator has put it into the mesh's configuration there: `stackbook rbac` prints it.
    """
    learner = (spaces or here()).learner
    return f"{PROVIDER}-{learner}" if learner else PROVIDER


def collector(spaces: Namespaces | None = None) -> str:
    """The full name of Jaeger's Service for spans."""
    return f"jaeger-collector.{(spaces or here()).monitoring}.svc.cluster.local"


def extension_provider(spaces: Namespaces | None = None) -> dict[str, Any]:
    """The provider as the mesh's configuration has it, in `extensionProviders`; of this process's lab if no namespaces are given."""
    return {"name": provider(spaces), "opentelemetry": {"service": collector(spaces), "port": 4317}}


def rule(share: float, *, by: str = "", namespace: str = "") -> Rule:
    """The Telemetry resource that traces `share` percent of requests.

    It is in the root namespace, for the whole mesh; on an existing cluster in the learner's, for their workloads.

    Raises:
        InputError: the share is not a percentage.
    """
    tracing = {"providers": [{"name": by or provider()}], "randomSamplingPercentage": percent("sampling", share)}
    return {
        "apiVersion": "telemetry.istio.io/v1",
        "kind": "Telemetry",
        "metadata": {"name": NAME, "namespace": namespace or here().monitoring},
        "spec": {"tracing": [tracing]},
    }


def providers(kube: Kube) -> list[dict[str, Any]]:
    """The extension providers in the mesh's configuration."""
    mesh = yaml_text.load(kube.json("get", "configmap", "istio", "-n", MESH)["data"]["mesh"])
    return list(mesh.get("extensionProviders") or [])


def provider_kinds(kube: Kube) -> dict[str, str]:
    """Name → kind (opentelemetry, zipkin, …) of each extension provider (K169)."""
    return {str(entry["name"]): next(kind for kind in entry if kind != "name") for entry in providers(kube)}


def ensure_provider(kube: Kube) -> int:
    """Add the provider to the mesh's configuration if the profile has none; returns 1 if it was added.

    Raises:
        CheckFailed: a provider of that name sends spans elsewhere, or a learner's is missing on an existing cluster.
    """
    wanted = extension_provider()
    for known in providers(kube):
        if known["name"] == wanted["name"]:
            if known != wanted:
                raise CheckFailed(
                    f"the mesh has another provider with the name {wanted['name']}: {known}",
                    fix=ASK_ADMINISTRATOR if here().learner else "stackbook run --only 05",
                )
            return 0
    if here().learner:
        raise CheckFailed(f"the mesh has no extension provider {wanted['name']}", fix=ASK_ADMINISTRATOR)
    config = kube.json("get", "configmap", "istio", "-n", MESH)
    mesh = yaml_text.load(config["data"]["mesh"])
    mesh["extensionProviders"] = [*(mesh.get("extensionProviders") or []), wanted]
    patch = {"data": {"mesh": yaml.safe_dump(mesh, sort_keys=False)}}
    kube.kubectl("patch", "configmap", "istio", "-n", MESH, "--type", "merge", "-p", json.dumps(patch))
    return 1


def found(kube: Kube) -> list[Rule]:
    """The Telemetry resources that configure tracing: those of the root namespace, or of the learner's."""
    items = kube.json("get", RESOURCE, "-n", here().monitoring)["items"]
    return [_plain(item) for item in items if item["spec"].get("tracing")]


def _plain(item: dict[str, Any]) -> Rule:
    metadata = {name: item["metadata"][name] for name in ("name", "namespace")}
    return {"apiVersion": item["apiVersion"], "kind": item["kind"], "metadata": metadata, "spec": item["spec"]}


def in_force(kube: Kube, share: float) -> float:
    """Trace `share` percent of requests from now on; returns the seconds until all proxies had that setting."""
    wanted = rule(share)
    return propagate(kube, lambda: kube.apply([wanted]), [wanted])


def take_away(kube: Kube) -> int:
    """Delete the Telemetry resources about tracing, and wait for the proxies; returns how many existed."""
    there = found(kube)
    if there:
        propagate(kube, lambda: kube.delete(there), there)
    return len(there)


def put_back(kube: Kube, before: Sequence[Rule], *, drain: bool = True) -> None:
    """Restore the Telemetry resources about tracing to `before`, and wait until they apply to all requests.

    Without `drain`, it waits only for the proxies; requests on old connections still use the old settings.
    """
    names = {item["metadata"]["name"] for item in before}
    now = found(kube)
    added = [item for item in now if item["metadata"]["name"] not in names]
    changed = [item for item in before if item not in now]
    if added:
        propagate(kube, lambda: kube.delete(added), added)
    if changed:
        propagate(kube, lambda: kube.apply(changed), changed)
    if drain and (added or changed):
        drained(kube)


@contextlib.contextmanager
def untraced(kube: Kube, *, drain: bool = True) -> Iterator[int]:
    """Remove the Telemetry resources about tracing while the block runs; then restore them.

    Args:
        kube: the cluster.
        drain: see `put_back`; not needed if the next step waits itself (`observation.settled`).
    """
    before = found(kube)
    try:
        yield take_away(kube)
    finally:
        put_back(kube, before, drain=drain)


@contextlib.contextmanager
def sampled(kube: Kube, share: float) -> Iterator[float]:
    """Trace `share` percent of requests while the block runs; then restore the settings. Yields how many seconds the change took."""
    before = found(kube)
    try:
        yield in_force(kube, share)
    finally:
        put_back(kube, before)


@dataclass(frozen=True)
class Tracer:
    """The tracing settings of one listener of a proxy."""

    name: str
    cluster: str
    share: float


def _proxies(kube: Kube, only: str = "") -> list[tuple[str, str]]:
    """Namespace and pod of the proxies of bookinfo, the test bed and the ingress gateway, or of those that match a selector."""
    gateway = (here().gateways, f"istio={here().gateway_label('ingressgateway')}")
    where = [(here().workloads, only or "app notin (outside)"), *([] if only else [gateway])]
    found = [
        (namespace, str(pod["metadata"]["name"]))
        for namespace, selector in where
        for pod in kube.pods(namespace, selector)
        if any(c["name"] == "istio-proxy" for c in [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])])
    ]
    return list(dict.fromkeys(found))  # a learner's gateways are beside their workloads


def drained(kube: Kube, *, timeout: float = 75.0) -> None:
    """Wait until no proxy has connections left that use an earlier listener; see `istio.DRAIN`.

    Raises:
        WaitTimeout: the error names the proxies that still have some.
    """
    closed: set[tuple[str, str]] = set()

    def draining(target: tuple[str, str]) -> int:
        namespace, pod = target
        said = envoy_admin.ask(kube, pod, "stats?filter=^listener_manager.total_.*_draining$", namespace=namespace)
        counts = [int(line.rpartition(":")[2]) for line in said.splitlines() if line.startswith("listener_manager.")]
        if len(counts) != 2:
            raise CheckFailed(f"the proxy of {pod} does not report which listeners it drains: {said.strip()[:200]}")
        return sum(counts)

    def open_in(targets: Sequence[tuple[str, str]]) -> dict[tuple[str, str], int]:
        with ThreadPoolExecutor(3) as pool:
            counts = dict(zip(targets, pool.map(draining, targets), strict=True))
        closed.update(target for target, count in counts.items() if not count)
        return {target: count for target, count in counts.items() if count}

    def done() -> bool:
        targets = [target for target in _proxies(kube) if target not in closed]
        # All got the change at the same time: while the first still drains, there is no need to ask the others.
        return not open_in(targets[:1]) and not open_in(targets[1:])

    until(done, what="connections of earlier listeners to close", timeout=timeout, every=0.5,
          tolerate=(CommandFailed,),  # the pod was deleted meanwhile
          last=lambda: ", ".join(f"{pod}: {count}" for (_, pod), count in open_in(_proxies(kube)).items()))  # fmt: skip


def tracers(kube: Kube, workload: str, namespace: str = "") -> set[Tracer]:
    """The tracers in the listeners of a workload's proxy; empty if it has none (K166, K173)."""
    dump = json.loads(envoy_admin.ask(kube, workload, "config_dump?resource=dynamic_listeners", namespace=namespace))
    return set(_tracers(dump))


def _tracers(node: Any) -> Iterator[Tracer]:
    """The `tracing` blocks with a provider, at any depth."""
    if isinstance(node, dict):
        tracing = node.get("tracing")
        if isinstance(tracing, dict) and "provider" in tracing:
            typed = tracing["provider"].get("typed_config", {})
            cluster = typed.get("grpc_service", {}).get("envoy_grpc", {}).get("cluster_name", "")
            share = float(tracing.get("random_sampling", {}).get("value", 0.0))
            yield Tracer(tracing["provider"]["name"], cluster, share)
        for name, value in node.items():
            if name != "draining_state":  # a listener that accepts no new connections
                yield from _tracers(value)
    elif isinstance(node, list):
        for value in node:
            yield from _tracers(value)


def share_in_proxies(kube: Kube) -> float:
    """The percentage of requests that all proxies of bookinfo trace, with their spans sent to Jaeger.

    Raises:
        CheckFailed: the mesh lacks the provider, a proxy has no tracer or a wrong one, or the percentages differ.
    """
    fix = "stackbook run --only 11"
    if provider_kinds(kube).get(provider()) != "opentelemetry":
        raise CheckFailed(f"the mesh has no provider {provider()} that speaks OpenTelemetry", fix=fix)
    with ThreadPoolExecutor(3) as pool:
        known = dict(zip(WORKLOADS, pool.map(lambda name: tracers(kube, f"deploy/{name}"), WORKLOADS), strict=True))
    for workload, told in known.items():
        if not told:
            raise CheckFailed(f"the proxy of {workload} has no tracer", fix=fix)
        if strange := [t for t in told if (t.name, t.cluster) != (TRACER, f"outbound|4317||{collector()}")]:
            raise CheckFailed(f"the proxy of {workload} sends its spans elsewhere: {strange[0]}", fix=fix)
    shares = {t.share for told in known.values() for t in told}
    if len(shares) > 1 or not min(shares):
        raise CheckFailed(f"the proxies trace different shares of requests, in percent: {sorted(shares)}", fix=fix)
    return shares.pop()


def built_in(kube: Kube, workload: str, namespace: str = "") -> list[str]:
    """The tracers that were compiled into a workload's proxy, according to its own list (K173)."""
    for part in json.loads(envoy_admin.ask(kube, workload, "config_dump", namespace=namespace))["configs"]:
        if part["@type"].endswith("BootstrapConfigDump"):
            extensions = part["bootstrap"]["node"].get("extensions", [])
            names = {e["name"] for e in extensions if e.get("category") == "envoy.tracers"}
            return sorted(name for name in names if name.startswith("envoy.tracers."))  # old names are aliases
    raise CheckFailed(f"the proxy of {workload} does not show its bootstrap configuration")


def clusters(kube: Kube, workload: str, namespace: str = "") -> set[tuple[str, int]]:
    """Service and port of each outbound cluster that a workload's proxy knows (K167)."""
    found = set()
    for entry in json.loads(envoy_admin.ask(kube, workload, "clusters?format=json", namespace=namespace))[
        "cluster_statuses"
    ]:
        direction, _, rest = entry["name"].partition("|")
        if direction == "outbound":
            port, _, name = rest.partition("|")
            found.add((name.rpartition("|")[2], int(port)))
    return found


@contextlib.contextmanager
def prompt(kube: Kube) -> Iterator[None]:
    """Make the proxies send each span as soon as it ends while the block runs; then reset them to their start settings."""
    set_runtime(kube, PROMPT)
    try:
        yield
    finally:
        set_runtime(kube, dict.fromkeys(PROMPT, ""))


def set_runtime(kube: Kube, values: Mapping[str, str], *, only: str = "") -> int:
    """Override runtime keys in the proxies of bookinfo, the test bed and the ingress; an empty value removes an override.

    Proxies that start later do not have them.

    Args:
        kube: the cluster.
        values: the values by key.
        only: label selector of pods in the workloads' namespace; only those pods are changed.

    Returns:
        How many proxies were changed.

    Raises:
        CheckFailed: a proxy refuses them.
    """
    targets = _proxies(kube, only)
    query = "&".join(f"{key}={value}" for key, value in values.items())

    def tell(target: tuple[str, str]) -> None:
        namespace, pod = target
        said = envoy_admin.ask(kube, pod, f"runtime_modify?{query}", namespace=namespace, method="POST")
        if "OK" not in said:
            raise CheckFailed(f"the proxy of {pod} refuses {query}: {said.strip()[:200]}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(tell, targets))
    return len(targets)
