"""The command `open`: what it lists, what it refuses, and that a page is there as long as the command runs."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stackbook.app import cli, opening
from stackbook.core.errors import InputError, StackbookError
from stackbook.lab.lab import Lab

BOOKINFO, KIALI, PROMETHEUS = (
    next(p for p in opening.PAGES if p.name == n) for n in ("bookinfo", "kiali", "prometheus")
)


class Server:
    """A web server on loopback that can go away."""

    def __init__(self) -> None:
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,))
        self.thread.start()

    @property
    def port(self) -> int:
        return int(self.http.server_address[1])

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


class Kube:
    def __init__(self, ready: set[str], server: Server | None = None) -> None:
        self.there, self.server, self.answers = ready, server, True
        self.forwarded: list[tuple[Any, ...]] = []

    def ready(self) -> bool:
        return self.answers

    def json(self, *args: str) -> Any:
        name = args[-1].split("=")[1]
        endpoints = [{"conditions": {"ready": name in self.there}}]
        return {"items": [{"endpoints": endpoints}, {"endpoints": None}]}

    @contextlib.contextmanager
    def port_forward(self, *args: Any) -> Iterator[int]:
        assert self.server
        self.forwarded.append(args)
        yield self.server.port


class Sources:
    def __init__(self, pulled: set[str]) -> None:
        self._pulled = pulled

    def pulled(self, name: str) -> bool:
        return name in self._pulled

    def of(self, name: str) -> Any:
        return type("Source", (), {"kind": "pull" if name in self._pulled else "none" if name == "kiali" else "build"})


def lab(ready: set[str] = frozenset(), pulled: set[str] = frozenset(), server: Server | None = None) -> Any:  # type: ignore[assignment]
    images = type("Images", (), {"sources": Sources(pulled)})
    return type("Lab", (), {"kube": Kube(ready, server), "images": images, "kubeconfig": Path("/")})


def test_the_list_says_what_is_ready_what_has_an_api_only_and_what_is_not_installed() -> None:
    table = list(opening.lines(lab({"istio-ingressgateway", "prometheus", "tracing"}, {"jaeger"})))
    rows = {line.split()[0]: line for line in table[1:-1]}
    assert list(rows) == [page.name for page in opening.PAGES]
    assert " ready " in rows["bookinfo"] and " ready " in rows["jaeger"]
    assert " API only " in rows["prometheus"]
    assert " not installed " in rows["kiali"] and " not installed " in rows["grafana"]


def test_every_page_has_a_chapter_and_is_on_loopback_only() -> None:
    from stackbook.config import chapters

    assert {page.chapter for page in opening.PAGES} <= {chapter.number for chapter in chapters.ALL}
    assert opening.LOOPBACK == "127.0.0.1"


def test_how_a_page_is_installed() -> None:
    assert opening.how(lab(), PROMETHEUS) == "stackbook run --only 10"
    assert "container image" in opening.how(lab(), KIALI)
    assert opening.how(lab(pulled={"kiali"}), KIALI) == "stackbook run --only 05"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["open", "bookinfos"], "there is no page 'bookinfos' — did you mean 'bookinfo'?"),
        (["open", "kiali"], "kiali is not installed — kiali exists only as a container image"),
        (["open", "prometheus"], "prometheus is not installed — stackbook run --only 10"),
    ],
)
def test_what_cannot_be_opened_is_refused_in_one_line(
    words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Lab, "open", lambda *args: lab())
    assert cli.main(words) == InputError.exit_status
    assert said in capsys.readouterr().err


def test_a_cluster_that_does_not_answer_is_not_taken_for_one_without_pages(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = lab({"istio-ingressgateway"})
    found.kube.answers = False
    monkeypatch.setattr(Lab, "open", lambda *args: found)
    for words in (["open"], ["open", "bookinfo"]):
        assert cli.main(words) == 2
        said = capsys.readouterr()
        assert said.out == "" and "the API server does not answer — stackbook start" in said.err


def test_without_a_cluster_it_says_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STACKBOOK_STATE", str(tmp_path))
    assert cli.main(["open"]) == 2
    assert "there is no cluster yet — stackbook run --to 05" in capsys.readouterr().err


def test_the_address_is_printed_and_ctrl_c_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Server()

    def pressed(seconds: float) -> None:
        raise KeyboardInterrupt

    found = lab({"istio-ingressgateway"}, server=server)
    monkeypatch.setattr(Lab, "open", lambda *args: found)
    monkeypatch.setattr(opening, "pause", pressed)
    monkeypatch.setattr(opening, "browse", lambda address, environment: None)
    try:
        assert cli.main(["open", "bookinfo"]) == 0
    finally:
        server.close()
    assert capsys.readouterr().out.splitlines()[0] == f"http://127.0.0.1:{server.port}/productpage"
    assert found.kube.forwarded == [("istio-system", "svc/istio-ingressgateway", 80)]


def test_a_pod_that_goes_ends_the_command_with_the_reason() -> None:
    server = Server()
    said: list[str] = []
    server.close()
    with pytest.raises(StackbookError, match="the connection to prometheus has ended"):
        opening.serve(lab(server=server), PROMETHEUS, say=said.append, environment={})
    assert said[0].startswith(f"http://127.0.0.1:{server.port}/api/v1/query?query=up\n")
    assert "built without its pages" in said[1]


@pytest.mark.parametrize(
    ("uid", "environment", "opened", "started"),
    [
        (1000, {"DISPLAY": ":0"}, True, None),
        (1000, {}, False, None),
        (
            0,
            {"WAYLAND_DISPLAY": "w", "SUDO_USER": "ann"},
            False,
            ["runuser", "-u", "ann", "--", "xdg-open", "http://x"],
        ),
        (0, {"DISPLAY": ":0"}, False, None),
    ],
)
def test_a_browser_is_opened_for_the_user_and_never_as_root(
    uid: int, environment: dict[str, str], opened: bool, started: list[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    commands: list[list[str]] = []
    monkeypatch.setattr(opening.os, "geteuid", lambda: uid)
    monkeypatch.setattr(opening.webbrowser, "open", seen.append)
    monkeypatch.setattr(opening.subprocess, "Popen", lambda argv, **more: commands.append(argv))
    opening.browse("http://x", environment)
    assert seen == (["http://x"] if opened else [])
    assert commands == ([started] if started else [])
