"""JupyterLab lets in who has the token, and the token is on no command line, in no log and in no kernel's environment."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from stackbook.app import jupyter_access
from stackbook.core.errors import InputError
from stackbook.core.waiting import until


def test_a_taken_port_is_passed_over() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        access = jupyter_access.prepare(port)
        assert access.port > port
        assert access.address.reveal().startswith(f"http://127.0.0.1:{access.port}/lab?token=")
        assert {f"--port={access.port}", "--ServerApp.port_retries=0"} <= set(access.arguments)


def test_where_no_port_is_free_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jupyter_access, "_PORTS", 0)
    with pytest.raises(InputError, match="--port"):
        jupyter_access.prepare(8888)


def test_only_a_terminal_is_told_the_token() -> None:
    access = jupyter_access.prepare(8888)
    token = Path(access.environment["JUPYTER_TOKEN_FILE"]).read_text()
    assert access.line(terminal=True).endswith(f"/lab?token={token}")
    assert token not in access.line(terminal=False) and str(access.file) in access.line(terminal=False)
    assert access.file.read_text() == access.address.reveal()
    assert token not in f"{access!r}"
    assert all(token not in value for value in access.environment.values())


def test_a_token_of_the_users_own_does_not_go_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_TOKEN", "mine")
    assert "JUPYTER_TOKEN" not in jupyter_access.prepare(8888).environment


@pytest.mark.slow
def test_a_real_jupyterlab(tmp_path: Path) -> None:
    (tmp_path / "root" / "notebooks").mkdir(parents=True)
    places = ("CONFIG_DIR", "RUNTIME_DIR", "DATA_DIR")
    env = {
        **os.environ,
        **{f"JUPYTER_{name}": str(tmp_path / name) for name in places},
        "STACKBOOK_STATE": str(tmp_path / "s"),
        "TMPDIR": str(tmp_path),  # what it leaves for the next reset, as it is ended by a signal
    }
    words = [sys.executable, "-m", "stackbook", "notebooks", "--port", "20100", "--root", str(tmp_path / "root")]
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(words, stdout=output, stderr=output, env=env, start_new_session=True)
    try:
        until(lambda: "is running at" in log.read_text(), what="JupyterLab listens", timeout=120, last=log.read_text)
        file = Path(log.read_text().split("its address with the token is in ")[1].splitlines()[0])
        address, _, token = file.read_text().partition("/lab?token=")
        ask = {"trust_env": False, "timeout": 20}
        assert httpx.get(f"{address}/api/contents", **ask).status_code == 403
        assert httpx.get(f"{address}/lab?token={token}", follow_redirects=True, **ask).status_code == 200
        headers = {"Authorization": f"token {token}"}
        assert httpx.get(f"{address}/api/contents", headers=headers, **ask).status_code == 200
        shown = [p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline") if _readable(p)]
        assert len(shown) > 3 and not any(token.encode() in line for line in shown)
        assert token.encode() not in Path(f"/proc/{process.pid}/environ").read_bytes()
        assert token not in log.read_text()
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)
    shutil.rmtree(file.parent)


def _readable(path: Path) -> bool:
    try:
        return bool(path.read_bytes())
    except OSError:
        return False
