"""Write what each chapter applies to the cluster as files: python tools/manifests.py RECORD.

A record is the `events.jsonl` of a run, or that of a lab's notebooks. The files of every step that applied something are replaced, so
they hold what `kubectl apply` and `kubectl create` really got. Left out are manifests with a secret, a pod's address, or a name that
was made for one run, which another lab could not use, and chapter 16, whose files would say what is broken.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from stackbook.core import paths
from stackbook.lab.claims import step_ends

_GIVEN = re.compile(r"^(?:\S*/)?kubectl (?:\S+ )*?(?P<verb>apply|create) (?P<rest>(?:\S+ )*-f -.*)$")
_NAMESPACE = re.compile(r"(?:^| )(-n \S+|--namespace[= ]\S+)")
_UNFIT = re.compile(r"\*\*\*|\b10\.244\.\d+\.\d+\b(?!/)|name\"?: \"?[a-z-]+-[0-9a-f]{8}\b")
_SECRET = ("16-incident",)


def applied(events: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str, str, str]]:
    """(chapter, step, command, manifest) of each manifest that the cluster took in a step that passed."""
    for event in step_ends(events):
        if event.get("outcome") != "passed" or event["chapter"] in _SECRET:
            continue
        for command in event.get("commands") or []:
            found = _GIVEN.match(str(command.get("command", "")))
            text = str(command.get("input") or "")
            if (
                found
                and text
                and not command.get("rc")
                and not re.search(r"--(dry-run|raw)\b", f"{command['command']}")
                and not _UNFIT.search(text)
            ):
                space = _NAMESPACE.search(found["rest"])
                yield event["chapter"], event["step"], f"kubectl {found['verb']}{' ' + space[1] if space else ''}", text


def files(events: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Path below the folder → text. Equal manifests of a chapter are one file."""
    made: dict[str, str] = {}
    known: set[tuple[str, str]] = set()
    for chapter, step, command, text in applied(events):
        plain = as_yaml(text)
        if (chapter, plain) in known:
            continue
        known.add((chapter, plain))
        name, number = f"{chapter}/{step}.yaml", 2
        while name in made:
            name, number = f"{chapter}/{step}-{number}.yaml", number + 1
        made[name] = f"# {command} -f {Path(name).name}\n{plain}"
    return made


def as_yaml(text: str) -> str:
    """A manifest as a person would write it: in block style."""
    if not text.lstrip().startswith(("{", "[")):
        return text.strip("\n") + "\n"
    return yaml.safe_dump_all(yaml.safe_load_all(text), sort_keys=False, allow_unicode=True)


def read(record: Path) -> list[dict[str, Any]]:
    """The events of a record, without a last line that was cut short."""
    events = []
    for line in record.read_text(encoding="utf-8").splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:
            continue
    return events


def main(records: list[str]) -> int:
    """Write the files; returns 2 without a record."""
    if not records:
        print("give the events.jsonl of a run", file=sys.stderr)
        return 2
    folder = paths.notebooks() / "manifests"
    made = files(event for record in records for event in read(Path(record)))
    for step in {re.sub(r"(-\d+)?\.yaml$", "", name) for name in made}:
        for old in (folder / step).parent.glob(f"{Path(step).name}*.yaml"):
            if re.fullmatch(rf"{re.escape(Path(step).name)}(-\d+)?\.yaml", old.name):
                old.unlink()
    for name, text in made.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
        print(name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
