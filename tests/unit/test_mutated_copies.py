"""The tests on a lab change copies of chapters: each change still fits, and each copy still ends with the claims. No lab is needed."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

LIVE = Path(__file__).parents[1] / "live"
COPIED = ("test_traffic_mutations", "test_metrics", "test_kafka", "test_delivery_mutations", "test_correlation_live")


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Returns a module of tests/live by its name, which a module of tests/unit may have, too."""
    monkeypatch.syspath_prepend(LIVE)

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"live_{name}", LIVE / f"{name}.py")
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def tables(name: str, module: ModuleType) -> Iterator[tuple[str, tuple[str, ...], dict[str, str]]]:
    """Chapter, steps and changes of each entry of a module's table."""
    if name == "test_traffic_mutations":
        for chapter, step, changes, _ in module.MUTATIONS.values():
            yield chapter, ("before", step) if chapter == "07-faults" else (step,), changes
    elif name == "test_metrics":
        for steps, changes, _ in module.MUTATIONS.values():
            yield "10-metrics", ("vocabulary", *steps), changes
    elif name == "test_kafka":
        for steps, changes, _ in module.BROKEN.values():
            yield "14-ecosystem", steps, changes
    elif name == "test_delivery_mutations":
        for chapter, steps, changes, _ in module.BROKEN.values():
            yield chapter, steps, changes
    else:
        for changes, _ in (*module.SPOILED.values(), (module.ONE_MORE, ""), (module.UNTRACED, "")):
            yield "12-logs", ("elasticsearch", "witnesses"), changes


@pytest.mark.parametrize("name", COPIED)
def test_each_change_fits_and_the_claims_come_last(live: Any, name: str) -> None:
    mutate = live("mutate")
    entries = list(tables(name, live(name)))
    assert entries
    for chapter, steps, changes in entries:
        book = mutate.copy(chapter, *steps, changes=changes, leave="", bench=name != "test_traffic_mutations")
        for cell in book.cells:
            compile(cell.source, chapter, "exec")
        text = mutate.SEPARATOR.join(cell.source for cell in book.cells)
        assert all(new in text for new in changes.values())
        ran, claimed = (re.findall(rf'lab\.{call}\(\s*"([a-z0-9-]+)"', text) for call in ("step", "claims"))
        assert set(claimed) <= set(ran) <= {*steps, "bench"}
        assert set(ran) - set(claimed) <= {"bench", "vocabulary"}, "a step is copied without its claims"
        assert "lab.claims(" in book.cells[-1].source


@pytest.mark.parametrize(("name", "chapter"), [("test_grpc_mutations", "09-grpc"), ("test_tracing", "11-tracing")])
def test_each_change_fits_its_step(live: Any, name: str, chapter: str) -> None:
    cells = live("mutate").by_step(chapter)
    for step, old, new, _ in live(name).MUTATIONS.values():
        assert cells[step].count(old) == 1, (step, old)
        compile(cells[step].replace(old, new), chapter, "exec")
        assert f'lab.claims("{step}")' in cells[step]


def test_a_copy_shows_nothing(live: Any) -> None:
    mutate = live("mutate")
    source = 'if there:\n    with lab.step("a", "b"):\n        print(1)\n    lab.show(\n        rows,\n    )\nprint(2)\nx = 1'
    assert mutate.without_shows(source) == 'if there:\n    with lab.step("a", "b"):\n        print(1)\nx = 1'
    with pytest.raises(AssertionError, match="has no step"):
        mutate.copy("07-faults", "nothing")
    with pytest.raises(AssertionError, match="stands 0 times"):
        mutate.copy("07-faults", "faults", changes={"no such text": ""})
