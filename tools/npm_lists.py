"""Write lib/npm/<name>.lock anew: the npm packages of a program's web pages, with npm's checksums, for the bill of materials.

    .venv/bin/python tools/npm_lists.py prometheus-pages gitea-pages

They are those of the lockfile in the program's Go module. The first line is the module with its checksum in go.sum; a test compares it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "lib"))

from stackbook.artifacts import gobuild, page_builds  # noqa: E402
from stackbook.artifacts.catalogue import Pages  # noqa: E402
from stackbook.artifacts.resolver import Resolver  # noqa: E402
from stackbook.core import paths  # noqa: E402


def listed(lockfile: str) -> list[str]:
    """The packages of a pnpm-lock.yaml, sorted: name@version and checksum."""
    packages = yaml.safe_load(lockfile)["packages"]
    return sorted(f"{name} {entry['resolution']['integrity']}" for name, entry in packages.items())


def main(names: list[str]) -> int:
    """Write the list of each named component."""
    resolver = Resolver.open()
    for name in names:
        (source,) = [one for one in resolver.catalogue.artifact(name).sources if isinstance(one, Pages)]
        group = resolver.catalogue.groups[source.group]
        environ = gobuild.environment(goroot=resolver.path("go"), cache=paths.cache(), base=os.environ)
        folder = gobuild.module_folder(source.module, group, environ) / source.path
        lines = listed((folder / "pnpm-lock.yaml").read_text(encoding="utf-8"))
        file = ROOT / "lib" / "npm" / f"{name}.lock"
        file.parent.mkdir(exist_ok=True)
        file.write_text("\n".join([f"# {page_builds.module_sum(source, group)}", *lines]) + "\n", encoding="utf-8")
        print(f"lib/npm/{name}.lock: {len(lines)} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
