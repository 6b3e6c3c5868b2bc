"""What a chapter does not run on an existing cluster: it says so in one sentence, and the learner reads on.

Machines, the pod network and the mesh as a whole belong to somebody else there. `Cells` replaces those cells of the notebook before
IPython runs them, so the notebooks themselves are the same for every target.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stackbook.config.chapters import Chapter
    from stackbook.config.profile import Profile
    from stackbook.lab.lab import Lab

_MACHINES = "it reads and changes machines"
READ: Mapping[str, str] = {
    "01-machines": "it makes machines",
    "02-kubeadm": "it installs Kubernetes on machines",
    "03-flannel": "it installs the pod network, and follows packets on machines",
    "14-ecosystem": "its Kafka and its bookshop need namespaces of their own and a machine's disk",
    "16-incident": "its faults need rights that a learner does not have",
}
"""The chapters that are only read on an existing cluster, with the reason."""
STEPS: Mapping[str, Mapping[str, str]] = {
    "04-kubernetes": {
        "actors": "it asks what the scheduler may do, in the scheduler's name",
        "nodes": _MACHINES,
        "pod": _MACHINES,
        "service": "it reads the rules of kube-proxy on a machine",
        "balance": "it sends requests from a machine",
        "api": "it reads etcd",
    },
    "05-istio": {"capture": "it reads a pod's iptables rules on its machine"},
    "10-metrics": {
        "resources": "it reads the figures of every node's kubelet",
        "kiali": "Kiali reads the whole mesh",
    },
    "11-tracing": {
        "istiod": "it stops istiod",
        "killed": "it kills a process on a machine",
        "rules": "it waits for istiod to come back",
    },
    "12-logs": {
        "nothing-lost": "it reads log files of machines, and Elasticsearch's data need a machine's disk to outlive their pod",
    },
}
"""The steps that other chapters leave out on an existing cluster, with the reason."""
_STEP = re.compile(r"lab\.step\(\s*\"([^\"]+)\"")
_CLAIMS = re.compile(r"lab\.claims\(\s*\"([^\"]+)\"")
_KEPT = re.compile(r"lab\.(errata|postconditions)\(\)|.*\bbind\(.*", re.DOTALL)


def only_read(profile: Profile, chapter: Chapter) -> str:
    """Why this chapter is only read on the profile's target; empty if it runs."""
    return READ.get(chapter.id, "") if profile.target == "cluster" else ""


def sentence(reason: str, what: str = "this chapter") -> str:
    """What a cell says in place of its result."""
    return f"– on an existing cluster, {what} is only read: {reason}"


def begin(lab: Lab) -> None:
    """From now on, leave out the cells of the lab's chapter that an existing cluster does not run."""
    from IPython import get_ipython

    shell = get_ipython()
    if lab.profile.target != "cluster" or shell is None:
        return
    known = shell.input_transformers_cleanup
    known[:] = [each for each in known if not isinstance(each, Cells)]
    if lab.chapter.id in READ or lab.chapter.id in STEPS:
        known.append(Cells(lab.chapter))


class Cells:
    """An input transformer of IPython: takes a cell's lines, and returns those to run.

    Args:
        chapter: the chapter of the notebook; cells that it does not contain are the learner's own, and run.
    """

    def __init__(self, chapter: Chapter) -> None:
        book = json.loads(chapter.notebook.read_text(encoding="utf-8"))
        self._own = {"".join(cell["source"]).strip() for cell in book["cells"] if cell["cell_type"] == "code"}
        self._whole, self._steps = chapter.id in READ, STEPS.get(chapter.id, {})
        self._left: set[str] = set()  # the steps that were left out, and so are their claims
        self._absent: set[str] = set()  # names that only cells which were left out would have set

    def __call__(self, lines: list[str]) -> list[str]:
        """The lines of a cell, or the sentence in their place."""
        text = "".join(lines)
        if text.strip() not in self._own or _KEPT.fullmatch(text.strip()):
            return lines
        if self._whole:
            return ["pass\n"]
        read, written = names(text)
        found = _STEP.search(text)
        step = found[1] if found else ""
        claimed = set(_CLAIMS.findall(text)) & self._left
        if step not in self._steps and not claimed and not (read - written) & self._absent:
            self._absent -= written
            return lines
        self._absent |= written
        if not step:
            return ["pass\n"]
        self._left.add(step)
        reason = self._steps.get(step, "it needs a step that is left out")
        return [f"print({sentence(reason, f'the step {step}')!r})\n"]


def names(source: str) -> tuple[set[str], set[str]]:
    """The variables that a cell reads, and those that it sets.

    >>> names("a = b")
    ({'b'}, {'a'})
    """
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return set(), set()
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    return {n.id for n in found if isinstance(n.ctx, ast.Load)}, {n.id for n in found if isinstance(n.ctx, ast.Store)}
