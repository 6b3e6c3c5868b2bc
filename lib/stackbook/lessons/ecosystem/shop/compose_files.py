"""The bookshop's compose.yaml with what it needs beside it: passwords as files, and the images' names in .env.

`python -m stackbook.lessons.ecosystem.shop.compose_files FOLDER` writes them for a Docker of the reader's own.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from stackbook.artifacts.resolver import Resolver
from stackbook.core import private
from stackbook.core.redact import Secret
from stackbook.lessons.compose import project
from stackbook.lessons.ecosystem.shop import passwords

IMAGES = {
    "IMAGE_MARIADB": "mariadb",
    "IMAGE_REDIS": "redis",
    "IMAGE_KAFKA": "kafka",
    "IMAGE_BOOKSHOP": "bookshop-shell",
}
"""The images by their variables in the file: names of the lab's catalogue."""
BUNDLES = {"mariadb": "shop", "redis": "shop", "kafka": "messaging"}
"""The archives of the lab that already have an image; each other image has its own."""


def text() -> str:
    """The compose file."""
    return (files("stackbook.lessons.ecosystem.shop") / "compose" / "compose.yaml").read_text(encoding="utf-8")


def write(folder: Path, references: Mapping[str, str], *, port: int = 8080, pull: str = "missing") -> None:
    """Write compose.yaml, .env and secrets/ to a folder that only its owner can open; passwords that are there stay.

    Args:
        folder: the folder.
        references: the full names of the images, by name in the catalogue.
        port: the shop's port on the loopback interface.
        pull: compose's `pull_policy`; with `never`, an image that is not there is an error.
    """
    private.folder(folder)
    folder.chmod(0o700)
    (folder / "compose.yaml").write_text(text(), encoding="utf-8")
    values = {**{variable: references[name] for variable, name in IMAGES.items()}, "SHOP_PORT": str(port), "PULL": pull}
    (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in values.items()), encoding="utf-8")
    if (folder / "secrets" / "init.sql").exists():
        return
    chosen = {user: secrets.token_urlsafe(24) for user in (*passwords.PROGRAMS, "redis", "operator")}
    for value in chosen.values():
        Secret(value)  # from now on masked everywhere
    project.write_secrets(folder, passwords.contents(chosen))


def main(folder: str) -> int:
    """Write the files, and say what comes next."""
    catalogue = Resolver.open().catalogue
    write(Path(folder), {name: catalogue.image(name).reference for name in IMAGES.values()})
    print(
        f"{folder}: compose.yaml, .env, secrets/. The images come from `stackbook images`; then: docker compose up --wait"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
