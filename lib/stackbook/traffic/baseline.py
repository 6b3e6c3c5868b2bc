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

Hit = Callable[[pd.DataFrame], pd.Series]
MOST_SLOW = 0.005
"""The share of slow calls, of those that no rule held back, up to which a machine can judge: far below half of what is predicted."""


@dataclass(frozen=True)
class Baseline:
    """Calls that no rule held back: how many took as long as `limit` seconds, at `rate` requests a second.

    Attributes:
        frame: the table of all calls that were sent, also of those that a rule held back.
        rate: requests a second.
        limit: a call that takes so many seconds is slow.
        slow: how many were slow, of those that no rule held back.
        calls: how many no rule held back.
    """

    frame: pd.DataFrame
    rate: float
    limit: float
    slow: int
    calls: int


def measured(
    send: Callable[[float], pd.DataFrame], rate: float, *, limit: float, hit: Hit | None = None, halvings: int = 2
) -> Baseline:
    """Send calls at `rate` a second, or at half of it and so on where the machine does not carry that.

    Args:
        send: sends the calls at a rate and returns their table.
        rate: requests a second.
        limit: a call that takes so many seconds is slow.
        hit: which calls of the table a rule held back, by the proxy's own flags; none when it is None.
        halvings: how often the rate may be halved.

    Raises:
        CheckFailed: calls that no rule held back are slow at the lowest rate, too: the machine is too busy to judge.
    """
    for halved in range(halvings + 1):
        now = rate / 2**halved
        found = of(send(now), now, limit=limit, hit=hit)
        if found.slow <= MOST_SLOW * found.calls:
            return found
    raise CheckFailed(
        f"this machine is too busy to judge: at {now:g} requests a second, {found.slow} of {found.calls} calls that no rule "
        f"held back took {limit:.2g} s or longer",
        fix="end what else keeps its processors busy and run the chapter again, or give a longer delay: -p delay_seconds 5",
    )


def of(frame: pd.DataFrame, rate: float, *, limit: float, hit: Hit | None = None) -> Baseline:
    """The baseline of calls that were sent; those that the generator itself failed at do not count."""
    counted = from_mesh(frame)
    own = counted if hit is None else counted[~hit(counted)]
    return Baseline(frame, rate, limit, int((own["seconds"] >= limit).sum()), len(own))


def no_slower(slow: pd.Series, before: Baseline, *, alpha: float, needed: int = 0) -> TableTest:
    """Whether no more of these calls are slow than were without the rule.

    Args:
        slow: whether a call is; of calls that no rule delays.
        before: the calls without the rule.
        alpha: the chance of a false alarm.
        needed: calls of each kind that a verdict takes.
    """
    return statistics.no_more((int(slow.sum()), len(slow)), (before.slow, before.calls), alpha=alpha, needed=needed)
