"""The cluster's DNS: CoreDNS runs, can read its Corefile, and answers each machine."""

from __future__ import annotations

import re
from collections.abc import Iterator

from stackbook.app.diagnose.findings import Cause
from stackbook.app.diagnose.rules.reading import newest
from stackbook.app.diagnose.snapshot import NOTHING, Snapshot, dig, log_name, named, space
from stackbook.cluster.problems import pod_problem

LAYER = "DNS"
_BROKEN = r"Corefile:\d+ - Error|Error during parsing|plugin/\S+: .*(?:unknown|error)|Unknown directive"


def coredns(snapshot: Snapshot) -> Iterator[Cause]:
    """CoreDNS exists, has replicas, and they are ready."""
    if not snapshot.cluster.listed("deployments") or snapshot.profile.target == "cluster":
        return
    if not snapshot.cluster.items("daemonsets"):
        return  # kubeadm has not installed its addons yet
    found = next((d for d in snapshot.cluster.items("deployments") if named(d) == "coredns"), None)
    again = snapshot.on(snapshot.profile.control_plane.name,
                        "kubeadm init phase addon coredns --config /etc/stackbook/kubeadm.yaml")  # fmt: skip
    if found is None:
        yield Cause("dns-missing", LAYER, "there is no CoreDNS: no name is resolved",
                    ("there is no deployment coredns in kube-system",), again, weight=0)  # fmt: skip
        return
    if dig(found, "spec", "replicas", default=1) == 0:
        yield Cause("dns-scaled", LAYER, "CoreDNS is scaled to 0: no name is resolved",
                    ("deployment coredns: replicas 0",),
                    snapshot.kubectl("-n kube-system scale deployment coredns --replicas=2"), weight=0)  # fmt: skip
    yield from _corefile(snapshot)
    for pod in snapshot.cluster.items("pods"):
        if dig(pod, "metadata", "labels", "k8s-app") == "kube-dns" and (problem := pod_problem(pod)):
            yield Cause("dns-failing", LAYER, f"{named(pod)} is not ready", (problem,),
                        snapshot.kubectl(f"-n kube-system logs {named(pod)} --tail=20"), follows=True, weight=5)  # fmt: skip


def _corefile(snapshot: Snapshot) -> Iterator[Cause]:
    seen = ""
    for pod in snapshot.cluster.items("pods"):
        if dig(pod, "metadata", "labels", "k8s-app") == "kube-dns" and pod_problem(pod):
            log = snapshot.cluster.answers.get(log_name(space(pod), named(pod), "coredns"), NOTHING)
            seen = newest(log.out, _BROKEN) or seen
    config = next((c for c in snapshot.cluster.items("configmaps") if named(c) == "coredns"), {})
    text = str(dig(config, "data", "Corefile", default=""))
    if not seen and config and (not text.strip() or text.count("{") != text.count("}")):
        seen = f"{text.count('{')} opening and {text.count('}')} closing braces"
    if seen:
        yield Cause("dns-corefile", LAYER, "CoreDNS cannot read its Corefile", (seen,),
                    snapshot.kubectl("-n kube-system edit configmap coredns"), weight=0)  # fmt: skip


def address(snapshot: Snapshot) -> Iterator[Cause]:
    """The DNS Service has the address that the kubelets give their pods."""
    service = next((s for s in snapshot.cluster.items("services") if named(s) == "kube-dns"), None)
    for machine in snapshot.up:
        given = re.search(r"^clusterDNS:\s*\n\s*- (\S+)", machine.text("kubelet config"), re.MULTILINE)
        found = dig(service, "spec", "clusterIP", default="")
        if service and given and found and given[1] != found:
            yield Cause("dns-address", LAYER, f"the pods of {machine.name} use another DNS address than that of the DNS Service",
                        (f"kubelet's clusterDNS: {given[1]}", f"Service kube-dns: {found}"),
                        snapshot.on(machine.name, f"sed -i 's/^- {given[1]}$/- {found}/' /var/lib/kubelet/config.yaml; "
                                    "systemctl restart kubelet"), weight=1)  # fmt: skip


def answers(snapshot: Snapshot) -> Iterator[Cause]:
    """Each machine gets an answer."""
    if not snapshot.cluster.items("daemonsets") or snapshot.profile.target == "cluster":
        return
    for machine in snapshot.up:
        answer = machine["DNS"]
        if machine.text("server of kubeconfigs") and snapshot.profile.service_address not in answer.out:
            said = (answer.problem or (answer.out + answer.err).strip() or "nothing").splitlines()[-1]
            yield Cause("dns-silent", LAYER, f"the cluster's DNS does not answer {machine.name}",
                        (f"nslookup kubernetes.default.svc.cluster.local {snapshot.profile.dns_address}: {said}",),
                        snapshot.on(machine.name, "busybox nslookup kubernetes.default.svc.cluster.local "
                                    f"{snapshot.profile.dns_address}"), follows=True, weight=6)  # fmt: skip


RULES = (coredns, address, answers)
