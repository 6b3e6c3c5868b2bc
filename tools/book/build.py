"""Build the book (`make book`): a static site of the executed chapters and the documents, which opens from a file.

Nothing is executed: the pages show the committed outputs, or those of another folder with executed chapters.
A broken link fails the build.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
MARK = ".stackbook-book"
FIRST = '<!doctype html><meta charset="utf-8"><title>stackbook</title><meta http-equiv="refresh" content="0; url=README.html">\n'
_CHAPTER = re.compile(r"\d\d-[a-z]+")
_ANCHOR = re.compile(r"(\]\([^)#\s]+\.ipynb)#([^)]+)\)")
_ENGLISH = re.compile(r"\[([^\]]+)\]\(README\.md(#[^)]*)?\)")
_CHINESE = re.compile(r"\[([^\]]+)\]\(README\.zh-CN\.md\)")
_HEADING = {"en": ("Chapters", "Documents"), "zh_CN": ("章节", "文档")}
_FOLDED = {"en": ("What is checked here", "Hide the checks"), "zh_CN": ("这里检查什么", "收起检查")}
"""What stands in place of a folded cell, and above it when it is unfolded."""


def prepared(book: dict[str, Any]) -> dict[str, Any]:
    """A chapter in the form that Sphinx reads.

    Anchors are in lower case, the pages' pictures lie beside the chapter, and the plots' alternative texts are in its metadata.
    """
    for cell in book["cells"]:
        if cell["cell_type"] == "markdown":
            text = "".join(cell["source"]).replace("](../pictures/", "](pictures/")
            cell["source"] = _ANCHOR.sub(lambda found: f"{found[1]}#{found[2].lower()})", text)
            continue
        texts = [
            output["metadata"]["image/png"]["alt"]
            for output in cell.get("outputs", [])
            if "image/png" in output.get("data", {}) and output.get("metadata", {}).get("image/png", {}).get("alt")
        ]
        if texts:
            cell["metadata"]["mystnb"] = {"image": {"alt": " / ".join(texts)}}
    return book


def contents(chapters: list[str], documents: list[str], language: str) -> str:
    """The tables of contents, which follow the first page's text."""
    found = ""
    for caption, names in zip(_HEADING[language], (chapters, documents), strict=True):
        if names:
            found += f"\n```{{toctree}}\n:caption: {caption}\n:hidden:\n\n" + "\n".join(names) + "\n```\n"
    return found


def sources(target: Path, chapters: Path, first: Path, language: str) -> list[str]:
    """Write the sources of one edition to a folder; returns the names of its pages.

    Args:
        target: the folder.
        chapters: where the executed chapters are.
        first: the edition's README.
        language: Sphinx' name of the language.
    """
    names = sorted(path.stem for path in chapters.glob("*.ipynb") if _CHAPTER.fullmatch(path.stem))
    (target / "notebooks").mkdir(parents=True)
    for name in names:
        book = json.loads((chapters / f"{name}.ipynb").read_text(encoding="utf-8"))
        text = json.dumps(prepared(book), ensure_ascii=False)
        (target / "notebooks" / f"{name}.ipynb").write_text(text, encoding="utf-8")
    shutil.copytree(ROOT / "notebooks" / "pictures", target / "notebooks" / "pictures")
    shutil.copytree(ROOT / "docs", target / "docs")
    shutil.copy(ROOT / "CONTRIBUTING.md", target)
    documents = sorted(str(p.relative_to(target).with_suffix("")) for p in target.rglob("*.md"))
    text = first.read_text(encoding="utf-8") + contents([f"notebooks/{name}" for name in names], documents, language)
    text = _CHINESE.sub(r'<a href="zh/README.html">\1</a>', text).replace(
        "[notebooks/zh](notebooks/zh)", "`notebooks/zh`"
    )
    if language != "en":  # its first page is in a subfolder, and can link to the English one
        text = _ENGLISH.sub(r'<a href="../README.html\2">\1</a>', text.replace("(notebooks/zh/", "(notebooks/"))
    (target / "README.md").write_text(text, encoding="utf-8")
    return ["README", *(f"notebooks/{name}" for name in names), *documents]


def main() -> int:
    """Build every edition that exists."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chapters", type=Path, default=ROOT / "notebooks", help="folder with executed chapters")
    parser.add_argument("--output", type=Path, default=ROOT / "book", help="where the site goes")
    options = parser.parse_args()
    began = time.monotonic()
    editions = [("English", "en", "", options.chapters, ROOT / "README.md")]
    if (options.chapters / "zh").is_dir() and (ROOT / "README.zh-CN.md").is_file():
        editions.append(("中文", "zh_CN", "zh/", options.chapters / "zh", ROOT / "README.zh-CN.md"))
    if options.output.exists() and not (options.output / MARK).exists():
        print(
            f"book: {options.output} was not created by this program — name another folder with --output",
            file=sys.stderr,
        )
        return 2
    work = options.output.with_name(f".{options.output.name}.new")
    shutil.rmtree(work, ignore_errors=True)
    pages = {
        folder: sources(work / "sources" / (folder or "en"), chapters, first, language)
        for _, language, folder, chapters, first in editions
    }
    for _, language, folder, _, _ in editions:
        back = "../" if folder else ""
        others = [(name, back + other, pages[other]) for name, _, other, _, _ in editions if other != folder]
        sphinx = [
            sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-c", str(HERE),
            "-d", str(work / "doctrees" / (folder or "en")), "-D", f"language={language}",
            "-D", f"nb_code_prompt_show={_FOLDED[language][0]}", "-D", f"nb_code_prompt_hide={_FOLDED[language][1]}",
            str(work / "sources" / (folder or "en")), str(work / "site" / folder),
        ]  # fmt: skip
        environment = {
            **os.environ,
            "STACKBOOK_EDITIONS": json.dumps(others),
            "TMPDIR": str(work),
        }  # jieba keeps a file there
        if subprocess.run(sphinx, check=False, env=environment).returncode:
            print("book: the build failed — see the lines above", file=sys.stderr)
            return 1
    (work / "site" / MARK).touch()
    (work / "site" / "index.html").write_text(FIRST, encoding="utf-8")
    shutil.rmtree(options.output, ignore_errors=True)
    (work / "site").rename(options.output)
    shutil.rmtree(work)
    size = sum(path.stat().st_size for path in options.output.rglob("*") if path.is_file())
    print(f"{options.output / 'README.html'}: {size / 1e6:.1f} MB, {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
