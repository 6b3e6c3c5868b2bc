"""go-swagger on a small program: the description that it generates, its validation, and what the program really does."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from stackbook.artifacts import go_toolchain
from stackbook.core import observed, temp_dirs
from stackbook.core.child_processes import end
from stackbook.core.errors import CheckFailed

# The minimal description in the current standard (OpenAPI 3.1.1, section 4.8).
OPENAPI_3 = {
    "openapi": "3.1.1",
    "info": {"title": "Ratings", "version": "1.0.0"},
    "paths": {"/ratings": {"get": {"responses": {"200": {"description": "the ratings"}}}}},
}


def source() -> Path:
    """The folder of the annotated program: a module without requirements."""
    return Path(__file__).with_name("ratings")


def generate(program: Path) -> dict[str, Any]:
    """The description that `swagger generate spec` generates from the program's comments and types.

    Raises:
        ToolFailed: go-swagger failed.
    """
    with temp_dirs.folder("swagger") as folder:
        module = folder / "ratings"
        shutil.copytree(source(), module)
        argv = [str(program), "generate", "spec", "--quiet", "-o", "swagger.json"]
        env = {**go_toolchain.toolchain().environment, "GOPROXY": "off"}
        go_toolchain.call(argv, shown=("swagger", *argv[1:]), cwd=module, env=env, timeout=120)
        found: dict[str, Any] = json.loads((module / "swagger.json").read_text(encoding="utf-8"))
        return found


@dataclass(frozen=True)
class Verdict:
    """What `swagger validate` says about a description."""

    valid: bool
    problems: tuple[str, ...]


def validate(program: Path, description: Mapping[str, Any]) -> Verdict:
    """Validate a description with go-swagger."""
    with temp_dirs.folder("swagger") as folder:
        path = folder / "description.json"
        path.write_text(json.dumps(description), encoding="utf-8")
        output = go_toolchain.call([str(program), "validate", str(path)], check=False, timeout=60)
    said = (output.text + output.stderr).splitlines()
    return Verdict(output.rc == 0, tuple(line.removeprefix("- ") for line in said if line.startswith("- ")))


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """Run the program on a free loopback port while the block runs; yields its URL.

    Raises:
        ToolFailed: it does not compile.
    """
    with temp_dirs.folder("swagger") as folder:
        go_toolchain.toolchain().run("build", "-o", f"{folder}/ratings", ".", cwd=source())
        process = subprocess.Popen(
            go_toolchain.guarded([f"{folder}/ratings"]), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )
        observed.tell([f"{folder}/ratings"], background=True)
        try:
            assert process.stdout
            address = process.stdout.readline().strip()  # it prints a line at once, or its output ends if it fails
            if not address:
                raise CheckFailed(f"the program exited with status {process.wait(10)} before it listened")
            yield f"http://{address}"
        finally:
            end(process)
            if process.stdout:
                process.stdout.close()


def compare(description: Mapping[str, Any], url: str, path: str) -> list[dict[str, Any]]:
    """Call the program with a good and a bad value, and compare the answers with the description.

    Each row: the request, the status, whether the description lists it, and whether the fields match.
    """
    rows = []
    operation = description["paths"][path]["get"]
    for value in ("7", "x"):
        answer = httpx.get(url + path.replace("{id}", value), timeout=10, trust_env=False)
        observed.request("GET", url + path.replace("{id}", value))
        known = operation["responses"].get(str(answer.status_code), {})
        schema = resolve(description, resolve(description, known).get("schema", {}))
        rows.append({
            "asked": path.replace("{id}", value), "status": answer.status_code, "described": bool(known),
            "as described": bool(schema) and fits(description, schema, answer.json()),
        })  # fmt: skip
    return rows


def resolve(description: Mapping[str, Any], node: Mapping[str, Any]) -> Mapping[str, Any]:
    """The target of a `$ref` in the description; the node itself if it is not a reference."""
    found: Any = node
    while "$ref" in found:
        steps = found["$ref"].removeprefix("#/").split("/")
        found = description
        for step in steps:
            found = found[step]
    return dict(found)


_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "integer": int, "string": str, "object": dict, "array": list, "boolean": bool, "number": (int, float),
}  # fmt: skip


def fits(description: Mapping[str, Any], schema: Mapping[str, Any], value: Any) -> bool:
    """Whether a value has a schema's types, all required fields, and no unknown ones.

    >>> fits({}, {"type": "object", "required": ["id"], "properties": {"id": {"type": "integer"}}}, {"id": "7"})
    False
    """
    schema = resolve(description, schema)
    kind = _TYPES.get(str(schema.get("type", "object")), object)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        return False
    if not isinstance(value, dict):
        return True
    named: Mapping[str, Any] = schema.get("properties", {})
    other = schema.get("additionalProperties")
    if not set(schema.get("required", ())) <= set(value) or (other is None and not set(value) <= set(named)):
        return False
    return all(fits(description, named.get(key) or other or {}, item) for key, item in value.items())
