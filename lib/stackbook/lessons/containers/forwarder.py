"""Carries connections from ports of this host's loopback interface to the same ports of a network namespace.

Started in the namespace by nsenter(1), with listening sockets that were opened outside: a socket stays in the namespace in which
it was opened. Only the standard library is used, so that it starts at once. Arguments: file descriptor and port, `5:8080`.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


async def _carry(
    port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, carried: set[asyncio.Task[None] | None]
) -> None:  # fmt: skip
    """Carry one connection; if nobody listens inside, it is closed, as a client of that port would see it."""
    task = asyncio.current_task()
    carried.add(task)  # the loop itself refers to its tasks only weakly
    try:
        await _both_ways(port, reader, writer)
    finally:
        carried.discard(task)


async def _both_ways(port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        there, back = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        writer.transport.abort()
        return
    try:
        await asyncio.gather(_copy(reader, back), _copy(there, writer))
    finally:
        for each in (back, writer):
            each.close()


async def _main(pairs: list[tuple[int, int]]) -> None:
    async with contextlib.AsyncExitStack() as scope:
        servers: list[asyncio.Server] = []
        carried: set[asyncio.Task[None] | None] = set()
        for descriptor, port in pairs:
            listening = socket.socket(fileno=descriptor)

            async def carry(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int = port
            ) -> None:  # fmt: skip
                await _carry(port, reader, writer, carried)

            servers.append(await scope.enter_async_context(await asyncio.start_server(carry, sock=listening)))
        await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started it, which then ends it
    asyncio.run(_main([(int(fd), int(port)) for fd, _, port in (word.partition(":") for word in sys.argv[1:])]))
