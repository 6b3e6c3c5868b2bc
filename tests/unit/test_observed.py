"""What a step does with programs of this host is among its commands, as a user would type it, and without secrets."""

from __future__ import annotations

import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
from stackbook.artifacts import go_toolchain
from stackbook.core import observed, paths, temp_dirs
from stackbook.core.redact import Secret
from stackbook.core.results import Result
from stackbook.lab import step_line
from stackbook.lab.step import Record, step
from stackbook.lab.typed_commands import typed
from stackbook.lessons.delivery import gitea


def lines(seen: list[Result], tmp_path: Path) -> list[str]:
    with step("a", "b", chapter="c", record=Record(tmp_path / "record"), quiet=True) as current:
        for result in seen:
            current.observe(result)
    return list(typed(current.commands, longest=10))


def test_a_program_is_told_of_with_its_input_its_folder_and_its_status(tmp_path: Path) -> None:
    seen: list[Result] = []
    with temp_dirs.folder("work") as folder, observed.watching(seen.append):
        code = [sys.executable, "-c", "import sys; sys.stdin.read(); sys.exit(3)"]
        go_toolchain.call(code, shown=("tool", f"-I{folder}"), stdin=b"one\ntwo\n", cwd=folder, check=False)
        with pytest.raises(go_toolchain.ToolFailed):
            go_toolchain.call(code, shown=("tool", "again"), stdin=b"\xff\0", cwd=paths.checkout() / "lib")
        observed.tell(["server", "--port", "1"], background=True)
    go_toolchain.call([sys.executable, "-c", ""], shown=("nobody", "watches"))
    assert [result.seconds > 0 for result in seen] == [True, True, False]
    assert lines(seen, tmp_path) == [
        "# on this host",
        "mkdir -p work",
        "(cd work && tool -I.) <<'EOF'  # exit status 3", "one", "two", "EOF",
        "(cd lib && tool again)  # exit status 3",
        "server --port 1 &",
    ]  # fmt: skip


def test_a_command_is_shown_again_only_if_its_file_has_changed(tmp_path: Path) -> None:
    seen: list[Result] = []
    with temp_dirs.folder("work") as folder, observed.watching(seen.append):
        for text in ("a", "a", "b", "a"):
            observed.wrote(folder / "x", text)
            observed.tell(["tool", "x"], folder=folder)
    shown = [line for line in lines(seen, tmp_path) if line not in ("# on this host", "EOF")]
    assert shown.pop(0) == "mkdir -p work", "once, as the folder of this run is not there when somebody types it"
    one = ["cat > work/x <<'EOF'", "a", "(cd work && tool x)"]
    assert shown == [*one, one[0], "b", one[2], *one]


def test_the_inner_one_is_told(tmp_path: Path) -> None:
    outer: list[Result] = []
    inner: list[Result] = []
    with observed.watching(outer.append):
        with observed.watching(inner.append):
            observed.tell(["a"])
        observed.tell(["b"])
    assert [[r.argv for r in found] for found in (outer, inner)] == [[("b",)], [("a",)]]


def test_requests_to_gitea_are_told_of_without_secrets(tmp_path: Path) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        do_POST = do_PUT = do_GET

        def log_message(self, *_: object) -> None:
            pass

    seen: list[Result] = []
    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    hidden, password = Secret("a-password-that-nobody-may-see"), Secret("of-the-administrator")
    found = gitea.Gitea(url, tmp_path, None, password)  # type: ignore[arg-type]
    try:
        with observed.watching(seen.append):
            found.get("/v1/version")
            found.post("/hooks", {"secret": hidden.reveal(), "name": "x"})
            with httpx.Client(base_url=url, trust_env=False, event_hooks=gitea.TOLD) as browser:
                browser.get("/login", params={"code": "abc", "state": "def"})
                browser.post("/login", data={"password": hidden.reveal()})
    finally:
        server.shutdown()
        thread.join(5)
        server.server_close()
        for client in found._clients:
            client.close()
    shown = "\n".join(lines(seen, tmp_path))
    assert shown == "\n".join([
        "# on this host",
        f"curl -u 'trainer:***' {url}/api/v1/version",
        "curl -X POST -u 'trainer:***' -H 'Content-Type: application/json' "
        f"""-d '{{"secret":"***","name":"x"}}' {url}/api/v1/hooks""",
        f"curl {url}/login",
        f"curl -d @form {url}/login",
    ])  # fmt: skip
    assert hidden.reveal() not in (tmp_path / "record").read_text()


def test_a_step_without_a_command_says_whose_work_it_is() -> None:
    assert "No command belongs to this step: the Python code above does it." in step_line.block("✓ a: b", [])
