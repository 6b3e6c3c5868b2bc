"""The command `open drone`: a Drone with one repository, and the Gitea through which its user signs in, until Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from stackbook.core import private
from stackbook.core.errors import StackbookError
from stackbook.core.redact import Secret
from stackbook.core.waiting import pause

if TYPE_CHECKING:
    from stackbook.artifacts.resolver import Resolver

NAME = "drone"
FLAG = "--accept-drone-licence"
COMPONENTS = ("node", "gitea", "gitea-templates", "gitea-options", "gitea-pages", "drone", "pipeline-rootfs")
LINE = f"without a cluster: stackbook open {NAME} {FLAG} runs Drone with the Gitea through which its user signs in"
_EVERY = 1.0


def command(options: argparse.Namespace, browse: Callable[[str, Mapping[str, str]], None]) -> int:
    """Show Drone until the user ends the command; refused where its licence is not accepted.

    Args:
        options: the command's.
        browse: opens an address in the user's browser, if there is one.

    Raises:
        InputError: the licence is not accepted.
    """
    from stackbook.artifacts.resolver import Resolver
    from stackbook.config.profile import Profile
    from stackbook.core.progress import ConsoleReport
    from stackbook.lessons.containers import namespaces
    from stackbook.lessons.delivery import drone

    drone.demand_accepted(options.accept_drone_licence, f"read it, and then: stackbook open {NAME} {FLAG}")
    namespaces.demand()
    profile = Profile.load(options.profile)
    artifacts = Resolver.open(profile.source, ConsoleReport(), versions=profile.versions, strict=profile.strict)
    artifacts.ensure([f"file:{name}" for name in COMPONENTS])
    with contextlib.suppress(KeyboardInterrupt):  # how the user ends it
        serve(artifacts, browse)
    return 0


def serve(
    artifacts: Resolver, browse: Callable[[str, Mapping[str, str]], None], *, say: Callable[[str], None] | None = None,
    environment: Mapping[str, str] = os.environ,
) -> None:  # fmt: skip
    """Run Drone and Gitea with one repository that is built once, and open Drone in a browser if there is a display.

    It returns only with an error.

    Raises:
        ArtifactError: a component cannot be had.
        StackbookError: one of the two has ended.
    """
    from stackbook.lessons.delivery import drone_shop, gitea

    say = say or partial(print, flush=True)
    parts = replace(gitea.Parts.of(artifacts), pages=artifacts.path("gitea-pages"))
    say("Gitea and Drone are started, and a first build …")
    with drone_shop.running(artifacts, parts) as shop:
        shop.push()
        file = keep(shop.gitea.folder, shop.gitea.password)
        say(f"{shop.drone.url}\nDrone; sign in through Gitea as {gitea.USER}, with the password in {file}")
        say(f"{shop.gitea.url}/{shop.repository.path}\nthe repository: each push to it is built. Ctrl-C ends both.")
        browse(shop.drone.url, environment)
        running = {
            "Drone": shop.drone.process,
            "Gitea": shop.gitea.process,
            "the engine of the containers": shop.drone.engine.process,
        }
        while not (gone := [name for name, process in running.items() if process and process.poll() is not None]):
            pause(_EVERY)
    raise StackbookError(f"the page of Drone has ended: {gone[0]} has exited", fix=f"stackbook open {NAME} {FLAG}")


def keep(folder: Path, password: Secret) -> Path:
    """Write the password to a file that only the user can read, because a terminal may be recorded; returns the file."""
    return private.write(folder / "password", password)
