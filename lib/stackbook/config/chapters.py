"""The chapters: their order, what each needs, how long it takes, and what it leaves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stackbook.core import paths
from stackbook.core.errors import InputError
from stackbook.core.names import did_you_mean


@dataclass(frozen=True)
class Chapter:
    """One chapter.

    Args:
        id: number and name, as in the notebook's file name.
        title: a few words.
        guide: the chapters of the guide that it covers.
        needs: the chapters that must run before it.
        leaves: what it leaves behind, in a few words.
        artifacts: the components that it needs, in the order of use.
        pages: the web pages of its programs, or programs that show its data on a page; it does not wait for them.
        seconds: a first estimate of its time on two processors with a full cache.
        batch: whether `stackbook run` runs it when no chapters are chosen.
    """

    id: str
    title: str
    guide: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    leaves: str = "nothing"
    artifacts: tuple[str, ...] = ()
    pages: tuple[str, ...] = ()
    seconds: float = 30.0
    batch: bool = True

    @property
    def number(self) -> str:
        """Two digits."""
        return self.id.partition("-")[0]

    @property
    def name(self) -> str:
        """The name without the number."""
        return self.id.partition("-")[2]

    @property
    def notebook(self) -> Path:
        """The notebook's file."""
        return paths.notebooks() / f"{self.id}.ipynb"


BOOKINFO = ("productpage-v1", "details-v1", "ratings-v1", "reviews-v1", "reviews-v2", "reviews-v3")
"""bookinfo's Deployments, in the order of its manifest."""
_BOOKINFO = tuple(f"bookinfo-{workload}" for workload in BOOKINFO)

ALL: tuple[Chapter, ...] = (
    Chapter("00-preflight", "This host can carry the lab", leaves="nothing", seconds=4),
    Chapter(
        "01-machines",
        "Two machines that differ where they must",
        guide=("1.1.1",),
        needs=("00-preflight",),
        leaves="two running machines",
        artifacts=("machine-rootfs",),
        seconds=9,
    ),
    Chapter(
        "02-kubeadm",
        "A control plane by kubeadm init, a worker by kubeadm join",
        guide=("1.1.2",),
        needs=("01-machines",),
        leaves="a cluster without a pod network",
        artifacts=("kubelet", "kubeadm", "kubectl", "control-plane", "worker"),
        seconds=15,
    ),
    Chapter(
        "03-flannel",
        "The pod network: a packet followed from machine to machine",
        guide=("1.1.2", "2.3"),
        needs=("02-kubeadm",),
        leaves="both nodes Ready, DNS answering",
        artifacts=("bundle:node", "kube-flannel.yml", "apps"),  # a plain "node" is Node.js
        seconds=45,
    ),
    Chapter(
        "04-kubernetes",
        "Nodes, pods, services: each concept seen on the live cluster",
        guide=("2.1",),
        needs=("03-flannel",),
        leaves="nothing",
        artifacts=("apps",),
        seconds=25,
    ),
    Chapter(
        "05-istio",
        "The mesh: Istio, sidecars and bookinfo",
        guide=("1.2", "2.2.1", "2.2.2"),
        needs=("03-flannel",),
        leaves="Istio and six bookinfo pods 2/2",
        artifacts=("apps", "app-load", "istioctl", "istio", "istio-addons", *_BOOKINFO),
        seconds=60,
    ),
    Chapter(
        "06-traffic", "Traffic by rules, seen in counted requests", guide=("2.2.3",), needs=("05-istio",), seconds=60
    ),
    Chapter(
        "07-faults", "Aborts and delays, proved by statistics", guide=("2.2.3.2",), needs=("05-istio",), seconds=70
    ),
    Chapter("08-protobuf", "Bytes on the wire", guide=("2.4",), artifacts=("go", "buf"), seconds=20),
    Chapter("09-grpc", "Calls between languages", guide=("2.5",), artifacts=("go",), seconds=50),
    Chapter(
        "10-metrics",
        "Metrics: what is counted",
        guide=("4.2.2", "4.2.3", "4.2.4"),
        needs=("05-istio",),
        leaves="Prometheus",
        artifacts=("apps", "app-load", "metrics"),
        pages=("prometheus-pages", "kiali", "kiali-pages"),
        seconds=150,
    ),
    Chapter(
        "11-tracing",
        "Traces: one request, many spans",
        guide=("4.2.1",),
        needs=("05-istio",),
        leaves="Jaeger, and a mesh that sends it spans",
        artifacts=("apps", "app-load", "tracing"),
        pages=("zipkin",),
        seconds=80,
    ),
    Chapter(
        "12-logs",
        "Logs: nothing lost",
        guide=("4.3",),
        needs=("05-istio", "10-metrics", "11-tracing"),
        leaves="Elasticsearch, and a shipper on every machine",
        artifacts=("apps", "app-load", "logs", "fluentd", "kibana"),
        pages=("victoria-logs",),
        seconds=100,
    ),
    Chapter(
        "13-delivery",
        "From a push to a canary",
        guide=("4.1",),
        artifacts=(
            "go",
            "node",
            "compose-config",
            "gitea",
            "gitea-templates",
            "gitea-options",
            "gitea-docker-setup",
            "gitea-runner",
            "gitlab-ci-schema",
        ),
        pages=("gitea-pages", "pipeline-rootfs", "docker-compose"),
        seconds=95,
    ),
    Chapter(
        "14-ecosystem",
        "What the guide only names",
        guide=("2.6", "2.7", "3.3"),
        needs=("03-flannel",),
        leaves="Kafka, the bookshop",
        artifacts=("go", "swagger", "messaging", "shop"),
        pages=("docker-compose",),
        seconds=155,
    ),
    Chapter(
        "15-design",
        "Bounded contexts and Conway's law",
        guide=("3.1", "3.2"),
        artifacts=("go", "app-bookinfo"),
        seconds=10,
    ),
    Chapter(
        "16-incident",
        "An incident, found by its evidence",
        needs=("05-istio", "10-metrics", "11-tracing", "12-logs"),
        artifacts=("apps",),
        seconds=90,
    ),
    Chapter("90-diagnose", "What is wrong, and why", batch=False),
    Chapter("99-reset", "The host as it was", leaves="the host as it was before", batch=False),
)


def available() -> list[Chapter]:
    """The chapters whose notebooks exist, in order."""
    return [chapter for chapter in ALL if chapter.notebook.is_file()]


def find(word: str) -> Chapter:
    """A chapter by number ('2' or '02'), by name ('kubeadm') or by both.

    Raises:
        InputError: there is no such chapter, or its notebook is missing.

    >>> find("05").name
    'istio'
    """
    known = available()
    for chapter in known:
        if word in (chapter.id, chapter.number, chapter.name) or (word.isdigit() and word.zfill(2) == chapter.number):
            return chapter
    names = [name for chapter in known for name in (chapter.name, chapter.id)]
    raise InputError(f"no chapter is named {word!r}", fix=did_you_mean(word, names, "chapters"))


def on_machines(chapter: Chapter) -> bool:
    """Whether a chapter creates the lab's machines, or needs a chapter that does."""
    by_id = {each.id: each for each in ALL}
    return chapter.id == "01-machines" or any(on_machines(by_id[name]) for name in chapter.needs if name in by_id)


def choose(*, first: str = "", last: str = "", only: tuple[str, ...] = ()) -> list[Chapter]:
    """The chapters of a run: all batch chapters, a range of them, or only those named.

    Raises:
        InputError: a chapter is unknown, `only` is combined with a range, or the range is empty.
    """
    if only:
        if first or last:
            raise InputError("--only cannot be combined with --from or --to", fix="remove --from and --to")
        chosen = [find(word) for word in only]
        return [chapter for chapter in ALL if chapter in chosen]
    batch = [chapter for chapter in available() if chapter.batch]
    if not batch:
        raise InputError(f"no notebooks found in {paths.notebooks()}", fix="restore notebooks/ from git")
    start = find(first) if first else batch[0]
    end = find(last) if last else batch[-1]
    picked = [c for c in available() if start.id <= c.id <= end.id and (c.batch or c in (start, end))]
    if not picked:
        raise InputError(f"there are no chapters from {start.number} to {end.number}", fix="swap --from and --to")
    return picked
