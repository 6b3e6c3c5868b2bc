"""Counts of several kinds: independence of two properties, evenness over names, quantiles of a latency."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from stackbook.analysis.statistics.proportions import AGREES, DIFFERS, TOO_FEW, check_chance
from stackbook.core.errors import InputError

LEAST_EXPECTED = 5.0
"""Cochran's rule: χ² is used only if each cell expects at least 5 (https://doi.org/10.2307/3001616)."""


@dataclass(frozen=True)
class TableTest:
    """A test on counts: of independence between two properties, or of evenness over several.

    `effect` is φ for independence (0 = none, ±1 = one determines the other) and χ²/df for evenness (about 1 if each
    request chooses at random, near 0 if the names are chosen in turn).
    """

    predicted: str
    observed: str
    n: int
    method: str
    p_value: float
    alpha: float
    effect: float
    verdict: str

    @property
    def passed(self) -> bool:
        """Whether the counts agree with the prediction."""
        return self.verdict == AGREES

    def row(self) -> dict[str, Any]:
        """One line of `frame`."""
        return {
            "predicted": self.predicted, "observed": self.observed,
            "n": self.n, "p_value": self.p_value, "verdict": self.verdict,
        }  # fmt: skip


def independence(table: Sequence[Sequence[int]] | NDArray[Any], *, alpha: float = 0.001) -> TableTest:
    """Whether two properties of a request are independent; rows by the first, columns by the second.

    Fisher's exact test for 2 × 2 if a cell expects fewer than 5, else Pearson's χ² without Yates' correction. The verdict
    is "too few" if a property never varies, or if a larger table has too few counts.

    Raises:
        InputError: the table is not at least 2 × 2 counts.
    """
    check_chance("alpha", alpha, 0, 0.5)
    counts = np.asarray(table)
    if counts.ndim != 2 or min(counts.shape) < 2 or (counts < 0).any():
        raise InputError(
            "a test of independence needs a table of at least 2 × 2 counts", fix="count both properties of each request"
        )
    n = int(counts.sum())
    expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / max(n, 1)
    if (expected == 0).any() or (counts.shape != (2, 2) and expected.min() < LEAST_EXPECTED):
        return TableTest("independent", "not testable", n, "none", 1.0, alpha, math.nan, TOO_FEW)
    chi2 = float(((counts - expected) ** 2 / expected).sum())
    if expected.min() < LEAST_EXPECTED:
        method, p_value = "Fisher's exact", float(stats.fisher_exact(counts).pvalue)
    else:
        df = (counts.shape[0] - 1) * (counts.shape[1] - 1)
        method, p_value = "Pearson's χ²", float(stats.chi2.sf(chi2, df))
    effect = math.sqrt(chi2 / n / (min(counts.shape) - 1))
    if counts.shape == (2, 2):
        effect = math.copysign(effect, float(counts[0, 0] - expected[0, 0]))
    verdict = DIFFERS if p_value < alpha else AGREES
    return TableTest("independent", f"φ = {effect:+.3f}", n, method, p_value, alpha, effect, verdict)


def no_more(now: tuple[int, int], before: tuple[int, int], *, alpha: float = 0.001, needed: int = 0) -> TableTest:
    """Whether something happens no more often than before: Fisher's exact test, one-sided.

    Args:
        now: how often it happened, and in how many requests.
        before: the same two numbers of the comparison.
        alpha: the chance of a false alarm.
        needed: the minimum number of requests of each; with fewer, the verdict is "too few".

    Raises:
        InputError: there are more hits than requests.

    >>> no_more((0, 323), (0, 323)).verdict, no_more((97, 323), (1, 323)).verdict
    ('as predicted', 'differs')
    """
    check_chance("alpha", alpha, 0, 0.5)
    for hits, n in (now, before):
        if not 0 <= hits <= n:
            raise InputError(f"{hits} hits in {n} requests is not possible", fix="count the hits among the requests")
    n = now[1] + before[1]
    observed = f"{now[0]} of {now[1]}, before {before[0]} of {before[1]}"
    if min(now[1], before[1]) < max(needed, 1):
        return TableTest("as before", observed, n, "none", 1.0, alpha, math.nan, TOO_FEW)
    counts = [[now[0], now[1] - now[0]], [before[0], before[1] - before[0]]]
    p_value = float(stats.fisher_exact(counts, alternative="greater").pvalue)
    effect = now[0] / now[1] - before[0] / before[1]
    verdict = DIFFERS if p_value < alpha else AGREES
    return TableTest("as before", observed, n, "Fisher's exact, one-sided", p_value, alpha, effect, verdict)


def uniformity(counts: Mapping[str, int], *, alpha: float = 0.001, seed: int = 1) -> TableTest:
    """Whether requests spread evenly over the names, each choosing at random (multinomial with equal shares).

    χ² if each name expects at least 5, else 20,000 simulated draws (seeded).

    Raises:
        InputError: fewer than two names.
    """
    check_chance("alpha", alpha, 0, 0.5)
    values = np.asarray([int(v) for v in counts.values()])
    if len(values) < 2 or (values < 0).any():
        raise InputError(
            "evenness needs at least two names with counts", fix="list every pod, also those without requests"
        )
    n, df = int(values.sum()), len(values) - 1
    if n == 0:
        return TableTest("evenly", "nothing", 0, "none", 1.0, alpha, math.nan, TOO_FEW)
    mean = n / len(values)
    chi2 = float(((values - mean) ** 2 / mean).sum())
    if mean >= LEAST_EXPECTED:
        method, p_value = "χ²", float(stats.chi2.sf(chi2, df))
    else:
        draws = np.random.default_rng(seed).multinomial(n, np.full(len(values), 1 / len(values)), size=20_000)
        other = ((draws - mean) ** 2 / mean).sum(axis=1)
        method, p_value = "20,000 simulated draws", float((1 + (other >= chi2 - 1e-9).sum()) / 20_001)
    verdict = DIFFERS if p_value < alpha else AGREES
    observed = " : ".join(str(v) for v in values)
    return TableTest("evenly", observed, n, method, p_value, alpha, chi2 / df, verdict)


def turns(names: Sequence[str], *, alpha: float = 0.001, each: int = 20) -> TableTest:
    """Whether the names serve requests in turn, which is more even than chance.

    The requests, in their order, are cut into blocks in which each name expects `each` requests. If names are chosen at
    random, the blocks' χ² add up to a χ² with (names - 1) degrees of freedom for each block; in turn, to nearly 0. The p
    value is the lower tail: the chance of counts that are this even. With fewer than two blocks, the verdict is "too few".

    Raises:
        InputError: fewer than two names.
    """
    check_chance("alpha", alpha, 0, 0.5)
    known, places = np.unique(np.asarray(names, dtype=str), return_inverse=True)
    if len(known) < 2:
        raise InputError("testing for turns needs at least two names", fix="let more than one pod serve")
    length = each * len(known)
    blocks = len(places) // length
    if blocks < 2:
        return TableTest("in turn", "not testable", len(places), "none", 1.0, alpha, math.nan, TOO_FEW)
    rows = places[: blocks * length].reshape(blocks, length)
    counts = np.stack([(rows == place).sum(axis=1) for place in range(len(known))])
    chi2, df = float(((counts - each) ** 2 / each).sum()), blocks * (len(known) - 1)
    p_value = float(stats.chi2.cdf(chi2, df))
    verdict = AGREES if p_value < alpha else DIFFERS
    observed = " : ".join(str(count) for count in np.bincount(places))
    return TableTest("in turn", observed, len(places), "χ² of blocks", p_value, alpha, chi2 / df, verdict)


def quantiles(seconds: ArrayLike, levels: Iterable[float] = (0.5, 0.9, 0.99), *, alpha: float = 0.05) -> pd.DataFrame:
    """Quantiles with distribution-free intervals at 1 - alpha, from order statistics; the unit is that of the input.

    Columns: quantile, value, low, high; a bound for which there are too few values is NaN. Conover, Practical
    Nonparametric Statistics, 3rd ed. (1999), 3.2.
    """
    check_chance("alpha", alpha, 0, 0.5)
    values = np.sort(np.asarray(seconds, dtype=float))
    if not values.size:
        raise InputError("there are no values to compute quantiles of", fix="send at least one request")
    rows = []
    for level in levels:
        check_chance("quantile", level)
        lower = int(stats.binom.ppf(alpha / 2, values.size, level))
        upper = int(stats.binom.isf(alpha / 2, values.size, level)) + 1
        low = values[lower - 1] if lower >= 1 else math.nan
        high = values[upper - 1] if upper <= values.size else math.nan
        rows.append((level, float(np.quantile(values, level)), low, high))
    return pd.DataFrame(rows, columns=["quantile", "value", "low", "high"])
