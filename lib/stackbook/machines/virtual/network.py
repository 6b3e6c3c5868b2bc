"""The network of virtual machines: a bridge of this host with the gateway's address, a tap device for each machine, and NAT.

The gateway does what VMware's does in the guide: it hands packets for other networks on under this host's address, and it takes
questions for DNS, which go to this host's own name server. Links carry the lab's mark as their alias, rules as their comment;
nothing without the mark is changed.
"""

from __future__ import annotations

import hashlib
import ipaddress
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stackbook.core.errors import InputError
from stackbook.machines import facts
from stackbook.machines.providers import forwarding
from stackbook.machines.transports import Host

_RESOLVERS = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))


@dataclass(frozen=True)
class Network:
    """The network of one lab.

    Args:
        host: this host.
        mark: the mark of the lab on links and rules.
        subnet: the network of the machines.
        gateway: this host's address in it.
    """

    host: Host
    mark: str
    subnet: str
    gateway: str

    @property
    def _stem(self) -> str:
        # A link's name has at most 15 characters, and a lab's name may be longer.
        return f"sb{hashlib.sha256(self.mark.encode()).hexdigest()[:8]}"

    @property
    def bridge(self) -> str:
        """The name of the bridge."""
        return self._stem

    def tap(self, number: int) -> str:
        """The name of the tap device of the machine with this number."""
        return f"{self._stem}t{number}"

    def ensure(self, machines: int) -> int:
        """Create what is missing for this many machines; returns the number of changes.

        Raises:
            InputError: a link with such a name is not the lab's.
        """
        changed = 0
        if self._missing(self.bridge):
            self._add(self.bridge, "link", "add", self.bridge, "type", "bridge")
            prefix = ipaddress.ip_network(self.subnet).prefixlen
            self._ip("address", "add", f"{self.gateway}/{prefix}", "dev", self.bridge)
            self._ip("link", "set", self.bridge, "up")
            changed += 1
        for number in range(machines):
            if self._missing(tap := self.tap(number)):
                self._add(tap, "tuntap", "add", tap, "mode", "tap")
                self._ip("link", "set", tap, "master", self.bridge, "up")
                changed += 1
        return changed + self._ensure_rules()

    def remove(self) -> int:
        """Remove the links and rules with the lab's mark; returns how many there were."""
        removed = 0
        for link in self._links():
            self._ip("link", "delete", link)
            removed += 1
        return removed + self._remove_nat() + forwarding.remove(self.host, self.mark)

    def _links(self) -> list[str]:
        """The lab's links, the bridge last."""
        listed = facts.parse_json(self.host.run(["ip", "-j", "link", "show"]).stdout)
        mine = [str(entry["ifname"]) for entry in listed if entry.get("ifalias") == self.mark]
        return sorted(mine, key=lambda name: (name == self.bridge, name))

    def _missing(self, name: str) -> bool:
        answer = self.host.run(["ip", "-j", "link", "show", name], check=False)
        if not answer.ok:
            return True
        entry = facts.parse_json(answer.stdout)[0]
        if entry.get("ifalias") != self.mark:
            raise InputError(
                f"the link {name} exists already and does not belong to this lab",
                fix="give the lab another name (`lab:` in a profile), or remove the link if it is yours",
            )
        return False

    def _add(self, name: str, *words: str) -> None:
        self._ip(*words)
        self._ip("link", "set", "dev", name, "alias", self.mark)

    def _ip(self, *words: str) -> None:
        self.host.run(["ip", *words])

    def _ensure_rules(self) -> int:
        if facts.sysctl("net.ipv4.ip_forward").read(self.host) != "1":
            self.host.run(["sysctl", "-w", "net.ipv4.ip_forward=1"])
        wanted = [("nat", ["POSTROUTING", "-s", self.subnet, "!", "-d", self.subnet], ["-j", "MASQUERADE"])]
        if server := name_server():
            asked = ["PREROUTING", "-i", self.bridge, "-d", f"{self.gateway}/32"]
            for protocol in ("udp", "tcp"):
                ports = ["-p", protocol, "-m", protocol, "--dport", "53"]
                wanted.append(("nat", [*asked, *ports], ["-j", "DNAT", "--to-destination", f"{server}:53"]))
        wanted += [("filter", ["FORWARD", way, self.bridge], ["-j", "ACCEPT"]) for way in ("-i", "-o")]
        changed = 0
        for table, match, target in wanted:
            rule = [*match, "-m", "comment", "--comment", self.mark, *target]
            if not self.host.run([*facts.IPTABLES, "-t", table, "-C", *rule], check=False).ok:
                place = ["-I", rule[0], "1", *rule[1:]] if table == "filter" else ["-A", *rule]
                self.host.run([*facts.IPTABLES, "-t", table, *place])
                changed += 1
        return changed

    def _remove_nat(self) -> int:
        answer = self.host.run([*facts.IPTABLES, "-t", "nat", "-S"], check=False)
        rules = [shlex.split(line) for line in answer.lines if line.startswith("-A ")] if answer.ok else []
        mine = [words for words in rules if self.mark in words]
        for words in mine:
            self.host.run([*facts.IPTABLES, "-t", "nat", "-D", *words[1:]])
        return len(mine)


def name_server(files: Sequence[Path] = _RESOLVERS) -> str:
    """The first name server of this host that other machines can reach; empty if there is none."""
    for file in files:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except OSError:
            continue
        for line in lines:
            words = line.split()
            if words[:1] == ["nameserver"] and len(words) > 1 and _reachable(words[1]):
                return words[1]
    return ""


def _reachable(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return found.version == 4 and not found.is_loopback
