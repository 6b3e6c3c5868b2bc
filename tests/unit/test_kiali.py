"""Kiali: what runs in the lab and what it may do, its graph as a table, and where it is refused."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pandas as pd
import pytest
import yaml
from stackbook.cluster import manifests
from stackbook.core.errors import CheckFailed, InputError, WaitTimeout
from stackbook.core.waiting import until
from stackbook.observability.metrics import istio_rules, kiali
from stackbook.observability.metrics.graph import COLUMNS
from stackbook.observability.metrics.kiali import Kiali

# Kiali 1.89.0's own answer, without what only its page reads.
GRAPH = json.loads(Path(__file__).with_name("kiali_graph.json").read_text(encoding="utf-8"))
RULES_OK = {"groups": [{"rules": [{"name": "mesh:requests:sent", "health": "ok"}]}]}


def test_a_graph_becomes_a_table_of_edges_between_apps() -> None:
    table = kiali.edges(GRAPH)
    assert list(table.columns) == COLUMNS
    found = {(row["source"], row["destination"]): row for row in table.to_dict("records")}
    assert set(found) == {
        ("istio-ingressgateway", "productpage"), ("productpage", "details"), ("productpage", "reviews"),
        ("reviews", "ratings"), ("load", "reviews"), ("load", "outside.example"),
    }  # fmt: skip
    assert found["productpage", "reviews"]["requests"] == pytest.approx(11.76)
    assert found["productpage", "reviews"]["errors"] == pytest.approx(0.25)
    assert found["reviews", "ratings"]["errors"] == 0.0


def test_edges_of_the_same_apps_are_added_and_idle_ones_left_out() -> None:
    nodes = [
        {"data": {"id": "a", "app": "load"}},
        {"data": {"id": "b", "service": "api.example.org"}},
        {"data": {"id": "c"}},
    ]

    def edge(source: str, target: str, protocol: str, **rates: str) -> dict[str, Any]:
        return {"data": {"source": source, "target": target, "traffic": {"protocol": protocol, "rates": rates}}}

    edges = [edge("a", "b", "http", http="3.00", http5xx="1.00"), edge("a", "b", "grpc", grpc="1.00"), edge("c", "a", "http"),
             {"data": {"source": "a", "target": "c", "traffic": {}}}]  # fmt: skip
    table = kiali.edges({"elements": {"nodes": nodes, "edges": edges}})
    assert table.to_dict("records") == [
        {"source": "load", "destination": "api.example.org", "requests": 4.0, "errors": 0.25}
    ]
    assert list(kiali.edges({"elements": {"nodes": [], "edges": []}}).columns) == COLUMNS


@pytest.mark.parametrize(
    "answer", [{}, {"elements": None}, {"elements": {"nodes": [], "edges": [{"data": {"source": "a", "target": "b"}}]}}]
)
def test_an_answer_of_another_form_is_an_error(answer: Any) -> None:
    with pytest.raises(CheckFailed, match="Kiali's answer is not a graph"):
        kiali.edges(answer)


class Server:
    """Answers as Kiali does, and as the Prometheus beside it."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {
            "/kiali/healthz": (200, ""),
            "/kiali/api/status": (200, {"status": {"Kiali version": "v1.89.0"}}),
            "/kiali/api/namespaces/graph": (200, GRAPH),
            "/api/v1/rules": (200, {"status": "success", "data": RULES_OK}),
        }
        self.first: dict[str, list[tuple[int, Any]]] = {}
        """By path, answers that come before that of `answers`, each once."""
        self.asked: list[dict[str, list[str]]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                outer.asked.append(parse_qs(parts.query))
                waiting = outer.first.get(parts.path)
                status, body = waiting.pop(0) if waiting else outer.answers[parts.path]
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body.encode() if isinstance(body, str) else json.dumps(body).encode())

            def log_message(self, *args: Any) -> None:
                """Nothing is printed."""

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = int(self.http.server_address[1])
        self.kiali = Kiali(f"http://127.0.0.1:{self.port}/kiali")
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,))
        self.thread.start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def test_the_api_is_asked_for_the_graph_of_apps(server: Server) -> None:
    assert server.kiali.version() == "1.89.0"
    assert len(server.kiali.edges(window=45.7, at=1_700_000_000.4)) == 6
    assert server.asked[-1] == {
        "namespaces": ["default"], "graphType": ["app"], "duration": ["45s"], "injectServiceNodes": ["false"],
        "rateTcp": ["none"], "queryTime": ["1700000000"],
    }  # fmt: skip
    server.kiali.graph(namespaces=("default", "shop"), kind="versionedApp", services=True)
    assert server.asked[-1]["namespaces"] == ["default,shop"] and "queryTime" not in server.asked[-1]
    found = server.kiali.wait_edges([("productpage", "reviews")], timeout=5)
    assert len(found) == 6


def test_what_kiali_refuses_is_said_with_its_words(server: Server) -> None:
    server.answers["/kiali/api/namespaces/graph"] = (403, {"error": "Requested namespace [x] is not accessible."})
    with pytest.raises(CheckFailed, match=r"/api/namespaces/graph with 403: .*\[x\] is not accessible"):
        server.kiali.edges()
    server.answers["/kiali/api/namespaces/graph"] = (200, {"elements": {"nodes": [], "edges": []}})
    with pytest.raises(WaitTimeout, match=r"every edge.*no edges"):
        server.kiali.wait_edges([("a", "b")], timeout=0.1)


def test_a_kiali_that_is_gone_says_so(server: Server) -> None:
    assert server.kiali.ended() == ""
    server.answers["/kiali/healthz"] = (503, "")
    assert server.kiali.ended().startswith("Kiali does not answer: its pod is gone")
    gone = Kiali("http://127.0.0.1:1/kiali")
    assert gone.ended()
    with pytest.raises(CheckFailed, match="Kiali does not answer"):
        gone.version()


class Kube:
    """A cluster whose Deployments are rolled out if `port` is given; a pod of an earlier Kiali stays for one look."""

    def __init__(self, port: int) -> None:
        self.port, self.prometheus, self.jaeger, self.addon, self.ending = port, True, True, False, 1
        self.done: list[str] = []
        self.applied: list[Mapping[str, Any]] = []
        self.waited: list[str] = []

    def apply(self, text: str) -> None:
        self.applied = manifests.objects(text)
        self.done.append("apply")

    def delete(self, text: str) -> None:
        self.done.append("delete")

    def json(self, *args: str) -> Any:
        if args[1] == "deployments":
            assert args[-1] == "app=kiali,!stackbook.lab/page"
            return {"items": [{}] * self.addon}
        assert args == ("get", "pods", "-n", "istio-system", "-l", kiali.SELECTOR)
        assert self.done == ["delete"], "an earlier Kiali has ended before the next one begins"
        pods, self.ending = [{"metadata": {"name": "kiali-1"}}] * self.ending, 0
        return {"items": pods}

    def kubectl(self, *args: str, check: bool) -> Any:
        assert args[0] == "get" and not check
        return SimpleNamespace(ok={"svc/prometheus": self.prometheus, "svc/tracing": self.jaeger}[args[1]])

    def wait_rollout(self, namespace: str, workload: str, *, timeout: float) -> None:
        if not self.port:
            raise WaitTimeout(workload, 1.0, last="ImagePullBackOff")
        self.waited.append(workload)

    def explain(self, namespace: str, selector: str) -> str:
        return "the pod is gone"

    @contextlib.contextmanager
    def port_forward(self, namespace: str, target: str, port: int) -> Iterator[int]:
        assert (namespace, target, port) in [
            ("istio-system", "svc/kiali", 20001),
            ("istio-system", "svc/kiali-prometheus", 9090),
        ]
        yield self.port


def lab(port: int, *, upstream: bool = True) -> Any:
    loaded: list[str] = []

    def load(name: str, *, step: Any) -> None:
        assert step is None
        loaded.append(name)

    images = SimpleNamespace(upstream_envoy=upstream, load=load, loaded=loaded, reference=lambda name: f"here/{name}:1")
    return SimpleNamespace(kube=Kube(port), images=images, profile=SimpleNamespace(target="machines"))


def kinds(found: list[Mapping[str, Any]], kind: str) -> dict[str, Any]:
    return {str(item["metadata"]["name"]): item for item in found if item["kind"] == kind}


def config(found: list[Mapping[str, Any]]) -> Any:
    return yaml.safe_load(kinds(found, "ConfigMap")["kiali"]["data"]["config.yaml"])


def test_with_upstream_envoy_a_prometheus_of_its_own_makes_the_metric(server: Server) -> None:
    found = lab(server.port)
    with kiali.running(found) as page:
        assert page.healthy() and page.rules is not None and page.url == f"http://127.0.0.1:{server.port}/kiali"
        assert found.kube.done == ["delete", "apply"] and not found.kube.ending, "what a killed command left goes first"
    assert found.kube.done == ["delete", "apply", "delete"] and found.images.loaded == ["kiali", "metrics"]
    assert found.kube.waited == ["deployment/kiali-prometheus", "deployment/kiali"]
    assert {name: [c["image"] for c in item["spec"]["template"]["spec"]["containers"]]
            for name, item in kinds(found.kube.applied, "Deployment").items()} == {
        "kiali": ["here/kiali:1"], "kiali-prometheus": ["here/prometheus:1"],
    }  # fmt: skip
    external = config(found.kube.applied)["external_services"]
    assert external["prometheus"]["url"] == "http://kiali-prometheus.istio-system:9090"
    assert external["tracing"]["enabled"] is True
    files = kinds(found.kube.applied, "ConfigMap")["kiali-prometheus"]["data"]
    assert files["rules.yml"] == istio_rules.text(interval=kiali.EVERY)
    settings = yaml.safe_load(files["prometheus.yml"])
    assert settings["remote_read"] == [{"url": "http://prometheus.istio-system:9090/api/v1/read", "read_recent": True}]
    assert "scrape_configs" not in settings and settings["rule_files"] == ["/etc/prometheus/rules.yml"]


REFUSED = (503, {"error": 'Post "http://kiali-prometheus.istio-system:9090/api/v1/query": connect: connection refused'})


def test_a_prometheus_that_refuses_at_first_is_waited_for(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kiali, "until", lambda *args, every, **more: until(*args, every=min(every, 0.01), **more))
    server.first["/kiali/api/namespaces/graph"] = [REFUSED, REFUSED]
    with kiali.running(lab(server.port)) as page:
        assert not server.first["/kiali/api/namespaces/graph"] and len(page.edges()) == 6


def test_a_prometheus_that_always_refuses_is_named_and_everything_is_removed(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kiali, "until", lambda *args, timeout, **more: until(*args, timeout=min(timeout, 0.1), **more))
    server.answers["/kiali/api/namespaces/graph"] = REFUSED
    found = lab(server.port)
    with pytest.raises(WaitTimeout, match=r"Kiali to reach Prometheus.*connection refused"), kiali.running(found):
        raise AssertionError("the block ran")
    assert found.kube.done[-1] == "delete"


def test_where_the_proxies_have_the_metric_nothing_runs_beside_kiali(server: Server) -> None:
    found = lab(server.port, upstream=False)
    found.kube.jaeger = False
    with kiali.running(found) as page:
        assert page.rules is None
    assert set(kinds(found.kube.applied, "Deployment")) == {"kiali"} and found.images.loaded == ["kiali"]
    external = config(found.kube.applied)["external_services"]
    assert external["prometheus"]["url"] == "http://prometheus.istio-system:9090"
    assert external["tracing"]["enabled"] is False


def test_rules_that_fail_are_named_and_everything_is_removed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kiali, "until", lambda *args, timeout, **more: until(*args, timeout=min(timeout, 0.1), **more))
    rule = {"name": "mesh:requests:sent", "health": "err", "lastError": "remote_read: connection refused"}
    server.answers["/api/v1/rules"] = (200, {"status": "success", "data": {"groups": [{"rules": [rule]}]}})
    found = lab(server.port)
    with pytest.raises(WaitTimeout, match="mesh:requests:sent: remote_read: connection refused"), kiali.running(found):
        raise AssertionError("the block ran")
    assert found.kube.done[-1] == "delete"


def test_a_deployment_that_does_not_start_is_named_and_removed() -> None:
    found = lab(0)
    with pytest.raises(WaitTimeout, match="ImagePullBackOff"), kiali.running(found):
        raise AssertionError("the block ran")
    assert found.kube.done == ["delete", "apply", "delete"]


@pytest.mark.parametrize(
    ("change", "words", "fix"),
    [
        (lambda lab: setattr(lab.profile, "target", "cluster"), "rights in the whole cluster", "administrator"),
        (lambda lab: setattr(lab.kube, "addon", True), "addon has installed Kiali", "istioctl dashboard kiali"),
        (lambda lab: setattr(lab.kube, "prometheus", False), "there is no Prometheus", "stackbook run --only 10"),
    ],
    ids=["cluster", "addon", "prometheus"],
)
def test_where_it_cannot_run_nothing_is_changed(change: Any, words: str, fix: str) -> None:
    found = lab(0)
    change(found)
    with pytest.raises(InputError, match=words) as raised, kiali.running(found):
        raise AssertionError("the block ran")
    assert fix in raised.value.fix and found.kube.done == [] and found.images.loaded == []


def test_it_is_at_hand_if_its_image_is_pulled_or_both_parts_are_in_the_cache(tmp_path: Path) -> None:
    def at_hand(pulled: bool, *cached: str) -> bool:
        sources = SimpleNamespace(pulled=lambda name: pulled and name == "kiali")
        artifacts = SimpleNamespace(at_hand=lambda name: tmp_path if name in cached else None)
        found: Any = SimpleNamespace(images=SimpleNamespace(sources=sources), artifacts=artifacts)
        return kiali.at_hand(found)

    assert at_hand(True) and at_hand(False, "kiali", "kiali-pages")
    assert not at_hand(False, "kiali") and not at_hand(False, "kiali-pages")


def test_why_it_does_not_run_is_one_line_with_the_way_to_it(tmp_path: Path) -> None:
    cached: list[str] = []
    found = lab(0)
    found.images.sources = SimpleNamespace(pulled=lambda name: False)
    found.artifacts = SimpleNamespace(at_hand=lambda name: tmp_path if name in cached else None)
    assert kiali.missing(found) == "Kiali is not built yet: stackbook open kiali builds and shows it"
    cached += kiali.PARTS
    assert kiali.missing(found) == ""
    found.kube.prometheus = False
    assert kiali.missing(found).endswith("there is no Prometheus — stackbook run --only 10")


def test_both_graphs_are_of_the_same_window_and_an_edge_of_one_has_zero_in_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[float, float]] = []

    def table(*rows: tuple[str, str, float]) -> pd.DataFrame:
        return pd.DataFrame([(*row, 0.0) for row in rows], columns=COLUMNS)

    def ours(_: Any, words: Any, *, window: float, at: float) -> pd.DataFrame:
        asked.append((window, at))
        return table(("a", "b", 5.0), ("b", "c", 2.0))

    def theirs(_: Kiali, *, window: float, at: float) -> pd.DataFrame:
        asked.append((window, at))
        return table(("a", "b", 4.9), ("c", "d", 1.0))

    monkeypatch.setattr(kiali.graph, "edges", ours)
    monkeypatch.setattr(Kiali, "edges", theirs)
    now = time.time()
    both = kiali.compared(Kiali("http://kiali"), None, None, window=40, settled=12)  # type: ignore[arg-type]
    assert both.set_index(["source", "destination"]).to_dict("index") == {
        ("a", "b"): {"chapter": 5.0, "Kiali": 4.9},
        ("b", "c"): {"chapter": 2.0, "Kiali": 0.0},
        ("c", "d"): {"chapter": 0.0, "Kiali": 1.0},
    }
    assert asked[0] == asked[1] and asked[0][0] == 40 and now - 13 <= asked[0][1] <= now - 11 + 5


# What Kiali 1.89.0 lists and watches at an API server of Kubernetes 1.36 with Istio 1.31's types, according to its audit log.
ASKED = {
    "": {"configmaps", "endpoints", "namespaces", "pods", "services"},
    "apps": {"daemonsets", "deployments", "replicasets", "statefulsets"},
    "extensions.istio.io": {"wasmplugins"},
    "networking.istio.io": {
        "destinationrules", "envoyfilters", "gateways", "serviceentries", "sidecars", "virtualservices", "workloadentries",
        "workloadgroups",
    },
    "security.istio.io": {"authorizationpolicies", "peerauthentications", "requestauthentications"},
    "telemetry.istio.io": {"telemetries"},
}  # fmt: skip


def test_kiali_may_read_what_it_draws_and_nothing_else() -> None:
    found = manifests.objects(kiali.manifest(lab(0), upstream=True, tracing=True))
    rules = kinds(found, "ClusterRole")["kiali"]["rules"]
    allowed: dict[str, set[str]] = {}
    for rule in rules:
        assert set(rule["verbs"]) <= {"get", "list", "watch"} and set(rule) == {"apiGroups", "resources", "verbs"}
        for group in rule["apiGroups"]:
            allowed.setdefault(group, set()).update(rule["resources"])
    gateways = allowed.pop("gateway.networking.k8s.io")
    assert allowed == ASKED and gateways and "*" not in gateways
    (binding,) = kinds(found, "ClusterRoleBinding").values()
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "kiali", "namespace": "istio-system"}]
    for name, item in kinds(found, "Deployment").items():
        spec = item["spec"]["template"]["spec"]
        assert item["metadata"]["labels"]["stackbook.lab/page"] == "kiali", "else it is taken for the addon's"
        assert item["spec"]["template"]["metadata"]["labels"]["sidecar.istio.io/inject"] == "false"
        assert (
            spec.get("serviceAccountName") == "kiali" if name == "kiali" else not spec["automountServiceAccountToken"]
        )
        (container,) = spec["containers"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]} and container["resources"]["limits"]


def test_the_page_looks_and_changes_nothing() -> None:
    found = config(manifests.objects(kiali.manifest(lab(0), upstream=True, tracing=True)))
    assert found["auth"] == {"strategy": "anonymous"} and found["deployment"]["view_only_mode"] is True
    assert found["external_services"]["istio"]["istio_api_enabled"] is False, (
        "it would open connections to istiod's pod"
    )
    assert found["server"]["web_root"] == kiali.PATH and found["server"]["port"] == kiali.PORT
    ports = kinds(manifests.objects(kiali.manifest(lab(0), upstream=False, tracing=False)), "Service")["kiali"]["spec"][
        "ports"
    ]
    assert [port["port"] for port in ports] == [20001, 9090], "as the guide shows them"
