"""Filebeat beside the lab's shipper: what is counted, compared and said, without a cluster."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from stackbook.cluster import manifests
from stackbook.core.errors import WaitTimeout
from stackbook.core.results import Result
from stackbook.observability.logs import filebeat
from stackbook.observability.logs.filebeat import Filebeat
from stackbook.observability.logs.generators import Writers

OURS = {
    "@timestamp": "2026-01-01T00:00:00.123456789Z", "message": "pulse 7", "service": "pulse",
    "kubernetes": {"pod": "pulse-a", "namespace": "logging"}, "_id": "u.pulse.t.stdout",
}  # fmt: skip
THEIRS = {
    "_msg": "pulse 7", "_time": "2026-01-01T00:00:00.123Z", "_stream": "{}", "kubernetes.pod": "pulse-a", "agent.type": "filebeat",
}  # fmt: skip


class Cluster:
    """In the place of the cluster: VictoriaLogs' answers, one after the other, the last again and again."""

    def __init__(self, *answers: str) -> None:
        self.answers, self.asked = list(answers), [""]

    def kubectl(self, *words: str, check: bool = True) -> Result:
        self.asked.append(words[-1])
        if words[0] == "logs":
            return Result(words, 0, "connection refused", "", 0.0, "here")
        text = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return Result(words, 0, text, "", 0.0, "here")


def writers() -> Writers:
    return Writers(None, "c0de", {"a": 3, "b": 2})  # type: ignore[arg-type]


def test_numbered_lines_are_counted_by_machine() -> None:
    cluster = Cluster('{"node":"a","lines":"4","numbers":"3"}\n')
    assert Filebeat(cluster).counted(writers()) == {  # type: ignore[arg-type]
        "a": {"lines": 4, "numbers": 3}, "b": {"lines": 0, "numbers": 0},
    }  # fmt: skip
    (query,) = parse_qs(urlsplit(cluster.asked[-1]).query)["query"]
    assert "run c0de line" in query and "by (node)" in query


def test_lines_that_never_come_are_counted_as_they_are() -> None:
    cluster = Cluster("", '{"node":"a","lines":"3","numbers":"3"}\n{"node":"b","lines":"1","numbers":"1"}')
    assert Filebeat(cluster).arrived(writers(), timeout=1.3)["b"] == {"lines": 1, "numbers": 1}  # type: ignore[arg-type]


def test_a_line_that_does_not_come_is_said_with_filebeats_log() -> None:
    with pytest.raises(WaitTimeout, match="connection refused"):
        Filebeat(Cluster("")).line("pulse", timeout=0.3)  # type: ignore[arg-type]


def test_one_line_side_by_side() -> None:
    rows = {
        row["field"]: (row["Fluentd"], row["Filebeat"])
        for row in filebeat.side_by_side(OURS, THEIRS, shipper="Fluentd")
    }
    assert rows["message"] == ("pulse 7", "pulse 7")
    assert rows["@timestamp"] == ("2026-01-01T00:00:00.123456789Z", "2026-01-01T00:00:00.123Z")
    assert rows["service"] == ("pulse", "") and rows["agent.type"] == ("", "filebeat")
    assert rows["kubernetes.pod"] == ("pulse-a", "pulse-a") and "_stream" not in rows


def test_our_own_lines_are_those_that_do_something() -> None:
    counted = filebeat.own_lines()
    assert 20 < counted["Filebeat"] < counted["rsyslog"]


@pytest.mark.parametrize(
    ("target", "there", "says"),
    [("cluster", (), "this cluster's are not the lab's"), ("embedded", ("victoria-logs",), "stackbook fetch filebeat builds"),
     ("embedded", ("filebeat", "victoria-logs"), "")],
)  # fmt: skip
def test_where_it_cannot_run_the_fix_is_said(target: str, there: tuple[str, ...], says: str) -> None:
    artifacts = SimpleNamespace(at_hand=lambda name: Path(name) if name in there else None)
    lab = SimpleNamespace(profile=SimpleNamespace(target=target), artifacts=artifacts)
    why = filebeat.why_not(lab)  # type: ignore[arg-type]
    assert says in why and bool(says) == bool(why)


def test_its_settings_are_yaml_and_read_what_the_kubelet_renamed() -> None:
    text = manifests.render("filebeat.yaml", pods="logging_pulse-*", image_filebeat="f:1", image_victoria_logs="v:1")
    objects = manifests.objects(text)
    assert [item["kind"] for item in objects] == ["ConfigMap", "Service", "Deployment", "DaemonSet"]
    settings = yaml.safe_load(objects[0]["data"]["filebeat.yml"])
    (source,) = settings["filebeat.inputs"]
    assert source["paths"] == ["/var/log/pods/logging_pulse-*/*/*.log", "/var/log/pods/logging_pulse-*/*/*.log.*[0-9]"]
    assert settings["fields"] == {"node": "${NODE_NAME}"}
