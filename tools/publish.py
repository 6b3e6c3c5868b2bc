"""Replace the committed notebooks by the executed ones of a run: their outputs are what a reader sees and nbval compares.

    .venv/bin/python tools/publish.py runs/latest 00-preflight 01-machines …

Everything that belongs only to that run is removed: the injected parameters, papermill's metadata, times, step progress.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]


def publish(executed: Path, target: Path) -> None:
    """Write `executed` to `target` without everything that belongs only to one run; cell ids stay."""
    book = nbformat.read(executed, as_version=4)
    book.cells = [c for c in book.cells if "injected-parameters" not in c.metadata.get("tags", [])]
    book.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    count = 0
    for cell in book.cells:
        for name in ("papermill", "execution", "collapsed"):
            cell.metadata.pop(name, None)
        if cell.metadata.get("tags") == []:
            cell.metadata.pop("tags")
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
            for output in cell.outputs:
                if "execution_count" in output:
                    output["execution_count"] = count
    nbformat.write(book, target)


def main(arguments: list[str]) -> int:
    """Publish the named chapters of a run's folder, or all of them if none is named."""
    folder = Path(arguments[0])
    names = arguments[1:] or sorted(p.stem for p in folder.glob("[0-9][0-9]-*.ipynb"))
    for name in names:
        publish(folder / f"{name}.ipynb", ROOT / "notebooks" / f"{name}.ipynb")
        print(f"notebooks/{name}.ipynb")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
