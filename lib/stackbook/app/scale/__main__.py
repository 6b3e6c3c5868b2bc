"""`python -m stackbook.app.scale [--machines 2,4,8] [--pods 50,100,150,200]`: measure, and write docs/scale.md."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence

from stackbook.app import program
from stackbook.app.scale import load, measuring, page
from stackbook.config.profile import MAX_NODES
from stackbook.core import paths
from stackbook.core.errors import HostUnfit, InputError


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write bench/<time>-scale.json and the page with its pictures; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m stackbook.app.scale", description=__doc__)
    parser.add_argument("--machines", default=",".join(map(str, measuring.MACHINES)))
    parser.add_argument("--pods", default=",".join(map(str, measuring.PODS)))
    options = parser.parse_args(argv)
    machines = numbers(options.machines, "machines", low=2, high=MAX_NODES)
    pods = numbers(options.pods, "pods", low=load.GROUP, high=1000, step=load.GROUP)
    if os.geteuid():
        raise HostUnfit("this benchmark makes labs, which needs root", fix="sudo make bench-scale")
    data = measuring.measure(machines, pods, lambda text: print(text, flush=True))
    folder = paths.checkout() / "bench"
    folder.mkdir(exist_ok=True)
    (folder / f"{data['time']}-scale.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    docs = paths.checkout() / "docs"
    page.draw(data["machines"], "machines", ("seconds to 05", "GiB", "API p95 ms"), docs / "scale-machines.svg")
    if data["pods"]:
        page.draw(
            data["pods"],
            "pods",
            ("seconds to Ready", "GiB", "push s", "proxy configuration MiB"),
            docs / "scale-pods.svg",
        )
    (docs / "scale.md").write_text(page.text(data), encoding="utf-8")
    print(docs / "scale.md")
    return 0


def numbers(text: str, what: str, *, low: int, high: int, step: int = 1) -> tuple[int, ...]:
    """The rising numbers in a text such as "2,4,8".

    Raises:
        InputError: it is something else.
    """
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or list(found) != sorted(set(found)) or any(n < low or n > high or n % step for n in found):
        kind = f"multiples of {step}" if step > 1 else "numbers"
        raise InputError(f"--{what} {text}: not a list", fix=f"give rising {kind} from {low} to {high}, such as 50,100")
    return found


if __name__ == "__main__":
    program.end_with(main)
