"""The rules that give Envoy's counters Istio's name and labels: by their text, and in the lab's own Prometheus."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from gotools import MARKS
from stackbook.core.child_processes import end, free_port
from stackbook.core.waiting import until
from stackbook.observability.metrics import istio_rules, kiali
from stackbook.observability.metrics.client import Prometheus

# The labels that Kiali 1.89 sums by (graph/telemetry/istio/istio.go and appender/security_policy.go in its module), except
# grpc_response_status, which only requests of gRPC have. It leaves out series that lack one.
WANTED = {
    "source_cluster", "source_workload_namespace", "source_workload", "source_canonical_service", "source_canonical_revision",
    "source_principal", "destination_cluster", "destination_service_namespace", "destination_service",
    "destination_service_name", "destination_workload_namespace", "destination_workload", "destination_canonical_service",
    "destination_canonical_revision", "destination_principal", "connection_security_policy", "request_protocol",
    "response_code", "response_flags",
}  # fmt: skip
REPLACED = re.compile(r', "(\w+)", "([^"]*)", "(\w+)", "([^"]*)"\)')


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(istio_rules.text(interval=5))["groups"]
    assert (group["name"], group["interval"]) == ("envoy-as-istio", "5s")
    found: list[dict[str, Any]] = group["rules"]
    return found


def labelled(query: str, labels: Mapping[str, str]) -> dict[str, str]:
    """What nested `label_replace`s of a query make of labels; an empty label is none."""
    found = dict(labels)
    for target, value, source, pattern in REPLACED.findall(query):
        if match := re.fullmatch(pattern, found.get(source, "")):
            found[target] = match.expand(value.replace("$", "\\"))
    return {name: value for name, value in found.items() if value}


def rule(record: str) -> str:
    return next(str(one["expr"]) for one in rules() if one["record"] == record)


def test_each_rule_reads_what_rules_before_it_have_recorded() -> None:
    """A rule that read its own result, or that of a later one, would get the one of the evaluation before."""
    done: set[str] = set()
    names = {one["record"] for one in rules()}
    for number, one in enumerate(rules()):
        read = set(re.findall(r"mesh:\w+:\w+", one["expr"]))
        later = {other["record"] for other in rules()[number:]}
        assert read <= done and not read & later, one["record"]
        assert one["expr"].count("(") == one["expr"].count(")")
        done.add(one["record"])
    assert istio_rules.METRIC in names and len(names) == 8


@pytest.mark.parametrize(
    ("pod", "workload"),
    [
        ("productpage-v1-6b9f7d9c4d-x7k2p", "productpage-v1"),
        ("istio-ingressgateway-5d8f7c9b6-zz9xk", "istio-ingressgateway"),
        ("elasticsearch-0", "elasticsearch"),
        ("log-shipper-x7k2p", "log-shipper"),
        ("load", "load"),
        ("my-small-world", "my-small-world"),  # no hash has an "o"
    ],
)
def test_a_pod_is_one_of_its_workload(pod: str, workload: str) -> None:
    labels = {"pod": pod, "namespace": "shop", "cluster_name": "outbound|80||a.shop.svc.cluster.local"}
    found = labelled(rule(istio_rules.SENT), labels)
    assert (found["source_workload"], found["source_canonical_service"]) == (workload, workload), "it has no label app"
    assert (found["source_workload_namespace"], found["source_canonical_revision"]) == ("shop", "latest")
    live = labelled(rule(istio_rules.LIVE), labels)
    assert (live["destination_workload"], live["destination_service_name"]) == (workload, workload)


@pytest.mark.parametrize(
    ("cluster", "wanted"),
    [
        ("outbound|9080||reviews.default.svc.cluster.local;",
         {"destination_service": "reviews.default.svc.cluster.local", "destination_service_name": "reviews",
          "destination_service_namespace": "default"}),
        ("outbound|9080|v3|reviews.default.svc.cluster.local",
         {"destination_service": "reviews.default.svc.cluster.local", "destination_service_name": "reviews",
          "destination_service_namespace": "default", "subset": "v3"}),
        ("outbound|443||api.example.org;",
         {"destination_service": "api.example.org", "destination_service_name": "api.example.org",
          "destination_service_namespace": "unknown"}),
    ],
)  # fmt: skip
def test_a_cluster_names_the_service_and_the_subset(cluster: str, wanted: dict[str, str]) -> None:
    labels = {"pod": "load", "namespace": "default", "app": "load", "version": "v2", "cluster_name": cluster}
    found = labelled(rule(istio_rules.SENT), labels)
    assert wanted.items() <= found.items() and ("subset" in found) == ("subset" in wanted)
    assert found["destination_workload_namespace"] == wanted["destination_service_namespace"]
    assert (found["source_canonical_service"], found["source_canonical_revision"]) == ("load", "v2")
    assert re.search(r"sum without \(([\w,]+)\)", rule(istio_rules.SENT))[1].split(",") == [  # type: ignore[index]
        "job", "instance", "namespace", "app", "version", "cluster_name",
    ]  # fmt: skip
    assert not re.fullmatch("outbound[|].+", "inbound|9080||;") and 'cluster_name=~"outbound[|].+"' in rule(
        istio_rules.SENT
    )


def test_both_reports_have_every_label_that_kiali_sums_by() -> None:
    reports = [one for one in rules() if one["record"] == istio_rules.METRIC]
    assert [one["labels"]["reporter"] for one in reports] == ["source", "destination"]
    sent = labelled(rule(istio_rules.SENT), {"pod": "a", "namespace": "b", "cluster_name": "outbound|1|s|c.d.svc.x"})
    for one in reports:
        steps = {
            "destination_workload",
            "destination_canonical_service",
            "destination_canonical_revision",
            "response_code",
        }
        assert {*sent, *one["labels"], *steps} >= WANTED
        assert one["labels"]["response_flags"] == "-" and one["labels"]["request_protocol"] == "http"
    # Where the workload is not known, the three are given by the rule itself, or by the service's name.
    for record in (istio_rules.TO_APP, istio_rules.TO_HOST):
        found = next(one for one in rules() if one["record"] == record)
        assert found["labels"]["destination_workload"] == found["labels"]["destination_canonical_revision"] == "unknown"
    assert '"destination_canonical_service", "$1", "destination_service_name"' in rule(istio_rules.TO_APP)


def cluster(service: str, subset: str = "") -> str:
    return f"outbound|9080|{subset}|{service}.default.svc.cluster.local;"


# Pod: (app, version, {(cluster, status): requests a second}, the same for tries after the first).
PODS: dict[str, tuple[str, str, dict[tuple[str, str], int], dict[tuple[str, str], int]]] = {
    "istio-ingressgateway-7d9c8b6f5d-x7k2p": ("istio-ingressgateway", "", {(cluster("productpage"), "200"): 20}, {}),
    "productpage-v1-6b9f7d9c4d-bcdfg": (
        "productpage", "v1",
        {(cluster("details"), "200"): 20, (cluster("reviews"), "200"): 18, (cluster("reviews"), "503"): 2},
        {(cluster("reviews"), "503"): 4},
    ),
    "reviews-v1-5d8f7c9b6d-k2x7p": ("reviews", "v1", {("inbound|9080||;", "200"): 10}, {}),
    "reviews-v3-5d8f7c9b6d-k2x7r": ("reviews", "v3", {(cluster("ratings", "v1"), "200"): 8}, {}),
    "ratings-v1-5d8f7c9b6d-k2x7s": ("ratings", "v1", {("inbound|9080||;", "200"): 8}, {}),
    "details-v1-5d8f7c9b6d-k2x7t": ("details", "v1", {}, {}),
    "load": ("load", "", {(cluster("reviews", "v3"), "200"): 6, (cluster("reviews", "v9"), "503"): 4,
                          ("outbound|443||api.example.org;", "200"): 2}, {}),
}  # fmt: skip
RATES = {  # source, destination's service, app, workload, status: requests a second
    ("istio-ingressgateway", "productpage", "productpage", "productpage-v1", "200"): 20,
    ("productpage-v1", "details", "details", "details-v1", "200"): 20,
    ("productpage-v1", "reviews", "reviews", "unknown", "200"): 18,  # which of both versions answered is not known
    ("productpage-v1", "reviews", "reviews", "unknown", "503"): 6,
    ("reviews-v3", "ratings", "ratings", "ratings-v1", "200"): 8,
    ("load", "reviews", "reviews", "reviews-v3", "200"): 6,
    ("load", "reviews", "reviews", "unknown", "503"): 4,  # a subset without pods
    ("load", "api.example.org", "unknown", "unknown", "200"): 2,
}


class Proxies:
    """Answers as the proxies of PODS, whose counters rise evenly."""

    def __init__(self) -> None:
        start = time.monotonic()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                seconds = time.monotonic() - start
                _, _, first, again = PODS[self.path.strip("/")]
                lines = ["envoy_server_live 1"]
                for name, counts in (("upstream_rq", first), ("retry_upstream_rq", again)):
                    for (target, code), rate in counts.items():
                        lines += [f'envoy_cluster_{name}{{cluster_name="{target}",{label}}} {int(100 + rate * seconds)}'
                                  for label in (f'response_code="{code}"', f'response_code_class="{code[0]}xx"')]  # fmt: skip
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write("".join(f"{line}\n" for line in lines).encode())

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, daemon=True)
        self.thread.start()

    def configuration(self, rules: str) -> str:
        targets = [
            {"targets": [f"127.0.0.1:{self.http.server_port}"],
             "labels": {"__metrics_path__": f"/{pod}", "instance": pod, "pod": pod, "app": app, "version": version,
                        "namespace": "istio-system" if "gateway" in pod else "default"}}
            for pod, (app, version, _, _) in PODS.items()
        ]  # fmt: skip
        every = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        return yaml.safe_dump({"global": every, "rule_files": [rules],
                               "scrape_configs": [{"job_name": "envoy", "static_configs": targets}]})  # fmt: skip

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """The lab's Prometheus on loopback, with the rules."""
    from stackbook.artifacts.resolver import Resolver

    folder, proxies, port = tmp_path_factory.mktemp("prometheus"), Proxies(), free_port()
    (folder / "rules.yml").write_text(istio_rules.text(interval=1))
    (folder / "prometheus.yml").write_text(proxies.configuration("rules.yml"))
    program: Path = Resolver.open().path("prometheus")
    command = [str(program), f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
               f"--web.listen-address=127.0.0.1:{port}"]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield Prometheus(f"http://127.0.0.1:{port}")
    finally:
        end(process)
        proxies.close()


@pytest.mark.slow
@pytest.mark.toolchain
@MARKS[-1]  # the lab's Prometheus is compiled if the cache does not have it
def test_prometheus_makes_istios_metric_of_envoys_counters(prometheus: Prometheus) -> None:
    from stackbook.core.errors import CheckFailed

    def evaluated() -> list[str]:
        try:
            return kiali.pending(prometheus)
        except CheckFailed as error:  # it does not listen yet
            return [error.message]

    until(
        lambda: not evaluated(), what="the rules to be evaluated", timeout=60, every=0.5, last=lambda: str(evaluated())
    )
    labels = ("source_workload", "destination_service_name", "destination_canonical_service", "destination_workload",
              "response_code")  # fmt: skip
    found: dict[tuple[str, ...], float] = {}

    def right() -> bool:
        query = f'sum by ({",".join(labels)}) (rate(istio_requests_total{{reporter="source"}}[15s]))'
        rows = prometheus.query(query).to_dict("records")
        found.clear()
        found.update({tuple(str(row[label]) for label in labels): float(row["value"]) for row in rows})
        return found.keys() == RATES.keys() and all(abs(found[key] / rate - 1) < 0.15 for key, rate in RATES.items())

    until(right, what="the rates to be those of the counters", timeout=60, every=1, last=lambda: str(found))
    both = prometheus.query("count by (reporter) (istio_requests_total)")
    assert len(set(both["value"])) == 1 and set(both["reporter"]) == {"source", "destination"}
    bare = prometheus.query("istio_requests_total")
    for row in bare.to_dict("records"):
        lacking = [label for label in WANTED if not isinstance(row.get(label), str) or not row[label]]
        assert not lacking, row
