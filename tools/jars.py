"""Write lib/maven/<name>/jars.lock anew: the SHA-256 and the path of each jar that its pom.xml needs.

    .venv/bin/python tools/jars.py kafka

Maven decides which jars these are. Compare the change before you commit it: the lab takes only files with these checksums.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"


def lock(folder: Path) -> str:
    """The text of the lock for a folder's pom.xml."""
    with tempfile.TemporaryDirectory(prefix="stackbook-jars-") as made:
        layout = Path(made, "jars")
        subprocess.run(
            ["mvn", "-B", "-ntp", "-q", "-f", str(folder / "pom.xml"), _COPY, f"-DoutputDirectory={layout}",
             "-Dmdep.useRepositoryLayout=true"],
            check=True, timeout=900, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        found = {
            path.relative_to(layout).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in layout.rglob("*.jar")
        }
    return "".join(f"{found[path]}  {path}\n" for path in sorted(found))


def main(arguments: list[str]) -> int:
    """Write the lock of each named folder."""
    for name in arguments:
        folder = ROOT / "lib" / "maven" / name
        (folder / "jars.lock").write_text(lock(folder), encoding="utf-8")
        print(f"lib/maven/{name}/jars.lock")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
