"""bookinfo on the mesh: deploying it, asking it, restarting it under load, and taking it away."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pandas as pd

from stackbook import mesh
from stackbook.hosts import Result
from stackbook.manifests import render
from stackbook.traffic import FromHost, Group, Plan, flowing, from_mesh
from stackbook.waiting import until

if TYPE_CHECKING:
    from stackbook.chapter import Lab

WORKLOADS = ("productpage-v1", "details-v1", "ratings-v1", "reviews-v1", "reviews-v2", "reviews-v3")
SELECTOR = "app in (productpage,details,reviews,ratings)"


def manifest(lab: Lab) -> str:
    """Bookinfo's manifest with the images that this lab has: its own build, or the official ones."""
    return render("bookinfo.yaml", **{f"image_{w.replace('-', '_')}": lab.image(f"bookinfo-{w}") for w in WORKLOADS})


def install(lab: Lab, namespace: str = "default", *, timeout: float = 120.0) -> int:
    """Apply bookinfo and wait until its six pods are Ready; returns the number of changed objects."""
    lab.load_images(*(f"bookinfo-{workload}" for workload in WORKLOADS))
    answer = lab.kube.kubectl("apply", "-n", namespace, "-f", "-", stdin=manifest(lab), timeout=120)
    lab.kube.wait_pods(namespace, SELECTOR, count=len(WORKLOADS), timeout=timeout)
    return sum(not line.endswith(" unchanged") for line in answer.lines)


def pods(lab: Lab, namespace: str = "default") -> list[dict[str, str]]:
    """Bookinfo's pods: workload, READY as kubectl prints it, whether there is a sidecar."""
    found = lab.kube.pods(namespace, SELECTOR)
    sidecar = mesh.pods_with_sidecar(found)
    rows = []
    for pod in found:
        name = pod["metadata"]["name"]
        labels = pod["metadata"]["labels"]
        rows.append({"workload": f"{labels['app']}-{labels['version']}", "READY": mesh.ready_column(pod),
                     "STATUS": pod["status"]["phase"], "sidecar": "yes" if sidecar[name] else "no"})  # fmt: skip
    return sorted(rows, key=lambda r: r["workload"])


def open_gateway(lab: Lab) -> int:
    """Apply bookinfo's Gateway and VirtualService, and wait until the page opens; returns the number of changes."""
    changed = lab.kube.apply(render("bookinfo-gateway.yaml"))
    until(
        lambda: page(lab).ok,
        what="the product page opens through the ingress gateway",
        timeout=60,
        every=0.3,
        last=lambda: page(lab).stderr.strip()[-200:] or "an HTTP error",
        cause=lambda: lab.kube.explain(mesh.NAMESPACE),
    )
    return changed


def page(lab: Lab, path: str = "/productpage", **headers: str) -> Result:
    """A page of bookinfo through the ingress gateway; fails for an HTTP status of 400 and more."""
    flags = [part for name, value in headers.items() for part in ("-H", f"{name.replace('_', '-')}: {value}")]
    return lab.local.run(["curl", "-sSf", "-m", "10", *flags, f"{lab.ingress}{path}"], check=False)


def styled_page(lab: Lab) -> str:
    """The product page with its style sheets in it, so that it can be shown without the gateway."""
    text = page(lab).stdout

    def inline(match: re.Match[str]) -> str:
        sheet = page(lab, match.group(1))
        return f"<style>{sheet.stdout}</style>" if sheet.ok else ""

    return re.sub(r'<link[^>]*href="(/static/[^"]+\.css)"[^>]*>', inline, text)


def callers(lab: Lab, *, pages: int = 30) -> list[dict[str, Any]]:
    """Which services answered for a page, by the version of reviews that was drawn (K91 to K94).

    Each response names in `x-served-by` every service that had a part in it. Asked until each version was seen.
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
    """Restart a Deployment pod by pod while requests come in at `rate` per second; returns one line per request.

    The load begins one second before the restart, and ends one second after the old pods are gone.
    """
    program = str(lab.artifacts.path("app-load"))
    plan = Plan([Group("page", f"{lab.ingress}/productpage")], count=20_000, rate=rate, seconds=180, timeout=15)
    with flowing(FromHost(lab.local, program), plan, app="productpage", lead=1.0) as flow:
        old = {p["metadata"]["name"] for p in lab.kube.pods("default", "app=productpage")}
        lab.kube.kubectl("rollout", "restart", f"deployment/{workload}")
        lab.kube.wait_rollout("default", f"deployment/{workload}", timeout=120)
        until(lambda: not old & _running(lab), what="the old pods are gone", timeout=90, every=0.2)
        _settle()
        flow.stop()
        return from_mesh(flow.frame())


def _settle() -> None:
    from stackbook.waiting import pause

    pause(1)


def _running(lab: Lab) -> set[str]:
    items = lab.kube.json("get", "pods", "-l", "app=productpage")["items"]
    return {p["metadata"]["name"] for p in items}


def plot_restart(frame: pd.DataFrame) -> Any:
    """Requests a second by the pod that answered them, and failures, as a matplotlib figure."""
    import matplotlib.pyplot as plt

    from stackbook.display import PALETTE

    fig, axes = plt.subplots(figsize=(9, 4))
    second = frame["started"].astype(int)
    for number, (_, part) in enumerate(frame[frame["status"] == 200].groupby("served_by", sort=False)):
        counts = part.groupby(second).size()
        label = "old pod" if number == 0 else "new pod"
        axes.plot(counts.index.to_numpy(), counts.to_numpy(), marker="o", color=PALETTE[number], label=label)
    failed = frame[frame["status"] != 200]
    axes.plot(failed["started"].astype(int), [0] * len(failed), "x", color=PALETTE[6], markersize=10,
              label=f"failed: {len(failed)}")  # fmt: skip
    axes.set(title="A rolling restart under load", xlabel="seconds", ylabel="requests a second")
    axes.set_ylim(bottom=-1)
    axes.legend()
    return fig


def deletion(lab: Lab, namespace: str) -> dict[str, bool]:
    """Apply bookinfo and a routing rule to a namespace of their own, delete bookinfo, and see what stays (C53, K40)."""
    from stackbook.manifests import render as text

    lab.kube.kubectl("apply", "-n", namespace, "-f", "-", stdin=manifest(lab), timeout=120)
    lab.kube.kubectl("apply", "-n", namespace, "-f", "-", stdin=text("destination-rule-all.yaml"))
    lab.kube.wait_pods(namespace, SELECTOR, count=len(WORKLOADS), timeout=90)
    lab.kube.kubectl("delete", "-n", namespace, "-f", "-", stdin=manifest(lab), timeout=120)

    def gone() -> bool:
        answer = lab.kube.json("get", "deployments,services,serviceaccounts", "-n", namespace)
        names = {i["metadata"]["name"] for i in answer["items"]}
        return names <= {"default"}

    until(gone, what="bookinfo's objects are gone", timeout=60, every=0.3)
    rules = lab.kube.json("get", "destinationrules.networking.istio.io", "-n", namespace)["items"]
    return {"deployments, services and accounts are gone": True, "routing rules have stayed": len(rules) > 0}


@contextmanager
def unharmed(lab: Lab) -> Iterator[None]:
    """Whatever happens in the block, the six pods are Ready again afterwards."""
    try:
        yield
    finally:
        lab.kube.wait_pods("default", SELECTOR, count=len(WORKLOADS), timeout=120)


def fingerprint(text: str) -> str:
    """A short hash of a configuration, to tell whether it has been applied already."""
    return hashlib.sha256(json.dumps(text).encode()).hexdigest()[:16]
