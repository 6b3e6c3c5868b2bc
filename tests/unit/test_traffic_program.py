"""The real load program on loopback: its pace, its end, and the table that comes of it."""

import http.server
import threading

import pytest
from gotools import MARKS
from stackbook.artifacts import go_toolchain
from stackbook.machines.transports import LocalHost
from stackbook.traffic import load_client

pytestmark = MARKS


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    (program,) = go_toolchain.toolchain().build("./cmd/load", into=tmp_path_factory.mktemp("load"))
    return load_client.FromHost(LocalHost(), str(program))


@pytest.fixture(scope="module")
def url():
    class Answers(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            user = self.headers.get("end-user")
            self.send_response(500 if user == "jason" else 200)
            self.send_header("X-Served-By", f"ratings/v{2 if user else 1} ratings-{user or 'all'}")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/ratings/0"
        server.shutdown()
        thread.join()


def test_500_requests_a_second_are_sent_in_turns(source, url):
    groups = [load_client.Group("jason", url, {"end-user": "jason"}), load_client.Group("control", url)]
    frame = load_client.send(source, load_client.Plan(groups, count=1000, rate=500, warmup=20), app="ratings")
    assert len(frame) == 1000
    assert not frame["error"].any()
    assert frame["request_id"].is_unique
    assert frame.attrs["rate"] > 480
    by_group = frame.groupby("group")[["status", "version"]].agg(lambda column: sorted(set(column)))
    assert by_group.loc["jason"].tolist() == [[500], ["v2"]]
    assert by_group.loc["control"].tolist() == [[200], ["v1"]]
    assert frame["group"].value_counts().to_dict() == {"jason": 500, "control": 500}


def test_traffic_that_flows_is_ended_with_its_block(source, url):
    plan = load_client.Plan([load_client.Group("all", url)], count=100_000, rate=200, seconds=60)
    with load_client.flowing(source, plan, lead=0.5) as flow:
        assert flow.running
    frame = flow.frame()
    assert 20 < len(frame) < 2000
    assert not frame["error"].any()


def test_requests_are_counted_while_they_flow(source, url):
    plan = load_client.Plan([load_client.Group("all", url)], count=100_000, rate=100, seconds=60, warmup=10)
    with load_client.flowing(source, plan) as flow:
        flow.more(1)
        before = flow.answered()
        flow.more(30)
        now = flow.answered()
        assert now >= before + 30 > 30
    assert len(flow.frame()) >= now
    assert flow.answered() == 0


def test_traffic_ended_at_once_does_not_run_on(source, url):
    with load_client.flowing(
        source, load_client.Plan([load_client.Group("all", url)], count=100_000, rate=50, seconds=60)
    ):
        pass
