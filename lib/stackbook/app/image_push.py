"""`stackbook images push`: bring the images that the lab builds to an existing cluster.

They go to the registry that the profile names (`image_registry`), or into the nodes of a local cluster by its own loader. skopeo
copies them, with the user's logins (`skopeo login`, `podman login` or `docker login`).
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from stackbook.cluster import image_import
from stackbook.config import chapters
from stackbook.config.registries import Reference
from stackbook.core.errors import InputError, StackbookError
from stackbook.lab.pushed_images import PushedImages
from stackbook.observability.logs import learners

if TYPE_CHECKING:
    from stackbook.lab.lab import Lab
    from stackbook.machines.transports import Host

LOADERS: Mapping[str, Callable[[str, str], list[str]]] = {
    "kind": lambda archive, name: ["kind", "load", "image-archive", archive, "--name", name],
    "k3d": lambda archive, name: ["k3d", "image", "import", archive, "-c", name],
    "minikube": lambda archive, name: ["minikube", "image", "load", archive, "-p", name],
}
"""Local clusters and their commands, from an archive and the cluster's name."""
_SECONDS = 1800
_FIRST = "04"  # the first chapter that runs in full on an existing cluster
_SHIPPER = ("rsyslog", learners.IMAGE)
"""A learner's shipper, also where other clusters' shippers are pulled."""


def names(lab: Lab) -> list[str]:
    """The images that the lab builds for the chapters that run on an existing cluster."""
    members: dict[str, None] = {}
    for chapter in chapters.available():
        if chapter.number >= _FIRST:
            known = [name for name in chapter.artifacts if lab.images.knows(name)]
            members.update(dict.fromkeys(lab.images.members(known)))
    members.update(dict.fromkeys(_SHIPPER))
    return lab.images.sources.to_build(members)


def push(lab: Lab, *, to: str = "", say: Callable[[str], None] = print) -> int:
    """Build what is missing, and bring every image to the cluster; returns how many were not there yet.

    Args:
        lab: a lab whose target is an existing cluster.
        to: `kind:NAME`, `k3d:NAME` or `minikube:PROFILE`; empty for the profile's `image_registry`.
        say: gets a line for each image.

    Raises:
        InputError: there is nothing to push to, or a program is missing; nothing was changed.
        StackbookError: the registry or the loader refused; what it said is in the error.
    """
    registry = lab.profile.image_registry
    _demand(lab, registry, to)
    if to:
        return _load(lab, to, say)
    done = PushedImages(lab.state, registry)
    changed = 0
    with _trust(lab) as options:
        for name in names(lab):
            archive = lab.artifacts.image(name).archive
            ((reference, digest),) = image_import.contents(archive).items()
            target = f"{registry}/{reference.rpartition('/')[2]}"
            there = lab.local.run(["skopeo", "inspect", *options[0], "--format", "{{.Digest}}", f"docker://{target}"],
                                  check=False, timeout=60)  # fmt: skip
            if there.ok and there.stdout.strip() == digest:
                say(f"{target}: there already")
            else:
                _copy(lab.local, options[1], archive, target)
                changed += 1
                say(f"{target}: pushed")
            done.note(name, f"{target}@{digest}")
    return changed


def _demand(lab: Lab, registry: str, to: str) -> None:
    if lab.profile.target != "cluster":
        raise InputError(
            "the machines of this lab import its images themselves", fix="use a profile with target: cluster"
        )
    if to and registry:
        raise InputError(f"the profile names the registry {registry}", fix="leave --to out, or remove image_registry")
    if not to and not registry:
        fix = "set image_registry: in the profile, or use --to kind:NAME, k3d:NAME or minikube:PROFILE"
        raise InputError("the profile names no registry for the lab's images", fix=fix)
    loader, _, cluster = to.partition(":")
    if to and (loader not in LOADERS or not cluster):
        raise InputError(
            f"--to {to!r} is not known", fix=f"write one of {', '.join(LOADERS)}, a colon and the cluster's name"
        )
    program = loader or "skopeo"
    if shutil.which(program) is None:
        fix = "apt-get install skopeo" if program == "skopeo" else f"install {program}, which made the cluster"
        raise InputError(f"the program {program} is missing", fix=fix)
    lab.profile.ca_file()  # refused now if it is not there


def _load(lab: Lab, to: str, say: Callable[[str], None]) -> int:
    loader, _, cluster = to.partition(":")
    loaded = names(lab)
    for name in loaded:
        image = lab.artifacts.image(name)
        done = lab.local.run(LOADERS[loader](str(image.archive), cluster), check=False, timeout=_SECONDS)
        if not done.ok:
            raise StackbookError(f"{loader} could not load {image.reference}: {_last(done.stderr)}")
        say(f"{image.reference}: loaded")
    return len(loaded)


def _copy(local: Host, options: list[str], archive: Path, target: str) -> None:
    argv = ["skopeo", "copy", "--quiet", "--preserve-digests", *options, f"oci-archive:{archive}", f"docker://{target}"]
    done = local.run(argv, check=False, timeout=_SECONDS)
    if done.ok:
        return
    said = _last(done.stderr)
    refused = any(word in said.lower() for word in ("unauthorized", "authentication", "denied"))
    host = Reference.parse(target).registry
    raise StackbookError(f"{target} could not be pushed: {said}", fix=f"skopeo login {host}" if refused else "")


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][-400:] if lines else "it gave no reason"


@contextmanager
def _trust(lab: Lab) -> Iterator[tuple[list[str], list[str]]]:
    """The options by which skopeo trusts the profile's `registry_ca`: of `inspect`, and of `copy`."""
    ca = lab.profile.ca_file()
    if ca is None:
        yield [], []
        return
    with tempfile.TemporaryDirectory(prefix="stackbook-ca-") as folder:
        shutil.copy(ca, Path(folder) / "ca.crt")
        yield ["--cert-dir", folder], ["--dest-cert-dir", folder]
