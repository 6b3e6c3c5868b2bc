"""Prometheus on the lab: deploying it, and checking that it scrapes everything that it should."""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING

import yaml

from stackbook.cluster import manifests
from stackbook.cluster.problems import pod_problem
from stackbook.config.namespaces import here
from stackbook.core import yaml_text
from stackbook.core.errors import WaitTimeout
from stackbook.core.waiting import until
from stackbook.observability.metrics import kiali
from stackbook.observability.metrics.client import Prometheus
from stackbook.observability.metrics.dialects import Vocabulary

if TYPE_CHECKING:
    from stackbook.lab.lab import Lab
    from stackbook.lab.step import Step

JOBS = ("cadvisor", "coredns", "envoy", "istiod", "kubelet", "prometheus")
_OWN_JOBS = ("envoy", "prometheus")
"""What a learner on an existing cluster scrapes: the proxies of their own pods."""
PROMETHEUS = "Prometheus"
"""The turn of a step that kills it, or that needs it to keep running: see `Lab.turn`."""
_NO_GRAFANA = "its image cannot be pulled; this chapter plots the golden signals"
_UNKNOWN, _NOT_YET = "Prometheus does not know it", "not scraped yet"


def install(lab: Lab, words: Vocabulary, *, scrape: int, retention_hours: int, step: Step | None = None) -> int:
    """Apply Prometheus and wait until it answers; returns how many objects changed.

    Args:
        lab: the lab.
        words: the metrics' names, for the alert.
        scrape: seconds between two scrapes of a target; kubelets are scraped half as often.
        retention_hours: how long samples are kept.
        step: the step that records the import of the image.

    Raises:
        WaitTimeout: its pod is not Ready; the error says why.
    """
    lab.images.load("metrics", step=step)
    values = {"scrape": str(scrape), "slow": str(2 * scrape), "retention": str(retention_hours), "errors": words.errors,
              "requests": words.requests, "image_prometheus": lab.images.reference("prometheus")}  # fmt: skip
    mark = hashlib.sha256(_objects(lab, mark="", **values).encode()).hexdigest()[:16]
    changed = lab.kube.apply(_objects(lab, mark=mark, **values))
    lab.kube.wait_rollout(here().monitoring, "deployment/prometheus", timeout=180)
    if step and not lab.images.sources.pulled("prometheus") and not lab.artifacts.at_hand("prometheus-pages"):
        step.progress("Prometheus' web page is not built yet: stackbook open prometheus builds and shows it")
    return changed


def jobs(lab: Lab) -> tuple[str, ...]:
    """The kinds of targets: on an existing cluster a learner may not read nodes, nor other namespaces."""
    return _OWN_JOBS if lab.profile.target == "cluster" else JOBS


def _objects(lab: Lab, **values: str) -> str:
    """The manifest; on an existing cluster without what belongs to the whole cluster, in the learner's namespace."""
    text = manifests.render("prometheus.yaml", **values)
    return text if lab.profile.target != "cluster" else learners(text, lab.namespaces.monitoring)


def learners(text: str, namespace: str) -> str:
    """A manifest of Prometheus that scrapes one namespace, with the rights of a Role there, which `stackbook rbac` prints.

    Args:
        text: the manifest for the lab's own cluster.
        namespace: the learner's namespace.
    """
    kept = []
    for item in yaml_text.load_all(text):
        if item["kind"].startswith("ClusterRole"):
            continue
        item["metadata"] |= {"namespace": namespace, "labels": {"app": "prometheus"}}
        if item["kind"] == "ConfigMap":
            whole = yaml_text.load(item["data"]["prometheus.yml"])
            whole["scrape_configs"] = [job for job in whole["scrape_configs"] if job["job_name"] in _OWN_JOBS]
            for job in whole["scrape_configs"]:
                for found in job.get("kubernetes_sd_configs", ()):
                    found["namespaces"] = {"names": [namespace]}
            item["data"]["prometheus.yml"] = yaml.safe_dump(whole, sort_keys=False)
        kept.append(item)
    return yaml.safe_dump_all(kept, sort_keys=False)


def expected(lab: Lab) -> set[tuple[str, str]]:
    """The targets that follow from the cluster's objects: (job, pod or node)."""
    where = ("-n", here().workloads) if lab.profile.target == "cluster" else ("--all-namespaces",)
    everywhere = lab.kube.json("get", "pods", *where)["items"]
    alive = [p for p in everywhere if "deletionTimestamp" not in p["metadata"]]
    pods = [p for p in alive if p["status"].get("phase") == "Running" and not pod_problem(p)]
    found = {("prometheus", "localhost:9090")}
    for pod in pods:
        name, labels = pod["metadata"]["name"], pod["metadata"].get("labels", {})
        containers = [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]
        if any(port.get("name") == "http-envoy-prom" for c in containers for port in c.get("ports", [])):
            found.add(("envoy", name))
        if labels.get("app") == "istiod":
            found.add(("istiod", name))
        if labels.get("k8s-app") == "kube-dns":
            found.add(("coredns", name))
    for node in lab.kube.nodes() if "kubelet" in jobs(lab) else ():
        found |= {("kubelet", node["metadata"]["name"]), ("cadvisor", node["metadata"]["name"])}
    return found


def missing(lab: Lab, prometheus: Prometheus) -> list[str]:
    """The targets that Prometheus should scrape and does not, one line each with the reason; empty when all is well."""
    targets = {(str(t["job"]), str(t["instance"])): t for t in prometheus.targets().to_dict("records")}
    found = []
    for job, name in sorted(expected(lab)):
        target = targets.get((job, name))
        if target is None:
            found.append(f"{job} {name}: {_UNKNOWN}")
        elif target["health"] != "up":
            found.append(f"{job} {name}: {target['error'] or _NOT_YET}")
    return found


def missing_in_the_end(lab: Lab, prometheus: Prometheus, *, timeout: float = 20.0) -> list[str]:
    """Return `missing` once Prometheus has tried every target, including new ones, or after `timeout` seconds."""
    found: list[str] = []

    def settled() -> bool:
        found[:] = missing(lab, prometheus)
        return not any(line.endswith((_UNKNOWN, _NOT_YET)) for line in found)

    with contextlib.suppress(WaitTimeout):
        until(settled, what="Prometheus to reach each target", timeout=timeout, every=0.5)
    return found


def wait_scraped(
    prometheus: Prometheus, *, after: float, jobs: tuple[str, ...] = ("envoy",), timeout: float = 30.0
) -> float:
    """Wait until each target of the jobs is scraped after `after`; returns the Unix time of the last such scrape.

    It leaves out targets that are down, and waits for those not scraped yet: just after its start, Prometheus has only a proxy's
    earlier samples. Prometheus lists a scrape before it stores the samples, and may give them a time 2 ms before the scrape; so the
    wait ends when the samples can be queried.

    Raises:
        WaitTimeout: a target was not scraped; the error names those targets.
    """
    late: list[str] = []
    newest = 0.0

    def done() -> bool:
        nonlocal newest
        frame = prometheus.targets()
        frame = frame[frame["job"].isin(jobs) & (frame["health"] != "down")]
        late[:] = [str(name) for name in frame[frame["scraped"] <= after]["instance"]]
        if len(frame) and not late:
            stored = _stored(prometheus, jobs, newer=after)
            late[:] = [
                str(row["instance"]) for row in frame.to_dict("records") if (row["job"], row["instance"]) not in stored
            ]
        newest = float((frame["scraped"] + frame["seconds"]).max()) if len(frame) else 0.0
        return len(frame) > 0 and not late

    until(done, what="every proxy to be scraped again", timeout=timeout, every=0.25, last=lambda: ", ".join(late[:8]))
    return newest


def _stored(prometheus: Prometheus, jobs: tuple[str, ...], *, newer: float) -> set[tuple[str, str]]:
    """(job, instance) of the targets of which there are samples after the Unix time `newer`; see `Prometheus.targets`."""
    found = prometheus.query(f'up{{job=~"{"|".join(jobs)}"}}', newer=newer).to_dict("records")
    names = [
        [row.get(label) for label in ("pod", "node", "instance")] for row in found
    ]  # what a series does not have is NaN
    return {(row["job"], next(n for n in known if isinstance(n, str))) for row, known in zip(found, names, strict=True)}


def dashboards(lab: Lab) -> list[dict[str, str]]:
    """Kiali and Grafana: how to open each, or why it does not run here."""
    grafana = lab.kube.kubectl("get", "deployment/grafana", "-n", here().monitoring, check=False).ok
    return [
        {"tool": "Kiali", "here": kiali.missing(lab) or "stackbook open kiali"},
        {"tool": "Grafana", "here": "istioctl dashboard grafana" if grafana else _NO_GRAFANA},
    ]


def wait_complete(lab: Lab, prometheus: Prometheus, *, timeout: float = 60.0) -> None:
    """Wait until Prometheus scrapes everything that it should, and no longer scrapes targets that are gone.

    Raises:
        WaitTimeout: the error lists the targets that are missing or gone, with the reason.
    """

    def wrong() -> list[str]:
        gone = [f"{row['job']} {row['instance']}: {row['error']}" for row in prometheus.down().to_dict("records")]
        return [*missing(lab, prometheus), *gone]

    until(lambda: not wrong(), what="Prometheus to scrape everything", timeout=timeout, every=0.5,
          last=lambda: "; ".join(wrong()[:4]))  # fmt: skip
