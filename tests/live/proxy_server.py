"""A host whose only way out is an HTTP proxy: a network namespace with nothing but loopback, and Debian's tinyproxy outside of it.

The proxy is reached at an address on the namespace's loopback interface. A relay brings its bytes out over a Unix socket, which
network namespaces do not divide.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from labtools import ROOT
from stackbook.core.waiting import until

PROGRAM = ROOT / ".venv" / "test-tools" / "usr" / "bin" / "tinyproxy"
SPACE = "sbproxy"
PORT, OUTSIDE = 3128, 13128
_RELAY = """
import asyncio, sys
kind, here, there = sys.argv[1:]
async def pump(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.close()
async def each(reader, writer):
    out = await (asyncio.open_unix_connection(there) if kind == "in" else asyncio.open_connection("127.0.0.1", int(there)))
    await asyncio.gather(pump(reader, out[1]), pump(out[0], writer))
    out[1].close(); writer.close()
async def main():
    server = await (asyncio.start_server(each, "127.0.0.1", int(here)) if kind == "in" else asyncio.start_unix_server(each, here))
    await server.serve_forever()
asyncio.run(main())
"""


@dataclass(frozen=True)
class Proxy:
    """A proxy that runs.

    Attributes:
        url: as the commands are given it.
        log: what the proxy writes down.
        prefix: words before a command that is to have no other way out.
    """

    url: str
    log: Path
    prefix: tuple[str, ...] = ()

    @property
    def environment(self) -> dict[str, str]:
        """The variables of a host behind this proxy."""
        return dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), self.url)

    def asked(self) -> set[str]:
        """The hosts that the proxy was asked for, without their ports; not what was asked of the proxy itself."""
        found = re.findall(r"Request \(file descriptor \d+\): \w+ (\S+) HTTP", self.log.read_text(errors="replace"))
        return {re.sub(r"[:/].*$", "", target.split("://")[-1]) for target in found if not target.startswith("/")}


@contextmanager
def proxying(folder: Path, port: int = OUTSIDE) -> Iterator[Proxy]:
    """Debian's tinyproxy on this host's loopback interface while the block runs."""
    assert PROGRAM.exists(), f"{PROGRAM} is missing: run STACKBOOK_BROWSER=1 tools/setup.sh"
    log, config = folder / "tinyproxy.log", folder / "tinyproxy.conf"
    config.write_text(
        f'Port {port}\nListen 127.0.0.1\nTimeout 600\nMaxClients 200\nLogFile "{log}"\nLogLevel Connect\n'
        "User root\nGroup root\n"
    )
    log.touch()
    with running(folder / "tinyproxy.err", str(PROGRAM), "-d", "-c", str(config)):
        proxy = Proxy(f"http://127.0.0.1:{port}", log)
        answers(proxy, folder / "tinyproxy.err")
        yield proxy


@contextmanager
def fenced(folder: Path) -> Iterator[Proxy]:
    """A network namespace whose only way out is a proxy, while the block runs."""
    socket, inner = folder / "out.sock", ("nsenter", f"--net=/run/netns/{SPACE}")
    relay = (sys.executable, "-c", _RELAY)
    subprocess.run(["ip", "netns", "add", SPACE], check=True)
    try:
        subprocess.run([*inner, "ip", "link", "set", "lo", "up"], check=True)
        with (
            proxying(folder) as outside,
            running(folder / "relay-out.err", *relay, "out", str(socket), str(OUTSIDE)),
            running(folder / "relay-in.err", *inner, *relay, "in", str(PORT), str(socket)),
        ):
            until(socket.exists, what="the relay outside listens", timeout=20, every=0.1)
            proxy = Proxy(f"http://127.0.0.1:{PORT}", outside.log, inner)
            answers(proxy, folder / "relay-in.err")
            yield proxy
    finally:
        subprocess.run(["ip", "netns", "delete", SPACE], check=True)


@contextmanager
def running(said: Path, *argv: str) -> Iterator[None]:
    """A program that runs as long as the block; what it says goes into a file."""
    with said.open("wb") as sink:
        process = subprocess.Popen(argv, stdout=sink, stderr=sink)
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


def answers(proxy: Proxy, said: Path) -> None:
    """Wait until a proxy answers."""
    probe = [*proxy.prefix, "curl", "-sS", "-o", "/dev/null", "-m", "5", "--noproxy", "*", proxy.url]
    until(lambda: subprocess.run(probe, check=False, capture_output=True).returncode == 0,
          what="the proxy answers", timeout=20, every=0.2, last=lambda: said.read_text()[-300:])  # fmt: skip
