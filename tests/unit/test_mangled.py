"""What is read from programs, cut, doubled, swapped or replaced anywhere: an answer of the right type, or the error that is promised."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fakes import FakeHost
from hypothesis import given, settings
from hypothesis import strategies as st
from stackbook.app import host_state
from stackbook.cluster import flannel
from stackbook.core.errors import InputError, StackbookError
from stackbook.lessons.delivery import pipeline
from stackbook.machines import facts
from stackbook.mesh import rules
from stackbook.mesh.rules import propagation
from stackbook.observability.tracing import span_table
from stackbook.traffic import load_client

pytestmark = pytest.mark.slow

ADDRESS = json.dumps([
    {"ifname": "lo", "flags": ["LOOPBACK", "UP"], "mtu": 65536, "address": "00:00:00:00:00:00",
     "addr_info": [{"family": "inet", "local": "127.0.0.1", "prefixlen": 8}]},
    {"ifname": "flannel.1", "flags": ["UP"], "mtu": 1450, "linkinfo": {"info_kind": "vxlan"}, "addr_info": []},
])  # fmt: skip
FACTS: dict[str, tuple[facts.Fact[Any], str, type]] = {
    "hostname": (facts.HOSTNAME, "k8s-master\n", str),
    "machine-id": (facts.MACHINE_ID, "0123456789abcdef0123456789abcdef\n", str),
    "product_uuid": (facts.PRODUCT_UUID, "564D8C2A-0000-1111-2222-333344445555\n", str),
    "interfaces": (facts.INTERFACES, ADDRESS, tuple),
    "routes": (
        facts.ROUTES,
        '[{"dst":"10.244.1.0/24","gateway":"10.244.1.0","dev":"flannel.1","flags":["onlink"]}]',
        list,
    ),
    "swap": (facts.SWAP, "Filename Type Size Used Priority\n/swapfile file 1 0 -2\n", tuple),
    "memory": (facts.MEMORY, "MemTotal:       16 kB\nMemAvailable:   8 kB\nHugePages_Total:       0\n", dict),
    "os-release": (facts.OS_RELEASE, 'NAME="Debian GNU/Linux"\nVERSION_ID="12"\n# comment\n', dict),
    "hosts": (facts.HOSTS, "127.0.0.1 localhost\n192.168.98.3 k8s-master m # a\n", dict),
    "cgroup": (facts.CGROUP, "cgroup2fs\n", str),
    "container": (facts.CONTAINER, "podman\n", str),
    "subnet.env": (facts.SUBNET_ENV, "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_MTU=1450\n", dict),
    "sysctl": (facts.sysctl("net.ipv4.ip_forward"), "1\n", str),
    "file": (facts.text_file("/etc/resolv.conf"), "nameserver 192.168.98.2\n", str),
    "unit": (facts.unit_state("kubelet"), "ActiveState=active\nUnitFileState=enabled\n", tuple),
    "program": (facts.executable("kubeadm"), "/usr/bin/kubeadm\n", str),
}

CAPTURE = """12:00:00.1 IP 192.168.98.3.51000 > 192.168.98.4.8472: OTV, flags [I] (0x08), overlay 0, instance 1
IP 10.244.0.5 > 10.244.1.7: ICMP echo request, id 1, seq 1, length 64
"""
RULES = "*nat\n:OUTPUT ACCEPT [3:180]\n:MINE - [0:0]\n-A OUTPUT -j MINE\nCOMMIT\n"
MOUNTS = "tmpfs /run tmpfs rw 0 0\noverlay / overlay rw,lowerdir=/a:/b 0 0\n"
REPORT = "\n".join(json.dumps(line) for line in (
    {"n": 0, "at": 0.1, "status": 200, "seconds": 0.01, "id": "a", "error": "", "pod": "reviews-v1-x", "group": "",
     "served": ["reviews/v1 reviews-v1-x"]},
    {"summary": {"sent": 1, "began": 1.5, "late": 0, "seconds": 1.0}},
))  # fmt: skip
TRACES = json.dumps([{
    "traceID": "1" * 32, "processes": {"p1": {"serviceName": "reviews.default", "tags": []}},
    "spans": [{"traceID": "1" * 32, "spanID": "2" * 16, "operationName": "reviews:9080/*", "references": [],
               "startTime": 1700000000000000, "duration": 1500, "processID": "p1",
               "tags": [{"key": "span.kind", "type": "string", "value": "server"},
                        {"key": "http.status_code", "type": "string", "value": "200"}]}],
}])  # fmt: skip
SYNCZ = json.dumps([{
    "proxy": "reviews-v1-x.default", "proxy_type": "sidecar", "resources": {
        "type.googleapis.com/envoy.config.cluster.v3.Cluster":
            {"sent": "2026-11-23T03:45:00Z/171f0c5e3a-8d1b-4c53-9d42-6a1f0b7c9e11", "acked": "x", "lastError": "no"}},
}])  # fmt: skip
DRONE = """kind: pipeline
type: docker
steps:
  - {name: build, image: "node:20", commands: [npm install], environment: {A: b}}
  - {name: cache, image: drillster/drone-volume-cache, settings: {rebuild: true, key: {from_secret: k}}}
volumes:
  - {name: cache, host: {path: /tmp/cache}}
"""
PARSERS: dict[str, tuple[Callable[[str], Any], str, tuple[type[Exception], ...]]] = {
    "packets of tcpdump": (flannel.parse_capture, CAPTURE, ()),
    "iptables-save": (lambda text: host_state.parse_rules(text, "nat"), RULES, ()),
    "mounts": (host_state.parse_mounts, MOUNTS, ()),
    "report of the load program": (load_client.parse, REPORT, (StackbookError,)),
    "answer of Jaeger": (lambda text: span_table.parse(json.loads(text)), TRACES, (StackbookError, json.JSONDecodeError)),
    "answer of istiod": (propagation.parse_syncz, SYNCZ, (StackbookError,)),
    ".drone.yml": (lambda text: pipeline.parse(text).steps, DRONE, (InputError,)),
    "rules of Istio": (rules.parsed, "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: a}\n", (InputError,)),
}  # fmt: skip


@st.composite
def mangled(draw: st.DrawFn, text: str) -> str:
    """A text with one to three pieces cut out, doubled, moved, or replaced by what does not belong there."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 60)))
        piece = text[start:end]
        noise = st.sampled_from(
            ["", "\0", "\n", '"', "[", "}", "null", "-1", "1e999", "é", "\ufffd", ": ", "\x1b[31m", "[]", "{}"]
        )
        put = draw(noise | st.just(piece * 2) | st.just(piece[::-1]) | st.text(max_size=5))
        text = text[:start] + put + text[end:]
    return text


def odd(text: str) -> Iterator[str]:
    """The text with each of its numbers in turn replaced by what is no such number, or a very large one."""
    for found in re.finditer(r"\d+(\.\d+)?", text):
        for other in ("1e999", "-1", "9" * 30, "null", '""', "true", "[]"):
            yield text[: found.start()] + other + text[found.end() :]


@pytest.mark.parametrize("name", FACTS)
def test_a_fact_of_a_mangled_output_is_a_value_or_unreadable(name: str) -> None:
    fact, text, kind = FACTS[name]
    assert isinstance(fact.read(FakeHost({" ".join(fact.argv): text})), kind), "as it is, it can be read"

    def read(broken: str) -> None:
        host = FakeHost({" ".join(fact.argv): broken})
        try:
            value = fact.read(host)
        except facts.FactUnreadable as error:
            assert fact.name in str(error)
        else:
            assert isinstance(value, kind | list)

    for broken in odd(text):
        read(broken)
    settings(max_examples=150, deadline=None)(given(mangled(text))(read))()


@pytest.mark.parametrize("name", PARSERS)
def test_a_mangled_answer_is_read_or_refused_as_promised(name: str) -> None:
    parse, text, promised = PARSERS[name]
    assert len(parse(text)) > 0, "as it is, it can be read"

    def read(broken: str) -> None:
        try:
            parse(broken)
        except promised as error:
            assert str(error)

    for broken in odd(text):
        read(broken)
    settings(max_examples=300, deadline=None)(given(mangled(text))(read))()
