"""The commands: each is a thin layer over one function, which is imported only when the command runs."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackbook.app import challenging, life_commands, own_folders
from stackbook.core import paths
from stackbook.core.errors import ArtifactUnavailable, InputError, StackbookError
from stackbook.core.names import did_you_mean

if TYPE_CHECKING:
    from stackbook.config.profile import Profile


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


def run_chapters(options: argparse.Namespace) -> int:
    """Run chapters, and print the outcome."""
    from stackbook.app import runner

    given = _given(options.p)
    life_commands.restore_first(options, given)
    try:
        done = runner.run(
            options.profile,
            first=options.first,
            last=options.last,
            only=tuple(options.only),
            parameters=given,
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
    from stackbook.config import chapters
    from stackbook.config.profile import ChapterParameters
    from stackbook.lab.lab import Lab

    lines = ["", "JupyterLab:  make notebooks"]
    lab = Lab(chapters.find("00-preflight"), profile, ChapterParameters())
    if lab.kubeconfig.exists():
        try:
            lines.append(f"ingress:     {lab.ingress}/productpage")
        except StackbookError:
            lines.append("ingress:     not installed yet (chapter 05)")
        lines.append(f"kubeconfig:  {lab.kubeconfig}")
    return [*lines, f"report:      {report}"]


def plan_run(options: argparse.Namespace) -> int:
    """Print what a run would do."""
    from stackbook.app.plan import plan

    for line in plan(
        options.profile, first=options.first, last=options.last, only=tuple(options.only), parameters=_given(options.p)
    ):
        print(line)
    return 0


def list_chapters(options: argparse.Namespace) -> int:
    """List the chapters."""
    from stackbook.config import chapters

    for chapter in chapters.available():
        print(f"{chapter.id:16} {chapter.title}")
    return 0


def list_parameters(options: argparse.Namespace) -> int:
    """List the lab's and the chapters' parameters, with their defaults."""
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


def show_status(options: argparse.Namespace) -> int:
    """Print which parts of the lab exist and run."""
    from stackbook.app.status import lines, status

    found = status(_lab(options))
    print(json.dumps(found, indent=1) if options.json else "\n".join(lines(found)))
    return 0


def print_rbac(options: argparse.Namespace) -> int:
    """Print the manifest with the least rights of a learner on an existing cluster."""
    from stackbook.app.rbac import manifest
    from stackbook.config.profile import Profile

    print(manifest(Profile.load(options.profile)), end="")
    return 0


def print_kubeconfig(options: argparse.Namespace) -> int:
    """Print the path of the lab's kubeconfig."""
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


def run_kubectl(options: argparse.Namespace) -> int:
    """Replace this process with the lab's kubectl."""
    return _tool(options, "kubectl")


def run_istioctl(options: argparse.Namespace) -> int:
    """Replace this process with the lab's istioctl."""
    return _tool(options, "istioctl")


def open_shell(options: argparse.Namespace) -> int:
    """Replace this process with a shell on a machine of the lab."""
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
        raise InputError(f"{options.machine} is not running", fix="stackbook start")
    terminal = sys.stdin.isatty()
    if isinstance(host, ContainerHost):
        argv = [*host.podman, "exec", "-it" if terminal else "-i", host.container, "bash", "-l"]
    else:
        assert isinstance(host, SSHHost)
        argv = host.login(terminal=terminal)
    own_folders.give_back()
    os.execvp(argv[0], argv)


def fetch_components(options: argparse.Namespace) -> int:
    """Fetch and build components ahead of a run; last the programs' web pages, without which every chapter runs."""
    from stackbook.artifacts.catalogue import PAGES
    from stackbook.artifacts.resolver import fetch

    lab = _lab(options)

    def get(names: Sequence[str]) -> None:
        fetch(
            names,
            source=options.source,
            progress=lambda text: print(text, flush=True),
            versions=lab.profile.versions,
            strict=lab.profile.strict,
        )

    if options.names:
        get(options.names)
        return 0
    names = lab.images.components(lab.artifacts.catalogue.default_names())
    pages = [name for name in names if name.endswith(PAGES)]
    get([name for name in names if name not in pages])
    try:
        if pages:
            get(pages)
    except ArtifactUnavailable as error:
        print(f"without {', '.join(pages)}, which no chapter needs: {error}", flush=True)
    return 0


def print_commands(options: argparse.Namespace) -> int:
    """Print the commands of a chapter."""
    from stackbook.app.command_script import script
    from stackbook.config import chapters

    for line in script(chapters.find(options.chapter), everything=options.all):
        print(line)
    return 0


def use_bundle(options: argparse.Namespace) -> int:
    """Save or load a bundle."""
    from stackbook.app.bundle import command

    return command(options.action, options.file, options.profile, options.last)


def list_images(options: argparse.Namespace) -> int:
    """List each image with its source; or bring those that the lab builds to an existing cluster."""
    if options.action == "push":
        from stackbook.app.image_push import push

        push(_lab(options), to=options.to)
        return 0
    if options.to:
        raise InputError("--to belongs to `stackbook images push`", fix="stackbook images push --to …")
    from stackbook.app.image_table import lines

    for line in lines(_lab(options)):
        print(line)
    return 0


def reset_lab(options: argparse.Namespace) -> int:
    """Remove the lab, and compare this host with its state before."""
    from stackbook.app import cache_use
    from stackbook.app.reset import before, reset
    from stackbook.config.profile import Profile

    profile = Profile.load(options.profile)
    if options.cache:
        cache_use.demand_removable(profile.lab)
    if profile.target != "embedded":  # embedded machines go, and what a challenge has changed goes with them
        challenging.give_back(options.profile)
    if profile.target == "cluster":
        from stackbook.app import cluster_access

        cluster_access.give_back(profile, _lab(options).kube, say=print)
    known = before(profile) is not None
    differences = reset(profile)
    for difference in differences:
        print(f"✗ {difference}")
    if not differences:
        compared = "this host is as it was before the lab"
        print(
            f"✓ {compared if known else 'the lab is removed; there is no record of this host from before the lab to compare with'}"
        )
    for line in life_commands.snapshots_after_reset(profile, remove=options.snapshots):
        print(line)
    if options.cache:
        cache_use.demand_removable(profile.lab)  # another lab may have been created meanwhile
        for line in cache_use.remove():
            print(line)
    return 1 if differences else 0


def show_coverage(options: argparse.Namespace) -> int:
    """List each id of the ledger, and where it is shown."""
    from stackbook.config import ledger

    covered = ledger.coverage(paths.notebooks())
    if options.errata:
        print(ledger.errata(covered), end="")
        return 0
    print(ledger.report(covered, as_json=options.json))
    return 0 if not covered.missing else 1


def write_sbom(options: argparse.Namespace) -> int:
    """Write the bill of materials."""
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


def serve_notebooks(options: argparse.Namespace) -> int:
    """Serve JupyterLab."""
    if not 1 <= options.port <= 65535:
        raise InputError(f"{options.port} is not a valid port", fix="choose one from 1024 to 65535")
    root = Path(options.root or paths.checkout()).resolve()
    if not (root / "notebooks").is_dir():
        raise InputError(f"{root} has no folder notebooks", fix="copy the checkout's notebooks/ into it")
    from stackbook.app.serving import EDITIONS, serve

    if not (root / EDITIONS[options.language]).is_dir():
        raise InputError(
            f"{root} has no folder {EDITIONS[options.language]}", fix="leave --language out, or copy the edition"
        )
    return serve(root, options.port, options.profile, language=options.language)
