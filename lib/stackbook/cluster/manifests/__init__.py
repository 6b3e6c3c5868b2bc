"""The manifests that the chapters apply.

:class:`string.Template` replaces ``${name}``. Images are named per workload (``image_productpage_v1`` …), because the
official sample has one image per service and version, and the lab's own bookinfo has one image for all of them.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

import yaml

from stackbook.core.errors import InputError
from stackbook.core.redact import MASK


def render(name: str, **values: str) -> str:
    """The text of a manifest with values for its placeholders.

    Raises:
        InputError: there is no such manifest, or a placeholder has no value.
    """
    path = Path(__file__).parent / name
    if not path.is_file():
        known = ", ".join(sorted(p.name for p in path.parent.glob("*.yaml")))
        raise InputError(f"there is no manifest {name!r}", fix=f"the manifests are: {known}")
    try:
        return Template(path.read_text(encoding="utf-8")).substitute(values)
    except KeyError as error:
        raise InputError(f"{name} needs a value for {error}", fix=f"render({name!r}, {error.args[0]}=…)") from error


def marked(name: str, **values: str) -> str:
    """The text of a manifest whose placeholder `fingerprint` gets a checksum of the rest: pods with it restart after a change.

    Raises:
        InputError: see `render`.
    """
    text = render(name, fingerprint="", **values)
    return render(name, fingerprint=hashlib.sha256(text.encode()).hexdigest()[:16], **values)


class _Loader(yaml.CSafeLoader):
    """Read YAML like kubectl: a date without quotes is text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


def objects(manifest: str | Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The objects of a manifest, which is YAML text with one or more documents, one object, or several; a List becomes its items.

    Raises:
        InputError: the text is not YAML, or an object in it has no kind or no name.

    >>> [item["kind"] for item in objects("{apiVersion: v1, kind: Pod, metadata: {name: a}}")]
    ['Pod']
    """
    if isinstance(manifest, str):
        try:
            found = [item for item in yaml.load_all(manifest, _Loader) if item]
        except yaml.YAMLError as error:
            raise InputError(f"the manifest cannot be read as YAML: {' '.join(str(error).split())}") from error
    else:
        found = [manifest] if isinstance(manifest, Mapping) else list(manifest)
    items: list[Mapping[str, Any]] = []
    for item in found:
        if not isinstance(item, Mapping) or not item.get("kind") or not item.get("apiVersion"):
            raise InputError(f"an object of the manifest has no kind or no apiVersion: {str(item)[:80]}")
        if item["kind"] == "List":
            items += objects(item.get("items") or [])
            continue
        if not (item.get("metadata") or {}).get("name"):
            raise InputError(f"an object of the manifest has no name: {item['kind']}", fix="write metadata.name")
        items.append(item)
    return items


class _Dumper(yaml.CSafeDumper):
    """YAML in which text of several lines is a block."""


def _scalar(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _scalar)


def text(items: Sequence[Mapping[str, Any]]) -> str:
    """Objects as YAML documents for `kubectl apply -f`; the values of a Secret are `***`.

    >>> print(text([{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "data": {"key": "c2VjcmV0"}}]), end="")
    apiVersion: v1
    kind: Secret
    metadata:
      name: a
    data:
      key: '***'
    """
    return yaml.dump_all(
        [_shown(item) for item in items], Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True
    )


def _shown(item: Mapping[str, Any]) -> dict[str, Any]:
    """A copy without aliases, and without the values of a Secret."""
    found: dict[str, Any] = json.loads(json.dumps(item))
    if found["kind"] == "Secret":
        for part in ("data", "stringData"):
            if isinstance(found.get(part), dict):
                found[part] = dict.fromkeys(found[part], MASK)
    return found
