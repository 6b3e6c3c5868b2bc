"""Traffic and rules on the live lab: what is answered, what is refused, and that the rules found are there again."""

import pytest
from kubernetes.client import CustomObjectsApi
from labtools import sample, stackbook
from stackbook.app.benchmark import measuring
from stackbook.core.errors import CheckFailed, InputError, StackbookError
from stackbook.core.waiting import pause
from stackbook.mesh import bookinfo, envoy_admin, rules
from stackbook.traffic import sharing
from stackbook.traffic.testbed import Testbed

pytestmark = pytest.mark.live
SUBSETS = rules.destination_rule("reviews", versions=["v1", "v3"])


@pytest.fixture(scope="module")
def table(lab, untraced):
    with sharing.restored(lab):
        yield Testbed.prepare(lab)


@pytest.mark.parametrize("side", sample(["inside", "host"], "inside"))
def test_500_requests_a_second_are_all_answered(table, side):
    """How many a second it really was is published by `make bench`; here, that it is no more than asked for."""
    reached = measuring.pace(table, side)
    print(f"{side}: {reached} of {measuring.RATE} requests/s")
    assert 0 < reached <= 1.02 * measuring.RATE


@pytest.mark.parametrize("error", [pytest.param(RuntimeError, marks=pytest.mark.more), KeyboardInterrupt])
def test_the_rules_found_are_there_again_after_an_error(table, error):
    before = rules.found(table.kube)
    with pytest.raises(error), rules.applied(table.kube, SUBSETS, rules.sidecar("narrow", egress=["./*"])):
        assert len(rules.found(table.kube)) == len(before) + 2
        raise error
    assert rules.found(table.kube) == before


def test_what_the_api_server_refuses_leaves_nothing(table):
    before = rules.found(table.kube)
    empty = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "empty"},
        "spec": {},
    }
    with pytest.raises(StackbookError, match="validation"), rules.applied(table.kube, SUBSETS, empty):
        raise AssertionError("the block ran")
    assert rules.found(table.kube) == before


def test_a_rule_that_a_proxy_rejects_is_named_with_its_reason(table):
    """An EnvoyFilter with a field that no Envoy knows gets past istiod, and is refused by the proxies."""
    patch = {"operation": "MERGE", "value": {"connect_timeout": "-1s"}}
    where = {
        "applyTo": "CLUSTER",
        "match": {"context": "SIDECAR_OUTBOUND", "cluster": {"service": "reviews.default.svc.cluster.local"}},
    }
    filter_ = {
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {"name": "broken", "namespace": "default"},
        "spec": {"configPatches": [{**where, "patch": patch}]},
    }
    try:
        with pytest.raises(CheckFailed, match="rejected the rules"):
            rules.propagate(table.kube, lambda: table.kube.apply(filter_), [filter_])
    finally:
        rules.propagate(table.kube, lambda: table.kube.delete(filter_), [filter_])
    assert not bookinfo.unhealthy(table.kube)


@pytest.mark.parametrize("ahead", [0.1, *(pytest.param(more, marks=pytest.mark.more) for more in (0.09, 0.11, 0.12))])
def test_a_push_for_an_earlier_change_is_not_taken_for_the_rules(lab, table, ahead):
    """istiod pushes 0.1 s after a change: rules that come just then are not in that push, and are waited for."""
    other = rules.virtual_service("ratings", rules.route(rules.to("ratings")))
    objects = CustomObjectsApi(table.kube.api.api_client)  # kubectl would take longer than the 0.1 s

    def change():
        for plural, rule in (("virtualservices", other), ("destinationrules", SUBSETS)):
            objects.create_namespaced_custom_object("networking.istio.io", "v1", "default", plural, rule)
            pause(ahead if rule is other else 0)
        return 1

    with sharing.restored(lab):
        rules.propagate(table.kube, change, [SUBSETS])
        known = envoy_admin.clusters(table.kube, "load", "reviews.default.svc.cluster.local")
        assert {row["subset"] for row in known} == {"", "v1", "v3"}


@pytest.mark.parametrize(
    ("chapter", "name", "value"),
    [
        ("07", "abort_percent", "130"), ("07", "delay_percent", "-1"), ("07", "delay_seconds", "-5"),
        ("07", "delay_seconds", "soon"), ("07", "alpha", "1.5"), ("07", "power", "0"), ("07", "user", '""'),
        ("06", "weights", "{v1: 60, v3: 60}"), ("06", "rate", "1000000"),
    ],
)  # fmt: skip
def test_bad_parameters_end_with_one_line_before_anything_is_changed(table, chapter, name, value):
    before = rules.found(table.kube)
    done = stackbook("run", "--only", chapter, "-p", name, value)
    assert done.status == 2, done.output
    assert name in done.output
    assert "Traceback" not in done.output
    assert rules.found(table.kube) == before


def test_a_version_that_no_pod_carries_is_refused_before_it_is_applied(table):
    wrong = rules.destination_rule("reviews", versions=["v1", "v9"])
    with pytest.raises(InputError, match="no pod matches subset v9"), rules.applied(table.kube, wrong):
        raise AssertionError("the block ran")
