"""kubectl commands on a page: `$ kubectl …` and the real output, without values that differ from run to run."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from stackbook.core.columns import aligned
from stackbook.core.redact import redact

if TYPE_CHECKING:
    from stackbook.cluster.kube import Kube

# Columns of kubectl's tables that differ from run to run, and the suffix that a controller appends to a pod's or ReplicaSet's name.
_CHANGING = frozenset({"AGE", "RESTARTS", "IP", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "LAST SEEN", "HOLDER"})
_NOTHING = ("", "<none>", "None")
_SUFFIX = re.compile(r"(?<=-)[bcdfghjklmnpqrstvwxz2456789]{8,10}(-[bcdfghjklmnpqrstvwxz2456789]{5})?(?=\s|$)")
# Lines of `kubectl describe` that differ from run to run.
_FIELD = re.compile(r"(?m)^(\s*(?:CreationTimestamp|Start Time|Started|Node|IP|IPs|Endpoints|UID):\s+)\S.*$")
# The tag of an image that the lab builds contains a digest of its sources.
_BUILD = re.compile(r"(stackbook\.local/[\w-]+:)\S+")
_DAEMON = re.compile(r"(?<=-)[bcdfghjklmnpqrstvwxz2456789]{5}(?=\s|$)")


def kubectl(kube: Kube, text: str, *, timeout: float = 60.0) -> None:
    """Run `kubectl <text>` against the lab's cluster, and print the command and its output.

    Values that differ from run to run become `…`: in a table ages, restarts, addresses and the random ends of pods' names; in
    the output of `kubectl describe` times, addresses, the random ends of names and the tags of images that the lab builds.

    Args:
        kube: the cluster.
        text: the arguments as in a shell, including quotes, without pipes and variables.
        timeout: deadline in seconds.

    Raises:
        CommandFailed: kubectl failed; the cell shows its error.
    """
    print(f"$ kubectl {text}")
    said = kube.kubectl(*shlex.split(text), timeout=timeout).stdout
    print(redact(stable(said)).rstrip())


def stable(text: str) -> str:
    """The output of kubectl without values that differ from run to run; text of another form stays unchanged."""
    if text.startswith("Name:"):  # kubectl describe
        return _BUILD.sub(r"\1…", _SUFFIX.sub("…", _FIELD.sub(r"\1…", text)))
    lines = text.rstrip().splitlines()
    if not lines or not re.fullmatch(r"[A-Z][A-Z0-9()/ -]*", lines[0]):
        return text
    starts = [found.start() for found in re.finditer(r"(?:^|(?<=  ))\S", lines[0])]
    table = [[line[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)] for line in lines]
    rows = [table[0]]
    for row in table[1:]:
        cells = [
            "…" if head in _CHANGING and cell not in _NOTHING else cell
            for head, cell in zip(table[0], row, strict=True)
        ]
        if table[0][0] == "NAME":
            cells[0] = _DAEMON.sub("…", _SUFFIX.sub("…", cells[0]))
        rows.append(cells)
    return "\n".join(aligned(rows))
