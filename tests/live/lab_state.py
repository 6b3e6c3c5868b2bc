"""The state of a lab in words: its objects, files and images, without what differs from lab to lab."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from by_hand import base
from cluster_objects import BY_ITSELF
from stackbook.cluster.image_import import present
from stackbook.cluster.kube import Kube
from stackbook.cluster.problems import pod_problem
from stackbook.core.redact import redact
from stackbook.lab.lab import Lab
from stackbook.machines.transports import Host

Values = Mapping[str, str]
"""The fields of something: its path → its value."""

# What a controller makes for another object, or the cluster for itself; the objects that they are made for are compared.
_MADE = frozenset(
    {"ReplicaSet", "ControllerRevision", "EndpointSlice", "CertificateSigningRequest", "IPAddress", "CSINode", "Job"}
)
# Chosen by the cluster, or written by it.
_CHOSEN = frozenset({
    "uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "selfLink", "status", "ownerReferences",
    "clusterIP", "clusterIPs", "nodePort", "healthCheckNodePort", "caBundle", "nodeName",
})  # fmt: skip
_NOTES = re.compile(
    r"^(kubectl\.kubernetes\.io/(last-applied-configuration|restartedAt)|deployment\.kubernetes\.io/revision"
    r"|deprecated\.daemonset\.template\.generation|control-plane\.alpha\.kubernetes\.io/leader"
    r"|flannel\.alpha\.coreos\.com/backend-(v6-)?data|node\.alpha\.kubernetes\.io/ttl|volumes\.kubernetes\.io/.*)$"
)
_CERTIFICATE = re.compile(r"-----BEGIN [A-Z ]+-----.*?-----END [A-Z ]+-----|LS0tLS1CRUdJTi[A-Za-z0-9+/=]*", re.DOTALL)
_ACCOUNT_TOKEN = re.compile(r"^kube-api-access-\w{5}$")

FILES = (
    "/etc/kubernetes/manifests/*", "/var/lib/kubelet/config.yaml", "/var/lib/kubelet/kubeadm-flags.env", "/etc/cni/net.d/*",
    "/usr/lib/systemd/system/kubelet.service", "/usr/lib/systemd/system/kubelet.service.d/*", "/etc/stackbook/kubeadm*",
    "/etc/stackbook/patches/*", "/run/stackbook/*", "/run/flannel/subnet.env", "/usr/bin/kubelet", "/usr/bin/kubeadm",
    "/usr/bin/kubectl", "/opt/cni/bin/flannel", "/root/istio/bin/istioctl", "/root/.config/fish/completions/kubectl.fish",
)  # fmt: skip
"""Files that the chapters write on machines, or have written. Certificates and kubeconfigs differ from lab to lab."""

_LOOK = r"""
for file in FILES; do
  [ -f "$file" ] && echo "$file mode $(stat -c %a "$file"), sha256 $(sha256sum < "$file" | cut -c -16)"
done
echo "kubelet.service $(systemctl is-enabled kubelet 2>/dev/null), $(systemctl is-active kubelet 2>/dev/null)"
echo "iptables $(iptables -S | grep -c STACKBOOK-TRIAL) rules of a trial"
true
""".replace("FILES", " ".join(FILES))


@dataclass(frozen=True)
class State:
    """What a lab has: a name for each thing, with its fields."""

    things: Mapping[str, Values]


def taken(lab: Lab) -> State:
    """The state of a lab."""
    things = dict(objects(_all(lab.kube)))
    for name, host in lab.machines.items():
        things |= on_machine(name, host)
    return State(things)


def _all(kube: Kube) -> list[dict[str, Any]]:
    kinds = sorted(set(kube.kubectl("api-resources", "--verbs=list", "-o", "name").lines) - BY_ITSELF)
    answer = kube.kubectl("get", ",".join(kinds), "-A", "-o", "json", timeout=120, secret=True)
    return list(json.loads(answer.reveal())["items"])


def objects(items: Iterable[dict[str, Any]]) -> dict[str, Values]:
    """The objects of a cluster by kind, namespace and name. Of a controller's pods, only how many are ready is compared."""
    found: dict[str, Values] = {}
    ready: Counter[str] = Counter()
    for item in items:
        kind, meta = item["kind"], item["metadata"]
        space = f"{meta['namespace']}/" if meta.get("namespace") else ""
        owner = next((o for o in meta.get("ownerReferences", []) if o.get("controller")), None)
        if kind in _MADE or _expires(item):
            continue
        if kind == "Pod" and owner:
            if owner["kind"] != "Job":
                ready[f"Pods of {space}{base(meta['name'])}"] += not pod_problem(item)
            continue
        found[f"{kind} {space}{meta['name']}"] = fields(item)
    return found | {name: {"ready": str(count)} for name, count in ready.items()}


def _expires(item: dict[str, Any]) -> bool:
    """Whether it is one of kubeadm's bootstrap tokens, or the object that is signed with them."""
    token = item.get("type") == "bootstrap.kubernetes.io/token"
    return token or (item["kind"], item["metadata"]["name"]) == ("ConfigMap", "cluster-info")


def fields(item: dict[str, Any]) -> dict[str, str]:
    """What somebody has set in an object: labels, annotations and the rest, without what the cluster chose. Of a Secret, only the keys."""
    meta = item["metadata"]
    kept = {name: value for name, value in item.items() if name not in ("metadata", "apiVersion", "kind", "status")}
    if item["kind"] == "Secret":
        kept = {"type": item.get("type", ""), "keys": sorted(item.get("data") or {})}
    kept |= {"labels": meta.get("labels"), "annotations": meta.get("annotations")}
    return dict(_leaves(kept, ""))


def _leaves(value: Any, path: str) -> Iterable[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, inner in sorted(value.items()):
            if name not in _CHOSEN and not _NOTES.match(name):
                yield from _leaves(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list):
        kept = [i for i in value if not (isinstance(i, Mapping) and _ACCOUNT_TOKEN.match(str(i.get("name", ""))))]
        for number, inner in enumerate(kept):
            yield from _leaves(inner, f"{path}[{number}]")
    elif value not in (None, ""):
        yield path, _CERTIFICATE.sub("a certificate", str(value))


def on_machine(name: str, host: Host) -> dict[str, Values]:
    """The files, the kubelet's unit and the images of a machine."""
    lines = host.run(["sh", "-s"], stdin=_LOOK).lines
    found: dict[str, Values] = {f"{name}: {line.partition(' ')[0]}": {"": line.partition(" ")[2]} for line in lines}
    return found | {f"{name}: image {image}": {"digest": digest} for image, digest in present(host).items()}


def differences(recorded: State, typed: State) -> list[str]:
    """In words, what is different on the lab whose commands were typed; empty if nothing is."""
    said = []
    for name in sorted({*recorded.things, *typed.things}):
        before, after = recorded.things.get(name), typed.things.get(name)
        if after is None or before is None:
            said.append(f"{name}: {'missing after' if after is None else 'only after'} the typed commands")
            continue
        for path in sorted({*before, *after}):
            was, now = before.get(path), after.get(path)
            if was != now:
                where = f"{name}, {path}" if path else name
                said.append(f"{where}: {_quoted(was)} by the chapters, {_quoted(now)} by the typed commands")
    return said


def _quoted(value: str | None) -> str:
    return "nothing" if value is None else f'"{redact(value)[:200]}"'
