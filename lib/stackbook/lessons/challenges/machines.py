"""Chapter 01: a name with a wrong address, packets that are not forwarded, two machines with the same name."""

from __future__ import annotations

import re
from collections.abc import Sequence

from stackbook.lab.attempt import Attempt
from stackbook.lab.challenge import Challenge, Claim, Typed, require
from stackbook.machines import facts, identity

_CHAPTER, _NEEDS = "01-machines", ("01-machines/running",)
_HOSTS, _SYSCTLS = "/etc/hosts", "/etc/sysctl.d/k8s.conf"
_FORWARD = "net.ipv4.ip_forward"


# 01-a


def _wrong_name(attempt: Attempt) -> None:
    address = attempt.lab.profile.control_plane.address
    wrong = attempt.draw("address", ["192.0.2.3", "198.51.100.3", "203.0.113.3"])
    attempt.change_file(attempt.worker, _HOSTS, lambda text: text.replace(address, wrong))


def _name_claims(attempt: Attempt) -> Sequence[Claim]:
    host, name = attempt.lab.machines[attempt.worker], attempt.master
    address = attempt.lab.profile.control_plane.address

    def resolved() -> str:
        said = host.run(["getent", "ahostsv4", name], check=False).stdout.split()
        require(said[:1] == [address], f"{name} resolves to {said[0] if said else 'nothing'}, not to {address}")
        return address

    def reached() -> str:
        done = host.run(["ping", "-c", "1", "-W", "2", name], check=False, timeout=15)
        require(done.ok, f"{name} does not answer a ping")
        return "answered"

    return [
        Claim(f"{attempt.worker} resolves {name} to {address}", resolved),
        Claim(f"{attempt.worker} reaches {name} by its name", reached),
    ]


def _name_solution(attempt: Attempt) -> Sequence[Typed]:
    address, wrong = attempt.lab.profile.control_plane.address, attempt.drawn["address"]
    # It edits a copy: in a machine that is a container, /etc/hosts is a mount, which sed -i cannot replace.
    return [
        Typed("grep -n . /etc/hosts", on=attempt.worker),
        Typed(f"sed 's/{re.escape(wrong)}/{address}/' /etc/hosts > /tmp/hosts", on=attempt.worker),
        Typed("cat /tmp/hosts > /etc/hosts && rm /tmp/hosts", on=attempt.worker),
    ]


# 01-b


def _no_forwarding(attempt: Attempt) -> None:
    machine = attempt.worker
    attempt.undo(machine, "sysctl", "-q", "-w", f"{_FORWARD}=1")
    attempt.change_file(machine, _SYSCTLS, lambda text: re.sub(rf"({re.escape(_FORWARD)}\s*=\s*)1", r"\g<1>0", text))
    attempt.lab.machines[machine].run(["sysctl", "-q", "-w", f"{_FORWARD}=0"])


def _forwarding_claims(attempt: Attempt) -> Sequence[Claim]:
    host = attempt.lab.machines[attempt.worker]

    def now() -> str:
        value = facts.sysctl(_FORWARD).read(host)
        require(value == "1", f"{_FORWARD} = {value}")
        return f"{_FORWARD} = {value}"

    def forwarded() -> str:
        """Send packets from a separate network namespace; only a machine that forwards lets them out."""
        script = (
            "n=challenge; trap 'ip netns del $n 2>/dev/null; ip link del chal0 2>/dev/null' EXIT; ip netns add $n; "
            "ip link add chal0 type veth peer name chal1 netns $n; ip addr add 192.0.2.1/30 dev chal0; "
            "ip link set chal0 up; ip -n $n addr add 192.0.2.2/30 dev chal1; ip -n $n link set chal1 up; "
            "ip -n $n route add default via 192.0.2.1; cat /proc/net/snmp | awk '/^Ip:/ {print $7}' | tail -1; "
            f"ip netns exec $n ping -c 2 -i 0.2 -W 1 {attempt.lab.profile.control_plane.address} >/dev/null; "
            "cat /proc/net/snmp | awk '/^Ip:/ {print $7}' | tail -1"
        )
        said = host.run(["sh", "-c", script], check=False, timeout=30).lines
        counts = [int(line) for line in said if line.strip().isdigit()]
        passed = len(counts) == 2 and counts[1] - counts[0] >= 2
        require(passed, f"{attempt.worker} does not forward packets from another network")
        return "it forwarded two packets"

    def lasting() -> str:
        said = host.run(["sh", "-c", "cat /etc/sysctl.d/*.conf /etc/sysctl.conf 2>/dev/null"], check=False).stdout
        values = re.findall(rf"^\s*{re.escape(_FORWARD)}\s*=\s*(\d)", said, re.MULTILINE)
        later = values[-1] if values else "not set"
        require(values and set(values) == {"1"}, f"in /etc/sysctl.d and /etc/sysctl.conf, {_FORWARD} is {later}")
        return "/etc/sysctl.d says 1"

    return [
        Claim(f"{_FORWARD} is 1 on {attempt.worker}", now),
        Claim(f"{attempt.worker} forwards packets from another network", forwarded),
        Claim("the setting survives a restart", lasting),
    ]


def _forwarding_solution(attempt: Attempt) -> Sequence[Typed]:
    return [
        Typed(f"grep -rn {_FORWARD} /etc/sysctl.d", on=attempt.worker),
        Typed(f"sed -i 's/^{_FORWARD} *= *0/{_FORWARD} = 1/' {_SYSCTLS}", on=attempt.worker),
        Typed(f"sysctl -p {_SYSCTLS}", on=attempt.worker),
    ]


# 01-c


def _twin(attempt: Attempt) -> None:
    machine = attempt.worker
    attempt.undo(machine, "hostname", machine)
    attempt.change_file(machine, "/etc/hostname", lambda _: f"{attempt.master}\n")
    attempt.lab.machines[machine].run(["hostname", attempt.master])


def _twin_claims(attempt: Attempt) -> Sequence[Claim]:
    def apart() -> str:
        found = identity.twins(identity.identities(attempt.lab.machines))
        require(not found, "; ".join(found))
        return "nothing is shared"

    def own() -> str:
        name = facts.HOSTNAME.read(attempt.lab.machines[attempt.worker])
        require(name == attempt.worker, f"its host name is {name}")
        return attempt.worker

    def lasting() -> str:
        text = attempt.lab.machines[attempt.worker].read("/etc/hostname").strip()
        require(text == attempt.worker, f"/etc/hostname says {text}")
        return "/etc/hostname agrees"

    return [
        Claim("no two machines share a name, a MAC, a product_uuid or a machine-id", apart),
        Claim(f"the host name of {attempt.worker} is its own", own),
        Claim("the host name survives a restart", lasting),
    ]


def _twin_solution(attempt: Attempt) -> Sequence[Typed]:
    return [
        Typed("hostname; cat /etc/hostname", on=attempt.worker),
        Typed(f"echo {attempt.worker} > /etc/hostname && hostname -F /etc/hostname", on=attempt.worker),
    ]


CHALLENGES = (
    Challenge(
        id="01-a",
        chapter=_CHAPTER,
        title="A name that leads nowhere",
        situation="The worker no longer reaches the control plane by its name, though it still does by its address.",
        goal="The worker resolves the control plane's name to the right address, and reaches it.",
        hints=(
            "On the worker, compare `getent hosts k8s-master` with the address in the profile.",
            "A name is looked up in /etc/hosts before any DNS server is asked: see `hosts:` in /etc/nsswitch.conf.",
            "Correct the line of k8s-master in the worker's /etc/hosts. Write into the file: it is a mount and cannot be replaced.",
        ),
        begin=_wrong_name,
        claims=_name_claims,
        solution=_name_solution,
        needs=_NEEDS,
        machines=True,
    ),
    Challenge(
        id="01-b",
        chapter=_CHAPTER,
        title="A machine that keeps packets to itself",
        situation="The worker answers every ping, but it drops packets from another network that are for somebody else.",
        goal="The worker forwards packets, now and after its next start.",
        hints=(
            "Pods have a network of their own, so a node is a router. Which kernel parameter makes it forward packets?",
            "`sysctl net.ipv4.ip_forward` shows the value now. The files in /etc/sysctl.d set it at the next start.",
            "Set net.ipv4.ip_forward to 1 in the file, and load the file with `sysctl -p FILE`.",
        ),
        begin=_no_forwarding,
        claims=_forwarding_claims,
        solution=_forwarding_solution,
        needs=_NEEDS,
        machines=True,
    ),
    Challenge(
        id="01-c",
        chapter=_CHAPTER,
        title="Twins",
        situation="Two machines of the lab share something that must be unique. kubeadm could not tell their nodes apart.",
        goal="No two machines share a name or an id, now and after the next start.",
        hints=(
            "Compare the machines: `hostname`, `cat /etc/machine-id`, `ip link`. What do they share?",
            "The worker has the control plane's host name. The name comes from a file.",
            "Write the worker's own name into /etc/hostname, and set it with `hostname -F /etc/hostname`.",
        ),
        begin=_twin,
        claims=_twin_claims,
        solution=_twin_solution,
        needs=_NEEDS,
        machines=True,
    ),
)
