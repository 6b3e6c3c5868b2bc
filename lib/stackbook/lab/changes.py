"""What a challenge draws, where it works, and how it changes the lab. Each change is recorded before it is made."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from stackbook.cluster import own_namespaces
from stackbook.core import ownership, private
from stackbook.core.errors import CheckFailed
from stackbook.lab import journal
from stackbook.lab.challenge import Challenge

if TYPE_CHECKING:
    from stackbook.lab.lab import Lab

T = TypeVar("T")
FILE = "challenge.json"


class Changes:
    """The changes of an open challenge, and its record.

    Args:
        lab: the lab on which it is open.
        challenge: the challenge.
        seed: decides what it draws: the same seed breaks the same thing.
    """

    def __init__(self, lab: Lab, challenge: Challenge, seed: str) -> None:
        self.lab, self.challenge, self.seed = lab, challenge, seed
        self.drawn: dict[str, Any] = {}
        self.entries: list[journal.Entry] = []
        self.hints = 0
        self.begun = time.time()

    def __repr__(self) -> str:
        return f"challenge {self.challenge.id}: {self.challenge.title}"

    # what a challenge draws and where it works

    @property
    def folder(self) -> Path:
        """The folder of the learner's files, in the lab's state."""
        return self.lab.state / "challenges" / self.challenge.id

    @property
    def namespace(self) -> str:
        """The name of the challenge's own namespace."""
        return f"challenge-{self.challenge.id}"

    @property
    def master(self) -> str:
        """The name of the control plane's machine."""
        return self.lab.profile.control_plane.name

    @property
    def worker(self) -> str:
        """The name of the last machine."""
        return self.lab.profile.nodes[-1].name

    def draw(self, name: str, options: Sequence[T]) -> T:
        """Draw one of the options with the seed, and keep it in `drawn` under this name; options must be JSON values."""
        if name not in self.drawn:
            self.drawn[name] = random.Random(f"{self.seed}:{self.challenge.id}:{name}").choice(list(options))
            self.save()
        found: T = self.drawn[name]
        return found

    def note(self, **values: Any) -> None:
        """Keep values that the claims need in `drawn`."""
        self.drawn.update(values)
        self.save()

    # what a challenge may change; each change is recorded first

    def _will(self, entry: journal.Entry) -> None:
        self.entries.append(entry)
        self.save()

    def space(self, *, mesh: bool = False) -> str:
        """Create the challenge's own namespace and return its name; with `mesh`, its pods get a sidecar."""
        self._will({"kind": "namespace", "name": self.namespace})
        own_namespaces.delete(self.lab.kube, self.namespace, timeout=90)
        own_namespaces.create(self.lab.kube, self.namespace)
        if mesh:
            self.lab.kube.kubectl("label", "namespace", self.namespace, "istio-injection=enabled", "--overwrite")
        return self.namespace

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Apply objects to the challenge's own namespace, which `space` creates."""
        placed = [{**o, "metadata": {**o["metadata"], "namespace": self.namespace}} for o in objects]
        self.lab.kube.apply(placed)

    def change_file(self, machine: str, path: str, change: Callable[[str], str]) -> None:
        """Change the text of a file on a machine; the journal keeps the original.

        Raises:
            CheckFailed: the change makes no difference, so the file is not what the challenge expects.
        """
        entry = journal.file_entry(self.lab, machine, path)
        before = entry["text"] or ""
        after = change(before)
        if after == before:
            raise CheckFailed(f"{path} on {machine} is not as this challenge expects it; nothing was changed")
        self._will(entry)
        self.lab.machines[machine].run(["sh", "-c", 'cat > "$1"', "write", path], stdin=after)

    def change_object(self, kind: str, name: str, change: Callable[[Any], Any], *, namespace: str = "") -> None:
        """Replace an object of the cluster by a changed one; the journal keeps the original."""
        entry = journal.object_entry(self.lab, kind, name, namespace)
        self._will(entry)
        changed = change(json.loads(json.dumps(entry["object"])))
        self.lab.kube.kubectl("replace", "--field-manager=stackbook", "-f", "-", stdin=json.dumps(changed))

    def keep_object(self, kind: str, name: str, *, namespace: str = "") -> None:
        """Record an object of the cluster in the journal, because a solution may change it."""
        self._will(journal.object_entry(self.lab, kind, name, namespace))

    def undo(self, machine: str, *argv: str, timeout: float = 60) -> None:
        """Run a command on a machine when the challenge ends; call this before the change."""
        self._will({"kind": "command", "machine": machine, "argv": list(argv), "timeout": timeout})

    def undo_kubectl(self, *args: str) -> None:
        """Run a kubectl command when the challenge ends; call this before the change."""
        self._will({"kind": "kubectl", "args": list(args)})

    def write(self, name: str, text: str) -> Path:
        """Write a file for the learner into the challenge's folder."""
        path = self.folder / name
        ownership.make(path.parent, mode=0o700)
        path.write_text(text, encoding="utf-8")
        return path

    def read(self, name: str) -> str:
        """The text of a file in the challenge's folder.

        Raises:
            CheckFailed: there is no such file, or it is not text.
        """
        try:
            return (self.folder / name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CheckFailed(f"{self.folder / name} cannot be read: {type(error).__name__}") from error

    def save(self) -> None:
        """Write the record; only its owner can read it."""
        data = {"id": self.challenge.id, "seed": self.seed, "begun": self.begun, "hints": self.hints,
                "drawn": self.drawn, "entries": self.entries}  # fmt: skip
        private.write(self.lab.state / FILE, json.dumps(data, indent=1))
