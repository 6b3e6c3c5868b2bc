"""Take the pictures of the lab's pages for the chapters: notebooks/pictures.

    python tools/screenshots.py          run the tests of the pages in chromium, on a lab that has chapters 05 to 14
    python tools/screenshots.py FOLDER   take the pictures that such a run has left in a folder ($STACKBOOK_DIAGNOSTICS/browser)

The tests make the pictures, with a numbered frame around what a chapter's text explains. Here they get fewer colours, so that each
is small enough for a repository.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "notebooks" / "pictures"
NAMES = (
    "prometheus-query",
    "kiali-graph",
    "traces-request",
    "logs-request",
    "drone-log",
    "gitea-commit",
    "actions-run",
    "shop-order",
)
"""The pictures; the rule `pictures` of tests/notebooks compares them with the chapters."""
MOST = 150_000
"""Bytes of a picture."""


def taken(folder: Path) -> list[Path]:
    """Run the tests; returns the pictures that they left."""
    files = sorted((ROOT / "tests" / "browser").glob("test_*_page.py"))
    tests = [file for file in files if any(name.split("-")[0] in file.name for name in NAMES)]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not more", *map(str, tests)]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "STACKBOOK_DIAGNOSTICS": str(folder)}, check=True)
    return [folder / "browser" / f"{name}.png" for name in NAMES]


def reduced(source: Path, target: Path) -> int:
    """Write a picture with as many colours as its size allows; returns the size in bytes.

    Raises:
        ValueError: it is too large also with few colours.
    """
    with Image.open(source) as picture:
        plain = picture.convert("RGB")
    for colours in (256, 128, 64, 32, 16):
        plain.quantize(colours, dither=Image.Dither.NONE).save(target, optimize=True)
        if target.stat().st_size < MOST:
            return target.stat().st_size
    raise ValueError(f"{target.name} has {target.stat().st_size} bytes with 16 colours, and may have {MOST}")


def main(folder: str = "") -> int:
    """Write the pictures; says the size of each."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        found = [Path(folder) / f"{name}.png" for name in NAMES] if folder else taken(Path(place))
        if missing := [path.name for path in found if not path.is_file()]:
            print(f"not there: {', '.join(missing)}; did a test fail, or was it left out?", file=sys.stderr)
            return 2
        for path in found:
            print(f"notebooks/pictures/{path.name}: {reduced(path, PICTURES / path.name) / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
