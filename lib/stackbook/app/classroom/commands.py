"""What a trainer does with a class: up, list, serve, reset, down."""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from stackbook.app import preflight
from stackbook.app.classroom import labs, nightly
from stackbook.app.classroom.labs import Seat
from stackbook.config import chapters
from stackbook.core import child_processes, paths
from stackbook.core.errors import InputError, StackbookError
from stackbook.core.waiting import until
from stackbook.machines import facts
from stackbook.machines.transports import LocalHost


def command(options: argparse.Namespace) -> int:
    """Run an action of `stackbook class`; returns the exit status.

    Raises:
        InputError: there is no class, or an argument is invalid.
        HostUnfit: the class does not fit into this host's memory.
    """
    if options.action == "up":
        return up(options.count, last=options.last, nodes=options.nodes)
    if options.count:
        raise InputError(f"class {options.action} takes no number", fix=f"stackbook class {options.action}")
    seats = labs.seats()
    if not seats and options.action != "list":
        raise InputError("there is no class on this host", fix="stackbook class up 4")
    if options.action == "list":
        for line in listing(seats):
            print(line)
        return 0
    if options.action == "serve":
        return serve(seats)
    if options.action == "reset" and options.nightly:
        return nightly.run(seats, chapters.find(options.last))
    return take_away(seats, forget=options.action == "down")


def up(count: int, *, last: str, nodes: int) -> int:
    """Build the missing labs, one after the other: they share the cache and the machines' image."""
    labs.check_size(count)
    if not 1 <= nodes <= 3:
        raise InputError(f"a lab of a class has 1 to 3 machines, but --nodes is {nodes}", fix="--nodes 2")
    chapter = chapters.find(last)
    there = {seat.name for seat in labs.seats() if seat.exists}
    missing = [
        seat for n in range(1, count + 1) if (seat := Seat(n, labs.folder() / f"class-{n}.yaml")).name not in there
    ]
    labs.demand_memory(missing, nodes=nodes, last=chapter, free=facts.MEMORY.read(LocalHost())["MemAvailable"])
    limit = int(facts.sysctl("fs.inotify.max_user_instances").read(LocalHost()) or 0)
    labs.demand_inotify(missing, nodes=nodes, limit=limit, used=preflight.inotify_in_use())
    failed = 0
    for seat in labs.set_up(count, nodes=nodes):
        began = time.monotonic()
        print(f"{seat.name}: chapters 00 to {chapter.number}", flush=True)
        status = stackbook("run", "--profile", str(seat.file), "--to", chapter.number)
        copy_notebooks(seat)
        failed += status != 0
        print(f"{'✗' if status else '✓'} {seat.name} ({time.monotonic() - began:.0f} s)", flush=True)
    print("\nJupyterLab for each learner: stackbook class serve")
    return 1 if failed else 0


def stackbook(*words: str, output: int | None = None) -> int:
    """Run a stackbook command in its own process; returns its exit status."""
    return subprocess.run([sys.executable, "-m", "stackbook", *words], stdout=output, check=False).returncode


def copy_notebooks(seat: Seat) -> None:
    """Copy the notebooks for a learner, bound to this lab; the learner's own changes stay."""
    target = seat.work / "notebooks"
    target.mkdir(parents=True, exist_ok=True)
    for source in sorted(paths.notebooks().glob("*.ipynb")):
        if not (target / source.name).exists():
            (target / source.name).write_text(for_lab(source.read_text(encoding="utf-8"), seat.file), encoding="utf-8")


def for_lab(book: str, profile: Path) -> str:
    """A notebook whose parameter `profile` names this file."""
    data = json.loads(book)
    for cell in data["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            text = "".join(cell["source"]).replace('profile = "embedded"', f"profile = {json.dumps(str(profile))}", 1)
            cell["source"] = text.splitlines(keepends=True)
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def listing(seats: Sequence[Seat]) -> Iterator[str]:
    """A line for each lab: its name, whether it is built, its machines' addresses, JupyterLab's port and the kubeconfig."""
    if not seats:
        yield "there is no class on this host: stackbook class up 4"
    for seat in seats:
        state = "built" if seat.exists else "not built"
        addresses = ", ".join(node.address for node in seat.profile.nodes)
        yield f"{seat.name:10} {state:9} {addresses:32} port {seat.port}  {paths.state(seat.name) / 'kubeconfig'}"


def serve(seats: Sequence[Seat]) -> int:
    """Serve JupyterLab for each learner on loopback, each with its own token, until Ctrl-C."""
    there = [seat for seat in seats if seat.exists]
    if not there:
        raise InputError("no lab of the class has been built", fix="stackbook class up 4")
    if taken := [seat for seat in there if _listens(seat.port)]:
        raise InputError(
            f"port {taken[0].port} of {taken[0].name} is in use",
            fix="stop the program that listens on it, then try again",
        )
    running: list[subprocess.Popen[bytes]] = []
    try:
        for seat in there:
            copy_notebooks(seat)
            words = ["notebooks", "--profile", str(seat.file), "--port", str(seat.port), "--root", str(seat.work)]
            print(f"{seat.name}:", flush=True)
            running.append(subprocess.Popen([sys.executable, "-m", "stackbook", *words], start_new_session=True))
            _wait_served(seat, running[-1])  # so that its address is printed below its name
        with contextlib.suppress(KeyboardInterrupt):
            for process in running:
                process.wait()
    finally:
        for process in running:
            child_processes.end(process)
    return 0


def _wait_served(seat: Seat, process: subprocess.Popen[bytes], *, timeout: float = 60.0) -> None:
    """Wait until a JupyterLab listens.

    Raises:
        StackbookError: it ended instead.
        WaitTimeout: it does not listen in time.
    """
    until(lambda: process.poll() is not None or _listens(seat.port), timeout=timeout, every=0.2,
          what=f"the JupyterLab of {seat.name} to listen on port {seat.port}")  # fmt: skip
    if process.poll() is not None:
        raise StackbookError(
            f"the JupyterLab of {seat.name} ended with status {process.returncode}: see the lines above"
        )


def _listens(port: int) -> bool:
    """Whether something answers on a port of loopback."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def take_away(seats: Sequence[Seat], *, forget: bool) -> int:
    """Reset every lab; with `forget`, remove the learners' profiles and their copies of the notebooks, too."""
    status = 0
    for seat in seats:
        print(f"{seat.name}:", flush=True)
        left = stackbook("reset", "--profile", str(seat.file))
        status = status or left
        if forget and not left:
            seat.file.unlink()
            shutil.rmtree(seat.work, ignore_errors=True)
    if forget and not status:
        with contextlib.suppress(OSError):
            labs.folder().rmdir()
    return status
