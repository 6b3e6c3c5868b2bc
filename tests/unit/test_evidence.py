"""What CI says of a failed live test: the cause in a few lines, and what the cluster noted."""

from __future__ import annotations

import importlib.util
import json
import sys
from datetime import datetime, tzinfo
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from stackbook.core.errors import StackbookError
from stackbook.core.results import Result


@pytest.fixture(scope="module")
def labtools() -> ModuleType:
    spec = importlib.util.spec_from_file_location("labtools", Path(__file__).parents[1] / "live" / "labtools.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setitem(sys.modules, "labtools", module)  # its dataclasses look for it there
    spec.loader.exec_module(module)
    monkeypatch.undo()
    return module


NOW, LONG_AGO = "2026-06-01T12:00:00Z", "2020-01-01T00:00:00Z"
ENDED = {"terminated": {"finishedAt": NOW, "reason": "OOMKilled", "exitCode": 137}}
EARLIER = {"terminated": {**ENDED["terminated"], "finishedAt": LONG_AGO}}
PODS = [
    {"metadata": {"name": "details-1", "namespace": "default"},
     "status": {"containerStatuses": [{"name": "details", "restartCount": 1, "lastState": EARLIER}]}},
    {"metadata": {"name": "dns-1", "namespace": "kube-system"},
     "status": {"containerStatuses": [{"name": "coredns", "restartCount": 2, "lastState": ENDED}]}},
]  # fmt: skip
EVENTS = [
    {"lastTimestamp": at, "involvedObject": {"name": "details-1"}, "message": "Readiness probe\nfailed"}
    for at in (NOW, LONG_AGO)
]


class Clock(datetime):
    """Two minutes after NOW, however long the other tests took."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:
        return datetime(2026, 6, 1, 12, 2, tzinfo=tz)


class Kube:
    def json(self, *args: str) -> Any:
        return {"items": PODS if "pods" in args else EVENTS}

    def kubectl(self, *args: str, check: bool = True) -> Result:
        entry = {"response_code": 503, "response_flags": "UC", "response_code_details": "reset"}
        lines = ["no JSON", *[json.dumps(entry)] * 2, json.dumps({**entry, "response_code": 200})]
        return Result(args, 0, "\n".join(lines), "", 0.1)


def test_each_failure_adds_its_cause_and_what_the_cluster_noted(
    labtools: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STACKBOOK_DIAGNOSTICS", str(tmp_path))
    monkeypatch.setattr(labtools.paths, "runs", lambda: tmp_path / "none")
    monkeypatch.setattr(labtools, "datetime", Clock)
    labtools.keep_evidence("a long text", cause="one: it \x1b[31mfailed\x1b[0m", kube=Kube())
    labtools.keep_evidence("another text")
    assert (tmp_path / "failures.txt").read_text() == "a long text\n\nanother text\n\n"
    assert (tmp_path / "cause.txt").read_text().splitlines() == [
        "one: it failed",
        f"ended: dns-1 coredns, 2 restarts, {NOW} OOMKilled 137",
        f"warning: {NOW} details-1: Readiness probe failed",
        "details-1: 2 × 503 UC reset",
        "",
        "another text",
        "",
    ]


def test_a_cluster_that_cannot_be_asked_does_not_hide_the_cause(labtools: ModuleType) -> None:
    class Silent:
        def json(self, *args: str) -> Any:
            raise StackbookError("refused")

    assert labtools.noted(Silent()) == ["nothing more could be asked: refused"]
