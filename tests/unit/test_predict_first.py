"""A learner's own predictions: checked before the chapter begins, shown beside theory and observation, absent by default."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from stackbook.analysis import statistics
from stackbook.config.chapter_parameters import CHAPTER_PARAMETERS
from stackbook.config.profile import validate
from stackbook.core.errors import InputError
from stackbook.lessons.flannel import backend_comparison
from stackbook.observability.logs import figures as log_figures
from stackbook.traffic import figures

CHECKS = {
    "others: served by v1": statistics.test_share(50, 100, 0.5, alpha=0.01),
    "others: served by v3": statistics.test_share(50, 100, 0.5, alpha=0.01),
}
GOOD = {
    "03-flannel": {"vxlan": 90, "udp": 300},
    "06-traffic": {"v1": 70.5},
    "07-faults": {"aborted": 20, "delayed": 0},
    "11-tracing": {"10": 5, 1: 0.5},
    "12-logs": {"slowest": 4},
}
BAD = {
    "03-flannel": [{"ipip": 90}, {"vxlan": -1}],
    "06-traffic": [{"v2": 10}, {"v1": 101}],
    "07-faults": [{"lost": 1}, {"aborted": "many"}],
    "11-tracing": [{"20": 5}, {20: 5}],
    "12-logs": [{"median": 1}, {"slowest": 61}],
}


def parameters(chapter: str, prediction: Any) -> Any:
    return validate(CHAPTER_PARAMETERS[chapter], {"prediction": prediction}, where=chapter)


@pytest.mark.parametrize("chapter", GOOD)
def test_a_prediction_is_taken(chapter: str) -> None:
    found = parameters(chapter, GOOD[chapter]).prediction
    assert list(found.values()) == list(GOOD[chapter].values())
    assert parameters(chapter, {}).prediction == {}


@pytest.mark.parametrize(("chapter", "wrong"), [(chapter, each) for chapter, cases in BAD.items() for each in cases])
def test_one_of_something_else_is_refused_in_a_line(chapter: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        parameters(chapter, wrong)
    assert "prediction" in str(caught.value) and "\n" not in str(caught.value)


def test_the_table_says_whether_the_observation_agrees() -> None:
    assert list(statistics.verdicts(CHECKS).columns) == ["claim", "predicted", "verdict"], (
        "as before where nobody predicts"
    )
    table = statistics.verdicts(CHECKS, yours={"others: served by v1": 90, "others: served by v3": 45}).set_index(
        "claim"
    )
    assert list(table["yours holds"]) == ["no", "yes"]
    assert list(table["yours"]) == [0.9, 0.45]
    half = statistics.verdicts(CHECKS, yours={"others: served by v1": 90})
    assert list(half["yours holds"]) == ["no", ""]


def labels(fig: Any) -> list[str]:
    return [label for axes in fig.axes for label in axes.get_legend_handles_labels()[1]]


def test_plots_show_theory_observation_and_prediction() -> None:
    assert "your prediction" not in labels(figures.shares(CHECKS, title="x"))
    fig = figures.shares(CHECKS, title="x", yours={"others: served by v1": 90})
    assert {"predicted", "observed, with its interval", "your prediction"} <= set(labels(fig))
    (mine,) = [line for line in fig.axes[0].lines if line.get_label() == "your prediction"]
    assert (list(mine.get_xdata()), list(mine.get_ydata())) == ([90], [1]), "in its own row"


def backends() -> pd.DataFrame:
    rows = [("vxlan", 1450, 9.0), ("host-gw", 1500, 10.0), ("udp", 1472, 0.2)]
    return pd.DataFrame(
        [
            {"backend": name, "mtu": mtu, "gbit_per_s": speed, "rtt_ms_median": 1.0, "rtt_ms_p99": 2.0}
            for name, mtu, speed in rows
        ]
    )


def test_the_backends_beside_what_their_headers_cost() -> None:
    theory = backend_comparison.by_headers(backends())
    assert theory["host-gw"] == 100
    assert theory["vxlan"] == pytest.approx(100 * (1450 - 52) / (1500 - 52))
    fig = backend_comparison.plot(backends(), yours={"udp": 50})
    (mine,) = [line for line in fig.axes[0].lines if line.get_label() == "your prediction"]
    assert list(mine.get_xdata()) == [2]
    assert list(mine.get_ydata()) == [pytest.approx(5.0)], "half of what host-gw reached"
    without = backends()[lambda frame: frame["backend"] != "host-gw"]
    assert labels(backend_comparison.plot(without, yours={"udp": 50})) == [], "percent of nothing cannot be drawn"


def test_the_slowest_line_is_foretold() -> None:
    found = pd.DataFrame({"time": [0.0, 1.0], "latency": [0.5, 1.5], "node": ["a", "b"]})
    assert "your prediction: 8 s" not in labels(log_figures.latency(found, limit=5))
    fig = log_figures.latency(found, limit=5, theory=2, yours=8)
    assert {"theory: at most 2 s", "your prediction: 8 s"} <= set(labels(fig))
    assert fig.axes[0].get_ylim()[1] >= 8, "it is within the picture"
