"""Prometheus' answers, counted and drawn: golden answers from a server on loopback."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pandas as pd
import pytest
import yaml
from stackbook.cluster import manifests
from stackbook.config.chapter_parameters import Metrics
from stackbook.config.profile import Profile, validate
from stackbook.core.errors import CheckFailed, InputError, WaitTimeout
from stackbook.core.waiting import pause
from stackbook.observability import metrics
from stackbook.observability.metrics import counting, deploy, dialects, graph, panels, scrape_lag

ENVOY, ISTIO = dialects.ENVOY, dialects.ISTIO
TO_REVIEWS = {"app": "productpage", "cluster_name": "outbound|9080||reviews.default.svc.cluster.local;"}
ISTIO_EDGE = {"source_canonical_service": "productpage", "destination_canonical_service": "reviews"}


def vector(*series: tuple[dict[str, str], float]) -> dict[str, Any]:
    return {"resultType": "vector", "result": [{"metric": m, "value": [100.0, str(v)]} for m, v in series]}


class Server:
    """Answers by path and query; what is not foreseen is a 400 as Prometheus gives it."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.asked: list[str] = []
        self.lookback: list[float] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                query = parse_qs(parts.query).get("query", [""])[0]
                outer.lookback += map(float, parse_qs(parts.query).get("lookback_delta", []))
                outer.asked.append(query or parts.path)
                key = query or parts.path.rpartition("/")[2]
                answer = outer.answers.get(key)
                body = (
                    {"status": "success", "data": answer}
                    if answer is not None
                    else {"status": "error", "error": "parse error"}
                )
                self.send_response(200 if answer is not None else 400)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.client = metrics.Prometheus(f"http://127.0.0.1:{self.http.server_port}")


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.http.serve_forever, daemon=True)
    thread.start()
    yield made
    made.http.shutdown()
    made.http.server_close()


def test_each_question_is_asked_in_both_vocabularies() -> None:
    rows = metrics.questions()
    assert len(rows) == 5
    for row in rows:
        istio, envoy = row["Istio's own proxy"], row["upstream Envoy"]
        assert "istio_request" in istio and "envoy_" not in istio
        assert "envoy_cluster_" in envoy and "istio_" not in envoy
        assert not re.search("WINDOW|QUANTILE", istio + envoy)
        assert istio.count("(") == istio.count(")") and envoy.count("(") == envoy.count(")")


def test_an_answer_becomes_a_table_with_a_column_per_label(server: Server) -> None:
    server.answers["up"] = vector(({"job": "envoy", "pod": "a"}, 1), ({"job": "istiod", "pod": "b"}, 0))
    found = server.client.query("up")
    assert found[["job", "pod", "value"]].to_dict("records") == [
        {"job": "envoy", "pod": "a", "value": 1.0},
        {"job": "istiod", "pod": "b", "value": 0.0},
    ]


def test_no_series_are_an_empty_table_with_the_columns_that_are_read(server: Server) -> None:
    server.answers["nothing"] = vector()
    assert list(server.client.query("nothing").columns) == ["timestamp", "value"]


def test_a_query_that_cannot_be_read_is_one_line(server: Server) -> None:
    with pytest.raises(InputError, match="cannot answer 'sum\\('"):
        server.client.query("sum(")


@pytest.mark.parametrize("ask", [lambda p: p.targets(), lambda p: p.query("up")], ids=["targets", "query"])
def test_a_server_that_has_gone_is_one_line(server: Server, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As while its pod starts again behind a port-forward."""
    monkeypatch.setattr("urllib3.util.retry.Retry.sleep", lambda *_: None)
    gone = metrics.Prometheus(server.client.url.rpartition(":")[0] + ":1")
    with pytest.raises(CheckFailed, match="Prometheus does not answer") as caught:
        ask(gone)
    assert "kubectl get pods" in caught.value.fix


def test_times_are_those_of_the_samples_in_order(server: Server) -> None:
    server.answers["up[10m]"] = {"resultType": "matrix", "result": [{"metric": {}, "values": [[20, "1"], [10, "1"]]}]}
    assert server.client.times("up") == [10.0, 20.0]


UP = 'up{job=~"envoy"}'


def target(job: str, pod: str, health: str = "up", error: str = "") -> dict[str, Any]:
    return {"labels": {"job": job, "pod": pod, "instance": "10.0.0.1:1"}, "health": health, "lastError": error,
            "lastScrape": "2026-11-23T07:00:00.5Z", "lastScrapeDuration": 0.25}  # fmt: skip


def test_a_target_that_is_down_is_named_with_its_error_and_since_when(server: Server) -> None:
    server.answers["targets"] = {"activeTargets": [target("envoy", "a"), target("envoy", "b", "down", "refused")]}
    query = "max by (job, pod, node, instance) (max_over_time(timestamp(up == 1)[1h:5s]))"
    server.answers[query] = vector(({"job": "envoy", "pod": "b"}, 1234.0), ({"job": "envoy", "pod": "a"}, 9999.0))
    assert server.client.down().to_dict("records") == [
        {"job": "envoy", "instance": "b", "error": "refused", "since": 1234.0}
    ]


def test_scrapes_are_waited_for_and_the_late_one_is_named(server: Server) -> None:
    server.answers["targets"] = {"activeTargets": [target("envoy", "a"), target("kubelet", "n")]}
    server.answers[UP] = vector(({"job": "envoy", "pod": "a", "instance": "10.0.0.1:1"}, 1))
    at = pd.Timestamp("2026-11-23T07:00:00Z").timestamp()
    assert metrics.wait_scraped(server.client, after=at) == pytest.approx(at + 0.75)
    with pytest.raises(WaitTimeout, match="a"):
        metrics.wait_scraped(server.client, after=at + 60, timeout=0.3)


def test_a_scrape_counts_when_its_samples_are_stored(server: Server) -> None:
    """Without those of one proxy, all that it had ever counted was taken for new: 119 requests of 104."""
    server.answers["targets"] = {"activeTargets": [target("envoy", "a"), target("envoy", "b")]}
    server.answers[UP] = vector(({"job": "envoy", "pod": "a"}, 1))
    at = pd.Timestamp("2026-11-23T07:00:00Z").timestamp()
    with pytest.raises(WaitTimeout, match=r"last seen: b$"):
        metrics.wait_scraped(server.client, after=at, timeout=0.3)
    server.answers[UP] = vector(({"job": "envoy", "pod": "a"}, 1), ({"job": "envoy", "instance": "b"}, 1))
    assert metrics.wait_scraped(server.client, after=at, timeout=0.3) > at


def test_a_target_that_was_not_scraped_yet_is_waited_for_and_one_that_is_down_is_not(server: Server) -> None:
    """As after a start of Prometheus: what it has of a proxy then is of before its end."""
    new = target("envoy", "new", "unknown") | {"lastScrape": "0001-01-01T00:00:00Z"}
    server.answers["targets"] = {
        "activeTargets": [target("envoy", "a"), target("envoy", "gone", "down", "refused"), new]
    }
    at = pd.Timestamp("2026-11-23T07:00:00Z").timestamp()
    with pytest.raises(WaitTimeout, match=r"last seen: new$"):
        metrics.wait_scraped(server.client, after=at, timeout=0.3)


class Pods:
    """The part of a cluster that `expected` reads."""

    def __init__(self, *pods: dict[str, Any]) -> None:
        self.items = list(pods)

    def json(self, *_: str) -> dict[str, Any]:
        return {"items": self.items}

    def nodes(self) -> list[dict[str, Any]]:
        return [{"metadata": {"name": "k8s-node1"}}]


def pod(name: str, port: str = "http-envoy-prom", **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels}, "spec": {"containers": [{"name": "c", "ports": [{"name": port}]}]},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}  # fmt: skip


class FakeLab:
    def __init__(self, *pods: dict[str, Any]) -> None:
        self.kube = Pods(*pods)
        self.profile = Profile.load()


def test_what_should_be_scraped_and_is_not_is_named(server: Server) -> None:
    lab: Any = FakeLab(pod("a"), pod("b"), pod("istiod-1", "x", app="istiod"))
    up = [target("envoy", "a"), target("envoy", "b", "down", "refused"), target("kubelet", "k8s-node1"),
          target("cadvisor", "k8s-node1"), target("prometheus", "localhost:9090")]  # fmt: skip
    server.answers["targets"] = {"activeTargets": up}
    assert metrics.missing(lab, server.client) == ["envoy b: refused", "istiod istiod-1: Prometheus does not know it"]


def counts(*rows: tuple[str, str, str, int, int]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["pod", *metrics.KEYS, "count"])


def test_counters_rise_by_what_was_sent_and_a_restarted_one_counts_from_zero() -> None:
    before = counts(
        ("p1", "reviews", "v1", 200, 100), ("p2", "reviews", "v2", 200, 50), ("p3", "ratings", "v1", 200, 7)
    )
    after = counts(("p1", "reviews", "v1", 200, 130), ("p2", "reviews", "v2", 200, 5), ("p3", "ratings", "v1", 200, 7),
                   ("p1", "reviews", "v1", 404, 2))  # fmt: skip
    found = metrics.advanced(before, after)
    assert found.values.tolist() == [["reviews", "v1", 200, 30], ["reviews", "v1", 404, 2], ["reviews", "v2", 200, 5]]
    assert metrics.advanced(before, after, services=["ratings"]).empty


def test_equal_counts_agree_and_one_request_less_is_noticed() -> None:
    frame = pd.DataFrame({"version": ["v1", "v1", "v2"], "status": [200, 200, 404]})
    client = metrics.client_counts(frame, "reviews")
    assert metrics.agree(client, client) == []
    less = client.assign(count=client["count"] - [1, 0])
    assert metrics.agree(client, less) == ["reviews v1 200: the client counted 2, the proxies 1"]
    assert len(metrics.agree(client, less.iloc[1:])) == 1, "a count that is not there at all"


@pytest.mark.parametrize(
    ("chosen", "answers"),
    [
        (ENVOY, [
            vector(({**TO_REVIEWS, "response_code": "200"}, 90),
                   ({**TO_REVIEWS, "response_code": "503"}, 5),
                   ({"app": "productpage", "cluster_name": "xds-grpc;", "response_code": "200"}, 9)),
            vector(({**TO_REVIEWS, "response_code": "503"}, 5)),
        ]),
        (ISTIO, [
            vector(({**ISTIO_EDGE, "response_code": "200"}, 90),
                   ({**ISTIO_EDGE, "response_code": "503"}, 10)),
        ]),
    ],
    ids=["envoy", "istio"],
)  # fmt: skip
def test_both_vocabularies_give_the_same_edge(server: Server, chosen: dialects.Vocabulary, answers: list[Any]) -> None:
    for query, answer in zip(chosen.between, answers, strict=True):
        server.answers[chosen.fill(query, window=20)] = answer
    found = metrics.edges(server.client, chosen, window=20)
    assert found.to_dict("records") == [
        {"source": "productpage", "destination": "reviews", "requests": 5.0, "errors": pytest.approx(0.1)}
    ]


def test_the_graph_runs_from_where_requests_come_in_and_marks_errors() -> None:
    table = pd.DataFrame([["gateway", "productpage", 30.0, 0.0], ["productpage", "reviews", 30.0, 0.2],
                          ["reviews", "ratings", 20.0, 0.0]], columns=graph.COLUMNS)  # fmt: skip
    made = metrics.service_graph(table)
    places = graph.layout(made)
    assert places["gateway"][0] < places["productpage"][0] < places["reviews"][0] < places["ratings"][0]
    figure = metrics.draw(made, title="t")
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert "30/s\n20% errors" in texts and sum("errors" in text for text in texts) == 1


def test_a_sidecar_without_a_figure_yet_is_waited_for_and_named(server: Server) -> None:
    class Kube:
        def pods(self, namespace: str) -> list[dict[str, Any]]:
            own = [{"name": "app"}, {"name": "istio-proxy"}]
            native = {"containers": own[:1], "initContainers": own[1:]}
            specs = {
                "default": {"old": {"containers": own}, "new": native},
                "istio-system": {"plain": {"containers": own[:1]}},
            }
            return [{"metadata": {"name": name}, "spec": spec} for name, spec in specs[namespace].items()]

    def figures(**bytes_of: float) -> dict[str, Any]:
        return vector(
            *(({"namespace": "default", "pod": p, "container": "istio-proxy"}, b) for p, b in bytes_of.items())
        )

    kube: Any = Kube()
    server.answers |= {panels.USAGE["cpu"]: figures(ended=0.1)}
    for too_small in (0, 4096):
        server.answers[panels.USAGE["memory"]] = figures(old=5e7, new=too_small)
        with pytest.raises(WaitTimeout, match=r"cAdvisor to have a figure.*: new"):
            metrics.wait_usage(kube, server.client, namespaces=["default", "istio-system"], timeout=0.2)
    server.answers[panels.USAGE["memory"]] = figures(old=5e7, new=4e7)
    found = metrics.wait_usage(kube, server.client, namespaces=["default", "istio-system"], timeout=5)
    assert dict(zip(found["pod"], found["memory"], strict=True)) == {"old": 5e7, "new": 4e7}
    with pytest.raises(WaitTimeout, match="no pod has a sidecar"):
        metrics.wait_usage(kube, server.client, namespaces=["istio-system"], timeout=0.2)


def test_a_bucket_is_found_by_its_limits(server: Server) -> None:
    query = f"group by (le) ({ENVOY.buckets})"
    server.answers[query] = vector(*(({"le": le}, 1) for le in ("0.5", "5", "25", "+Inf")))
    assert panels.bucket_limits(server.client, ENVOY, 7.0) == (5.0, 25.0)
    assert panels.bucket_limits(server.client, ENVOY, 100.0) == (25.0, float("inf"))


def test_signals_have_rates_error_shares_and_seconds(server: Server) -> None:
    def matrix(*series: tuple[dict[str, str], float]) -> dict[str, Any]:
        return {"resultType": "matrix", "result": [{"metric": m, "values": [[100.0, str(v)]]} for m, v in series]}

    labels = {"app": "reviews", "version": "v1"}
    server.answers[ENVOY.fill(ENVOY.rate, window=15)] = matrix(
        ({**labels, "response_code": "200"}, 8.0), ({**labels, "response_code": "503"}, 2.0))  # fmt: skip
    for quantile, value in ((0.5, 4), (0.95, 20), (0.99, 40)):
        server.answers[ENVOY.fill(ENVOY.latency, window=15, quantile=quantile)] = matrix((labels, value))
    found = panels.signals(server.client, ENVOY, start=90, end=110)
    row = found.to_dict("records")[0]
    assert (row["rate"], row["errors"], row["p50"], row["p95"], row["p99"]) == (10.0, 0.2, 0.004, 0.02, 0.04)
    assert len(panels.golden(found, services=("reviews",), title="t").axes) == 3


def test_an_alert_that_does_not_fire_is_an_error_that_says_what_there_is(server: Server) -> None:
    server.answers["alerts"] = {"alerts": [{"labels": {"alertname": "Other"}, "state": "firing"}]}
    with pytest.raises(WaitTimeout, match="Other"):
        metrics.firing(server.client, "RequestsFail", timeout=0.4)
    server.answers["alerts"] = {
        "alerts": [{"labels": {"alertname": "RequestsFail", "app": "reviews"}, "state": "firing"}]
    }
    assert metrics.firing(server.client, "RequestsFail")["service"] == "reviews"


def test_a_counter_that_stands_still_is_an_error(server: Server) -> None:
    server.answers[ENVOY.served] = vector(({"pod": "p", "app": "ratings", "version": "v1", "response_code": "200"}, 3))
    with pytest.raises(WaitTimeout, match="the counter was 3, and is 3 after 1 requests"):
        metrics.latency_of_observation(server.client, ENVOY, lambda: None, service="ratings", tries=1, timeout=0.3)


def test_the_gap_is_the_longest_time_without_a_sample() -> None:
    assert scrape_lag.longest_gap([1.0]) == 0.0
    assert scrape_lag.longest_gap([5.0, 10.0, 30.0]) == 20.0


@pytest.mark.parametrize("chosen", [ENVOY, ISTIO], ids=["envoy", "istio"])
def test_the_manifest_is_whole_and_its_configuration_readable(chosen: dialects.Vocabulary) -> None:
    text = manifests.render("prometheus.yaml", scrape="5", slow="10", retention="24", image_prometheus="i", mark="m",
                            errors=chosen.errors, requests=chosen.requests)  # fmt: skip
    objects = list(yaml.safe_load_all(text))
    assert {o["kind"] for o in objects} == {
        "ServiceAccount",
        "ClusterRole",
        "ClusterRoleBinding",
        "ConfigMap",
        "Deployment",
        "Service",
    }
    data = next(o for o in objects if o["kind"] == "ConfigMap")["data"]
    configuration = yaml.safe_load(data["prometheus.yml"])
    assert {job["job_name"] for job in configuration["scrape_configs"]} == set(deploy.JOBS)
    assert chosen.metric in yaml.safe_load(data["alerts.yml"])["groups"][0]["rules"][0]["expr"]


def test_a_learners_prometheus_asks_for_nothing_outside_their_namespace() -> None:
    text = manifests.render("prometheus.yaml", scrape="5", slow="10", retention="24", image_prometheus="i", mark="m",
                            errors=ISTIO.errors, requests=ISTIO.requests)  # fmt: skip
    objects = list(yaml.safe_load_all(deploy.learners(text, "ada")))
    assert {o["kind"] for o in objects} == {"ServiceAccount", "ConfigMap", "Deployment", "Service"}
    assert {(o["metadata"]["namespace"], o["metadata"]["labels"]["app"]) for o in objects} == {("ada", "prometheus")}
    data = next(o for o in objects if o["kind"] == "ConfigMap")["data"]
    jobs = yaml.safe_load(data["prometheus.yml"])["scrape_configs"]
    assert sorted(job["job_name"] for job in jobs) == ["envoy", "prometheus"]
    assert [found["namespaces"] for job in jobs for found in job.get("kubernetes_sd_configs", ())] == [
        {"names": ["ada"]}
    ]
    whole = next(o for o in yaml.safe_load_all(text) if o["kind"] == "ConfigMap")["data"]
    assert data["alerts.yml"] == whole["alerts.yml"]


@pytest.mark.parametrize("chosen", [ENVOY, ISTIO], ids=["envoy", "istio"])
def test_a_learners_own_calls_are_those_of_their_namespace(chosen: dialects.Vocabulary) -> None:
    theirs = chosen.of("ada")
    assert all("default" not in query and "ada" in query for query in theirs.between)
    assert chosen.of("default") == chosen


@pytest.mark.parametrize(("name", "value"), [("retention_hours", 0), ("retention_hours", 10_000), ("scrape_seconds", 0),
                                             ("requests", 3), ("rate", 100_000)])  # fmt: skip
def test_sizes_out_of_range_are_refused(name: str, value: int) -> None:
    with pytest.raises(InputError, match=name):
        validate(Metrics, {name: value}, where="chapter 10-metrics")


def test_there_is_no_prometheus(monkeypatch: pytest.MonkeyPatch) -> None:
    class Kube:
        def kubectl(self, *_: str, check: bool = True) -> Any:
            return type("Result", (), {"ok": False})()

    kube: Any = Kube()
    with pytest.raises(CheckFailed, match="no Prometheus"), metrics.opened(kube):
        pass


def test_a_count_around_requests_takes_only_what_was_scraped_since(server: Server) -> None:
    """Started anew, Prometheus still has the last value of a counter that is no longer there: 2 of 98 requests were counted."""
    server.answers["targets"] = {"activeTargets": [target("envoy", "a") | {"lastScrape": "2100-01-01T00:00:00Z"}]}
    server.answers[ENVOY.served] = vector()
    server.answers[UP] = vector(({"job": "envoy", "pod": "a"}, 1))
    began = time.time()
    rise, sent = metrics.around(
        server.client, ENVOY, lambda: pd.DataFrame({"sent": [pause(1.0)]}), services=["ratings"]
    )
    assert rise.empty and len(sent) == 1
    _, before, _, after = server.lookback  # those between are of the waits
    assert 0 < before <= rise.attrs["at"] - began - 1.0 and 0 < after < 1.0
    assert server.client.query(ENVOY.served).empty and len(server.lookback) == 4


def test_counts_of_services_are_whole_numbers(server: Server) -> None:
    server.answers[ENVOY.served] = vector(({"pod": "p", "app": "ratings", "version": "v1", "response_code": "200"}, 3))
    assert counting.service_counts(server.client, ENVOY).to_dict("records") == [
        {"pod": "p", "service": "ratings", "version": "v1", "status": 200, "count": 3}
    ]
