"""Chapter 03: a forwarding entry that is gone, a wrong backend, packets that are dropped on the way."""

from __future__ import annotations

import json
from collections.abc import Sequence

from stackbook.cluster import addresses, flannel
from stackbook.core.errors import CheckFailed, InputError
from stackbook.lab.attempt import Attempt
from stackbook.lab.challenge import Challenge, Claim, Typed, require
from stackbook.lessons.flannel import backend_comparison
from stackbook.machines import facts

_CHAPTER, _NEEDS = "03-flannel", ("03-flannel/ready", "03-flannel/backend")
_DEVICE, _PORT = "flannel.1", 8472


def _vxlan(attempt: Attempt) -> None:
    """Refuse a lab with another backend."""
    if attempt.lab.profile.flannel_backend != "vxlan":
        raise InputError(
            f"challenge {attempt.challenge.id} needs flannel's backend vxlan, and this lab has another",
            fix="set flannel_backend: vxlan in the profile",
        )


def _inside(attempt: Attempt, machine: str) -> str:
    """A machine's address in the pod network: that of its bridge, or of the tunnel device if no pod has run there."""
    found = {i.name: i for i in facts.INTERFACES.read(attempt.lab.machines[machine])}
    device = next((found[name] for name in ("cni0", _DEVICE) if name in found and found[name].addresses), None)
    if device is None:
        raise CheckFailed(f"{machine} has no address in the pod network")
    return str(device.addresses[0]).partition("/")[0]


def _crosses(attempt: Attempt, source: str, target: str) -> str:
    """Ping the other machine's address in the pod network."""
    address = _inside(attempt, target)
    host = attempt.lab.machines[source]
    done = host.run(["ping", "-c", "2", "-i", "0.2", "-W", "1", address], check=False, timeout=15)
    require(done.ok, f"no answer from {address} on {target}")
    return f"{address} answers"


def _both_ways(attempt: Attempt) -> list[Claim]:
    pairs = ((attempt.master, attempt.worker), (attempt.worker, attempt.master))
    return [
        Claim(f"{one} reaches the pod network of {other}", lambda one=one, other=other: _crosses(attempt, one, other))  # type: ignore[misc]
        for one, other in pairs
    ]


# 03-a


def _no_entry(attempt: Attempt) -> None:
    _vxlan(attempt)
    machine = attempt.draw("machine", [attempt.master, attempt.worker])
    far = attempt.worker if machine == attempt.master else attempt.master
    links = json.loads(attempt.lab.machines[far].run(["ip", "-j", "link", "show", _DEVICE]).stdout)
    address = next(node.address for node in attempt.lab.profile.nodes if node.name == far)
    entry = [links[0]["address"], "dev", _DEVICE, "dst", address]
    attempt.note(mac=links[0]["address"], far=far, address=address)
    attempt.undo(machine, "bridge", "fdb", "replace", *entry, "self", "permanent")
    attempt.lab.machines[machine].run(["bridge", "fdb", "del", *entry])


def _entry_claims(attempt: Attempt) -> Sequence[Claim]:
    machine, far, address = (attempt.drawn[name] for name in ("machine", "far", "address"))

    def known() -> str:
        said = attempt.lab.machines[machine].run(["bridge", "fdb", "show", "dev", _DEVICE]).lines
        entries = [line for line in said if f"dst {address}" in line]
        require(entries, f"{_DEVICE} on {machine} has no forwarding entry for {address}")
        return entries[0].strip()

    return [Claim(f"{machine} has a forwarding entry for the tunnel to {far}", known), *_both_ways(attempt)]


def _entry_solution(attempt: Attempt) -> Sequence[Typed]:
    machine, far, address, mac = (attempt.drawn[name] for name in ("machine", "far", "address", "mac"))
    return [
        Typed(f"ip -brief link show {_DEVICE}", on=far),
        Typed(f"bridge fdb show dev {_DEVICE}", on=machine),
        Typed(f"bridge fdb add {mac} dev {_DEVICE} dst {address} self permanent", on=machine),
    ]


# 03-b


def _other_backend(attempt: Attempt) -> None:
    _vxlan(attempt)
    lab = attempt.lab

    def change(item: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
        config = json.loads(item["data"]["net-conf.json"])
        config["Backend"] = {"Type": "host-gw"}
        item["data"]["net-conf.json"] = json.dumps(config, indent=2)
        return item

    attempt.keep_object("daemonset", "kube-flannel-ds", namespace=flannel.NAMESPACE)  # a restart changes an annotation
    attempt.change_object("configmap", "kube-flannel-cfg", change, namespace=flannel.NAMESPACE)
    _restart(attempt)
    for host in lab.machines.values():
        flannel.remove_leftovers(host, keep="host-gw")


def _restart(attempt: Attempt) -> None:
    flags = ("-n", flannel.NAMESPACE)
    attempt.lab.kube.kubectl("rollout", "restart", *flags, flannel.DAEMONSET)
    attempt.lab.kube.wait_rollout(flannel.NAMESPACE, flannel.DAEMONSET, timeout=120)


def _backend_claims(attempt: Attempt) -> Sequence[Claim]:
    lab = attempt.lab

    def configured() -> str:
        found = flannel.running_backend(lab.kube)
        require(found == "vxlan", f"the ConfigMap says {found}")
        return "vxlan"

    def leased() -> str:
        found = {lease.node: lease.backend for lease in flannel.leases(lab.kube)}
        require(set(found.values()) == {"vxlan"}, f"the nodes' leases say {found}")
        return "vxlan on every node"

    def device() -> str:
        without = [n for n, h in lab.machines.items() if _DEVICE not in {i.name for i in facts.INTERFACES.read(h)}]
        require(not without, f"no {_DEVICE} on {', '.join(without)}")
        return f"every machine has {_DEVICE}"

    return [
        Claim("flannel is configured for vxlan", configured),
        Claim("every node announces vxlan in its lease", leased),
        Claim("every machine has the tunnel device", device),
        *_both_ways(attempt),
    ]


def _backend_solution(attempt: Attempt) -> Sequence[Typed]:
    return [
        Typed(
            "kubectl -n kube-flannel get configmap kube-flannel-cfg -o yaml \\\n"
            '  | sed \'s/"Type": "host-gw"/"Type": "vxlan"/\' | kubectl replace -f -'
        ),
        Typed("kubectl -n kube-flannel rollout restart daemonset/kube-flannel-ds"),
        Typed("kubectl -n kube-flannel rollout status daemonset/kube-flannel-ds --timeout=120s"),
    ]


def _backend_back(attempt: Attempt) -> None:
    lab = attempt.lab
    lab.kube.wait_rollout(flannel.NAMESPACE, flannel.DAEMONSET, timeout=120)
    with backend_comparison.restored(lab):
        pass
    for host in lab.machines.values():
        flannel.remove_leftovers(host, keep="vxlan")


# 03-c


def _dropped(attempt: Attempt) -> None:
    _vxlan(attempt)
    machine = attempt.draw("machine", [attempt.master, attempt.worker])
    words = ["PREROUTING", "-p", "udp", "--dport", str(_PORT), "-j", "DROP"]
    script = f"while {' '.join(facts.IPTABLES)} -t raw -D {' '.join(words)} 2>/dev/null; do :; done"
    attempt.undo(machine, "sh", "-c", script)
    attempt.lab.machines[machine].run([*facts.IPTABLES, "-t", "raw", "-I", *words])


def _dropped_claims(attempt: Attempt) -> Sequence[Claim]:
    def answered() -> str:
        name = "kubernetes.default.svc.cluster.local"
        profile = attempt.lab.profile
        silent = []
        for machine, host in attempt.lab.machines.items():
            said = host.run(
                ["timeout", "4", "busybox", "nslookup", name, profile.dns_address], check=False, timeout=20
            ).stdout
            silent += [] if profile.service_address in said else [machine]
        require(not silent, f"DNS does not answer {', '.join(silent)}")
        return "DNS answers every machine"

    return [*_both_ways(attempt), Claim("the cluster's DNS answers every machine", answered)]


def _dropped_solution(attempt: Attempt) -> Sequence[Typed]:
    machine = attempt.drawn["machine"]
    return [
        Typed(f"iptables-save -c | grep {_PORT}", on=machine),
        Typed(f"iptables -t raw -D PREROUTING -p udp --dport {_PORT} -j DROP", on=machine),
    ]


def _dns_back(attempt: Attempt) -> None:
    """Wait until DNS has endpoints again: it lost them while its probes failed."""
    attempt.lab.kube.wait_pods("kube-system", "k8s-app=kube-dns", timeout=90)
    require(addresses.endpoints(attempt.lab.kube, "kube-system", "kube-dns"), "kube-dns has no endpoints")


CHALLENGES = (
    Challenge(
        id="03-a",
        chapter=_CHAPTER,
        title="A tunnel without its other end",
        situation="Both nodes are Ready, and pods on the same node reach each other. But no pod reaches a pod on the other node.",
        goal="Pods on both machines reach each other again, through the tunnel.",
        hints=(
            "Follow the packet as the chapter does: route, neighbour, forwarding entry. Which of them is missing?",
            "`bridge fdb show dev flannel.1` on both machines: one of them does not know which machine has the other's MAC.",
            "Read the MAC of flannel.1 on the far machine, and run `bridge fdb add MAC dev flannel.1 dst ADDRESS` on this one.",
        ),
        begin=_no_entry,
        claims=_entry_claims,
        solution=_entry_solution,
        needs=_NEEDS,
        machines=True,
    ),
    Challenge(
        id="03-b",
        chapter=_CHAPTER,
        title="A wrong backend",
        situation="Somebody has switched flannel to another backend. If the machines were not on the same network, no pod would "
        "reach a pod on another node.",
        goal="flannel uses the backend vxlan again, on every node.",
        hints=(
            "`ip route` on a machine shows which device leads to the other node's pods.",
            "flannel reads its backend from the ConfigMap kube-flannel-cfg, and only when it starts.",
            "Set the Backend's Type to vxlan, then run `kubectl -n kube-flannel rollout restart daemonset/kube-flannel-ds`.",
        ),
        begin=_other_backend,
        claims=_backend_claims,
        solution=_backend_solution,
        needs=_NEEDS,
        machines=True,
        recovered=_backend_back,
    ),
    Challenge(
        id="03-c",
        chapter=_CHAPTER,
        title="Packets that leave and never arrive",
        situation="Routes, neighbours and forwarding entries are all correct. But no packet gets from a pod on one machine to a "
        "pod on the other, and DNS answers only some pods.",
        goal="Packets between the pods of both machines arrive, and DNS answers everywhere.",
        hints=(
            "Capture on both machines: `tcpdump -ni any udp port 8472`. How far do the packets get?",
            "They reach the machine, and its packet filter drops them. `iptables-save -c` shows how many packets each rule matched.",
            "The rule is in the table `raw`. Delete it: `iptables -t raw -D PREROUTING …`.",
        ),
        begin=_dropped,
        claims=_dropped_claims,
        solution=_dropped_solution,
        needs=_NEEDS,
        machines=True,
        recovered=_dns_back,
    ),
)
