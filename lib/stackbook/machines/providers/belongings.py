"""The podman objects of a lab, identified by its label; names do not count, because anybody can choose them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stackbook.core.errors import InputError
from stackbook.core.results import Result

LABEL = "stackbook.lab"
STATE = "stackbook.state"
"""The lab's state folder, because two users of one host may give their labs the same name."""


@dataclass(frozen=True)
class Belongings:
    """The containers, volumes and networks of one lab.

    Args:
        lab: its name.
        podman: runs podman with the given arguments; raises an exception if it fails.
        state: the lab's state folder.
    """

    lab: str
    podman: Callable[..., Result]
    state: str = ""

    @property
    def label(self) -> str:
        """The label of everything in the lab."""
        return f"{LABEL}={self.lab}"

    @property
    def flags(self) -> list[str]:
        """The podman flags that label a new object as the lab's."""
        return ["--label", self.label, *(["--label", f"{STATE}={self.state}"] if self.state else [])]

    @property
    def mark(self) -> str:
        """The mark of a firewall rule of the lab: its name, and a short hash of its state folder."""
        return f"{self.label}/{hashlib.sha256(self.state.encode()).hexdigest()[:8]}"

    def listed(self, *command: str) -> list[dict[str, Any]]:
        """The objects of this lab that `command` lists: `ps -a`, `volume ls`, `network ls`."""
        found = _entries(self.podman(*command, "--filter", f"label={self.label}", "--format", "json"))
        return [entry for entry in found if same_state(entry, self.state)]

    def mounted(self, containers: Sequence[str]) -> set[str]:
        """The volumes that these containers mount and that are named after them."""
        if not containers:
            return set()
        wanted = '{{range .Mounts}}{{if eq .Type "volume"}}{{.Name}} {{end}}{{end}}'
        answer = self.podman("inspect", "--type", "container", "--format", wanted, *containers)
        return {v for v in answer.stdout.split() if v.startswith(tuple(f"{name}-" for name in containers))}

    def volumes(self, containers: Sequence[str]) -> set[str]:
        """The lab's volumes: they have its label or, in an older lab, one of its containers mounts them."""
        return {name_of(entry) for entry in self.listed("volume", "ls")} | self.mounted(containers)

    def demand_names(self, containers: Iterable[str], volumes: Iterable[str], network: str) -> None:
        """Check that the lab's names are not in use by others; changes nothing.

        Raises:
            InputError: an object with such a name exists without the lab's label.
        """
        found = self._everything("ps", "-a")
        mine = [each for each, entry in found.items() if self._is_mine(entry)]
        taken = [("container", each) for each in containers if each in found and each not in mine]
        there = self._everything("volume", "ls")
        unmarked = {each for each in volumes if each in there and not self._is_mine(there[each])}
        if unmarked:
            unmarked -= self.mounted(mine)
        taken += [("volume", each) for each in sorted(unmarked)]
        other = self._everything("network", "ls").get(network)
        taken += [("network", network)] if other is not None and not self._is_mine(other) else []
        if taken:
            kind, which = taken[0]
            entry = {"container": found, "volume": there}.get(kind, {which: other or {}}).get(which, {})
            whose = labels_of(entry).get(STATE)
            why = f"its state is in {whose}" if whose else f"it has no label {self.label}"
            raise InputError(
                f"the {kind} {which!r} exists already and does not belong to this lab ({why})",
                fix=f"give the lab another name (`lab:` in a profile), or remove the {kind} if it is yours",
            )

    def _everything(self, *command: str) -> dict[str, dict[str, Any]]:
        return {name_of(entry): entry for entry in _entries(self.podman(*command, "--format", "json"))}

    def _is_mine(self, entry: Mapping[str, Any]) -> bool:
        return is_of(entry, self.lab, self.state)


def _entries(answer: Result) -> list[dict[str, Any]]:
    return json.loads(answer.stdout or "[]") or []


def name_of(entry: Mapping[str, Any]) -> str:
    """The name in an entry of podman's JSON; its key depends on the kind of object.

    >>> name_of({"Names": ["a"]}), name_of({"Name": "b"}), name_of({"name": "c"})
    ('a', 'b', 'c')
    """
    return str(entry["Names"][0] if "Names" in entry else entry.get("Name") or entry["name"])


def same_state(entry: Mapping[str, Any], state: str) -> bool:
    """Whether an entry names this state folder, or none, as in older labs without that label."""
    return labels_of(entry).get(STATE, state) == state


def is_of(entry: Mapping[str, Any], lab: str, state: str) -> bool:
    """Whether an entry of podman's JSON belongs to the lab with this name and state folder."""
    return labels_of(entry).get(LABEL) == lab and same_state(entry, state)


def labels_of(entry: Mapping[str, Any]) -> dict[str, str]:
    """The labels in an entry of podman's JSON."""
    return dict(entry.get("Labels") or entry.get("labels") or {})
