"""The addons' manifests: Grafana's Service exists only while it is looked at, and stays if it was there before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from stackbook.core.errors import CommandFailed
from stackbook.core.results import Result
from stackbook.mesh import install


def service(name: str) -> dict[str, Any]:
    return {
        "kind": "Service",
        "metadata": {"name": name, "namespace": "istio-system"},
        "spec": {"ports": [{"port": 1}]},
    }


class Kube:
    """A cluster that knows which Services there are, and notes what was done to them."""

    def __init__(self, *there: str, breaks: bool = False) -> None:
        self.there, self.breaks, self.done = set(there), breaks, []

    def kubectl(self, *args: str, check: bool = True, stdin: str = "") -> Result:
        if args[0] == "get":
            return Result(args, 0 if args[2] in self.there else 1, "", "", 0.0, "here")
        assert args[:2] == ("apply", "--dry-run=server"), "the other Services are only tried"
        tried = json.loads(stdin)
        tried["spec"]["type"] = "ClusterIP"
        return Result(args, 0, json.dumps(tried), "", 0.0, "here")

    def apply(self, made: dict[str, Any]) -> int:
        self.done.append(("apply", made["metadata"]["name"]))
        return 1

    def delete(self, gone: dict[str, Any]) -> int:
        self.done.append(("delete", gone["metadata"]["name"]))
        return 1

    def json(self, *args: str) -> Any:
        if self.breaks:
            raise CommandFailed(Result(args, 1, "", "no answer", 0.0, "here"))
        return {"spec": {"type": "ClusterIP", "clusterIP": "10.1.0.9", "ports": [{"port": 3000}]}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    board = json.dumps({"title": "Istio Mesh Dashboard"})
    maps = {
        "kind": "ConfigMap",
        "metadata": {"name": "boards"},
        "data": {"mesh-dashboard.json": board, "grafana.ini": "x"},
    }
    for file, documents in {"kiali": [service("kiali")], "jaeger": [service("tracing"), service("zipkin")],
                            "grafana": [service("grafana"), maps]}.items():  # fmt: skip
        (tmp_path / f"{file}.yaml").write_text("---\n" + yaml.safe_dump_all(documents))
    return tmp_path


def lab(folder: Path, kube: Kube, target: str = "embedded") -> Any:
    artifacts = type("Artifacts", (), {"path": lambda _, name: folder if name == "istio-addons" else None})()
    return type("Lab", (), {"kube": kube, "artifacts": artifacts, "profile": type("Profile", (), {"target": target})})()


def test_grafanas_service_is_there_only_while_it_is_looked_at(folder: Path) -> None:
    kube = Kube()
    found = install.addon_services(lab(folder, kube))
    assert set(found) == {"kiali", "grafana", "tracing"} and {spec["type"] for spec in found.values()} == {"ClusterIP"}
    assert kube.done == [("apply", "grafana"), ("delete", "grafana")]
    broken = Kube(breaks=True)
    with pytest.raises(CommandFailed):
        install.addon_services(lab(folder, broken))
    assert broken.done[-1] == ("delete", "grafana"), "also after an error"


def test_what_was_there_before_stays_and_a_cluster_of_somebody_elses_is_not_touched(folder: Path) -> None:
    kube = Kube("grafana")
    assert install.addon_services(lab(folder, kube))["grafana"]["clusterIP"] == "10.1.0.9" and kube.done == []
    assert install.addon_services(lab(folder, kube, "cluster")) == {} and kube.done == []


def test_the_dashboards_are_those_of_its_manifest(folder: Path) -> None:
    assert install.dashboards(lab(folder, Kube())) == ["Istio Mesh Dashboard"]
