from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stackbook.app import report
from stackbook.app.report import notebooks as books
from stackbook.app.report import records, sections, timings

HOSTILE = """<script>alert(1)</script><img src=x onerror=alert(1)>" onload="x' </style></table>&amp;"""
TOKEN = "abcdef.0123456789abcdef"
PIXEL = base64.b64encode(
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (900).to_bytes(4, "big") + (1).to_bytes(4, "big") + b"\x08\x02\0\0\0" + b"0" * 40
).decode()


def step(id: str, outcome: str = "passed", seconds: float = 1.0, **more: Any) -> dict[str, Any]:
    return {
        "event": "step-end",
        "chapter": "x",
        "step": id,
        "title": f"title of {id}",
        "outcome": outcome,
        "seconds": seconds,
        "changed": 1,
        "reason": "",
        "commands": [],
        "evidence": {"seen": "proof"},
        **more,
    }


def chapter(id: str, outcome: str = "passed", seconds: float = 10.0, steps: Any = None, **more: Any) -> dict[str, Any]:
    return {
        "chapter": id,
        "outcome": outcome,
        "seconds": seconds,
        "changed": 3,
        "leaves": "two machines",
        "reason": "",
        "notebook": f"{id}.ipynb",
        "steps": [step("make")] if steps is None else steps,
        **more,
    }


def run(*chapters: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "schema": 1,
        "started": "20260102T030405Z",
        "seconds": 190.0,
        "stackbook": "0.1.0",
        "passed": all(c["outcome"] in ("passed", "unchanged") for c in chapters),
        "profile": {
            "name": "embedded",
            "lab": "demo",
            "target": "embedded",
            "nodes": [{"name": "m", "address": "192.0.2.3"}],
        },
        "versions": {"kubernetes": "1.36.3"},
        "host": {"processors": 2, "memory_bytes": 8 * 2**30},
        "chapters": list(chapters),
        **more,
    }


def notebook(
    *outputs: dict[str, Any], text: str = "# A chapter\n\n[next](01-machines.ipynb#Top) [out](../x.md)"
) -> dict[str, Any]:
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    code = {
        "cell_type": "code",
        "execution_count": 1,
        "id": "c",
        "metadata": {},
        "outputs": list(outputs),
        "source": "1",
    }
    prose = {"cell_type": "markdown", "id": "m", "metadata": {}, "source": text}
    return {"cells": [prose, code], "metadata": {"kernelspec": spec}, "nbformat": 4, "nbformat_minor": 5}


def picture(data: str = PIXEL, alt: str = "A plot of requests") -> dict[str, Any]:
    return {"output_type": "display_data", "data": {"image/png": data}, "metadata": {"image/png": {"alt": alt}}}


def printed(text: str) -> dict[str, Any]:
    return {"output_type": "stream", "name": "stdout", "text": [text]}


def left(folder: Path, data: dict[str, Any], **notebooks: dict[str, Any]) -> Path:
    """A run's folder."""
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(data), encoding="utf-8")
    for name, book in notebooks.items():
        (folder / f"{name.replace('_', '-')[1:]}.ipynb").write_text(json.dumps(book), encoding="utf-8")
    return folder


class Seen(HTMLParser):
    """Tags, attributes and texts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(autouse=True)
def _empty_home(home: Path) -> None:
    """No cache, no state and no runs of this user."""


def test_one_page_has_what_a_reader_asks_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left(tmp_path / "20260101T000000Z", run(chapter("01-machines", seconds=8, steps=[step("make", seconds=0.5)])))
    folder = left(
        tmp_path / "20260102T030405Z",
        run(
            chapter("00-preflight"),
            chapter("01-machines"),
            chapter("05-istio", "unchanged", 0.5, [], reason="pods 2/2; page opens"),
        ),
        _00_preflight=notebook(picture(), printed("hello")),
        _01_machines=notebook(printed("✓ make: two machines")),
    )
    path = report.write(folder)
    assert path == folder / "report.html"
    assert capsys.readouterr().err == ""
    seen = Seen(path.read_text(encoding="utf-8"))
    for said in (
        "2026-01-02 03:04:05 UTC",
        "✓ passed",
        "3 min 10 s",
        "title of make",
        "two machines",
        "1.36.3",
        "192.0.2.3",
        "8.0 GiB",
        "pods 2/2",
        "Errata",
        "K",
        "seen: proof",
    ):
        assert said in seen.text.replace("seen: ", "seen: "), said
    targets = [a.get("href") for tag, a in seen.tags if tag == "a"]
    assert "00-preflight.html" in targets
    assert [a["alt"] for tag, a in seen.tags if tag == "img"] == ["A plot of requests"]
    assert any("usually 8.0 s" in str(a.get("aria-label")) for _, a in seen.tags)
    assert any(tag == "meta" and a.get("name") == "viewport" for tag, a in seen.tags)


def test_nothing_is_loaded_and_no_script_runs(tmp_path: Path) -> None:
    html = {"output_type": "display_data", "data": {"text/html": "<b>x</b><script>alert(1)</script>"}, "metadata": {}}
    folder = left(
        tmp_path / "1",
        run(chapter("00-preflight"), chapter("01-machines")),
        _00_preflight=notebook(picture(), html),
        _01_machines=notebook(text="# x $a^2$"),
    )
    report.write(folder)
    pages = sorted(folder.glob("*.html"))
    assert [p.name for p in pages] == ["00-preflight.html", "01-machines.html", "report.html"]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert "default-src 'none'" in text[:400]
        assert "script-src" not in text
        for tag, attributes in Seen(text).tags:
            source = str(attributes.get("src") or "")
            assert tag not in ("link", "base", "object", "embed")
            assert not source or source.startswith("data:image/png;base64,"), source
        assert not re.search(r"@import|url\(", text)


def test_links_between_chapters_lead_to_their_pages_or_nowhere(tmp_path: Path) -> None:
    folder = left(
        tmp_path / "1",
        run(chapter("00-preflight"), chapter("01-machines")),
        _00_preflight=notebook(),
        _01_machines=notebook(),
    )
    report.write(folder)
    seen = Seen((folder / "00-preflight.html").read_text(encoding="utf-8"))
    targets = [str(a["href"]) for tag, a in seen.tags if tag == "a" and "href" in a]
    assert "01-machines.html#Top" in targets
    assert not [t for t in targets if t.startswith("..")]


def test_a_folded_cell_is_folded_on_the_page(tmp_path: Path) -> None:
    """The code of claims unfolds; that of a step, and what both print, does not."""
    book = notebook(printed("step printed"))
    shown = book["cells"][1] | {"id": "d", "source": "shown_code", "outputs": [printed("✓ one")]}
    folded = shown | {"id": "e", "source": "folded_code", "metadata": {"jupyter": {"source_hidden": True}}}
    left(
        tmp_path / "a",
        run(chapter("00-preflight", notebook="00-preflight.ipynb")),
        _00_preflight=book | {"cells": [*book["cells"], shown, folded]},
    )
    report.write(tmp_path / "a")
    page = (tmp_path / "a" / "00-preflight.html").read_text(encoding="utf-8")
    assert page.count("<details") == page.count("What is checked here") == 1
    inside = page.partition("<details")[2].partition("</details>")[0]
    assert "folded_code" in inside and "open" not in inside.partition(">")[0]
    assert "shown_code" not in inside and "✓ one" not in inside


def test_hostile_texts_are_escaped(tmp_path: Path) -> None:
    bad = chapter(
        HOSTILE,
        "failed",
        reason=HOSTILE,
        leaves=HOSTILE,
        steps=[
            step(
                HOSTILE,
                "failed",
                title=HOSTILE,
                reason=HOSTILE,
                evidence={HOSTILE: HOSTILE},
                commands=[{"rc": 1, "host": HOSTILE, "command": HOSTILE, "stderr": HOSTILE}],
            ),
        ],
    )
    strange = run(bad, chapter("00-preflight"), started=HOSTILE, versions={HOSTILE: HOSTILE}, host={HOSTILE: HOSTILE})
    strange["profile"] = {"lab": HOSTILE, HOSTILE: HOSTILE, "nodes": [{"name": HOSTILE, "address": HOSTILE}]}
    folder = left(tmp_path / "1", strange, _00_preflight=notebook(picture(alt=HOSTILE)))
    page = report.write(folder).read_text(encoding="utf-8")
    seen = Seen(page)
    assert not [tag for tag, _ in seen.tags if tag == "script"]
    assert not [a for _, a in seen.tags if any(name.startswith("on") for name in a)]
    assert [a["alt"] for tag, a in seen.tags if tag == "img"] == [HOSTILE]
    assert HOSTILE in seen.text


def test_no_secret_reaches_a_page(tmp_path: Path) -> None:
    bad = chapter(
        "00-preflight",
        "failed",
        reason=f"join {TOKEN}",
        steps=[
            step(
                "x",
                "failed",
                reason=TOKEN,
                evidence={"token": TOKEN},
                commands=[{"rc": 1, "command": TOKEN, "stderr": TOKEN}],
            )
        ],
    )
    folder = left(tmp_path / "1", run(bad), _00_preflight=notebook(printed(f"kubeadm join --token {TOKEN}")))
    report.write(folder)
    for page in folder.glob("*.html"):
        assert TOKEN not in page.read_text(encoding="utf-8"), page.name


def test_a_failure_stands_on_top_with_its_reason(tmp_path: Path) -> None:
    broken = chapter(
        "01-machines",
        "failed",
        reason="CheckFailed: no such machine",
        steps=[step("make", "failed", commands=[{"rc": 3, "command": "ip link", "host": "m", "stderr": "down"}])],
    )
    text = Seen(
        report.page(run(broken, chapter("02-kubeadm", "blocked", reason="01-machines did not pass", steps=[])))
    ).text
    assert "✗ not passed" in text
    assert text.index("no such machine") < text.index("usually")
    assert "ip link" in text
    assert "status 3" in text


@pytest.mark.parametrize("size", [1_000_000, 3_000_000, 8_000_000])
def test_it_stays_light_enough_to_mail(tmp_path: Path, size: int) -> None:
    # base64 grows by a third: at 3 MB of it the first picture fits, the second does not, at 8 MB none does.
    data = PIXEL + "A" * (size - len(PIXEL))
    big = chapter("00-preflight", steps=[step(f"s{n}", evidence={"e": "x" * 10_000}) for n in range(400)])
    folder = left(tmp_path / "1", run(big), _00_preflight=notebook(picture(data, "one"), picture(data, "two")))
    page = report.write(folder).read_text(encoding="utf-8")
    assert len(page.encode()) < report.MOST_BYTES
    assert page.endswith("</html>")
    assert page.count("<img") == {1_000_000: 2, 3_000_000: 1, 8_000_000: 0}[size]
    assert page.count("The picture is in the chapter's page") == 2 - page.count("<img")


def test_what_is_too_long_is_cut_by_leaving_evidence_out(tmp_path: Path) -> None:
    steps = [step(f"s{n}", reason="ö" * 5000, evidence={str(k): "x" * 5000 for k in range(8)}) for n in range(600)]
    folder = left(tmp_path / "1", run(chapter("00-preflight", steps=steps)))
    page = report.write(folder).read_text(encoding="utf-8")
    assert len(page.encode()) < report.MOST_BYTES
    assert page.endswith("</html>")


BROKEN = {
    "empty": "",
    "half": '{"chapters": [',
    "list": "[]",
    "null": "null",
    "text": '{"chapters": "x"}',
    "deep": "[" * 20_000,
    "latin": "\udcff",
}


def test_earlier_records_that_are_broken_are_left_out_and_counted(tmp_path: Path) -> None:
    for name, text in BROKEN.items():
        (tmp_path / f"1-{name}").mkdir()
        (tmp_path / f"1-{name}" / "run.json").write_bytes(text.encode(errors="surrogateescape"))
    (tmp_path / "1-without").mkdir()
    left(tmp_path / "1-good", run(chapter("00-preflight", seconds=7)))
    (tmp_path / "latest").symlink_to("2")
    folder = left(tmp_path / "2", run(chapter("00-preflight")))
    text = report.write(folder).read_text(encoding="utf-8")
    assert f"{len(BROKEN)} earlier records could not be read" in text
    assert "usually 7.0 s" in text


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_its_own_failure_is_said_and_breaks_nothing(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.json").write_bytes(text.encode(errors="surrogateescape"))
    path = report.write(tmp_path)
    assert "No report" in path.read_text(encoding="utf-8")
    said = capsys.readouterr().err
    assert said.startswith("stackbook: report: the report could not be created")
    assert said.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = left(tmp_path / "1", run(chapter("00-preflight")))
    (folder / "report.html").mkdir()
    report.write(folder)
    assert "the report's folder cannot be written" in capsys.readouterr().err


def test_a_notebook_or_a_section_that_breaks_leaves_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(_: object) -> str:
        raise RuntimeError("no cache")

    monkeypatch.setattr(sections, "components", breaks)
    folder = left(
        tmp_path / "1",
        run(chapter("00-preflight"), chapter("01-machines")),
        _00_preflight={"cells": 3},
        _01_machines=notebook(),
    )
    text = report.write(folder).read_text(encoding="utf-8")
    assert "title of make" in text
    said = capsys.readouterr().err
    for line in (
        "00-preflight.ipynb could not be exported",
        "'Versions and checksums' could not be created: RuntimeError: no cache",
    ):
        assert line in said
    assert "no cache" in text
    assert 'href="00-preflight.ipynb"' in text
    assert 'href="01-machines.html"' in text


def test_a_chapter_not_run_again_points_to_the_run_that_executed_it(tmp_path: Path) -> None:
    left(tmp_path / "20260101T000000Z", run(chapter("01-machines")))
    folder = left(tmp_path / "20260102T000000Z", run(chapter("01-machines", "unchanged", notebook="", steps=[])))
    assert 'href="../20260101T000000Z/01-machines.html"' in report.write(folder).read_text(encoding="utf-8")


def test_the_usual_time_is_taken_from_passes_only(tmp_path: Path) -> None:
    runs = [
        records.parse(run(chapter("a", outcome, seconds)))
        for outcome, seconds in (("passed", 4), ("failed", 99), ("unchanged", 1))
    ]
    assert timings.usual(runs) == {"a": [4.0]}


def test_a_notebook_cannot_name_a_file_elsewhere() -> None:
    for name in ("../x.ipynb", "/etc/passwd", "a/b.ipynb", "x.html", "", ".ipynb"):
        assert records.parse(run(chapter("a", notebook=name))).chapters[0].notebook == ""


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "chapters",
                    "chapter",
                    "steps",
                    "step",
                    "seconds",
                    "outcome",
                    "evidence",
                    "commands",
                    "rc",
                    "nodes",
                    "x",
                ]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=25,
)
RUNS = st.fixed_dictionaries(
    {
        "chapters": st.lists(
            st.fixed_dictionaries(
                {"chapter": st.text(max_size=9)},
                optional=dict.fromkeys(
                    ("outcome", "seconds", "changed", "leaves", "reason", "notebook", "steps"), JSON
                ),
            ),
            max_size=4,
        )
    },
    optional=dict.fromkeys(("started", "seconds", "passed", "stackbook", "profile", "versions", "host"), JSON),
)


@given(JSON)
def test_any_json_is_a_record_or_is_refused(data: Any) -> None:
    try:
        parsed = records.parse(json.loads(json.dumps(data)))
    except ValueError:
        return
    assert isinstance(parsed.chapters, tuple)


@pytest.mark.slow
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(RUNS)
def test_any_record_makes_a_page(data: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sections, "errata", lambda _: "")
        patch.setattr(sections, "components", lambda _: "")
        page = report.page(data, name="r")
    assert page.endswith("</html>")
    assert not [tag for tag, _ in Seen(page).tags if tag == "script"]


@given(JSON)
def test_any_notebook_has_its_pictures_or_none(data: Any) -> None:
    cell = {"outputs": data} if isinstance(data, list) else data
    for found in books.pictures({"cells": [cell, {"outputs": [{"data": data, "metadata": data}]}]}, "x"):
        assert found.alt
        assert "min-width" in found.least or found.least == ""


def test_each_step_has_its_commands_also_those_that_passed() -> None:
    commands = [
        {"rc": 0, "host": "k8s-master", "command": "kubeadm init --config /etc/stackbook/kubeadm.yaml"},
        {"rc": 0, "host": "k8s-master", "command": f"kubeadm join --token {TOKEN} <{HOSTILE}>"},
    ]
    page = report.page(run(chapter("02-kubeadm", steps=[step("init", commands=commands)])))
    assert "# on k8s-master\nkubeadm init --config /etc/stackbook/kubeadm.yaml" in page
    assert TOKEN not in page
    assert "<script>alert" not in page
