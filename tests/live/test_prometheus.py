"""Prometheus on the live lab: a target that does not answer is named, and a killed one keeps what it had."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from stackbook.app import checks
from stackbook.config.chapter_parameters import CHAPTER_PARAMETERS
from stackbook.core.errors import CheckFailed
from stackbook.core.waiting import until
from stackbook.lab.lab import Lab
from stackbook.observability import metrics

pytestmark = pytest.mark.live
SCRAPE = CHAPTER_PARAMETERS["10-metrics"]().model_dump()["scrape_seconds"]


@pytest.fixture(scope="module")
def installed(lab: Lab) -> Iterator[Lab]:
    """Prometheus as the chapter has it, for these tests alone: nobody else kills it, or counts on it."""
    with lab.turn("its tests", of=metrics.PROMETHEUS):
        metrics.install(lab, metrics.vocabulary(lab), scrape=SCRAPE, retention_hours=24)
        with metrics.opened(lab.kube) as prometheus:
            metrics.wait_complete(lab, prometheus)
        yield lab


def test_a_target_that_cannot_be_scraped_is_named_with_its_reason_and_since_when(installed: Lab) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "silent", "namespace": "default",
           "labels": {"app": "silent", "sidecar.istio.io/inject": "false"}},
           "spec": {"terminationGracePeriodSeconds": 1, "containers": [
               {"name": "main", "image": installed.images.reference("load"), "args": ["idle"],
                "ports": [{"name": "http-envoy-prom", "containerPort": 15090}]}]}}  # fmt: skip
    claim = next(check for check in checks.of("10-metrics") if check.id == "scraped")
    claim.prove(installed)
    installed.kube.apply(pod)
    try:
        installed.kube.wait_pods("default", "app=silent", count=1, timeout=60)
        with metrics.opened(installed.kube) as prometheus:
            until(lambda: len(prometheus.down()), what="the target is down", timeout=40)
            line = prometheus.down().to_dict("records")[0]
            assert (line["job"], line["instance"], line["since"]) == ("envoy", "silent", 0.0)
        with pytest.raises(CheckFailed, match=r"envoy silent: .*refused"):
            claim.prove(installed)
    finally:
        installed.kube.kubectl("delete", "pod", "-n", "default", "silent", "--ignore-not-found", timeout=60)
    with metrics.opened(installed.kube) as prometheus:
        metrics.wait_complete(installed, prometheus)


@pytest.mark.more
def test_killed_twice_it_still_has_what_it_had(installed: Lab) -> None:
    with metrics.opened(installed.kube) as prometheus:
        moment, before = metrics.samples(prometheus, at=time.time())
    for _ in range(2):
        metrics.killed(installed, "prometheus")
    with metrics.opened(installed.kube) as prometheus:
        metrics.wait_complete(installed, prometheus)
        assert metrics.samples(prometheus, at=moment)[1] >= before > 0  # one more, where a scrape had just begun
        assert len(prometheus.query("up")) and prometheus.query("up", newer=time.time()).empty


def test_applied_again_nothing_is_changed(installed: Lab) -> None:
    assert metrics.install(installed, metrics.vocabulary(installed), scrape=SCRAPE, retention_hours=24) == 0
