"""Rules, gateways and names follow the learner's namespace; on the lab's own cluster they are what they were."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml
from stackbook.config import namespaces
from stackbook.config.namespaces import Namespaces
from stackbook.mesh import bookinfo, learners_mesh, rules
from stackbook.mesh.rules.propagation import Proxy, concerned


@pytest.fixture
def learner() -> Iterator[None]:
    namespaces.use(Namespaces("ada"))
    yield
    namespaces.use(Namespaces())


def made() -> list[rules.Rule]:
    return [
        rules.virtual_service("reviews", rules.route(rules.to("reviews"))),
        rules.destination_rule("reviews"),
        rules.service_entry("shop", host="shop.example", port=80),
        rules.sidecar("narrow", egress=["./*"]),
        rules.peer_authentication("all", "STRICT"),
        *rules.through_egress("shop", host="shop.example", port=9080),
    ]


def test_on_the_labs_own_cluster_nothing_is_another() -> None:
    assert {rule["metadata"]["namespace"] for rule in made()} == {"default"}
    assert rules.gateway("g")["spec"]["selector"] == {"istio": "ingressgateway"}
    leg = made()[-1]["spec"]["http"][0]["route"][0]["destination"]
    assert leg["host"] == "istio-egressgateway.istio-system.svc.cluster.local"
    assert "istio: ingressgateway #" in bookinfo.gateway()


def test_a_learners_rules_are_in_the_learners_namespace_and_at_the_learners_gateways(learner: None) -> None:
    assert {rule["metadata"]["namespace"] for rule in made()} == {"ada"}
    assert made()[-2]["spec"]["selector"] == {"istio": "ada-egressgateway"}
    leg = made()[-1]["spec"]["http"][0]["route"][0]["destination"]
    assert leg["host"] == "istio-egressgateway.ada.svc.cluster.local"
    gateway = next(o for o in yaml.safe_load_all(bookinfo.gateway()) if o["kind"] == "Gateway")
    assert gateway["spec"]["selector"] == {"istio": "ada-ingressgateway"}


def test_the_gateways_have_the_label_that_the_rules_select(learner: None) -> None:
    pods = {o["metadata"]["name"]: o["spec"]["template"]["metadata"]["labels"]
            for o in yaml.safe_load_all(learners_mesh.manifest()) if o["kind"] == "Deployment"}  # fmt: skip
    assert {name: labels["istio"] for name, labels in pods.items()} == {
        "istio-ingressgateway": "ada-ingressgateway",
        "istio-egressgateway": "ada-egressgateway",
    }


def proxy(name: str, namespace: str, kind: str) -> Proxy:
    return Proxy(name=name, namespace=namespace, kind=kind, push=1, pending=(), rejected="")


def test_a_rule_waits_for_the_learners_gateways_only(learner: None) -> None:
    known = {
        "theirs": proxy("theirs", "istio-system", "router"),
        "mine": proxy("mine", "ada", "router"),
        "reviews": proxy("reviews", "ada", "sidecar"),
        "other": proxy("other", "default", "sidecar"),
    }
    assert concerned([rules.gateway("g")], known) == {"mine"}
    assert concerned([rules.destination_rule("reviews")], known) == {"reviews"}
