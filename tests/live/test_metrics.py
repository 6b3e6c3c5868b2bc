"""Metrics on the live lab: a count, an alert or a scrape that is not as the page says is noticed."""

from __future__ import annotations

import pytest
from mutate import copy, run_here
from stackbook.errors import CheckFailed, WaitTimeout

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("one_bench", "alone")]
FEW = {"requests = 300": "requests = 100"}
"""Parameter with which a run is over sooner; what is counted is counted exactly."""
MUTATIONS = {
    "one request less in the client's table": (
        ("prometheus", "count"), FEW | {"client_counts(frame,": "client_counts(frame.iloc[1:],"}, "service by service"),
    "a request that the table does not have": (
        ("prometheus", "count"),
        FEW | {"lambda: send(table.inside, plan": "lambda: table.ask(bench.REVIEWS) and send(table.inside, plan"},
        "service by service"),
    "nothing is broken": (
        ("prometheus", "batch"),
        FEW | {", table.broken_pod(lab):": ":", '"RequestsFail", timeout=30': '"RequestsFail", timeout=8'},
        "the alert RequestsFail fires"),
    "a slower scrape than the page says": (  # requests over 7 s: one of them meets the beginning of an interval of 9 s
        ("prometheus", "late"),
        {"scrape=scrape_seconds, retention": "scrape=9, retention", 'service="ratings")': 'service="ratings", tries=8)'},
        "within one scrape|counts the requests"),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_chapters_check_fails(name: str) -> None:
    steps, changes, words = MUTATIONS[name]
    with pytest.raises((CheckFailed, WaitTimeout), match=words):
        run_here(copy("10-metrics", "vocabulary", *steps, changes=changes, leave="", proved=True))
