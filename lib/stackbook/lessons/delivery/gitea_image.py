"""The image of Gitea: the lab's own Gitea with its pages, git and a shell, put together when it is needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stackbook.artifacts import image_layers, oci_archive
from stackbook.artifacts.debian_layers import DebianRoot
from stackbook.lessons.delivery import pipeline_image

if TYPE_CHECKING:
    from stackbook.artifacts.resolver import Resolver

REFERENCE = "stackbook.local/gitea:lab"
COMPONENTS = ("gitea", "gitea-templates", "gitea-options", "gitea-pages", "pipeline-rootfs")
_PACKAGES = ("busybox-static", "dash", "git")
_FOLDERS = {"gitea-templates": "templates", "gitea-options": "options", "gitea-pages": "public/assets"}


def write(artifacts: Resolver, target: Path) -> None:
    """Write the image as an OCI archive.

    Args:
        artifacts: the lab's components; a missing one is made.
        target: the archive.

    Raises:
        ArtifactError: a component cannot be obtained.
    """
    layers = (
        DebianRoot.read(artifacts.path("pipeline-rootfs")).layer(_PACKAGES),
        image_layers.file_layer(artifacts.path("gitea"), "/usr/local/bin/gitea"),
        *(image_layers.tree_layer(artifacts.path(name), f"/app/gitea/{place}") for name, place in _FOLDERS.items()),
    )
    oci_archive.write_archive([oci_archive.Image(REFERENCE, layers, (pipeline_image.PATH,))], target)
