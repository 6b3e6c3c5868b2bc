"""`stackbook class`: its arguments; what it does is in `classroom`, which is imported only when it is called."""

from __future__ import annotations

import argparse

ACTIONS = ("up", "list", "serve", "reset", "down")


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `stackbook class`."""
    parser.add_argument("action", choices=ACTIONS)
    parser.add_argument("count", nargs="?", type=int, default=0, metavar="N", help="up: how many labs")
    parser.add_argument("--to", dest="last", default="03", metavar="C", help="up, reset: the last chapter; default: 03")
    parser.add_argument("--nodes", type=int, default=2, metavar="N", help="up: machines of each lab; default: 2")
    parser.add_argument("--nightly", action="store_true", help="reset: build each lab again, with one report of all")


def command(options: argparse.Namespace) -> int:
    """Do what the trainer asks for; see `classroom.commands.command`."""
    from stackbook.app.classroom import commands

    return commands.command(options)
