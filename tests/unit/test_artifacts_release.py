"""Downloads against a server on loopback: good, truncated, corrupted and missing files, and continuation."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from stackbook.artifacts import downloads
from stackbook.artifacts.catalogue import Catalogue
from stackbook.artifacts.catalogue_loader import load
from stackbook.artifacts.resolver import Resolver
from stackbook.artifacts.sources import Release
from stackbook.artifacts.subprocesses import Cancelled
from stackbook.core.errors import ArtifactError, ArtifactUnavailable, CorruptArtifact, InputError
from stackbook.core.progress import Progress

BODY = bytes(range(256)) * 4096  # 1 MiB
SHA = hashlib.sha256(BODY).hexdigest()
PUBLISHED = {
    "alone.sha256": SHA,
    "named.sha256": f"{SHA}  kubelet\n",
    "page.sha256": "<html>sign in first</html>",
    "empty.sha256": "",
    "kubelet.sha256": SHA,
    "corrupted.sha256": SHA,
}


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
        elif kind.endswith(".sha256"):
            self.answer(PUBLISHED[kind].encode()) if kind in PUBLISHED else self.send_error(404)
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


def test_without_a_checksum_nothing_is_asked(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ArtifactUnavailable, match="no checksum of this version is known"):
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


@pytest.mark.parametrize("name", ["alone", "named"])
def test_a_published_checksum_is_the_first_word(server: Server, name: str) -> None:
    assert downloads.published(server.url(f"{name}.sha256")) == SHA


@pytest.mark.parametrize(
    ("name", "words"), [("page.sha256", "no SHA-256"), ("empty.sha256", "no SHA-256"), ("missing", "no such file")]
)
def test_a_published_checksum_that_is_none(server: Server, name: str, words: str) -> None:
    with pytest.raises(ArtifactUnavailable, match=words):
        downloads.published(server.url(name))


def with_release(catalogue: Catalogue, url: str, *, version: str, published: bool = True) -> Catalogue:
    """The catalogue, its kubelet from another address."""
    kubelet = catalogue.artifact("kubelet")
    release = Release(url, None, url + ".sha256" if published else "")
    changed = replace(kubelet, version=version, sources=(release, *kubelet.sources[1:]))
    return replace(catalogue, artifacts={**catalogue.artifacts, "kubelet": changed})


def another(server: Server, tmp_path: Path, name: str, **more: Any) -> tuple[Resolver, list[str]]:
    """A resolver for Kubernetes 1.34.2, whose kubelet the server has under `name`; and the notes it makes."""
    said: list[str] = []
    resolver = Resolver.open(
        cache=tmp_path, versions={"kubernetes": "1.34.2"}, progress=lambda moment: said.append(str(moment)), **more
    )
    catalogue = with_release(resolver.catalogue, server.url(name), version="1.34.2")
    resolver.catalogue = resolver.maker.catalogue = catalogue
    return resolver, said


def test_a_version_that_is_not_pinned_comes_with_its_published_checksum(server: Server, tmp_path: Path) -> None:
    resolver, said = another(server, tmp_path, "kubelet")
    assert resolver.path("kubelet").read_bytes() == BODY
    assert any("no checksum of 1.34.2 is pinned: compared with http" in text for text in said)
    part = next(part for part in resolver.components(["kubelet"]) if part["name"] == "kubelet")
    assert part == {"name": "kubelet", "version": "1.34.2", "sha256": SHA, "source": "published"}


def test_what_is_not_the_published_checksum_is_refused_and_deleted(server: Server, tmp_path: Path) -> None:
    resolver, _ = another(server, tmp_path, "corrupted")
    with pytest.raises(ArtifactError, match=f"it should be {SHA}"):
        resolver.path("kubelet")
    assert resolver.components(["kubelet"]) == []


def test_strict_takes_pinned_checksums_alone() -> None:
    with pytest.raises(InputError, match=r"all of kubernetes 1.34.2 with a pinned checksum.*strict: false"):
        load(versions={"kubernetes": "1.34.2"}, strict=True)
    assert len(releases(load(strict=True))) >= 7
    assert not any(source.published for source in releases(load(strict=True)))
    assert all(source.published.endswith(".sha256") for source in releases(load()))


def releases(catalogue: Catalogue) -> list[Release]:
    return [s for a in catalogue.artifacts.values() for s in a.sources if isinstance(s, Release)]


def test_a_version_that_cannot_be_had_is_refused_before_anything_begins(server: Server, tmp_path: Path) -> None:
    resolver, _ = another(server, tmp_path, "missing")
    resolver.catalogue = replace(resolver.catalogue, artifacts={"kubelet": resolver.catalogue.artifact("kubelet")})
    with pytest.raises(InputError, match=r"kubernetes 1.34.2 is not available: .*HTTP 404.*1\.36\.3"):
        resolver.demand_versions()
    resolver, _ = another(server, tmp_path, "kubelet")
    resolver.catalogue = replace(resolver.catalogue, artifacts={"kubelet": resolver.catalogue.artifact("kubelet")})
    resolver.demand_versions()
    resolver.maker.source = "registry"
    with pytest.raises(InputError, match=r"source: registry builds kubernetes 1\.36\.3 alone"):
        resolver.demand_versions()
    resolver.maker.source = "auto"
    server.shutdown()
    server.server_close()
    resolver.maker.probe = downloads.Probe(seconds=1)
    with pytest.raises(InputError, match="does not answer"):
        resolver.demand_versions()
