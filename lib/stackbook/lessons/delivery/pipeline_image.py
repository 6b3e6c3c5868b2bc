"""The image of the pipeline's steps: a shell, git, Node.js with npm, and the lab's own plugin for the volume cache.

Drone's steps name images of other projects. Where those cannot be pulled, one image of the lab stands for all of them, under
their names.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stackbook.artifacts import image_layers, oci_archive
from stackbook.artifacts.debian_layers import DebianRoot
from stackbook.artifacts.oci_archive import Content, Entry, Layer, parents

if TYPE_CHECKING:
    from stackbook.artifacts.resolver import Resolver

REFERENCE = "stackbook.local/pipeline:latest"
NAMES = ("docker.io/library/node:24", "docker.io/drillster/drone-volume-cache:latest", "docker.io/drone/git:latest")
"""The images for which it stands, by their full names."""
PACKAGES = ("busybox-static", "dash", "git", "libstdc++6")

# Drone passes a plugin's settings as PLUGIN_*; lists have commas. The places are those of drone-volume-cache:
# https://github.com/Drillster/drone-volume-cache
_CACHE = """\
#!/bin/sh
set -e
IFS=,
for mount in $PLUGIN_MOUNT; do
  kept="/cache/$DRONE_REPO_OWNER/$DRONE_REPO_NAME/$mount"
  if [ "$PLUGIN_RESTORE" = true ]; then from=$kept to=$mount did=Restoring; else from=$mount to=$kept did=Rebuilding; fi
  if [ ! -d "$from" ]; then echo "No cache for $mount"; continue; fi
  echo "$did cache for $mount"
  rm -rf "$to"
  mkdir -p "$to"
  cp -a "$from/." "$to/"
done
"""
# npm asks nobody: the steps reach no registry.
PATH = ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
_ENVIRONMENT = (
    PATH,
    ("npm_config_offline", "true"),
    ("npm_config_audit", "false"),
    ("npm_config_fund", "false"),
    ("npm_config_update_notifier", "false"),
)
_NPM = '#!/bin/sh\nexec node /usr/local/lib/node_modules/npm/bin/{}-cli.js "$@"\n'


def write(artifacts: Resolver, target: Path) -> None:
    """Write the image as an OCI archive.

    Args:
        artifacts: the lab's components; a missing one is made.
        target: the archive.

    Raises:
        ArtifactError: a component cannot be obtained.
    """
    node, root = artifacts.path("node"), DebianRoot.read(artifacts.path("pipeline-rootfs"))
    layers = (
        root.layer(PACKAGES),
        image_layers.file_layer(node / "bin" / "node", "/usr/local/bin/node"),
        image_layers.tree_layer(node / "lib" / "node_modules", "/usr/local/lib/node_modules"),
        _programs({"npm": _NPM.format("npm"), "npx": _NPM.format("npx"), "volume-cache": _CACHE}),
    )
    image = oci_archive.Image(REFERENCE, layers, _ENVIRONMENT, ("/usr/local/bin/volume-cache",))
    oci_archive.write_archive([image], target)


def _programs(texts: dict[str, str]) -> Layer:
    files = {f"usr/local/bin/{name}": text.encode() for name, text in texts.items()}
    entries = [
        Entry(path, "file", 0o755, content=Content(len(data), data=data)) for path, data in sorted(files.items())
    ]
    link = Entry("usr/bin/env", "link", 0o777, target="busybox")
    return Layer((*parents([*files, "usr/bin/env"]), *entries, link))
