"""`stackbook diagnose`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from stackbook.core.errors import EXIT_FAILED


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--bundle", default="", metavar="FILE", help="write a support bundle without secrets (.tar.gz)")


def command(options: argparse.Namespace) -> int:
    """Diagnose, print, and write the bundle if requested; returns 0 if no problem was found, else 1."""
    from stackbook.app.diagnose import diagnose, support_bundle
    from stackbook.config.profile import Profile
    from stackbook.core.errors import InputError

    if options.bundle and Path(options.bundle).exists():
        raise InputError(f"{options.bundle} exists already", fix="name another file")
    found = diagnose(Profile.load(options.profile), options.profile)
    print(json.dumps(found.plain(), indent=1, ensure_ascii=False) if options.json else "\n".join(found.lines()))
    if options.bundle:
        count = support_bundle.write(found, Path(options.bundle))
        if not options.json:
            print(f"\n{count} files, readable only for you: {options.bundle}")
    return EXIT_FAILED if found.causes else 0
