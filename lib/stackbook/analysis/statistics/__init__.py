"""Statistical checks of traffic: shares, independence, evenness, quantiles.

A claim is a share p₀ between 0 and 1 ("30 % are aborted" is 0.3). `sample_size` says how many requests are needed,
`test_share` judges what was counted, and `frame` puts the results into one table. Each check
states two chances:

- alpha, the false alarm: the claim holds, but the check says that it does not. The chance is at most alpha.
- 1 - power, the miss: the alternative is true, but the check does not notice.

The test is the exact central one: its p value is twice the smaller tail, so its verdict never disagrees with the
Clopper–Pearson interval beside it (Fay 2010, https://doi.org/10.1093/biostatistics/kxp050).

>>> n = sample_size(0.3, difference=0.1, alpha=0.001, power=0.99)
>>> n
726
>>> test_share(205, n, 0.3, alpha=0.001).verdict
'as predicted'
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import pandas as pd

from stackbook.analysis.statistics.contingency import TableTest, independence, no_more, quantiles, turns, uniformity
from stackbook.analysis.statistics.proportions import (
    AGREES,
    DIFFERS,
    TOO_FEW,
    ShareTest,
    check_chance,
    check_share,
    rejection_rate,
    sample_size,
    test_share,
)

__all__ = [
    "AGREES",
    "DIFFERS",
    "TOO_FEW",
    "Judged",
    "ShareTest",
    "TableTest",
    "check_chance",
    "check_share",
    "frame",
    "independence",
    "no_more",
    "quantiles",
    "rejection_rate",
    "sample_size",
    "test_share",
    "turns",
    "uniformity",
    "verdicts",
]


class Judged(Protocol):
    """What `frame` can show: a check with its verdict."""

    @property
    def verdict(self) -> str: ...  # noqa: D102

    def row(self) -> dict[str, Any]: ...  # noqa: D102


def frame(checks: Mapping[str, Judged]) -> pd.DataFrame:
    """One line per named check: claim, predicted, observed, low, high, n, p_value, verdict."""
    columns = ["claim", "predicted", "observed", "low", "high", "n", "p_value", "verdict"]
    return pd.DataFrame([{"claim": name, **check.row()} for name, check in checks.items()], columns=columns)


def verdicts(checks: Mapping[str, Judged], *, yours: Mapping[str, float] | None = None) -> pd.DataFrame:
    """The columns of `frame` that are the same on every run: claim, predicted, verdict.

    Args:
        checks: the checks, by claim.
        yours: a learner's own predictions in percent, by claim. If given, the table also has what was
            observed, and for these claims whether the observed interval contains the prediction.
    """
    table = frame(checks)
    if not yours:
        return table[["claim", "predicted", "verdict"]]
    mine = table["claim"].map(yours) / 100
    table["yours"] = mine
    table["yours holds"] = [
        "" if pd.isna(share) else "yes" if low <= share <= high else "no"
        for share, low, high in zip(mine, table["low"], table["high"], strict=True)
    ]
    return table[["claim", "yours", "predicted", "observed", "verdict", "yours holds"]]
