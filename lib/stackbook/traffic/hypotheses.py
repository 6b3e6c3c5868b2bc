"""Checks of what rules predict about counted requests: pure functions of the table that `load_client.send` returns.

Each chapter states alpha, its chance of a false alarm. `share_out` gives each of its checks an equal part, so that the
chance of any false alarm is at most alpha (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from stackbook.analysis import statistics
from stackbook.analysis.statistics import Judged, ShareTest
from stackbook.core.errors import CheckFailed, InputError
from stackbook.mesh.rules import percent, seconds
from stackbook.traffic.baseline import Baseline, no_slower
from stackbook.traffic.load_client import from_mesh

Checks = dict[str, Judged]


def share_out(alpha: float, checks: int) -> float:
    """The part of a chapter's alpha for one of its checks."""
    return statistics.check_chance("alpha", alpha, 0, 0.5) / checks


def size_for(percents: Sequence[float], *, alpha: float, power: float) -> int:
    """How many requests of one group distinguish each percentage from half of it; above 50, from half its complement.

    Raises:
        InputError: a percentage, alpha or power is out of range.

    >>> size_for([30], alpha=1e-4, power=0.99)
    306
    """
    needed = 50
    for value in percents:
        claim = percent("a percentage", value) / 100
        if 0 < claim < 1:
            other = claim / 2 if claim <= 0.5 else 1 - (1 - claim) / 2
            needed = max(needed, statistics.sample_size(claim, alternative=other, alpha=alpha, power=power))
    return needed


def share(frame: pd.DataFrame, holds: pd.Series, claim: float, *, alpha: float, needed: int = 0) -> ShareTest:
    """Judge the share of requests for which `holds`, without those that failed in the load program itself."""
    counted = from_mesh(frame)
    return statistics.test_share(int(holds[counted.index].sum()), len(counted), claim, alpha=alpha, needed=needed)


def delayed(frame: pd.DataFrame, delay_seconds: float | str) -> pd.Series:
    """Which requests took as long as an injected delay.

    Envoy's timers can end a few milliseconds early, because they count from the last time that its event loop read the
    clock (measured: 3 ms of 5 s). So a request still counts as delayed if 50 ms, or a tenth of the delay, are missing.
    """
    delay = seconds("delay_seconds", delay_seconds)
    return frame["seconds"] >= delay_limit(delay)


def delay_limit(delay_seconds: float | str) -> float:
    """The minimum time in seconds for which a call counts as delayed."""
    delay = seconds("delay_seconds", delay_seconds)
    return delay - min(0.05, delay / 10)


def weight_checks(frame: pd.DataFrame, weights: Mapping[str, float], *, alpha: float, needed: int = 0) -> Checks:
    """Check that each version serves its weight in percent, and that each request is answered with 200."""
    found: Checks = {
        f"served by {version}": share(frame, frame["version"] == version, weight / 100, alpha=alpha, needed=needed)
        for version, weight in weights.items()
    }
    found["answered with 200"] = share(frame, frame["status"] == 200, 1.0, alpha=alpha, needed=needed)
    return found


def by_group(
    frame: pd.DataFrame,
    predicted: Mapping[str, Mapping[str, float]],
    *,
    alpha: float,
    needed: int | Mapping[str, int] = 0,
    column: str = "group",
) -> Checks:
    """`weight_checks` of each group; `predicted` has the weights by the group's name. Requests in no group are left out.

    `needed` may be given by the group's name, too.
    """
    sizes = needed if isinstance(needed, Mapping) else dict.fromkeys(predicted, needed)
    return {
        f"{name}: {claim}": check
        for name, weights in predicted.items()
        for claim, check in weight_checks(
            frame[frame[column] == name], weights, alpha=alpha, needed=sizes[name]
        ).items()
    }


def fault_checks(
    frame: pd.DataFrame,
    *,
    user: str,
    abort_percent: float,
    abort_status: int,
    delay_percent: float,
    delay_seconds: float | str,
    weights: Mapping[str, float],
    before: Baseline,
    alpha: float,
    needed: int = 0,
) -> Checks:
    """Check what faults for one user predict: they hit the group `user`, and not the group `control` of the same batch.

    It checks the shares, the independence of abort and delay, and the control's weights. The control may be slow as often as
    the calls `before`, without the rule: on a busy machine some calls take long anyway.
    """
    delay = seconds("delay_seconds", delay_seconds)
    faulty, control = frame[frame["group"] == user], frame[frame["group"] == "control"]
    aborted, slow = faulty["status"] == abort_status, delayed(faulty, delay)
    counted = from_mesh(faulty).index
    table = pd.crosstab(aborted[counted], slow[counted]).reindex(
        index=[True, False], columns=[True, False], fill_value=0
    )
    found: Checks = {
        f"{user}: aborted with {abort_status}": share(faulty, aborted, abort_percent / 100, alpha=alpha, needed=needed),
        f"{user}: delayed by {delay:g} s": share(faulty, slow, delay_percent / 100, alpha=alpha, needed=needed),
        f"{user}: otherwise 200": share(faulty, aborted | (faulty["status"] == 200), 1.0, alpha=alpha, needed=needed),
        "control: delayed": no_slower(
            delayed(from_mesh(control), delay), before, alpha=alpha, needed=min(needed, before.calls)
        ),
    }
    if 0 < abort_percent < 100 and 0 < delay_percent < 100:
        found[f"{user}: abort and delay"] = statistics.independence(table.to_numpy(), alpha=alpha)
    return found | {
        f"control: {name}": c for name, c in weight_checks(control, weights, alpha=alpha, needed=needed).items()
    }


def page_shares(
    *, abort_percent: float, delay_percent: float, delay_seconds: float | str, limit: float = 3.0, tries: int = 2
) -> dict[str, float]:
    """What a page shows if its own call has a time limit and is retried.

    Envoy draws the delay first, then the abort. If the delay is longer than `limit`, a try is cut off after `limit` seconds,
    so a request takes a multiple of the limit. Keys: "error", and "k time-outs" for each k (absent if the delay is
    within the limit: then no try is cut off).

    >>> shares = page_shares(abort_percent=30, delay_percent=30, delay_seconds=5)
    >>> round(shares["error"], 4), round(shares["2 time-outs"], 4)
    (0.2601, 0.09)
    """
    a, d = percent("abort_percent", abort_percent) / 100, percent("delay_percent", delay_percent) / 100
    if seconds("delay_seconds", delay_seconds) <= limit:
        return {"error": a**tries}
    cut, failed = d, d + (1 - d) * a
    states = {0: 1.0}  # time-outs so far → probability of another try
    ended = dict.fromkeys(range(tries + 1), 0.0)
    for _ in range(tries):
        following: dict[int, float] = {}
        for count, chance in states.items():
            ended[count] += chance * (1 - failed)
            following[count] = following.get(count, 0.0) + chance * (failed - cut)
            following[count + 1] = following.get(count + 1, 0.0) + chance * cut
        states = following
    for count, chance in states.items():
        ended[count] += chance
    return {"error": failed**tries, **{f"{count} time-outs": chance for count, chance in ended.items()}}


def page_checks(
    frame: pd.DataFrame, shares: Mapping[str, float], *, alpha: float, needed: int = 0, limit: float = 3.0
) -> Checks:
    """Check that a page shows an error, and takes each number of time limits, as often as `page_shares` predicts."""
    limits = (frame["seconds"] // limit).astype(int)
    found: Checks = {
        "an error on the page": share(frame, frame["status"] >= 500, shares["error"], alpha=alpha, needed=needed)
    }
    for count in range(len(shares) - 1):  # all but "error"
        claim = shares[f"{count} time-outs"]
        found[f"{count * limit:g} s or a little more"] = share(
            frame, limits == count, claim, alpha=alpha, needed=needed
        )
    return found


def prove(checks: Mapping[str, Judged]) -> list[str]:
    """Raise an error unless every check passed; returns their names.

    Raises:
        CheckFailed: claims that disagree with the counts, each with its numbers.
        InputError: there is nothing to prove.
    """
    if not checks:
        raise InputError("there are no checks to prove", fix="send requests and build the checks first")
    failed = []
    for name, check in checks.items():
        if check.verdict != statistics.AGREES:
            row = check.row()
            seen = f"{row['observed']:.3f}" if isinstance(row["observed"], float) else row["observed"]
            failed.append(f"{name}: {check.verdict}: predicted {row['predicted']}, observed {seen} of {row['n']}")
    if failed:
        raise CheckFailed("; ".join(failed))
    return list(checks)
