"""Statistical checks of what traffic shows: shares, independence, evenness, quantiles.

A claim is a share p₀ between 0 and 1 ("30 % are aborted" is 0.3). `sample_size` says how many requests are needed,
`test_share` judges what was counted, `frame` puts the results in one table. Two chances are stated for each check:

- alpha, the false alarm: the claim holds and the check says that it does not; never more than alpha;
- 1 - power, the miss: the truth is the alternative and the check does not notice.

The test is the exact central one: its p value is twice the smaller tail, so its verdict never disagrees with the
Clopper–Pearson interval beside it (Fay 2010, https://doi.org/10.1093/biostatistics/kxp050).

>>> n = sample_size(0.3, difference=0.1, alpha=0.001, power=0.99)
>>> n
700
>>> test_share(205, n, 0.3, alpha=0.001).verdict
'as predicted'
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from stackbook.errors import InputError

AGREES, DIFFERS, TOO_FEW = "as predicted", "differs", "too few"
LARGEST_SAMPLE = 1_000_000
LEAST_EXPECTED = 5.0
"""Cochran's rule: χ² is used only where each cell expects at least 5 (https://doi.org/10.2307/3001616)."""


class Judged(Protocol):
    """What `frame` can show: a check with its verdict."""

    @property
    def verdict(self) -> str: ...  # noqa: D102

    def row(self) -> dict[str, Any]: ...  # noqa: D102


@dataclass(frozen=True)
class ShareTest:
    """One counted share against its claim; shares lie in 0–1, the interval is Clopper–Pearson's at 1 - alpha."""

    claim: float
    successes: int
    trials: int
    alpha: float
    estimate: float
    low: float
    high: float
    p_value: float
    verdict: str
    interval: str = "Clopper–Pearson"

    @property
    def passed(self) -> bool:
        """True where the count agrees with the claim and was large enough to say so."""
        return self.verdict == AGREES

    def row(self) -> dict[str, Any]:
        """One line of `frame`."""
        return {
            "predicted": self.claim, "observed": self.estimate, "low": self.low, "high": self.high,
            "n": self.trials, "p_value": self.p_value, "verdict": self.verdict,
        }  # fmt: skip


@dataclass(frozen=True)
class TableTest:
    """A test on counts: of independence between two properties, or of evenness over several.

    `effect` is φ for independence (0 = none, ±1 = one decides the other) and χ²/df for evenness (about 1 where each
    request chooses at random, near 0 where they take turns). `p_even` is the chance of counts as even as these, or more so.
    """

    predicted: str
    observed: str
    n: int
    method: str
    p_value: float
    alpha: float
    effect: float
    verdict: str
    p_even: float = math.nan

    @property
    def passed(self) -> bool:
        """True where the counts agree with what was predicted."""
        return self.verdict == AGREES

    def row(self) -> dict[str, Any]:
        """One line of `frame`."""
        return {
            "predicted": self.predicted, "observed": self.observed,
            "n": self.n, "p_value": self.p_value, "verdict": self.verdict,
        }  # fmt: skip


def check_chance(name: str, value: float, low: float = 0.0, high: float = 1.0) -> float:
    """Return `value` where it lies strictly between `low` and `high`.

    Raises:
        InputError: it does not, or is not a number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not low < value < high:
        raise InputError(f"{name} is {value!r}", fix=f"give a number between {low:g} and {high:g}, both excluded")
    return float(value)


def check_share(name: str, value: float) -> float:
    """Return `value` where it lies in 0–1, both included.

    Raises:
        InputError: it does not, or is not a number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InputError(f"{name} is {value!r}", fix="give a share between 0 and 1 (30 % is 0.3)")
    return float(value)


def _rejected(claim: float, n: NDArray[np.int64], alpha: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Bounds (low, high) of the two-sided test: at most `low`, or at least `high`, successes of n are too unlikely."""
    low = np.asarray(stats.binom.ppf(alpha / 2, n, claim)) - 1
    high = np.asarray(stats.binom.isf(alpha / 2, n, claim)) + 1
    return low, high


def rejection_rate(truth: float, claim: float, trials: ArrayLike, *, alpha: float) -> NDArray[np.float64]:
    """Exact chance that `test_share` says "differs" when the true share is `truth`.

    The false-alarm rate where truth is the claim (at most alpha, less because counts are whole); the power elsewhere.
    """
    n = np.asarray(trials, dtype=np.int64)
    low, high = _rejected(check_share("claim", claim), n, check_chance("alpha", alpha, 0, 0.5))
    rate = stats.binom.cdf(low, n, truth) + stats.binom.sf(high - 1, n, truth)
    return np.asarray(rate, dtype=np.float64)


def _alternatives(claim: float, difference: float | None, alternative: float | None) -> list[float]:
    """The shares that must be told from the claim."""
    if (difference is None) == (alternative is None):
        raise InputError("a sample size needs a difference or an alternative, and not both", fix="give one of them")
    if alternative is not None:
        if check_share("alternative", alternative) == claim:
            raise InputError(f"the alternative is the claim itself, {claim}", fix="give another share")
        return [alternative]
    assert difference is not None
    check_chance("difference", difference)
    found = [p for p in (claim - difference, claim + difference) if -1e-12 <= p <= 1 + 1e-12]
    if not found:
        raise InputError(f"no share lies {difference} from {claim}", fix="give a smaller difference")
    return [min(1.0, max(0.0, p)) for p in found]


def sample_size(
    claim: float,
    *,
    difference: float | None = None,
    alternative: float | None = None,
    alpha: float = 0.001,
    power: float = 0.99,
) -> int:
    """Requests needed to tell the claim from a share `difference` away, or from `alternative`.

    Exact: from this size on each size has the power (it goes up and down with n: Chernick & Liu 2002,
    https://doi.org/10.1198/000313002317572835), for the alternative that is hardest to see.

    Raises:
        InputError: a number is out of range, or more than a million requests would be needed.

    >>> sample_size(0.3, alternative=0.15, alpha=1e-4, power=0.999)
    381
    """
    check_share("claim", claim)
    check_chance("alpha", alpha, 0, 0.5)
    check_chance("power", power, 0.5, 1)
    return max(_size_for(claim, p, alpha, power) for p in _alternatives(claim, difference, alternative))


def _size_for(claim: float, truth: float, alpha: float, power: float) -> int:
    """The size for one alternative: a first guess by the normal distribution, then exactly."""
    z = stats.norm.isf(alpha / 2) * math.sqrt(claim * (1 - claim)) + stats.norm.isf(1 - power) * math.sqrt(truth * (1 - truth))
    guess = (z / (truth - claim)) ** 2
    if guess > LARGEST_SAMPLE:
        raise InputError(
            f"telling {claim:g} from {truth:g} takes about {guess:,.0f} requests",
            fix="give a larger difference, a larger alpha or a smaller power",
        )
    top = int(2 * guess) + 100
    while True:
        sizes = np.arange(1, top + 1)
        weak = np.flatnonzero(rejection_rate(truth, claim, sizes, alpha=alpha) < power)
        last = int(sizes[weak[-1]]) if weak.size else 0
        if last < 0.9 * top:
            return last + 1
        top *= 2


def test_share(successes: int, trials: int, claim: float, *, alpha: float = 0.001, needed: int = 0) -> ShareTest:
    """Judge a counted share by the exact binomial test; "too few" where fewer than `needed` were counted.

    The interval is Clopper & Pearson's (1934, https://doi.org/10.1093/biomet/26.4.404).

    Raises:
        InputError: successes are not in 0–trials, or a number is out of range.
    """
    check_share("claim", claim)
    check_chance("alpha", alpha, 0, 0.5)
    if not 0 <= successes <= trials:
        raise InputError(f"{successes} of {trials} is no share", fix="count successes among the trials")
    if trials == 0:
        return ShareTest(claim, 0, 0, alpha, math.nan, 0.0, 1.0, 1.0, TOO_FEW)
    tail = min(stats.binom.cdf(successes, trials, claim), stats.binom.sf(successes - 1, trials, claim))
    p_value = min(1.0, 2 * float(tail))
    low = float(stats.beta.ppf(alpha / 2, successes, trials - successes + 1)) if successes else 0.0
    high = float(stats.beta.isf(alpha / 2, successes + 1, trials - successes)) if successes < trials else 1.0
    verdict = DIFFERS if p_value < alpha else TOO_FEW if trials < needed else AGREES
    return ShareTest(claim, int(successes), int(trials), alpha, successes / trials, low, high, p_value, verdict)


test_share.__test__ = False  # type: ignore[attr-defined]  # pytest must not collect it


def independence(table: Sequence[Sequence[int]] | NDArray[Any], *, alpha: float = 0.001) -> TableTest:
    """Whether two properties of a request are independent; rows by the first, columns by the second.

    Fisher's exact test for 2 × 2 where a cell expects fewer than 5, else Pearson's χ² without Yates' correction. "too
    few" where a property never varies, or a larger table is too thin.

    Raises:
        InputError: the table is not at least 2 × 2 counts.
    """
    check_chance("alpha", alpha, 0, 0.5)
    counts = np.asarray(table)
    if counts.ndim != 2 or min(counts.shape) < 2 or (counts < 0).any():
        raise InputError("independence needs a table of at least 2 × 2 counts", fix="count both properties per request")
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


def uniformity(counts: Mapping[str, int], *, alpha: float = 0.001, turns: bool = False, seed: int = 1) -> TableTest:
    """Whether requests spread evenly over the names, each choosing at random (multinomial with equal shares).

    With `turns` the claim is the contrary of chance: that they are served in turn, so the counts are more even than
    random choice would make them. χ² where each name expects at least 5, else 20,000 simulated draws (seeded).

    Raises:
        InputError: fewer than two names.
    """
    check_chance("alpha", alpha, 0, 0.5)
    values = np.asarray([int(v) for v in counts.values()])
    if len(values) < 2 or (values < 0).any():
        raise InputError("evenness needs at least two names with counts", fix="name each pod, also one with no request")
    n, df = int(values.sum()), len(values) - 1
    predicted = "in turn" if turns else "evenly, at random"
    if n == 0:
        return TableTest(predicted, "nothing", 0, "none", 1.0, alpha, math.nan, TOO_FEW)
    mean = n / len(values)
    chi2 = float(((values - mean) ** 2 / mean).sum())
    if mean >= LEAST_EXPECTED:
        method, p_value, p_even = "χ²", float(stats.chi2.sf(chi2, df)), float(stats.chi2.cdf(chi2, df))
    else:
        draws = np.random.default_rng(seed).multinomial(n, np.full(len(values), 1 / len(values)), size=20_000)
        other = ((draws - mean) ** 2 / mean).sum(axis=1)
        method = "20,000 simulated draws"
        p_value, p_even = (float((1 + hits.sum()) / 20_001) for hits in (other >= chi2 - 1e-9, other <= chi2 + 1e-9))
    agrees = p_even < alpha if turns else p_value >= alpha
    observed = " : ".join(str(v) for v in values)
    return TableTest(predicted, observed, n, method, p_value, alpha, chi2 / df, AGREES if agrees else DIFFERS, p_even)


def quantiles(seconds: ArrayLike, levels: Iterable[float] = (0.5, 0.9, 0.99), *, alpha: float = 0.05) -> pd.DataFrame:
    """Quantiles with distribution-free intervals at 1 - alpha, from order statistics; the unit is that of the input.

    Columns: quantile, value, low, high; a bound that so few values cannot give is NaN. Conover, Practical
    Nonparametric Statistics, 3rd ed. (1999), 3.2.
    """
    check_chance("alpha", alpha, 0, 0.5)
    values = np.sort(np.asarray(seconds, dtype=float))
    if not values.size:
        raise InputError("quantiles of no values", fix="send at least one request")
    rows = []
    for level in levels:
        check_chance("quantile", level)
        lower = int(stats.binom.ppf(alpha / 2, values.size, level))
        upper = int(stats.binom.isf(alpha / 2, values.size, level)) + 1
        low = values[lower - 1] if lower >= 1 else math.nan
        high = values[upper - 1] if upper <= values.size else math.nan
        rows.append((level, float(np.quantile(values, level)), low, high))
    return pd.DataFrame(rows, columns=["quantile", "value", "low", "high"])


def frame(checks: Mapping[str, Judged]) -> pd.DataFrame:
    """One line per named check: claim, predicted, observed, low, high, n, p_value, verdict."""
    columns = ["claim", "predicted", "observed", "low", "high", "n", "p_value", "verdict"]
    return pd.DataFrame([{"claim": name, **check.row()} for name, check in checks.items()], columns=columns)


def verdicts(checks: Mapping[str, Judged]) -> pd.DataFrame:
    """The columns of `frame` that are the same on every run: claim, predicted, verdict."""
    return frame(checks)[["claim", "predicted", "verdict"]]
