"""The API server: what it refuses, which kinds and versions it serves, and where it stores them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from stackbook.core.errors import CheckFailed, CommandFailed
from stackbook.lessons.kubernetes.myapp import NAMESPACE

if TYPE_CHECKING:
    from stackbook.lab.lab import Lab


def refused(lab: Lab, *args: str, stdin: str | None = None) -> str:
    """The first error line of a kubectl command that must be refused.

    Raises:
        CheckFailed: the command was accepted.
    """
    answer = lab.kube.kubectl(*args, check=False, stdin=stdin)
    if answer.ok:
        raise CheckFailed(f"{answer.command} was accepted, but should have been refused")
    return next((x for x in answer.stderr.splitlines() if "error" in x.lower()), answer.stderr.strip())


def any_order(lab: Lab) -> dict[str, bool]:
    """Whether the API accepts a manifest with apiVersion as its last line, and without it (K48)."""
    last = "metadata: {name: order}\ndata: {}\nkind: ConfigMap\napiVersion: v1\n"
    without = last.replace("apiVersion: v1\n", "")
    ask = ("apply", "-n", NAMESPACE, "--dry-run=server", "-f", "-")
    return {
        "apiVersion in the last line": lab.kube.kubectl(*ask, stdin=last, check=False).ok,
        "no apiVersion": lab.kube.kubectl(*ask, stdin=without, check=False).ok,
    }


def api_resources(lab: Lab) -> list[dict[str, str]]:
    """The kinds in the guide's listing, in today's `kubectl api-resources`."""
    wanted = ["bindings", "componentstatuses", "configmaps", "endpoints", "events", "limitranges", "namespaces", "nodes",
              "persistentvolumeclaims", "persistentvolumes", "pods"]  # fmt: skip
    lines = lab.kube.kubectl("api-resources").lines
    columns = [(m.start(), m.group()) for m in re.finditer(r"\S+", lines[0])]
    rows = []
    for line in lines[1:]:
        if line.split()[0] in wanted and " v1 " in line:
            ends = [start for start, _ in columns[1:]] + [len(line)]
            rows.append({name: line[start:end].strip() for (start, name), end in zip(columns, ends, strict=True)})
    return rows


def api_versions(lab: Lab) -> list[dict[str, Any]]:
    """The versions in the guide's listing, and whether they are served today (F19)."""
    served = set(lab.kube.kubectl("api-versions").lines)
    listed = ["admissionregistration.k8s.io/v1", "admissionregistration.k8s.io/v1beta1", "apiextensions.k8s.io/v1",
              "apiextensions.k8s.io/v1beta1", "apiregistration.k8s.io/v1", "apiregistration.k8s.io/v1beta1", "apps/v1"]  # fmt: skip
    return [{"version in the guide": v, "served today": v in served} for v in listed]


def rest_call(lab: Lab) -> str:
    """The request that `kubectl get deployment` makes, from its log (K70)."""
    answer = lab.kube.kubectl("get", "deployment", "myapp", "-n", NAMESPACE, "-v=8")
    found = re.search(r'verb="GET" url="[^"]*?(/apis/[^"?]+)|GET [^ ]*?(/apis/[^ ?"]+)', answer.stderr)
    if not found:
        raise CheckFailed("kubectl -v=8 logged no GET of the deployment")
    return f"GET {found.group(1) or found.group(2)}"


def stored(lab: Lab, key: str) -> list[str]:
    """Keys in etcd under a prefix (K71), read with etcdctl in etcd's own pod."""
    pki = "/etc/kubernetes/pki/etcd"
    answer = lab.kube.exec(
        "kube-system", f"etcd-{lab.profile.control_plane.name}", "etcdctl", f"--cacert={pki}/ca.crt",
        f"--cert={pki}/server.crt", f"--key={pki}/server.key", "get", key, "--prefix", "--keys-only", check=False,
    )  # fmt: skip
    if not answer.ok:
        raise CommandFailed(answer)
    return answer.lines


def documented(lab: Lab, *fields: str) -> list[dict[str, str]]:
    """What `kubectl explain` says about fields: each field's type, and the first line about it."""
    rows = []
    for field in fields:
        text = lab.kube.kubectl("explain", field).stdout
        kind = re.search(r"^(?:FIELD|RESOURCE|KIND): +(.+)$", text, re.MULTILINE)
        about = re.search(r"^DESCRIPTION:\n\s+(.+?)(?:\.\s|\n\s*\n)", text, re.MULTILINE | re.DOTALL)
        rows.append({"kubectl explain": field, "is": kind.group(1).strip() if kind else "",
                     "about": " ".join(about.group(1).split())[:110] if about else ""})  # fmt: skip
    return rows
