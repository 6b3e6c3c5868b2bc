"""Who made a change on this host: the lab, or somebody else meanwhile.

It decides by podman's labels, by the lab's subnet and bridge, and by its folders. A change that could be the lab's counts as
the lab's.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stackbook.app.host_state import Difference, Lines, compare, plain_names
from stackbook.config.profile import Profile
from stackbook.core import paths
from stackbook.core.errors import StackbookError
from stackbook.machines import facts
from stackbook.machines.providers.belongings import LABEL, is_of, labels_of, name_of
from stackbook.machines.providers.podman import Embedded, volumes_of
from stackbook.machines.providers.vm import VirtualMachines
from stackbook.machines.transports import Host

_FORWARD = "net.ipv4.ip_forward"
_LISTS = {"containers": ("ps", "-a"), "volumes": ("volume", "ls"), "networks": ("network", "ls")}
_OF_PODMAN = ("/var/lib/containers/", "/run/containers/")


@dataclass(frozen=True)
class Marks:
    """How to recognise what belongs to the lab.

    Args:
        subnet: the subnet of the lab's network.
        bridges: the bridges of its networks at the time of reading.
        names: by kind, the names that the lab's containers, volumes and networks have if they exist.
        present: those that existed at the time of reading.
        folders: the folders to which the lab writes.
    """

    subnet: ipaddress.IPv4Network
    bridges: frozenset[str]
    names: Mapping[str, frozenset[str]]
    present: Mapping[str, frozenset[str]]
    folders: tuple[Path, ...]

    @classmethod
    def of(cls, profile: Profile, host: Host) -> Marks:
        """Read what has the lab's label, before the lab is removed."""
        listed = {
            kind: [entry for entry in _listed(host, *words) or [] if is_of(entry, profile.lab, _state(profile.lab))]
            for kind, words in _LISTS.items()
        }
        bridges = {str(entry.get("network_interface", "")) for entry in listed["networks"]} - {""}
        if profile.target == "vm":
            bridges.add(VirtualMachines(profile, host).network.bridge)
        present = {kind: frozenset(name_of(entry) for entry in entries) for kind, entries in listed.items()}
        provider = Embedded(profile, host)
        # If a lab is older than the labels of volumes and its containers are gone, only the names identify its volumes.
        volumes = frozenset(volumes_of(provider.container(node.name) for node in profile.nodes))
        names = {**present, "volumes": present["volumes"] | volumes}
        folders = (paths.cache(), paths.states() / profile.lab, paths.runs())
        return cls(ipaddress.IPv4Network(profile.subnet), frozenset(bridges), names, present, folders)

    def address(self, text: str) -> bool:
        """Whether the text contains an address or a subnet of the lab's network."""
        return any(self._inside(found) for found in re.findall(r"\d+(?:\.\d+){3}(?:/\d+)?", text))

    def _inside(self, text: str) -> bool:
        try:
            return ipaddress.IPv4Network(text, strict=False).subnet_of(self.subnet)
        except ValueError:
            return False

    def bridge(self, text: str) -> bool:
        """Whether the text names the lab's bridge."""
        return any(re.search(rf"(?<![\w-]){re.escape(bridge)}(?![\w-])", text) for bridge in self.bridges)


@dataclass(frozen=True)
class Others:
    """Podman's objects that are not the lab's, and this host's links, after the lab is removed.

    Args:
        known: whether podman could list them.
        running: whether a container that is not the lab's runs.
        lab: whether one of those belongs to another lab.
        places: their mount points and namespaces, and their ids.
        networks: the names of their networks.
        bridges: the bridges of podman's networks.
        namespaces: the names of this host's network namespaces.
        links: this host's links by name, as `stackbook.machines.facts.links` reads them.
    """

    known: bool
    running: bool
    lab: bool
    places: frozenset[str]
    networks: frozenset[str]
    bridges: frozenset[str]
    links: Mapping[str, Mapping[str, Any]]
    namespaces: frozenset[str]

    @classmethod
    def look(cls, lab: str, host: Host) -> Others:
        """Read podman's objects and this host's links."""
        containers, networks = _listed(host, "ps", "-a"), _listed(host, "network", "ls")
        others = [entry for entry in containers or [] if not is_of(entry, lab, _state(lab))]
        running = [entry for entry in others if entry.get("State") in ("running", "paused", "stopping")]
        links: dict[str, dict[str, Any]] = {}
        spaces: list[str] = []
        with suppress(StackbookError):  # the snapshot reports that it could not be read
            links = facts.links(host)
            spaces = plain_names(host.run(["ip", "netns", "list"]).lines)
        return cls(
            known=containers is not None and networks is not None,
            running=bool(running),
            lab=any(LABEL in labels_of(entry) for entry in running),
            places=frozenset(_places(host, [str(entry["Id"]) for entry in others])),
            networks=frozenset(name_of(e) for e in networks or [] if not is_of(e, lab, _state(lab))),
            bridges=frozenset(str(entry.get("network_interface", "")) for entry in networks or []),
            links=links,
            namespaces=frozenset(spaces),
        )

    def use(self, key: str, old: Mapping[str, Lines]) -> bool:
        """Whether something else needs the current value of a kernel parameter."""
        if not self.known or self.lab:
            return True
        if key != _FORWARD:
            return False
        new_bridges = [name for name in self._bridges() if name not in old.get("interfaces", [])]
        return self.running or any(name not in old.get("networks", []) for name in self.networks) or bool(new_bridges)

    def _bridges(self) -> list[str]:
        """Bridges that are not podman's, such as Docker's and libvirt's."""
        return [
            name for name, link in self.links.items() if _kind(link) == "bridge" and not re.match(r"podman\d", name)
        ]

    def place(self, text: str) -> bool:
        """Whether a mount point or namespace is one of theirs, or lies inside one of theirs."""
        return any(place in text for place in self.places)


def split(
    old: Mapping[str, Lines], new: Mapping[str, Lines], marks: Marks, others: Others
) -> tuple[list[Difference], list[Difference]]:
    """The differences between two snapshots that can be the lab's, and those that cannot."""
    mine: list[Difference] = []
    theirs: list[Difference] = []
    for found in compare(old, new):
        added = [line for line in found.added if _may_be_ours(found, line, marks, others, old)]
        gone = [line for line in found.gone if _may_be_ours(found, line, marks, others, old)]
        if added or gone or found.unread:
            mine.append(replace(found, added=tuple(added), gone=tuple(gone)))
        rest = [line for line in found.added if line not in added], [line for line in found.gone if line not in gone]
        if any(rest):
            theirs.append(replace(found, added=tuple(rest[0]), gone=tuple(rest[1])))
    return mine, theirs


def _may_be_ours(found: Difference, line: str, marks: Marks, others: Others, old: Mapping[str, Lines]) -> bool:
    if found.kind in _LISTS:
        return line in marks.names[found.kind]
    if found.kind == "sysctls":
        return not others.use(line.partition(" = ")[0], old)
    if marks.address(line) or marks.bridge(line):
        return True
    if line in found.gone:  # the lab removes nothing else that existed before it
        return False
    judges: dict[str, Callable[[], bool]] = {
        "interfaces": lambda: _interface(line, marks, others),
        "namespaces": lambda: _namespace(line, others),
        "mounts": lambda: _mount(line.rpartition(" ")[0], marks, others),
        "rules": lambda: _rule(line, found.added, marks, others),
        "cgroups": lambda: not others.running,
        "routes": lambda: False,
    }
    return judges[found.kind]()


def _interface(name: str, marks: Marks, others: Others) -> bool:
    link = others.links.get(name, {})
    addresses = " ".join(str(a.get("local", "")) for a in link.get("addr_info", []))
    if marks.address(addresses) or link.get("master") in marks.bridges:
        return True
    if _kind(link) == "bridge":  # podman's, for a network that is gone
        return bool(re.fullmatch(r"podman\d+", name)) and name not in others.bridges
    return _kind(link) == "veth" and "master" not in link


def _kind(link: Mapping[str, Any]) -> str:
    return str(link.get("kind", ""))


def _namespace(name: str, others: Others) -> bool:
    """Whether a link has the name that podman gives; other programs use other names."""
    return bool(re.match(r"(netns|cni)-[0-9a-f]{8}-", name)) and not others.place(name)


def _mount(path: str, marks: Marks, others: Others) -> bool:
    if any(Path(path) == folder or folder in Path(path).parents for folder in marks.folders):
        return True
    if path.startswith("/run/netns/"):
        return _namespace(path.rpartition("/")[2], others)
    if path == "/run/netns":  # it exists as long as a namespace has a name
        return not others.namespaces
    if not re.search(r"[0-9a-f]{64}", path):  # podman's own, for all containers
        return path.startswith(_OF_PODMAN) and not others.running
    return path.startswith(_OF_PODMAN) and not others.place(path)


def _rule(rule: str, added: Iterable[str], marks: Marks, others: Others) -> bool:
    """For a rule without an address: a network's chain is the lab's if a rule for the lab's subnet jumps to it."""
    chains = {chain for line in added if marks.address(line) for chain in _chains(line)}
    if _chains(rule) & chains or "STACKBOOK" in rule:
        return True
    return bool(re.search(r"NETAVARK|netavark", rule)) and not others.running


def _chains(rule: str) -> set[str]:
    return set(re.findall(r"NETAVARK-[0-9A-F]{8,}", rule))


def _listed(host: Host, *words: str) -> list[dict[str, Any]] | None:
    """What podman lists; None if it fails."""
    try:
        answer = host.run(["podman", *words, "--format", "json"], timeout=60)
    except StackbookError:
        return None
    return json.loads(answer.stdout or "[]") or []


def _places(host: Host, containers: list[str]) -> list[str]:
    """The ids, namespaces and mount points of these containers."""
    if not containers:
        return []
    wanted = "{{.NetworkSettings.SandboxKey}} {{.GraphDriver.Data.MergedDir}}"
    answer = host.run(
        ["podman", "inspect", "--type", "container", "--format", wanted, *containers], check=False, timeout=60
    )
    found = [word for word in answer.stdout.split() if word.startswith("/")]
    return [*containers, *(word.removeprefix("/run/netns/") for word in found)]


def _state(lab: str) -> str:
    return str(paths.states() / lab)
