"""The commands of a solution, as text and executed. The same text is shown and executed."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackbook.core import ownership, temp_dirs
from stackbook.lab.challenge import Typed

if TYPE_CHECKING:
    from stackbook.lab.lab import Lab

TIMEOUT = 180.0
"""Deadline of one command, in seconds."""


def as_text(commands: Sequence[Typed], folder: Path) -> str:
    """The commands as text, with a comment wherever the machine changes.

    >>> print(as_text([Typed("ip route", on="k8s-node1"), Typed("kubectl get nodes")], Path("/none")))
    # on k8s-node1: stackbook shell k8s-node1
    ip route
    # on this host
    kubectl get nodes
    """
    lines: list[str] = []
    place = ""
    for one in commands:
        where = "in a cell" if one.python else f"on {one.on}: stackbook shell {one.on}" if one.on else "on this host"
        if not one.on and not one.python and folder.is_dir():
            where += f", in {folder}"
        if where != place:
            lines.append(f"# {where}")
            place = where
        lines.append(one.command.strip("\n"))
    return "\n".join(lines)


def run(lab: Lab, commands: Sequence[Typed], folder: Path) -> None:
    """Run the commands on their machine, in this process, or in a shell of this host with the lab's kubectl.

    Raises:
        CommandFailed: a command failed.
    """
    with _programs(lab, any(not (one.on or one.python) for one in commands)) as environment:
        for one in commands:
            if one.python:
                names: dict[str, Any] = {"lab": lab}
                exec(compile(one.command, "<solution>", "exec"), names)
            elif one.on:
                lab.machines[one.on].run(["bash", "-euc", one.command], timeout=TIMEOUT)
            else:
                start = f"cd {shlex.quote(str(folder))}\n" if folder.is_dir() else ""
                lab.local.run(["bash", "-euc", start + one.command], timeout=TIMEOUT, env=environment)


@contextlib.contextmanager
def _programs(lab: Lab, wanted: bool) -> Iterator[dict[str, str]]:
    """The environment of the shell: this Python as python3 and, if the lab has a cluster, kubectl and istioctl."""
    if not wanted:
        yield {}
        return
    with temp_dirs.folder("solution") as folder:
        ownership.make(folder / "bin")
        programs = {"python3": Path(sys.executable)}
        if lab.kubeconfig.is_file():
            programs |= {name: Path(lab.artifacts.path(name)) for name in ("kubectl", "istioctl")}
        for name, program in programs.items():
            text = f'#!/bin/sh\nexec {shlex.quote(str(program))} "$@"\n'
            (folder / "bin" / name).write_text(text, encoding="utf-8")
            (folder / "bin" / name).chmod(0o755)
        path = os.pathsep.join([str(folder / "bin"), os.environ.get("PATH", os.defpath)])
        yield {"PATH": path, "KUBECONFIG": str(lab.kubeconfig)}
