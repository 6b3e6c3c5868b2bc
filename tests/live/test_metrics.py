"""Metrics on the live lab: a count, an alert or a scrape that is not as the page says is noticed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from labtools import sample
from mutate import copy, run_here
from stackbook.config.chapter_parameters import CHAPTER_PARAMETERS
from stackbook.core.errors import CheckFailed, WaitTimeout
from stackbook.lab.lab import Lab
from stackbook.observability import metrics

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("one_bench", "alone", "prometheus")]
FEW = {"requests = 300": "requests = 100"}
"""Parameter with which a run is over sooner; what is counted is counted exactly."""
MUTATIONS = {
    "a slower scrape than the page says": (  # requests over 5 s: one of them meets the beginning of an interval of 6 s
        ("prometheus", "late"),
        {"scrape=scrape_seconds, retention": "scrape=6, retention", 'service="ratings")': 'service="ratings", tries=6)'},
        "within one scrape|to count requests"),
    "one request less in the client's table": (
        ("prometheus", "count"), FEW | {"client_counts(frame,": "client_counts(frame.iloc[1:],"}, "client and proxies agree"),
    "a request that the table does not have": (
        ("prometheus", "count"),
        FEW | {"lambda: send(testbed.inside, plan": "lambda: testbed.ask(REVIEWS) and send(testbed.inside, plan"},
        "client and proxies agree"),
    "nothing is broken": (
        ("prometheus", "batch"),
        FEW | {", testbed.broken_pod(lab):": ":", '"RequestsFail", timeout=30': '"RequestsFail", timeout=8'},
        "the alert RequestsFail to fire"),
}  # fmt: skip


@pytest.fixture(scope="module")
def as_it_was(lab: Lab) -> Iterator[None]:
    """Afterwards it scrapes as often as the chapter has it, again."""
    yield
    with lab.turn("it is as it was", of=metrics.PROMETHEUS):
        scrape = CHAPTER_PARAMETERS["10-metrics"]().model_dump()["scrape_seconds"]
        metrics.install(lab, metrics.vocabulary(lab), scrape=scrape, retention_hours=24)
        with metrics.opened(lab.kube) as prometheus:
            metrics.wait_complete(lab, prometheus)


@pytest.fixture
def prometheus(lab: Lab, as_it_was: None, alone: None) -> Iterator[None]:
    """Prometheus for a test alone; asked for behind bookinfo, as whoever counts requests does."""
    with lab.turn("a test", of=metrics.PROMETHEUS):
        yield


@pytest.mark.parametrize("name", sample(MUTATIONS, "one request less in the client's table"))
def test_the_chapters_check_fails(name: str) -> None:
    steps, changes, words = MUTATIONS[name]
    with pytest.raises((CheckFailed, WaitTimeout), match=words):
        run_here(copy("10-metrics", "vocabulary", *steps, changes=changes, leave="", proved=True))
