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
from stackbook.config.namespaces import Namespaces
from stackbook.core.errors import ArtifactUnavailable, InputError, StackbookError
from stackbook.lab.lab import Lab

BOOKINFO, GRAFANA, KIALI, PROMETHEUS = (
    next(p for p in opening.PAGES if p.name == n) for n in ("bookinfo", "grafana", "kiali", "prometheus")
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
        self.has_pages = self.addon = False
        self.ran: list[tuple[str, ...]] = []

    def ready(self) -> bool:
        return self.answers

    def exec(self, namespace: str, target: str, *argv: str, check: bool = True) -> Any:
        self.ran.append((target, *argv))
        return type("Result", (), {"ok": self.has_pages if argv[:2] == ("test", "-f") else True})

    def kubectl(self, *args: str, timeout: float = 60.0, check: bool = True) -> Any:
        if args[:2] == ("get", "svc/prometheus"):
            return type("Result", (), {"ok": "prometheus" in self.there})
        assert args[0] == "cp"
        self.ran.append(args)
        self.has_pages = True
        return None

    def json(self, *args: str) -> Any:
        if args[1] == "pods":
            ready = {"status": {"containerStatuses": [{"ready": True}]}, "metadata": {"name": "prometheus-1"}}
            gone = {"status": {}, "metadata": {"name": "prometheus-0"}}
            return {"items": [gone, ready] if self.there else [gone]}
        if args[1] == "deployments":
            assert args[2:] == ("-n", "istio-system", "-l", "app=kiali,!stackbook.lab/page")
            return {"items": [{}] * self.addon}
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
        return type(
            "Source", (), {"kind": "pull" if name in self._pulled else "none" if name == "grafana" else "build"}
        )


class Artifacts:
    def __init__(self, cached: Path | None) -> None:
        self.cached = cached

    def at_hand(self, name: str) -> Path | None:
        assert name in ("prometheus-pages", "victoria-logs", "zipkin", "kiali", "kiali-pages")
        return self.cached


def lab(
    ready: set[str] = frozenset(), pulled: set[str] = frozenset(), server: Server | None = None, cached: Path | None = None,  # type: ignore[assignment]
) -> Any:  # fmt: skip
    images = type("Images", (), {"sources": Sources(pulled)})
    parts = {"kube": Kube(ready, server), "images": images, "kubeconfig": Path("/"), "artifacts": Artifacts(cached),
             "namespaces": Namespaces(), "profile": type("Profile", (), {"target": "machines"})}  # fmt: skip
    return type("Lab", (), parts)


def test_the_list_says_what_is_ready_what_has_an_api_only_and_what_is_not_installed() -> None:
    table = list(opening.lines(lab({"istio-ingressgateway", "prometheus", "tracing"}, {"jaeger"})))
    rows = {line.split()[0]: line for line in table[1:-1]}
    assert list(rows) == [page.name for page in opening.PAGES]
    assert " ready " in rows["bookinfo"] and " ready " in rows["jaeger"]
    assert " API only " in rows["prometheus"]
    assert " not built " in rows["kiali"] and " not installed " in rows["grafana"]


def test_on_an_existing_cluster_pages_of_the_learners_own_are_in_their_namespace() -> None:
    learners = lab()
    learners.namespaces, learners.profile.target = Namespaces("ada"), "cluster"
    own = dict.fromkeys(("bookinfo", "prometheus", "jaeger", "traces"), "ada") | dict.fromkeys(
        ("logs", "kibana"), "ada-logging"
    )
    assert {page.name: page.namespace for page in opening.pages(learners)} == {
        page.name: own.get(page.name, page.namespace) for page in opening.PAGES
    }
    assert opening.pages(lab()) == opening.PAGES


def test_every_page_has_a_chapter_and_is_on_loopback_only() -> None:
    from stackbook.config import chapters

    assert {page.chapter for page in opening.PAGES} <= {chapter.number for chapter in chapters.ALL}
    assert opening.LOOPBACK == "127.0.0.1"


def test_how_a_page_is_installed() -> None:
    assert opening.how(lab(), PROMETHEUS) == "stackbook run --only 10"
    assert opening.how(lab(), KIALI) == "stackbook run --only 10"
    assert "container image" in opening.how(lab(), GRAFANA)
    assert opening.how(lab(pulled={"grafana"}), GRAFANA) == "stackbook run --only 05"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["open", "bookinfos"], "there is no page 'bookinfos' — did you mean 'bookinfo'?"),
        (["open", "grafana"], "grafana is not installed — grafana exists only as a container image"),
        (["open", "kiali"], "Kiali draws what Prometheus has, and there is no Prometheus — stackbook run --only 10"),
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


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The components that were to be built; no build succeeds."""
    made: list[str] = []

    def build(lab: Any, component: str, say: Any) -> Path:
        made.append(component)
        raise ArtifactUnavailable("the registry does not answer", fix="check npm's registry")

    monkeypatch.setattr(opening, "built", build)
    return made


def test_built_pages_are_put_into_the_pod_when_they_are_opened(tmp_path: Path, builds: list[str]) -> None:
    found = lab({"prometheus"}, cached=tmp_path)
    assert any("prometheus" in line and " ready " in line for line in opening.lines(found))
    assert found.kube.ran == [("deploy/prometheus", "test", "-f", "/static/mantine-ui/index.html")]
    assert opening.provide(found, PROMETHEUS, print)
    copied = next(command for command in found.kube.ran if command[0] == "cp")
    assert copied[1] == str(tmp_path / "mantine-ui") and copied[2].startswith("istio-system/prometheus-1:/static/new-")
    assert found.kube.ran[-1][-1].endswith(" /static/mantine-ui")
    before = len(found.kube.ran)
    assert opening.provide(found, PROMETHEUS, print)  # they are there now
    assert found.kube.ran[before:] == [("deploy/prometheus", "test", "-f", "/static/mantine-ui/index.html")]
    assert builds == []


def test_pages_of_a_pulled_image_are_its_own_and_nothing_is_copied(builds: list[str]) -> None:
    found = lab({"prometheus"}, {"prometheus"})
    assert opening.provide(found, PROMETHEUS, print) and found.kube.ran == [] and builds == []


def test_pages_that_cannot_be_built_are_said_and_the_api_is_shown(builds: list[str]) -> None:
    said: list[str] = []
    assert not opening.provide(lab({"prometheus"}), PROMETHEUS, said.append)
    assert builds == ["prometheus-pages"]
    assert said == ["The pages of prometheus cannot be shown: the registry does not answer — check npm's registry"]
    assert not opening.provide(lab(cached=Path("/")), PROMETHEUS, said.append)
    assert "no pod of Prometheus is ready" in said[1]
    jaeger = next(page for page in opening.PAGES if page.name == "jaeger")
    assert not opening.provide(lab({"tracing"}), jaeger, said.append) and len(said) == 2


def test_logs_are_shown_on_a_page_of_this_host_until_it_ends(
    tmp_path: Path, builds: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from stackbook.observability.logs import page as log_page

    logs = next(page for page in opening.PAGES if page.name == "logs")
    rows = {line.split()[0]: line for line in opening.lines(lab({"elasticsearch"}))}
    assert " not built " in rows["logs"] and " not installed " in rows["kibana"]
    found = lab({"elasticsearch"}, cached=tmp_path / "victoria-logs")
    assert any(line.startswith("logs") and " ready " in line for line in opening.lines(found))
    assert opening.how(lab(), logs) == "stackbook run --only 12"
    reasons = ["", "", "new lines cannot be copied: the pod is gone"]
    asked: list[Any] = []

    @contextlib.contextmanager
    def following(kube: Any, program: Path) -> Iterator[Any]:
        asked.append((kube, program))
        yield type("Page", (), {"url": "http://127.0.0.1:9", "copied": 17, "what": log_page.LogPage.what,
                                "ended": lambda self: reasons.pop(0)})()  # fmt: skip

    monkeypatch.setattr(log_page, "following", following)
    monkeypatch.setattr(opening, "pause", lambda seconds: None)
    said: list[str] = []
    with pytest.raises(StackbookError, match="the page of logs has ended: new lines cannot be copied: the pod is gone"):
        opening.show(found, logs, say=said.append, environment={})
    assert said[0].startswith("http://127.0.0.1:9/select/vmui/\n") and "17 lines of Elasticsearch" in said[1]
    assert asked == [(found.kube, tmp_path / "victoria-logs")] and reasons == [] and builds == []
    with pytest.raises(ArtifactUnavailable):
        opening.show(lab({"elasticsearch"}), logs, say=said.append, environment={})
    assert builds == ["victoria-logs"]


def test_traces_are_shown_by_zipkin_once_its_program_is_there(
    tmp_path: Path, builds: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from stackbook.observability.tracing import trace_page

    traces = next(page for page in opening.PAGES if page.name == "traces")
    rows = {line.split()[0]: line for line in opening.lines(lab({"tracing"}))}
    assert " not built " in rows["traces"] and " API only " in rows["jaeger"]
    with pytest.raises(ArtifactUnavailable):
        opening.show(lab({"tracing"}), traces, say=print, environment={})
    assert builds == ["zipkin"]

    @contextlib.contextmanager
    def following(found: Any) -> Iterator[trace_page.TracePage]:
        yield trace_page.TracePage("http://127.0.0.1:9", copied=240, trouble="the pod is gone")

    monkeypatch.setattr(trace_page, "following", following)
    said: list[str] = []
    with pytest.raises(StackbookError, match="the page of traces has ended: the pod is gone"):
        opening.show(lab({"tracing"}, cached=tmp_path), traces, say=said.append, environment={})
    assert said[0].startswith("http://127.0.0.1:9/zipkin/\n") and "240 spans of Jaeger" in said[1]


def test_kiali_is_shown_once_its_program_and_its_page_are_there(
    tmp_path: Path, builds: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from stackbook.observability.metrics import kiali

    with pytest.raises(ArtifactUnavailable):
        opening.show(lab({"prometheus"}), KIALI, say=print, environment={})
    assert builds == ["kiali"]
    reasons = ["", "Kiali does not answer: its pod is gone"]

    @contextlib.contextmanager
    def running(found: Any) -> Iterator[Any]:
        yield type("Kiali", (), {"url": "http://127.0.0.1:9/kiali", "ended": lambda self: reasons.pop(0)})()

    monkeypatch.setattr(kiali, "running", running)
    monkeypatch.setattr(opening, "pause", lambda seconds: None)
    for found in (lab({"prometheus"}, cached=tmp_path), lab({"prometheus"}, {"kiali"})):
        assert any(line.startswith("kiali ") and " ready " in line for line in opening.lines(found))
        said: list[str] = []
        reasons[:] = ["", "Kiali does not answer: its pod is gone"]
        with pytest.raises(StackbookError, match="the page of kiali has ended: Kiali does not answer: its pod is gone"):
            opening.show(found, KIALI, say=said.append, environment={})
        assert said[0].startswith("http://127.0.0.1:9/kiali/console/graph/namespaces?namespaces=default&")
        assert said[1].startswith("Until Ctrl-C ends it, every user of this host can read it.")
    assert builds == ["kiali"], "a pulled image has its page"


def test_the_addons_kiali_is_served_as_it_is() -> None:
    found = lab({"kiali", "prometheus"})
    found.kube.addon = True
    page = next(page for page in opening.pages(found) if page.name == "kiali")
    assert (page.service, page.port, page.path, page.program) == ("istio-system/kiali", 20001, "/kiali/", "")
    assert any(line.startswith("kiali ") and " ready " in line for line in opening.lines(found))


def test_on_an_existing_cluster_kiali_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    learners = lab({"prometheus"})
    learners.profile.target = "cluster"
    monkeypatch.setattr(Lab, "open", lambda *args: learners)
    assert cli.main(["open", "kiali"]) == 2
    said = capsys.readouterr().err
    assert "Kiali needs rights in the whole cluster" in said and said.count("\n") == 1


def test_a_pod_that_goes_ends_the_command_with_the_reason(builds: list[str]) -> None:
    server = Server()
    said: list[str] = []
    server.close()
    with pytest.raises(StackbookError, match="the connection to prometheus has ended"):
        opening.serve(lab(server=server), PROMETHEUS, say=said.append, environment={})
    assert said[1].startswith(f"http://127.0.0.1:{server.port}/api/v1/query?query=up\n")
    assert "built without its pages" in said[2]


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
