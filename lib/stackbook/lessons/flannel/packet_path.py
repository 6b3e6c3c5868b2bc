"""A packet's path from a pod on one machine to a pod on another: every station, read from the live system."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stackbook.cluster import flannel, own_namespaces
from stackbook.cluster.manifests import render
from stackbook.cluster.problems import pod_problem
from stackbook.core.errors import CheckFailed, CommandFailed
from stackbook.core.results import Result
from stackbook.core.waiting import pause, until
from stackbook.machines import facts
from stackbook.machines.transports import Host

if TYPE_CHECKING:
    from stackbook.lab.lab import Lab

NAMESPACE = "walk"


@dataclass(frozen=True)
class End:
    """A pod as one end of the path: `pid` is a process in its network namespace, on its node."""

    node: str
    pod: str
    address: str
    pid: int


def container_pid(host: Host, pod: Mapping[str, Any]) -> int:
    """The process id of the pod's first container, on the node.

    Raises:
        CheckFailed: containerd has no running task of that container.
    """
    wanted = pod["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
    for line in host.run(["ctr", "-n", "k8s.io", "tasks", "ls"]).lines[1:]:
        words = line.split()
        if words[0] == wanted:
            return int(words[1])
    raise CheckFailed(f"containerd on {host.name} runs no container {wanted[:12]} of {pod['metadata']['name']}")


@contextmanager
def walkers(lab: Lab) -> Iterator[dict[str, End]]:
    """Run one pod on each node while the block runs; pods that a killed run left behind are deleted first.

    Raises:
        InputError: a namespace of this name exists and is not the lab's.
    """
    with own_namespaces.temporary(lab.kube, NAMESPACE):
        lab.kube.apply(render("walkers.yaml", image_echo=lab.images.reference("echo")))
        yield ends(lab)


def alone(lab: Lab) -> str:
    """Why no packet can be followed from machine to machine; empty if there are two or more."""
    return (
        ""
        if len(lab.profile.nodes) > 1
        else "this lab has one machine: there is no other one to which a packet could go"
    )


def ends(lab: Lab, *, other_than: frozenset[str] = frozenset()) -> dict[str, End]:
    """The Ready walkers, by node, the control plane first; without the pods named in `other_than`."""

    def fresh() -> dict[str, Any]:
        pods = lab.kube.pods(NAMESPACE, "app=walker")
        ready = {
            p["spec"]["nodeName"]: p for p in pods if not pod_problem(p) and p["metadata"]["name"] not in other_than
        }
        return ready if len(ready) == len(lab.profile.nodes) else {}

    by_node = until(fresh, what="a walker to be Ready on each node", timeout=300, every=0.2,
                    cause=lambda: lab.kube.explain(NAMESPACE, "app=walker"), tolerate=(CommandFailed,))  # fmt: skip
    return {
        name: End(name, by_node[name]["metadata"]["name"], by_node[name]["status"]["podIP"],
                  container_pid(host, by_node[name]))
        for name, host in lab.machines.items()
    }  # fmt: skip


def renew(lab: Lab) -> dict[str, End]:
    """Recreate the walkers, because a pod keeps its MTU from its creation."""
    old = frozenset(p["metadata"]["name"] for p in lab.kube.pods(NAMESPACE, "app=walker"))
    lab.kube.kubectl("delete", "pods", "-n", NAMESPACE, "--all", "--grace-period=0", "--force", "--wait=false")
    return ends(lab, other_than=old)


def inside(host: Host, end: End, *argv: str, check: bool = True, timeout: float = 60.0) -> Result:
    """Run a program of the machine in a pod's network namespace."""
    return host.run(["nsenter", "-t", str(end.pid), "-n", *argv], check=check, timeout=timeout)


def stations(lab: Lab, source: End, target: End) -> list[dict[str, str]]:
    """The path by VXLAN, station by station: what decides the next hop, and the command that shows it.

    Raises:
        CheckFailed: a station is missing, so no packet can pass.
    """
    here, there = lab.machines[source.node], lab.machines[target.node]
    route = json.loads(inside(here, source, "ip", "-j", "route", "get", target.address).stdout)[0]
    forward = json.loads(here.run(["ip", "-j", "route", "get", target.address]).stdout)[0]
    device = str(forward["dev"])
    gateway = str(forward.get("gateway", ""))
    neighbours = facts.parse_json(here.run(["ip", "-j", "neigh", "show", "dev", device]).stdout)
    vtep = next((str(n["lladdr"]) for n in neighbours if n["dst"] == gateway and "lladdr" in n), "")
    table = facts.parse_json(here.run(["bridge", "-j", "fdb", "show", "dev", device]).stdout)
    outer = next((str(e["dst"]) for e in table if e["mac"] == vtep and "dst" in e), "")
    last = json.loads(there.run(["ip", "-j", "route", "get", target.address]).stdout)[0]
    for name, value in (("a gateway", gateway), ("the gateway's MAC address", vtep), ("the node of that MAC", outer)):
        if not value:
            raise CheckFailed(f"{source.node} has no {name} for {target.address}")
    return [
        {"station": f"pod on {source.node}", "question": "where to?", "answer": f"{source.address} → {target.address}, "
         f"by {route['dev']} to {route['gateway']}", "shown by": "ip route get, in the pod"},
        {"station": f"{source.node}: cni0", "question": "which device and gateway?",
         "answer": f"{device}, via {gateway}", "shown by": "ip route get"},
        {"station": f"{source.node}: {device}", "question": "which MAC does the gateway have?", "answer": vtep,
         "shown by": f"ip neigh show dev {device}"},
        {"station": f"{source.node}: {device}", "question": "which machine has that MAC?", "answer": outer,
         "shown by": f"bridge fdb show dev {device}"},
        {"station": f"{source.node} → {target.node}", "question": "what goes over the wire?",
         "answer": f"UDP to {outer}:8472, with the whole frame inside", "shown by": "tcpdump -nn udp port 8472"},
        {"station": f"{target.node}: {last['dev']}", "question": "which pod?", "answer": target.address,
         "shown by": "ip route get"},
    ]  # fmt: skip


def capture(lab: Lab, source: End, target: End, *, packets: int = 4) -> list[flannel.Packet]:
    """Ping from pod to pod, and read the encapsulated packets between the machines.

    Args:
        source, target: the two ends.
        packets: how many packets to wait for, for at most 10 s.

    Raises:
        CheckFailed: tcpdump could not capture; with its message.
        TransportError, WaitTimeout: the machine did not answer.
    """
    here = lab.machines[source.node]
    device = next(r["dev"] for r in facts.ROUTES.read(here) if r.get("dst") == "default")
    # Only pings: after the headers of UDP (8 bytes), VXLAN (8) and Ethernet (14), the inner IP header names its protocol.
    pings = "udp port 8472 and udp[39] = 1"
    command = ["timeout", "10", "tcpdump", "-l", "-nn", "-i", device, "-c", str(packets), pings]
    with ThreadPoolExecutor(1) as pool:
        watch = pool.submit(here.run, command, check=False, timeout=20)
        pause(0.7)  # tcpdump opens its socket; a missed packet is sent again below
        while not watch.done():
            inside(here, source, "ping", "-c", "2", "-i", "0.2", "-W", "1", target.address, check=False)
        caught = watch.result()
    if "listening on" not in caught.stderr:
        raise CheckFailed(f"tcpdump on {device} of {here.name} did not start: {caught.stderr.strip()[-300:]}")
    found = flannel.parse_capture(caught.stdout)
    return [p for p in found if {p.inner_source, p.inner_target} == {source.address, target.address}]


def without_flanneld(lab: Lab, source: End, target: End, *, count: int = 15) -> dict[str, Any]:
    """Ping while flanneld is stopped on both machines (SIGSTOP, then SIGCONT): the kernel forwards the packets (K110)."""
    hosts = [lab.machines[source.node], lab.machines[target.node]]
    try:
        for host in hosts:
            host.run(["pkill", "-STOP", "-x", "flanneld"])  # by name: a learner's flanneld has another number
        said = inside(
            hosts[0], source, "ping", "-q", "-i", "0.2", "-c", str(count), "-W", "1", target.address, check=False
        )
        states = [h.run(["ps", "-o", "state=", "-C", "flanneld"]).stdout.strip() for h in hosts]
    finally:
        for host in hosts:
            host.run(["pkill", "-CONT", "-x", "flanneld"], check=False)
    received = next((int(line.split(",")[1].split()[0]) for line in said.lines if "received" in line), 0)
    return {"flanneld stopped on both": all(s.startswith("T") for s in states), "sent": count, "received": received}


def rtt_milliseconds(text: str) -> list[float]:
    """The round-trip times in ping's output, in milliseconds."""
    import re

    return [float(value) for value in re.findall(r"time=([\d.]+) ms", text)]
