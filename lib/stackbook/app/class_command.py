"""`stackbook class`: its arguments. `classroom` does the work, and is imported only when the command runs."""

from __future__ import annotations

import argparse

ACTIONS = ("up", "list", "serve", "reset", "down")


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `stackbook class`."""
    parser.add_argument("action", choices=ACTIONS)
    parser.add_argument("count", nargs="?", type=int, default=0, metavar="N", help="up: how many labs")
    parser.add_argument("--to", dest="last", default="03", metavar="C", help="up, reset: the last chapter; default: 03")
    parser.add_argument("--nodes", type=int, default=2, metavar="N", help="up: machines of each lab; default: 2")
    parser.add_argument("--nightly", action="store_true", help="reset: also build each lab again, and write one report")


def command(options: argparse.Namespace) -> int:
    """Run the action; see `classroom.commands.command`."""
    from stackbook.app.classroom import commands

    return commands.command(options)
