"""A page for the logs where Kibana cannot be had: VictoriaLogs on loopback, with the lines that Elasticsearch has.

As with Kibana, a line comes from the shipper by way of Elasticsearch, so the page shows neither more nor less than Elasticsearch
has. It is a process of this host, with its data in a temporary folder, and ends with the command that opened it.

https://docs.victoriametrics.com/victorialogs/data-ingestion/#json-stream-api
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import httpx

from stackbook.artifacts import go_toolchain
from stackbook.core import temp_dirs
from stackbook.core.child_processes import end, free_port
from stackbook.core.errors import CheckFailed, StackbookError
from stackbook.core.waiting import beside, until
from stackbook.observability.logs.client import INDICES, Store, opened, started

if TYPE_CHECKING:
    from stackbook.cluster.kube import Kube

COMPONENT = "victoria-logs"
PATH = "/select/vmui/"
STREAM = ("service", "kubernetes.namespace", "kubernetes.pod", "kubernetes.container")
"""The fields by which VictoriaLogs groups lines."""
_FIELDS = {"_stream_fields": ",".join(STREAM), "_time_field": "@timestamp", "_msg_field": "message"}
_AT_ONCE, _OVERLAP, _EVERY = 5000, 2000, 2.0
_SETTINGS = ("-retentionPeriod=10y", "-futureRetention=1d", "-memory.allowedBytes=200MB", "-loggerLevel=ERROR")


@dataclass
class LogPage:
    """A running VictoriaLogs.

    Attributes:
        url: its address, without a slash at the end.
        process: the process.
        copied: how many lines it has.
        what: what it has, in words.
        trouble: why no more lines are copied; empty while all is well.
    """

    url: str
    process: subprocess.Popen[bytes]
    copied: int = 0
    trouble: str = ""
    what: ClassVar[str] = "lines of Elasticsearch"
    _seen: dict[str, set[int]] = field(default_factory=dict)

    def ended(self) -> str:
        """Why the page is of no use any more; empty while it is."""
        if self.process.poll() is not None:
            return f"VictoriaLogs exited with status {self.process.returncode}"
        return self.trouble

    def query(self, text: str) -> list[dict[str, Any]]:
        """The answer to a query in LogsQL, as rows.

        Raises:
            CheckFailed: it refuses the query.
        """
        answer = httpx.post(f"{self.url}/select/logsql/query", data={"query": text}, timeout=30, trust_env=False)
        _demand(answer)
        return [json.loads(line) for line in answer.text.splitlines()]

    def copy(self, store: Store) -> int:
        """Copy the lines that Elasticsearch has and this page has not; returns how many.

        They come in the order in which Elasticsearch numbered them. It numbers lines before others can see them, and a line can become
        visible after one with a higher number. So the newest numbers are looked at again.

        Raises:
            CheckFailed: Elasticsearch or VictoriaLogs refuses.
        """
        count = 0
        for index in sorted(started(lambda: store.client.indices.get(index=INDICES))):
            seen = self._seen.setdefault(index, set())
            after = max(seen, default=-1) - _OVERLAP
            while hits := _hits(store, index, after):
                after = hits[-1]["sort"][0]
                new = [hit for hit in hits if hit["sort"][0] not in seen]
                self._insert(new)
                seen.update(hit["sort"][0] for hit in new)
                count += len(new)
            newest = max(seen, default=-1)
            self._seen[index] = {number for number in seen if number >= newest - 2 * _OVERLAP}
        self.copied += count
        return count

    def _insert(self, hits: Sequence[dict[str, Any]]) -> None:
        if not hits:
            return
        lines = "".join(f"{json.dumps({**hit['_source'], 'id': hit['_id']})}\n" for hit in hits)
        _demand(httpx.post(f"{self.url}/insert/jsonline", params=_FIELDS, content=lines, timeout=60, trust_env=False))


@contextlib.contextmanager
def running(program: Path, *, timeout: float = 30.0) -> Iterator[LogPage]:
    """Run VictoriaLogs while the block runs; afterwards, stop it and remove its data.

    Raises:
        WaitTimeout: it did not answer within `timeout` seconds; the error has the end of its log.
        CheckFailed: it exited.
    """
    with temp_dirs.folder("logpage") as folder:
        port, log = free_port(), folder / "log"
        argv = [str(program), f"-httpListenAddr=127.0.0.1:{port}", f"-storageDataPath={folder / 'data'}", *_SETTINGS]
        with log.open("wb") as output:
            process = subprocess.Popen(
                go_toolchain.guarded(argv), stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=folder,
                env={"PATH": os.environ.get("PATH", os.defpath)},
            )  # fmt: skip
        page = LogPage(f"http://127.0.0.1:{port}", process)
        try:
            until(lambda: _healthy(page, log), what="VictoriaLogs to answer", timeout=timeout, every=0.1,
                  cause=lambda: log.read_text(errors="replace")[-1000:], tolerate=(httpx.TransportError,))  # fmt: skip
            yield page
        finally:
            end(process, steps=((signal.SIGTERM, 15.0),))


@contextlib.contextmanager
def following(kube: Kube, program: Path) -> Iterator[LogPage]:
    """A page with all lines of the lab's Elasticsearch, which new lines reach after some seconds, while the block runs.

    Raises:
        StackbookError: Elasticsearch does not answer, or VictoriaLogs does not start.
    """
    with opened(kube) as store, running(program) as page:
        page.copy(store)

        def follow(stop: threading.Event) -> None:
            try:
                while not stop.wait(_EVERY):
                    page.copy(store)
            except (StackbookError, httpx.HTTPError) as error:
                page.trouble = f"new lines cannot be copied: {error}"

        with beside(follow, name="log page"):
            yield page


def _hits(store: Store, index: str, after: int) -> list[dict[str, Any]]:
    newer = {"range": {"_seq_no": {"gt": after}}}
    answer = started(lambda: store.client.search(index=index, query=newer, sort=[{"_seq_no": "asc"}], size=_AT_ONCE))
    return list(answer["hits"]["hits"])


def _healthy(page: LogPage, log: Path) -> bool:
    if page.process.poll() is not None:
        raise CheckFailed(f"{page.ended()}: {log.read_text(errors='replace')[-1000:]}")
    return httpx.get(f"{page.url}/health", timeout=5, trust_env=False).status_code == 200


def _demand(answer: httpx.Response) -> None:
    if answer.status_code >= 300:
        raise CheckFailed(f"VictoriaLogs answers {answer.status_code}: {answer.text[:300]}")
