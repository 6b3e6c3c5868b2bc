"""Packets as tcpdump prints them, told apart; mangled text is no packet and no crash."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stackbook.core.errors import CheckFailed
from stackbook.core.results import Result
from stackbook.traffic import packet_capture
from stackbook.traffic.load_client import Group, Plan


def packet(payload: bytes, *, options: bytes = b"", protocol: int = 6, trailer: bytes = b"") -> str:
    """One packet as `tcpdump -nn -x` prints it."""
    header = bytes(12) + bytes([(5 + len(options) // 4) << 4, 0x18]) + bytes(6) + options
    source, target = (ipaddress.ip_address(a).packed for a in ("10.244.1.7", "10.244.1.9"))
    total = 20 + len(header) + len(payload)
    ip = bytes([0x45, 0]) + total.to_bytes(2, "big") + bytes(5) + bytes([protocol]) + bytes(2) + source + target
    data = (ip + header + payload + trailer).hex()
    lines = ["04:05:18.123456 IP 10.244.1.7.41122 > 10.244.1.9.9080: Flags [P.], length 40"]
    for at in range(0, len(data), 32):
        row = data[at : at + 32]
        lines.append(f"\t0x{at // 2:04x}:  " + " ".join(row[i : i + 4] for i in range(0, len(row), 4)))
    return "\n".join(lines)


RECORD = bytes.fromhex("1703030010") + bytes(range(16))


def test_records_and_plain_text_are_told_apart():
    text = "\n".join(
        [
            packet(b"GET /ratings/0 HTTP/1.1\r\nHost: ratings\r\n", options=bytes(12)),
            packet(RECORD, options=bytes(12)),
            packet(bytes.fromhex("1603010200") + bytes(40)),
            packet(b"the middle of something"),
            packet(b"", trailer=bytes(6)),
            packet(b"GET / HTTP/1.1", protocol=17),
        ]
    )
    seen = packet_capture.parse(text, "eth0")
    assert seen.kinds() == {packet_capture.TLS: 2, packet_capture.PLAIN: 1, packet_capture.OTHER: 1}
    assert seen.contains("GET /ratings/0")
    assert not seen.contains("jason")


@given(st.binary(min_size=1, max_size=300), st.sampled_from([0, 4, 12, 40]))
def test_a_payload_is_read_back_as_it_was_sent(payload, options):
    assert packet_capture.parse(packet(payload, options=bytes(options))).payloads == (payload,)


@given(st.text(max_size=300))
def test_noise_is_no_packet(text):
    packet_capture.parse(text)
    packet_capture.parse(packet(RECORD)[: len(text)] + text)


class Pod:
    """The pod `load`: its load program, and a tcpdump that says what it is told to."""

    def __init__(self, stderr):
        self.stderr, self.seen = stderr, []

    def exec(self, namespace, target, *argv, container="", timeout=60.0, check=True, stdin=None):
        assert (namespace, target, container, argv[2]) == ("default", "load", "capture", "tcpdump")
        self.seen.append(argv[argv.index("-i") + 1])
        return Result(argv, 124, packet(RECORD), self.stderr, 1.0)

    def run(self, *args, stdin=None, timeout=60.0):
        summary = '{"summary": {"began": 1, "sent": 0, "seconds": 1, "late": 0, "stopped": true}}'
        return Result(args, 0, summary if args[0] == "run" else "", "", 0.1)


PLAN = Plan([Group("all", "http://reviews:9080/reviews/0")], count=100, rate=20)


def test_capture_is_of_each_interface_while_traffic_flows():
    pod = Pod("listening on eth0, link-type EN10MB\nlistening on lo, link-type EN10MB\n10 packets captured")
    seen = packet_capture.capture(pod, pod, PLAN, interfaces=("eth0", "lo"), expression="tcp port 9080")
    assert sorted(pod.seen) == ["eth0", "lo"]
    assert seen["eth0"].kinds()[packet_capture.TLS] == 1


def test_a_tcpdump_that_does_not_start_is_not_an_empty_capture():
    pod = Pod("tcpdump: eth0: You don't have permission to capture on that device")
    with pytest.raises(CheckFailed, match="permission"):
        packet_capture.capture(pod, pod, PLAN, interfaces=("eth0",), expression="tcp")
