"""A pipeline of GitLab CI, checked against GitLab's own schema.

https://docs.gitlab.com/ci/yaml/; the schema is the one that GitLab's editor uses.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml


def problems(text: str, schema: Path) -> list[str]:
    """What is wrong with a .gitlab-ci.yml, one line each: its place and the reason; empty if nothing is.

    Args:
        text: the file.
        schema: GitLab's schema (artifact `gitlab-ci-schema`).
    """
    from jsonschema import Draft7Validator
    from jsonschema.exceptions import best_match

    try:
        pipeline: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        return [f"it is not YAML: {' '.join(str(error).split())[:200]}"]
    found = []
    for wrong in Draft7Validator(json.loads(schema.read_text(encoding="utf-8"))).iter_errors(pipeline):
        cause = best_match([wrong]) or wrong
        place = ".".join(str(part) for part in cause.absolute_path) or "the file"
        found.append(f"{place}: {cause.message[:200]}")
    return sorted(found)
