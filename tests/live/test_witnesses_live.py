"""The three witnesses on the live lab: a witness that misses something is found out, and what it has missed."""

from __future__ import annotations

from pathlib import Path

import pytest
from mutate import copy, run
from nbclient.exceptions import CellExecutionError

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("one_bench")]
MUTATIONS = {
    "a request that the client forgets": (
        'lambda: send(table.inside, plan, app="reviews")',
        'lambda: send(table.inside, plan, app="reviews").iloc[1:]',
        "client",
    ),
    "a log line dropped": (
        "    asked, told = evidence.table(",
        '    evidence.lines["logs"].drop(index=evidence.lines["logs"].query("service == \'reviews\'").index[0], inplace=True)\n'
        "    asked, told = evidence.table(",
        "logs has missed 1",
    ),
    "another version in the log": (
        "    asked, told = evidence.table(",
        '    evidence.lines["logs"].loc[evidence.lines["logs"].query("version == \'v3\'").index[0], "version"] = "v2"\n'
        "    asked, told = evidence.table(",
        "reviews v2 ",
    ),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_chapters_check_fails(name: str, tmp_path: Path) -> None:
    old, new, message = MUTATIONS[name]
    with pytest.raises(CellExecutionError) as caught:
        run(copy("12-logs", "elasticsearch", "witnesses", changes={old: new}), tmp_path)
    assert caught.value.ename == "CheckFailed" and message in str(caught.value), str(caught.value)[-2000:]


def test_without_sampling_the_traces_miss_every_request(tmp_path: Path) -> None:
    """No request is traced: the traces miss all of them, and the check says so.

    (The ids of one run of the load program begin alike, and Envoy draws by that beginning: with 50 % it would be all or none.)
    """
    changes = {
        "    evidence = witnesses.gather(": "    from stackbook import tracing\n"
        "    tracing.sampled = lambda kube, share: tracing.untraced(kube)\n    evidence = witnesses.gather("
    }
    with pytest.raises(CellExecutionError) as caught:
        run(copy("12-logs", "elasticsearch", "witnesses", changes=changes), tmp_path)
    assert caught.value.ename == "CheckFailed" and "traces has missed" in str(caught.value), str(caught.value)[-2000:]
