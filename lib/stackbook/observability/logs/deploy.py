"""Deploying Elasticsearch, a shipper on every machine, and Kibana."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stackbook.cluster import manifests, own_namespaces
from stackbook.cluster.problems import pod_problem
from stackbook.config.namespaces import here
from stackbook.core.errors import CommandFailed
from stackbook.core.waiting import until
from stackbook.observability.logs import credentials, learners, rsyslog_config, shipper_script
from stackbook.observability.logs.client import INDICES, Store, opened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stackbook.cluster.kube import Kube
    from stackbook.lab.lab import Lab
    from stackbook.lab.step import Step

TEMPLATE = "logs"
_KEYWORD: Mapping[str, Any] = {"type": "keyword", "ignore_above": 1024}
MAPPINGS: Mapping[str, Any] = {
    # Fields without a type here are stored and shown, but not searchable: an application cannot blow up the index.
    "dynamic": False,
    "properties": {
        "@timestamp": {"type": "date_nanos"},
        "message": {"type": "text"},
        "stream": _KEYWORD,
        "lines": {"type": "integer"},
        "node": _KEYWORD,
        "service": _KEYWORD,
        "version": _KEYWORD,
        "request_id": _KEYWORD,
        "kubernetes": {"properties": dict.fromkeys(("namespace", "pod", "uid", "container"), _KEYWORD)},
        "access": {
            "properties": {
                "start": {"type": "date_nanos"},
                **dict.fromkeys(
                    ("method", "path", "host", "flags", "details", "cluster", "client", "direction"), _KEYWORD
                ),
                **{name: {"type": "integer"} for name in ("status", "milliseconds", "bytes")},
            }
        },
    },
}


def node(kube: Kube) -> str:
    """The machine that stores the data: the last worker, or the lab's only machine; on an existing cluster, where the pod runs."""
    if here().learner:
        return str(next((p["spec"].get("nodeName", "") for p in kube.pods(here().logging, "app=elasticsearch")), ""))
    nodes = kube.nodes()
    workers = [n for n in nodes if "node-role.kubernetes.io/control-plane" not in n["metadata"]["labels"]]
    return str((workers or nodes)[-1]["metadata"]["labels"]["kubernetes.io/hostname"])


def start(lab: Lab, *, heap_mb: int, step: Step | None = None) -> int:
    """Apply Elasticsearch without waiting for it; returns how many objects changed. See `wait_started`.

    While it starts, the machines import the shippers' images.
    """
    place = "" if here().learner else node(lab.kube)
    lab.images.load("logs", on=[place], step=step)
    values = {"image_elasticsearch": lab.images.reference("elasticsearch"), "node": place, "heap_mb": str(heap_mb),
              "limit_mb": str(2 * heap_mb + 512)}  # fmt: skip
    text = manifests.render("elasticsearch.yaml", fingerprint=_mark("elasticsearch.yaml", values), **values)
    own_namespaces.provide(lab.kube, here().logging)
    changed = credentials.ensure(lab.kube) + lab.kube.apply(_here(lab, text))
    lab.images.load("fluentd", step=step)
    return changed


def wait_started(lab: Lab, *, timeout: float = 150.0) -> None:
    """Wait until Elasticsearch answers and has its shards.

    Raises:
        WaitTimeout: it does not answer in time; the error has the likely cause.
        CheckFailed: it refuses the password.
    """
    with opened(lab.kube, timeout=timeout) as store:
        wait_healthy(lab, store)


def wait_healthy(lab: Lab, store: Store, *, timeout: float = 60.0) -> None:
    """Wait until each index has its shard.

    Raises:
        WaitTimeout: the error says how many shards are unassigned.
    """

    def seen() -> Any:
        return store.client.cluster.health()

    until(lambda: seen()["status"] in ("green", "yellow") and seen()["initializing_shards"] == 0,
          what="Elasticsearch to have its shards", timeout=timeout, every=0.3,
          last=lambda: f"{seen()['status']}, {seen()['unassigned_shards']} shards unassigned",
          cause=lambda: lab.kube.explain(here().logging, "app=elasticsearch"))  # fmt: skip


def template(store: Store) -> None:
    """The template of each day's index: one shard, no replica (there is one node), fields with types, searchable after 1 s."""
    settings = {"number_of_shards": 1, "number_of_replicas": 0, "refresh_interval": "1s"}
    store.client.indices.put_index_template(
        name=TEMPLATE,
        index_patterns=[INDICES],
        priority=200,
        template={"settings": settings, "mappings": dict(MAPPINGS)},
    )


def flavour(lab: Lab) -> str:
    """Which shipper runs here: Fluentd, as in the guide, if images can be pulled, else rsyslog, as on an existing cluster."""
    return "fluentd" if lab.profile.target != "cluster" and lab.images.sources.pulled("fluentd") else "rsyslog"


def described(lab: Lab) -> str:
    """Which shipper runs here, in words for the page."""
    if not here().learner:
        return flavour(lab)
    return f"{flavour(lab)}, one for all your pods; the container `follow` beside it reads their logs by the API server"


def ship(lab: Lab, *, retention_days: int, step: Step | None = None, timeout: float = 90.0) -> int:
    """Deploy a shipper and a pulse on every machine, and the job that deletes old indices; returns how many objects changed.

    Raises:
        WaitTimeout: one of them is not Ready; the error says why.
    """
    lab.images.load("fluentd", "apps", step=step)
    kind = flavour(lab)
    # Its configuration first: a pod that does not find it waits a minute before it tries again.
    changed = lab.kube.apply(_configuration()) if kind == "rsyslog" else 0
    changed += lab.kube.apply(_here(lab, shipper(lab)))
    values = {"image_tools": lab.images.reference("tools"), "retention_days": str(retention_days)}
    changed += lab.kube.apply(_here(lab, manifests.render("pulse.yaml", **values)))
    for workload in ("shipper", "pulse"):
        lab.kube.wait_rollout(here().logging, f"{everywhere()}/{workload}", timeout=timeout)
    return changed


def everywhere() -> str:
    """The kind of the workloads that run on every machine; on an existing cluster, a learner has one pod of each."""
    return "deployment" if here().learner else "daemonset"


def _here(lab: Lab, text: str) -> str:
    """A manifest as this lab applies it."""
    if not here().learner:
        return text
    return learners.manifest(text, here(), follower=lab.images.reference(learners.IMAGE))


def shipper(lab: Lab) -> str:
    """The manifest of the shipper, with a hash of its configuration, so that a change starts new pods."""
    if flavour(lab) == "rsyslog":
        values = {"image_shipper": lab.images.reference("rsyslog")}
        mark = _mark("rsyslog.yaml", {**values, **_configuration()["data"]}, known=values)
        return manifests.render("rsyslog.yaml", fingerprint=mark, **values)
    values = {"image_shipper": lab.images.reference("fluentd")}
    return manifests.render("fluentd.yaml", fingerprint=_mark("fluentd.yaml", values), **values)


def _configuration() -> dict[str, Any]:
    """The ConfigMap of rsyslog."""
    text = rsyslog_config.render(server=credentials.server(), port=9200)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "shipper", "namespace": here().logging, **credentials.labels()},
        "data": {"rsyslog.conf": text, "run.sh": shipper_script.SCRIPT},
    }


def kibana(lab: Lab, *, timeout: float = 240.0) -> int:
    """Deploy Kibana and wait for it, if images can be pulled; returns how many objects changed.

    Raises:
        WaitTimeout: it is not Ready; the error says why.
    """
    with opened(lab.kube) as store:
        password = credentials.access(lab.kube).passwords["kibana"]
        store.client.security.change_password(username="kibana_system", password=password.reveal())
    lab.images.load("kibana")
    changed = lab.kube.apply(_here(lab, manifests.render("kibana.yaml", image_kibana=lab.images.reference("kibana"))))
    lab.kube.wait_rollout(here().logging, "deployment/kibana", timeout=timeout)
    return changed


def _mark(name: str, values: Mapping[str, str], *, known: Mapping[str, str] | None = None) -> str:
    text = manifests.render(name, fingerprint="", **(values if known is None else known))
    return hashlib.sha256(repr((text, sorted(values.items()))).encode()).hexdigest()[:16]


def machines(kube: Kube) -> list[str]:
    """The machines that have a shipper: all; on an existing cluster, the one on which the learner's shipper runs."""
    if here().learner:
        found = kube.pods(here().logging, "app=shipper")
        return sorted({str(p["spec"]["nodeName"]) for p in found if p["spec"].get("nodeName")})
    return [str(n["metadata"]["name"]) for n in kube.nodes()]


def shippers(kube: Kube) -> list[dict[str, Any]]:
    """The shipper of each machine: node, pod, whether it is Ready, and why not; a machine without one has a line, too."""
    pods = {p["spec"].get("nodeName", ""): p for p in kube.pods(here().logging, "app=shipper")}
    rows = []
    for name in machines(kube):
        pod = pods.get(name)
        problem = pod_problem(pod) if pod else "not running"
        rows.append(
            {"node": name, "pod": pod["metadata"]["name"] if pod else "", "ready": not problem, "problem": problem}
        )
    return rows


def restart(kube: Kube, *apps: str, timeout: float = 120.0) -> None:
    """Delete the pods with these `app` labels, and wait until as many new ones are Ready."""
    selector = f"app in ({','.join(apps)})"
    old = {p["metadata"]["uid"] for p in kube.pods(here().logging, selector)}
    kube.kubectl("delete", "pod", "-n", here().logging, "-l", selector, "--wait=false")

    def anew() -> bool:
        pods = kube.pods(here().logging, selector)
        fresh = [p for p in pods if p["metadata"]["uid"] not in old and not pod_problem(p)]
        return len(fresh) == len(pods) >= len(old)

    until(anew, what=f"new pods of {' and '.join(apps)} to be Ready", timeout=timeout, every=0.5,
          tolerate=(CommandFailed,),
          cause=lambda: kube.explain(here().logging, selector))  # fmt: skip


@contextlib.contextmanager
def away(kube: Kube) -> Iterator[None]:
    """Stop Elasticsearch while the block runs; afterwards, start it and wait until it answers."""
    scale = ("scale", "statefulset/elasticsearch", "-n", here().logging)
    try:
        kube.kubectl(*scale, "--replicas=0")
        until(
            lambda: not kube.pods(here().logging, "app=elasticsearch"),
            what="Elasticsearch to end",
            timeout=60,
            every=0.3,
        )
        yield
    finally:
        kube.kubectl(*scale, "--replicas=1")
        with opened(kube, timeout=150):
            pass
