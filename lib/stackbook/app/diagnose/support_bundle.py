"""The support bundle: what a diagnosis read, for somebody else to look at. It contains no Secret of the cluster and no key."""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackbook.app.diagnose.snapshot import Answer
from stackbook.core.errors import InputError
from stackbook.core.redact import redact, scrub
from stackbook.core.version import __version__

if TYPE_CHECKING:
    from stackbook.app.diagnose import Diagnosis

_LONGEST = 2_000_000
"""The maximum number of characters of one file."""
_UNWANTED = ("managedFields", "kubectl.kubernetes.io/last-applied-configuration")


def write(found: Diagnosis, path: Path) -> int:
    """Write the bundle, readable only for its owner; returns how many files are in it.

    Raises:
        InputError: it cannot be written there, or the file exists already.
    """
    members = dict(files(found))
    try:
        handle = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600)
    except FileExistsError:
        raise InputError(f"{path} exists already", fix="name another file") from None
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}", fix="name another file") from None
    with os.fdopen(handle, "wb") as raw, tarfile.open(fileobj=raw, mode="w:gz") as archive:
        for name, text in members.items():
            data = text.encode()
            entry = tarfile.TarInfo(f"stackbook-diagnosis/{name}")
            entry.size, entry.mode, entry.mtime = len(data), 0o600, int(found.snapshot.time)
            archive.addfile(entry, io.BytesIO(data))
    return len(members)


def files(found: Diagnosis) -> Iterator[tuple[str, str]]:
    """Name and text of each file, with secrets masked."""
    shot = found.snapshot
    yield "diagnosis.txt", redact("\n".join(found.lines())) + "\n"
    yield "diagnosis.json", json.dumps(scrub(found.plain()), indent=1) + "\n"
    yield "about.json", json.dumps(
        scrub(
            {
                "stackbook": __version__,
                "time": shot.time,
                "profile": shot.profile.model_dump(mode="json"),
                "machines": {name: machine.state for name, machine in shot.machines.items()},
                "API server": shot.cluster.problem or "answers",
            }
        ),
        indent=1,
    ) + "\n"  # fmt: skip
    for folder, answers in (
        ("host", shot.host),
        *((f"machines/{name}", machine.answers) for name, machine in shot.machines.items()),
        ("cluster", shot.cluster.answers),
    ):
        yield from _answers(folder, answers)


def _answers(folder: str, answers: Mapping[str, Answer]) -> Iterator[tuple[str, str]]:
    for name, answer in sorted(answers.items()):
        plain = re.sub(r"[^\w.-]+", "-", name)
        data = answer.json() if answer.ok else None
        if isinstance(data, dict):
            yield f"{folder}/{plain}.json", json.dumps(scrub(_lean(data)), indent=1)[:_LONGEST] + "\n"
        else:
            said = [f"# status {answer.rc}"] + ([f"# {answer.problem}"] if answer.problem else [])
            said += [answer.out] + ([f"# standard error:\n{answer.err}"] if answer.err.strip() else [])
            yield f"{folder}/{plain}.txt", redact("\n".join(said))[:_LONGEST] + "\n"


def _lean(value: Any) -> Any:
    """The data without managed fields, and without the values of environment variables and Secrets."""
    if isinstance(value, list):
        return [_lean(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("kind") in ("Secret", "SecretList"):
        return {"kind": value["kind"], "left out": "Secrets are not in a support bundle"}
    lean = {}
    for key, item in value.items():
        if key in _UNWANTED:
            continue
        if key == "env" and isinstance(item, list):
            lean[key] = [{**_lean(each), **({"value": "(left out)"} if "value" in each else {})} for each in item]
        else:
            lean[key] = _lean(item)
    return lean
