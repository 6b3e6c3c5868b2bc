"""A picture of the way of a log line: from a file on its machine to Elasticsearch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackbook.analysis.boxes import Arrow, Box, Picture, draw
from stackbook.config import namespaces
from stackbook.observability.logs import deploy

if TYPE_CHECKING:
    from stackbook.cluster.kube import Kube


def shipping(kube: Kube) -> Picture:
    """The pods of each machine, its shipper, and Elasticsearch, as the API server has them."""
    spaces = namespaces.here()
    own = [spaces.workloads, spaces.logging] if spaces.learner else []  # a learner may not read others
    pods = [pod for space in own for pod in kube.pods(space)] or kube.json("get", "pods", "-A")["items"]
    machines = []
    arrows = [Arrow("this notebook", "Elasticsearch", "queries", colour=0)]
    nodes = [str(node["metadata"]["name"]) for node in kube.nodes()]
    for name in nodes:
        here = [pod for pod in pods if pod["spec"].get("nodeName") == name]
        containers = sum(len(pod["spec"]["containers"]) for pod in here)
        what, kind = ("your pods", "logs") if spaces.learner else ("/var/log/pods", "files")
        files = Box(what, (f"{kind} of {containers} containers in {len(here)} pods",), name=f"files on {name}")
        shippers = [pod for pod in here if pod["metadata"]["namespace"] == spaces.logging and
                    pod["metadata"].get("labels", {}).get("app") == "shipper"]  # fmt: skip
        rows: tuple[tuple[Box, ...], ...] = ((files,),)
        if shippers:
            rows = (
                *rows,
                (Box("shipper", ("reads, and sends many lines at once",), name=f"shipper on {name}", colour=2),),
            )
            read = nodes if spaces.learner else [name]  # from other machines, too: the API server knows all logs
            arrows += [*(Arrow(f"files on {one}", f"shipper on {name}", colour=2) for one in read),
                       Arrow(f"shipper on {name}", "Elasticsearch", "TLS, password", colour=2)]  # fmt: skip
        machines.append(Box(name, rows=rows))
    store = Box("Elasticsearch", (f"on {deploy.node(kube)}", "one index for each day", "port 9200"), colour=0)
    return draw([machines, [store], [Box("this notebook")]], arrows, title="The way of a log line")
