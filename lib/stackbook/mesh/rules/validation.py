"""Checking whether rules fit a mesh before anything is applied."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from stackbook.config.namespaces import here
from stackbook.core.errors import InputError
from stackbook.mesh.rules.builders import Rule, percent, seconds


class Reads(Protocol):
    """The part of `cluster.Kube` that reads."""

    def json(self, *args: str, timeout: float = 60.0) -> Any:
        """The answer of a kubectl command, as JSON."""


@dataclass(frozen=True)
class Inventory:
    """What rules may name: services with their selectors, the labels of pods, subsets by host, external hosts."""

    namespace: str
    services: Mapping[str, Mapping[str, str]]
    pods: Sequence[Mapping[str, str]]
    subsets: Mapping[str, Mapping[str, Mapping[str, str]]]
    external: frozenset[str]

    def carries(self, host: str, labels: Mapping[str, str]) -> bool:
        """Whether a pod of this service has these labels."""
        wanted = {**self.services.get(host, {}), **labels}
        return any(wanted.items() <= pod.items() for pod in self.pods)


def inventory(kube: Reads, namespace: str = "") -> Inventory:
    """Read what rules in a namespace (by default the workloads') may name."""
    namespace = namespace or here().workloads
    kinds = "services,pods,destinationrules.networking.istio.io,serviceentries.networking.istio.io"
    items = kube.json("get", kinds, "-n", namespace)["items"]
    of = {
        kind: [i for i in items if i["kind"] == kind] for kind in ("Service", "Pod", "DestinationRule", "ServiceEntry")
    }
    return Inventory(
        namespace=namespace,
        services={s["metadata"]["name"]: s["spec"].get("selector") or {} for s in of["Service"]},
        pods=[p["metadata"].get("labels", {}) for p in of["Pod"] if "deletionTimestamp" not in p["metadata"]],
        subsets=_subsets(of["DestinationRule"], namespace),
        external=_external(of["ServiceEntry"]),
    )


def _subsets(rules: Sequence[Rule], namespace: str) -> dict[str, dict[str, dict[str, str]]]:
    found: dict[str, dict[str, dict[str, str]]] = {}
    for rule in rules:
        if rule["kind"] == "DestinationRule":
            host = short(rule["spec"]["host"], namespace)
            found[host] = {s["name"]: dict(s.get("labels", {})) for s in rule["spec"].get("subsets", [])}
    return found


def _external(rules: Sequence[Rule]) -> frozenset[str]:
    return frozenset(host for rule in rules if rule["kind"] == "ServiceEntry" for host in rule["spec"]["hosts"])


def short(host: str, namespace: str) -> str:
    """The name of a service as its own namespace calls it.

    >>> short("reviews.default.svc.cluster.local", "default")
    'reviews'
    """
    for suffix in (f".{namespace}.svc.cluster.local", f".{namespace}.svc", f".{namespace}"):
        if host.endswith(suffix):
            return host.removesuffix(suffix)
    return host


def check(rules: Sequence[Rule], mesh: Inventory) -> None:
    """Refuse rules that the mesh cannot carry out as intended; nothing is applied.

    Raises:
        InputError: the first of: a percentage outside 0–100, weights that do not sum to 100, an invalid duration, a host
                that no service has, a subset that no rule defines or no pod matches.
    """
    subsets = {**mesh.subsets, **_subsets(rules, mesh.namespace)}
    external = mesh.external | _external(rules)
    for rule in rules:
        where = f"{rule['kind']} {rule['metadata']['name']}"
        if rule["kind"] == "DestinationRule":
            host = short(rule["spec"]["host"], mesh.namespace)
            _check_host(host, where, mesh, external)
            for name, labels in subsets[host].items():
                if host in mesh.services and not mesh.carries(host, labels):
                    raise InputError(f"{where}: no pod matches subset {name} {labels}", fix=_label_fix(host, mesh))
        elif rule["kind"] == "VirtualService":
            for number, http in enumerate(rule["spec"].get("http", []), 1):
                _check_route(http, f"{where}, route {number}", mesh, external, subsets)


def _label_fix(host: str, mesh: Inventory) -> str:
    selector = mesh.services[host]
    versions = sorted({pod["version"] for pod in mesh.pods if selector.items() <= pod.items() and "version" in pod})
    return f"the pods of {host} have version " + (", ".join(versions) or "(none)")


def _check_host(host: str, where: str, mesh: Inventory, external: frozenset[str]) -> None:
    # A name with dots can be a service of another namespace, which this inventory does not contain.
    if host in mesh.services or host in external or host.endswith(".svc.cluster.local") or "*" in host:
        return
    near = difflib.get_close_matches(host, [*mesh.services, *external], 1)
    known = f"did you mean {near[0]}?" if near else "the services are " + ", ".join(sorted(mesh.services))
    raise InputError(f"{where}: no service has the host {host}", fix=known)


def _check_route(
    http: Mapping[str, Any],
    where: str,
    mesh: Inventory,
    external: frozenset[str],
    subsets: Mapping[str, Mapping[str, Mapping[str, str]]],
) -> None:
    for name, value in _percentages(http):
        percent(f"{where}: {name}", value)
    for name, value in _durations(http):
        seconds(f"{where}: {name}", value)
    destinations = http.get("route", [])
    for weight in (weights := [d["weight"] for d in destinations if "weight" in d]):
        percent(f"{where}: weight", weight)
    if weights and (len(weights) < len(destinations) or sum(weights) != 100):
        raise InputError(f"{where}: the weights {weights} do not sum to 100", fix="give each a weight, 100 in all")
    for entry in destinations:
        host = short(entry["destination"]["host"], mesh.namespace)
        subset = entry["destination"].get("subset", "")
        _check_host(host, where, mesh, external)
        if subset and subset not in subsets.get(host, {}):
            fix = f"add a DestinationRule for {host} with the subset {subset}"
            raise InputError(f"{where}: no DestinationRule defines subset {subset} of {host}", fix=fix)
        if subset and host in mesh.services and not mesh.carries(host, subsets[host][subset]):
            raise InputError(f"{where}: no pod matches subset {subset} of {host}", fix=_label_fix(host, mesh))


def _percentages(http: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, item in http.get("fault", {}).items():
        yield f"{name} percentage", item.get("percentage", {}).get("value", 100)
    if "mirrorPercentage" in http:
        yield "mirror percentage", http["mirrorPercentage"].get("value", 0)


def _durations(http: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    if "fixedDelay" in (delay := http.get("fault", {}).get("delay", {})):
        yield "fixedDelay", delay["fixedDelay"]
    if "timeout" in http:
        yield "timeout", http["timeout"]
    if "perTryTimeout" in (retries := http.get("retries", {})):
        yield "perTryTimeout", retries["perTryTimeout"]
