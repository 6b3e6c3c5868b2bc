"""Lets the machines reach each other on a host whose firewall drops forwarded packets, as with Docker or ufw.

podman's own rules allow the machines' addresses. Packets between pods use the same bridge (flannel's host-gw); if
bridged packets also pass through iptables, the host's FORWARD chain drops them. So one rule allows packets that stay on
the lab's bridge. Its comment is the lab's label, and it is removed with the lab.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from stackbook.core.errors import StackbookError
from stackbook.machines import facts

if TYPE_CHECKING:
    from stackbook.machines.transports import Host

_PODMANS = ("-j NETAVARK_FORWARD", "-j CNI-FORWARD")


def allow(host: Host, bridge: str, label: str) -> int:
    """Allow packets between the machines; returns the number of changes, 0 if nothing blocks them.

    Args:
        host: this host.
        bridge: the bridge of the lab's network.
        label: the lab's label, used as the rule's comment.

    Raises:
        CommandFailed: iptables refuses the rule.
    """
    rules = _rules(host)
    if not bridge or _open(rules) or any(f"-i {bridge} " in rule and label in rule for rule in rules):
        return 0
    host.run([*facts.IPTABLES, "-I", "FORWARD", "1", "-i", bridge, "-o", bridge, *_comment(label), "-j", "ACCEPT"])
    return 1


def remove(host: Host, label: str) -> int:
    """Delete the rules with the lab's label; returns how many."""
    mine = [rule for rule in _rules(host) if _has(rule, label)]
    for rule in mine:
        host.run([*facts.IPTABLES, "-D", *shlex.split(rule)[1:]])
    return len(mine)


def _comment(label: str) -> list[str]:
    return ["-m", "comment", "--comment", label]


def _has(rule: str, label: str) -> bool:
    words = shlex.split(rule)
    return any(words[at : at + 2] == ["--comment", label] for at in range(len(words)))


def _rules(host: Host) -> list[str]:
    """The FORWARD chain, as `iptables -S` prints it; empty if iptables fails."""
    try:
        answer = host.run([*facts.IPTABLES, "-S", "FORWARD"], check=False)
    except StackbookError:
        return []
    return answer.lines if answer.ok else []


def _open(rules: list[str]) -> bool:
    """Whether the chain accepts everything: by its policy, and without rules other than podman's.

    >>> _open(["-P FORWARD ACCEPT", "-A FORWARD -m comment --comment netavark -j NETAVARK_FORWARD"])
    True
    >>> _open(["-P FORWARD DROP"]), _open(["-P FORWARD ACCEPT", "-A FORWARD -j ufw-before-forward"])
    (False, False)
    """
    return not rules or (rules[0] == "-P FORWARD ACCEPT" and all(rule.endswith(_PODMANS) for rule in rules[1:]))
