from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import pytest
from hypothesis import settings
from stackbook.analysis import display, plot_lint
from stackbook.config import namespaces

display.style_plots()
settings.register_profile("untimed", settings(), deadline=None)  # a busy machine is not a fault of the code
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def figures_can_be_read() -> Iterator[None]:
    """Each figure that a test has made, and not closed, is one that everybody can read."""
    yield
    figures = [plt.figure(number) for number in plt.get_fignums()]
    hard = [problem for figure in figures for problem in plot_lint.problems(figure, display.PALETTE)]
    plt.close("all")
    assert not hard


@pytest.fixture(autouse=True)
def namespaces_of_the_labs_own_cluster() -> Iterator[None]:
    """A test that opens a lab on an existing cluster does not change the namespaces of the tests after it."""
    yield
    namespaces.use(namespaces.Namespaces())
