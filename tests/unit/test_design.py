"""Chapter 15: words, duties, calls and submodules, on small made-up cases and on real git."""

from __future__ import annotations

import doctest
import shutil
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from stackbook.artifacts.go_toolchain import ToolFailed
from stackbook.core.errors import CheckFailed
from stackbook.lessons.design import contexts, shop, submodules

CALLS = [("page", "reviews"), ("reviews", "ratings"), ("page", "details")]


@pytest.mark.parametrize("module", [contexts, shop])
def test_examples(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


def test_the_source_of_the_bookshop_says_four_ways() -> None:
    assert shop.relays("bookinfo") == [
        ("productpage", "details"), ("productpage", "ratings"), ("productpage", "reviews"), ("reviews", "ratings"),
    ]  # fmt: skip


SERVICE = """#!{python}
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
name = sys.argv[3]
class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("X-Served-By", name)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *args):
        pass
HTTPServer.allow_reuse_address = False
HTTPServer(("127.0.0.1", int(sys.argv[2])), Answer).serve_forever()
"""


@pytest.fixture
def service(tmp_path: Path) -> Path:
    """A program with the arguments of bookinfo; like it, it ends where its port is taken."""
    path = tmp_path / "service"
    path.write_text(SERVICE.format(python=sys.executable))
    path.chmod(0o755)
    return path


@pytest.fixture
def taken() -> Iterator[int]:
    """A port at which somebody else answers each request with 200, as a relay does."""

    class Stranger(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Stranger)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_a_port_that_is_taken_is_not_a_services(service: Path, taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    free, given = shop.free_port, [taken]
    monkeypatch.setattr(shop, "free_port", lambda: given.pop() if given else free())
    with shop.running(service) as running:
        assert taken not in running.ports.values()
        for name in shop.SERVICES:
            assert running.ask(name, "/health").headers["x-served-by"] == name
    assert all(process.poll() is not None for process in running.processes.values())


@pytest.mark.slow
def test_a_service_that_cannot_start_is_named(service: Path, taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shop, "free_port", lambda: taken)
    with (
        pytest.raises(CheckFailed, match="productpage exited immediately on each of 3 ports, with status 1"),
        shop.running(service),
    ):
        raise AssertionError("the block ran")


def test_words_are_the_names_of_fields_and_not_the_data() -> None:
    answer = {"id": 1, "ratings": {"Reviewer1": 5}, "ISBN-10": "x", "list": [{"text": "y"}]}
    assert shop.words(answer) == {"id", "ratings", "ISBN-10", "list", "text"}


def test_a_duty_in_a_neighbours_words_is_found() -> None:
    words = {"a": {"id", "stars"}, "b": {"id", "author"}}
    assert contexts.foreign("keeps the stars: id, author.", "a", words) == ["author"]
    assert contexts.foreign("keeps the stars by id", "a", words) == []


def test_who_depends_on_whom() -> None:
    assert contexts.reached(CALLS, "ratings") == {"reviews", "page"}
    assert contexts.reached(CALLS, "page") == set()
    assert contexts.reached(CALLS, "nobody") == set()


def test_pairs_that_must_talk() -> None:
    rows = contexts.talks(CALLS, ["page", "details", "reviews", "ratings"])
    assert [(r["one"], r["other"]) for r in rows if r["a call between them"]] == [
        ("page", "details"), ("page", "reviews"), ("reviews", "ratings"),
    ]  # fmt: skip


def test_the_figure_has_every_service() -> None:
    figure = contexts.figure([("productpage", "details")], {"productpage": {"a"}, "details": {"a", "b"}})
    texts = {text.get_text() for text in figure.axes[0].texts}
    assert {"productpage\n0 words of its own", "details\n1 word of its own"} <= texts


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_submodule_is_pinned_to_its_commit() -> None:
    with submodules.trial() as git:
        first = git.repository("protos", {"a": "1"}, "one")
        git.repository("shop", {"b": "2"}, "begin")
        with pytest.raises(ToolFailed, match="transport 'file' not allowed"):
            git.git("shop", "submodule", "add", f"{git.root}/protos", "protos")
        git.git("shop", "submodule", "--quiet", "add", f"{git.root}/protos", "protos", files=True)
        git.git("shop", "commit", "--quiet", "--message=add")
        second = git.repository("protos", {"a": "2"}, "two")
        assert first != second
        assert git.pinned("shop", "protos") == first == git.head("shop/protos")
        assert git.pinned("shop", "b") == ""
    assert not git.root.exists()
