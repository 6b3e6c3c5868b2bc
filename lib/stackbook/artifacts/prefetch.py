"""Get components before the chapters need them: `python -m stackbook.artifacts.prefetch [NAME …]`.

This is a separate process with low priority. A chapter that needs a missing component goes first in the queue of builds.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from stackbook.artifacts.build_queue import BuildQueue
from stackbook.artifacts.gobuild import trim, trim_modules
from stackbook.artifacts.resolver import SOURCES, fetch
from stackbook.artifacts.store import Store
from stackbook.core import paths, priority
from stackbook.core.errors import StackbookError
from stackbook.core.progress import ConsoleReport

_NICE = 5  # lower priority than work for which a chapter waits; compilers get an even lower one (gobuild.build)
_GROUP_NICE = 10  # of this process with its compilers: a tenth of the lab's share where both have work


def main(argv: Sequence[str] | None = None) -> int:
    """Fetch; exit status 0, 1 for a failure, 2 for bad input, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="python -m stackbook.artifacts.prefetch", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to fetch; all that a lab needs when empty")
    parser.add_argument("--source", choices=SOURCES, default="auto")
    parser.add_argument("--kubernetes", default="", metavar="VERSION", help="another version than the catalogue's")
    parser.add_argument("--machines", default="", metavar="RELEASE", help="the release that machines are made of")
    parser.add_argument("--strict", action="store_true", help="only pinned checksums count")
    parser.add_argument(
        "--trim",
        type=float,
        metavar="GB",
        help="afterwards, make Go's build cache no larger than this, its unpacked modules half of it",
    )
    options = parser.parse_args(argv)
    priority.lower(by=_NICE, group=_GROUP_NICE)
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background process starts with SIGINT ignored
        signal.signal(number, _interrupt)
    try:
        asked = {"kubernetes": options.kubernetes, "machines": options.machines}
        versions = {component: version for component, version in asked.items() if version}
        fetch(
            options.names,
            options.source,
            ConsoleReport(sys.stderr, every=10.0),
            versions=versions,
            strict=options.strict,
        )
        if options.trim is not None:
            # Trim only while no build runs: a build must not lose cache entries that it has just seen.
            with BuildQueue(Store(paths.cache()).root / "locks").no_build(deadline=3600):
                keep = int(options.trim * 1e9)
                freed = trim(paths.cache(), keep=keep) + trim_modules(paths.cache(), keep=keep // 2)
            print(f"• build cache: {freed / 1e9:.1f} GB freed", file=sys.stderr)
    except StackbookError as error:
        print(f"✗ {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("• interrupted; the next run continues from here", file=sys.stderr)
        return 130
    return 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    raise SystemExit(main())
