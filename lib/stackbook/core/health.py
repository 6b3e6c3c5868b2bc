"""Whether a server of this host, or behind a forwarded port, answers."""

from __future__ import annotations

import httpx


def answers(url: str, *, timeout: float = 20.0) -> bool:
    """Whether a GET is answered with status 200; not if nothing listens, or the answer does not come in time.

    Args:
        url: the whole address, without a proxy on the way.
        timeout: deadline in seconds for each part of the exchange, as httpx has it.
    """
    try:
        return httpx.get(url, timeout=timeout, trust_env=False).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
