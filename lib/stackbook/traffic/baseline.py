"""How long calls take without a rule that delays them: the rate that this machine can carry, and whether it can judge at all.

If another program keeps a processor busy, calls wait even without a rule. A check that counts every slow call as delayed
would then blame the rule for what the machine does.
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
"""A machine can judge up to this share of slow calls among those that no rule delayed: far below half of what is predicted."""


@dataclass(frozen=True)
class Baseline:
    """Calls that no rule delayed: how many took `limit` seconds or longer, at `rate` requests a second.

    Attributes:
        frame: the table of all calls that were sent, including those that a rule delayed.
        rate: requests a second.
        limit: a call that takes at least this many seconds is slow.
        slow: how many of the calls that no rule delayed were slow.
        calls: how many calls no rule delayed.
    """

    frame: pd.DataFrame
    rate: float
    limit: float
    slow: int
    calls: int


def measured(
    send: Callable[[float], pd.DataFrame], rate: float, *, limit: float, hit: Hit | None = None, halvings: int = 2
) -> Baseline:
    """Send calls at `rate` a second; if that is too much for the machine, at half of it, and so on.

    Args:
        send: sends the calls at a rate and returns their table.
        rate: requests a second.
        limit: a call that takes at least this many seconds is slow.
        hit: which calls of the table a rule delayed, according to the proxy's flags; None: no call.
        halvings: how often the rate may be halved.

    Raises:
        CheckFailed: calls that no rule delayed are slow even at the lowest rate: the machine is too busy to judge.
    """
    for halved in range(halvings + 1):
        now = rate / 2**halved
        found = of(send(now), now, limit=limit, hit=hit)
        if found.slow <= MOST_SLOW * found.calls:
            return found
    raise CheckFailed(
        f"this machine is too busy to judge: at {now:g} requests a second, {found.slow} of {found.calls} calls that no rule "
        f"delayed took {limit:.2g} s or longer",
        fix="stop other programs that keep its processors busy and run the chapter again, or set a longer delay: -p delay_seconds 5",
    )


def of(frame: pd.DataFrame, rate: float, *, limit: float, hit: Hit | None = None) -> Baseline:
    """The baseline of calls that were sent, without those that failed in the load program itself."""
    counted = from_mesh(frame)
    own = counted if hit is None else counted[~hit(counted)]
    return Baseline(frame, rate, limit, int((own["seconds"] >= limit).sum()), len(own))


def no_slower(slow: pd.Series, before: Baseline, *, alpha: float, needed: int = 0) -> TableTest:
    """Test whether these calls are slow no more often than calls without the rule.

    Args:
        slow: for each call that no rule delays, whether it is slow.
        before: the calls without the rule.
        alpha: the chance of a false alarm.
        needed: how many calls of each kind a verdict needs.
    """
    return statistics.no_more((int(slow.sum()), len(slow)), (before.slow, before.calls), alpha=alpha, needed=needed)
