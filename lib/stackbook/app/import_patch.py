"""Shortening the start of a program."""

from __future__ import annotations

import sys


def spare_grammar() -> None:
    """Prevent jsonschema from building a grammar of IRIs at import, which takes a second of processor time.

    Call it before importing nbformat, papermill or nbconvert. jsonschema works without the grammar if that module is not
    installed, and nothing in a notebook's schema is an IRI (jsonschema/_format.py, 4.x).
    """
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
