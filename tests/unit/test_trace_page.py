"""The page for traces: every span of Jaeger reaches it once, in Zipkin's form, also one that arrives late."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from stackbook.cluster import manifests
from stackbook.core.errors import CheckFailed, StackbookError, WaitTimeout
from stackbook.observability.tracing import trace_page
from stackbook.observability.tracing.trace_page import TracePage
from stackbook.observability.tracing.zipkin_spans import converted


def span(
    id: str, *, kind: str = "client", parent: str = "", start: int = 1_700_000_000_000_000, **tags: Any
) -> dict[str, Any]:
    """A span as Jaeger's API gives it."""
    given = [{"key": "span.kind", "type": "string", "value": kind}, *({"key": k, "value": v} for k, v in tags.items())]
    parents = [{"refType": "CHILD_OF", "traceID": "a1", "spanID": parent}] if parent else []
    return {"traceID": "a1", "spanID": id, "operationName": "reviews:9080/*", "references": parents, "startTime": start,
            "duration": 1500, "tags": given, "processID": "p1"}  # fmt: skip


def trace(*spans: dict[str, Any]) -> dict[str, Any]:
    return {"traceID": "a1", "spans": list(spans), "processes": {"p1": {"serviceName": "reviews.default"}}}


def test_a_span_keeps_its_ids_times_service_and_tags() -> None:
    log = {"timestamp": 7, "fields": [{"key": "event", "value": "retry"}]}
    found = converted([trace({**span("b2", parent="c3", error=True, **{"http.status_code": 503}), "logs": [log]})])
    assert found == [{
        "traceId": "0" * 30 + "a1", "id": "0" * 14 + "b2", "parentId": "0" * 14 + "c3", "kind": "CLIENT", "name": "reviews:9080/*",
        "timestamp": 1_700_000_000_000_000, "duration": 1500, "localEndpoint": {"serviceName": "reviews.default"},
        "tags": {"error": "true", "http.status_code": "503"}, "annotations": [{"timestamp": 7, "value": "retry"}],
    }]  # fmt: skip


def test_a_server_that_shares_its_clients_id_is_marked() -> None:
    client, server, other = converted(
        [trace(span("1"), span("1", kind="server"), span("2", kind="server", parent="1"))]
    )
    assert server["shared"] is True and "shared" not in client and "shared" not in other
    assert (client["kind"], server["kind"]) == ("CLIENT", "SERVER")
    (internal,) = converted([trace(span("3", kind="internal"))])
    assert "kind" not in internal, "Zipkin has no such kind"


@pytest.mark.parametrize(
    "answer", [[{"spans": [{}]}], [{"spans": [span("1")], "processes": {}}], [None], [{"spans": 7}]]
)
def test_an_answer_of_another_form_is_an_error(answer: Any) -> None:
    with pytest.raises(StackbookError, match="is not a list of traces"):
        converted(answer)


class Zipkin:
    """Takes spans as Zipkin does, and keeps them."""

    def __init__(self) -> None:
        self.kept: list[dict[str, Any]] = []
        self.status = 202
        kept = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.path == "/api/v2/spans" and self.headers["Content-Type"] == "application/json"
                if kept.status == 202:
                    kept.kept += json.loads(body)
                self.answer(kept.status, b"no room")

            def do_GET(self) -> None:
                wanted = self.path.rpartition("/")[2]
                found = [item for item in kept.kept if item["traceId"] == wanted]
                self.answer(200 if found or self.path == "/health" else 404, json.dumps(found).encode())

            def answer(self, status: int, text: bytes) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *args: Any) -> None:
                """Nothing is printed."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()
        self.page = TracePage(f"http://127.0.0.1:{self.server.server_address[1]}")

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def zipkin() -> Iterator[Zipkin]:
    server = Zipkin()
    yield server
    server.close()


class Jaeger:
    """Jaeger's answers: each service's traces that have a span in the period."""

    def __init__(self, **services: list[dict[str, Any]]) -> None:
        self.known = services
        self.asked: list[float] = []

    def services(self) -> list[str]:
        return list(self.known)

    def answers(self, service: str, *, since: float, limit: int) -> list[dict[str, Any]]:
        self.asked.append(since)
        return self.known[service]


def test_every_span_is_copied_once_and_a_late_one_follows(zipkin: Zipkin) -> None:
    whole = trace(span("1"), span("1", kind="server"))
    jaeger = Jaeger(productpage=[whole], reviews=[whole])
    assert zipkin.page.copy(jaeger) == 2, "both services have the same trace"  # type: ignore[arg-type]
    assert zipkin.page.copy(jaeger) == 0  # type: ignore[arg-type]
    jaeger.known["reviews"] = [trace(span("1"), span("1", kind="server"), span("9", kind="server", parent="1"))]
    assert zipkin.page.copy(jaeger) == 1  # type: ignore[arg-type]
    assert [item["id"][-1] for item in zipkin.page.trace("0" * 30 + "a1")] == ["1", "1", "9"]
    assert zipkin.page.trace("f" * 32) == [] and zipkin.page.copied == 3
    assert jaeger.asked[0] == 0.0 < jaeger.asked[2] == jaeger.asked[3], "first everything, then what is new"


def test_spans_that_zipkin_refuses_are_sent_again(zipkin: Zipkin) -> None:
    jaeger = Jaeger(reviews=[trace(span("1"))])
    zipkin.status = 503
    with pytest.raises(CheckFailed, match="Zipkin answers 503: no room"):
        zipkin.page.copy(jaeger)  # type: ignore[arg-type]
    zipkin.status = 202
    assert zipkin.page.copy(jaeger) == 1  # type: ignore[arg-type]


def test_the_newest_spans_are_shown_where_there_are_too_many(zipkin: Zipkin, monkeypatch: pytest.MonkeyPatch) -> None:
    spans = [span(str(number)) for number in (1, 2, 3)]
    for age, one in enumerate(spans):
        one["startTime"] -= age
    monkeypatch.setattr(trace_page, "_KEPT", 2)
    assert zipkin.page.copy(Jaeger(reviews=[trace(*spans)])) == 2  # type: ignore[arg-type]
    assert [item["id"][-1] for item in zipkin.kept] == ["2", "1"]
    assert zipkin.page.copy(Jaeger(reviews=[trace(*spans)])) == 0  # type: ignore[arg-type]


def test_a_zipkin_that_takes_nothing_is_one_line(zipkin: Zipkin) -> None:
    page = TracePage("http://127.0.0.1:1")
    with pytest.raises(CheckFailed, match="Zipkin takes no more spans, after 0: ConnectError"):
        page.copy(Jaeger(reviews=[trace(span("1"))]))  # type: ignore[arg-type]


class Kube:
    """A cluster whose pod is Ready if `port` is given."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.done: list[str] = []

    def apply(self, text: str) -> None:
        assert "stackbook.local/zipkin:3" in text
        self.done.append("apply")

    def delete(self, text: str) -> None:
        self.done.append("delete")

    def wait_pods(self, namespace: str, selector: str, *, count: int, timeout: float) -> None:
        if not self.port:
            raise WaitTimeout("pods app=zipkin-page", 1.0, last="ImagePullBackOff")

    def explain(self, namespace: str, selector: str) -> str:
        return "the pod is gone"

    @contextlib.contextmanager
    def port_forward(self, namespace: str, target: str, port: int) -> Iterator[int]:
        assert (namespace, target, port) == ("istio-system", "pod/zipkin-page", 9411)
        yield self.port


def lab(port: int) -> Any:
    images = type(
        "Images", (), {"load": lambda self, name: 0, "reference": lambda self, name: "stackbook.local/zipkin:3"}
    )()
    return type("Lab", (), {"kube": Kube(port), "images": images})()


def test_the_pod_is_there_while_the_page_is_open(zipkin: Zipkin) -> None:
    found = lab(zipkin.server.server_address[1])
    with trace_page.running(found) as page:
        assert page.healthy() and found.kube.done == ["delete", "apply"], "what a killed command left goes first"
    assert found.kube.done == ["delete", "apply", "delete"]


def test_a_pod_that_does_not_start_is_named_and_removed() -> None:
    found = lab(0)
    with pytest.raises(WaitTimeout, match="ImagePullBackOff"), trace_page.running(found):
        raise AssertionError("the block ran")
    assert found.kube.done[-1] == "delete"


def test_a_page_whose_zipkin_is_gone_says_so(zipkin: Zipkin, monkeypatch: pytest.MonkeyPatch) -> None:
    from stackbook.core.waiting import until

    found = lab(zipkin.server.server_address[1])
    monkeypatch.setattr(trace_page, "_EVERY", 0.02)
    monkeypatch.setattr(trace_page, "Jaeger", lambda kube: contextlib.nullcontext(Jaeger(reviews=[trace(span("1"))])))
    with trace_page.following(found) as page:
        assert page.copied == 1 and page.ended() == ""
        monkeypatch.setattr(TracePage, "healthy", lambda self: False)
        until(lambda: page.ended(), what="the page to notice", timeout=10, every=0.02)
    assert page.ended().startswith("new spans cannot be copied: Zipkin does not answer")


def test_zipkin_has_memory_for_the_spans_that_it_keeps() -> None:
    """A span of a proxy has some twenty tags: 50,000 filled 256 MiB. It keeps more than are copied at once: new ones follow."""
    (container,) = next(yaml.safe_load_all(manifests.render("zipkin.yaml", image_zipkin="z")))["spec"]["containers"]
    heap = int(
        next(word for word in container["command"] if word.startswith("-Xmx")).removeprefix("-Xmx").removesuffix("m")
    )
    kept = next(int(one["value"]) for one in container["env"] if one["name"] == "MEM_MAX_SPANS")
    assert kept > trace_page._KEPT and heap * 2**20 / kept > 16_384
    assert int(container["resources"]["limits"]["memory"].removesuffix("Mi")) >= 1.5 * heap
