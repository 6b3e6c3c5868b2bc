"""Downloads against a server on loopback: good, truncated, corrupted and missing files, and continuation."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from stackbook.artifacts import downloads
from stackbook.artifacts.subprocesses import Cancelled
from stackbook.core.errors import ArtifactUnavailable, CorruptArtifact
from stackbook.core.progress import Progress

BODY = bytes(range(256)) * 4096  # 1 MiB
SHA = hashlib.sha256(BODY).hexdigest()


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str | None]] = []

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{path}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append((self.path, wanted))
        begin = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        kind = self.path.strip("/")
        if kind == "missing":
            self.send_error(404)
        elif kind == "forbidden":
            self.send_error(403)
        elif kind == "broken":
            self.send_error(503)
        elif kind == "corrupted":
            self.answer(b"x" + BODY[1:])
        elif kind == "truncated":  # always stops early
            self.answer(BODY, stop=1000)
        elif kind == "cut-once":  # stops early the first time, and then continues
            first = len(self.server.asked) == 1
            self.answer(BODY, begin=begin, stop=300_000 if first else None)
        elif kind == "no-range":
            self.answer(BODY)
        elif begin >= len(BODY):
            self.send_error(416)
        else:
            self.answer(BODY, begin=begin)

    def answer(self, body: bytes, *, begin: int = 0, stop: int | None = None) -> None:
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(body) - begin))
        self.end_headers()
        self.wfile.write(body[begin : begin + stop if stop is not None else None])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def get(server: Server, name: str, partial: Path, *, sha256: str | None = SHA, report=lambda _: None, **more) -> Path:
    return downloads.download(
        server.url(name), sha256=sha256, partial=partial, job=name, report=report, attempts=2, **more
    )


def test_a_good_file_is_verified_and_shows_progress(server: Server, tmp_path: Path) -> None:
    seen: list[Progress] = []
    path = get(server, "good", tmp_path / "p", report=seen.append)
    assert path.read_bytes() == BODY
    assert (seen[-1].done, seen[-1].total, seen[-1].unit) == (len(BODY), len(BODY), "bytes")


def test_a_partial_file_is_continued(server: Server, tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(BODY[:500_000])
    assert get(server, "good", tmp_path / "p").read_bytes() == BODY
    assert server.asked == [("/good", "bytes=500000-")]


def test_a_complete_partial_file_asks_for_nothing_more(server: Server, tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(BODY)
    assert get(server, "good", tmp_path / "p").read_bytes() == BODY


def test_a_cut_connection_is_continued_where_it_was_cut(server: Server, tmp_path: Path) -> None:
    assert get(server, "cut-once", tmp_path / "p").read_bytes() == BODY
    assert server.asked == [("/cut-once", None), ("/cut-once", "bytes=300000-")]


def test_a_server_that_ignores_the_range_gets_the_whole_file_asked(server: Server, tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(b"old" * 1000)
    assert get(server, "no-range", tmp_path / "p").read_bytes() == BODY


def test_a_truncated_file_is_unavailable_and_kept(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ArtifactUnavailable, match="continues there"):
        get(server, "truncated", tmp_path / "p")
    assert (tmp_path / "p").exists()


def test_a_corrupted_file_is_deleted(server: Server, tmp_path: Path) -> None:
    with pytest.raises(CorruptArtifact, match=SHA):
        get(server, "corrupted", tmp_path / "p")
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(("name", "words"), [("missing", "no such file"), ("forbidden", "refused"), ("broken", "503")])
def test_what_is_not_there_is_said(server: Server, tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(ArtifactUnavailable, match=words):
        get(server, name, tmp_path / "p")


def test_without_a_pinned_checksum_nothing_is_asked(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ArtifactUnavailable, match="no published checksum"):
        get(server, "good", tmp_path / "p", sha256=None)
    assert server.asked == []


def test_an_interrupt_keeps_the_partial_file_for_the_next_time(server: Server, tmp_path: Path) -> None:
    cancel = threading.Event()

    def interrupt(progress: Progress) -> None:
        if progress.done > 200_000:
            cancel.set()

    with pytest.raises(Cancelled):
        get(server, "good", tmp_path / "p", report=interrupt, cancel=cancel)
    kept = (tmp_path / "p").stat().st_size
    assert 0 < kept < len(BODY)
    assert get(server, "good", tmp_path / "p").read_bytes() == BODY
    assert server.asked[-1] == ("/good", f"bytes={kept}-")


def test_the_probe_asks_a_host_once(server: Server, tmp_path: Path) -> None:
    probe = downloads.Probe(seconds=1)
    assert probe.why_not(server.url("a")) == ""
    server.shutdown()
    assert probe.why_not(server.url("b")) == ""
    assert "does not answer" in downloads.Probe(seconds=1).why_not("http://127.0.0.1:9/")
