"""The traffic table, without a lab: a strict fake source, and the report and plan that the Go test reads too."""

import json
import threading
from pathlib import Path

import pytest
from stackbook.core.errors import CommandFailed, InputError, StackbookError
from stackbook.core.results import Result
from stackbook.machines.transports import LocalHost
from stackbook.traffic import load_client

DATA = Path(__file__).parents[2] / "lib/apps/cmd/load/testdata"
IDS = "0123456789abcdef01"
PLAN = load_client.Plan(
    [
        load_client.Group("jason", "http://127.0.0.1:9080/reviews/0", {"end-user": "jason"}),
        load_client.Group("control", "http://127.0.0.1:9080/reviews/0"),
    ],
    count=200,
    rate=500,
    seconds=30,
    warmup=10,
)


class Scripted:
    """A source that accepts exactly the runs it was told of."""

    def __init__(self, report: str) -> None:
        self.report, self.stopped, self.plans = report, threading.Event(), []
        self.answers = iter([0, 0, 3, 7, 8])

    def run(self, *args, stdin=None, timeout=60.0):
        if args[0] == "stop":
            self.stopped.set()
        elif args[0] == "answered":
            assert all(args[1:] == (plan["ids"],) for plan in self.plans)  # it may be asked before it has started
            return Result(args, 0, f"{next(self.answers)}\n", "", 0.0)
        elif args[0] == "run":
            self.plans.append(json.loads(stdin))
            assert args[1:] == (self.plans[-1]["ids"],)
            assert self.stopped.wait(10) or True
            return Result(args, 0, self.report, "", 0.1)
        else:
            raise AssertionError(args)
        return Result(args, 0, "", "", 0.0)


def lines(*changes: dict, **summary) -> str:
    base = {"group": "a", "at": 0.5, "seconds": 0.01, "status": 200, "error": "", "id": "x", "served": [], "pod": ""}
    rows = [json.dumps({"n": n, **base, **change}) for n, change in enumerate(changes)]
    end = {"began": 1.0, "sent": len(changes), "seconds": 2.0, "late": 0.0, "stopped": False, **summary}
    return "\n".join([*rows, json.dumps({"summary": end})])


def test_the_plan_is_the_one_that_the_program_reads():
    assert json.loads(PLAN.text(IDS)) == json.loads((DATA / "plan.json").read_text())


def test_the_report_of_the_program_becomes_a_tidy_table():
    frame = load_client.parse((DATA / "report.jsonl").read_text(), app="reviews")
    assert list(frame.columns) == list(load_client.COLUMNS)
    assert list(frame["started"]) == sorted(frame["started"])
    assert list(frame["version"]) == ["v3", "", "v1"]
    assert list(frame["served_by"]) == ["reviews-v3-7d5f-x", "", "reviews-v1-5b4c-y"]
    assert list(frame["status"]) == [200, 0, 500]
    assert frame.attrs["rate"] == pytest.approx(3 / 0.5)


def test_without_an_app_the_nearest_service_counts():
    frame = load_client.parse((DATA / "report.jsonl").read_text())
    assert list(frame["version"]) == ["v1", "", "v1"]


def test_the_samples_own_podname_tells_the_version_too():
    report = lines({"pod": "reviews-v2-6f9b-z"}, {"pod": "strange"})
    assert list(load_client.parse(report, app="reviews")["version"]) == ["v2", ""]
    assert list(load_client.parse(report, app="ratings")["version"]) == ["", ""]


def test_the_generators_own_failures_do_not_count():
    report = lines({"status": 0, "error": "client: out of ports"}, {"status": 0, "error": "refused"}, {"status": 503})
    frame = load_client.parse(report)
    assert list(load_client.own_errors(frame)) == [True, False, False]
    assert list(load_client.from_mesh(frame)["error"]) == ["refused", ""]


@pytest.mark.parametrize(
    "broken",
    ["", "\n", "{", '{"n": 0}', lines({}, sent=2), lines({"at": None}), lines({}).replace('"n"', '"m"'), '[1]\n"x"'],
)
def test_a_report_that_is_not_whole_is_an_error(broken):
    with pytest.raises(StackbookError, match="incomplete"):
        load_client.parse(broken)


def test_flags_are_joined_by_the_request_id_but_for_the_digit_that_envoy_changes():
    sent = "01234567-89ab-4cde-8f01-00000000000"
    seen = "01234567-89ab-9cde-8f01-00000000000"
    frame = load_client.parse(lines({"id": sent + "1"}, {"id": sent + "2"}, {"id": sent + "3"}))
    log = [
        json.dumps({"request_id": seen + "1", "response_flags": "DI,FI"}),
        json.dumps({"request_id": seen + "1", "response_flags": "-"}),
        json.dumps({"request_id": sent + "2", "response_flags": None}),
        "2026-01-01T00:00:00Z info Envoy proxy is ready",
        "[]",
    ]
    assert list(load_client.with_flags(frame, log)["flags"]) == ["DI,FI", "-", ""]


def test_traffic_flows_while_the_block_runs_and_is_stopped_after_an_error_too():
    source = Scripted(lines({}, {}))
    with pytest.raises(KeyboardInterrupt), load_client.flowing(source, PLAN) as flow:
        assert flow.running
        raise KeyboardInterrupt
    assert source.stopped.is_set()
    assert len(flow.frame()) == 2
    assert len({plan["ids"] for plan in source.plans}) == 1


def test_requests_are_waited_for_by_their_number_not_by_the_clock():
    source = Scripted(lines({}, {}))
    with load_client.flowing(source, PLAN) as flow:
        flow.more(5)
        assert flow.answered() == 8
    assert source.stopped.is_set()


def test_traffic_that_ends_before_the_requests_that_are_waited_for_is_an_error():
    source = Scripted(lines({}, {}))
    with load_client.flowing(source, PLAN) as flow:
        source.stopped.set()
        with pytest.raises(StackbookError, match="ended after 2 requests, while 5 more were expected"):
            flow.more(5)


def test_each_run_has_ids_of_its_own():
    source = Scripted(lines({}))
    source.stopped.set()
    for _ in range(3):
        load_client.send(source, PLAN)
    assert len({plan["ids"] for plan in source.plans}) == 3


def test_a_failing_program_is_not_an_empty_table(tmp_path):
    program = tmp_path / "load"
    program.write_text("#!/bin/sh\necho load: broken >&2\nexit 1\n")
    program.chmod(0o755)
    with pytest.raises(CommandFailed, match="broken"):
        load_client.send(load_client.FromHost(LocalHost(), str(program)), PLAN)


def test_in_the_mesh_it_is_run_by_exec():
    calls = []

    class Kube:
        def exec(self, namespace, target, *argv, **options):
            calls.append((namespace, target, argv, options["container"]))
            return Result(argv, 0, lines({}), "", 0.1)

    load_client.send(load_client.FromPod(Kube(), "default", "deploy/load"), PLAN)
    ((namespace, target, argv, container),) = calls
    assert (namespace, target, argv[:2], container) == (
        "default",
        "deploy/load",
        ("/usr/local/bin/load", "run"),
        "load",
    )


@pytest.mark.parametrize(
    "change",
    [
        {"count": 0}, {"count": 10**6}, {"count": 2.5}, {"count": True}, {"rate": -1}, {"rate": float("nan")},
        {"rate": "500"}, {"seconds": 0}, {"seconds": 3600}, {"concurrency": 500}, {"timeout": 0}, {"warmup": -1},
        {"groups": []}, {"groups": [load_client.Group("a", "ftp://x/")]}, {"groups": [load_client.Group("a", "http:///x")]},
        {"groups": [load_client.Group("a", "http://h/"), load_client.Group("a", "http://h/")]},
    ],
)  # fmt: skip
def test_a_plan_out_of_bounds_is_refused_with_its_fix(change):
    with pytest.raises(InputError) as caught:
        load_client.Plan(**{"groups": PLAN.groups, "count": 1, **change})
    assert caught.value.fix
