"""The programs of tools/, which are no package, as modules for the tests."""

from __future__ import annotations

import importlib.util
from types import ModuleType

from stackbook.core import paths


def load(name: str) -> ModuleType:
    """The module of `tools/<name>.py`."""
    spec = importlib.util.spec_from_file_location(f"{name}_tool", paths.checkout() / "tools" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
