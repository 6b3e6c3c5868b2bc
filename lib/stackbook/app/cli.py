"""The command line: its arguments, sudo if it is needed, and exit statuses. `commands` does the work.

Exit status: 0 passed; 1 a step failed; 2 bad input, or a host that cannot run the lab; 130 interrupted by Ctrl-C,
SIGTERM, or SIGHUP, which a closed terminal sends (nohup ignores it).
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from stackbook.app import (
    challenging,
    class_command,
    commands,
    diagnosing,
    elevation,
    life_commands,
    opening,
    own_folders,
    progressing,
    streams,
)
from stackbook.app.program import INTERRUPTED
from stackbook.core import paths
from stackbook.core.errors import EXIT_INPUT, HostUnfit, InputError, StackbookError
from stackbook.core.names import did_you_mean, profile_path
from stackbook.core.redact import redact
from stackbook.core.version import __version__

if TYPE_CHECKING:
    pass

# The variables of the user's environment that also apply under sudo: names, or their beginnings.
_KEPT = (
    "STACKBOOK_",
    "XDG_",
    "PIP_",
    "npm_config_",
    "NPM_CONFIG_",
    "NODE_EXTRA_CA_CERTS",
    "GO",
    "http",  # http_proxy, https_proxy
    "HTTP",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
    "SSL_CERT_",  # SSL_CERT_FILE, SSL_CERT_DIR
    "REQUESTS_CA_",
    "CURL_CA_",
    "LANG",
    "LC_",
    "TZ",
    "KUBECONFIG",
)
NEEDS_ROOT = ("run", "reset", "shell", "status", "plan", "notebooks", "images", "diagnose", "class", *challenging.NAMES,
              *life_commands.NAMES)  # fmt: skip


def entry() -> int:
    """Run one command as a process of its own, which exits with the status of `main`, whatever interrupted it.

    `python -m` takes a KeyboardInterrupt that passed through `exec(text)` or `eval(text)` for unhandled even if it was handled later,
    and ends the process by SIGINT (Py_RunMain). Dataclasses and named tuples use these functions at import. So an interrupted
    process exits by itself, after all functions that are registered with atexit.
    """
    ended: list[int] = []
    atexit.register(_end, ended)
    status = main()
    if status == INTERRUPTED:
        ended.append(status)
    return status


def _end(ended: list[int]) -> None:
    if ended:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(ended[0])


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if threading.current_thread() is threading.main_thread():
        _interruptible()
    with streams.lasting():
        return _main(words)


def _main(words: Sequence[str]) -> int:
    try:
        return _command(words)
    except StackbookError as error:
        return _refused(error)
    except KeyboardInterrupt:
        print("stackbook: interrupted; finished work is kept, and the next run continues from there", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        if (refusal := own_folders.unusable(error)) is None:
            raise
        return _refused(refusal)


def _command(words: Sequence[str]) -> int:
    options = _parser().parse_args(words)
    paths.check()
    try:
        _refuse_early(options)
        if options.command in NEEDS_ROOT:
            become_root(options, words)
        paths.spare_home()
        return int(options.function(options))
    finally:
        own_folders.give_back()


def _refused(error: StackbookError) -> int:
    print(f"stackbook: {redact(str(error))}", file=sys.stderr)
    return error.exit_status


def _refuse_early(options: argparse.Namespace) -> None:
    """Refuse a profile or a chapter that does not exist, before sudo asks for a password and everything is imported.

    Raises:
        InputError: it does not exist; the error suggests the most similar name.
    """
    if options.command in ("run", "plan"):
        from stackbook.config import chapters

        chapters.choose(first=options.first, last=options.last, only=tuple(options.only))
    if hasattr(options, "profile"):
        profile_path(options.profile)


def _interruptible() -> None:
    """Let SIGTERM and SIGHUP end a command like SIGINT: it writes its record and report, and stops its child processes."""
    signal.signal(signal.SIGINT, _interrupted)  # a shell starts background jobs with SIGINT ignored
    signal.signal(signal.SIGTERM, _interrupted)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup(1)
        signal.signal(signal.SIGHUP, _interrupted)
    sys.unraisablehook = _unless_interrupted


def _unless_interrupted(lost: sys.UnraisableHookArgs) -> None:
    """Raise a KeyboardInterrupt that was lost because the signal arrived while Python finalised an object."""
    if lost.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(lost)
        return
    signal.signal(signal.SIGALRM, _interrupted)
    signal.setitimer(signal.ITIMER_REAL, 0.01)


def _interrupted(_number: int, _frame: FrameType | None) -> NoReturn:
    # A closed terminal sends SIGHUP twice, from the shell and from the kernel; the second must not stop the cleanup. Ctrl-C
    # still does.
    signal.signal(signal.SIGHUP, _passed_over)
    signal.signal(signal.SIGTERM, _passed_over)
    raise KeyboardInterrupt


def _passed_over(_number: int, _frame: FrameType | None) -> None:
    """Ignore a signal. Unlike SIG_IGN, this is not inherited by child processes."""


class _Parser(argparse.ArgumentParser):
    """argparse with one-line errors that suggest the most similar name."""

    def error(self, message: str) -> NoReturn:
        raise InputError(message, fix=f"see `{self.prog} --help`")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        choices = action.choices
        if choices is not None and value not in choices:
            known = [str(c) for c in choices]
            raise InputError(f"unknown {action.dest} {value!r}", fix=did_you_mean(str(value), known, "choices"))


def _parser() -> _Parser:
    parser = _Parser(prog="stackbook", description="A microservice-stack guide as a runnable lab.")
    parser.add_argument("--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(dest="command", required=True, parser_class=_Parser, metavar="COMMAND")

    def add(name: str, text: str, function: Callable[[argparse.Namespace], int], *, profile: bool = True) -> _Parser:
        sub = subparsers.add_parser(name, help=text, description=text)
        sub.set_defaults(function=function)
        if profile:
            sub.add_argument(
                "--profile", default="embedded", metavar="P", help="the profile's name or file; default: embedded"
            )
        return sub

    for name, text, function in (
        ("run", "run chapters in order", commands.run_chapters),
        ("plan", "print what a run would do, without changing anything", commands.plan_run),
    ):
        sub = add(name, text, function)
        sub.add_argument("--from", dest="first", default="", metavar="C", help="first chapter, by number or name")
        sub.add_argument("--to", dest="last", default="", metavar="C", help="last chapter")
        sub.add_argument("--only", action="append", default=[], metavar="C", help="only this chapter; can be repeated")
        sub.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="set a parameter")
        if name == "run":
            sub.add_argument("--again", action="store_true", help="also execute chapters that are already proved")
            life_commands.run_arguments(sub)
    add("list", "list the chapters", commands.list_chapters, profile=False)
    listed = add(
        "commands",
        "print the commands of a chapter, as recorded by its newest run",
        commands.print_commands,
        profile=False,
    )
    listed.add_argument("chapter", metavar="C", help="number or name of the chapter")
    listed.add_argument(
        "--all",
        action="store_true",
        help="also print repeated commands, and those that only check whether something has to be done",
    )
    add("parameters", "list the parameters of the lab and of each chapter", commands.list_parameters, profile=False)
    add("status", "print which parts of the lab exist and run", commands.show_status).add_argument(
        "--json", action="store_true"
    )
    diagnosing.arguments(
        add("diagnose", "print what is probably wrong with the lab, and why; changes nothing", diagnosing.command)
    )
    life_commands.arguments(add)
    text = "manage a class, with a lab for each learner on this host: up, list, serve, reset, down"
    class_command.arguments(add("class", text, class_command.command, profile=False))
    challenging.arguments(add)
    opening.arguments(add)
    progressing.arguments(add)
    add(
        "rbac",
        "print what a learner needs on an existing cluster, for an administrator to read and apply",
        commands.print_rbac,
    )
    add("kubeconfig", "print the path of the lab's kubeconfig", commands.print_kubeconfig)
    for name, function in (("kubectl", commands.run_kubectl), ("istioctl", commands.run_istioctl)):
        sub = add(name, f"run {name} on the lab's cluster", function)
        sub.add_argument("args", nargs=argparse.REMAINDER, metavar="ARGS")
    add("shell", "open a shell on a machine of the lab", commands.open_shell).add_argument("machine")
    fetch = add("fetch", "fetch and build components ahead of a run", commands.fetch_components)
    fetch.add_argument("--source", choices=["auto", "release", "registry"], default="auto")
    fetch.add_argument("names", nargs="*", metavar="NAME", help="the components; default: all")
    bundle = add(
        "bundle",
        "save or load everything that a profile needs as one file, for a host without a network",
        commands.use_bundle,
    )
    bundle.add_argument("action", choices=["save", "load"])
    bundle.add_argument("file", metavar="FILE")
    bundle.add_argument(
        "--to", dest="last", default="", metavar="C", help="save: the last chapter that the bundle must support"
    )
    images = add(
        "images",
        "list each image of the lab, and where it comes from; push: bring them to a cluster",
        commands.list_images,
    )
    images.add_argument(
        "action", nargs="?", choices=["push"], help="push what the lab builds to the profile's image_registry"
    )
    images.add_argument(
        "--to", default="", metavar="CLUSTER", help="push: instead into kind:NAME, k3d:NAME or minikube:PROFILE"
    )
    reset = add("reset", "remove the lab, and compare this host with its state before", commands.reset_lab)
    reset.add_argument("--cache", action="store_true", help="also remove the cache")
    reset.add_argument("--snapshots", action="store_true", help="also remove the lab's snapshots")
    coverage = add(
        "coverage",
        "list each id of the guide's ledger, and where it is shown or proved",
        commands.show_coverage,
        profile=False,
    )
    coverage.add_argument("--json", action="store_true")
    coverage.add_argument("--errata", action="store_true", help="print docs/errata.md instead")
    add(
        "sbom", "print the lab's parts as a CycloneDX bill of materials", commands.write_sbom, profile=False
    ).add_argument("--output", default="", metavar="FILE", help="write to this file instead of the terminal")
    books = add("notebooks", "serve JupyterLab on loopback with a token", commands.serve_notebooks)
    books.add_argument("--port", type=int, default=8888)
    books.add_argument("--language", choices=["en", "zh"], default="en", help="which edition opens first; default: en")
    books.add_argument("--root", default="", metavar="DIR", help="serve a copy: a folder that contains notebooks/")
    return parser


def become_root(options: argparse.Namespace, words: Sequence[str]) -> None:
    """Start again under sudo if stackbook creates the machines and this user is not root, because they belong to root.

    Raises:
        HostUnfit: the user is not root, and there is no sudo.
    """
    if os.geteuid() == 0:
        return
    from stackbook.config.profile import Profile

    if not Profile.load(getattr(options, "profile", "embedded")).creates_machines:
        return
    sudo = shutil.which("sudo")
    if not sudo:
        raise HostUnfit(f"user id {os.geteuid()} is not root, and there is no sudo", fix="run as root, or install sudo")
    keep = {
        "HOME": str(Path.home()),
        "PATH": os.environ.get("PATH", ""),
        "STACKBOOK_CACHE": str(paths.cache()),
        **{k: v for k, v in os.environ.items() if k.startswith(_KEPT)},
    }
    command = elevation.command(sudo, keep, words)
    sys.stdout.flush()
    os.execv(sudo, command)


if __name__ == "__main__":
    sys.exit(main())

__all__ = ["EXIT_INPUT", "main"]
