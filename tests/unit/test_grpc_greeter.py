"""The Greeter in Python, and the lessons that need no Go."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from stackbook.core.errors import CheckFailed
from stackbook.lessons.grpc import (
    benchmark,
    client,
    failures,
    grpc,
    guide,
    layouts,
    processes,
    reflection_health,
    retry,
    streaming_modes,
    stubs,
)
from stackbook.lessons.grpc import server as greeter_server
from stackbook.lessons.grpc.balance import Count
from stackbook.lessons.grpc.interceptors import RequestId
from stackbook.lessons.grpc.streaming_modes import Event


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with greeter_server.serving(greeter=greeter_server.Greeter(pod="here", version="v9")) as found:
        yield found


@pytest.fixture
def channel(address: str) -> Iterator[grpc.Channel]:
    with client.channel(address) as opened:
        yield opened


def test_hello_carries_who_answered_and_the_time_left(channel: grpc.Channel) -> None:
    reply, call = stubs.stub(channel).SayHello.with_call(stubs.request("Ada", padding=7), timeout=5)
    assert reply.message == "Hello Ada"
    assert (reply.server.pod, reply.server.version, reply.server.language) == ("here", "v9", "Python")
    assert reply.padding == bytes(7)
    assert 4 < reply.time_left.ToTimedelta().total_seconds() < 5.1
    assert dict(call.initial_metadata())["x-served-by"] == "greeter/v9 here"
    assert not stubs.stub(channel).SayHello(stubs.request("Ada")).HasField("time_left")


def test_the_four_kinds(channel: grpc.Channel) -> None:
    assert streaming_modes.unary(channel) == [Event("request", "Ada"), Event("reply", "Hello Ada")]
    assert [e.way for e in streaming_modes.server_stream(channel, count=2)] == ["request", "reply", "reply"]
    assert streaming_modes.client_stream(channel)[-1] == Event("reply", "Hello Ada, Bob, Cem")
    assert [e.way for e in streaming_modes.both_stream(channel, names=("a", "b"))] == ["request", "reply"] * 2 + ["end"]
    assert streaming_modes.in_words({"Say\n(x)": streaming_modes.unary(channel)}) == "Say: request Ada, reply Hello Ada"


def test_failures_have_their_codes(channel: grpc.Channel) -> None:
    assert failures.deadline(channel).code == "DEADLINE_EXCEEDED"
    assert failures.cancelled(channel).code == "CANCELLED"
    assert [f.code for f in failures.abuse(channel)] == ["INTERNAL"] * 3 + ["UNIMPLEMENTED"] * 2 + [
        "RESOURCE_EXHAUSTED"
    ] * 2
    assert failures.blamed(channel) == {"name": "must not be empty", "work": "must be between 0 and 60 s"}
    assert stubs.stub(channel).SayHello(stubs.request(), timeout=5).message == "Hello world"


def test_a_failure_must_fail(channel: grpc.Channel) -> None:
    with pytest.raises(CheckFailed, match="nothing was raised"):
        failures.status_of("fine", lambda: stubs.stub(channel).SayHello(stubs.request(), timeout=5))


def test_reflection_and_health(channel: grpc.Channel) -> None:
    assert stubs.SERVICE in reflection_health.services(channel)
    assert reflection_health.call(channel, stubs.SERVICE, "SayHello", name="x").message == "Hello x"
    with pytest.raises(KeyError):
        reflection_health.call(channel, stubs.SERVICE, "Bye")
    watch = reflection_health.watch_health(channel)
    assert next(watch) == "SERVING"


def test_the_interceptor_adds_an_id_only_where_there_is_none(channel: grpc.Channel) -> None:
    around = RequestId(lambda: "made")
    stub = stubs.stub(grpc.intercept_channel(channel, around))
    stub.SayHello(stubs.request())
    stub.SayHello(stubs.request(), metadata=(("x-request-id", "given"),))
    assert [seen[1:] for seen in around.seen] == [("made", "OK"), ("given", "OK")]


@pytest.mark.slow
def test_server_and_client_as_programs() -> None:
    with processes.python_server(version="v3") as running:
        path = os.pathsep.join(sys.path)
        argv = [sys.executable, "-m", "stackbook.lessons.grpc.client", "--target", running.address, "Bob"]
        said = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, check=False)
        assert (said.returncode, said.stdout) == (0, "Greeting: Hello Bob\n")
        assert running.wait_for(msg="call")["method"] == "/helloworld.Greeter/SayHello"
        assert client.greet(running.address).server.version == "v3"
        running.kill()
        with pytest.raises(grpc.RpcError):
            client.greet(running.address)


@pytest.mark.slow
def test_a_server_that_cannot_start_says_why() -> None:
    with (
        pytest.raises(CheckFailed, match="unrecognized arguments: --nonsense"),
        processes.python_server("--nonsense"),
    ):
        pass


def test_the_client_program_reports_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert client.main(["--target", "127.0.0.1:1", "--timeout", "5"]) == 1
    assert "could not greet: UNAVAILABLE" in capsys.readouterr().err


def test_the_service_config_of_retries() -> None:
    config = json.loads(retry.CONFIG)["methodConfig"][0]
    assert config["name"] == [{"service": "helloworld.Greeter"}]
    assert config["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE"]
    assert retry.failing(2) == (("fail-with", "UNAVAILABLE"), ("fail-attempts", "2"))


def test_fair_means_nine_tenths_of_an_equal_share() -> None:
    assert Count("Go", "round_robin", {"a": 100, "b": 90, "c": 110}).fair
    assert not Count("Go", "round_robin", {"a": 100, "b": 89, "c": 111}).fair
    assert not Count("Go", "round_robin", {"a": 150, "b": 150}).fair


def test_ratios_are_grpc_in_units_of_rest() -> None:
    rows = [
        {
            "protocol": name,
            "padding": padding,
            "calls_per_second": rate,
            "latency_ms": dict.fromkeys(benchmark.QUANTILES, milliseconds),
        }
        for padding in benchmark.LOADS
        for name, rate, milliseconds in (("gRPC", 300.0, 2.0), ("REST", 100.0, 8.0))
    ]
    for row in benchmark.ratios(rows):
        assert row["throughput"] == 3.0
        assert row["latency p99"] == 0.25


def test_the_layouts_name_each_file_once() -> None:
    for layout in layouts.LAYOUTS:
        assert tuple(layout.packages) == layouts.FILES or set(layout.packages) == set(layouts.FILES)
    assert layouts.proto_cycle() == "File recursively imports itself: one.proto -> two.proto -> one.proto"


def test_the_guides_programs_are_there_and_differ_only_in_the_dial() -> None:
    old, new = ((guide.sources() / name / "main.go").read_text() for name in guide.PROGRAMS[1:])
    assert "grpc.Dial(address, grpc.WithInsecure(), grpc.WithBlock())" in old
    changed = set(new.splitlines()) - set(old.splitlines())
    assert changed == {
        '\t"google.golang.org/grpc/credentials/insecure"',
        "\tconn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))",
    }


def test_a_go_mod_without_its_tools() -> None:
    text = "module x\n\nrequire a v1\n\ntool (\n\tb/cmd\n)\n"
    assert guide.pinned_for_guide(text) == "module x\n\nrequire a v1\n\n"
