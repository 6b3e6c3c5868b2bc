"""Observability: log shippers, Elasticsearch, Prometheus, Jaeger."""

from __future__ import annotations

import re
from collections.abc import Iterator

from stackbook.app.diagnose.findings import Cause
from stackbook.app.diagnose.rules.reading import newest
from stackbook.app.diagnose.snapshot import NOTHING, Snapshot, dig, log_name, named, space

LAYER = "observability"
_NAMES = ("elasticsearch", "kibana", "prometheus", "jaeger")
_REFUSED = r"\b401\b|security_exception|unable to authenticate|failed to authenticate|\b403\b"
_SILENT = r"(?i)couldn't connect|could not connect|connection refused|timed? ?out|suspended|no route to host"


def stores(snapshot: Snapshot) -> Iterator[Cause]:
    """The stores of metrics, traces and logs are ready."""
    for kind in ("deployments", "statefulsets"):
        for item in snapshot.cluster.items(kind):
            wanted, ready = dig(item, "spec", "replicas", default=1), dig(item, "status", "readyReplicas", default=0)
            if named(item) in _NAMES and wanted and not ready:
                yield Cause("store-down", LAYER, f"{named(item)} is not ready: data sent to it waits or is lost",
                            (f"{kind[:-1]} {space(item)}/{named(item)}: {ready} of {wanted} ready",),
                            snapshot.kubectl(f"-n {space(item)} describe pods -l app={named(item)}"), follows=True,
                            weight=0)  # fmt: skip


def shippers(snapshot: Snapshot) -> Iterator[Cause]:
    """Each machine has a shipper, and Elasticsearch accepts what it sends."""
    found = next((d for d in snapshot.cluster.items("daemonsets") if named(d) == "shipper"), None)
    if found is None:
        return
    wanted, ready = (dig(found, "status", name, default=0) for name in ("desiredNumberScheduled", "numberReady"))
    nodes = len(snapshot.cluster.items("nodes"))
    if ready < max(wanted, nodes):
        yield Cause("shipper-stopped", LAYER, f"a log shipper runs on only {ready} of {nodes} nodes",
                    (f"daemonset {space(found)}/shipper: {ready} ready of {wanted}",),
                    snapshot.kubectl(f"-n {space(found)} describe daemonset shipper"), follows=wanted >= nodes,
                    weight=1)  # fmt: skip
    for pod in snapshot.cluster.items("pods"):
        if dig(pod, "metadata", "labels", "app") != "shipper":
            continue
        container = str(dig(pod, "spec", "containers", 0, "name", default=""))
        text = snapshot.cluster.answers.get(log_name(space(pod), named(pod), container), NOTHING).out
        last = "\n".join(text.splitlines()[-10:])
        if said := newest(last, _REFUSED):
            yield Cause("shipper-refused", LAYER, f"Elasticsearch refuses what {named(pod)} sends: its password is not valid",
                        (said,), snapshot.kubectl(f"-n {space(pod)} rollout restart daemonset shipper"), weight=1)  # fmt: skip
        elif (said := newest(last, _SILENT)) and re.search(r"(?i)elasticsearch|omelasticsearch|http", said):
            yield Cause("shipper-waiting", LAYER, f"{named(pod)} does not reach Elasticsearch, and queues its lines", (said,),
                        snapshot.kubectl(f"-n {space(pod)} get pods -o wide"), follows=True, weight=2)  # fmt: skip


RULES = (stores, shippers)
