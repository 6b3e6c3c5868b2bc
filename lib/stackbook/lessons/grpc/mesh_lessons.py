"""The Greeter in the mesh: who answers, which protocol a port has, whose certificate it is, one call's trace."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from stackbook.core.waiting import until
from stackbook.lessons.grpc.balance import Count
from stackbook.lessons.grpc.deployed import Greeter, request_id
from stackbook.mesh import envoy_admin

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
"""The example of https://www.w3.org/TR/trace-context/."""
WAYS = (("greeter", "pick_first"), ("greeter-headless", "pick_first"), ("greeter-headless", "round_robin"))
KINDS = {"greeter": "plain Service", "greeter-headless": "headless Service", "greeter-tcp": "port named tcp"}


# who answers


def balance(inside: Greeter, outside: Greeter, calls: int) -> list[Count]:
    """Count calls on one channel for each Service and client policy, without and with a sidecar; pods have letters."""
    found = []
    for greeter, who in ((outside, "no sidecar"), (inside, "sidecar")):
        letters = _letters(greeter)
        for service, policy in WAYS:
            flags = ("-balancer", policy, "-wait-for-ready")
            answered = greeter.calls(calls, *flags, target=greeter.target(service))["by_pod"]
            counted = {letters[pod]: int(count) for pod, count in answered.items()}
            found.append(Count(f"{who}, {KINDS[service]}", policy, dict(sorted(counted.items()))))
    return found


def _letters(greeter: Greeter) -> dict[str, str]:
    """Names for the pods that are the same on every run: v1 a, v1 b, v2 a."""
    names: dict[str, str] = {}
    for version in ("v1", "v2"):
        own = [p["metadata"]["name"] for p in greeter.pods("greeter") if p["metadata"]["labels"]["version"] == version]
        names |= {name: f"{version} {letter}" for name, letter in zip(sorted(own), "abcdefgh", strict=False)}
    return names


def everybody(count: Count, greeter: Greeter) -> dict[str, int]:
    """The calls of each pod, including pods that got none."""
    return {name: count.calls.get(name, 0) for name in sorted(_letters(greeter).values())}


def connected(greeter: Greeter, service: str) -> list[str]:
    """The addresses on the servers' port to which the client's pod is connected during a call (K138)."""
    with ThreadPoolExecutor(1) as pool:
        flags = ("-work", "2s", "-timeout", "10s")
        calling = pool.submit(greeter.client, *flags, target=greeter.target(service))
        try:
            return until(greeter.peers, what="a connection to be established", timeout=10, every=0.1)
        finally:
            calling.result()


# what a port is


def protocols(greeter: Greeter, ports: Mapping[int, str]) -> list[dict[str, str]]:
    """How the client's sidecar treats ports: the filter that accepts connections, and its upstream protocol (K140)."""
    listeners = greeter.envoy("config_dump?resource=dynamic_listeners")["configs"]
    clusters = greeter.envoy("config_dump?resource=dynamic_active_clusters")["configs"]
    rows = []
    for port, service in ports.items():
        taken = {
            str(filter["name"]).rpartition(".")[2]
            for entry in listeners
            if (listener := entry.get("active_state", {}).get("listener", {})).get("name", "").endswith(f"_{port}")
            for filter in listener["filter_chains"][-1]["filters"][-1:]
        }
        name = f"outbound|{port}||{service}.{greeter.namespace}.svc.cluster.local"
        (cluster,) = [entry["cluster"] for entry in clusters if entry["cluster"]["name"] == name]
        options = str(cluster.get("typed_extension_protocol_options", ""))
        speaks = "HTTP/2" if "http2_protocol_options" in options else "bytes, unchanged"
        rows.append(
            {"service": service, "port": str(port), "taken in by": ", ".join(sorted(taken)), "upstream": speaks}
        )
    return rows


def identity(greeter: Greeter, workload: str) -> str:
    """The SPIFFE id in the certificate that a workload's sidecar presents.

    Raises:
        CheckFailed: it has none, or several.
    """
    return envoy_admin.identity(greeter.kube, workload, namespace=greeter.namespace)


def failing(greeter: Greeter, code: str, *flags: str, least: int = 1) -> tuple[str, int]:
    """Make one call that servers fail with a code; returns the client's status and how many attempts reached a server."""
    mark = request_id()
    found = greeter.calls(1, "-header", f"fail-with={code}", "-header", f"x-request-id={mark}", *flags)
    return next(iter(found["by_code"])), len(greeter.attempts(mark, least=least))


# one trace


@dataclass(frozen=True)
class Hop:
    """The call's `traceparent` at one station: version, trace id, span id, flags."""

    who: str
    traceparent: str

    @property
    def trace(self) -> str:
        """The id that all spans of one call share."""
        return self.traceparent.split("-")[1]

    @property
    def span(self) -> str:
        """The id of the span that sent this header."""
        return self.traceparent.split("-")[2]

    @property
    def sampled(self) -> bool:
        """Whether the span is recorded."""
        return self.traceparent.endswith("-01")


def traced_id() -> str:
    """A request id that marks the request as sampled: Envoy stores that in the 15th character, and would change it otherwise.

    https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers#x-request-id
    """
    letters = list(str(uuid.uuid4()))
    letters[14] = "a"
    return "".join(letters)


def one_call(greeter: Greeter) -> list[Hop]:
    """Make one call with a known trace id; returns the header at the client, both sidecars and the server."""
    sent, mark = f"00-{TRACE}-{SPAN}-01", traced_id()
    greeter.client("-header", f"traceparent={sent}", "-header", f"x-request-id={mark}")
    (served,) = greeter.attempts(mark)
    hops = [Hop("client", sent)]
    for app, who in (("greeter-client", "client's sidecar"), ("greeter", "server's sidecar")):
        lines = greeter.passed(app, mark, least=2)
        (own,) = [line for line in lines if "trace" in line]
        hops.append(Hop(who, str(own["trace"])))
    return [*hops, Hop("server", str(served["traceparent"]))]


def hop_rows(hops: Sequence[Hop]) -> list[dict[str, Any]]:
    """A table of the hops that is the same on every run: letters stand for new span ids."""
    letters: dict[str, str] = {}
    for hop in hops:
        letters.setdefault(hop.span, f"span {chr(65 + len(letters))}")
    return [{"station": hop.who, "trace id": hop.trace, "span": letters[hop.span]} for hop in hops]


__all__ = [
    "Hop",
    "balance",
    "connected",
    "everybody",
    "failing",
    "hop_rows",
    "identity",
    "one_call",
    "protocols",
]
