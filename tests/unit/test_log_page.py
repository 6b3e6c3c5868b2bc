"""The page for logs: every line of Elasticsearch reaches it once, also one that becomes visible late, and its end is noticed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stackbook.core.errors import CheckFailed
from stackbook.core.waiting import until
from stackbook.observability.logs import page as pages
from stackbook.observability.logs.page import LogPage

# A VictoriaLogs of few lines: it keeps what it is sent, and answers a query with all of it.
SERVER = """
import http.server, sys
from urllib.parse import parse_qs, urlsplit
kept = []
class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, status, text):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())
    def do_GET(self):
        self.answer(200, "OK")
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        where = urlsplit(self.path)
        if where.path == "/insert/jsonline":
            assert parse_qs(where.query)["_time_field"] == ["@timestamp"]
            kept.extend(body.splitlines())
            self.answer(200, "")
        elif "bad" in body:
            self.answer(400, "cannot parse query")
        else:
            self.answer(200, chr(10).join(kept))
    def log_message(self, *args):
        pass
port = int(next(a for a in sys.argv if a.startswith("-httpListenAddr=127.0.0.1:")).rpartition(":")[2])
print("data in", next(a for a in sys.argv if a.startswith("-storageDataPath=")), file=sys.stderr, flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


class Elasticsearch:
    """Indices with numbered documents, of which those in `hidden` cannot be seen yet; a search returns at most `size`."""

    def __init__(self, **indices: int) -> None:
        self.known = {name.replace("_", "-"): count for name, count in indices.items()}
        self.hidden: set[int] = set()
        self.indices, self.searches = self, 0

    def get(self, *, index: str) -> dict[str, Any]:
        assert index == "logstash-*"
        return {name: {} for name in self.known}

    def search(self, *, index: str, query: Any, sort: Any, size: int) -> Any:
        self.searches += 1
        assert sort == [{"_seq_no": "asc"}]
        after = query["range"]["_seq_no"]["gt"]
        numbers = [n for n in range(self.known[index]) if n > after and n not in self.hidden][:size]
        hits = [
            {"_id": f"{index}/{n}", "sort": [n], "_source": {"message": f"line {n}", "@timestamp": "t"}}
            for n in numbers
        ]
        return {"hits": {"hits": hits}}


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "victoria-logs"
    path.write_text(f"#!{sys.executable}\n{SERVER}")
    path.chmod(0o755)
    return path


@pytest.fixture
def page(program: Path) -> Iterator[LogPage]:
    with pages.running(program) as found:
        yield found


def store(client: Elasticsearch) -> Any:
    return type("Store", (), {"client": client})


def ids(page: LogPage) -> list[str]:
    return [row["id"] for row in page.query("*")]


def test_every_line_is_copied_once_in_several_requests(page: LogPage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_AT_ONCE", 7)
    client = Elasticsearch(logstash_1=20, logstash_2=5)
    assert page.copy(store(client)) == page.copied == 25
    assert page.query("*")[0] == {"message": "line 0", "@timestamp": "t", "id": "logstash-1/0"}
    assert len(ids(page)) == len(set(ids(page))) == 25
    assert page.copy(store(client)) == 0
    client.known["logstash-2"] = 8
    client.known["logstash-3"] = 1
    assert page.copy(store(client)) == 4 and page.copied == 29
    assert len(ids(page)) == len(set(ids(page))) == 29


def test_a_line_that_becomes_visible_late_is_not_missed(page: LogPage, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Elasticsearch(logstash_1=50)
    client.hidden = {40, 44}
    assert page.copy(store(client)) == 48
    client.hidden = set()
    assert page.copy(store(client)) == 2
    assert sorted(ids(page)) == sorted(f"logstash-1/{n}" for n in range(50))
    monkeypatch.setattr(pages, "_OVERLAP", 0)  # without looking again they would be missing
    blind = Elasticsearch(logstash_2=50)
    blind.hidden = {40}
    page.copy(store(blind))
    blind.hidden = set()
    assert page.copy(store(blind)) == 0


def test_what_is_refused_is_said(page: LogPage) -> None:
    with pytest.raises(CheckFailed, match="VictoriaLogs answers 400: cannot parse query"):
        page.query("bad")


def test_new_lines_follow_until_elasticsearch_is_gone(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Elasticsearch(logstash_1=3)

    @contextlib.contextmanager
    def opened(kube: Any) -> Iterator[Any]:
        yield store(client)

    monkeypatch.setattr(pages, "opened", opened)
    monkeypatch.setattr(pages, "_EVERY", 0.05)
    with pages.following(None, program) as page:  # type: ignore[arg-type]
        assert page.copied == 3
        client.known["logstash-1"] = 5
        until(lambda: page.copied == 5, what="new lines to follow", timeout=20, every=0.05)
        assert page.ended() == ""
        monkeypatch.setattr(client, "search", gone)
        assert "the pod is gone" in until(page.ended, what="the end to be noticed", timeout=20, every=0.05)


def gone(**asked: Any) -> Any:
    raise CheckFailed("Elasticsearch answers with an error: the pod is gone")


def test_the_end_of_the_program_is_noticed_and_its_data_are_removed(program: Path, tmp_path: Path) -> None:
    with pages.running(program) as page:
        assert page.ended() == ""
        folder = Path(f"/proc/{page.process.pid}/cwd").readlink()
        assert folder.is_dir() and folder.stat().st_mode & 0o077 == 0
        page.process.kill()
        page.process.wait(10)
        assert page.ended() == "VictoriaLogs exited with status -9"
    assert not folder.exists()
    program.write_text("#!/bin/sh\necho the disk is full >&2\nexit 3\n")
    with pytest.raises(CheckFailed, match=r"exited with status 3: the disk is full"), pages.running(program):
        raise AssertionError("it did not start")
