"""What `istioctl analyze` says about rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackbook.core.results import Result
from stackbook.mesh import bookinfo
from stackbook.mesh.rules import Rule, as_yaml

if TYPE_CHECKING:
    from stackbook.lab.lab import Lab


def analyzed(lab: Lab, *rules: Rule) -> Result:
    """The analysis of the namespace of these rules, which are applied.

    On an existing cluster, istioctl would read objects of all namespaces. There it gets the manifests of bookinfo and of the rules.
    """
    if lab.profile.target != "cluster":
        return lab.istioctl("analyze", "-n", lab.namespace, check=False)
    text = f"{bookinfo.manifest(lab)}---\n{as_yaml(*rules)}"
    return lab.istioctl("analyze", "--use-kube=false", "-n", lab.namespace, "-", check=False, stdin=text)
