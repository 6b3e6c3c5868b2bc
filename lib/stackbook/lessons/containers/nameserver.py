"""A name server that knows no name: it answers each question with NXDOMAIN (RFC 1035, section 4.1.1).

Containers know each other's names from podman's name server, which asks the host's for all others. From a network namespace
without a way out nobody answers, and podman's name server is silent, too; clients then wait: gRPC for 20 s, for a TXT record.
Started inside the namespaces; only the standard library is used. Argument: the address to listen on.
"""

from __future__ import annotations

import signal
import socket
import struct
import sys

_NXDOMAIN = 3


def answer(question: bytes) -> bytes:
    r"""The answer to a message; empty if it is not a question.

    >>> answer(bytes.fromhex("abcd01000001000000000000") + b"\x01a\x00\x00\x01\x00\x01").hex()
    'abcd8183000100000000000001610000010001'
    """
    if len(question) < 12:
        return b""
    number, flags, count = struct.unpack(">HHH", question[:6])
    if flags & 0x8000 or count != 1:
        return b""
    end = 12
    while end < len(question) and question[end]:
        end += question[end] + 1
    return struct.pack(">HHHHHH", number, 0x8080 | flags & 0x0100 | _NXDOMAIN, 1, 0, 0, 0) + question[12 : end + 5]


def main(address: str) -> None:
    """Answer until the process is ended."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, 53))
        while True:
            question, client = server.recvfrom(4096)
            if reply := answer(question):
                server.sendto(reply, client)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started it, which then ends it
    main(*sys.argv[1:2])
