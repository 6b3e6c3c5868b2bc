"""How the mesh is told to trace, which requests it samples, and how requests are sent: without a lab."""

import json
from contextlib import contextmanager
from dataclasses import replace

import pytest
from stackbook.analysis.statistics import AGREES, DIFFERS
from stackbook.config.chapter_parameters import Tracing
from stackbook.config.profile import validate
from stackbook.core.errors import CheckFailed, CommandFailed, InputError, WaitTimeout
from stackbook.core.results import Result
from stackbook.lessons.tracing import protocols
from stackbook.mesh.rules.propagation import Proxy, concerned
from stackbook.observability.tracing import outages, sampling, telemetry
from stackbook.observability.tracing import probe as sending


def test_the_telemetry_resource_names_provider_and_share():
    rule = telemetry.rule(10)
    assert (rule["kind"], rule["metadata"]["namespace"]) == ("Telemetry", "istio-system")
    assert rule["spec"]["tracing"] == [{"providers": [{"name": "jaeger"}], "randomSamplingPercentage": 10.0}]


@pytest.mark.parametrize("share", [-1, 101, "10", True])
def test_a_share_that_is_no_percentage_is_refused(share):
    with pytest.raises(InputError):
        telemetry.rule(share)


@pytest.mark.parametrize(
    "wrong",
    [{"sampling": 101}, {"sampling": 0}, {"rates": []}, {"rates": [200]}, {"rates": [0.1]}, {"retention_hours": 0},
     {"retention_hours": 1000}, {"alpha": 0.7}, {"user": ""}, {"samplin": 5}],
)  # fmt: skip
def test_parameters_out_of_range_are_refused(wrong):
    with pytest.raises(InputError):
        validate(Tracing, wrong, where="chapter 11-tracing")


def test_a_telemetry_of_the_root_namespace_concerns_every_proxy():
    known = {
        "a.default": Proxy("a", "default", "sidecar", 1, (), ""),
        "g.istio-system": Proxy("g", "istio-system", "router", 1, (), ""),
    }
    assert concerned([telemetry.rule(1)], known) == set(known)
    assert concerned([telemetry.rule(1, namespace="default")], known) == {"a.default"}


PROVIDER = {
    "name": "envoy.tracers.opentelemetry",
    "typed_config": {"grpc_service": {"envoy_grpc": {"cluster_name": f"outbound|4317||{telemetry.collector()}"}}},
}


class Kube:
    """Answers of the API and of proxies; anything else is an error."""

    def __init__(self, **answers):
        self.answers, self.asked = answers, []

    def json(self, *args):
        return self.answers["json"][args[1]]

    def exec(self, namespace, target, *argv, **more):
        self.asked.append((namespace, target, argv, more))
        return Result(argv, 0, self.answers["exec"](argv), "", 0.1)

    def kubectl(self, *args, **more):
        self.asked.append(args)
        return Result(args, 0, "", "", 0.1)


def mesh(*providers):
    return {"configmap": {"data": {"mesh": json.dumps({"extensionProviders": list(providers)})}}}


JAEGER = {"name": "jaeger", "opentelemetry": {"service": telemetry.collector(), "port": 4317}}


def test_the_provider_is_added_only_where_it_is_missing():
    assert telemetry.ensure_provider(Kube(json=mesh(JAEGER))) == 0
    kube = Kube(json=mesh({"name": "otel", "envoyOtelAls": {}}))
    assert telemetry.ensure_provider(kube) == 1
    assert "jaeger-collector" in kube.asked[0][-1] and "envoyOtelAls" in kube.asked[0][-1]
    with pytest.raises(CheckFailed, match="another"):
        telemetry.ensure_provider(Kube(json=mesh({"name": "jaeger", "zipkin": {}})))


def dump(share=10.0, provider=PROVIDER):
    listeners = [{"filters": [{"tracing": {"provider": provider, "random_sampling": {"value": share}}}]}]
    return lambda argv: json.dumps({"configs": listeners})


def test_the_share_in_the_proxies_is_read_and_anything_odd_is_noticed():
    assert telemetry.share_in_proxies(Kube(json=mesh(JAEGER), exec=dump())) == 10.0
    with pytest.raises(CheckFailed, match="no provider"):
        telemetry.share_in_proxies(Kube(json=mesh(), exec=dump()))
    with pytest.raises(CheckFailed, match="has no tracer"):
        telemetry.share_in_proxies(Kube(json=mesh(JAEGER), exec=lambda argv: json.dumps({"tracing": {}})))
    with pytest.raises(CheckFailed, match="elsewhere"):
        telemetry.share_in_proxies(Kube(json=mesh(JAEGER), exec=dump(provider={"name": "envoy.tracers.zipkin"})))
    with pytest.raises(CheckFailed, match="different shares"):
        telemetry.share_in_proxies(Kube(json=mesh(JAEGER), exec=dump(share=0.0)))


class Draining(Kube):
    """Two proxies; that of one pod has so many filter chains to drain, one less each time it is asked."""

    def __init__(self, chains, *, slow="productpage-1"):
        self.chains, self.slow = chains, slow
        super().__init__(exec=self.said)

    def pods(self, namespace, selector):
        names = ["productpage-1"] if namespace == "default" else ["ingress-1"]
        return [{"metadata": {"name": name}, "spec": {"containers": [{"name": "istio-proxy"}]}} for name in names]

    def said(self, argv):
        pod = self.asked[-1][1]
        count = max(self.chains, 0) if pod == self.slow else 0
        self.chains -= pod == self.slow
        names = ("total_filter_chains_draining", "total_listeners_draining")
        return "".join(f"listener_manager.{name}: {n}\n" for name, n in zip(names, (count, 0), strict=True))


def test_what_still_drains_is_waited_for_and_named_at_the_deadline():
    kube = Draining(2)
    telemetry.drained(kube, timeout=10)
    assert [target for _, target, _, _ in kube.asked] == ["productpage-1"] * 3 + ["ingress-1"]
    with pytest.raises(WaitTimeout, match=r"last seen: productpage-1: 8$"):
        telemetry.drained(Draining(9), timeout=0)


def test_what_drains_longer_than_the_first_is_waited_for_and_named_too():
    kube = Draining(2, slow="ingress-1")
    telemetry.drained(kube, timeout=10)
    assert [target for _, target, _, _ in kube.asked] == ["productpage-1"] + ["ingress-1"] * 3
    with pytest.raises(WaitTimeout, match=r"last seen: ingress-1: 8$"):
        telemetry.drained(Draining(9, slow="ingress-1"), timeout=0)


def test_a_proxy_that_says_nothing_is_not_taken_for_drained():
    kube = Draining(0)
    kube.answers["exec"] = lambda argv: ""
    with pytest.raises(CheckFailed, match="does not report which listeners"):
        telemetry.drained(kube, timeout=0)


def test_a_pod_that_goes_while_it_is_asked_does_not_end_the_wait():
    class Going(Draining):
        def said(self, argv):
            if len(self.asked) == 1:
                raise CommandFailed(Result(("kubectl", "exec"), 1, "", "container not found", 0.1))
            return super().said(argv)

    kube = Going(0)
    telemetry.drained(kube, timeout=10)
    assert len(kube.asked) >= 3


@pytest.mark.parametrize(("now", "changes"), [(100, 0), (10, 1), (None, 1)])
def test_what_is_as_it_was_is_not_waited_for(monkeypatch, now, changes):
    made, waited = [], []
    monkeypatch.setattr(telemetry, "found", lambda kube: [telemetry.rule(now)] if now else [])
    monkeypatch.setattr(telemetry, "propagate", lambda kube, change, rules: made.append(rules))
    monkeypatch.setattr(telemetry, "drained", waited.append)
    telemetry.put_back("kube", [telemetry.rule(100)])
    assert (len(made), len(waited)) == (changes, changes)


def test_services_and_ports_of_clusters_are_read():
    names = [
        "outbound|9080|v3|reviews.default.svc.cluster.local",
        "outbound|4317||jaeger-collector.x",
        "inbound|9080||",
    ]
    said = json.dumps({"cluster_statuses": [{"name": name} for name in names]})
    found = telemetry.clusters(Kube(exec=lambda argv: said), "deploy/a")
    assert found == {("reviews.default.svc.cluster.local", 9080), ("jaeger-collector.x", 4317)}


def test_what_is_built_in_is_read_from_the_bootstrap():
    extensions = [{"name": "envoy.tracers.zipkin", "category": "envoy.tracers"}, {"name": "b", "category": "c"}]
    bootstrap = {"@type": "x.BootstrapConfigDump", "bootstrap": {"node": {"extensions": extensions}}}
    found = telemetry.built_in(Kube(exec=lambda argv: json.dumps({"configs": [bootstrap]})), "deploy/a")
    assert found == ["envoy.tracers.zipkin"]
    with pytest.raises(CheckFailed):
        telemetry.built_in(Kube(exec=lambda argv: json.dumps({"configs": []})), "deploy/a")


# sending


def test_a_probe_is_a_traceparent():
    probe = sending.Probe("http://a/", trace_id="0" * 31 + "1", parent_id="0" * 15 + "2", sampled=False)
    assert probe.traceparent == f"00-{'0' * 31}1-{'0' * 15}2-00"
    assert sending.Probe("http://a/").traceparent.endswith("-01")


def test_requests_are_sent_with_their_headers_and_no_others():
    kube = Kube(exec=lambda argv: "200\n503\n")
    assert sending.request(kube, [("http://a/1", {"x-a": 'q"1'}), ("http://a/2", {})], rate=2) == [200, 503]
    _, _, argv, more = kube.asked[0]
    assert argv == ("curl", "--rate", "120/m", "-K", "-")
    first, second = more["stdin"].split("next\n")
    assert 'header = "x-a: q\\"1"' in first and "header" not in second.replace("write-out", "")
    sending.request(kube, [("http://a/1", {}), ("http://a/2", {})], parallel=2)
    assert kube.asked[1][2] == ("curl", "-Z", "--parallel-max", "2", "-K", "-")
    with pytest.raises(CheckFailed, match="2 of 1"):
        sending.request(kube, [("http://a/1", {})])


def test_a_flood_that_is_not_answered_is_an_error():
    assert len(sending.flood(Kube(exec=lambda argv: "200\n" * 3), "http://a/", 3)) == 16
    assert sending.flood(
        Kube(exec=lambda argv: "200\n" * 92 + "503\n" * 8), "http://a/", 100
    )  # all that were under way
    assert sending.flood(Kube(exec=lambda argv: "200\n" * 990 + "503\n" * 10), "http://a/", 1000)
    with pytest.raises(CheckFailed, match="91 of 100"):
        sending.flood(Kube(exec=lambda argv: "200\n" * 91 + "503\n" * 9), "http://a/", 100)
    with pytest.raises(CheckFailed, match="99 of 100"):
        sending.flood(Kube(exec=lambda argv: "200\n" * 99 + "000\n"), "http://a/", 100)
    with pytest.raises(CheckFailed, match="1 of 3"):
        sending.flood(Kube(exec=lambda argv: "200\n503\n503\n"), "http://a/", 3, parallel=1)
    with pytest.raises(InputError):
        sending.flood(Kube(), "http://a/", 0)


class Cut(Kube):
    """The stream of kubectl exec breaks, the first `times` times."""

    def __init__(self, times):
        super().__init__(exec=lambda argv: "200\n" * 3)
        self.times = times

    def exec(self, *words, **more):
        said = super().exec(*words, **more)
        if len(self.asked) > self.times:
            return said
        reason = "error: error reading from error stream: next reader: read tcp: connection reset by peer"
        return replace(said, rc=1, stdout="200\n", stderr=reason)


def test_a_flood_whose_stream_breaks_is_sent_once_more_under_a_new_mark():
    kube = Cut(1)
    mark = sending.flood(kube, "http://a/", 3)
    first, second = (asked[2][-1] for asked in kube.asked)
    assert mark in second and mark not in first
    with pytest.raises(CheckFailed, match=r"1 of 3 .*reset by peer"):
        sending.flood(Cut(2), "http://a/", 3)


IDS = [f"0000000{n}-0000-{digit}000-8000-000000000000" for n, digit in ((1, "9"), (2, "4"), (3, "9"))]


def log(mark):
    entries = [{"path": f"/ratings/0?mark={mark}&n={n}", "request_id": id} for n, id in enumerate(IDS)]
    return ["Envoy proxy is ready", *map(json.dumps, [*entries, {"path": "/other", "request_id": IDS[0]}, {"path": 1}])]


def test_the_decision_is_read_from_the_id():
    assert list(sending.decisions(log("m"), "m").values()) == ["sampled", "not traced", "sampled"]
    assert sending.decisions(log("m"), "other") == {}


# sampling


@pytest.mark.parametrize(
    ("digits", "share", "traced"),
    [("00000000", 0.01, True), ("00000001", 0.01, False), ("000003e7", 10, True), ("000003e8", 10, False),
     ("00002710", 0.01, True), ("ffffffff", 100, True)],
)  # fmt: skip
def test_the_first_eight_digits_decide(digits, share, traced):
    assert sampling.predicted(f"{digits}-0000-4000-8000-000000000000", share) is traced


def test_an_id_that_demands_a_trace_is_not_one_that_is_drawn():
    id = sampling.demanded()
    assert id[14] == "9" and not sampling.predicted(id, 50)


def test_the_sample_tells_a_share_from_another():
    for share in (100, 10, 1):
        n = sampling.needed(share, alpha=0.0003, power=0.99)
        exact = sampling.Counted(share, n, frozenset(), frozenset(map(str, range(round(n * share / 100)))))
        assert exact.test(alpha=0.0003, least=n).verdict == AGREES
        other = 3 * share if share < 34 else 90
        wrong = sampling.Counted(share, n, frozenset(), frozenset(map(str, range(round(n * other / 100)))))
        assert wrong.test(alpha=0.0003, least=n).verdict == DIFFERS


def test_a_lost_span_and_one_too_many_are_seen():
    assert sampling.Counted(10, 10, frozenset("ab"), frozenset("bc")).differ == ["a", "c"]


# formats


def test_one_span_in_each_format():
    span = protocols.Handmade("shop", trace_id="ab" * 16, span_id="cd" * 8, began=1_700_000_000.0, took=0.25)
    zipkin = protocols.as_zipkin(span)[0]
    assert (zipkin["timestamp"], zipkin["duration"], zipkin["localEndpoint"]) == (
        1_700_000_000_000_000, 250_000, {"serviceName": "shop"})  # fmt: skip
    inner = protocols.as_otlp_json(span)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    assert int(inner["endTimeUnixNano"]) - int(inner["startTimeUnixNano"]) == 250_000_000
    message = protocols.as_otlp(span).resource_spans[0]
    sent = message.scope_spans[0].spans[0]
    assert (sent.trace_id.hex(), sent.span_id.hex(), sent.kind) == (span.trace_id, span.span_id, 2)
    assert sent.end_time_unix_nano - sent.start_time_unix_nano == 250_000_000
    assert message.resource.attributes[0].value.string_value == "shop"


# switches


@pytest.mark.parametrize(("env", "on"), [([], True), ([("false")], False), (["true"], True), (["0"], False)])
def test_the_switch_is_read(env, on):
    values = [{"name": outages.SWITCH, "value": value} for value in env]
    spec = {"spec": {"template": {"spec": {"containers": [{"env": values}]}}}}
    assert outages.forwarding(Kube(json={"deployment/a": spec}), "a") is on


class Switched(Kube):
    def wait_rollout(self, *args, **more):
        self.asked.append(("rollout",))

    def pods(self, *args):
        return []


class Settles:
    def settle(self):
        pass


def test_headers_are_handed_on_again_also_after_an_error():
    kube = Switched()
    with pytest.raises(ZeroDivisionError), outages.not_forwarding(kube, Settles(), "reviews-v3"):
        raise ZeroDivisionError
    flags = [args[-1] for args in kube.asked if args[0] == "set"]
    assert flags == [f"{outages.SWITCH}=false", f"{outages.SWITCH}-"]


@contextmanager
def nothing():
    yield 0


def test_jaeger_on_a_machine_of_somebody_else_is_not_killed():
    pod = {
        "metadata": {"name": "jaeger-1"},
        "spec": {"nodeName": "theirs"},
        "status": {"containerStatuses": [{"name": "jaeger", "containerID": "containerd://1", "restartCount": 0}]},
    }

    class One(Switched):
        def pods(self, *args):
            return [pod]

    with pytest.raises(CheckFailed, match="theirs"):
        outages.kill(One(), {})


class Pods:
    """A cluster with these pods, of which some are being deleted."""

    def __init__(self, *names, going=()):
        pods = [{"name": name, "namespace": "default"} for name in names]
        pods += [{"name": name, "namespace": "default", "deletionTimestamp": "now"} for name in going]
        self.pods = [{"metadata": pod} for pod in pods]

    def wait_rollout(self, namespace, name, *, timeout):
        pass

    def json(self, *args):
        assert args == ("get", "pods", "-A")
        return {"items": self.pods}


def test_a_proxy_whose_pod_is_gone_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(outages, "proxies", lambda kube: {"a.default": 1})
    known = {"a.default", "gone.default", "going.default"}
    outages.reconnected(Pods("a", going=["going"]), known, timeout=0.2)
    with pytest.raises(WaitTimeout, match=r"missing: b\.default$"):
        outages.reconnected(Pods("a", "b", going=["going"]), known | {"b.default"}, timeout=0.2)


def test_a_share_is_counted_once_more_where_a_request_is_not_in_the_log(monkeypatch):
    """The kubelet has rotated it meanwhile; a second time it is no accident."""
    tries = []

    def counted(*given):
        tries.append(given)
        if len(tries) % 2 or len(tries) > 2:
            raise WaitTimeout("each request is in the log", 1)
        return "the second count"

    monkeypatch.setattr(sampling, "_count", counted)
    given = ("kube", "jaeger", list, 10, 100)
    assert sampling.count(*given) == "the second count" and tries == [given] * 2
    with pytest.raises(WaitTimeout, match="each request is in the log"):
        sampling.count(*given)
    assert len(tries) == 4
