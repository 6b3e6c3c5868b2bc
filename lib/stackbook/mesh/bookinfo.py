"""bookinfo on the mesh: deploying it and sending it requests."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from stackbook.cluster.manifests import render
from stackbook.cluster.problems import pod_problem
from stackbook.config import chapters
from stackbook.config.namespaces import here
from stackbook.core.results import Result
from stackbook.core.waiting import until
from stackbook.mesh import istio
from stackbook.mesh.rules import proxies

if TYPE_CHECKING:
    from stackbook.cluster.kube import Kube
    from stackbook.lab.lab import Lab

WORKLOADS = chapters.BOOKINFO
SELECTOR = "app in (productpage,details,reviews,ratings)"


def manifest(lab: Lab) -> str:
    """Bookinfo's manifest with this lab's images: the lab's own build or the official ones."""
    return render(
        "bookinfo.yaml", **{f"image_{w.replace('-', '_')}": lab.images.reference(f"bookinfo-{w}") for w in WORKLOADS}
    )


def install(lab: Lab, namespace: str = "", *, timeout: float = 120.0) -> int:
    """Apply bookinfo (by default to the workloads' namespace) and wait until its six pods are Ready; returns the number of changes."""
    namespace = namespace or here().workloads
    lab.images.load(*(f"bookinfo-{workload}" for workload in WORKLOADS))
    answer = lab.kube.kubectl("apply", "-n", namespace, "-f", "-", stdin=manifest(lab), timeout=120)
    lab.kube.wait_pods(namespace, SELECTOR, count=len(WORKLOADS), timeout=timeout)
    return sum(not line.endswith(" unchanged") for line in answer.lines)


def pods(lab: Lab, namespace: str = "") -> list[dict[str, str]]:
    """Bookinfo's pods: workload, READY as kubectl prints it, and whether the pod has a sidecar."""
    found = lab.kube.pods(namespace or here().workloads, SELECTOR)
    sidecar = istio.pods_with_sidecar(found)
    rows = []
    for pod in found:
        name = pod["metadata"]["name"]
        labels = pod["metadata"]["labels"]
        rows.append({"workload": f"{labels['app']}-{labels['version']}", "READY": istio.ready_column(pod),
                     "STATUS": pod["status"]["phase"], "sidecar": "yes" if sidecar[name] else "no"})  # fmt: skip
    return sorted(rows, key=lambda r: r["workload"])


def open_gateway(lab: Lab) -> int:
    """Apply bookinfo's Gateway and VirtualService, and wait until the page opens; returns the number of changes."""
    changed = lab.kube.apply(gateway())
    until(
        lambda: page(lab).ok,
        what="the product page to open through the ingress gateway",
        timeout=60,
        every=0.3,
        last=lambda: page(lab).stderr.strip()[-200:] or "an HTTP error",
        cause=lambda: lab.kube.explain(here().gateways),
    )
    return changed


def gateway() -> str:
    """The manifest of bookinfo's Gateway and its VirtualService, for the gateway pods of this lab."""
    label = here().gateway_label("ingressgateway")
    return render("bookinfo-gateway.yaml").replace("istio: ingressgateway", f"istio: {label}")


def page(lab: Lab, path: str = "/productpage", **headers: str) -> Result:
    """Fetch a page of bookinfo through the ingress gateway; raises for an HTTP status of 400 or above."""
    flags = [part for name, value in headers.items() for part in ("-H", f"{name.replace('_', '-')}: {value}")]
    return lab.local.run(["curl", "-sSf", "-m", "10", *flags, f"{lab.ingress}{path}"], check=False)


def styled_page(lab: Lab) -> str:
    """The product page with its style sheets inlined, so that it can be shown without the gateway."""
    text = page(lab).stdout

    def inline(match: re.Match[str]) -> str:
        sheet = page(lab, match.group(1))
        return f"<style>{sheet.stdout}</style>" if sheet.ok else ""

    return re.sub(r'<link[^>]*href="(/static/[^"]+\.css)"[^>]*>', inline, text)


@contextmanager
def unharmed(lab: Lab) -> Iterator[None]:
    """Wait until the six pods are Ready again, whatever happens in the block."""
    try:
        yield
    finally:
        lab.kube.wait_pods(here().workloads, SELECTOR, count=len(WORKLOADS), timeout=120)


def fingerprint(text: str) -> str:
    """A short hash of a configuration, to tell whether it has been applied already."""
    return hashlib.sha256(json.dumps(text).encode()).hexdigest()[:16]


def unhealthy(kube: Kube) -> list[str]:
    """What is unhealthy in bookinfo and its mesh, one line each; empty when all is well."""
    pods = kube.pods(here().workloads, SELECTOR)
    wrong = [f"{p['metadata']['name']}: {pod_problem(p)}" for p in pods if pod_problem(p)]
    wrong += [f"{name}: no sidecar" for name, has in istio.pods_with_sidecar(pods).items() if not has]
    if len(pods) < len(WORKLOADS):
        wrong.append(f"{len(pods)} of {len(WORKLOADS)} bookinfo pods exist")
    known = proxies(kube)
    for pod in pods:
        proxy = known.get(f"{pod['metadata']['name']}.{here().workloads}")
        if proxy is None:
            wrong.append(f"{pod['metadata']['name']}: its proxy is not connected to istiod")
        elif proxy.rejected:
            wrong.append(proxy.state)
    return wrong
