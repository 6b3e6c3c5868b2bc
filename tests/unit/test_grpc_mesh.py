"""The Greeter in the mesh, without a mesh: its rules, what is read from logs and from curl, and the way out without one."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from stackbook.app.claim import Check
from stackbook.cluster import manifests
from stackbook.core.errors import CheckFailed, InputError, WaitTimeout
from stackbook.core.results import Result
from stackbook.lessons.grpc import deployed, mesh_lessons, stubs
from stackbook.lessons.grpc import mesh_rules as rules
from stackbook.lessons.grpc.deployed import Greeter
from stackbook.lessons.grpc.mesh_lessons import Hop
from stackbook.mesh import rules as mesh_rules


class FakeKube:
    """A cluster that answers commands from a list, and fails for all others."""

    def __init__(self, **answers: str) -> None:
        self.answers, self.asked = answers, []  # type: ignore[var-annotated]

    def _answer(self, argv: Sequence[str], text: str) -> Result:
        self.asked.append(tuple(argv))
        return Result(tuple(argv), 0, text, "", 0.01, "fake")

    def exec(self, namespace: str, target: str, *argv: str, **kwargs: Any) -> Result:
        return self._answer(argv, self.answers[argv[0].rpartition("/")[2]])

    def kubectl(self, *args: str, **kwargs: Any) -> Result:
        return self._answer(args, self.answers[args[0]])

    def pods(self, namespace: str, selector: str = "") -> list[dict[str, Any]]:
        return json.loads(self.answers["pods"])  # type: ignore[no-any-return]


def greeter(**answers: str) -> Greeter:
    return Greeter(FakeKube(**answers), "greeter")  # type: ignore[arg-type]


def test_the_tcp_service_reaches_the_same_pods_by_another_port_name() -> None:
    text = manifests.render("greeter-tcp.yaml")
    assert "name: tcp" in text and "app: greeter\n" in text and "targetPort: 50051" in text


INVENTORY = mesh_rules.Inventory(
    namespace="greeter", services={"greeter": {"app": "greeter"}}, subsets={}, external=frozenset(),
    pods=[{"app": "greeter", "version": "v1"}, {"app": "greeter", "version": "v2"}],
)  # fmt: skip


def test_the_rules_fit_what_is_deployed() -> None:
    to = mesh_rules.to("greeter", "v2")
    route = mesh_rules.route(to, fault=rules.abort("UNAVAILABLE", 50), retries=rules.retries(2))
    objects = [rules.VERSIONS, rules.FRESH, rules.routes(route), rules.only("somebody"), rules.traced()]
    mesh_rules.check([rules.FRESH], INVENTORY)
    mesh_rules.check([o for o in objects if o is not rules.FRESH], INVENTORY)
    assert {o["metadata"]["namespace"] for o in objects} == {deployed.INSIDE}


def test_a_version_that_is_not_deployed_is_refused() -> None:
    wrong = mesh_rules.split("greeter", {"v1": 50, "v3": 50})
    with pytest.raises(InputError, match="v3"):
        mesh_rules.check([rules.VERSIONS, rules.routes(mesh_rules.route(*wrong))], INVENTORY)


@pytest.mark.parametrize("code", ["OK", "unavailable", "503", ""])
def test_a_fault_has_a_failing_status(code: str) -> None:
    with pytest.raises(InputError, match="UNAVAILABLE"):
        rules.abort(code, 50)
    with pytest.raises(InputError):
        rules.abort("ABORTED", 101)


def test_no_retries_are_written_as_such() -> None:
    assert rules.retries(0) == {"attempts": 0}  # left out, Istio would try again twice
    policy = json.loads(rules.client_retries(3))["methodConfig"][0]["retryPolicy"]
    assert policy["maxAttempts"] == 3 and policy["retryableStatusCodes"] == ["UNAVAILABLE"]


SAID = """\
* Connected to greeter
> POST /helloworld.Greeter/SayHello HTTP/2
< HTTP/2 200
< content-type: application/grpc
<
< grpc-status: 0
"""


def body(message: Any) -> str:
    data = message.SerializeToString()
    return base64.b64encode(b"\0" + len(data).to_bytes(4, "big") + data).decode()


def test_a_call_by_hand_is_read_with_its_trailers() -> None:
    message = stubs.load().messages.HelloReply(message="Hello Ada")
    message.time_left.FromMilliseconds(1500)
    got = greeter(sh=f"{body(message)}\n{SAID}").by_hand("grpc-timeout: 2S")
    assert (got.status_line, got.code, got.time_left) == ("HTTP/2 200", 0, 1.5)
    assert got.headers["content-type"] == "application/grpc"


def test_a_call_by_hand_that_fails_has_its_status_or_none() -> None:
    refused = deployed.reply("", SAID.replace("grpc-status: 0", "grpc-status: 14"))
    assert refused.code == 14 and refused.time_left == 0
    broken = deployed.reply("", "* connect to greeter port 50051 failed: Connection refused")
    assert broken.code == -1 and "refused" in broken.status_line


def test_only_connections_to_the_servers_port_count() -> None:
    listed = "0 0 10.1.0.5:40000 10.1.0.7:50051\n0 0 [::ffff:10.1.0.5]:4 [::ffff:10.1.0.8]:50051\n0 0 10.1.0.5:1 10.1.0.9:80\n"
    assert greeter(ss=listed).peers() == ["10.1.0.7:50051", "10.1.0.8:50051"]


def test_lines_of_one_call_are_found_in_the_order_of_time() -> None:
    lines = [{"time": "2", "request_id": "a", "code": "OK"}, {"time": "1", "request_id": "a", "code": "Unavailable"},
             {"time": "0", "request_id": "b"}]  # fmt: skip
    found = greeter(logs="no json\n" + "\n".join(map(json.dumps, lines))).attempts("a", least=2)
    assert [line["code"] for line in found] == ["Unavailable", "OK"]


def test_lines_that_do_not_come_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deployed, "LOG_TIMEOUT", 0.1)
    with pytest.raises(WaitTimeout, match="1 lines"):
        greeter(logs='{"request_id": "a"}').attempts("a", least=2)


def test_pods_without_calls_are_counted_as_nothing() -> None:
    pods = [
        {"metadata": {"name": name, "labels": {"version": version}}}
        for name, version in (("y", "v1"), ("x", "v1"), ("z", "v2"))
    ]
    found = greeter(**{"pods": json.dumps(pods), "greeter-client": json.dumps({"by_pod": {"x": 7, "z": 3}})})
    counts = mesh_lessons.balance(found, found, 10)
    assert [len(count.calls) for count in counts] == [2] * 6
    assert mesh_lessons.everybody(counts[0], found) == {"v1 a": 7, "v1 b": 0, "v2 a": 3}


def test_protocols_are_read_from_the_sidecars_configuration() -> None:
    def listener(name: str, filter: str) -> dict[str, Any]:
        chain = {"filters": [{"name": "first"}, {"name": filter}]}
        return {"active_state": {"listener": {"name": name, "filter_chains": [chain]}}}

    def cluster(port: int, service: str, **more: Any) -> dict[str, Any]:
        return {"cluster": {"name": f"outbound|{port}||{service}.greeter.svc.cluster.local", **more}}

    both = [listener("0.0.0.0_1", "envoy.filters.network.http_connection_manager"),
            listener("10.3.0.1_2", "envoy.filters.network.tcp_proxy"),
            cluster(1, "a", typed_extension_protocol_options={"x": {"http2_protocol_options": {}}}), cluster(2, "b")]  # fmt: skip
    one = [entry for entry in both if "active_state" in entry], [entry for entry in both if "cluster" in entry]

    class Both(FakeKube):
        def exec(self, namespace: str, target: str, *argv: str, **kwargs: Any) -> Result:
            return self._answer(argv, json.dumps({"configs": one["clusters" in argv[-1]]}))

    rows = mesh_lessons.protocols(Greeter(Both(), "greeter"), {1: "a", 2: "b"})  # type: ignore[arg-type]
    assert [(row["taken in by"], row["upstream"][:6]) for row in rows] == [
        ("http_connection_manager", "HTTP/2"),
        ("tcp_proxy", "bytes,"),
    ]


def certs(*names: str) -> str:
    return json.dumps({"certificates": [{"cert_chain": [{"subject_alt_names": [{"uri": n} for n in names]}]}]})


def test_a_sidecar_has_one_identity() -> None:
    assert mesh_lessons.identity(greeter(**{"pilot-agent": certs("spiffe://a")}), "deploy/x") == "spiffe://a"
    with pytest.raises(CheckFailed, match="0 identities"):
        mesh_lessons.identity(greeter(**{"pilot-agent": certs()}), "deploy/x")


def test_hops_are_shown_by_letters_and_sampled_by_their_flag() -> None:
    hops = [Hop("client", "00-t-a-01"), Hop("sidecar", "00-t-b-01"), Hop("server", "00-t-b-00")]
    assert [row["span"] for row in mesh_lessons.hop_rows(hops)] == ["span A", "span B", "span B"]
    assert [hop.sampled for hop in hops] == [True, True, False]
    assert mesh_lessons.traced_id()[14] == "a"


class FakeLab:
    """As much of a lab as `asked_for` takes."""

    class chapter:
        id = "09-grpc"

    class profile:
        target = "embedded"

    def __init__(self, kubeconfig: Path = Path(__file__)) -> None:
        self.events: list[str] = []
        self.record, self.kubeconfig = self, kubeconfig
        self.has_turn = False
        self.checks: tuple[Check, ...] = ()

    def checks_of(self, chapter: str) -> tuple[Check, ...]:
        return self.checks

    @contextlib.contextmanager
    def turn(self, what: str) -> Iterator[None]:
        self.has_turn = True
        yield
        self.has_turn = False

    def append(self, event: str, **values: Any) -> None:
        self.events.append(event)


def test_without_a_mesh_the_second_half_says_that_it_was_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    lab = FakeLab()
    assert deployed.asked_for(lab, False) is False  # type: ignore[arg-type]
    said = capsys.readouterr().out
    assert "NOT run" in said and "✓" not in said and lab.events == ["skipped"]


def test_a_mesh_that_is_asked_for_and_not_there_is_an_error() -> None:
    def absent(lab: Any) -> str:
        assert lab.has_turn, "another chapter may restart bookinfo's pods just now"
        raise CheckFailed("not available: istiod", fix="run chapter 05")

    lab = FakeLab()
    lab.checks = (Check("istio", "Istio's components are available", absent),)
    with pytest.raises(CheckFailed, match="istiod") as caught:
        deployed.asked_for(lab, True)  # type: ignore[arg-type]
    assert "stackbook run --to 05" in str(caught.value.fix)


def test_without_a_cluster_nothing_is_asked_of_one(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match="this lab has no cluster"):
        deployed.asked_for(FakeLab(tmp_path / "kubeconfig"), True)  # type: ignore[arg-type]


@pytest.mark.parametrize("first", ["Unavailable", "Canceled"])
def test_a_deadline_that_the_server_notices_first_is_asked_again(first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [first, first, "DeadlineExceeded", "never asked"]
    monkeypatch.setattr(Greeter, "calls", lambda self, count, *flags: {"by_code": {answers.pop(0): count}})
    assert greeter().too_late("-timeout", "300ms") == {"by_code": {"DeadlineExceeded": 1}}
    answers[:] = [first] * 9
    assert greeter().too_late(tries=3) == {"by_code": {first: 1}} and len(answers) == 6


def test_a_call_that_no_server_got_before_its_deadline_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, ...]] = []
    reached = 3

    def late(self: Greeter, *flags: str) -> dict[str, Any]:
        calls.append(flags)
        return {"by_code": {"DeadlineExceeded": 1}}

    def logged(self: Greeter, request_id: str) -> list[dict[str, Any]]:
        if len(calls) < reached:
            raise WaitTimeout(request_id, 15.0)
        return [{"request_id": request_id, "code": "Canceled"}]

    monkeypatch.setattr(Greeter, "too_late", late)
    monkeypatch.setattr(Greeter, "attempts", logged)
    statuses, line = greeter().exceeded("a", "-work", "10s")
    assert statuses == {"DeadlineExceeded": 1} and line["code"] == "Canceled" and calls == [("-work", "10s")] * 3
    calls.clear()
    reached = 4
    with pytest.raises(WaitTimeout):
        greeter().exceeded("a")
    assert len(calls) == 3
