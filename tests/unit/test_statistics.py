"""The statistical checks keep the chances of error that they state: 10,000 simulated runs each, seeded."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from stackbook.analysis import statistics
from stackbook.analysis.statistics import AGREES, DIFFERS, TOO_FEW
from stackbook.core.errors import InputError

RUNS = 10_000


def within(count: int, rate: float) -> bool:
    """Whether a simulated count is what the rate gives, but for one chance in a million."""
    low, high = stats.binom.ppf(5e-7, RUNS, rate), stats.binom.isf(5e-7, RUNS, rate)
    return low <= count <= high


def share_verdicts(claim: float, truth: float, n: int, alpha: float) -> int:
    """How many of the simulated runs are judged different from the claim, by the function a notebook calls."""
    hits = np.random.default_rng(20).binomial(n, truth, RUNS)
    judged = {k: statistics.test_share(int(k), n, claim, alpha=alpha).verdict for k in np.unique(hits)}
    return sum(judged[k] == DIFFERS for k in hits)


@pytest.mark.parametrize("claim", [0.01, 0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("alpha", [0.05, 0.01, 0.001])
def test_false_alarms_are_as_stated(claim, alpha):
    exact = float(statistics.rejection_rate(claim, claim, 400, alpha=alpha))
    assert exact <= alpha
    assert within(share_verdicts(claim, claim, 400, alpha), exact)


@pytest.mark.parametrize(("claim", "other"), [(0.3, 0.15), (0.5, 0.6), (0.1, 0.0), (0.0, 0.05), (1.0, 0.97)])
def test_the_sample_size_has_its_power_and_no_smaller_run_of_sizes_has(claim, other):
    n = statistics.sample_size(claim, alternative=other, alpha=0.01, power=0.9)
    sizes = np.arange(1, 3 * n)
    power = statistics.rejection_rate(other, claim, sizes, alpha=0.01)
    assert (power[n - 1 :] >= 0.9).all()
    assert n == 1 or power[n - 2] < 0.9
    assert within(share_verdicts(claim, other, n, 0.01), float(power[n - 1]))


def test_a_difference_takes_the_harder_side():
    both = [statistics.sample_size(0.3, alternative=p) for p in (0.2, 0.4)]
    assert statistics.sample_size(0.3, difference=0.1) == max(both)
    assert statistics.sample_size(0.05, difference=0.1) == statistics.sample_size(0.05, alternative=0.15)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 500), st.data(), st.sampled_from([0.05, 0.001]))
def test_verdict_interval_and_p_value_never_disagree(n, data, alpha):
    hits = data.draw(st.integers(0, n))
    claim = data.draw(st.floats(0.001, 0.999))
    test = statistics.test_share(hits, n, claim, alpha=alpha)
    assert 0 <= test.low <= test.estimate <= test.high <= 1
    if min(abs(claim - test.low), abs(claim - test.high)) > 1e-9:
        assert test.passed == (test.low <= claim <= test.high) == (test.p_value >= alpha)


def test_the_interval_is_clopper_and_pearsons():
    test = statistics.test_share(4, 20, 0.3, alpha=0.05)
    published = stats.binomtest(4, 20).proportion_ci(0.95, method="exact")
    assert (test.low, test.high) == pytest.approx((published.low, published.high))


def test_too_few_requests_pass_no_check():
    assert statistics.test_share(3, 10, 0.3, needed=100).verdict == TOO_FEW
    assert statistics.test_share(0, 0, 0.3).verdict == TOO_FEW
    assert not statistics.test_share(0, 0, 0.0).passed
    assert statistics.test_share(90, 90, 0.3, needed=100).verdict == DIFFERS


@pytest.mark.slow
def test_independence_alarms_as_stated_and_sees_dependence():
    rng = np.random.default_rng(22)
    alarms = 0
    for cells in rng.multinomial(400, [0.09, 0.21, 0.21, 0.49], RUNS):
        alarms += not statistics.independence(cells.reshape(2, 2), alpha=0.01).passed
    assert within(alarms, 0.01)
    linked = statistics.independence([[60, 40], [40, 160]], alpha=0.01)
    assert linked.verdict == DIFFERS
    assert linked.effect > 0


def test_independence_takes_fisher_where_cells_are_thin():
    thin = statistics.independence([[3, 1], [1, 30]])
    assert thin.method == "Fisher's exact"
    assert statistics.independence([[30, 30], [30, 30]]).method == "Pearson's χ²"


def test_a_property_that_never_varies_proves_nothing():
    assert statistics.independence([[50, 0], [50, 0]]).verdict == TOO_FEW
    assert statistics.uniformity({"a": 0, "b": 0}).verdict == TOO_FEW


@pytest.mark.parametrize("n", [9, 300])
def test_evenness_alarms_as_stated(n):
    draws = np.random.default_rng(23).multinomial(n, [1 / 3] * 3, RUNS)
    keys, times = np.unique(np.sort(draws, axis=1), axis=0, return_counts=True)
    judged = [statistics.uniformity(dict(zip("abc", map(int, key), strict=True)), alpha=0.05) for key in keys]
    alarms = sum(int(t) for t, test in zip(times, judged, strict=True) if not test.passed)
    assert alarms <= stats.binom.isf(1e-6, RUNS, 0.06 if n == 300 else 0.05)


def test_turns_are_told_from_chance():
    rng = np.random.default_rng(25)
    in_turn = np.tile(np.array(["a", "b", "c"]), 300)
    assert statistics.turns(in_turn, alpha=1e-5).passed
    two_workers = np.concatenate([rng.permutation(part) for part in in_turn.reshape(-1, 12)])
    assert statistics.turns(two_workers, alpha=1e-5).passed
    assert statistics.turns(in_turn[:60]).verdict == TOO_FEW
    assert not statistics.turns(np.repeat(["a", "b", "c"], 300), alpha=1e-5).passed
    taken_for_turns = sum(statistics.turns(rng.choice(["a", "b", "c"], 900), alpha=0.05).passed for _ in range(2000))
    assert taken_for_turns <= stats.binom.isf(1e-6, 2000, 0.06)


def test_a_favourite_is_seen():
    assert not statistics.uniformity({"a": 200, "b": 50, "c": 50}).passed


def test_quantile_intervals_cover_as_stated():
    rng = np.random.default_rng(24)
    covered = 0
    for _ in range(1000):
        table = statistics.quantiles(rng.exponential(size=80), [0.5], alpha=0.05)
        covered += bool((table["low"] <= math.log(2)).all() and (table["high"] >= math.log(2)).all())
    assert covered >= stats.binom.ppf(1e-6, 1000, 0.95)
    assert statistics.quantiles([1.0, 2.0], [0.99])["high"].isna().all()


@pytest.mark.parametrize(
    "call",
    [
        lambda: statistics.sample_size(1.3, difference=0.1),
        lambda: statistics.sample_size(0.3, difference=0.1, alpha=0),
        lambda: statistics.sample_size(0.3, difference=0.1, alpha=True),
        lambda: statistics.sample_size(0.3, difference=0.1, power=1),
        lambda: statistics.sample_size(0.3, difference=0.9),
        lambda: statistics.sample_size(0.3),
        lambda: statistics.sample_size(0.3, alternative=0.3),
        lambda: statistics.sample_size(0.5, difference=1e-5),
        lambda: statistics.test_share(5, 3, 0.3),
        lambda: statistics.test_share(1, 3, 0.3, alpha="0.1"),
        lambda: statistics.independence([[1, 2]]),
        lambda: statistics.uniformity({"a": 3}),
        lambda: statistics.turns(["a", "a"]),
        lambda: statistics.quantiles([]),
    ],
)
def test_bad_input_is_refused_with_its_fix(call):
    with pytest.raises(InputError) as caught:
        call()
    assert caught.value.fix


def test_the_frame_has_one_line_for_each_check():
    checks = {
        "aborted": statistics.test_share(30, 100, 0.3),
        "delay and abort": statistics.independence([[9, 21], [21, 49]]),
        "never": statistics.test_share(0, 100, 0.3),
    }
    table = statistics.frame(checks)
    assert list(table["verdict"]) == [AGREES, AGREES, DIFFERS]
    assert table["observed"].iloc[0] == 0.3
    assert list(statistics.verdicts(checks).columns) == ["claim", "predicted", "verdict"]
