"""The command line: each command is thin over one function, and imports it only when it is called: help is there at once.

Exit status: 0 passed, 1 a step failed, 2 bad input or a host that cannot carry the lab, 130 interrupted: by Ctrl-C, by
SIGTERM, or by SIGHUP, which a closed terminal sends (not under nohup, which has it ignored).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from stackbook import __version__
from stackbook.app import diagnosing, elevation, own_folders, streams
from stackbook.core import paths
from stackbook.core.errors import EXIT_INPUT, HostUnfit, InputError, StackbookError
from stackbook.core.names import did_you_mean, profile_names, profile_path
from stackbook.core.redact import redact

if TYPE_CHECKING:
    from stackbook.config.profile import Profile

# What of the user's environment holds under sudo as well: names, or how they begin.
_KEPT = (
    "STACKBOOK_",
    "XDG_",
    "PIP_",
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
NEEDS_ROOT = ("run", "reset", "shell", "status", "plan", "notebooks", "images", "diagnose")


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
        print("stackbook: interrupted; what was done is kept, and the next run goes on from there", file=sys.stderr)
        return 130
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
    """Refuse a profile or a chapter that does not exist, before sudo asks for a password and all is imported.

    Raises:
        InputError: with the near miss.
    """
    if options.command in ("run", "plan"):
        from stackbook.config import chapters

        chapters.choose(first=options.first, last=options.last, only=tuple(options.only))
    if hasattr(options, "profile"):
        profile_path(options.profile)


def _interruptible() -> None:
    """Have SIGTERM and SIGHUP end a command as SIGINT does: with its record, its report and no child left."""
    signal.signal(signal.SIGINT, _interrupted)  # a shell starts what runs in the background with SIGINT ignored
    signal.signal(signal.SIGTERM, _interrupted)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup(1)
        signal.signal(signal.SIGHUP, _interrupted)


def _interrupted(_number: int, _frame: FrameType | None) -> NoReturn:
    # A closed terminal sends SIGHUP twice, by the shell and by the kernel, and what tidies up must come to its end. Ctrl-C
    # still ends that.
    signal.signal(signal.SIGHUP, _passed_over)
    signal.signal(signal.SIGTERM, _passed_over)
    raise KeyboardInterrupt


def _passed_over(_number: int, _frame: FrameType | None) -> None:
    """What SIG_IGN does, but children do not inherit it."""


class _Parser(argparse.ArgumentParser):
    """argparse with one-line errors and near misses."""

    def error(self, message: str) -> NoReturn:
        raise InputError(message, fix=f"see `{self.prog} --help`")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        choices = action.choices
        if choices is not None and value not in choices:
            known = [str(c) for c in choices]
            raise InputError(f"unknown {action.dest} {value!r}", fix=did_you_mean(str(value), known, "choices"))


def _parser() -> _Parser:
    parser = _Parser(prog="stackbook", description="A microservice-stack guide as a lab that really runs.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser, metavar="COMMAND")

    def add(name: str, text: str, function: Callable[[argparse.Namespace], int], *, profile: bool = True) -> _Parser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(function=function)
        if profile:
            sub.add_argument("--profile", default="embedded", metavar="P", help="name or file; default: embedded")
        return sub

    for name, text, function in (
        ("run", "run chapters in order", _run),
        ("plan", "say what a run would do, changing nothing", _plan),
    ):
        sub = add(name, text, function)
        sub.add_argument("--from", dest="first", default="", metavar="C", help="first chapter, by number or name")
        sub.add_argument("--to", dest="last", default="", metavar="C", help="last chapter")
        sub.add_argument("--only", action="append", default=[], metavar="C", help="just this chapter; may be repeated")
        sub.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="set a parameter")
        if name == "run":
            sub.add_argument("--again", action="store_true", help="execute chapters that are proved as well")
    add("list", "list the chapters", _list, profile=False)
    add("parameters", "list the parameters of the lab and of each chapter", _parameters, profile=False)
    add("status", "what of the lab is there", _status).add_argument("--json", action="store_true")
    diagnosing.arguments(
        add("diagnose", "what is probably wrong with the lab, and why; changes nothing", diagnosing.command)
    )
    add("kubeconfig", "print the path of the lab's kubeconfig", _kubeconfig)
    for name, function in (("kubectl", _kubectl), ("istioctl", _istioctl)):
        sub = add(name, f"the lab's {name}, pointed at the lab", function)
        sub.add_argument("args", nargs=argparse.REMAINDER, metavar="ARGS")
    add("shell", "a shell on a machine of the lab", _shell).add_argument("machine")
    fetch = add("fetch", "obtain components ahead of a run", _fetch)
    fetch.add_argument("--source", choices=["auto", "release", "registry"], default="auto")
    fetch.add_argument("names", nargs="*", metavar="NAME", help="components; all when none is named")
    bundle = add("bundle", "everything that a profile needs in one file, for a host that reaches nothing", _bundle)
    bundle.add_argument("action", choices=["save", "load"])
    bundle.add_argument("file", metavar="FILE")
    bundle.add_argument(
        "--to", dest="last", default="", metavar="C", help="save: the last chapter that it has to serve"
    )
    add("images", "each image of the lab: who uses it, where it comes from", _images)
    reset = add("reset", "take the lab away and compare this host with how it was", _reset)
    reset.add_argument("--cache", action="store_true", help="remove the cache as well")
    coverage = add(
        "coverage", "each id of the guide's ledger and where it is shown or proved", _coverage, profile=False
    )
    coverage.add_argument("--json", action="store_true")
    coverage.add_argument("--errata", action="store_true", help="print docs/errata.md instead")
    add("sbom", "what the lab is made of: a CycloneDX bill of materials", _sbom, profile=False).add_argument(
        "--output", default="", metavar="FILE", help="write it there, not to the terminal"
    )
    books = add("notebooks", "serve JupyterLab on loopback with a token", _notebooks, profile=False)
    books.add_argument("--port", type=int, default=8888)
    books.add_argument("--root", default="", metavar="DIR", help="serve a copy: a folder with notebooks/ in it")
    return parser


def become_root(options: argparse.Namespace, words: Sequence[str]) -> None:
    """Machines belong to root: start again under sudo when this user is not root and the target is embedded.

    Raises:
        HostUnfit: not root, and no sudo.
    """
    if os.geteuid() == 0:
        return
    from stackbook.config.profile import Profile

    if Profile.load(getattr(options, "profile", "embedded")).target != "embedded":
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


def _given(pairs: Sequence[Sequence[str]]) -> dict[str, Any]:
    """`-p NAME VALUE` pairs; values are typed by YAML except versions, which stay text."""
    import yaml

    values: dict[str, Any] = {}
    for name, text in pairs:
        if name in values:
            raise InputError(f"parameter {name!r} is given twice", fix="give it once")
        try:
            values[name] = text if name.endswith("_version") else yaml.safe_load(text)
        except yaml.YAMLError:
            values[name] = text
    return values


def _run(options: argparse.Namespace) -> int:
    from stackbook.app import runner

    try:
        done = runner.run(
            options.profile,
            first=options.first,
            last=options.last,
            only=tuple(options.only),
            parameters=_given(options.p),
            again=options.again,
        )
        report = _write_report(done.folder)
    except KeyboardInterrupt:
        latest = paths.runs() / "latest"
        if (latest / "run.json").exists():
            print(f"\nreport:      {_write_report(latest.resolve())}")
        raise
    print()
    print(runner.summary(done))
    for line in _pointers(done.profile, report):
        print(line)
    return runner.exit_status(done)


def _write_report(folder: Path) -> Path:
    from stackbook.app.report import write

    return write(folder)


def _pointers(profile: Profile, report: Path) -> list[str]:
    from stackbook.lab.lab import Lab

    lines = ["", "JupyterLab:  make notebooks"]
    lab = Lab.open("00-preflight", _profile_word(profile, report.parent))
    if lab.kubeconfig.exists():
        try:
            lines.append(f"ingress:     {lab.ingress}/productpage")
        except StackbookError:
            lines.append("ingress:     not there yet (chapter 05)")
        lines.append(f"kubeconfig:  {lab.kubeconfig}")
    return [*lines, f"report:      {report}"]


def _profile_word(profile: Profile, run: Path) -> str:
    return profile.name if profile.name in profile_names() else str(run / "profile.yaml")


def _plan(options: argparse.Namespace) -> int:
    from stackbook.app.plan import plan

    for line in plan(
        options.profile, first=options.first, last=options.last, only=tuple(options.only), parameters=_given(options.p)
    ):
        print(line)
    return 0


def _list(options: argparse.Namespace) -> int:
    from stackbook.config import chapters

    for chapter in chapters.available():
        print(f"{chapter.id:16} {chapter.title}")
    return 0


def _parameters(options: argparse.Namespace) -> int:
    from stackbook.config.chapter_parameters import CHAPTER_PARAMETERS
    from stackbook.config.profile import Profile

    print("the lab (parameters/<profile>.yaml, or -p):")
    for name, info in Profile.model_fields.items():
        if name not in ("chapters", "name"):
            print(f"  {name:20} {_default(info)}")
    for chapter, schema in CHAPTER_PARAMETERS.items():
        print(f"{chapter}:")
        for name, info in schema.model_fields.items():
            print(f"  {name:30} {info.default!r}")
    return 0


def _default(info: Any) -> str:
    value = info.default
    return ", ".join(f"{n.name} {n.address}" for n in value) if isinstance(value, tuple) else repr(value)


def _lab(options: argparse.Namespace) -> Any:
    from stackbook.lab.lab import Lab

    return Lab.open("00-preflight", options.profile)


def _status(options: argparse.Namespace) -> int:
    from stackbook.app.status import lines, status

    found = status(_lab(options))
    print(json.dumps(found, indent=1) if options.json else "\n".join(lines(found)))
    return 0


def _kubeconfig(options: argparse.Namespace) -> int:
    path = _lab(options).kubeconfig
    if not path.exists():
        raise InputError(f"there is no kubeconfig yet at {path}", fix="stackbook run --to 02")
    print(path)
    return 0


def _tool(options: argparse.Namespace, name: str) -> int:
    lab = _lab(options)
    if not lab.kubeconfig.exists():
        raise InputError("there is no cluster yet", fix="stackbook run --to 02")
    args = options.args[1:] if options.args[:1] == ["--"] else options.args
    program = str(lab.artifacts.path(name))
    os.execve(program, [name, *args], {**os.environ, "KUBECONFIG": str(lab.kubeconfig)})


def _kubectl(options: argparse.Namespace) -> int:
    return _tool(options, "kubectl")


def _istioctl(options: argparse.Namespace) -> int:
    return _tool(options, "istioctl")


def _shell(options: argparse.Namespace) -> int:
    from stackbook.machines.ssh_host import SSHHost
    from stackbook.machines.transports import ContainerHost

    lab = _lab(options)
    known = [n.name for n in lab.profile.nodes]
    if options.machine not in known:
        raise InputError(
            f"there is no machine {options.machine!r}", fix=did_you_mean(options.machine, known, "machines")
        )
    host = lab.provider.machines().get(options.machine)
    if host is None:
        raise InputError(f"{options.machine} does not run", fix="stackbook run --only 01")
    terminal = sys.stdin.isatty()
    if isinstance(host, ContainerHost):
        argv = [*host.podman, "exec", "-it" if terminal else "-i", host.container, "bash", "-l"]
    else:
        assert isinstance(host, SSHHost)
        argv = ["ssh", *(["-t"] if terminal else []), "-p", str(host.port), f"{host.user}@{host.address}"]
    own_folders.give_back()
    os.execvp(argv[0], argv)


def _fetch(options: argparse.Namespace) -> int:
    from stackbook.artifacts.resolver import fetch

    lab = _lab(options)
    names = options.names or lab.images.components(lab.artifacts.catalogue.default_names())
    versions = {"kubernetes": lab.profile.kubernetes_version}
    fetch(names, source=options.source, progress=lambda text: print(text, flush=True), versions=versions)
    return 0


def _bundle(options: argparse.Namespace) -> int:
    from stackbook.app.bundle import command

    return command(options.action, options.file, options.profile, options.last)


def _images(options: argparse.Namespace) -> int:
    from stackbook.app.image_table import lines

    for line in lines(_lab(options)):
        print(line)
    return 0


def _reset(options: argparse.Namespace) -> int:
    from stackbook.app import cache_use
    from stackbook.app.reset import before, reset
    from stackbook.config.profile import Profile

    profile = Profile.load(options.profile)
    if options.cache:
        cache_use.demand_removable(profile.lab)
    known = before(profile) is not None
    differences = reset(profile)
    for difference in differences:
        print(f"✗ {difference}")
    if not differences:
        compared = "this host is as it was before the lab"
        print(
            f"✓ {compared if known else 'the lab is away; there is no record of this host before it to compare with'}"
        )
    if options.cache:
        cache_use.demand_removable(profile.lab)  # another lab may have come meanwhile
        for line in cache_use.remove():
            print(line)
    return 1 if differences else 0


def _coverage(options: argparse.Namespace) -> int:
    from stackbook.config import ledger

    covered = ledger.coverage(paths.notebooks())
    if options.errata:
        print(ledger.errata(covered), end="")
        return 0
    print(ledger.report(covered, as_json=options.json))
    return 0 if not covered.missing else 1


def _sbom(options: argparse.Namespace) -> int:
    from stackbook.app import sbom

    text = sbom.text()
    if not options.output:
        print(text, end="")
        return 0
    try:
        Path(options.output).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{options.output} cannot be written: {error.strerror}", fix="name another file") from None
    print(f"{len(json.loads(text)['components'])} parts: {options.output}")
    return 0


def _notebooks(options: argparse.Namespace) -> int:
    if not 1 <= options.port <= 65535:
        raise InputError(f"{options.port} is no port", fix="choose one from 1024 to 65535")
    root = Path(options.root or paths.checkout()).resolve()
    if not (root / "notebooks").is_dir():
        raise InputError(f"{root} has no folder notebooks", fix="copy notebooks/ of the checkout there")
    from stackbook.app.serving import serve

    return serve(root, options.port)


if __name__ == "__main__":
    sys.exit(main())

__all__ = ["EXIT_INPUT", "main"]
