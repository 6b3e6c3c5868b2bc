"""Chapter 04's proofs: what a pod, a node and the API server do, read from the live cluster."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from stackbook.cluster import own_namespaces
from stackbook.cluster.manifests import render
from stackbook.cluster.problems import pod_problem
from stackbook.core.errors import CheckFailed, CommandFailed
from stackbook.core.results import Result
from stackbook.core.waiting import until

if TYPE_CHECKING:
    from stackbook.lab.lab import Lab

NAMESPACE = "tour"


@contextmanager
def namespace(lab: Lab, name: str = NAMESPACE) -> Iterator[str]:
    """A namespace that lasts as long as the block; one left over by a run that was killed is deleted first.

    Raises:
        InputError: a namespace of this name is somebody else's.
    """
    with own_namespaces.temporary(lab.kube, name):
        yield name


def refused(lab: Lab, *args: str, stdin: str | None = None) -> str:
    """The first error line of a kubectl command that must be refused.

    Raises:
        CheckFailed: it was accepted.
    """
    answer = lab.kube.kubectl(*args, check=False, stdin=stdin)
    if answer.ok:
        raise CheckFailed(f"{answer.command} was accepted, and should have been refused")
    return next((x for x in answer.stderr.splitlines() if "error" in x.lower()), answer.stderr.strip())


def deploy(lab: Lab, replicas: int) -> list[str]:
    """Apply myapp twice: what kubectl says the second time shows that applying is idempotent (K28)."""
    text = render("myapp.yaml", image_myapp=lab.images.reference("echo")).replace(
        "replicas: 2", f"replicas: {replicas}"
    )
    lab.kube.kubectl("apply", "-n", NAMESPACE, "-f", "-", stdin=text)
    lab.kube.wait_pods(NAMESPACE, "app=myapp", count=replicas, timeout=90)
    return lab.kube.kubectl("apply", "-n", NAMESPACE, "-f", "-", stdin=text).lines


def pods(lab: Lab) -> list[dict[str, Any]]:
    """Myapp's pods: name, pod IP and the node's slice that it lies in, host IP."""
    slices = {n["metadata"]["name"]: n["spec"].get("podCIDR", "") for n in lab.kube.nodes()}
    return [
        {"pod": p["metadata"]["name"], "node": p["spec"]["nodeName"], "pod IP": p["status"]["podIP"],
         "slice of the node": slices[p["spec"]["nodeName"]], "host IP": p["status"]["hostIP"]}
        for p in lab.kube.pods(NAMESPACE, "app=myapp")
    ]  # fmt: skip


def page(lab: Lab, address: str, path: str = "/") -> Result:
    """A page of myapp, asked for from the control plane's machine."""
    return lab.control_plane.run(["curl", "-sS", "-m", "5", f"http://{address}{path}"], check=False)


def replaced(lab: Lab) -> dict[str, Any]:
    """Delete one pod and watch another take its place (K43, K62): addresses before and after, and the service's."""
    before = pods(lab)
    service = service_address(lab)
    victim = before[0]
    lab.kube.kubectl("delete", "pod", "-n", NAMESPACE, victim["pod"], "--wait=false")

    def back() -> list[dict[str, Any]]:
        now = lab.kube.pods(NAMESPACE, "app=myapp")
        names = {p["metadata"]["name"] for p in now}
        done = victim["pod"] not in names and len(now) == len(before) and not any(pod_problem(p) for p in now)
        return now if done else []

    until(
        back,
        what="the deleted pod is replaced",
        timeout=60,
        every=0.3,
        cause=lambda: lab.kube.explain(NAMESPACE, "app=myapp"),
    )
    after = pods(lab)
    new = [p for p in after if p["pod"] not in {b["pod"] for b in before}]
    return {"deleted": victim["pod IP"], "its replacement": new[0]["pod IP"], "service before": service,
            "service after": service_address(lab)}  # fmt: skip


def service_address(lab: Lab, name: str = "myapp") -> str:
    """A service's ClusterIP."""
    return lab.kube.kubectl("get", "svc", name, "-n", NAMESPACE, "-o", "jsonpath={.spec.clusterIP}").stdout


# nodes and their programs


def roles(lab: Lab) -> list[dict[str, Any]]:
    """Each node's labels of role: today's, and the guide's (K46)."""
    label = "node-role.kubernetes.io/"
    return [
        {"node": n["metadata"]["name"], "control-plane label": f"{label}control-plane" in n["metadata"]["labels"],
         "master label": f"{label}master" in n["metadata"]["labels"]}
        for n in lab.kube.nodes()
    ]  # fmt: skip


def actors(lab: Lab) -> list[dict[str, str]]:
    """Who did what to myapp's pods, by the events' own sources (K49, K51, K52, K53)."""
    wanted = {
        "Scheduled": "bound the pod to a node",
        "ScalingReplicaSet": "made the ReplicaSet",
        "SuccessfulCreate": "made the pod",
        "Started": "started the container",
    }

    def complete() -> list[dict[str, str]]:
        events = lab.kube.json("get", "events", "-n", NAMESPACE)["items"]
        found = {}
        for event in events:
            if event["reason"] in wanted:
                source = event.get("reportingComponent") or event.get("source", {}).get("component", "")
                found[event["reason"]] = str(source)
        rows = [{"event": k, "who": found.get(k, ""), "what": v} for k, v in wanted.items()]
        return rows if all(r["who"] for r in rows) else []

    return until(complete, what="events of scheduler, controllers and kubelet", timeout=20, every=0.5)


def evict(lab: Lab) -> dict[str, Any]:
    """Evict a pod by the API, and ask whether the scheduler might do that at all (K50)."""
    from kubernetes import client

    name = lab.kube.pods(NAMESPACE, "app=myapp")[0]["metadata"]["name"]
    body = client.V1Eviction(metadata=client.V1ObjectMeta(name=name, namespace=NAMESPACE))
    lab.kube.api.create_namespaced_pod_eviction(name, NAMESPACE, body)
    answer = lab.kube.kubectl("get", "pod", name, "-n", NAMESPACE, "-o", "json", check=False)
    conditions = json.loads(answer.stdout)["status"].get("conditions", []) if answer.ok else []
    reasons = [c.get("reason", "") for c in conditions if c["type"] == "DisruptionTarget"]
    may = lab.kube.kubectl("auth", "can-i", "create", "pods/eviction", "-n", NAMESPACE, "--as=system:kube-scheduler",
                           check=False).stdout.strip()  # fmt: skip
    return {"reason on the pod": reasons[0] if reasons else "", "may the scheduler evict?": may}


def restarted(lab: Lab) -> dict[str, int]:
    """Kill a container's process on its node: the kubelet starts it again (K53). Restarts before and after."""
    from stackbook.lessons.flannel.packet_path import container_pid

    pod = lab.kube.pods(NAMESPACE, "app=two")[0]
    host = lab.machines[pod["spec"]["nodeName"]]
    before = _restarts(pod)
    host.run(["kill", "-KILL", str(container_pid(host, pod))])
    until(
        lambda: _restarts(lab.kube.pods(NAMESPACE, "app=two")[0]) > before,
        what="the kubelet has started the container again",
        timeout=60,
        every=0.3,
    )
    lab.kube.wait_pods(NAMESPACE, "app=two", count=1, timeout=30)
    return {"before": before, "after": _restarts(lab.kube.pods(NAMESPACE, "app=two")[0])}


def _restarts(pod: dict[str, Any]) -> int:
    return sum(int(c["restartCount"]) for c in pod["status"].get("containerStatuses", []))


def proxy_modes(lab: Lab) -> dict[str, str]:
    """kube-proxy's mode on each node, as it says itself (K55)."""
    ask = ["curl", "-sS", "-m", "5", "http://localhost:10249/proxyMode"]
    return {name: host.run(ask).stdout.strip() for name, host in lab.machines.items()}


def any_order(lab: Lab) -> dict[str, bool]:
    """Whether a manifest is accepted with apiVersion as its last line, and without it (K48)."""
    last = "metadata: {name: order}\ndata: {}\nkind: ConfigMap\napiVersion: v1\n"
    without = last.replace("apiVersion: v1\n", "")
    ask = ("apply", "-n", NAMESPACE, "--dry-run=server", "-f", "-")
    return {
        "apiVersion in the last line": lab.kube.kubectl(*ask, stdin=last, check=False).ok,
        "no apiVersion": lab.kube.kubectl(*ask, stdin=without, check=False).ok,
    }


# pods


def two(lab: Lab) -> list[dict[str, Any]]:
    """A pod of two containers: what they share, read from the kernel and by use (K56, K57, K58, K69)."""
    lab.kube.kubectl(
        "apply", "-n", NAMESPACE, "-f", "-", stdin=render("tour.yaml", image_tools=lab.images.reference("tools"))
    )
    lab.kube.wait_pods(NAMESPACE, "app=two", count=1, timeout=60)
    pod = lab.kube.pods(NAMESPACE, "app=two")[0]
    host = lab.machines[pod["spec"]["nodeName"]]
    tasks = {line.split()[0]: line.split()[1] for line in host.run(["ctr", "-n", "k8s.io", "tasks", "ls"]).lines[1:]}
    pids = {
        c["name"]: tasks[c["containerID"].removeprefix("containerd://")] for c in pod["status"]["containerStatuses"]
    }
    rows = []
    for kind, meaning in (("net", "addresses and ports"), ("ipc", "shared memory"), ("uts", "host name"),
                          ("mnt", "file system"), ("pid", "process numbers")):  # fmt: skip
        seen = {host.run(["readlink", f"/proc/{pid}/ns/{kind}"]).stdout.strip() for pid in pids.values()}
        rows.append({"namespace": kind, "what it holds": meaning, "shared by a and b": len(seen) == 1})
    localhost = lab.kube.exec(NAMESPACE, "two", "wget", "-qO-", "http://localhost:8080/page", container="b")
    volume = lab.kube.exec(NAMESPACE, "two", "cat", "/shared/page", container="b")
    rows.append({"namespace": "–", "what it holds": "b reads a's page on localhost",
                 "shared by a and b": localhost.stdout == "written by a\n"})  # fmt: skip
    rows.append({"namespace": "–", "what it holds": "b reads a's file in the volume",
                 "shared by a and b": volume.stdout == "written by a\n"})  # fmt: skip
    return rows


def views(lab: Lab) -> list[dict[str, Any]]:
    """How many pods each node's runtime knows, against how many the cluster knows (K42): sets, not only numbers."""
    every = {(p["metadata"]["namespace"], p["metadata"]["name"]): p["spec"].get("nodeName")
             for p in lab.kube.json("get", "pods", "-A")["items"] if p["status"].get("phase") == "Running"}  # fmt: skip
    rows = []
    for name, host in lab.machines.items():
        mine = {k for k, node in every.items() if node == name}
        known = {m for m in _sandboxes(host) if m in every}
        rows.append({"view": f"containerd on {name}", "sees only its own pods": known <= mine and bool(known)})
    rows.append({"view": "the API server", "sees only its own pods": len(set(every.values())) == 1})
    return rows


def _sandboxes(host: Any) -> set[tuple[str, str]]:
    """(namespace, pod) of each container on a machine, from the labels that the kubelet sets."""
    found = set()
    for identifier in host.run(["ctr", "-n", "k8s.io", "containers", "ls", "-q"]).lines:
        answer = host.run(["ctr", "-n", "k8s.io", "containers", "info", identifier], check=False)
        if answer.ok:
            labels = json.loads(answer.stdout).get("Labels") or {}
            if "io.kubernetes.pod.name" in labels:
                found.add((labels["io.kubernetes.pod.namespace"], labels["io.kubernetes.pod.name"]))
    return found


def unlabelled(lab: Lab) -> dict[str, bool]:
    """Take a pod's label away: it leaves the service and goes on running (K69)."""
    name = lab.kube.pods(NAMESPACE, "app=myapp")[0]["metadata"]["name"]
    lab.kube.kubectl("label", "pod", "-n", NAMESPACE, name, "app-")

    def gone() -> bool:
        return name not in {e["targetRef"]["name"] for e in endpoints(lab)}

    until(gone, what=f"{name} has left the EndpointSlice", timeout=30, every=0.2)
    phase = lab.kube.kubectl("get", "pod", "-n", NAMESPACE, name, "-o", "jsonpath={.status.phase}").stdout
    left = gone()  # asked again: a pod that goes on running does not come back into the service
    lab.kube.kubectl("delete", "pod", "-n", NAMESPACE, name, "--wait=false")
    return {"left the service": left, "still running": phase == "Running"}


def endpoints(lab: Lab, service: str = "myapp") -> list[dict[str, Any]]:
    """The endpoints of a service that are ready, from its EndpointSlices."""
    slices = lab.kube.json("get", "endpointslices", "-n", NAMESPACE, "-l", f"kubernetes.io/service-name={service}")
    return [e for s in slices["items"] for e in (s.get("endpoints") or []) if e["conditions"].get("ready")]


# the API


def api_resources(lab: Lab) -> list[dict[str, str]]:
    """The kinds that the guide's listing names, as today's `kubectl api-resources` has them."""
    wanted = ["bindings", "componentstatuses", "configmaps", "endpoints", "events", "limitranges", "namespaces", "nodes",
              "persistentvolumeclaims", "persistentvolumes", "pods"]  # fmt: skip
    lines = lab.kube.kubectl("api-resources").lines
    columns = [(m.start(), m.group()) for m in re.finditer(r"\S+", lines[0])]
    rows = []
    for line in lines[1:]:
        if line.split()[0] in wanted and " v1 " in line:
            ends = [start for start, _ in columns[1:]] + [len(line)]
            rows.append({name: line[start:end].strip() for (start, name), end in zip(columns, ends, strict=True)})
    return rows


def api_versions(lab: Lab) -> list[dict[str, Any]]:
    """The versions that the guide's listing names, and whether they are served today (F19)."""
    served = set(lab.kube.kubectl("api-versions").lines)
    listed = ["admissionregistration.k8s.io/v1", "admissionregistration.k8s.io/v1beta1", "apiextensions.k8s.io/v1",
              "apiextensions.k8s.io/v1beta1", "apiregistration.k8s.io/v1", "apiregistration.k8s.io/v1beta1", "apps/v1"]  # fmt: skip
    return [{"version in the guide": v, "served today": v in served} for v in listed]


def rest_call(lab: Lab) -> str:
    """The request that `kubectl get deployment` makes, as it logs it (K70)."""
    answer = lab.kube.kubectl("get", "deployment", "myapp", "-n", NAMESPACE, "-v=8")
    found = re.search(r'verb="GET" url="[^"]*?(/apis/[^"?]+)|GET [^ ]*?(/apis/[^ ?"]+)', answer.stderr)
    if not found:
        raise CheckFailed("kubectl -v=8 logged no GET of the deployment")
    return f"GET {found.group(1) or found.group(2)}"


def stored(lab: Lab, key: str) -> list[str]:
    """Keys in etcd under a prefix (K71), asked with etcdctl in etcd's own pod."""
    pki = "/etc/kubernetes/pki/etcd"
    answer = lab.kube.exec(
        "kube-system", f"etcd-{lab.profile.control_plane.name}", "etcdctl", f"--cacert={pki}/ca.crt",
        f"--cert={pki}/server.crt", f"--key={pki}/server.key", "get", key, "--prefix", "--keys-only", check=False,
    )  # fmt: skip
    if not answer.ok:
        raise CommandFailed(answer)
    return answer.lines


def documented(lab: Lab, *fields: str) -> list[dict[str, str]]:
    """What `kubectl explain` says of fields: kind of the field, and the first line about it."""
    rows = []
    for field in fields:
        text = lab.kube.kubectl("explain", field).stdout
        kind = re.search(r"^(?:FIELD|RESOURCE|KIND): +(.+)$", text, re.MULTILINE)
        about = re.search(r"^DESCRIPTION:\n\s+(.+?)(?:\.\s|\n\s*\n)", text, re.MULTILINE | re.DOTALL)
        rows.append({"kubectl explain": field, "is": kind.group(1).strip() if kind else "",
                     "about": " ".join(about.group(1).split())[:110] if about else ""})  # fmt: skip
    return rows


def inside(address: str, network: str) -> bool:
    """Whether an address lies in a network."""
    import ipaddress

    return ipaddress.ip_address(address) in ipaddress.ip_network(network, strict=False)


# The guide's table (F17): fourteen technologies with their roles, and the chapter that has each in this lab.
STACK: list[dict[str, str]] = [
    {"technology": name, "role": role, "chapter": chapter}
    for name, role, chapter in (
        ("docker-compose", "container deployment", "not yet (the guide uses it for Gitea and Drone only)"),
        ("Kubernetes", "container orchestration", "02, 04"),
        ("istio", "service mesh", "05, 06, 07"),
        ("flannel", "building the subnet", "03"),
        ("jaeger", "call-chain tracing", "not yet"),
        ("Prometheus", "metrics system", "not yet"),
        ("EFK", "log collection, storage, query", "not yet"),
        ("grpc+protobuf", "communication between service layers", "08, 09"),
        ("gin", "exposing the application-layer interface", "not yet (the guide never describes it)"),
        ("mysql", "storage layer", "not yet (the guide never describes it)"),
        ("redis", "cache layer", "not yet (the guide never describes it)"),
        ("kafka", "message queue as communication bus", "not yet"),
        ("swagger", "document management", "not yet"),
        ("gitlab", "CI/CD", "not yet (the guide itself uses Gitea and Drone)"),
    )
]
