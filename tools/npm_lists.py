"""Write lib/npm/<name>.lock anew: the npm packages of a program's web pages, with npm's checksums, for the bill of materials.

    .venv/bin/python tools/npm_lists.py prometheus-pages gitea-pages kiali-pages

They are those of the lockfile in the program's Go module. The first line is the module with its checksum in go.sum; a test compares it.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "lib"))

from stackbook.artifacts import gobuild, page_builds  # noqa: E402
from stackbook.artifacts.package_managers import MANAGERS  # noqa: E402
from stackbook.artifacts.resolver import Resolver  # noqa: E402
from stackbook.artifacts.sources import Pages  # noqa: E402
from stackbook.core import paths  # noqa: E402

# An entry of Yarn's lockfile: its name there may be another one (`a@npm:b@1`), so the package is that of the address.
_ENTRY = re.compile(
    r'^  version "(?P<version>[^"]+)"\n  resolved "https://[^/]+/(?P<name>(?:@[^/]+/)?[^/]+)/-/[^"]+"\n  integrity (?P<sum>\S+)$',
    re.MULTILINE,
)


def of_pnpm(lockfile: str) -> list[str]:
    """The packages of a pnpm-lock.yaml, sorted: name@version and checksum."""
    packages = yaml.safe_load(lockfile)["packages"]
    return sorted(f"{name} {entry['resolution']['integrity']}" for name, entry in packages.items())


def of_yarn(lockfile: str) -> list[str]:
    """The packages of a yarn.lock of Yarn 1, sorted: name@version and checksum.

    Raises:
        ValueError: an entry has another form.
    """
    found = [f"{entry['name']}@{entry['version']} {entry['sum']}" for entry in _ENTRY.finditer(lockfile)]
    if len(found) != len(re.findall(r"^  version ", lockfile, re.MULTILINE)):
        raise ValueError("an entry of yarn.lock has no address or no checksum")
    return sorted(set(found))


READERS: Mapping[str, Callable[[str], list[str]]] = {"pnpm": of_pnpm, "yarn": of_yarn}


def main(names: list[str]) -> int:
    """Write the list of each named component."""
    resolver = Resolver.open()
    for name in names:
        (source,) = [one for one in resolver.catalogue.artifact(name).sources if isinstance(one, Pages)]
        group = resolver.catalogue.groups[source.group]
        environ = gobuild.environment(goroot=resolver.path("go"), cache=paths.cache(), base=os.environ)
        folder = gobuild.module_folder(source.module, group, environ) / source.path
        lines = READERS[source.manager]((folder / MANAGERS[source.manager].lockfile).read_text(encoding="utf-8"))
        file = ROOT / "lib" / "npm" / f"{name}.lock"
        file.parent.mkdir(exist_ok=True)
        file.write_text("\n".join([f"# {page_builds.module_sum(source, group)}", *lines]) + "\n", encoding="utf-8")
        print(f"lib/npm/{name}.lock: {len(lines)} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
