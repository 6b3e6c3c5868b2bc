"""The guide's `openssl rand -hex 16`."""

from __future__ import annotations

import shutil

from stackbook.artifacts import go_toolchain
from stackbook.core.errors import CheckFailed
from stackbook.core.redact import Secret


def rand_hex(count: int) -> Secret:
    """Create a secret of `count` random bytes in hexadecimal, with openssl.

    Raises:
        CheckFailed: openssl is not installed.
    """
    if shutil.which("openssl") is None:
        raise CheckFailed("openssl is not installed", fix="apt-get install openssl")
    return Secret(go_toolchain.call(["openssl", "rand", "-hex", str(count)], secret=True).reveal().strip())
