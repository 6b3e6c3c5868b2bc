"""The command `progress`: what a learner has done, chapter by chapter, and a trainer's page over several labs.

Everything is read from the labs' states on this host; nothing is sent.
"""

from __future__ import annotations

import argparse
import html
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stackbook.core import paths
from stackbook.core.errors import InputError
from stackbook.lab import learner

Rows = Sequence[learner.Chapter]
_CSS = """
body { font: 16px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; color: #111; }
table { border-collapse: collapse; margin: 1em 0; } caption { text-align: left; font-weight: bold; padding: 0.4em 0; }
th, td { border: 1px solid #bbb; padding: 0.3em 0.6em; text-align: left; vertical-align: top; }
td.n { text-align: right; } thead th { background: #eee; } tr.total td, tr.total th { font-weight: bold; }
@media print { body { max-width: none; } }
"""


def arguments(add: Callable[..., Any]) -> None:
    """The command's own arguments; `add` adds a command."""
    sub = add("progress", "print what was read, run and solved, chapter by chapter", command)
    sub.add_argument("--json", action="store_true")
    sub.add_argument("--all", action="store_true", help="include every lab whose state is on this host")
    sub.add_argument("--from", dest="folders", action="append", default=[], metavar="DIR",
                     help="with --all: also include the labs of another state folder; can be repeated")  # fmt: skip
    sub.add_argument("--html", default="", metavar="FILE", help="write a page for a trainer to this file")


def command(options: argparse.Namespace) -> int:
    """Print or write the progress of a lab, or of all."""
    from stackbook.config.profile import Profile

    if options.folders and not options.all:
        raise InputError("--from works only with --all", fix="stackbook progress --all --from DIR")
    if options.all:
        labs = found([paths.states(), *[_folder(text) for text in options.folders]])
    else:
        name = Profile.load(options.profile).lab
        labs = {name: rows(paths.states() / name)}
    if options.html:
        _write(options.html, page(labs))
    if options.json:
        print(json.dumps({name: [asdict(row) for row in one] for name, one in labs.items()}, indent=1))
    elif options.html:
        print(f"{len(labs)} {'lab' if len(labs) == 1 else 'labs'}: {options.html}")
    else:
        for name, one in labs.items():
            print("\n".join(lines(name, one)))
    return 0


def _folder(text: str) -> Path:
    path = Path(text)
    if not path.is_dir():
        raise InputError(f"{text} is not a folder", fix="name a state folder, for example ~/.local/state/stackbook")
    return path


def _write(name: str, text: str) -> None:
    try:
        Path(name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{name} cannot be written: {error.strerror}", fix="name another file") from None


def found(folders: Sequence[Path]) -> dict[str, Rows]:
    """The progress of every lab below these state folders that a learner has opened, by name.

    Raises:
        InputError: there is no such lab.
    """
    labs: dict[str, Rows] = {}
    for folder in folders:
        for file in sorted(folder.glob(f"*/{learner.FILE}")):
            name = file.parent.name
            labs[f"{name} ({folder})" if name in labs else name] = rows(file.parent)
    if not labs:
        raise InputError("nobody has opened a lab here yet", fix="open a chapter, or name a folder with --from")
    return labs


def rows(state: Path) -> list[learner.Chapter]:
    """The chapters of a lab, with what was done in each."""
    from stackbook.config import chapters

    return learner.summary(learner.events(state), [chapter.id for chapter in chapters.ALL])


def duration(seconds: float) -> str:
    """Seconds as hours and minutes.

    >>> duration(59), duration(3720)
    ('1 min', '1 h 2 min')
    """
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _cells(row: learner.Chapter) -> list[str]:
    from stackbook.lessons import challenges

    of = len(challenges.of(row.chapter))
    return [
        "yes" if row.read else "–",
        "yes" if row.run else "–",
        f"{len(row.solved)} of {of}" if of else "–",
        str(row.hints or "–"),
        duration(row.seconds) if row.seconds else "–",
    ]


HEAD = ("chapter", "read", "run", "solved", "hints", "time")


def lines(name: str, chapters: Rows) -> list[str]:
    """The progress of a lab, for a terminal."""
    text = [f"lab {name}", f"{HEAD[0]:16}" + "".join(f"{word:>12}" for word in HEAD[1:])]
    text += [f"{row.chapter:16}" + "".join(f"{cell:>12}" for cell in _cells(row)) for row in chapters]
    read, run, solved, hints, seconds = _sums(chapters)
    sums = (str(read), str(run), str(solved), str(hints), duration(seconds))
    return [*text, f"{'total':16}" + "".join(f"{cell:>12}" for cell in sums)]


def _sums(chapters: Rows) -> tuple[int, int, int, int, float]:
    return (
        sum(row.read for row in chapters),
        sum(row.run for row in chapters),
        sum(len(row.solved) for row in chapters),
        sum(row.hints for row in chapters),
        sum(row.seconds for row in chapters),
    )


def page(labs: Mapping[str, Rows]) -> str:
    """A trainer's page: a table of the labs, a table of the challenges, and one for each lab. It needs no other file."""
    from stackbook.lessons import challenges

    def table(caption: str, head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
        titles = "".join(f'<th scope="col">{html.escape(word)}</th>' for word in head)
        text = "".join(
            f'<tr><th scope="row">{html.escape(line[0])}</th>'
            + "".join(f'<td class="n">{html.escape(cell)}</td>' for cell in line[1:])
            + "</tr>\n"
            for line in body
        )
        return f"<table><caption>{html.escape(caption)}</caption><thead><tr>{titles}</tr></thead><tbody>\n{text}</tbody></table>\n"

    overview, each = [], []
    for name, chapters in labs.items():
        read, run, solved, hints, seconds = _sums(chapters)
        overview.append([name, str(read), str(run), str(solved), str(hints), duration(seconds)])
        each.append(table(f"Lab {name}", HEAD, [[row.chapter, *_cells(row)] for row in chapters]))
    parts = [table("The labs", ("lab", "chapters read", "chapters run", "solved", "hints", "time"), overview)]
    of = [_of_challenge(one.id, one.title, one.chapter, labs) for one in challenges.every()]
    parts.append(table("The challenges", ("challenge", "tried by", "solved by", "solution viewed by"), of))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Progress of the labs</title>'
        f"<style>{_CSS}</style></head>\n<body><h1>Progress of the labs</h1>\n"
        "<p>Read from the labs' states on this host. Pauses of more than 15 minutes do not count as time.</p>\n"
        + "".join([*parts, *each])
        + "</body></html>\n"
    )


def _of_challenge(id: str, title: str, chapter: str, labs: Mapping[str, Rows]) -> list[str]:
    rows = [row for chapters in labs.values() for row in chapters if row.chapter == chapter]
    counts = (
        sum(id in names for names in kind)
        for kind in zip(*[(r.tried, r.solved, r.solutions) for r in rows], strict=True)
    )
    return [f"{id} {title}", *(str(count or "–") for count in counts)]
