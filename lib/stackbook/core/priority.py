"""The priority of a process that works in the background."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

AUTOGROUP = Path("/proc/self/autogroup")
"""The nice value of the scheduling group of this process. Linux has one group for each session (setsid), and a nice value orders
processes only within their group, so a background process with a session of its own would get as much time as all others together.
https://man7.org/linux/man-pages/man7/sched.7.html ("The autogroup feature")
"""


def lower(*, by: int, group: int) -> None:
    """Give this process and its later children a lower priority.

    Args:
        by: added to its nice value.
        group: the nice value of its scheduling group, 0 to 19. It is set only where this process leads a session, because
            otherwise the group is that of the user's terminal. Kernels without such groups take no notice, nor do hosts that
            use control groups instead.
    """
    os.nice(by)
    if os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):
            AUTOGROUP.write_text(str(group), encoding="ascii")
