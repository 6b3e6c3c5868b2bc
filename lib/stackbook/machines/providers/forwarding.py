"""A host whose firewall drops what is forwarded: with Docker beside, or with ufw on, the machines would not reach each other.

podman's own rules let the machines' addresses through. Pods' addresses pass the same bridge (flannel's host-gw), and where bridges
show their packets to iptables, they meet the host's FORWARD chain. One rule lets through what stays on the lab's bridge. It has
the lab's label as its comment, and goes with the lab.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from stackbook.core.errors import StackbookError

if TYPE_CHECKING:
    from stackbook.machines.transports import Host

_PODMANS = ("-j NETAVARK_FORWARD", "-j CNI-FORWARD")


def allow(host: Host, bridge: str, label: str) -> int:
    """Let the machines' packets pass from one to another; returns the number of changes: 0 where nothing would stop them.

    Args:
        host: this host.
        bridge: the lab's.
        label: the lab's, as the rule's comment.

    Raises:
        CommandFailed: iptables refuses the rule.
    """
    rules = _rules(host)
    if not bridge or _open(rules) or any(f"-i {bridge} " in rule and label in rule for rule in rules):
        return 0
    host.run(["iptables", "-I", "FORWARD", "1", "-i", bridge, "-o", bridge, *_comment(label), "-j", "ACCEPT"])
    return 1


def remove(host: Host, label: str) -> int:
    """Delete the rules that have the lab's label; returns how many."""
    mine = [rule for rule in _rules(host) if _has(rule, label)]
    for rule in mine:
        host.run(["iptables", "-D", *shlex.split(rule)[1:]])
    return len(mine)


def _comment(label: str) -> list[str]:
    return ["-m", "comment", "--comment", label]


def _has(rule: str, label: str) -> bool:
    words = shlex.split(rule)
    return any(words[at : at + 2] == ["--comment", label] for at in range(len(words)))


def _rules(host: Host) -> list[str]:
    """The FORWARD chain, as `iptables -S` prints it; empty where iptables cannot be asked."""
    try:
        answer = host.run(["iptables", "-S", "FORWARD"], check=False)
    except StackbookError:
        return []
    return answer.lines if answer.ok else []


def _open(rules: list[str]) -> bool:
    """Whether the chain accepts everything: its policy, and no rule but podman's.

    >>> _open(["-P FORWARD ACCEPT", "-A FORWARD -m comment --comment netavark -j NETAVARK_FORWARD"])
    True
    >>> _open(["-P FORWARD DROP"]), _open(["-P FORWARD ACCEPT", "-A FORWARD -j ufw-before-forward"])
    (False, False)
    """
    return not rules or (rules[0] == "-P FORWARD ACCEPT" and all(rule.endswith(_PODMANS) for rule in rules[1:]))
