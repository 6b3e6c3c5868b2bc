"""A pytest plugin for nbval: what each cell printed is kept as JSON lines, so that it can be read and searched afterwards."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from stackbook.app import import_patch

import_patch.spare_grammar()  # this plugin is loaded before nbval


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Add the outputs of a cell to <folder>/<chapter>.jsonl, pictures by their text alone."""
    outputs = getattr(item, "test_outputs", None)
    if outputs is None:
        return
    said = []
    for output in outputs:
        data = output.get("data", {})
        said.append({**output, "data": {kind: text for kind, text in data.items() if not kind.startswith("image/")}})
    with (Path(os.environ["STACKBOOK_KEPT_OUTPUTS"]) / f"{item.path.stem}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"cell": vars(item)["cell_num"], "outputs": said}) + "\n")
