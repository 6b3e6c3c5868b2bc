"""How long calls take where no rule holds them back: the rate that this machine carries, and whether it can judge at all.

Where another program keeps a processor busy, calls wait without any rule. A check that takes each slow call for a delayed one
would then be wrong about the rule, and right about the machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from stackbook.analysis import statistics
from stackbook.analysis.statistics import TableTest
from stackbook.core.errors import CheckFailed
from stackbook.traffic.load_client import from_mesh

MOST_SLOW = 0.005
"""The share of slow calls without a rule up to which a machine can judge: far below half of any share that is predicted."""


@dataclass(frozen=True)
class Baseline:
    """Calls without a rule: the table, the rate at which they were sent (a second), and how many took as long as `limit` seconds."""

    frame: pd.DataFrame
    rate: float
    limit: float
    slow: int
    calls: int


def measured(send: Callable[[float], pd.DataFrame], rate: float, *, limit: float, halvings: int = 2) -> Baseline:
    """Send calls without a rule at `rate` a second, or at half of it and so on where the machine does not carry that.

    Args:
        send: sends the calls at a rate and returns their table.
        rate: requests a second.
        limit: a call that takes so many seconds is slow.
        halvings: how often the rate may be halved.

    Raises:
        CheckFailed: calls are slow at the lowest rate, too: the machine is too busy to judge.
    """
    for halved in range(halvings + 1):
        now = rate / 2**halved
        found = of(send(now), now, limit=limit)
        if found.slow <= MOST_SLOW * found.calls:
            return found
    slowest = found.frame["seconds"].max()
    raise CheckFailed(
        f"this machine is too busy to judge: without a rule, at {now:g} requests a second, {found.slow} of {found.calls} calls "
        f"took {limit:.2g} s or longer, the slowest {slowest:.1f} s",
        fix="end what else keeps its processors busy and run the chapter again, or give a longer delay: -p delay_seconds 5",
    )


def of(frame: pd.DataFrame, rate: float, *, limit: float) -> Baseline:
    """The baseline of calls that were sent; those that the generator itself failed at do not count."""
    counted = from_mesh(frame)
    return Baseline(frame, rate, limit, int((counted["seconds"] >= limit).sum()), len(counted))


def demand_quiet(frame: pd.DataFrame, *, limit: float) -> None:
    """Refuse to judge where calls that no rule concerns, of the same batch, took as long as `limit` seconds.

    Raises:
        CheckFailed: the machine is too busy to judge.
    """
    found = of(frame, 0, limit=limit)
    if found.slow > MOST_SLOW * found.calls:
        raise CheckFailed(
            f"this machine is too busy to judge: {found.slow} of {found.calls} calls that no rule concerns took "
            f"{limit:g} s or longer",
            fix="end what else keeps its processors busy and run the chapter again",
        )


def no_slower(slow: pd.Series, before: Baseline, *, alpha: float, needed: int = 0) -> TableTest:
    """Whether no more of these calls are slow than were without the rule.

    Args:
        slow: whether a call is; of calls that no rule delays.
        before: the calls without the rule.
        alpha: the chance of a false alarm.
        needed: calls of each kind that a verdict takes.
    """
    return statistics.no_more((int(slow.sum()), len(slow)), (before.slow, before.calls), alpha=alpha, needed=needed)
