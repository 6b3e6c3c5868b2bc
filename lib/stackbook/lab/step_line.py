"""The line that a step prints on the page. It unfolds to the step's commands, each with its machine and its input file."""

from __future__ import annotations

import html
import itertools
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from stackbook.analysis.display import FOLDED
from stackbook.lab.typed_commands import typed

# Longer output would make the page hard to read; `stackbook commands` prints everything.
_LONGEST_FILE = 60
_LONGEST = 150  # lines
_WIDTH = 400


def show(line: str, commands: Sequence[Mapping[str, Any]]) -> None:
    """Show the line of a step, in a notebook together with its commands."""
    if "IPython" not in sys.modules or sys.modules["IPython"].get_ipython() is None:
        print(line)
        return
    from IPython.display import display

    display({"text/plain": line, "text/html": block(line, commands)}, raw=True)  # type: ignore[no-untyped-call]


def block(line: str, commands: Sequence[Mapping[str, Any]]) -> str:
    """The line as HTML that unfolds to the commands.

    >>> block("✓ a: b", [])
    '<details class="by-hand"><summary>✓ a: b</summary><p>No command belongs to this step: the Python code above does it.</p></details>'
    """
    found = typed(commands, longest=_LONGEST_FILE)
    lines = [text if len(text) <= _WIDTH else text[:_WIDTH] + " …" for text in itertools.islice(found, _LONGEST)]
    if rest := sum(1 for _ in found):
        lines.append(f"# … and {rest} more lines: `stackbook commands` prints them")
    inner = (
        f'<pre style="{FOLDED}">{html.escape(chr(10).join(lines))}</pre>'
        if lines
        else "<p>No command belongs to this step: the Python code above does it.</p>"
    )
    return f'<details class="by-hand"><summary>{html.escape(line)}</summary>{inner}</details>'
