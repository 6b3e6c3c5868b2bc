"""The processes of both shippers on the lab's machines: killed, and measured."""

from __future__ import annotations

from stackbook.cluster.kube import Kube
from stackbook.core.waiting import until
from stackbook.lab.lab import Lab
from stackbook.observability.logs.credentials import NAMESPACE

PROGRAMS = {"rsyslog": "rsyslogd", "Filebeat": "filebeat"}
"""The process of each shipper on a machine."""
_SHIPPERS = "app in (shipper,filebeat)"


def kill(lab: Lab, *, timeout: float = 90.0) -> None:
    """Kill both shippers' processes on every machine at once, and wait until the kubelet has started each of them again.

    Raises:
        WaitTimeout: one does not start again in time; the error says why.
    """
    before = _started(lab.kube)
    for host in lab.machines.values():
        for program in PROGRAMS.values():
            host.run(["pkill", "-KILL", "-x", program], check=False)

    def again() -> bool:
        now = _started(lab.kube)
        return all(pod in now and now[pod] > count for pod, count in before.items())

    until(again, what="the killed shippers to run again", timeout=timeout, every=0.5,
          cause=lambda: lab.kube.explain(NAMESPACE, _SHIPPERS))  # fmt: skip


def _started(kube: Kube) -> dict[str, int]:
    """Pod → how often its container has been started again; only pods whose container runs."""
    found = {}
    for pod in kube.pods(NAMESPACE, _SHIPPERS):
        (status,) = pod["status"].get("containerStatuses") or [{}]
        if "running" in status.get("state", {}):
            found[str(pod["metadata"]["name"])] = int(status["restartCount"])
    return found


def resident(lab: Lab) -> dict[str, dict[str, float]]:
    """Shipper → machine → resident memory of its process in MB (10⁶ bytes); 0 if none runs."""
    found: dict[str, dict[str, float]] = {}
    for name, program in PROGRAMS.items():
        for node, host in lab.machines.items():
            kilobytes = [
                int(word) for word in host.run(["ps", "-C", program, "-o", "rss="], check=False).stdout.split()
            ]
            found.setdefault(name, {})[node] = sum(kilobytes) * 1.024 / 1000
    return found
