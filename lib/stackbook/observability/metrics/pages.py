"""Prometheus' web pages: built apart from the program, and put into its pod when somebody opens them.

The program serves `./static` where it is built without the tag `builtinassets`; its working directory is `/`, and `/static` is a
volume of the pod. So pages that are built later need no new pod, which would lose all samples.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from stackbook.config.namespaces import here
from stackbook.core.errors import CheckFailed

if TYPE_CHECKING:
    from pathlib import Path

    from stackbook.lab.lab import Lab

_FOLDER = "/static/mantine-ui"
_PROOF = f"{_FOLDER}/index.html"


def there(lab: Lab) -> bool:
    """Whether the pod has its pages."""
    return lab.kube.exec(here().monitoring, "deploy/prometheus", "test", "-f", _PROOF, check=False).ok


def put(lab: Lab, pages: Path) -> None:
    """Copy the built pages into the pod; they are there at once or not at all.

    Raises:
        CheckFailed: no pod of Prometheus is ready, or it was installed without a volume for pages.
        CommandFailed: the copy failed.
    """
    pod = _pod(lab)
    if not lab.kube.exec(here().monitoring, pod, "test", "-w", "/static", check=False).ok:
        raise CheckFailed("this Prometheus has no volume for its pages", fix="stackbook run --only 10 --again")
    new = f"/static/new-{os.getpid()}"
    lab.kube.kubectl("cp", str(pages / "mantine-ui"), f"{here().monitoring}/{pod}:{new}", timeout=120)
    swap = f"rm -rf {_FOLDER} && mv {new} {_FOLDER}"
    lab.kube.exec(here().monitoring, pod, "sh", "-c", swap)


def _pod(lab: Lab) -> str:
    for pod in lab.kube.json("get", "pods", "-n", here().monitoring, "-l", "app=prometheus")["items"]:
        statuses = pod["status"].get("containerStatuses", [])
        if statuses and all(status["ready"] for status in statuses) and "deletionTimestamp" not in pod["metadata"]:
            return str(pod["metadata"]["name"])
    raise CheckFailed("no pod of Prometheus is ready", fix="stackbook run --only 10")
