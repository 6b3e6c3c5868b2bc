"""What a program need not do before it begins."""

from __future__ import annotations

import sys


def spare_grammar() -> None:
    """Keep jsonschema from building a grammar of IRIs when it is imported, which takes a second of a processor.

    To be called before nbformat, papermill or nbconvert is imported. jsonschema does without the grammar where the module is
    not installed, and nothing in a notebook's schema is an IRI (jsonschema/_format.py, 4.x).
    """
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
