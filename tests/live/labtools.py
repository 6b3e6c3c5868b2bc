"""What the live tests share."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet
from stackbook.app import host_changes, reset
from stackbook.app.host_state import Difference, Snapshot
from stackbook.cluster.kube import Kube
from stackbook.config.profile import Profile
from stackbook.core import paths
from stackbook.core.errors import StackbookError
from stackbook.lab.lab import Lab
from stackbook.machines.transports import LocalHost

ROOT = Path(__file__).parents[2]


def sample(cases: Iterable[str], *in_ci: str) -> list[ParameterSet]:
    """Cases for `parametrize`: CI runs those that are named, `make test-more` runs the others."""
    names = list(cases)
    assert set(in_ci) <= set(names), set(in_ci) - set(names)
    return [pytest.param(name, id=name, marks=() if name in in_ci else pytest.mark.more) for name in names]


@dataclass(frozen=True)
class Done:
    """What a command of stackbook did."""

    status: int
    output: str

    @property
    def run(self) -> Path:
        """The folder of the run that it reports; `runs/latest` may be another's by now, as tests run in lanes."""
        (report,) = re.findall(r"^report: +(.+)/report\.html$", self.output, re.MULTILINE)
        return Path(report)


def stackbook(*args: str, timeout: float = 1500, env: dict[str, str] | None = None) -> Done:
    """Run `stackbook …` as a user would, from the checkout."""
    done = subprocess.run(
        [sys.executable, "-m", "stackbook", *args],
        cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False, env={**os.environ, **(env or {})},
    )  # fmt: skip
    return Done(done.returncode, done.stdout + done.stderr)


def left_on_this_host(profile: Path | Profile, before: Snapshot) -> list[Difference]:
    """What a lab that was taken away has left on this host; what other labs do meanwhile is told apart."""
    after = reset.snapshot()
    if not reset.compare(before, after):
        return []
    lab, host = profile if isinstance(profile, Profile) else Profile.load(profile), LocalHost()
    marks, others = host_changes.Marks.of(lab, host), host_changes.Others.look(lab.lab, host)
    return host_changes.split(before, after, marks, others)[0]


def keep_evidence(text: str, *, cause: str = "", kube: Kube | None = None) -> None:
    """Put what failed and the newest run's record where CI looks for them, and add to the causes that it prints at its end.

    Args:
        text: all that is known.
        cause: in a few lines; the end of `text` where none is given.
        kube: the cluster, to be asked what it noted.
    """
    logs = os.environ.get("STACKBOOK_TEST_LOGS")  # where it can be read while the other tests go on
    folder = os.environ.get("STACKBOOK_DIAGNOSTICS") or logs
    if folder:
        with (Path(folder) / "failures.txt").open("a", encoding="utf-8") as failures:
            failures.write(f"{text}\n\n")
        with (Path(folder) / "cause.txt").open("a", encoding="utf-8") as causes:
            plain = re.sub(r"\x1b\[[0-9;]*m", "", cause or text)
            causes.write("\n".join([plain[-3000:], *(noted(kube) if kube else [])]) + "\n\n")
        latest = paths.runs() / "latest"
        if latest.exists():
            shutil.copytree(latest.resolve(), Path(folder) / "run", dirs_exist_ok=True)


def noted(kube: Kube) -> list[str]:
    """What the cluster noted in the last 5 minutes, a line each: containers that ended, warnings, requests that failed."""
    found = []
    since = (datetime.now(timezone.utc) - timedelta(minutes=5)).strftime("%Y-%m-%dT%H:%M:%SZ")
    try:
        pods = kube.json("get", "pods", "-A")["items"]
        for pod in pods:
            for state in pod["status"].get("containerStatuses", []):
                ended = state.get("lastState", {}).get("terminated")
                if ended and str(ended.get("finishedAt")) >= since:
                    found.append(
                        f"ended: {pod['metadata']['name']} {state['name']}, {state['restartCount']} restarts, "
                        f"{ended.get('finishedAt')} {ended.get('reason')} {ended.get('exitCode')}"
                    )
        events = kube.json("get", "events", "-A", "--field-selector=type=Warning")["items"]
        warnings = sorted(
            (str(event.get("lastTimestamp") or event.get("eventTime") or ""), event["involvedObject"]["name"],
             " ".join(str(event["message"]).split())[:200])
            for event in events
        )  # fmt: skip
        found += [f"warning: {at} {name}: {message}" for at, name, message in warnings[-5:] if at >= since]
        for pod in pods:
            name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
            if namespace == "default" or name.startswith("istio-ingress"):
                log = kube.kubectl(
                    "logs", "-n", namespace, name, "-c", "istio-proxy", "--since=120s", check=False
                ).lines
                entries = [json.loads(line) for line in log if line.startswith("{")]
                kinds = Counter(
                    (e["response_code"], e["response_flags"], e["response_code_details"])
                    for e in entries
                    if e.get("response_code", 0) >= 500
                )
                found += [f"{name}: {count} × {' '.join(map(str, kind))}" for kind, count in kinds.most_common(3)]
    except (StackbookError, ValueError, KeyError) as error:
        found.append(f"nothing more could be asked: {error}")
    return found


@dataclass(frozen=True)
class Built:
    """How the session came by its lab: `first` is the run that built it, None when it was there."""

    lab: Lab
    first: Done | None
