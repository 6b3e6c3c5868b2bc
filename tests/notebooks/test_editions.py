"""The Chinese edition: the same code, prose that was looked at since the English text changed, and no English sentence in it."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from stackbook.config import chapters

ROOT = Path(__file__).resolve().parents[2]
NAMES = [chapter.id for chapter in chapters.available()]


def _editions() -> ModuleType:
    spec = importlib.util.spec_from_file_location("editions", ROOT / "tools" / "editions.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


EDITIONS = _editions()
# What is no sentence: code, links' targets, HTML, and what stands in a table's code.
_NOT_PROSE = re.compile(r"```.*?```|~~~.*?~~~|`[^`\n]+`|\]\([^)]*\)|<[^>]+>|https?://\S+", re.DOTALL)
_SENTENCE = re.compile(r"(?:\b[A-Za-z][a-z]+\b[ ,;]+){5,}[A-Za-z][a-z]+\b")
_CHINESE = re.compile(r"[\u4e00-\u9fff]")


def english_left(text: str) -> list[str]:
    """English sentences in Chinese prose: six words in a row, outside code."""
    return _SENTENCE.findall(_NOT_PROSE.sub(" ", text))


def pair(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    return EDITIONS.read(EDITIONS.ENGLISH / f"{name}.ipynb"), EDITIONS.read(EDITIONS.CHINESE / f"{name}.ipynb")


def test_both_editions_have_the_same_chapters() -> None:
    assert sorted(path.stem for path in EDITIONS.CHINESE.glob("*.ipynb")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_code_is_the_same_byte_for_byte(name: str) -> None:
    english, chinese = pair(name)
    assert [cell["id"] for cell in chinese["cells"]] == [cell["id"] for cell in english["cells"]]
    code = [[cell for cell in book["cells"] if cell["cell_type"] == "code"] for book in (english, chinese)]
    assert code[0] == code[1], "run python tools/editions.py"


@pytest.mark.parametrize("name", NAMES)
def test_every_translation_was_looked_at_since_the_text_changed(name: str) -> None:
    assert list(EDITIONS.outdated(*pair(name))) == [], (
        f"look at notebooks/zh/{name}.ipynb, then tools/editions.py --looked-at {name[:2]}"
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_prose_is_chinese(name: str) -> None:
    _, chinese = pair(name)
    for cell in chinese["cells"]:
        if cell["cell_type"] == "markdown":
            text = EDITIONS.source(cell)
            assert _CHINESE.search(text), (cell["id"], text[:80])
            assert english_left(text) == [], cell["id"]


_BROKEN = re.compile(r"[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]\n(?=[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef])")


def broken_lines(text: str) -> list[str]:
    """Line breaks between two Chinese characters, which a page shows as a space; outside blocks of code."""
    return _BROKEN.findall(re.sub(r"```.*?```", "", text, flags=re.DOTALL))


@pytest.mark.parametrize("name", NAMES)
def test_no_line_breaks_inside_a_chinese_sentence(name: str) -> None:
    _, chinese = pair(name)
    for cell in chinese["cells"]:
        if cell["cell_type"] == "markdown":
            assert not broken_lines("".join(cell["source"])), "".join(cell["source"])


def test_a_line_break_inside_a_sentence_is_found() -> None:
    assert len(broken_lines("图中会同时\n显示三样东西。\n\n下一段。\n```\n图\n图\n```")) == 1
    assert not broken_lines("- 一\n- 二")


@pytest.mark.parametrize("name", NAMES)
def test_links_and_headings_are_those_of_the_english_text(name: str) -> None:
    for one, other in zip(*(book["cells"] for book in pair(name)), strict=True):
        if one["cell_type"] == "markdown":
            texts = [EDITIONS.source(cell).replace("](../pictures/", "](pictures/") for cell in (one, other)]
            links = [
                sorted(re.findall(r"\]\(([^)#]*)(?:#[^)]*)?\)", text)) for text in texts
            ]  # an anchor is a heading's words
            heads = [re.findall(r"(?m)^(#+) ", _without_code(text)) for text in texts]
            folds = [text.count("<details>") for text in texts]
            assert (links[0], heads[0], folds[0]) == (links[1], heads[1], folds[1]), one["id"]


def _without_code(text: str) -> str:
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def test_an_english_sentence_is_found() -> None:
    assert english_left("先看输出。The sidecar of each pod counts every request. 再看表。")
    assert not english_left("用 `kubectl get pods -n istio-system` 查看 Istio Envoy Prometheus 的 Pod。")
    assert not english_left("```shell\nrun this and that and then the other\n```")


def cell(id: str, text: str, kind: str = "markdown", **metadata: Any) -> dict[str, Any]:
    return {"id": id, "cell_type": kind, "metadata": metadata, "source": text.splitlines(keepends=True)}


def test_a_changed_english_text_wants_a_look() -> None:
    english = {"cells": [cell("a", "One."), cell("b", "x = 1", "code")]}
    first = EDITIONS.translated(english, None, {"a": "一。"})
    assert list(EDITIONS.outdated(english, first)) == []
    changed = {"cells": [cell("a", "Two."), cell("b", "x = 2", "code"), cell("c", "New.")]}
    with pytest.raises(KeyError, match="c"):
        EDITIONS.translated(changed, first, {})
    kept = EDITIONS.translated(changed, first, {"c": "新。"})
    assert [EDITIONS.source(each) for each in kept["cells"]] == ["一。", "x = 2", "新。"]
    assert list(EDITIONS.outdated(changed, kept)) == ["a"]
    assert list(EDITIONS.outdated(changed, {"cells": []})) == ["a", "c"]
