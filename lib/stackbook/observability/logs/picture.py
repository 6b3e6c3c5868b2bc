"""A picture of the way of a log line: from a file on its machine to Elasticsearch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackbook.analysis.boxes import Arrow, Box, Picture, draw
from stackbook.observability.logs import deploy
from stackbook.observability.logs.credentials import NAMESPACE

if TYPE_CHECKING:
    from stackbook.cluster.kube import Kube


def shipping(kube: Kube) -> Picture:
    """The pods of each machine, its shipper, and Elasticsearch, as the API server has them."""
    pods = kube.json("get", "pods", "-A")["items"]
    machines = []
    arrows = [Arrow("this notebook", "Elasticsearch", "queries", colour=0)]
    for node in kube.nodes():
        name = str(node["metadata"]["name"])
        here = [pod for pod in pods if pod["spec"].get("nodeName") == name]
        containers = sum(len(pod["spec"]["containers"]) for pod in here)
        files = Box(
            "/var/log/pods", (f"files of {containers} containers in {len(here)} pods",), name=f"files on {name}"
        )
        shippers = [pod for pod in here if pod["metadata"]["namespace"] == NAMESPACE and
                    pod["metadata"].get("labels", {}).get("app") == "shipper"]  # fmt: skip
        rows: tuple[tuple[Box, ...], ...] = ((files,),)
        if shippers:
            rows = (
                *rows,
                (Box("shipper", ("reads, and sends many lines at once",), name=f"shipper on {name}", colour=2),),
            )
            arrows += [Arrow(f"files on {name}", f"shipper on {name}", colour=2),
                       Arrow(f"shipper on {name}", "Elasticsearch", "TLS, password", colour=2)]  # fmt: skip
        machines.append(Box(name, rows=rows))
    store = Box("Elasticsearch", (f"on {deploy.node(kube)}", "one index for each day", "port 9200"), colour=0)
    return draw([machines, [store], [Box("this notebook")]], arrows, title="The way of a log line")
