"""A notebook that papermill runs by itself refuses a parameter that it does not have."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from types import SimpleNamespace

import papermill
import pytest
from stackbook.app import session
from stackbook.core import paths
from stackbook.core.errors import InputError

NOTEBOOKS = sorted(paths.notebooks().glob("*.ipynb"))


def injected(monkeypatch: pytest.MonkeyPatch, **values: object) -> None:
    names = {"In": [], "Out": {}, "_oh": {}, "exit": print, "statistics": ast, "profile": "embedded", **values}
    monkeypatch.setattr(session, "get_ipython", lambda: SimpleNamespace(user_ns=names))
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)


def test_a_mistyped_parameter_is_refused_with_the_near_one(monkeypatch: pytest.MonkeyPatch) -> None:
    injected(monkeypatch, delay_seconds=5, delay_secnds=2)
    with pytest.raises(InputError, match="unknown parameter: delay_secnds — did you mean 'delay_seconds'"):
        session._refuse_unknown({"delay_seconds": 5})
    injected(monkeypatch, delay_seconds=2, RATINGS="http://ratings:9080")
    session._refuse_unknown({"delay_seconds": 2})


def test_a_learner_in_jupyterlab_may_have_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    injected(monkeypatch, mine=1)
    monkeypatch.setenv("JPY_SESSION_NAME", "notebooks/07-faults.ipynb")
    session._refuse_unknown({})


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_before_a_notebook_binds_it_has_nothing_but_its_parameters(path: Path) -> None:
    """Or its own names would be taken for parameters; and each parameter says what it is."""
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    for cell in cells:
        source = "".join(cell["source"])
        tree = ast.parse(source)
        assigned = [node.targets[0].id for node in tree.body if isinstance(node, ast.Assign)]  # type: ignore[attr-defined]
        if "parameters" in cell["metadata"].get("tags", []):
            assert all("  # " in line for line in source.splitlines())
            known = set(assigned)
        elif "bind(" in source:
            assert assigned[0] == "lab"
            break
        else:
            assert not assigned
    else:
        pytest.fail("it binds to no lab")
    assert "profile" in known


@pytest.mark.slow
def test_papermill_alone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From another folder, without our command line."""
    monkeypatch.setenv("STACKBOOK_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(papermill.PapermillExecutionError, match="unknown parameter: delay_secnds"):
        papermill.execute_notebook(
            str(paths.notebooks() / "07-faults.ipynb"), str(tmp_path / "out.ipynb"), parameters={"delay_secnds": 2},
            kernel_name="python3", progress_bar=False,
        )  # fmt: skip
