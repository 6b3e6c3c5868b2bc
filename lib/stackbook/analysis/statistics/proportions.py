"""Test one share against its claim: how many requests are needed, and what the counts show."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from stackbook.core.errors import InputError

AGREES, DIFFERS, TOO_FEW = "as predicted", "differs", "too few"
LARGEST_SAMPLE = 1_000_000


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
        """Whether the count agrees with the claim and is large enough to tell."""
        return self.verdict == AGREES

    def row(self) -> dict[str, Any]:
        """One line of `frame`."""
        return {
            "predicted": self.claim, "observed": self.estimate, "low": self.low, "high": self.high,
            "n": self.trials, "p_value": self.p_value, "verdict": self.verdict,
        }  # fmt: skip


def check_chance(name: str, value: float, low: float = 0.0, high: float = 1.0) -> float:
    """Return `value` if it is strictly between `low` and `high`.

    Raises:
        InputError: it is not, or it is not a number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not low < value < high:
        raise InputError(f"{name} is {value!r}", fix=f"give a number between {low:g} and {high:g}, both excluded")
    return float(value)


def check_share(name: str, value: float) -> float:
    """Return `value` if it is between 0 and 1, both included.

    Raises:
        InputError: it is not, or it is not a number.
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

    It is the false-alarm rate if the truth is the claim (at most alpha; less, because counts are whole), else the power.
    """
    n = np.asarray(trials, dtype=np.int64)
    low, high = _rejected(check_share("claim", claim), n, check_chance("alpha", alpha, 0, 0.5))
    rate = stats.binom.cdf(low, n, truth) + stats.binom.sf(high - 1, n, truth)
    return np.asarray(rate, dtype=np.float64)


def _alternatives(claim: float, difference: float | None, alternative: float | None) -> list[float]:
    """The shares that the test must distinguish from the claim."""
    if (difference is None) == (alternative is None):
        raise InputError("a sample size needs either a difference or an alternative", fix="give exactly one of them")
    if alternative is not None:
        if check_share("alternative", alternative) == claim:
            raise InputError(f"the alternative {claim} is the same as the claim", fix="give another share")
        return [alternative]
    assert difference is not None
    check_chance("difference", difference)
    found = [p for p in (claim - difference, claim + difference) if -1e-12 <= p <= 1 + 1e-12]
    if not found:
        raise InputError(f"no share between 0 and 1 is {difference} away from {claim}", fix="give a smaller difference")
    return [min(1.0, max(0.0, p)) for p in found]


def sample_size(
    claim: float,
    *,
    difference: float | None = None,
    alternative: float | None = None,
    alpha: float = 0.001,
    power: float = 0.99,
) -> int:
    """Requests needed to distinguish the claim from a share `difference` away, or from `alternative`.

    Exact: this size and all larger ones have the power (which goes up and down with n: Chernick & Liu 2002,
    https://doi.org/10.1198/000313002317572835), for the alternative that is hardest to detect.

    Raises:
        InputError: a number is out of range, or more than a million requests would be needed.

    >>> sample_size(0.3, alternative=0.15, alpha=1e-4, power=0.999)
    377
    """
    check_share("claim", claim)
    check_chance("alpha", alpha, 0, 0.5)
    check_chance("power", power, 0.5, 1)
    return max(_size_for(claim, p, alpha, power) for p in _alternatives(claim, difference, alternative))


@lru_cache(maxsize=256)
def _size_for(claim: float, truth: float, alpha: float, power: float) -> int:
    """The size for one alternative: a first guess by the normal distribution, then exactly."""
    spread = [math.sqrt(p * (1 - p)) for p in (claim, truth)]
    z = stats.norm.isf(alpha / 2) * spread[0] + stats.norm.isf(1 - power) * spread[1]
    guess = (z / (truth - claim)) ** 2
    if guess > LARGEST_SAMPLE:
        raise InputError(
            f"distinguishing {claim:g} from {truth:g} takes about {guess:,.0f} requests",
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
    """Judge a counted share by the exact binomial test; the verdict is "too few" if fewer than `needed` were counted.

    The interval is Clopper & Pearson's (1934, https://doi.org/10.1093/biomet/26.4.404).

    Raises:
        InputError: the successes are not between 0 and the trials, or a number is out of range.
    """
    check_share("claim", claim)
    check_chance("alpha", alpha, 0, 0.5)
    if not 0 <= successes <= trials:
        raise InputError(
            f"{successes} successes in {trials} trials is not possible", fix="count the successes among the trials"
        )
    if trials == 0:
        return ShareTest(claim, 0, 0, alpha, math.nan, 0.0, 1.0, 1.0, TOO_FEW)
    tail = min(stats.binom.cdf(successes, trials, claim), stats.binom.sf(successes - 1, trials, claim))
    p_value = min(1.0, 2 * float(tail))
    low = float(stats.beta.ppf(alpha / 2, successes, trials - successes + 1)) if successes else 0.0
    high = float(stats.beta.isf(alpha / 2, successes + 1, trials - successes)) if successes < trials else 1.0
    verdict = DIFFERS if p_value < alpha else TOO_FEW if trials < needed else AGREES
    return ShareTest(claim, int(successes), int(trials), alpha, successes / trials, low, high, p_value, verdict)


test_share.__test__ = False  # type: ignore[attr-defined]  # pytest must not collect it
