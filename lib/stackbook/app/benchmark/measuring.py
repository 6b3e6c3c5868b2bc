"""Measuring the lab: one run of its chapters, and the rate of the traffic that it carries."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

from stackbook.app.benchmark.marks import BOOKINFO, CHAPTERS, READY
from stackbook.core import paths
from stackbook.core.errors import StackbookError
from stackbook.lab.lab import Lab
from stackbook.lab.step import Record
from stackbook.traffic import sharing
from stackbook.traffic.load_client import Group, Plan, send
from stackbook.traffic.testbed import REVIEWS, Testbed

RATE = 500
"""The rate to which the load program is set, in requests per second."""


def measured(profile: str) -> dict[str, Any]:
    """Run `stackbook run --to 05` once on a host without a lab; returns the marks, and the seconds of every step."""
    begin = time.time()
    done = subprocess.run([sys.executable, "-m", "stackbook", "run", "--profile", profile, "--to", "05"],
                          capture_output=True, text=True, check=False, timeout=2400)  # fmt: skip
    end = time.time()
    if done.returncode:
        raise StackbookError(f"stackbook run failed:\n{done.stdout[-3000:]}")
    events = Record((paths.runs() / "latest").resolve() / "events.jsonl").events()
    ends = {(e["chapter"], e["step"]): e for e in events if e["event"] == "step-end"}
    marks = {
        READY: round(ends["03-flannel", "ready"]["time"] - begin, 2),
        BOOKINFO: round(ends["05-istio", "bookinfo"]["time"] - begin, 2),
        CHAPTERS: round(end - begin, 2),
    }
    # The experiments of chapters 03 and 04 lie between the two marks: count only the steps towards bookinfo.
    path = marks[READY] + sum(float(ends["05-istio", s]["seconds"]) for s in ("istioctl", "install", "bookinfo"))
    return {
        "marks": marks,
        "same_steps": round(path, 2),
        "steps": {f"{c}/{s}": e["seconds"] for (c, s), e in ends.items()},
    }


def pace(testbed: Testbed, side: str) -> float:
    """How many requests per second the load program sends when it is set to `RATE`.

    Args:
        testbed: the test bed.
        side: "inside" the mesh, or "host": from this host through the ingress gateway.

    Raises:
        StackbookError: the answer to a request was not 200.
    """
    source, url = {"inside": (testbed.inside, REVIEWS), "host": (testbed.host, f"{testbed.ingress}/api/v1/products")}[
        side
    ]
    frame = send(source, Plan([Group("all", url)], count=5 * RATE, rate=RATE, warmup=300, concurrency=64))
    if wrong := testbed.failures(frame):
        raise StackbookError(f"requests from {side} failed: {'; '.join(wrong)}")
    return round(float(frame.attrs["rate"]), 1)


def paces(profile: str) -> dict[str, float]:
    """`pace` of each side, on the running lab."""
    lab = Lab.open("06-traffic", profile)
    with sharing.used(lab) as testbed:
        return {side: pace(testbed, side) for side in ("inside", "host")}
