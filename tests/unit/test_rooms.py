"""The rooms of the library: imports go down only, and the page that draws them is up to date."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import grimp
import networkx
import pytest

ROOT = Path(__file__).parents[2]


def lint(tree: Path) -> subprocess.CompletedProcess[str]:
    """import-linter on the library of a tree, with its contract."""
    code = "import sys; sys.path.insert(0, 'lib'); from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    return subprocess.run(
        [sys.executable, "-c", code], cwd=tree, capture_output=True, text=True, check=False, timeout=120
    )


def test_imports_go_down_only() -> None:
    done = lint(ROOT)
    assert done.returncode == 0 and "1 kept, 0 broken" in done.stdout, done.stdout


@pytest.mark.parametrize(
    ("module", "line"),
    [("core/waiting.py", "from stackbook.lab import step"),
     ("mesh/bookinfo.py", "def planted():\n    from stackbook.lessons.traffic import ingress")],
)  # fmt: skip
def test_an_upward_import_is_noticed(tmp_path: Path, module: str, line: str) -> None:
    """Also one inside a function."""
    shutil.copytree(
        ROOT / "lib" / "stackbook", tmp_path / "lib" / "stackbook", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    path = tmp_path / "lib" / "stackbook" / module
    path.write_text(f"{path.read_text()}\n\n{line}\n")
    done = lint(tmp_path)
    assert done.returncode == 1 and "is not allowed to import" in done.stdout, done.stdout


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = grimp.build_graph("stackbook", exclude_type_checking_imports=True, cache_dir=None)
    imports = networkx.DiGraph((a, b) for a in graph.modules for b in graph.find_modules_directly_imported_by(a))
    circles = [sorted(c) for c in networkx.strongly_connected_components(imports) if len(c) > 1]
    assert not circles, circles


def test_the_page_is_up_to_date() -> None:
    done = subprocess.run([sys.executable, "tools/rooms.py", "--check"], cwd=ROOT, check=False, timeout=120)
    assert done.returncode == 0, "run .venv/bin/python tools/rooms.py"
