"""What was read from a lab, as plain data: the rules use only this, so tests can write a snapshot by hand."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stackbook.config.profile import Profile

RUNNING = "running"
ABSENT = "absent"


@dataclass(frozen=True)
class Answer:
    """The answer of one probe.

    Args:
        out, err, rc: the command's output, errors and exit status.
        problem: why there is no answer: the deadline passed, or the machine could not be reached.
        at: this host's clock when the answer arrived, in seconds.
    """

    out: str = ""
    err: str = ""
    rc: int = 0
    problem: str = ""
    at: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the command ran and exited with 0."""
        return not self.problem and self.rc == 0

    def json(self) -> Any:
        """The JSON in its output; None if there is none."""
        try:
            return json.loads(self.out)
        except ValueError:
            return None


NOTHING = Answer(problem="there was no such probe")


@dataclass
class Machine:
    """One machine: its state according to its provider, and its answers."""

    name: str
    address: str
    state: str = RUNNING
    control_plane: bool = False
    answers: dict[str, Answer] = field(default_factory=dict)

    @property
    def answered(self) -> bool:
        """Whether it runs, and answered its quickest probe."""
        return self.state == RUNNING and not self["clock"].problem

    def __getitem__(self, probe: str) -> Answer:
        return self.answers.get(probe, NOTHING)

    def text(self, probe: str) -> str:
        """The output of a probe; empty if it failed."""
        answer = self[probe]
        return answer.out if answer.ok else ""


@dataclass
class Cluster:
    """What the API server answered, by the names in `cluster_probes.PATHS`."""

    answers: dict[str, Answer] = field(default_factory=dict)
    problem: str = ""

    @property
    def reached(self) -> bool:
        """Whether the API server answers requests."""
        return bool(self.answers) and not self.problem

    def items(self, name: str) -> list[dict[str, Any]]:
        """The objects of a list; empty if there was no answer."""
        found = self.answers.get(name, NOTHING)
        data = found.json() if found.ok else None
        return list(data.get("items") or []) if isinstance(data, dict) else []

    def listed(self, name: str) -> bool:
        """Whether the list was answered, so that an object that is not in it does not exist."""
        return self.reached and self.answers.get(name, NOTHING).ok


@dataclass
class Snapshot:
    """Everything that was read.

    Args:
        profile: the lab's profile.
        word: how the reader named the profile.
        host: the answers of this host.
        time: when it was read, in seconds since the epoch.
    """

    profile: Profile
    word: str = "embedded"
    host: dict[str, Answer] = field(default_factory=dict)
    machines: dict[str, Machine] = field(default_factory=dict)
    cluster: Cluster = field(default_factory=Cluster)
    time: float = 0.0
    seconds: float = 0.0

    @property
    def up(self) -> list[Machine]:
        """The machines that run and answer."""
        return [machine for machine in self.machines.values() if machine.answered]

    @property
    def control_plane(self) -> Machine | None:
        """The control plane's machine, if it answers."""
        return next((machine for machine in self.up if machine.control_plane), None)

    def _profile_flag(self) -> str:
        return "" if self.word == "embedded" else f" --profile {shlex.quote(self.word)}"

    def on(self, machine: str, command: str) -> str:
        """A command for the reader to run on a machine of the lab."""
        return f"echo {shlex.quote(command)} | stackbook shell{self._profile_flag()} {machine}"

    def kubectl(self, command: str) -> str:
        """A kubectl command for the reader."""
        return f"stackbook kubectl{self._profile_flag()} {command}"

    def stackbook(self, command: str, rest: str = "") -> str:
        """A stackbook command for the reader."""
        return f"stackbook {command}{self._profile_flag()}{' ' + rest if rest else ''}"


def dig(data: Any, *keys: str | int, default: Any = None) -> Any:
    """A value deep inside data; the default if one of the keys is missing."""
    for key in keys:
        inside = isinstance(data, Mapping) and key in data
        if not inside and not (isinstance(data, list) and isinstance(key, int) and -len(data) <= key < len(data)):
            return default
        data = data[key]
    return default if data is None else data


def named(item: Mapping[str, Any]) -> str:
    """The name of an object."""
    return str(dig(item, "metadata", "name", default=""))


def space(item: Mapping[str, Any]) -> str:
    """The namespace of an object."""
    return str(dig(item, "metadata", "namespace", default=""))


def pod_address(machine: Machine) -> str:
    """An address in a machine's pod network: flannel's device's, else the bridge's; empty if it has neither."""
    links = {link.get("ifname"): link for link in machine["links"].json() or [] if link}
    for name in ("flannel.1", "cni0"):
        for entry in links.get(name, {}).get("addr_info", []):
            if entry.get("family") == "inet":
                return str(entry["local"])
    return ""


def log_name(namespace: str, pod: str, container: str) -> str:
    """The name of a log in the snapshot."""
    return f"log {namespace}/{pod}/{container}"
