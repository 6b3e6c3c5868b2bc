"""The three witnesses on the live lab: a witness that misses something is found out, and what it has missed."""

from __future__ import annotations

import pytest
from mutate import copy, run_here
from stackbook import tracing
from stackbook.errors import CheckFailed

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("one_bench")]
SPOILT = "    asked, told = evidence.table("
# What is changed in the step, and what the check says then.
MUTATIONS = {
    "a request that the client forgets": (
        {
            'lambda: send(table.inside, plan, app="reviews")': 'lambda: send(table.inside, plan, app="reviews").iloc[1:]',
            "count=witnessed, rate": "count=witnessed + 1, rate",
        },
        r"the witnesses differ: reviews v\d (200|404): client \d+, metrics \d+",
    ),
    "a log line dropped": (
        {
            SPOILT: '    lines = evidence.lines["logs"]\n'
            '    evidence.lines["logs"] = lines.drop(index=lines.query("service == \'reviews\'").index[0])\n' + SPOILT
        },
        "the witnesses differ: logs has missed 1",
    ),
    "another version in the log": (
        {
            SPOILT: '    lines = evidence.lines["logs"]\n'
            '    lines.loc[lines.query("version == \'v3\'").index[0], "version"] = "v2"\n' + SPOILT
        },
        "the witnesses differ: .*reviews v2 ",
    ),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_chapters_check_fails(name: str) -> None:
    changes, message = MUTATIONS[name]
    with pytest.raises(CheckFailed, match=message):
        run_here(copy("12-logs", "elasticsearch", "witnesses", changes=changes, leave=""))


def test_without_sampling_the_traces_miss_every_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """No request is traced: the traces miss all of them, and the check says so.

    (The ids of one run of the load program begin alike, and Envoy draws by that beginning: with 50 % it would be all or none.)
    """
    monkeypatch.setattr(tracing, "sampled", lambda kube, share: tracing.untraced(kube))
    with pytest.raises(CheckFailed, match="traces has missed"):
        changes = {'app="reviews"), service="reviews")': 'app="reviews"), service="reviews", timeout=5)'}
        run_here(copy("12-logs", "elasticsearch", "witnesses", changes=changes, leave=""))
