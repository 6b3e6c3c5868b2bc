"""Kiali for as long as its page is open, and the graph that it draws as a table.

Kiali asks Prometheus for `istio_requests_total`. Upstream Envoy has no such metric; there, a second Prometheus runs beside Kiali,
reads the samples of the lab's own, and makes the metric of Envoy's counters (`istio_rules`). So nothing is changed in the lab's
Prometheus, and nothing is left in it if the command that shows the page is killed.

https://kiali.io/docs/ ; the API is Kiali's own, and is not promised to stay: `kiali_internal_api.md` in its module.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import pandas as pd

from stackbook.cluster import manifests
from stackbook.core import health
from stackbook.core.errors import CheckFailed, InputError
from stackbook.core.waiting import until
from stackbook.mesh import istio
from stackbook.observability.metrics import graph, istio_rules
from stackbook.observability.metrics.client import PORT as PROMETHEUS_PORT
from stackbook.observability.metrics.client import SERVICE as PROMETHEUS_SERVICE
from stackbook.observability.metrics.client import Prometheus
from stackbook.observability.metrics.graph import COLUMNS

if TYPE_CHECKING:
    from stackbook.cluster.kube import Kube
    from stackbook.lab.lab import Lab
    from stackbook.lab.step import Step
    from stackbook.observability.metrics.dialects import Vocabulary

IMAGE = "kiali"
PARTS = ("kiali", "kiali-pages")
"""The components of the image that the lab builds."""
NAMESPACE, PORT, PATH = istio.NAMESPACE, 20001, "/kiali"
SELECTOR = "app in (kiali, kiali-prometheus)"
"""Kiali's pod, and that of the Prometheus beside it."""
EVERY = 5.0
"""Seconds between two evaluations of the rules."""
SETTLED = 12.0
"""Seconds after which a request is scraped, and the rules have been evaluated with it."""
_RULES = "kiali-prometheus"
_MARK = "stackbook.lab/page"
_GONE = "its pod is gone, or the connection to it has ended"


@dataclass(frozen=True)
class Kiali:
    """A running Kiali.

    Attributes:
        url: its address with its path, without a slash at the end.
        rules: the Prometheus that makes `istio_requests_total` for it; None if the proxies have that metric themselves.
    """

    url: str
    rules: Prometheus | None = None

    def healthy(self) -> bool:
        """Whether Kiali answers."""
        return health.answers(f"{self.url}/healthz")

    def ended(self) -> str:
        """Why the page is of no use any more; empty while it is."""
        return "" if self.healthy() else f"Kiali does not answer: {_GONE}"

    def version(self) -> str:
        """Kiali's version, without a leading v."""
        return str(self._get("status")["status"]["Kiali version"]).removeprefix("v")

    def graph(
        self, *, namespaces: Sequence[str] = ("default",), kind: str = "app", window: float = 60.0, at: float | None = None,
        services: bool = False,
    ) -> dict[str, Any]:  # fmt: skip
        """The graph as Kiali's page gets it: `elements` with `nodes` and `edges`.

        Args:
            namespaces: whose traffic is shown.
            kind: `app`, `versionedApp`, `workload` or `service`.
            window: seconds before `at` in which requests count; Kiali rounds it down to whole ones.
            at: Unix time; now when None.
            services: whether services are nodes between those that call and those that answer.

        Raises:
            CheckFailed: Kiali does not answer, or refuses; the message has its words.
        """
        asked = {
            "namespaces": ",".join(namespaces), "graphType": kind, "duration": f"{int(window)}s",
            "injectServiceNodes": str(services).lower(), "rateTcp": "none", **({} if at is None else {"queryTime": f"{at:.0f}"}),
        }  # fmt: skip
        found: dict[str, Any] = self._get("namespaces/graph", **asked)
        return found

    def edges(
        self, *, namespaces: Sequence[str] = ("default",), window: float = 60.0, at: float | None = None
    ) -> pd.DataFrame:
        """Who called whom, as `graph.edges` returns it, according to Kiali; see `graph` for arguments and errors."""
        return edges(self.graph(namespaces=namespaces, window=window, at=at))

    def wait_edges(
        self, wanted: Sequence[tuple[str, str]], *, namespaces: Sequence[str] = ("default",), window: float = 60.0,
        timeout: float = 120.0,
    ) -> pd.DataFrame:  # fmt: skip
        """The edges, once all of `wanted` (source, destination) are among them.

        Raises:
            WaitTimeout: some did not come; the error has those that did.
        """
        found = pd.DataFrame(columns=COLUMNS)

        def all_there() -> bool:
            nonlocal found
            found = self.edges(namespaces=namespaces, window=window)
            return set(wanted) <= set(zip(found["source"], found["destination"], strict=True))

        def last() -> str:
            return (
                ", ".join(f"{row['source']} → {row['destination']}" for row in found.to_dict("records")) or "no edges"
            )

        until(all_there, what="Kiali to draw every edge", timeout=timeout, every=2, last=last)
        return found

    def _get(self, path: str, **params: str) -> Any:
        try:
            answer = httpx.get(f"{self.url}/api/{path}", params=params, timeout=60, trust_env=False)
        except httpx.TransportError as error:
            raise CheckFailed(f"Kiali does not answer: {error}", fix=f"check its pod: {_GONE}") from error
        if answer.status_code != httpx.codes.OK:
            raise CheckFailed(f"Kiali answers /api/{path} with {answer.status_code}: {answer.text.strip()[:300]}")
        return answer.json()


def edges(answer: Mapping[str, Any]) -> pd.DataFrame:
    """The edges of a graph of Kiali's: source, destination, requests (per second), errors (share of 5xx).

    A node has the name of its app; without one that of its service, or of its workload.

    Raises:
        CheckFailed: the answer has another form.
    """
    try:
        elements = answer["elements"]
        nodes = {node["data"]["id"]: _name(node["data"]) for node in elements["nodes"]}
        rows = [_edge(edge["data"], nodes) for edge in elements["edges"]]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckFailed(f"Kiali's answer is not a graph: {error!r} in {str(answer)[:200]}") from error
    table = pd.DataFrame(rows, columns=["source", "destination", "requests", "failed"])
    sums = table.groupby(["source", "destination"], as_index=False)[["requests", "failed"]].sum()
    sums = sums[sums["requests"] > 0].reset_index(drop=True)
    return sums.assign(errors=sums["failed"] / sums["requests"])[COLUMNS]


def _name(node: Mapping[str, Any]) -> str:
    return next((str(node[part]) for part in ("app", "service", "workload") if node.get(part)), "unknown")


def _edge(edge: Mapping[str, Any], nodes: Mapping[str, str]) -> tuple[str, str, float, float]:
    traffic = edge.get("traffic") or {}
    protocol, rates = traffic.get("protocol", ""), traffic.get("rates") or {}
    rate, failed = float(rates.get(protocol, 0)), float(rates.get(f"{protocol}5xx", 0))
    return nodes[edge["source"]], nodes[edge["target"]], rate, failed


def of_the_addon(kube: Kube) -> bool:
    """Whether Kiali is installed by Istio's addon, where its image can be pulled."""
    found = kube.json("get", "deployments", "-n", NAMESPACE, "-l", f"app=kiali,!{_MARK}")
    return bool(found["items"])


def at_hand(lab: Lab) -> bool:
    """Whether Kiali can run without building anything first."""
    return lab.images.sources.pulled(IMAGE) or all(lab.artifacts.at_hand(part) is not None for part in PARTS)


def demand(lab: Lab) -> None:
    """Refuse a lab in which this Kiali cannot run; changes nothing.

    Raises:
        InputError: the lab is an existing cluster, has no Prometheus, or has Istio's own Kiali.
    """
    if lab.profile.target == "cluster":
        raise InputError(
            "Kiali needs rights in the whole cluster, which a learner does not have there",
            fix="ask the administrator whether the mesh has a Kiali",
        )
    if of_the_addon(lab.kube):
        raise InputError("Istio's addon has installed Kiali already", fix="istioctl dashboard kiali")
    if not lab.kube.kubectl("get", PROMETHEUS_SERVICE, "-n", NAMESPACE, check=False).ok:
        raise InputError("Kiali draws what Prometheus has, and there is no Prometheus", fix="stackbook run --only 10")


def missing(lab: Lab) -> str:
    """Why Kiali does not run in this lab at once, in one line with what to do; empty if it does."""
    try:
        demand(lab)
    except InputError as reason:
        return str(reason)
    return "" if at_hand(lab) else "Kiali is not built yet: stackbook open kiali builds and shows it"


def compared(
    kiali: Kiali, prometheus: Prometheus, words: Vocabulary, *, window: float, settled: float = SETTLED
) -> pd.DataFrame:
    """The edges of `graph.edges` beside Kiali's, for one window that has ended.

    Args:
        kiali: a running Kiali.
        prometheus: the lab's Prometheus.
        words: the names of its metrics.
        window: seconds in which requests count.
        settled: seconds between its end and now, in which its last samples are scraped and the rules evaluated.

    Returns:
        source, destination, and requests per second as `chapter` and as `Kiali`; 0 where one of them has no such edge.
    """
    at = round(time.time() - settled)
    ours = graph.edges(prometheus, words, window=window, at=at)
    theirs = kiali.edges(window=window, at=at)
    both = ours.merge(theirs, how="outer", on=["source", "destination"], suffixes=(" ours", " theirs")).fillna(0)
    table = both.rename(columns={"requests ours": "chapter", "requests theirs": "Kiali"})
    return table[["source", "destination", "chapter", "Kiali"]].reset_index(drop=True)


def manifest(lab: Lab, *, upstream: bool, tracing: bool) -> str:
    """The objects of Kiali in this lab.

    Args:
        lab: the lab, for its images.
        upstream: whether the proxies are upstream Envoy, so that Kiali needs a Prometheus of its own.
        tracing: whether the lab has Jaeger.
    """
    service = _RULES if upstream else "prometheus"
    values = {"prometheus": f"http://{service}.{NAMESPACE}:{PROMETHEUS_PORT}", "tracing": str(tracing).lower(),
              "image_kiali": lab.images.reference(IMAGE)}  # fmt: skip
    parts = [manifests.render("kiali.yaml", **values)]
    if upstream:
        rules = json.dumps(istio_rules.text(interval=EVERY))
        image = lab.images.reference("prometheus")
        parts.append(
            manifests.render("kiali-prometheus.yaml", interval=f"{EVERY:g}", rules=rules, image_prometheus=image)
        )
    return "---\n".join(parts)


@contextlib.contextmanager
def running(lab: Lab, *, step: Step | None = None, timeout: float = 180.0) -> Iterator[Kiali]:
    """Run Kiali while the block runs. One that a killed command left is replaced.

    Args:
        lab: the lab, with its Prometheus.
        step: the step that records the import of the images.
        timeout: deadline for each of the two rollouts, in seconds.

    Raises:
        InputError: it cannot run in this lab; see `demand`.
        WaitTimeout: it did not become Ready within `timeout` seconds, or does not reach Prometheus; the error has the reason.
        ArtifactError: its image can neither be pulled nor built.
    """
    demand(lab)
    upstream = lab.images.upstream_envoy
    tracing = lab.kube.kubectl("get", "svc/tracing", "-n", NAMESPACE, check=False).ok
    lab.images.load(IMAGE, step=step)
    if upstream:
        lab.images.load("metrics", step=step)
    objects = manifest(lab, upstream=upstream, tracing=tracing)
    lab.kube.delete(objects)
    _wait_ended(lab.kube)
    lab.kube.apply(objects)
    try:
        with contextlib.ExitStack() as stack:
            rules = stack.enter_context(_rules(lab.kube, timeout=timeout)) if upstream else None
            lab.kube.wait_rollout(NAMESPACE, "deployment/kiali", timeout=timeout)
            port = stack.enter_context(lab.kube.port_forward(NAMESPACE, "svc/kiali", PORT))
            kiali = Kiali(f"http://127.0.0.1:{port}{PATH}", rules)
            until(kiali.healthy, what="Kiali to answer", timeout=60, every=0.3,
                  cause=lambda: lab.kube.explain(NAMESPACE, SELECTOR))  # fmt: skip
            # A Ready pod can be refused for some seconds: until kube-proxy has its address on Kiali's machine.
            until(kiali.graph, what="Kiali to reach Prometheus", timeout=60, every=1, tolerate=(CheckFailed,),
                  cause=lambda: lab.kube.explain(NAMESPACE, SELECTOR))  # fmt: skip
            yield kiali
    finally:
        lab.kube.delete(objects)


def _wait_ended(kube: Kube) -> None:
    """Wait for the end of the pods of an earlier Kiali, so that no connection is made to one of them."""

    def left() -> list[str]:
        pods = kube.json("get", "pods", "-n", NAMESPACE, "-l", SELECTOR)["items"]
        return [str(pod["metadata"]["name"]) for pod in pods]

    until(lambda: not left(), what="Kiali's pods to end", timeout=60, every=0.5, last=lambda: ", ".join(left()))


@contextlib.contextmanager
def _rules(kube: Kube, *, timeout: float) -> Iterator[Prometheus]:
    """The Prometheus with the rules, once each of them has been evaluated without an error."""
    kube.wait_rollout(NAMESPACE, f"deployment/{_RULES}", timeout=timeout)
    with kube.port_forward(NAMESPACE, f"svc/{_RULES}", PROMETHEUS_PORT) as port:
        prometheus = Prometheus(f"http://127.0.0.1:{port}")
        until(lambda: not pending(prometheus), what="Prometheus to evaluate the rules for Kiali", timeout=60, every=1,
              last=lambda: "; ".join(pending(prometheus)[:3]))  # fmt: skip
        yield prometheus


def pending(prometheus: Prometheus) -> list[str]:
    """The rules that have not been evaluated without an error, a line each with the reason; empty when all is well."""
    found = prometheus.rules()
    wrong = [f"{rule['name']}: {rule['lastError'] or rule['health']}" for rule in found if rule["health"] != "ok"]
    return wrong if found else ["Prometheus has no rules"]
