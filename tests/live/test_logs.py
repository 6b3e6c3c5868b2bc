"""Logs on the live lab: what should be noticed is, and what was broken loses nothing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import pytest
import shippers
from stackbook.app import checks
from stackbook.app.claim import Check
from stackbook.cluster import crash
from stackbook.core.errors import CheckFailed, WaitTimeout
from stackbook.core.redact import Secret
from stackbook.core.waiting import pause, until
from stackbook.lab.lab import Lab
from stackbook.observability.logs import (
    access_control,
    client,
    deploy,
    faults,
    filebeat,
    generators,
    loss_accounting,
    queries,
    rsyslog_config,
    shipper_script,
)
from stackbook.observability.logs.credentials import NAMESPACE, server

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def logs(lab: Lab) -> Iterator[Lab]:
    deploy.start(lab, heap_mb=512)
    deploy.wait_started(lab)
    with client.opened(lab.kube) as store:
        deploy.template(store)
    deploy.ship(lab, retention_days=7)
    with client.opened(lab.kube) as store:
        loss_accounting.wait_current(lab.kube, store, timeout=120)
    yield lab


def claim(id: str) -> Check:
    return next(check for check in checks.of("12-logs") if check.id == id)


@contextlib.contextmanager
def in_vain(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The newest lines are waited for in vain while the block runs: a few seconds will do."""
    wait = loss_accounting.wait_current
    with monkeypatch.context() as patch:
        patch.setattr(loss_accounting, "wait_current", lambda kube, store, *, timeout: wait(kube, store, timeout=4))
        yield


def wait_behind(lab: Lab, node: str) -> None:
    """Wait until the newest line of a machine is too old for the claim."""
    with client.opened(lab.kube) as store:
        until(lambda: any(row["node"] == node and row["missing since"] for row in loss_accounting.behind(lab.kube, store, limit=6)),
              what=f"lines of {node} are missing", timeout=30)  # fmt: skip


@contextlib.contextmanager
def elasticsearch(lab: Lab, change: str, back: str) -> Iterator[None]:
    """A command in Elasticsearch's pod, and another that takes it back."""
    shell = ("elasticsearch-0", "sh", "-c")
    lab.kube.exec(NAMESPACE, *shell, change, container="elasticsearch")
    try:
        yield
    finally:
        lab.kube.exec(NAMESPACE, *shell, back, container="elasticsearch")


def test_the_claims_hold(logs: Lab) -> None:
    assert [check.prove(logs) != "" for check in checks.of("12-logs")] == [True] * 3


def test_a_shipper_stopped_on_one_machine_is_noticed_and_loses_nothing(
    logs: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = deploy.shippers(logs.kube)[-1]
    began = time.time()

    def signal(name: str) -> None:
        logs.kube.exec(NAMESPACE, row["pod"], "sh", "-c", f"kill -{name} $(pidof rsyslogd)")

    signal("STOP")
    try:
        wait_behind(logs, row["node"])
        with (
            in_vain(monkeypatch),
            pytest.raises(WaitTimeout, match=rf"{row['node']}: lines missing since \d\d:\d\d:\d\d") as caught,
        ):
            claim("current").prove(logs)
        others = [r["node"] for r in deploy.shippers(logs.kube) if r["node"] != row["node"]]
        assert not [name for name in others if f"{name}: lines missing" in str(caught.value)]
    finally:
        signal("CONT")
    with client.opened(logs.kube) as store:
        assert loss_accounting.wait_whole(logs.kube, store, began - 5) == []
        found = loss_accounting.pulses(store, began - 5, time.time())
    assert set(found["node"]) == {row["node"], *others}


def configured(lab: Lab, old: str, new: str) -> dict[str, Any]:
    """The shippers' ConfigMap with one change."""
    text = rsyslog_config.render(server=server(), port=9200)
    assert text.count(old) == 1
    data = {"rsyslog.conf": text.replace(old, new), "run.sh": shipper_script.SCRIPT}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "shipper", "namespace": NAMESPACE},
        "data": data,
    }


@contextlib.contextmanager
def shipper_with(lab: Lab, old: str, new: str) -> Iterator[None]:
    """Shippers with one change of their configuration."""
    if deploy.flavour(lab) != "rsyslog":
        pytest.skip("the change is one of rsyslog's configuration")
    try:
        lab.kube.apply(configured(lab, old, new))
        deploy.restart(lab.kube, "shipper")
        yield
    finally:
        same = "set $.open = 0;"
        lab.kube.apply(configured(lab, same, same))
        deploy.restart(lab.kube, "shipper")


@pytest.mark.more
def test_a_line_dropped_on_purpose_is_missed_by_its_number(logs: Lab) -> None:
    drop = 'if $msg contains " line 77 " then stop\n  set $.path'
    with shipper_with(logs, "set $.path", drop), generators.numbered(logs, 2000, seconds=4) as pods:
        with client.opened(logs.kube) as store:
            until(
                lambda: store.count(loss_accounting.lines_of(pods)) >= 1998,
                what="the other lines are found",
                timeout=120,
            )
            found = loss_accounting.wait_arrived(store, pods, quiet=3)
        assert loss_accounting.problems(found, pods.share) == [
            f"{node}: 1 of 1000 lines missing: 77" for node in pods.share
        ]


@pytest.mark.more
def test_torn_stack_traces_are_seen(logs: Lab) -> None:
    """A shipper that does not know what continues a trace makes a document of each line."""
    never = rsyslog_config.CONTINUES.replace("\\", "\\\\")
    with (
        shipper_with(logs, f"(re_match($.rest, '{never}')", "(re_match($.rest, '^never')"),
        generators.traces(logs) as pod,
    ):
        mine = queries.term("kubernetes.pod", pod)
        with client.opened(logs.kube) as store:
            until(lambda: store.count(mine) > 7, what="the lines of the traces can be found", timeout=40)
            messages = [document["message"] for document in store.documents(mine)]
    assert generators.JAVA not in messages


def test_a_wrong_password_is_said_in_one_line(logs: Lab) -> None:
    with (
        pytest.raises(CheckFailed, match="refuses elastic: wrong password"),
        client.opened(logs.kube, password=Secret("not-this-one")),
    ):
        pass


@pytest.mark.more
def test_shippers_that_are_locked_out_fail_the_claim(logs: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    with faults.locked_out(logs.kube):
        wait_behind(logs, deploy.shippers(logs.kube)[0]["node"])
        with in_vain(monkeypatch), pytest.raises(WaitTimeout, match="refuses"):
            claim("current").prove(logs)
    with client.opened(logs.kube) as store:
        loss_accounting.wait_current(logs.kube, store, timeout=120)


@pytest.mark.more
def test_a_shipper_that_may_read_fails_the_claim(logs: Lab) -> None:
    with elasticsearch(logs, "sed -i s/create_doc/all/ config/roles.yml", "cp /settings/roles.yml config/"):
        until(lambda: access_control.unguarded(logs.kube), what="the shipper may read", timeout=20)
        with pytest.raises(CheckFailed, match="the shipper reads"):
            claim("guarded").prove(logs)
    until(lambda: not access_control.unguarded(logs.kube), what="the shipper may only add", timeout=20)


@pytest.mark.more
def test_a_retention_that_does_not_run_fails_the_claim(logs: Lab) -> None:
    def suspended(value: str) -> None:
        logs.kube.kubectl("patch", "cronjob", "retention", "-n", NAMESPACE, "-p", f'{{"spec":{{"suspend":{value}}}}}')

    suspended("true")
    try:
        with pytest.raises(CheckFailed, match="old indices"):
            claim("kept").prove(logs)
    finally:
        suspended("false")


@pytest.mark.more
def test_a_shipper_killed_outright_loses_nothing(logs: Lab) -> None:
    with generators.numbered(logs, 4000, seconds=8) as pods:
        with client.opened(logs.kube) as store:
            until(lambda: store.count(loss_accounting.lines_of(pods)), what="the first lines are found", timeout=40)
            for pod in logs.kube.pods(NAMESPACE, "app=shipper"):
                crash.lose(logs.kube, logs.machines, pod)
            pause(1)
            logs.kube.wait_rollout(NAMESPACE, "daemonset/shipper")
            found = loss_accounting.wait_arrived(store, pods)
        assert loss_accounting.problems(found, pods.share) == []


@pytest.mark.more
def test_a_shipper_ended_in_good_order_while_nobody_takes_its_lines_loses_nothing(logs: Lab) -> None:
    """The lines are long: what it has in hand for one request is megabytes."""
    with generators.numbered(logs, 600, seconds=3, filled=0.9) as pods:
        with client.opened(logs.kube) as store:
            until(lambda: store.count(loss_accounting.lines_of(pods)), what="the first lines are found", timeout=40)
        with deploy.away(logs.kube):
            deploy.restart(logs.kube, "shipper")
        with client.opened(logs.kube) as store:
            found = loss_accounting.wait_arrived(store, pods)
        assert loss_accounting.problems(found, pods.share) == []


@contextlib.contextmanager
def no_shipper(lab: Lab) -> Iterator[None]:
    """No machine has a shipper while the block runs."""

    def on(label: str) -> None:
        patch = f'{{"spec":{{"template":{{"spec":{{"nodeSelector":{{"stackbook.lab/nowhere":{label}}}}}}}}}}}'
        lab.kube.kubectl("patch", "daemonset", "shipper", "-n", NAMESPACE, "-p", patch)

    on('"yes"')
    try:
        until(lambda: not lab.kube.pods(NAMESPACE, "app=shipper"), what="the shippers are gone", timeout=60)
        yield
    finally:
        on("null")
        lab.kube.wait_rollout(NAMESPACE, "daemonset/shipper")


@pytest.mark.more
def test_a_shipper_away_until_the_kubelet_compresses_a_log_loses_nothing(logs: Lab) -> None:
    """What the kubelet does at a log's second rotation is done here by hand; the logs are too small for it to rotate them too."""
    with contextlib.ExitStack() as stack:
        with no_shipper(logs):
            pods = stack.enter_context(generators.numbered(logs, 2000, seconds=2, filled=0.5))
            for node, count in pods.share.items():
                until(lambda: pods.pod(node)["status"]["phase"] == "Running", what="it writes", timeout=40)  # noqa: B023
                pod = pods.pod(node)["metadata"]
                folder = f"/var/log/pods/{NAMESPACE}_{pod['name']}_{pod['uid']}/lines"
                written = ["grep", "-c", "line", f"{folder}/0.log"]
                until(lambda: logs.machines[node].run(written, check=False).stdout.strip() == str(count),  # noqa: B023
                      what=f"{count} lines are written", timeout=40)  # fmt: skip
                logs.machines[node].run(["sh", "-c", f"cd {folder} && mv 0.log 0.log.20261123-000000 && gzip 0.log.*"])
        with client.opened(logs.kube) as store:
            found = loss_accounting.wait_arrived(store, pods)
        assert loss_accounting.problems(found, pods.share) == []


@pytest.mark.more
def test_a_log_rotated_behind_deleted_ones_is_seen_all_the_same(logs: Lab) -> None:
    """imfile lets go of deleted files one by one, 6 s each, before it sees what was rotated: for these it would take 4 min."""
    if deploy.flavour(logs) != "rsyslog":
        pytest.skip("it is imfile that does not see it")
    shipper = logs.kube.pods(NAMESPACE, "app=shipper")[0]
    pod, machine = shipper["metadata"], logs.machines[shipper["spec"]["nodeName"]]
    folder = f"/var/log/pods/{NAMESPACE}_{pod['name']}_{pod['uid']}"  # of a pod that lives: in it, the kubelet removes nothing
    name = f"by-hand-{time.time_ns()}"
    write = f"""write() {{ for i in $(seq "$2"); do echo "$(date -u +%FT%T.%N)Z stdout F $3 $i"; done >> {folder}/$1/0.log; }}"""
    rotated = [f"{name}-{number}" for number in (10, 31, 52)]  # in whatever order imfile has them, one is behind others

    def found() -> int:
        return store.count({"prefix": {"kubernetes.container": name}})

    def said() -> list[str]:
        return logs.kube.kubectl("logs", "-n", NAMESPACE, pod["name"]).lines

    def restarts() -> int:  # for these, or for the log of a pod that came meanwhile and was behind them, too
        return sum("rsyslogd does not see" in line for line in said())

    before = restarts()
    try:
        machine.run(
            [
                "sh",
                "-c",
                f"{write}; cd {folder}; for n in $(seq 10 52); do mkdir {name}-$n; write {name}-$n 1 before; done",
            ]
        )
        with client.opened(logs.kube) as store:
            until(lambda: found() == 43, what="all are read", timeout=60)
            machine.run(["sh", "-c", f"""{write}; cd {folder}
                for n in $(seq 10 52); do case $n in 10|31|52) ;; *) rm -r {name}-$n ;; esac; done
                for f in {" ".join(rotated)}; do mv $f/0.log $f/0.log.20261126-000000; write $f 50 after; done"""])  # fmt: skip
            until(lambda: found() == 43 + 150, what="what was written after the rotation is found", timeout=60,
                  last=lambda: f"{found()} lines of 193", cause=lambda: "\n".join(said()[-3:]))  # fmt: skip
        assert restarts() > before, "\n".join(said()[-10:])
    finally:
        machine.run(["sh", "-c", f"rm -rf {folder}/{name}*"])


def test_the_witnesses_together_take_at_most_2_5_gib(logs: Lab) -> None:
    """What the chapters 10 to 12 add to the lab: Prometheus, Jaeger, Elasticsearch and the shippers."""
    added = {"prometheus": 0, "jaeger": 0, "java": 0, "rsyslogd": 0}
    for host in logs.machines.values():
        for line in host.run(["ps", "-eo", "pss=,comm="]).lines:
            size, _, name = line.strip().partition(" ")
            if name.strip() in added:
                added[name.strip()] += int(size) * 1024
    assert added["java"] > 200 * 2**20 and added["rsyslogd"] > 0, added
    assert sum(added.values()) < 2.5 * 2**30, added


@pytest.mark.more
def test_neither_shipper_loses_a_line(logs: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    """Filebeat and rsyslog carry the same lines over a rotation and a crash of both: docs/decisions/0031 has the figures."""
    if reason := filebeat.why_not(logs):
        pytest.skip(reason)
    with filebeat.running(logs, pods="logging_lines-*") as other, generators.numbered(logs, 20_000) as writers:
        until(lambda: all(row["numbers"] for row in other.counted(writers).values()), what="the first lines from Filebeat", timeout=60,
              cause=other.said)  # fmt: skip
        shippers.kill(logs)
        writers.wait_rotated()
        with client.opened(logs.kube) as store:
            found = loss_accounting.wait_arrived(store, writers)
        theirs = other.arrived(writers)
        memory, twice = shippers.resident(logs), loss_accounting.statistics(logs.kube)
    with capsys.disabled():
        print(f"\nsent twice: rsyslog {({node: row['duplicates'] for node, row in twice.items()})}, "
              f"Filebeat {({node: row['lines'] - row['numbers'] for node, row in theirs.items()})}; "
              f"MB: {memory}; our lines: {filebeat.own_lines()}")  # fmt: skip
    assert loss_accounting.problems(found, writers.share) == []
    assert {node: row["numbers"] for node, row in theirs.items()} == writers.share
    for node in writers.share:
        assert 0 < memory["rsyslog"][node] < memory["Filebeat"][node]
