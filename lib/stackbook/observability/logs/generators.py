"""Pods that write known lines to their logs: numbered lines, and stack traces of three languages."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stackbook.config.namespaces import here
from stackbook.core.waiting import until
from stackbook.observability.logs.deploy import machines

if TYPE_CHECKING:
    from stackbook.cluster.kube import Kube
    from stackbook.lab.lab import Lab

ROTATED_AT = 10 * 2**20
"""The kubelet's default containerLogMaxSize."""
ONE_ROTATION = 1.92
"""How large a log becomes, as a multiple of that size: above 1, so that it is rotated, and below 2, so that it is rotated only once."""
_HEAD = 64  # bytes of a line without its padding: time, stream, tag, run and number

_NUMBERED = """
pad=$(head -c "$PADDING" /dev/zero | tr '\\0' x)
n=0
while [ "$n" -lt "$LINES" ]; do
  end=$((n + STEP))
  [ "$end" -le "$LINES" ] || end=$LINES
  while [ "$n" -lt "$end" ]; do n=$((n + 1)); echo "run $RUN line $n $pad"; done
  sleep 0.2
done
sleep 3600
"""

PYTHON = """Traceback (most recent call last):
  File "/app/orders.py", line 42, in place
    stock.take(item, count)
  File "/app/stock.py", line 7, in take
    raise ValueError("three wanted, two there")
ValueError: three wanted, two there"""
JAVA = """java.lang.IllegalStateException: the order cannot be placed
\tat shop.Orders.place(Orders.java:42)
\tat shop.Main.main(Main.java:7)
Caused by: java.io.IOException: the stock does not answer
\tat shop.Stock.take(Stock.java:11)
\t... 2 more"""
GO = """panic: runtime error: index out of range [3] with length 3

goroutine 1 [running]:
main.take(...)
\t/app/stock.go:11
main.main()
\t/app/main.go:7 +0x1d"""
TRACES = {"Python": PYTHON, "Java": JAVA, "Go": GO}
LONG = 40_000
"""Characters of the long line; the container runtime splits lines at 16 KiB."""

_TRACES = """
echo "before Python"
printf '%s\\n' "$PYTHON"
echo "before Java"
printf '%s\\n' "$JAVA"
echo "before Go"
printf '%s\\n' "$GO"
head -c "$LONG" /dev/zero | tr '\\0' y
echo
sleep 3600
"""


@dataclass(frozen=True)
class Writers:
    """Pods that write numbered lines, one pod on each machine; `share` is node → its number of lines."""

    kube: Kube
    run: str
    share: dict[str, int]

    @property
    def lines(self) -> int:
        """How many lines all pods write together."""
        return sum(self.share.values())

    def pod(self, node: str) -> dict[str, Any]:
        """The pod on a machine."""
        found = self.kube.pods(here().logging, f"run={self.run}")
        return next(p for p in found if p["spec"]["nodeName"] == node)

    def files(self, node: str) -> list[str]:
        """The files of the pod's log on a machine, as its shipper sees them: more than one after a rotation."""
        pod = self.pod(node)["metadata"]
        shipper = next(p for p in self.kube.pods(here().logging, "app=shipper") if p["spec"]["nodeName"] == node)
        folder = f"/var/log/pods/{here().logging}_{pod['name']}_{pod['uid']}/lines"
        return sorted(self.kube.exec(here().logging, shipper["metadata"]["name"], "ls", folder).lines)

    def wait_rotated(self, *, timeout: float = 60.0) -> None:
        """Wait until the kubelet has rotated each pod's log.

        Raises:
            WaitTimeout: the error lists the files that exist.
        """
        until(lambda: all(len(self.files(node)) > 1 for node in self.share), what="the kubelet to rotate each log",
              timeout=timeout, every=1, last=lambda: "; ".join(f"{n}: {', '.join(self.files(n))}" for n in self.share))  # fmt: skip


@contextlib.contextmanager
def numbered(lab: Lab, lines: int, *, seconds: float = 22.0, filled: float = ONE_ROTATION) -> Iterator[Writers]:
    """Run a pod on each machine that writes its share of `lines` numbered lines; the pods are deleted after the block.

    The lines are so long that each log reaches the kubelet's rotation size a little after half of them: the pod still writes
    while the kubelet rotates the log, and the rest is too short for a second rotation.

    Args:
        lab: the lab.
        lines: the number of lines of all pods together.
        seconds: roughly how long they write.
        filled: how large each log becomes, as a multiple of the kubelet's rotation size; below 1, it is never rotated.
    """
    nodes = machines(lab.kube)
    share = {name: lines // len(nodes) + (number < lines % len(nodes)) for number, name in enumerate(nodes)}
    writers = Writers(lab.kube, secrets.token_hex(4), share)
    pods = []
    for name, count in share.items():
        values = {
            "RUN": writers.run,
            "LINES": str(count),
            "STEP": str(max(1, round(count * 0.2 / seconds))),
            "PADDING": str(max(1, round(ROTATED_AT * filled / count) - _HEAD)),
        }
        pods.append(_pod(lab, f"lines-{writers.run}-{name}", "lines", _NUMBERED, values, run=writers.run, node=name))
    try:
        lab.kube.apply(pods)
        yield writers
    finally:
        lab.kube.kubectl("delete", "pod", "-n", here().logging, "-l", f"run={writers.run}", "--wait=false", timeout=60)


@contextlib.contextmanager
def traces(lab: Lab) -> Iterator[str]:
    """Run a pod that writes a stack trace of each language in `TRACES` and a line of `LONG` characters; yields the pod's name."""
    name = f"traces-{secrets.token_hex(4)}"
    values = {**{language.upper(): text for language, text in TRACES.items()}, "LONG": str(LONG)}
    try:
        lab.kube.apply(_pod(lab, name, "traces", _TRACES, values, run=name, node=""))
        yield name
    finally:
        lab.kube.kubectl("delete", "pod", "-n", here().logging, name, "--ignore-not-found", "--wait=false", timeout=60)


def _pod(
    lab: Lab, name: str, container: str, script: str, values: dict[str, str], *, run: str, node: str
) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "terminationGracePeriodSeconds": 0,
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "tolerations": [{"operator": "Exists"}],
        "containers": [{
            "name": container,
            "image": lab.images.reference("tools"),
            "imagePullPolicy": "IfNotPresent",
            "command": ["sh", "-c", script],
            "env": [{"name": key, "value": value} for key, value in values.items()],
            "resources": {"requests": {"cpu": "1m", "memory": "8Mi"}},
        }],
    }  # fmt: skip
    if node:
        spec["nodeName"] = node
    meta = {"name": name, "namespace": here().logging, "labels": {"app": container, "run": run}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}
