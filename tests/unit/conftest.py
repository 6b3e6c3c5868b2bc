from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import pytest
from stackbook.analysis import display, plot_lint

display.style_plots()


@pytest.fixture(autouse=True)
def figures_can_be_read() -> Iterator[None]:
    """Each figure that a test has made, and not closed, is one that everybody can read."""
    yield
    figures = [plt.figure(number) for number in plt.get_fignums()]
    hard = [problem for figure in figures for problem in plot_lint.problems(figure, display.PALETTE)]
    plt.close("all")
    assert not hard
