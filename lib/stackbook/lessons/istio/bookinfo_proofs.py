"""What chapter 05 proves about bookinfo: which services answer, a restart that loses no request, and what its removal leaves."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stackbook.analysis.display import PALETTE
from stackbook.cluster.manifests import render
from stackbook.config.namespaces import here
from stackbook.core.waiting import pause, until
from stackbook.mesh.bookinfo import SELECTOR, WORKLOADS, manifest
from stackbook.traffic.load_client import FromHost, Group, Plan, flowing, from_mesh

if TYPE_CHECKING:
    from stackbook.lab.lab import Lab


def callers(lab: Lab, *, pages: int = 30) -> list[dict[str, Any]]:
    """Which services answered for a page, by the version of reviews (K91 to K94).

    Each response lists in `x-served-by` every service that took part. It repeats the request until each version was seen.
    """
    seen: dict[str, set[str]] = {}
    for _ in range(pages):
        answer = lab.local.run(["curl", "-sS", "-m", "10", "-o", "/dev/null", "-D", "-", f"{lab.ingress}/productpage"])
        served = re.findall(r"^x-served-by: (.*)$", answer.stdout, re.MULTILINE | re.IGNORECASE)
        parts = dict(p.strip().split()[0].split("/") for p in ",".join(served).split(",") if "/" in p)
        if "reviews" in parts:
            seen.setdefault(parts["reviews"], set()).update(parts)
    return [{"reviews": v, "answered for the page": ", ".join(sorted(seen[v]))} for v in sorted(seen)]


def restart_under_load(lab: Lab, workload: str, *, rate: float) -> pd.DataFrame:
    """Restart a Deployment pod by pod while `rate` requests per second arrive; returns one line per request.

    The load starts one second before the restart, and ends one second after the old pods are gone.
    """
    program = str(lab.artifacts.path("app-load"))
    plan = Plan([Group("page", f"{lab.ingress}/productpage")], count=20_000, rate=rate, seconds=180, timeout=15)
    with flowing(FromHost(lab.local, program), plan, app="productpage", lead=1.0) as flow:
        old = {p["metadata"]["name"] for p in lab.kube.pods(here().workloads, "app=productpage")}
        lab.kube.kubectl("rollout", "restart", f"deployment/{workload}")
        lab.kube.wait_rollout(here().workloads, f"deployment/{workload}", timeout=120)
        until(lambda: not old & _running(lab), what="the old pods to be gone", timeout=90, every=0.2)
        pause(1)
        flow.stop()
        return from_mesh(flow.frame())


def _running(lab: Lab) -> set[str]:
    items = lab.kube.json("get", "pods", "-l", "app=productpage")["items"]
    return {p["metadata"]["name"] for p in items}


def plot_restart(frame: pd.DataFrame) -> Any:
    """A matplotlib figure: requests per second by the pod that answered, and failures."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(figsize=(9, 4))
    second = frame["started"].astype(int)
    whole = range(int(second.max()))  # the last second is cut short
    below = np.zeros(len(whole))
    for number, (_, part) in enumerate(frame[frame["status"] == 200].groupby("served_by", sort=False)):
        counts = part.groupby(second).size().reindex(whole, fill_value=0).to_numpy()
        label = "old pod" if number == 0 else "new pod"
        axes.bar(
            whole,
            counts,
            0.9,
            bottom=below,
            color=PALETTE[number],
            hatch=("", "//")[number % 2],
            edgecolor="white",
            label=label,
        )
        below += counts
    failed = frame[frame["status"] != 200]
    axes.plot(failed["started"].astype(int), [0] * len(failed), "x", color=PALETTE[6], markersize=10,
              label=f"failed: {len(failed)}")  # fmt: skip
    axes.set(title="A rolling restart under load", xlabel="seconds", ylabel="requests a second")
    axes.set_ylim(bottom=-1)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return fig


def deletion(lab: Lab, namespace: str) -> dict[str, bool]:
    """Apply bookinfo and a routing rule in their own namespace, delete bookinfo, and see what stays (C53, K40)."""
    lab.kube.kubectl("apply", "-n", namespace, "-f", "-", stdin=manifest(lab), timeout=120)
    lab.kube.kubectl("apply", "-n", namespace, "-f", "-", stdin=render("destination-rule-all.yaml"))
    lab.kube.wait_pods(namespace, SELECTOR, count=len(WORKLOADS), timeout=90)
    lab.kube.kubectl("delete", "-n", namespace, "-f", "-", stdin=manifest(lab), timeout=120)

    def gone() -> bool:
        answer = lab.kube.json("get", "deployments,services,serviceaccounts", "-n", namespace)
        names = {i["metadata"]["name"] for i in answer["items"]}
        return names <= {"default"}

    until(gone, what="bookinfo's objects to be gone", timeout=60, every=0.3)
    rules = lab.kube.json("get", "destinationrules.networking.istio.io", "-n", namespace)["items"]
    return {"deployments, services and accounts are gone": gone(), "routing rules have stayed": len(rules) > 0}
