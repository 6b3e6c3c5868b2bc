"""The chapters in JupyterLab, in a real browser: what a learner sees, and that papermill gives the same."""

from __future__ import annotations

import asyncio
import configparser
import hashlib
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from pathlib import Path
from typing import Any

import httpx
import lab_page
import nbformat
import papermill
import pytest
import yaml
from stackbook.core import paths
from stackbook.core.waiting import until
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SANITIZE = Path(__file__).parents[1] / "sanitize.cfg"
PREFLIGHT, PROTOBUF, DESIGN = "00-preflight.ipynb", "08-protobuf.ipynb", "15-design.ipynb"


@pytest.fixture(scope="module")
def committed() -> Iterator[None]:
    """The committed notebooks are the same afterwards."""
    before = _digests()
    yield
    assert _digests() == before, "the browser changed a committed notebook"


def _digests() -> dict[str, str]:
    return {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest()
        for p in (paths.notebooks() / n for n in (PREFLIGHT, PROTOBUF, DESIGN))
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    lab_page.demand_chromium()
    with lab_page.served(tmp_path_factory.mktemp("jupyterlab")) as found:
        yield found


@pytest.fixture(scope="module")
def page(server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with lab_page.browser(tmp_path_factory.mktemp("chromium")) as found:
        yield found


@pytest.fixture(scope="module")
def preflight(server: Any, page: Any) -> Any:
    """Chapter 00 after all of its cells were run."""
    return lab_page.Chapter(page, server, PREFLIGHT).open().run_all(120)


def test_without_chromium_ci_fails_and_others_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab_page, "chromium", str)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="STACKBOOK_BROWSER=1"):
        lab_page.demand_chromium()
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="STACKBOOK_BROWSER=1"):
        lab_page.demand_chromium()


def test_a_chapter_runs_from_top_to_bottom(committed: None, preflight: Any, pictures: Path) -> None:
    preflight.screenshot(pictures / "preflight.png")
    said = preflight.texts()
    assert preflight.errors() == []
    assert "00-preflight on embedded machines: k8s-master" in said
    assert "✓ examine: each requirement is tried out on this host" in said
    assert "✗" not in re.sub(r"(?m)^.*\b(should|may)\b.*$", "", said)
    assert preflight.count("table") >= 2
    preflight.screenshot(pictures / "preflight-table.png", of="table")


def by_papermill(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What a chapter shows when papermill executes it."""
    monkeypatch.setenv("STACKBOOK_STATE", str(folder / "state"))
    monkeypatch.setenv("STACKBOOK_RUN", str(folder / "run"))
    batch = folder / name
    papermill.execute_notebook(
        str(paths.notebooks() / name), str(batch), kernel_name="python3", progress_bar=False, cwd=str(paths.checkout())
    )
    return shown(nbformat.read(batch, as_version=4))


def test_papermill_gives_the_same(
    committed: None, preflight: Any, server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = by_papermill(PREFLIGHT, tmp_path, monkeypatch)
    assert sum(map(bool, batch)) >= 3
    assert batch == shown(server.saved(PREFLIGHT))


def test_a_changed_parameter_changes_what_is_shown(
    committed: None, preflight: Any, server: Any, pictures: Path
) -> None:
    profile = server.root / "elsewhere.yaml"
    nodes = [{"name": "k8s-master", "address": "192.168.77.3"}, {"name": "k8s-node1", "address": "192.168.77.4"}]
    values = {"lab": "elsewhere", "nodes": nodes, "subnet": "192.168.77.0/24", "gateway": "192.168.77.2"}
    profile.write_text(yaml.safe_dump(values), encoding="utf-8")
    again = preflight.set_parameter(f'profile = "{profile}"').run_all(120)
    again.screenshot(pictures / "preflight-changed.png")
    assert again.errors() == []
    assert "00-preflight on embedded machines: k8s-master 192.168.77.3, k8s-node1 192.168.77.4" in again.texts()
    assert "192.168.98.3" not in again.texts()


def test_a_wrong_parameter_is_refused_in_the_page(committed: None, preflight: Any, pictures: Path) -> None:
    again = preflight.set_parameter('profile = "embeded"').run_all(60)
    again.screenshot(pictures / "preflight-refused.png")
    assert "did you mean 'embedded'?" in "".join(again.errors())


@pytest.mark.more
@pytest.mark.parametrize(
    ("path", "claims", "folded", "tables", "plots"),
    [(DESIGN, 15, 8, 5, 1), (PROTOBUF, 70, 30, 15, 5)],
)
def test_plots_and_tables_of_a_chapter(
    committed: None, server: Any, page: Any, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    path: str, claims: int, folded: int, tables: int, plots: int,
) -> None:  # fmt: skip
    chapter = lab_page.Chapter(page, server, path).open().run_all(300)
    chapter.screenshot(pictures / f"{path[:2]}.png", of="img")
    assert chapter.errors() == []
    marks = re.findall(r"(?m)^(✓|✗) [\w-]+: .+", chapter.texts())
    assert len(marks) >= claims and set(marks) == {"✓"}
    hidden = [c for c in server.saved(path)["cells"] if c["metadata"].get("jupyter", {}).get("source_hidden")]
    assert len(hidden) == page.locator(".jp-CodeCell .jp-InputPlaceholder").count() >= folded
    assert chapter.count("table") >= tables
    assert chapter.count("img") >= plots
    wide = "images => images.map(i => [i.naturalWidth, i.alt])"
    found = page.locator(".jp-Notebook .jp-OutputArea-output img").evaluate_all(wide)
    assert found and all(width > 200 for width, _ in found)
    assert all(outputs_alt(server.saved(path)))
    batch = by_papermill(path, tmp_path, monkeypatch)
    assert sum(map(bool, batch)) >= tables
    assert differing(batch, shown(server.saved(path))) == []


def test_a_long_step_says_what_it_is_doing_while_it_runs(server: Any, page: Any, pictures: Path) -> None:
    sources = [
        "from stackbook import bind\nfrom stackbook.core.waiting import pause\nlab = bind('00-preflight')",
        "with lab.step('long', 'a step that takes its time') as step:\n    step.progress('asked twice')\n    pause(6)",
    ]
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), server.root / "notebooks" / "long.ipynb")
    chapter = lab_page.Chapter(page, server, "long.ipynb").open()
    seen: list[str] = []

    def running() -> bool:
        seen.append(chapter.texts())
        return "a step that takes its time: " in seen[-1] and "(asked twice)" in seen[-1]

    chapter.start_all()
    until(running, what="the running step says what it does", timeout=60, every=0.2, last=lambda: seen[-1])
    chapter.screenshot(pictures / "progress.png")
    chapter.wait_all(60)
    assert chapter.errors() == []
    lines = [line.strip() for line in chapter.texts().splitlines()]
    assert "✓ long: a step that takes its time" in lines
    assert not any(line.startswith("…") for line in lines), "the line is gone when the step has ended"


def differing(batch: list[list[str]], browser: list[list[str]]) -> list[str]:
    """The first difference of each cell, short enough to be read in a log that is cut."""
    assert len(batch) == len(browser)
    found = []
    for number, (one, other) in enumerate(zip(batch, browser, strict=True)):
        pairs = zip_longest(one, other, fillvalue="(nothing)")
        found += [f"cell {number}: batch {a[:150]!r}, browser {b[:150]!r}" for a, b in pairs if a != b][:1]
    return found


def test_a_terminal_finds_the_labs_programs(server: Any) -> None:
    """A terminal as the page opens it, over its web socket; what is typed answers into a file."""
    said = server.root / "said"
    headers = {"Authorization": f"token {server.token}"}
    name = httpx.post(f"{server.url}/api/terminals", headers=headers, timeout=60).raise_for_status().json()["name"]
    typed = (
        f"{{ type -p kubectl k8s-node1; kubectl get pods; echo $K8S_NODE1; }} >{said}.new 2>&1; mv {said}.new {said}\r"
    )

    async def type_it() -> None:
        address = f"{server.url.replace('http', 'ws', 1)}/terminals/websocket/{name}"
        connection = await websocket_connect(HTTPRequest(address, headers=headers, connect_timeout=60))
        await connection.read_message()
        await connection.write_message(json.dumps(["stdin", typed]))
        connection.close()

    with ThreadPoolExecutor(1) as beside:  # playwright has a loop of its own in this thread
        beside.submit(asyncio.run, type_it()).result(90)
    until(said.exists, what="the terminal answers", timeout=90, every=0.2)
    lines = said.read_text().splitlines()
    assert [Path(line).name for line in lines[:2]] == ["kubectl", "k8s-node1"]
    assert "the lab has no cluster yet" in lines[2]
    assert lines[3] == "192.168.98.4"


def outputs_alt(book: dict[str, Any]) -> list[str]:
    """The texts of the pictures, as saved: JupyterLab shows none of them, but keeps them."""
    return [
        output["metadata"].get("image/png", {}).get("alt", "")
        for cell in book["cells"]
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]


def shown(book: Any) -> list[list[str]]:
    """What each code cell shows, by nbval's rules: texts sanitised, pictures by their text, volatile cells left out."""
    config = configparser.RawConfigParser()
    config.read(SANITIZE)
    rules = [(config.get(name, "regex"), config.get(name, "replace")) for name in config.sections()]
    found = []
    for cell in book["cells"]:
        if cell["cell_type"] != "code":
            continue
        volatile = "nbval-ignore-output" in cell["metadata"].get("tags", [])
        streams, rest = "", []
        for output in cell["outputs"]:
            streams += "".join(output.get("text", ""))
            data = output.get("data", {})
            rest += ["".join(text) for kind, text in sorted(data.items()) if kind.startswith("text/")]
            rest += [f"picture: {output['metadata'][kind]}" for kind in sorted(data) if kind.startswith("image/")]
        texts = [] if volatile else [streams, *rest]
        for regex, replace in rules:
            texts = [re.sub(regex, replace, text) for text in texts]
        found.append([text for text in texts if text])
    return found
