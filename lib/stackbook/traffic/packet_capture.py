"""What goes over the wire between two pods: packets captured by tcpdump, sorted into TLS and plain text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import dpkt

from stackbook.config.namespaces import here
from stackbook.core.errors import CheckFailed
from stackbook.traffic.load_client import Executes, Plan, Source, flowing

APPLICATION = "tcp port 9080 or tcp port 15001"
"""The ports of bookinfo's traffic: the services' own, and the one to which a pod's outbound connections are redirected."""
TLS, PLAIN, OTHER = "TLS record", "plain HTTP", "other"
_TLS_TYPES = range(20, 25)  # RFC 8446 section 5.1; 24 is heartbeat, RFC 6520
_METHODS = (b"GET ", b"POST ", b"PUT ", b"HEAD ", b"HTTP/1.", b"PRI * HTTP/2")


@dataclass(frozen=True)
class Capture:
    """TCP payloads seen on one interface, in order; packets without payload are left out."""

    interface: str
    payloads: tuple[bytes, ...]

    def kinds(self) -> dict[str, int]:
        """How many begin with a TLS record, with plain HTTP, or with neither (the middle of a longer message)."""
        counted = Counter(kind(payload) for payload in self.payloads)
        return {name: counted[name] for name in (TLS, PLAIN, OTHER)}

    def contains(self, text: str) -> bool:
        """Whether a payload contains this text in plain form."""
        return any(text.encode() in payload for payload in self.payloads)


def kind(payload: bytes) -> str:
    """The kind of data with which a TCP payload begins.

    >>> kind(b"GET /reviews/0 HTTP/1.1")
    'plain HTTP'
    >>> kind(bytes.fromhex("1703030123") + b"...")
    'TLS record'
    """
    if payload.startswith(_METHODS):
        return PLAIN
    if len(payload) >= 5 and payload[0] in _TLS_TYPES and payload[1] == 3 and payload[2] <= 4:
        return TLS
    return OTHER


def parse(text: str, interface: str = "") -> Capture:
    """The TCP payloads in the output of `tcpdump -nn -x`; packets that are not IPv4 TCP are left out."""
    found = (_payload(packet) for packet in _packets(text.splitlines()))
    return Capture(interface, tuple(payload for payload in found if payload))


def _packets(lines: Iterable[str]) -> Iterable[bytes]:
    """The packets' bytes, starting with the IP header: each packet is a line of text and lines of hexadecimal."""
    current = ""
    for line in lines:
        digits = re.fullmatch(r"\s+0x([0-9a-f]{4}):\s+((?:[0-9a-f]{2,4}\s*)+)", line)
        if digits is None or digits[1] == "0000":
            if current:
                yield bytes.fromhex(current)
            current = ""
        if digits:
            current += digits[2].replace(" ", "")
    if current:
        yield bytes.fromhex(current)


def _payload(packet: bytes) -> bytes:
    """The TCP payload of an IPv4 packet; empty if it has none."""
    try:
        inside = dpkt.ip.IP(packet).data
    except dpkt.UnpackError:
        return b""
    return bytes(inside.data) if isinstance(inside, dpkt.tcp.TCP) else b""


def capture(
    kube: Executes,
    source: Source,
    plan: Plan,
    *,
    interfaces: Iterable[str],
    expression: str,
    seconds: float = 3.0,
    count: int = 60,
) -> dict[str, Capture]:
    """What the pod `load` sends and receives on its interfaces while traffic flows from it.

    Args:
        kube: the cluster.
        source: the pod `load`, which sends the traffic.
        plan: the traffic; it flows during the whole capture.
        interfaces: eth0 leads to other pods, lo from the application to its sidecar.
        expression: which packets, in tcpdump's words.
        seconds: the capture's maximum length.
        count: the maximum number of packets.

    Raises:
        CheckFailed: tcpdump could not capture; the error has its message.
    """
    limits = ["timeout", f"{seconds:g}", "tcpdump", "-Z", "root", "-nn", "-x", "-s", "0", "-c", str(count)]

    def one(interface: str) -> Capture:
        argv = [*limits, "-i", interface, f"({expression}) and greater 80"]
        answer = kube.exec(here().workloads, "load", *argv, container="capture", check=False, timeout=seconds + 30)
        if f"listening on {interface}" not in answer.stderr:
            raise CheckFailed(f"tcpdump on {interface} did not start: {answer.stderr.strip()[-300:]}")
        return parse(answer.stdout, interface)

    names = list(interfaces)
    with flowing(source, plan), ThreadPoolExecutor(len(names)) as pool:
        return dict(zip(names, pool.map(one, names), strict=True))
