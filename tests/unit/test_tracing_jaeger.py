"""The handle on Jaeger, against a small HTTP server that speaks its API."""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
from stackbook.core.errors import CheckFailed, TransportError, WaitTimeout
from stackbook.observability.tracing import Jaeger, spans
from test_tracing_spans import REQUEST, TRACE, good


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        if self.server.broken:
            self.server.broken -= 1
            self.connection.close()
            return
        at = urlsplit(self.path)
        status, body = 200, json.dumps({"data": self.server.answers.get(at.path, None)})
        if "status" in self.server.answers:
            status = self.server.answers["status"]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.daemon_threads = True
    made.asked, made.answers, made.broken = [], {}, 0
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


class Kube:
    def __init__(self, server):
        self.server, self.opened, self.closed, self.refused = server, [], 0, 0

    @contextlib.contextmanager
    def port_forward(self, namespace, target, port, *, timeout=20.0):
        if self.refused and self.opened:
            self.refused -= 1
            raise WaitTimeout("port-forward", 0.1, last="pod is not running")
        self.opened.append((namespace, target, port))
        try:
            yield self.server.server_address[1]
        finally:
            self.closed += 1


def test_the_handle_opens_a_port_and_closes_it(server):
    kube = Kube(server)
    server.answers["/jaeger/api/services"] = ["b", "a"]
    with Jaeger(kube) as jaeger:
        assert jaeger.services() == ["a", "b"]
        assert kube.opened == [("istio-system", "svc/tracing", 80)] and not kube.closed
    assert kube.closed == 1


def test_a_way_that_is_cut_is_opened_anew_until_the_pod_is_back(server):
    kube = Kube(server)
    server.answers["/jaeger/api/services"] = ["a"]
    with Jaeger(kube) as jaeger:
        server.broken = 1
        assert jaeger.services() == ["a"]
        assert len(kube.opened) == 2 and kube.closed == 1
        server.broken, kube.refused = 2, 1
        assert jaeger.services() == ["a"]
        assert server.broken == kube.refused == 0
    assert kube.closed == len(kube.opened)


def test_one_that_stays_away_is_said_in_one_line(server):
    server.broken = 1000
    with (
        Jaeger(Kube(server), back=0.7) as jaeger,
        pytest.raises(TransportError, match=r"/services to Jaeger failed: .* — check its pod") as said,
    ):
        jaeger.services()
    assert "\n" not in str(said.value) and server.broken >= 990


def test_an_error_is_no_empty_answer(server):
    server.answers["status"] = 500
    with Jaeger(Kube(server)) as jaeger, pytest.raises(CheckFailed, match="500"):
        jaeger.find("a", since=0)


def test_a_search_says_what_it_wants_and_never_takes_a_part_for_the_whole(server):
    server.answers["/jaeger/api/traces"] = good()
    with Jaeger(Kube(server)) as jaeger:
        frame = jaeger.find("reviews.default", since=10, until=20, tags={"response_flags": "FI"}, limit=5)
        query = parse_qs(urlsplit(server.asked[-1]).query)
        assert query["start"] == ["10000000"] and query["end"] == ["20000000"]
        assert json.loads(query["tags"][0]) == {"response_flags": "FI"} and len(frame) == 4
        with pytest.raises(CheckFailed, match="4 traces or more"):
            jaeger.find("reviews.default", since=10, limit=4)


def test_traces_are_asked_for_by_hundreds(server):
    with Jaeger(Kube(server)) as jaeger:
        jaeger.traces(str(n) for n in range(250))
    assert [path.count("traceID=") for path in server.asked] == [100, 100, 50]


def test_a_wait_says_what_is_there(server):
    server.answers["/jaeger/api/traces"] = good()
    with Jaeger(Kube(server)) as jaeger:
        assert len(jaeger.wait([TRACE], lambda frame: len(frame) == 4, what="four")) == 4
        with pytest.raises(WaitTimeout, match="4 spans of 1 traces"):
            jaeger.wait([TRACE], lambda frame: len(frame) == 5, what="five", timeout=0.3)


def test_spans_of_requests_are_kept_with_their_whole_traces(server):
    server.answers |= {"/jaeger/api/traces": good(), "/jaeger/api/services": ["load.default", "reviews.default"]}
    with Jaeger(Kube(server)) as jaeger:
        assert len(spans(jaeger, since=0)) == 4
        assert len(spans(jaeger, since=0, request_ids=[REQUEST])) == 4
        assert spans(jaeger, since=0, request_ids=["other"]).empty
        assert len(spans(jaeger, since=0, services=["load.default"])) == 4
