"""Rules are refused before anything is applied, waited for by pushes and acknowledgements, and taken back always."""

import contextlib
import copy
import json
import socket
import threading
import time
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stackbook.core.errors import CheckFailed, InputError, TransportError, WaitTimeout
from stackbook.core.results import Result
from stackbook.mesh import rules
from stackbook.mesh.rules import istiod_debug, propagation, push_contexts

UUID = "1f0c5e3a-8d1b-4c53-9d42-6a1f0b7c9e11"
POD = {"app": "reviews", "pod-template-hash": "x"}


def service(name):
    return {"kind": "Service", "metadata": {"name": name}, "spec": {"selector": {"app": name}}}


def pod(app, version):
    labels = {"app": app, "version": version}
    return {"kind": "Pod", "metadata": {"name": f"{app}-{version}-x", "labels": labels}}


class FakeMesh:
    """An API server, an istiod and proxies, as far as rules go; a call that it does not know is an error."""

    def __init__(self):
        self.rules, self.version, self.push, self.calls = {}, 100, 7, []
        self.read_after = 1  # looks at istiod until it has read a change
        self.acked_after = 1  # looks at the proxies until they have acknowledged it
        self.rejects = ""  # why the proxies do not take what rules there are
        self.accepts_after = 0  # looks at the proxies until they have accepted what is without the rules
        self._reads = self._acks = 0
        self.istiod = {}
        self.gathers = 0.1  # seconds from what istiod has read to its push
        self._due = 0.0
        self.fixed = [service("reviews"), service("ratings")]
        self.fixed += [pod("reviews", v) for v in ("v1", "v2", "v3")] + [pod("ratings", "v1")]

    def _changed(self):
        self._reads, self._acks = self.read_after, self.acked_after

    def apply(self, manifest):
        changed = 0
        for rule in manifest:
            stored = self.rules.get((rule["kind"], rule["metadata"]["name"]))
            if stored is None or stored["spec"] != rule["spec"]:
                self.version += 1
                changed += 1
                self.rules[rule["kind"], rule["metadata"]["name"]] = copy.deepcopy(rule) | {
                    "metadata": {**rule["metadata"], "uid": "u", "generation": self.version}
                }
        self.calls.append(("apply", [r["metadata"]["name"] for r in manifest], changed))
        if changed:
            self._changed()
        return changed

    def delete(self, manifest):
        self.calls.append(("delete", [r["metadata"]["name"] for r in manifest]))
        self._changed()
        return sum(self.rules.pop((r["kind"], r["metadata"]["name"]), None) is not None for r in manifest)

    def kubectl(self, *args, stdin=None):
        assert args == ("replace", "-f", "-")
        items = json.loads(stdin)["items"]
        self.calls.append(("replace", [r["metadata"]["name"] for r in items]))
        for rule in items:
            self.version += 1
            self.rules[rule["kind"], rule["metadata"]["name"]] = rule
            rule["metadata"] |= {"uid": "u", "generation": self.version}
        self._changed()
        return Result(args, 0, "", "", 0)

    def json(self, *args, timeout=60.0):
        assert args[0] == "get" and args[2:] == ("-n", "default"), args
        wanted = {name.partition(".")[0] for name in args[1].split(",")}
        plural = {"services": "Service", "pods": "Pod"} | {v.partition(".")[0]: k for k, v in rules.KINDS.items()}
        singular = {kind.lower(): kind for kind in rules.KINDS}
        kinds = {plural.get(name) or singular[name] for name in wanted}
        return {"items": copy.deepcopy([i for i in [*self.fixed, *self.rules.values()] if i["kind"] in kinds])}

    def ask(self, path):
        return {"/debug/configz": self._configz, "/debug/syncz": self._syncz, "/metrics": self._metrics}[path]()

    def _metrics(self):
        name = "pilot_pushcontext_init_seconds"
        return f'{name}_bucket{{le="0.01"}} 1\n{name}_sum {self.push / 1000}\n{name}_count {self.push}\n'

    def _configz(self):
        if self._reads:
            self._reads -= 1
        if not self._reads and self.istiod != self.rules:
            self.istiod = copy.deepcopy(self.rules)
            self._due = time.monotonic() + self.gathers
        return json.dumps(list(self.istiod.values()))

    def _syncz(self):
        if self._due and time.monotonic() >= self._due:
            self.push, self._due = self.push + 1, 0.0
        behind = self._due or self.istiod != self.rules
        if not behind and self._acks:
            self._acks -= 1
        sent = f"2026-11-23T03:45:00Z/{self.push}{UUID}"
        acked = sent if not self._acks or behind else f"2026-11-23T03:45:00Z/{self.push - 1}{UUID}"
        rejecting = self.rejects and self.push > 7 and (self.istiod or self.accepts_after)
        if not self.istiod and self.accepts_after:
            self.accepts_after -= 1
        if rejecting:
            acked = "2026-11-23T03:45:00Z/7" + UUID
        status = {"sent": sent, "acked": acked, "lastError": self.rejects if rejecting else ""}
        url = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
        ids = {
            "reviews-v1-x.default": "sidecar",
            "productpage-v1-x.default": "sidecar",
            "ingress-x.istio-system": "router",
        }
        query = {"proxy": "test-1.default", "proxy_type": "sidecar", "resources": {url: {}}}
        return json.dumps(
            [{"proxy": id, "proxy_type": kind, "resources": {url: status}} for id, kind in ids.items()] + [query]
        )


@pytest.fixture(autouse=True)
def one_istiod(monkeypatch):
    monkeypatch.setattr(propagation, "connect", lambda kube: contextlib.nullcontext({"istiod-1": kube.ask}))


DESTINATION = rules.destination_rule("reviews", versions=["v1", "v2", "v3"], balance="RANDOM")
HALVES = rules.virtual_service("reviews", rules.route(*rules.split("reviews", {"v1": 50, "v3": 50})))


def test_the_guides_rule_is_what_the_builders_make():
    guide = rules.parsed(
        """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: default}
spec:
  hosts: [reviews]
  http:
  - match: [{headers: {end-user: {exact: jason}}}]
    fault:
      abort: {httpStatus: 500, percentage: {value: 30.0}}
      delay: {percentage: {value: 30.0}, fixedDelay: 5s}
    route: [{destination: {host: reviews, subset: v2}}]
  - route:
    - {destination: {host: reviews, subset: v1}, weight: 50}
    - {destination: {host: reviews, subset: v3}, weight: 50}
"""
    )
    made = rules.virtual_service(
        "reviews",
        rules.route(
            rules.to("reviews", "v2"),
            headers={"end-user": "jason"},
            fault=rules.fault(abort_percent=30, delay_percent=30),
        ),
        rules.route(*rules.split("reviews", {"v1": 50, "v3": 50})),
    )
    assert guide == [made]


@pytest.mark.parametrize(
    "build",
    [
        lambda: rules.fault(abort_percent=130),
        lambda: rules.fault(abort_percent=-1),
        lambda: rules.fault(abort_percent="30"),
        lambda: rules.fault(delay_percent=float("nan")),
        lambda: rules.fault(delay_percent=True),
        lambda: rules.fault(delay_seconds=-5),
        lambda: rules.fault(delay_seconds="5 s"),
        lambda: rules.fault(delay_seconds="-5s"),
        lambda: rules.fault(delay_seconds=""),
        lambda: rules.fault(delay_seconds="soon"),
        lambda: rules.fault(delay_seconds=0),
        lambda: rules.fault(delay_seconds=float("inf")),
        lambda: rules.fault(delay_seconds="٥s"),
        lambda: rules.fault(abort_status=99),
        lambda: rules.fault(abort_status="500"),
        lambda: rules.split("reviews", {"v1": 50, "v3": 40}),
        lambda: rules.split("reviews", {"v1": 150, "v3": -50}),
        lambda: rules.split("reviews", {"v1": 99.5, "v3": 0.5}),
        lambda: rules.split("reviews", {}),
        lambda: rules.destination_rule("reviews", balance="RANDOMLY"),
        lambda: rules.peer_authentication("all", "strict"),
        lambda: rules.route(rules.to("reviews"), timeout="2"),
    ],
)
def test_numbers_out_of_range_are_refused_with_their_fix(build):
    with pytest.raises(InputError) as caught:
        build()
    assert caught.value.fix


@given(st.floats(0.001, 3600))
def test_a_duration_is_read_back_as_it_was_written(value):
    assert rules.seconds("delay", rules.duration("delay", value)) == pytest.approx(value, abs=0.0006)


def changed(rule, path, value):
    rule = copy.deepcopy(rule)
    place = rule
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return rule


FAULTY = rules.virtual_service(
    "reviews",
    rules.route(
        rules.to("reviews", "v2"),
        fault=rules.fault(abort_percent=30, delay_percent=30),
        timeout=3,
        retries={"perTryTimeout": "2s"},
    ),
)
HTTP = ("spec", "http", 0)

MISFITS = {
    "no service has the host": [rules.virtual_service("revews", rules.route(rules.to("revews")))],
    "did you mean reviews": [rules.virtual_service("revews", rules.route(rules.to("revews")))],
    "no service has the host nowhere": [rules.destination_rule("nowhere", versions=["v1"])],
    "no DestinationRule defines subset v1 of ratings": [
        DESTINATION, rules.virtual_service("reviews", rules.route(rules.to("ratings", "v1")))
    ],
    "no pod matches subset v9": [rules.destination_rule("reviews", versions=["v1", "v9"])],
    "have version v1, v2, v3": [rules.destination_rule("reviews", versions=["v9"])],
    "do not sum to 100": [DESTINATION, changed(HALVES, (*HTTP, "route", 0, "weight"), 40)],
    "weight is -50": [DESTINATION, changed(HALVES, (*HTTP, "route", 0, "weight"), -50)],
    "abort percentage is 130": [DESTINATION, changed(FAULTY, (*HTTP, "fault", "abort", "percentage", "value"), 130)],
    "delay percentage is -1": [DESTINATION, changed(FAULTY, (*HTTP, "fault", "delay", "percentage", "value"), -1)],
    "fixedDelay is '-5s'": [DESTINATION, changed(FAULTY, (*HTTP, "fault", "delay", "fixedDelay"), "-5s")],
    "timeout is 'soon'": [DESTINATION, changed(FAULTY, (*HTTP, "timeout"), "soon")],
    "perTryTimeout is ''": [DESTINATION, changed(FAULTY, (*HTTP, "retries", "perTryTimeout"), "")],
}  # fmt: skip


@pytest.mark.parametrize("says", MISFITS)
def test_rules_that_do_not_fit_are_refused_before_anything_is_applied(says):
    kube = FakeMesh()
    with pytest.raises(InputError) as caught, rules.applied(kube, *MISFITS[says]):
        raise AssertionError("the block ran")
    assert says in str(caught.value)
    assert caught.value.fix
    assert kube.calls == []


def test_rules_that_fit_pass():
    mesh = rules.inventory(FakeMesh())
    outside = rules.service_entry("shop", host="shop.example", port=80, address="192.168.98.2")
    elsewhere = rules.virtual_service("far", rules.route(rules.to("far.other.svc.cluster.local")))
    whole = rules.virtual_service("reviews.default.svc.cluster.local", rules.route(rules.to("reviews.default", "v1")))
    shop = rules.virtual_service("shop.example", rules.route(rules.to("shop.example")))
    rules.check(
        [DESTINATION, HALVES, FAULTY, outside, elsewhere, whole, shop, rules.sidecar("all", egress=["./*"])], mesh
    )


def test_a_subset_of_a_rule_that_is_already_there_will_do():
    kube = FakeMesh()
    kube.apply([DESTINATION])
    rules.check([HALVES], rules.inventory(kube))


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_the_rules_found_are_there_again_whatever_the_block_does(error):
    kube = FakeMesh()
    kube.apply([DESTINATION])
    before = rules.found(kube)
    other = rules.virtual_service("ratings", rules.route(rules.to("ratings")))
    try:
        with rules.applied(
            kube,
            rules.destination_rule("reviews", versions=["v1"]),
            rules.virtual_service("reviews", rules.route(rules.to("reviews", "v1"))),
        ) as waited:
            assert waited > 0
            kube.apply([other])
            kube.delete([DESTINATION])
            if error:
                raise error
    except (RuntimeError, KeyboardInterrupt):
        assert error
    assert rules.found(kube) == before
    assert "uid" not in before[0]["metadata"]


def test_a_changed_rule_is_replaced_so_that_what_was_added_goes():
    kube = FakeMesh()
    kube.apply([DESTINATION])
    with rules.applied(kube, changed(DESTINATION, ("spec", "trafficPolicy", "loadBalancer", "simple"), "ROUND_ROBIN")):
        pass
    assert ("replace", ["reviews"]) in kube.calls


def test_the_block_starts_once_every_proxy_has_acknowledged():
    kube = FakeMesh()
    kube.read_after, kube.acked_after = 3, 3
    with rules.applied(kube, DESTINATION):
        assert kube.istiod.keys() == kube.rules.keys()
        assert all(not proxy.pending for proxy in rules.proxies(kube).values())


def test_what_changes_nothing_is_not_waited_for():
    kube = FakeMesh()
    kube.apply([DESTINATION])
    kube.read_after = 10**6
    with rules.applied(kube, DESTINATION) as waited:
        assert waited == 0


def test_a_rejected_rule_has_its_cause_and_is_taken_back():
    kube = FakeMesh()
    kube.rejects = "unknown cluster 'outbound|9080|v1|ratings'"
    with (
        pytest.raises(CheckFailed, match=r"rejected the rules.*unknown cluster") as caught,
        rules.applied(kube, DESTINATION),
    ):
        raise AssertionError("the block ran")
    assert caught.value.fix
    assert kube.rules == {}


def test_an_old_rejection_does_not_hinder_what_takes_its_cause_away():
    kube = FakeMesh()
    kube.gathers = 0
    kube.apply([DESTINATION])
    kube._configz()
    kube._syncz()
    kube.gathers = 0.1
    kube.rejects, kube.accepts_after = "Invalid duration", 3
    assert all(proxy.rejected for proxy in rules.proxies(kube).values())
    assert propagation.propagate(kube, lambda: kube.delete([DESTINATION]), [DESTINATION], timeout=5) > 0


def answers(at, generation, pushes, *, istiod="a", pending=(), rejected="", contexts=0, seconds=0.0):
    """An istiod's answers in a poll of 10 ms: the generation of the one rule that it has read, and the newest push of each proxy."""
    known = {
        id: propagation.Proxy(id, "default", "sidecar", push, tuple(pending), rejected, istiod)
        for id, push in pushes.items()
    }
    made = push_contexts.Contexts(contexts or max(pushes.values()), seconds) if contexts is not None else None
    return propagation.Answers({RULE: f"u/{generation}"}, known, at, at + 0.005, at + 0.01, made)


def look(at, generation, pushes, **more):
    return {"a": answers(at, generation, pushes, **more)}


RULE = ("VirtualService", "default", "reviews")
NOW = {RULE: "u/2"}


def test_a_push_under_way_for_an_earlier_change_is_not_taken_for_the_rules():
    looks = [look(0, 1, {"x": 7}), look(0.04, 1, {"x": 7}), look(0.08, 2, {"x": 8})]
    assert propagation.missing(looks, NOW, {"x"}) == ["x: push 8, not acknowledged: nothing"]
    looks.append(look(0.18, 2, {"x": 8}))
    looks.append(look(0.2, 2, {"x": 9}, pending=["Cluster"]))
    assert propagation.missing(looks, NOW, {"x"}) == ["x: push 9, not acknowledged: Cluster"]
    assert propagation.missing([*looks, look(0.3, 2, {"x": 9})], NOW, {"x"}) == []


def test_a_push_that_was_begun_before_the_rules_were_read_is_not_theirs_however_late_it_is_sent():
    """On a busy machine istiod took 0.15 s to make what it sends: the rules came meanwhile, and are in the next push."""
    looks = [
        look(0, 1, {"x": 7}),
        look(0.05, 2, {"x": 7}),
        look(0.19, 2, {"x": 7}),
        look(0.25, 2, {"x": 8}, seconds=0.18),
    ]
    assert propagation.missing(looks, NOW, {"x"}) == ["x: push 8, not acknowledged: nothing"]
    looks.append(look(0.35, 2, {"x": 8}, contexts=9, seconds=0.2))
    assert propagation.missing(looks, NOW, {"x"}) == ["x: push 8, not acknowledged: nothing"], "made, and not sent"
    assert propagation.missing([*looks, look(0.4, 2, {"x": 9}, seconds=0.2)], NOW, {"x"}) == []


def test_a_push_that_was_begun_after_the_rules_were_read_has_them():
    looks = [
        look(0, 1, {"x": 7}),
        look(0.05, 2, {"x": 7}),
        look(0.15, 2, {"x": 7}),
        look(0.2, 2, {"x": 8}, seconds=0.02),
    ]
    assert propagation.missing(looks, NOW, {"x"}) == []


def test_a_push_that_may_be_theirs_is_taken_when_no_other_is_due():
    """Nobody looked for half a second: the push may be that of the rules, and no other will come."""
    looks = [look(0, 1, {"x": 7}), look(0.5, 2, {"x": 8}), look(0.8, 2, {"x": 8})]
    assert propagation.missing(looks, NOW, {"x"}) == ["x: push 8, not acknowledged: nothing"]
    assert propagation.missing([*looks, look(0.95, 2, {"x": 8})], NOW, {"x"}) == []


def test_a_proxy_that_a_later_push_does_not_concern_is_not_waited_for_for_ever():
    looks = [look(0, 1, {"x": 7, "y": 7}), look(0.3, 2, {"x": 8, "y": 8}), look(0.5, 2, {"x": 8, "y": 10})]
    looks.append(look(1.5, 2, {"x": 8, "y": 10}))
    assert propagation.missing(looks, NOW, {"x", "y"}) == ["x: push 8, not acknowledged: nothing"]
    assert propagation.missing([*looks, look(2.6, 2, {"x": 8, "y": 10})], NOW, {"x", "y"}) == []


@pytest.mark.parametrize("contexts", [None, 3])
def test_an_istiod_that_counts_otherwise_is_judged_by_time_alone(contexts):
    looks = [look(0, 1, {"x": 7}, contexts=contexts), look(0.08, 2, {"x": 8}, contexts=contexts)]
    assert propagation.missing(looks, NOW, {"x"})
    assert propagation.missing([*looks, look(0.3, 2, {"x": 9}, contexts=contexts)], NOW, {"x"}) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("pilot_pushcontext_init_seconds_sum 0.5\npilot_pushcontext_init_seconds_count 12\n", (12, 0.5)),
        ('pilot_pushcontext_init_seconds_sum{a="b"} 1e-3\npilot_pushcontext_init_seconds_count{a="b"} 3\n', (3, 0.001)),
        ("pilot_pushcontext_init_seconds_count 12\n", None),
        ("pilot_pushcontext_init_seconds_sum x\npilot_pushcontext_init_seconds_count y\n", None),
        ("", None),
    ],
)
def test_the_push_contexts_are_read_from_istiods_metrics(text, found):
    expected = push_contexts.Contexts(*found) if found else None
    assert push_contexts.finished({"/metrics": text}.get) == expected


def test_a_rejection_of_an_earlier_push_is_not_one_of_the_rules():
    looks = [look(0, 1, {"x": 7}), look(0.05, 2, {"x": 8}, rejected="other"), look(0.15, 2, {"x": 8}, rejected="other")]
    assert propagation.missing(looks, NOW, {"x"})
    with pytest.raises(CheckFailed, match="other"):
        propagation.missing([*looks, look(0.3, 2, {"x": 9}, rejected="other")], NOW, {"x"})


def test_a_rejection_by_a_proxy_that_the_rules_do_not_concern_is_not_one_of_them():
    """Somebody else has applied at the same time what the proxies of another namespace reject."""

    def both(at, generation, push, rejected):
        other = answers(at, generation, {"y": push}, pending=["Cluster"], rejected=rejected, istiod="b")
        return {"a": answers(at, generation, {"x": push}), "b": other}

    looks = [both(0, 1, 7, ""), both(0.05, 2, 7, ""), both(0.15, 2, 8, ""), both(0.3, 2, 9, "Invalid duration")]
    assert propagation.missing(looks, NOW, {"x"}) == []
    for wanted in ({"x", "y"}, set()):
        with pytest.raises(CheckFailed, match="y rejects it: Invalid duration"):
            propagation.missing(looks, NOW, wanted)


def test_what_was_no_change_of_a_spec_is_not_waited_for():
    assert propagation.missing([look(0, 2, {"x": 7}), look(0.1, 2, {"x": 7})], NOW, {"x"}) == []


def test_each_istiod_counts_its_own_pushes():
    def both(at, generation, first, second):
        two = answers(at, generation, {"y": second}, istiod="b")
        return {"a": answers(at, generation, {"x": first}), "b": two}

    looks = [both(0, 1, 7, 300), both(0.05, 1, 7, 300), both(0.1, 2, 7, 300), both(0.2, 2, 8, 300)]
    assert propagation.missing(looks, NOW, {"x", "y"}) == ["y: push 300, not acknowledged: nothing"]
    assert propagation.missing([*looks, both(0.3, 2, 8, 301)], NOW, {"x", "y"}) == []


def test_an_istiod_that_ends_meanwhile_is_an_error_and_no_timeout():
    kube = FakeMesh()

    def change():
        kube.ask = broken
        return kube.apply([DESTINATION])

    def broken(path):
        raise TransportError("the request /debug/syncz to istiod istiod-1 failed")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            propagation, "connect", lambda kube: contextlib.nullcontext({"istiod-1": lambda path: kube.ask(path)})
        )
        with pytest.raises(TransportError, match="to istiod istiod-1 failed"):
            propagation.propagate(kube, change, [DESTINATION], timeout=5)


def test_rules_that_do_not_arrive_are_a_timeout_that_says_who_waits():
    kube = FakeMesh()
    kube.read_after = 10**6
    with pytest.raises(WaitTimeout, match="istiod-1 has not read"):
        propagation.propagate(kube, lambda: kube.apply([DESTINATION]), [DESTINATION], timeout=0.4)
    kube = FakeMesh()
    kube.acked_after = 10**6
    with pytest.raises(WaitTimeout, match=r"productpage-v1-x: push 8, not acknowledged: RouteConfiguration"):
        propagation.propagate(kube, lambda: kube.apply([DESTINATION]), [DESTINATION], timeout=3)


@pytest.mark.parametrize(
    ("rule", "proxies"),
    [
        (HALVES, {"reviews-v1-x.default", "productpage-v1-x.default"}),
        (rules.gateway("in"), {"ingress-x.istio-system"}),
        (
            rules.virtual_service("bookinfo", rules.route(rules.to("reviews")), gateways=["in"]),
            {"ingress-x.istio-system"},
        ),
        (
            rules.virtual_service("both", rules.route(rules.to("reviews")), gateways=["in", "mesh"]),
            {"reviews-v1-x.default", "productpage-v1-x.default", "ingress-x.istio-system"},
        ),
        (rules.sidecar("narrow", egress=["./*"]), set()),
    ],
)
def test_the_proxies_that_a_rule_concerns(rule, proxies):
    assert propagation.concerned([rule], rules.proxies(FakeMesh())) == proxies


class Api:
    """The official client, as far as istiod is asked for; no connection is made to pods that do not run."""

    def __init__(self, *phases):
        self.phases = phases

    def list_namespaced_pod(self, namespace, label_selector):
        assert (namespace, label_selector) == ("istio-system", "app=istiod")
        pods = [
            SimpleNamespace(metadata=SimpleNamespace(name="istiod-1"), status=SimpleNamespace(phase=p))
            for p in self.phases
        ]
        return SimpleNamespace(items=pods)


@pytest.mark.parametrize("phases", [(), ("Pending",)])
def test_no_istiod_is_said(phases):
    with (
        pytest.raises(CheckFailed, match="no istiod is running"),
        istiod_debug.connect(SimpleNamespace(api=Api(*phases))),
    ):
        pass


def test_istiod_is_asked_over_one_connection(monkeypatch):
    ours, theirs = socket.socketpair()
    forward = SimpleNamespace(socket=lambda port: ours)
    monkeypatch.setattr("kubernetes.stream.portforward", lambda *args, **options: forward)
    api = Api("Running")
    api.connect_get_namespaced_pod_portforward = None
    answers = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno",
        b"",
    ]
    asked = []

    def serve():
        with theirs:
            for answer in answers:
                asked.append(theirs.recv(4096).split()[1].decode())
                theirs.sendall(answer)

    server = threading.Thread(target=serve)
    server.start()
    with istiod_debug.connect(SimpleNamespace(api=api)) as istiods:
        assert istiods["istiod-1"]("/debug/syncz") == "[]"
        with pytest.raises(CheckFailed, match="403: no"):
            istiods["istiod-1"]("/debug/configz")
        with pytest.raises(TransportError, match="to istiod istiod-1 failed"):
            istiods["istiod-1"]("/debug/syncz")
    server.join(5)
    assert asked == ["/debug/syncz", "/debug/configz", "/debug/syncz"]


def test_sets_in_turn_replace_each_other_and_what_was_there_comes_back():
    mesh = FakeMesh()
    mesh.apply([found := rules.gateway("own", hosts=["*"])])
    only = {v: rules.virtual_service("reviews", rules.route(rules.to("reviews", v))) for v in ("v1", "v3")}
    names = lambda: sorted(name for _, name in mesh.rules)  # noqa: E731
    with rules.in_turn(mesh) as use:
        assert use(DESTINATION, only["v1"]) == 2
        mesh.calls.clear()
        assert use(DESTINATION, only["v3"]) == 1
        assert mesh.calls == [("apply", ["reviews"], 1)]
        assert mesh.rules["VirtualService", "reviews"]["spec"] == only["v3"]["spec"]
        assert use() == 2
        assert names() == ["own"]
        with pytest.raises(InputError):  # what the set before brought is no help
            use(only["v1"])
        assert names() == ["own"]
        use(DESTINATION)
    assert names() == ["own"] and mesh.rules["Gateway", "own"]["spec"] == found["spec"]
