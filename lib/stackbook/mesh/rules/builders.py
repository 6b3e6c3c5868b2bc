"""Traffic rules as objects: each builder refuses what is wrong on any cluster.

Field names and meanings: https://istio.io/latest/docs/reference/config/networking/
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from stackbook.config.namespaces import here
from stackbook.core.errors import InputError

Rule = dict[str, Any]
NETWORKING, SECURITY = "networking.istio.io/v1", "security.istio.io/v1"
MUTUAL = "ISTIO_MUTUAL"
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def percent(name: str, value: float) -> float:
    """Return `value` if it is a percentage.

    Raises:
        InputError: it is not a number from 0 to 100.

    >>> percent("abort_percent", 30)
    30.0
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
        raise InputError(f"{name} is {value!r}", fix="give a percentage from 0 to 100")
    return float(value)


def seconds(name: str, value: float | str) -> float:
    """The seconds of a number, or of a duration as Istio writes it ("5s", "1m30s", "500ms").

    Raises:
        InputError: it is negative, cannot be read, or is shorter than 1 ms, Istio's minimum.

    >>> seconds("delay", "1m30s"), seconds("delay", 0.5)
    (90.0, 0.5)
    """
    fix = 'give seconds, like 5 or 0.5, or a duration like "5s" or "500ms"'
    if isinstance(value, str):
        parts = re.findall(r"(\d+(?:\.\d+)?)(h|ms|m|s)", value, re.ASCII)
        if "".join(number + unit for number, unit in parts) != value or not parts:
            raise InputError(f"{name} is {value!r}, which is not a duration", fix=fix)
        total = sum(float(number) * _UNITS[unit] for number, unit in parts)
    elif isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{name} is {value!r}, which is not a duration", fix=fix)
    else:
        total = float(value)
    if not 0.001 <= total <= 3600:
        raise InputError(f"{name} is {value!r}", fix="give a duration from 1 ms to 1 h")
    return total


def duration(name: str, value: float | str) -> str:
    """A duration as the API wants it.

    >>> duration("delay_seconds", 5), duration("timeout", "500ms")
    ('5s', '0.5s')
    """
    return f"{seconds(name, value):.3f}".rstrip("0").rstrip(".") + "s"


def _object(kind: str, name: str, namespace: str, spec: Mapping[str, Any], version: str = NETWORKING) -> Rule:
    return {
        "apiVersion": version,
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace or here().workloads},
        "spec": {key: value for key, value in spec.items() if value not in (None, [], {}, "")},
    }


def to(host: str, subset: str = "", *, weight: int | None = None, port: int | None = None) -> dict[str, Any]:
    """One destination of a route."""
    destination: dict[str, Any] = {"host": host}
    if subset:
        destination["subset"] = subset
    if port:
        destination["port"] = {"number": port}
    return {"destination": destination} if weight is None else {"destination": destination, "weight": weight}


def split(host: str, weights: Mapping[str, int]) -> list[dict[str, Any]]:
    """Destinations by subset and weight.

    Raises:
        InputError: a weight is not a whole percentage, or the weights do not sum to 100.

    >>> split("reviews", {"v1": 90, "v3": 10})[1]["weight"]
    10
    """
    for subset, weight in weights.items():
        if percent(f"weight of {subset}", weight) != int(weight):
            raise InputError(f"weight of {subset} is {weight!r}", fix="give whole percentages")
    if (total := sum(weights.values())) != 100:
        raise InputError(f"the weights of {host} sum to {total:g}", fix="change them so that they sum to 100")
    return [to(host, subset, weight=int(weight)) for subset, weight in weights.items()]


def fault(
    *, abort_percent: float = 0, abort_status: int = 500, delay_percent: float = 0, delay_seconds: float | str = 5
) -> dict[str, Any]:
    """Faults for a route: a share of requests is aborted with a status, a share is delayed; Envoy draws each independently.

    Raises:
        InputError: a percentage, the status or the delay is out of range.

    >>> fault(abort_percent=30)
    {'abort': {'httpStatus': 500, 'percentage': {'value': 30.0}}}
    """
    found: dict[str, Any] = {}
    status = abort_status
    if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status <= 599:
        raise InputError(f"abort_status is {status!r}", fix="give an HTTP status from 200 to 599")
    delay = duration("delay_seconds", delay_seconds)
    if percent("abort_percent", abort_percent):
        found["abort"] = {"httpStatus": status, "percentage": {"value": float(abort_percent)}}
    if percent("delay_percent", delay_percent):
        found["delay"] = {"fixedDelay": delay, "percentage": {"value": float(delay_percent)}}
    return found


def route(
    *destinations: dict[str, Any],
    headers: Mapping[str, str] | None = None,
    fault: Mapping[str, Any] | None = None,
    timeout: float | str | None = None,
    retries: Mapping[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """One HTTP route: for requests with exactly these headers, or for all requests that no earlier route matched."""
    found: dict[str, Any] = {}
    if headers:
        found["match"] = [{"headers": {name: {"exact": value} for name, value in headers.items()}}]
    if fault:
        found["fault"] = dict(fault)
    found["route"] = list(destinations)
    if timeout is not None:
        found["timeout"] = duration("timeout", timeout)
    if retries is not None:
        found["retries"] = dict(retries)
    return {**found, **more}


def virtual_service(
    name: str,
    *routes: dict[str, Any],
    hosts: Sequence[str] = (),
    gateways: Sequence[str] = (),
    namespace: str = "",
) -> Rule:
    """Routes for a host, by default the service of the same name; the first route that matches applies."""
    spec = {"hosts": list(hosts or [name]), "gateways": list(gateways), "http": list(routes)}
    return _object("VirtualService", name, namespace, spec)


def destination_rule(
    name: str,
    *,
    host: str = "",
    versions: Sequence[str] = (),
    balance: str = "",
    tls: str = MUTUAL,
    namespace: str = "",
    **policy: Any,
) -> Rule:
    """What applies to requests to a host after routing: subsets by the label version, TLS, load balancing.

    Args:
        name: the rule's name; also the service's if `host` is empty.
        host: the service.
        versions: subsets; each is the pods with that label.
        balance: RANDOM, ROUND_ROBIN, LEAST_REQUEST or PASSTHROUGH; if empty, Istio's default (LEAST_REQUEST).
        tls: the mode; if empty, Istio's automatic mutual TLS decides.
        namespace: the rule's namespace; if empty, that of the workloads.
        policy: further fields of trafficPolicy, such as connectionPool and outlierDetection.
    """
    if balance not in ("", "RANDOM", "ROUND_ROBIN", "LEAST_REQUEST", "PASSTHROUGH"):
        fix = "write RANDOM, ROUND_ROBIN, LEAST_REQUEST or PASSTHROUGH"
        raise InputError(f"Istio has no load balancing {balance!r}", fix=fix)
    traffic: dict[str, Any] = {"tls": {"mode": tls}} if tls else {}
    if balance:
        traffic["loadBalancer"] = {"simple": balance}
    subsets = [{"name": version, "labels": {"version": version}} for version in versions]
    spec = {"host": host or name, "trafficPolicy": {**traffic, **policy}, "subsets": subsets}
    return _object("DestinationRule", name, namespace, spec)


def gateway(
    name: str,
    *,
    selector: str = "ingressgateway",
    hosts: Sequence[str] = ("*",),
    port: int = 80,
    protocol: str = "HTTP",
    namespace: str = "",
) -> Rule:
    """Open a port on the mesh's gateway pods with the label istio=`selector`; on an existing cluster, on the learner's own."""
    server = {
        "port": {"number": port, "name": f"{protocol.lower()}-{port}", "protocol": protocol},
        "hosts": list(hosts),
    }
    return _object(
        "Gateway", name, namespace, {"selector": {"istio": here().gateway_label(selector)}, "servers": [server]}
    )


def service_entry(
    name: str, *, host: str, port: int, address: str = "", protocol: str = "HTTP", namespace: str = ""
) -> Rule:
    """A server outside the mesh: found by DNS, or at `address` if that is given."""
    spec = {
        "hosts": [host],
        "location": "MESH_EXTERNAL",
        "ports": [{"number": port, "name": f"{protocol.lower()}-{port}", "protocol": protocol}],
        "resolution": "STATIC" if address else "DNS",
        "endpoints": [{"address": address}] if address else [],
    }
    return _object("ServiceEntry", name, namespace, spec)


def through_egress(name: str, *, host: str, port: int, namespace: str = "") -> list[Rule]:
    """The rules that route requests for an external host through the egress gateway: the gateway and both hops."""
    leg = [
        route(
            to(f"istio-egressgateway.{here().gateways}.svc.cluster.local", port=80),
            match=[{"gateways": ["mesh"], "port": port}],
        ),
        route(to(host, port=port), match=[{"gateways": [f"{name}-egress"], "port": 80}]),
    ]
    return [
        gateway(f"{name}-egress", selector="egressgateway", hosts=[host], namespace=namespace),
        virtual_service(f"{name}-egress", *leg, hosts=[host], gateways=["mesh", f"{name}-egress"], namespace=namespace),
    ]


def sidecar(
    name: str,
    *,
    egress: Sequence[str],
    labels: Mapping[str, str] | None = None,
    registered_only: bool = False,
    namespace: str = "",
) -> Rule:
    """What the proxies of a namespace (or of the pods with these labels) know: "./*" is their own namespace.

    With `registered_only`, they refuse (502) hosts that no service and no ServiceEntry names, instead of passing the request on.
    """
    spec = {
        "workloadSelector": {"labels": dict(labels)} if labels else None,
        "egress": [{"hosts": list(egress)}],
        "outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"} if registered_only else None,
    }
    return _object("Sidecar", name, namespace, spec)


def peer_authentication(name: str, mode: str, *, namespace: str = "") -> Rule:
    """Whether the pods of a namespace accept plain text: STRICT no, PERMISSIVE yes.

    Raises:
        InputError: the mode is not one of Istio's.
    """
    if mode not in ("STRICT", "PERMISSIVE", "DISABLE", "UNSET"):
        raise InputError(f"Istio has no mutual TLS mode {mode!r}", fix="write STRICT, PERMISSIVE or DISABLE")
    return _object("PeerAuthentication", name, namespace, {"mtls": {"mode": mode}}, SECURITY)
