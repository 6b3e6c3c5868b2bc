"""The three witnesses on the live lab: a witness that misses something is found out, and what it has missed."""

from __future__ import annotations

from copy import deepcopy

import pytest
from labtools import sample
from mutate import copy, run_here
from stackbook.core.errors import CheckFailed
from stackbook.lab.lab import Lab
from stackbook.observability import correlation, tracing
from stackbook.observability.tracing import observation

pytestmark = pytest.mark.live
SPOILT = "    asked, told = evidence.table("
ONE_MORE = {"count=witnessed, rate": "count=witnessed + 1, rate"}
"""So that there are enough also where the client forgets one."""
UNTRACED = {'app="reviews"), service="reviews")': 'app="reviews"), service="reviews", timeout=5)'}
"""So that spans are not waited for as long as usual."""
SPOILED = {
    "a log line dropped": (
        {
            SPOILT: '    lines = evidence.lines["logs"]\n'
            '    evidence.lines["logs"] = lines.drop(index=lines.query("service == \'reviews\'").index[0])\n' + SPOILT
        },
        "the witnesses differ: logs missed 1",
    ),
    "another version in the log": (
        {
            SPOILT: '    lines = evidence.lines["logs"]\n'
            '    lines.loc[lines.query("version == \'v3\'").index[0], "version"] = "v2"\n' + SPOILT
        },
        "the witnesses differ: .*reviews v2 ",
    ),
    "a request that the client forgets": (
        {
            SPOILT: "    from dataclasses import replace\n"
            '    forgotten = evidence.asked.query("status == 404").index[0]\n'
            "    evidence = replace(evidence, asked=evidence.asked.drop(index=forgotten))\n" + SPOILT
        },
        r"the witnesses differ: reviews v\d 404: client \d+, metrics \d+",
    ),
}


@pytest.fixture(scope="module")
def evidence(lab: Lab) -> correlation.Evidence:
    """What the witnesses say of one batch, of which they agree as the chapter has it."""
    found = run_here(copy("12-logs", "elasticsearch", "witnesses", changes=ONE_MORE, leave="", proved=True))["evidence"]
    assert isinstance(found, correlation.Evidence)
    return found


@pytest.mark.parametrize("name", sample(SPOILED))
def test_the_check_fails_on_spoiled_evidence(
    evidence: correlation.Evidence, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(correlation, "gather", lambda *args, **kwargs: deepcopy(evidence))
    changes, message = SPOILED[name]
    with pytest.raises(CheckFailed, match=message):
        run_here(copy("12-logs", "elasticsearch", "witnesses", changes=changes, leave="", proved=True))


@pytest.mark.more
def test_without_sampling_the_traces_miss_every_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """No request is traced: the traces miss all of them, and the check says so.

    (The ids of one run of the load program begin alike, and Envoy draws by that beginning: with 50 % it would be all or none.)
    """
    monkeypatch.setattr(tracing, "sampled", lambda kube, share: tracing.untraced(kube))
    settled = observation.settled
    monkeypatch.setattr(observation, "settled", lambda kube, jaeger, traced: settled(kube, jaeger, traced=False))
    with pytest.raises(CheckFailed, match="traces missed"):
        run_here(copy("12-logs", "elasticsearch", "witnesses", changes=UNTRACED, leave="", proved=True))
