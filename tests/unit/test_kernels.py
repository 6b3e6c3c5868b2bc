"""Kernels have folders of their own: they do not hear each other, and leave nothing, however they end."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from queue import Empty
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError
from stackbook.app import ipc_kernel
from stackbook.app.ipc_kernel import LocalKernelClient, LocalKernelManager
from stackbook.core import temp_dirs

IPC = {"kernel_name": "python3", "kernel_manager_class": LocalKernelManager}


@pytest.fixture(autouse=True)
def places(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Path]]:
    """The folder for temporary files, and the working folder; pytest's own have names too long for a socket."""
    with temp_dirs.folder("t", Path("/tmp")) as short:
        temporary, work = short / "t", tmp_path_factory.mktemp("work")
        temporary.mkdir(mode=0o700)
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        monkeypatch.setattr("tempfile.tempdir", str(temporary))
        monkeypatch.setenv("TMPDIR", str(temporary))
        monkeypatch.chdir(work)
        yield [temporary, work]


def left(places: list[Path]) -> list[str]:
    return sorted(str(path) for place in places for path in place.rglob("*"))


async def executed(source: str, seen: list[Path], *, now: bool = True) -> str:
    """What one kernel prints for a cell, once all have started; at its end it is killed, or asked to leave."""
    manager = LocalKernelManager(kernel_name="python3")
    await manager.start_kernel()
    seen.append(Path(manager.connection_file).parent)
    client: Any = manager.client()
    client.start_channels()
    try:
        await client.wait_for_ready(timeout=60)
        said: list[str] = []

        def hear(message: dict[str, Any]) -> None:
            if message["msg_type"] == "stream":
                said.append(message["content"]["text"])

        await client.execute_interactive(source, output_hook=hear, timeout=60)
        return "".join(said)
    finally:
        client.stop_channels()
        await manager.shutdown_kernel(now=now)


@pytest.mark.slow
def test_kernels_that_start_together_do_not_hear_each_other_and_leave_nothing(places: list[Path]) -> None:
    seen: list[Path] = []

    async def together() -> list[str]:
        return await asyncio.gather(*(executed(f"print({n}, flush=True)", seen) for n in range(3)))

    assert asyncio.run(together()) == ["0\n", "1\n", "2\n"]
    assert len(set(seen)) == 3 and {folder.parent for folder in seen} == {places[0]}
    assert left(places) == []


def test_the_folder_is_its_owners_alone_and_has_all_sockets(places: list[Path]) -> None:
    source = (
        "import glob, os, pathlib; from ipykernel.connect import get_connection_file\n"
        "folder = pathlib.Path(get_connection_file()).parent\n"
        "print(oct(folder.stat().st_mode & 0o777), sorted(p.name for p in folder.iterdir()), os.listdir())"
    )
    names = ["kernel.json", *(f"s-{n}" for n in range(1, 6))]
    assert asyncio.run(executed(source, [])) == f"0o700 {names} []\n"


@pytest.mark.slow
def test_the_folder_of_a_killed_kernel_goes(places: list[Path]) -> None:
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import os; os.kill(os.getpid(), 9)")])
    with pytest.raises(DeadKernelError):
        NotebookClient(book, **IPC).execute()
    assert left(places) == []


@pytest.mark.slow
def test_what_a_killed_run_left_goes_with_the_next_kernel(places: list[Path]) -> None:
    code = (
        "import asyncio, os, signal\nfrom stackbook.app.ipc_kernel import LocalKernelClient, LocalKernelManager\n"
        "async def start():\n    manager = LocalKernelManager(kernel_name='python3')\n"
        "    await manager.start_kernel()\n    print(manager.provisioner.pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\nasyncio.run(start())"
    )
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    os.kill(int(killed.stdout), signal.SIGKILL)
    (old,) = places[0].iterdir()
    # Its number may be somebody else's by now: only its start time tells.
    mine = old.with_name(old.name.replace(old.name.split("-")[2], str(os.getpid())))
    old.rename(mine)
    asyncio.run(executed("1", []))
    assert left(places) == []


@pytest.mark.slow
def test_a_runtime_folder_that_is_ours_is_taken_first(places: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = places[0] / "r"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    seen: list[Path] = []
    asyncio.run(executed("1", seen))
    assert seen[0].parent == runtime
    runtime.chmod(0o755)
    asyncio.run(executed("1", seen))
    assert seen[1].parent == places[0] and stat.S_IMODE(runtime.stat().st_mode) == 0o755


def test_a_name_too_long_for_a_socket_is_left_out(places: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    long = places[0] / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    seen: list[Path] = []
    asyncio.run(executed("1", seen))
    assert seen[0].parent == Path("/tmp") and not list(long.iterdir())
    monkeypatch.setattr(ipc_kernel, "_LONGEST", 10)
    with pytest.raises(ipc_kernel.HostUnfit, match="too long"):
        asyncio.run(executed("1", seen))


@pytest.mark.parametrize(("alive", "said"), [(False, "died before replying"), (True, "didn't respond in 0 seconds")])
def test_a_kernel_that_does_not_answer_ends_the_wait(alive: bool, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(timeout: float) -> dict[str, Any]:
        raise Empty

    async def is_alive() -> bool:
        return alive

    client = LocalKernelClient()
    asked: list[bool] = []
    monkeypatch.setattr(client, "kernel_info", lambda: asked.append(True))
    monkeypatch.setattr(client, "get_shell_msg", silent)
    monkeypatch.setattr(client, "is_alive", is_alive)
    with pytest.raises(RuntimeError, match=said):
        asyncio.run(client.wait_for_ready(timeout=0))
    assert asked == [True]
