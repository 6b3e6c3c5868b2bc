"""The journal of a challenge: each change of the lab, recorded before it is made, so that any process can undo it.

The journal is a list of dictionaries. Each has a `kind`:

- `namespace`: a namespace that the challenge created; it is deleted.
- `object`: an object of the cluster before the change; it is replaced or created again.
- `file`: a file of a machine before the change; without text, the file did not exist.
- `command`: a command on a machine that undoes a change.
- `kubectl`: the arguments of a kubectl command that undoes a change.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stackbook.cluster import own_namespaces
from stackbook.core.errors import CheckFailed, CommandFailed, InputError, StackbookError

if TYPE_CHECKING:
    from stackbook.lab.lab import Lab

Entry = dict[str, Any]
_OF_THE_SERVER = ("resourceVersion", "uid", "creationTimestamp", "generation", "managedFields", "selfLink")


def plain(item: Mapping[str, Any]) -> dict[str, Any]:
    """An object of the cluster without its status and the metadata that the server sets.

    >>> plain({"kind": "A", "metadata": {"name": "a", "uid": "1"}, "status": {}})
    {'kind': 'A', 'metadata': {'name': 'a'}}
    """
    metadata = {name: value for name, value in item["metadata"].items() if name not in _OF_THE_SERVER}
    return {**{name: value for name, value in item.items() if name != "status"}, "metadata": metadata}


def put_back(lab: Lab, entries: Sequence[Entry]) -> list[Entry]:
    """Undo the entries, the last one first; if one fails, the others are still undone.

    Returns:
        The entries that could not be undone, in their order, each with the reason in `why`.
    """
    left: list[Entry] = []
    for entry in reversed(entries):
        try:
            _UNDO[entry["kind"]](lab, entry)
        except StackbookError as error:
            left.insert(0, {**entry, "why": error.message.splitlines()[0]})
    return left


def _namespace(lab: Lab, entry: Entry) -> None:
    name = entry["name"]
    own_namespaces.delete(lab.kube, name, wait=False)
    # These pods get no more requests, so they need not drain. Pods that are already gone are not an error.
    flags = ("--all", "-n", name, "--grace-period=1", "--wait=false")
    lab.kube.kubectl("delete", "pods", *flags, check=False)


def _object(lab: Lab, entry: Entry) -> None:
    text = json.dumps(entry["object"])
    answer = lab.kube.kubectl("replace", "--field-manager=stackbook", "-f", "-", stdin=text, check=False)
    if not answer.ok and "NotFound" in answer.stderr:
        answer = lab.kube.kubectl("create", "--field-manager=stackbook", "-f", "-", stdin=text, check=False)
    if not answer.ok:
        raise CommandFailed(answer)


def _file(lab: Lab, entry: Entry) -> None:
    host = lab.machines[entry["machine"]]
    if entry["text"] is None:
        host.run(["rm", "-f", entry["path"]])
        return
    # Write into the existing file: a bind mount such as /etc/hosts cannot be replaced by another file.
    host.run(["sh", "-c", 'cat > "$1"', "write", entry["path"]], stdin=entry["text"])
    host.run(["chmod", entry["mode"], entry["path"]])


def _command(lab: Lab, entry: Entry) -> None:
    lab.machines[entry["machine"]].run(entry["argv"], timeout=entry.get("timeout", 60))


def _kubectl(lab: Lab, entry: Entry) -> None:
    lab.kube.kubectl(*entry["args"], timeout=120)


_UNDO: Mapping[str, Callable[[Lab, Entry], None]] = {
    "namespace": _namespace,
    "object": _object,
    "file": _file,
    "command": _command,
    "kubectl": _kubectl,
}


def file_entry(lab: Lab, machine: str, path: str) -> Entry:
    """The journal entry for a file of a machine, as it is now."""
    host = lab.machines[machine]
    if not host.run(["test", "-e", path], check=False).ok:
        return {"kind": "file", "machine": machine, "path": path, "text": None, "mode": ""}
    mode = host.run(["stat", "-c", "%a", path]).stdout.strip()
    return {"kind": "file", "machine": machine, "path": path, "text": host.read(path), "mode": mode}


def object_entry(lab: Lab, kind: str, name: str, namespace: str = "") -> Entry:
    """The journal entry for an object, as it is now.

    Raises:
        InputError: the object is a Secret, of which no copy is kept.
        CheckFailed: there is no such object.
    """
    if kind.lower().split(".")[0] in ("secret", "secrets"):
        raise InputError("a challenge keeps no copy of a Secret", fix="change something else")
    flags = ["-n", namespace] if namespace else []
    try:
        found = lab.kube.json("get", kind, name, *flags)
    except CommandFailed as error:
        raise CheckFailed(f"there is no {kind} {name}: {error.result.stderr.strip()[-200:]}") from error
    return {"kind": "object", "object": plain(found)}
