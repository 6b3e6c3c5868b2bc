r"""A Fact reads one thing from a machine: it has a command and a pure parser.

>>> parse_key_values("a = 1\\nb=2\\n")
{'a': '1', 'b': '2'}
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from stackbook.core.errors import StackbookError
from stackbook.machines.transports import Host

T = TypeVar("T")
IPTABLES = ("iptables", "-w", "20")
"""iptables, which waits up to so many seconds while another program, such as kube-proxy, changes the tables."""


class FactUnreadable(StackbookError):
    """The command ran, but its output could not be parsed."""


@dataclass(frozen=True)
class Fact(Generic[T]):
    """How to read one thing.

    Args:
        name: what it is, for messages.
        argv: the command.
        parse: pure function that parses stdout.
        absent: exit statuses that mean "does not exist"; then the value is `missing`.
        missing: see `absent`.
    """

    name: str
    argv: tuple[str, ...]
    parse: Callable[[str], T]
    absent: tuple[int, ...] = ()
    missing: T | None = None

    def read(self, host: Host) -> T:
        """The value on this machine.

        Raises:
            CommandFailed, TransportError: see `Host.run`.
            FactUnreadable: the output cannot be parsed.
        """
        result = host.run(self.argv, check=not self.absent)
        if self.absent and result.rc in self.absent:
            return self.missing  # type: ignore[return-value]
        if result.rc:
            result = host.run(self.argv)
        try:
            return self.parse(result.stdout)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError) as error:
            raise FactUnreadable(
                f"cannot read the {self.name} of {host.name} from the output of {result.command}: {error}"
            ) from error


@dataclass(frozen=True)
class Interface:
    """A network interface; `addresses` are IPv4 with prefix length."""

    name: str
    mac: str
    addresses: tuple[str, ...]
    mtu: int
    up: bool


def parse_key_values(text: str) -> dict[str, str]:
    """Parse lines `key = value` or `key=value` (sysctl, os-release, subnet.env); removes quotes."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line and not line.lstrip().startswith("#"))
    return {key.strip(): value.strip().strip("\"'") for key, _, value in pairs}


def parse_interfaces(text: str) -> tuple[Interface, ...]:
    """The output of `ip -j address`."""
    return tuple(
        Interface(
            name=entry["ifname"],
            mac=entry.get("address", ""),
            addresses=tuple(
                f"{a['local']}/{a['prefixlen']}" for a in entry.get("addr_info", []) if a.get("family") == "inet"
            ),
            mtu=int(entry.get("mtu", 0)),
            up="UP" in entry.get("flags", []),
        )
        for entry in json.loads(text or "[]")
        if entry
    )


def links(host: Host, kinds: Iterable[str] = ("bridge", "veth")) -> dict[str, dict[str, Any]]:
    """The links of a machine by name, as `ip -j address` prints them, with their `kind` where it is one of `kinds`, else empty."""
    found: dict[str, dict[str, Any]] = {
        entry["ifname"]: {**entry, "kind": ""}
        for entry in parse_json(host.run(["ip", "-j", "address"]).stdout)
        if entry
    }
    for kind in kinds:
        for entry in parse_json(host.run(["ip", "-j", "link", "show", "type", kind]).stdout):
            if entry.get("ifname") in found:
                found[entry["ifname"]]["kind"] = kind
    return found


def parse_swap(text: str) -> tuple[str, ...]:
    """The devices in /proc/swaps: its first line is a header."""
    return tuple(line.split()[0] for line in text.splitlines()[1:] if line.split())


def parse_meminfo(text: str) -> dict[str, int]:
    """/proc/meminfo in bytes."""
    found = re.findall(r"^(\w[\w()]*):\s+(\d+) kB", text, re.MULTILINE)
    if not found:
        raise ValueError("no line like 'MemTotal: 1 kB'")
    return {key: int(value) * 1024 for key, value in found}


def parse_hosts(text: str) -> dict[str, str]:
    """/etc/hosts as name → address; the first entry of a name counts, as for the resolver."""
    names: dict[str, str] = {}
    for line in text.splitlines():
        words = line.split("#")[0].split()
        for name in words[1:]:
            names.setdefault(name, words[0])
    return names


def parse_json(text: str) -> Any:
    """Parse JSON; no output gives an empty list, as iproute2 prints nothing for "none"."""
    return json.loads(text) if text.strip() else []


def _strip(text: str) -> str:
    value = text.strip()
    if not value:
        raise ValueError("the output is empty")
    return value


HOSTNAME: Fact[str] = Fact("host name", ("hostname",), _strip)
MACHINE_ID: Fact[str] = Fact("machine-id", ("cat", "/etc/machine-id"), str.strip, absent=(1,), missing="")
PRODUCT_UUID: Fact[str] = Fact(
    "product_uuid",
    ("cat", "/sys/class/dmi/id/product_uuid"),
    lambda text: text.strip().lower(),
    absent=(1,),
    missing="",
)
# Never with -d: Ubuntu 24.04's iproute2 6.1 then prints broken JSON, or crashes, where there is a VXLAN device on a newer kernel.
INTERFACES: Fact[tuple[Interface, ...]] = Fact("interfaces", ("ip", "-j", "address"), parse_interfaces)
ROUTES: Fact[list[dict[str, Any]]] = Fact("routes", ("ip", "-j", "route"), parse_json)
SWAP: Fact[tuple[str, ...]] = Fact("swap devices", ("cat", "/proc/swaps"), parse_swap)
MEMORY: Fact[dict[str, int]] = Fact("memory", ("cat", "/proc/meminfo"), parse_meminfo)
OS_RELEASE: Fact[dict[str, str]] = Fact("operating system", ("cat", "/etc/os-release"), parse_key_values)
HOSTS: Fact[dict[str, str]] = Fact("host table", ("cat", "/etc/hosts"), parse_hosts)
CGROUP: Fact[str] = Fact("cgroup file system", ("stat", "-fc", "%T", "/sys/fs/cgroup"), _strip)
CONTAINER: Fact[str] = Fact(
    "container manager", ("systemd-detect-virt", "--container"), str.strip, absent=(1, 127), missing=""
)
SUBNET_ENV: Fact[dict[str, str]] = Fact(
    "flannel's subnet.env", ("cat", "/run/flannel/subnet.env"), parse_key_values, absent=(1,), missing={}
)


def sysctl(key: str) -> Fact[str]:
    """A kernel parameter; empty if this kernel does not have it."""
    return Fact(f"sysctl {key}", ("sysctl", "-n", key), str.strip, absent=(1, 255), missing="")


def text_file(path: str) -> Fact[str]:
    """The text of a file; empty if it does not exist."""
    return Fact(path, ("cat", path), str, absent=(1,), missing="")


def unit_state(unit: str) -> Fact[tuple[str, str]]:
    """(active state, enabled state) of a systemd unit, for example ('active', 'enabled')."""

    def parse(text: str) -> tuple[str, str]:
        values = parse_key_values(text)
        return values["ActiveState"], values["UnitFileState"]

    return Fact(f"unit {unit}", ("systemctl", "show", "-p", "ActiveState,UnitFileState", unit), parse)


def executable(name: str) -> Fact[str]:
    """The path of a program; empty if it is not installed."""
    return Fact(
        f"program {name}", ("sh", "-c", 'command -v "$1"', "which", name), str.strip, absent=(1, 127), missing=""
    )
