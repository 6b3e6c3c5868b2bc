"""A share judged while it is counted, so that a clear case stops early."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from stackbook.analysis.statistics.proportions import (
    AGREES,
    DIFFERS,
    check_chance,
    check_share,
    sample_size,
    test_share,
)
from stackbook.core.errors import InputError

UNDECIDED = "undecided"


@dataclass(frozen=True)
class Sequential:
    """Wald's sequential test of a claim against both shares `difference` away, ended by an exact test.

    Each batch is added with `add`, which returns the new state; once decided the verdict stays. False alarms are at
    most alpha and misses at most 1 - power, however the batches are cut:

    - early, half of either chance: likelihood ratios against the two alternatives, each rejecting at 4/alpha; both
      below (1 - power)/2 accept. By Ville's inequality a ratio exceeds c with chance 1/c at any time (Wald 1945,
      https://doi.org/10.1214/aoms/1177731118);
    - at `most` trials, the other half: the exact test of that size.

    Raises:
        InputError: a number is out of range.

    >>> state = Sequential(0.3, difference=0.15)
    >>> state.most
    384
    >>> state.add(100, 320).verdict
    'as predicted'
    >>> state.add(10, 100).verdict
    'differs'
    """

    claim: float
    difference: float
    alpha: float = 0.001
    power: float = 0.99
    successes: int = 0
    trials: int = 0
    verdict: str = UNDECIDED

    def __post_init__(self) -> None:
        check_share("claim", self.claim)
        check_chance("difference", self.difference)
        check_chance("alpha", self.alpha, 0, 0.5)
        check_chance("power", self.power, 0.5, 1)
        if not self._alternatives:
            raise InputError(f"no share lies {self.difference} from {self.claim}", fix="give a smaller difference")

    @property
    def most(self) -> int:
        """Trials after which the verdict is certain to have been given."""
        power = 1 - (1 - self.power) / 2
        return sample_size(self.claim, difference=self.difference, alpha=self.alpha / 2, power=power)

    @property
    def decided(self) -> bool:
        """True once there is a verdict: no more requests are needed."""
        return self.verdict != UNDECIDED

    @property
    def passed(self) -> bool:
        """True where the verdict is that the count agrees with the claim."""
        return self.verdict == AGREES

    @property
    def _alternatives(self) -> list[float]:
        both = (self.claim - self.difference, self.claim + self.difference)
        return [min(1.0, max(0.0, p)) for p in both if -1e-12 <= p <= 1 + 1e-12]

    def _log_ratio(self, alternative: float, successes: int, trials: int) -> float:
        """Log likelihood ratio of the alternative over the claim; ±inf where one of them is impossible."""
        found = 0.0
        for count, over, under in (
            (successes, alternative, self.claim),
            (trials - successes, 1 - alternative, 1 - self.claim),
        ):
            if count:
                if under == 0:
                    return math.inf
                found += count * (math.log(over / under) if over else -math.inf)
        return found

    def add(self, successes: int, trials: int) -> Sequential:
        """The state after one more batch.

        Raises:
            InputError: successes are not in 0–trials.
        """
        if not 0 <= successes <= trials:
            raise InputError(f"{successes} of {trials} is no share", fix="count successes among the trials")
        if self.decided:
            return self
        hits, n = self.successes + successes, self.trials + trials
        ratios = [self._log_ratio(p, hits, n) for p in self._alternatives]
        verdict = UNDECIDED
        if max(ratios) > math.log(2 * len(ratios) / self.alpha):
            verdict = DIFFERS
        elif max(ratios) < math.log((1 - self.power) / 2):
            verdict = AGREES
        elif n >= self.most:
            verdict = test_share(hits, n, self.claim, alpha=self.alpha / 2).verdict
        return replace(self, successes=hits, trials=n, verdict=verdict)

    def row(self) -> dict[str, Any]:
        """One line of `frame`; there is no honest interval or p value once counting stopped early."""
        estimate = self.successes / self.trials if self.trials else math.nan
        return {"predicted": self.claim, "observed": estimate, "n": self.trials, "verdict": self.verdict}
