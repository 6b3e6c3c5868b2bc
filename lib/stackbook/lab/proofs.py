"""Prove what a chapter needs and what it leaves, and compute the key for which such a proof is valid."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from typing import TYPE_CHECKING

from stackbook.analysis import display
from stackbook.core import paths
from stackbook.core.errors import CheckFailed, StackbookError
from stackbook.lab import reading

if TYPE_CHECKING:
    from stackbook.lab.lab import Lab


def preconditions(lab: Lab) -> None:
    """Prove that earlier chapters have left what this one needs.

    Raises:
        CheckFailed: with the first thing that is missing, and the chapter to run.
    """
    if reason := reading.only_read(lab.profile, lab.chapter):
        print(reading.sentence(reason))
        return
    with _undisturbed(lab, "preconditions"):
        for needed in lab.chapter.needs:
            for check in lab.checks_of(needed):
                try:
                    check.prove(lab)
                except StackbookError as error:
                    raise CheckFailed(
                        f"{lab.chapter.id}: precondition failed: {check.claim}: {error.message}",
                        fix=f"stackbook run --only {needed}",
                    ) from error
    lab.record.append("preconditions", chapter=lab.chapter.id, holds=True)
    print(f"✓ the preconditions of {lab.chapter.id} hold" if lab.chapter.needs else f"✓ {lab.chapter.id} needs nothing")


def postconditions(lab: Lab) -> None:
    """Prove what this chapter leaves, and show it as a table.

    Raises:
        CheckFailed: the chapter did not leave something that it promises.
    """
    if reading.only_read(lab.profile, lab.chapter):
        print(f"✓ {lab.chapter.id} has left this cluster as it was")
        return
    rows = []
    with _undisturbed(lab, "postconditions"):
        for check in lab.checks_of(lab.chapter.id):
            try:
                evidence = check.prove(lab)
            except StackbookError as error:
                lab.record.append("postcondition", chapter=lab.chapter.id, claim=check.claim, holds=False)
                raise CheckFailed(
                    f"{lab.chapter.id} does not leave what it promises: {check.claim}: {error}"
                ) from error
            lab.record.append("postcondition", chapter=lab.chapter.id, claim=check.claim, holds=True, evidence=evidence)
            rows.append({"after this chapter": check.claim, "holds": "✓"})
    if rows:
        display.table(rows)
    else:
        print(f"✓ {lab.chapter.id} leaves nothing behind")


def _undisturbed(lab: Lab, what: str) -> contextlib.AbstractContextManager[None]:
    """The lab's turn, for a chapter that needs the mesh."""
    return lab.turn(what) if "05-istio" in lab.chapter.needs else contextlib.nullcontext()


def key(lab: Lab, *, instance: str | None = None) -> str:
    """The key of a proof of this chapter. A proof is valid only for the same key.

    The key is a hash of the chapter's code cells, the library, the chapter's and the lab's parameters, and the lab's instance.

    Args:
        lab: the lab, seen from the chapter.
        instance: the instance of another lab with this name, from a snapshot; None for this lab's.
    """
    book = json.loads(lab.chapter.notebook.read_text(encoding="utf-8"))
    sources = ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code"]
    profile = lab.profile.model_dump(exclude={"chapters", "name"}, mode="json")
    which = (lab.instance() if instance is None else instance) if lab.chapter.needs else ""
    parts = [sources, library_digest(), profile, lab.parameters.model_dump(mode="json"), which]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@functools.cache
def library_digest() -> str:
    """A digest of the library: its code, manifests and catalogue, and the sources of the programs that it builds."""
    lib = paths.checkout() / "lib"
    digest = hashlib.sha256()
    for path in sorted(lib.rglob("*")):
        name = path.relative_to(lib).as_posix()
        if path.is_file() and "__pycache__" not in name and ".egg-info" not in name:
            digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()
