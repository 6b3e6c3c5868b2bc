"""Limits of Prometheus itself: how late a metric is, and what is lost when Prometheus is killed."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from stackbook.cluster import crash
from stackbook.config.namespaces import here
from stackbook.core.errors import CheckFailed
from stackbook.core.waiting import until
from stackbook.observability.metrics.client import Prometheus
from stackbook.observability.metrics.counting import service_counts
from stackbook.observability.metrics.dialects import Vocabulary
from stackbook.observability.metrics.panels import usage

if TYPE_CHECKING:
    from stackbook.cluster.kube import Kube
    from stackbook.lab.lab import Lab


def latency_of_observation(
    prometheus: Prometheus,
    words: Vocabulary,
    request: Callable[[], object],
    *,
    service: str,
    tries: int = 5,
    every: float = 1.0,
    timeout: float = 20.0,
) -> list[float]:
    """Seconds from the end of a request to the first answer of Prometheus that counts it, once per try.

    The requests are spread over time, so that they hit different points of the scrape interval.

    Args:
        prometheus: the server.
        words: the metrics' names.
        request: sends one request to the service; nothing else may send requests to it meanwhile.
        service: the service whose counter is watched.
        tries: the number of requests.
        every: the minimum time from one request to the next, in seconds.
        timeout: deadline in seconds, after the last request.

    Raises:
        WaitTimeout: a request is not counted; the error has the counter's value.
    """

    def count() -> int:
        found = service_counts(prometheus, words)
        return int(found[found["service"] == service]["count"].sum())

    first = count()
    sent: list[float] = []
    found: list[float] = []
    start = time.monotonic()

    def all_counted() -> bool:
        if len(sent) < tries and time.monotonic() - start >= len(sent) * every:
            request()
            sent.append(time.monotonic())
        counted, now = count() - first, time.monotonic()
        found.extend(now - moment for moment in sent[len(found) : counted])
        return len(found) >= tries

    until(all_counted, what=f"Prometheus to count requests to {service}", timeout=tries * every + timeout, every=0.1,
          last=lambda: f"the counter was {first}, and is {count()} after {len(sent)} requests")  # fmt: skip
    return found


def restarts(kube: Kube, app: str) -> int:
    """How often the containers of an app's pod in the namespace of Prometheus were restarted."""
    pods = kube.pods(here().monitoring, f"app={app}")
    return sum(int(s["restartCount"]) for p in pods for s in p["status"].get("containerStatuses", []))


def killed(lab: Lab, app: str, *, timeout: float = 90.0) -> float:
    """Kill an app in the namespace of Prometheus, and wait until the kubelet has restarted it and it is Ready; returns the seconds.

    It sends SIGKILL, like a crash; if the machines are not the lab's own, it sends SIGTERM from inside the container.

    Raises:
        CheckFailed: there is no such pod.
        WaitTimeout: it did not come back; the error says why.
    """
    kube = lab.kube
    pods = kube.pods(here().monitoring, f"app={app}")
    if not pods:
        raise CheckFailed(f"there is no pod of {app} in {here().monitoring}")
    before, start = restarts(kube, app), time.monotonic()
    if lab.profile.target == "cluster":
        kube.exec(here().monitoring, pods[0]["metadata"]["name"], "sh", "-c", "kill -TERM 1", check=False)
    else:
        crash.kill(lab.machines, pods[0])
    until(lambda: restarts(kube, app) > before, what=f"{app} to start again", timeout=timeout, every=0.3,
          cause=lambda: kube.explain(here().monitoring, f"app={app}"))  # fmt: skip
    kube.wait_pods(here().monitoring, f"app={app}", count=1, timeout=timeout)
    return time.monotonic() - start


def firing(prometheus: Prometheus, name: str, *, timeout: float = 30.0) -> dict[str, str]:
    """Wait until an alert fires; returns its labels, with the service as `service` in both vocabularies.

    Raises:
        WaitTimeout: it does not fire; the error says which alerts do.
    """
    found: list[dict[str, str]] = []

    def fires() -> bool:
        alerts = [alert for alert in prometheus.alerts() if alert["state"] == "firing"]
        found[:] = [dict(alert["labels"]) for alert in alerts if alert["labels"]["alertname"] == name]
        return bool(found)

    until(fires, what=f"the alert {name} to fire", timeout=timeout, every=0.3,
          last=lambda: ", ".join(str(a["labels"]) for a in prometheus.alerts()) or "no alert is pending")  # fmt: skip
    labels = found[0]
    return {**labels, "service": labels.get("app") or labels.get("destination_canonical_service", "")}


def samples(prometheus: Prometheus, *, at: float | None = None) -> tuple[float, int]:
    """A Unix time (now if `at` is None), and the number of samples of `up` in the 10 minutes before it."""
    moment = time.time() if at is None else at
    found = prometheus.query("sum (count_over_time(up[10m]))", at=moment)
    return moment, int(found["value"].sum())


def gap(prometheus: Prometheus, *, since: float) -> float:
    """The longest time in seconds between two samples of Prometheus' own `up` from 30 s before `since` until now."""
    return longest_gap([moment for moment in prometheus.times('up{job="prometheus"}') if moment >= since - 30])


def longest_gap(times: list[float]) -> float:
    """The longest time between two consecutive times.

    >>> longest_gap([10.0, 15.0, 31.0, 35.0])
    16.0
    """
    ordered = sorted(times)
    return max((b - a for a, b in itertools.pairwise(ordered)), default=0.0)


def wait_usage(kube: Kube, prometheus: Prometheus, *, namespaces: Sequence[str], timeout: float = 60.0) -> pd.DataFrame:
    """Wait until each sidecar in these namespaces has a figure; returns what their pods' containers use (`panels.usage`).

    cAdvisor measures every few seconds: a sidecar that has just started has no figure yet, or only some KiB from before its
    programs started; a running one has more than a MiB. Pods that have ended are left out, although Prometheus still has
    their last figures.

    Raises:
        WaitTimeout: the error names the pods whose sidecars have no figure.
    """
    found = pd.DataFrame()

    def without() -> list[str]:
        nonlocal found
        pods = {pod["metadata"]["name"]: pod for namespace in namespaces for pod in kube.pods(namespace)}
        named = {name for name, pod in pods.items() if "istio-proxy" in _containers(pod)}
        found = usage(prometheus)
        found = found[found["namespace"].isin(namespaces) & found["pod"].isin(list(pods))]
        seen = found[(found["container"] == "istio-proxy") & (found["memory"] > 2**20)]
        return sorted(named - set(seen["pod"])) if named else ["no pod has a sidecar"]

    until(lambda: not without(), what="cAdvisor to have a figure for each sidecar", timeout=timeout, every=1,
          last=lambda: ", ".join(without()))  # fmt: skip
    return found


def _containers(pod: dict[str, Any]) -> set[str]:
    return {c["name"] for kind in ("containers", "initContainers") for c in pod["spec"].get(kind, ())}


def memory_twice(lab: Lab, prometheus: Prometheus, *, app: str) -> tuple[float, float]:
    """Bytes that an app's sidecar uses, according to its own control group and to cAdvisor, both without the file cache.

    Raises:
        CheckFailed: cAdvisor has no figure for it.
    """
    name = str(lab.kube.pods(here().workloads, f"app={app}")[0]["metadata"]["name"])
    script = (
        "if [ -f /sys/fs/cgroup/memory.current ]; then d=/sys/fs/cgroup; u=$(cat $d/memory.current);"
        " else d=/sys/fs/cgroup/memory; u=$(cat $d/memory.usage_in_bytes); fi;"
        ' i=$(awk \'$1 == "inactive_file" || $1 == "total_inactive_file" {print $2}\' $d/memory.stat | tail -n 1); echo $((u - i))'
    )
    own = lab.kube.exec(here().workloads, name, "sh", "-c", script, container="istio-proxy").stdout
    query = f'container_memory_working_set_bytes{{pod="{name}",container="istio-proxy"}}'
    found = prometheus.query(query)
    if found.empty:
        raise CheckFailed(f"cAdvisor has no figure for the sidecar of {app}")
    return float(own), float(found["value"].iloc[0])
