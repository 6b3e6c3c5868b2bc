"""A pytest plugin for nbval without a lab: in place of a kernel, the outputs of recorded.ipynb in the notebook's folder.

Everything else is nbval's own: which cells it compares, what it sanitises, when it fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stackbook.app import import_patch

import_patch.spare_grammar()
import nbformat  # noqa: E402
import nbval.plugin  # noqa: E402

PARTS = {"stream": ("name", "text"), "error": ("ename", "evalue", "traceback")}


class Replay:
    """What nbval asks of a kernel (`nbval.kernel.RunningKernel`)."""

    def __init__(self, kernel_name: str, cwd: str, startup_timeout: float = 60) -> None:
        book = nbformat.read(Path(cwd) / "recorded.ipynb", as_version=4)
        self.cells: Iterator[Any] = iter([cell for cell in book.cells if cell.cell_type == "code"])
        self.messages: list[dict[str, Any]] = []

    def is_alive(self) -> bool:
        return True

    def stop(self) -> None:
        assert not self.messages, "nbval has not read all that was sent"

    def execute_cell_input(self, source: str, allow_stdin: bool | None = None) -> str:
        """Send what the next cell printed when it was recorded."""
        cell = next(self.cells)
        assert cell.source == source, f"another cell is recorded here than {source!r}"
        for output in cell.outputs:
            keys = PARTS.get(output.output_type, ("data", "metadata"))
            content = {key: output[key] for key in keys} | {"execution_count": 1}
            self._send(output.output_type, content)
        self._send("status", {"execution_state": "idle"})
        return cell.id

    def _send(self, kind: str, content: dict[str, Any]) -> None:
        self.messages.append({"msg_type": kind, "content": content})

    def await_reply(self, msg_id: str, timeout: float) -> None:
        self.messages = [{**message, "parent_header": {"msg_id": msg_id}} for message in self.messages]

    def get_message(self, stream: str, timeout: float) -> dict[str, Any]:
        return self.messages.pop(0)


nbval.plugin.RunningKernel = Replay
