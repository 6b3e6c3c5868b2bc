"""What a user installs: environment.yml, pyproject.toml and the lock say the same."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pytest
import yaml

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_conda_environment_is_in_step_with_pyproject() -> None:
    data = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = [d for d in data["dependencies"] if isinstance(d, str)]
    pip = next(d["pip"] for d in data["dependencies"] if isinstance(d, dict))
    named = {d for d in [*conda, *pip] if d not in ("pip", "--editable .") and not d.startswith("python>")}
    assert named == set(PROJECT["dependencies"])
    assert f"python{PROJECT['requires-python']}" in conda


def test_packages_fixed_by_the_user_are_there() -> None:
    fixed = {
        "jupyterlab",
        "papermill",
        "nbclient",
        "kubernetes",
        "pandas",
        "matplotlib",
        "prometheus-api-client",
        "nbval",
    }
    assert fixed <= {re.split(r"[<>=]", d)[0] for d in PROJECT["dependencies"]}


@pytest.mark.parametrize(("file", "extras"), [("requirements.lock", ("dev",)), ("requirements-book.lock", ("book",))])
def test_every_requirement_is_locked_with_hashes(file: str, extras: tuple[str, ...]) -> None:
    lock = (ROOT / file).read_text()
    entries = re.findall(r"^([a-z0-9._-]+)==\S+(.*?)(?=^\S|\Z)", lock, re.MULTILINE | re.DOTALL)
    locked = {name for name, _ in entries}
    assert all("--hash=sha256:" in rest for _, rest in entries)
    wanted = [] if "book" in extras else [*PROJECT["dependencies"]]
    wanted += [requirement for extra in extras for requirement in PROJECT["optional-dependencies"][extra]]
    assert {re.split(r"[<>=]", d)[0].lower() for d in wanted} <= locked


@pytest.mark.parametrize("name", ["notebooks", "lib", "parameters", "environment.yml", "README.md", "tests"])
def test_the_top_level_is_as_fixed(name: str) -> None:
    assert (ROOT / name).exists()


def test_the_readme_shows_the_newest_measurement() -> None:
    from stackbook.app.benchmark.figures import block

    readme = (ROOT / "README.md").read_text()
    measured = sorted((ROOT / "bench").glob("*Z.json"))
    if not measured:  # then it must not pretend to have one
        assert "bench.png" not in readme and "has not been published" in readme
        return
    assert block(json.loads(measured[-1].read_text())) in readme
    assert (ROOT / "docs" / "bench.png").read_bytes() == measured[-1].with_suffix(".png").read_bytes()


def test_a_measurement_of_the_pace_of_traffic_is_published() -> None:
    from stackbook.app.benchmark.figures import block

    newest = json.loads(sorted((ROOT / "bench").glob("*Z.json"))[-1].read_text())
    text = block(newest | {"requests_a_second": {"inside": 497.6, "host": 499.2}})
    assert "set to 500 requests/s: it sends 498 inside the mesh and 499 through the ingress gateway" in text


def test_the_readme_shows_the_newest_cold_measurement() -> None:
    from stackbook.app.cold_benchmark import block

    newest = json.loads(sorted((ROOT / "bench").glob("*-cold.json"))[-1].read_text())
    assert f"<!-- cold:begin -->\n{block(newest)}\n<!-- cold:end -->" in (ROOT / "README.md").read_text()


def test_the_table_of_faults_is_that_of_the_last_run() -> None:
    run = json.loads((ROOT / "bench" / "faults.json").read_text())
    assert len(run["rows"]) >= 12
    assert (ROOT / "docs" / "faults.md").read_text() == runpy.run_path(str(ROOT / "tools" / "faults.py"))["text"](run)
