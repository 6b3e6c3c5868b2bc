"""Filebeat beside the lab's shipper, and the two compared: the same line as each stores it, lines lost, memory, and our own lines.

Filebeat 7.17 sends to VictoriaLogs, which takes Elasticsearch's bulk requests. It cannot send to an Elasticsearch that is made of
Maven's files alone: before it sends, it asks for `/`, which is a module of the official image.

https://www.elastic.co/guide/en/beats/filebeat/7.17/filebeat-input-filestream.html,
https://docs.victoriametrics.com/victorialogs/data-ingestion/filebeat/
"""

from __future__ import annotations

import contextlib
import json
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stackbook.cluster import manifests
from stackbook.core import yaml_text
from stackbook.core.errors import WaitTimeout
from stackbook.core.waiting import until
from stackbook.observability.logs import rsyslog_config, shipper_script
from stackbook.observability.logs.credentials import NAMESPACE, server

if TYPE_CHECKING:
    from stackbook.cluster.kube import Kube
    from stackbook.lab.lab import Lab
    from stackbook.observability.logs.generators import Writers

COMPONENT = "filebeat"
_PROXY = f"/api/v1/namespaces/{NAMESPACE}/services/victoria-logs:9428/proxy/select/logsql/query"


@dataclass(frozen=True)
class Filebeat:
    """Running Filebeats, one on each machine, and what they have sent."""

    kube: Kube

    def query(self, text: str) -> list[dict[str, Any]]:
        """The answer of VictoriaLogs to a query in LogsQL, as rows; it is asked through the API server.

        Raises:
            CommandFailed: it does not answer.
        """
        answer = self.kube.kubectl("get", "--raw", f"{_PROXY}?{urllib.parse.urlencode({'query': text})}")
        return [json.loads(line) for line in answer.lines if line.strip()]

    def line(self, text: str, *, timeout: float = 60.0) -> dict[str, Any]:
        """The newest stored line that contains this text, as soon as there is one.

        Raises:
            WaitTimeout: there is none in time; the error has the end of Filebeat's log.
        """
        found = until(
            lambda: self.query(f"{json.dumps(text)} | sort by (_time) desc limit 1"),
            what=f"a line with {text!r} from Filebeat",
            timeout=timeout,
            every=0.5,
            cause=self.said,
        )
        return found[0]

    def counted(self, writers: Writers) -> dict[str, dict[str, int]]:
        """Machine → how many of the numbered lines are stored (`lines`), and how many numbers there are among them (`numbers`)."""
        text = f'"run {writers.run} line" | extract "line <number> " from _msg | stats by (node) count() lines, count_uniq(number) numbers'
        found = {row["node"]: {name: int(row[name]) for name in ("lines", "numbers")} for row in self.query(text)}
        return {node: found.get(node, {"lines": 0, "numbers": 0}) for node in writers.share}

    def arrived(self, writers: Writers, *, timeout: float = 120.0) -> dict[str, dict[str, int]]:
        """What `counted` says once all numbers are stored, or at the deadline."""
        counted: dict[str, dict[str, int]] = {}

        def all_of_them() -> bool:
            nonlocal counted
            counted = self.counted(writers)
            return all(counted[node]["numbers"] >= count for node, count in writers.share.items())

        with contextlib.suppress(WaitTimeout):
            until(all_of_them, what="the numbered lines from Filebeat", timeout=timeout, every=1)
        return counted

    def said(self) -> str:
        """The end of the Filebeats' logs, or what keeps them from running."""
        lines = self.kube.kubectl("logs", "-n", NAMESPACE, "-l", "app=filebeat", "--tail=3", check=False).stdout.strip()
        return lines or self.kube.explain(NAMESPACE, "app in (filebeat,victoria-logs)")


def why_not(lab: Lab) -> str:
    """Why it cannot run here, with the fix; empty if it can. Nothing is built for it, because that takes minutes."""
    if lab.profile.target == "cluster":
        return "Filebeat reads the log files of machines, and this cluster's are not the lab's: the chapter goes on without it"
    missing = [name for name in (COMPONENT, "victoria-logs") if lab.artifacts.at_hand(name) is None]
    if missing:
        fetch = f"stackbook fetch {' '.join(missing)}"
        return f"Filebeat is not built yet, and the chapter goes on without it: {fetch} builds it"
    return ""


@contextlib.contextmanager
def running(lab: Lab, *, pods: str = "*", timeout: float = 120.0) -> Iterator[Filebeat]:
    """Run Filebeat on every machine and VictoriaLogs while the block runs; both are deleted afterwards.

    Args:
        lab: the lab; its shipper runs already.
        pods: of which pods it reads the log files, as a pattern for folders in /var/log/pods: NAMESPACE_POD_UID.
        timeout: deadline in seconds.

    Raises:
        WaitTimeout: a pod is not Ready in time; the error says why.
    """
    lab.images.load("filebeat", "victoria-logs")
    text = manifests.render(
        "filebeat.yaml", pods=pods, image_filebeat=lab.images.reference("filebeat"),
        image_victoria_logs=lab.images.reference("victoria-logs"),
    )  # fmt: skip
    try:
        lab.kube.apply(text)
        for workload in ("deployment/victoria-logs", "daemonset/filebeat"):
            lab.kube.wait_rollout(NAMESPACE, workload, timeout=timeout)
        yield Filebeat(lab.kube)
    finally:
        lab.kube.delete(text)


def own_lines() -> dict[str, int]:
    """Shipper → lines of our own that it needs: configuration and scripts, without empty lines and comments."""
    (settings,) = (
        item["data"]["filebeat.yml"]
        for item in yaml_text.load_all(
            manifests.render("filebeat.yaml", pods="*", image_filebeat="x", image_victoria_logs="x")
        )
        if item["kind"] == "ConfigMap"
    )
    texts = {"rsyslog": rsyslog_config.render(server=server(), port=9200) + shipper_script.SCRIPT, "Filebeat": settings}
    return {name: sum(bool(line.strip()) and not line.lstrip().startswith("#") for line in text.splitlines())
            for name, text in texts.items()}  # fmt: skip


def flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A document with a dotted name for each field.

    >>> flat({"message": "x", "log": {"file": {"path": "/a"}}})
    {'message': 'x', 'log.file.path': '/a'}
    """
    found: dict[str, Any] = {}
    for name, value in document.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found


def side_by_side(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], *, shipper: str = "rsyslog"
) -> list[dict[str, str]]:
    """One line as both shippers store it, a row for each field: field, the lab's shipper, Filebeat; empty where there is none.

    Args:
        ours: the document in Elasticsearch, with `_id`.
        theirs: the line in VictoriaLogs, which keeps the text in `_msg` and the time in `_time`.
        shipper: the name of the lab's shipper.
    """
    stored = {"_msg": "message", "_time": "@timestamp"}
    left = {name: str(value) for name, value in flat(ours).items()}
    right = {
        stored.get(name, name): str(value) for name, value in theirs.items() if name not in ("_stream", "_stream_id")
    }
    names = [
        *(n for n in left if n in right),
        *(n for n in left if n not in right),
        *(n for n in right if n not in left),
    ]
    return [{"field": name, shipper: left.get(name, ""), "Filebeat": right.get(name, "")} for name in names]
