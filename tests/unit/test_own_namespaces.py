"""Namespaces that the lab did not make are not deleted, emptied or used."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from stackbook.cluster import own_namespaces
from stackbook.config import namespaces
from stackbook.config.namespaces import Namespaces
from stackbook.core.errors import CommandFailed, InputError
from stackbook.core.results import Result


class Cluster:
    """Namespaces and their labels; knows the four commands that `own_namespaces` uses."""

    def __init__(self, **found: dict[str, str]) -> None:
        self.found = dict(found)
        self.deleted: list[str] = []
        self.emptied: list[tuple[str, str]] = []

    def json(self, *args: str) -> Any:
        assert args == ("get", "namespaces")
        return {"items": [{"metadata": {"name": n, "labels": labels}} for n, labels in self.found.items()]}

    def kubectl(self, *args: str, check: bool = True, stdin: Any = None, timeout: float = 60.0) -> Result:
        rc, error = 0, ""
        match args:
            case ("create", "-f", "-"):
                name = stdin.split("name: ")[1].split(",")[0]
                if name in self.found:
                    rc, error = 1, f'Error from server (AlreadyExists): namespaces "{name}" already exists'
                elif name == "forbidden":
                    rc, error = 1, "Error from server (Forbidden): namespaces is forbidden"
                else:
                    self.found[name] = {"stackbook.lab/made": "true"}
            case ("delete", "namespace", "-l", chosen, _):
                assert chosen.startswith("stackbook.lab/made=true,kubernetes.io/metadata.name in (")
                names = chosen.split("(")[1].rstrip(")").split(",")
                gone = [n for n in names if self.found.get(n, {}).get("stackbook.lab/made") == "true"]
                self.deleted += gone
                for name in gone:
                    del self.found[name]
            case ("get", "serviceaccount", "default", "-n", name):
                rc = int(name not in self.found)
            case ("get", "namespace", name, "-o", "json"):
                labels = self.found.get(name)
                rc, error = (1, "Error from server (NotFound): namespaces not found") if labels is None else (0, "")
                return Result(
                    ("kubectl", *args),
                    rc,
                    json.dumps({"metadata": {"name": name, "labels": labels}}),
                    error,
                    0.1,
                    "here",
                )
            case ("delete", kinds, *rest) if "-n" in rest:
                assert {"--all", "-l"} & set(rest)
                self.emptied.append((rest[rest.index("-n") + 1], kinds))
            case _:
                raise AssertionError(f"unexpected: kubectl {args}")
        result = Result(("kubectl", *args), rc, "", error, 0.1, "this host")
        if check and rc:
            raise CommandFailed(result)
        return result


def test_a_namespace_lasts_as_long_as_the_block_even_where_it_fails() -> None:
    kube = Cluster(default={})
    with pytest.raises(ZeroDivisionError), own_namespaces.temporary(kube, "tour", "walk"):
        assert kube.found["tour"] == {"stackbook.lab/made": "true"}
        assert "walk" in kube.found
        raise ZeroDivisionError
    assert kube.found == {"default": {}}
    assert kube.deleted == ["tour", "walk"]


def test_what_a_killed_run_left_is_deleted_first() -> None:
    kube = Cluster(tour={"stackbook.lab/made": "true"})
    with own_namespaces.temporary(kube, "tour"):
        assert kube.deleted == ["tour"]


@pytest.mark.parametrize("labels", [{}, {"stackbook.lab/made": "false"}, {"team": "sales"}])
def test_somebody_elses_namespace_is_refused_and_stays(labels: dict[str, str]) -> None:
    kube = Cluster(walk=labels, tour={"stackbook.lab/made": "true"})
    refused = pytest.raises(InputError, match="namespace 'walk' that this lab did not make")
    with refused as caught, own_namespaces.temporary(kube, "tour", "walk"):
        raise AssertionError("the block must not run")
    assert "kubectl label namespace walk stackbook.lab/made=true" in caught.value.fix
    assert kube.found == {"walk": labels, "tour": {"stackbook.lab/made": "true"}}


def test_create_keeps_the_labs_own_and_refuses_somebody_elses() -> None:
    kube = Cluster(logging={"stackbook.lab/made": "true"}, other={})
    own_namespaces.create(kube, "logging")
    with pytest.raises(InputError, match="'other'"):
        own_namespaces.create(kube, "other")
    with pytest.raises(CommandFailed, match="Forbidden"):
        own_namespaces.create(kube, "forbidden")
    assert kube.deleted == []


def test_delete_leaves_alone_what_is_not_the_labs() -> None:
    kube = Cluster(mine={"stackbook.lab/made": "true"}, theirs={})
    own_namespaces.delete(kube, "mine", "theirs", "nowhere")
    assert kube.deleted == ["mine"]
    assert kube.found == {"theirs": {}}


@pytest.fixture
def learner() -> Iterator[None]:
    namespaces.use(Namespaces("ada"))
    yield
    namespaces.use(Namespaces())


def test_on_somebody_elses_cluster_a_namespace_is_emptied_and_stays(learner: None) -> None:
    kube = Cluster(**{"ada-tour": {"stackbook.lab/made": "true"}, "other": {}})
    with own_namespaces.temporary(kube, "ada-tour"):
        kinds = [kinds for name, kinds in kube.emptied if name == "ada-tour"]
        assert kinds[0].startswith("deployments.apps,services,pods,virtualservices")
        assert kinds[1:] == ["serviceaccounts", "configmaps,serviceaccounts"] and len(kube.emptied) == 3
    assert kube.emptied[3:] == kube.emptied[:3]
    assert kube.deleted == []
    assert set(kube.found) == {"ada-tour", "other"}


def test_the_namespace_of_the_logs_is_emptied_of_what_chapter_12_has_made(learner: None) -> None:
    kube = Cluster(**{"ada-logging": {"stackbook.lab/made": "true"}})
    own_namespaces.empty(kube, "ada-logging")
    kinds = [kinds for _, kinds in kube.emptied]
    assert (
        kinds[0] == "statefulsets.apps,cronjobs.batch,jobs.batch,secrets,configmaps,serviceaccounts" and len(kinds) == 4
    )


def test_on_somebody_elses_cluster_namespaces_are_demanded_and_not_created(learner: None) -> None:
    kube = Cluster(**{"ada-logging": {"stackbook.lab/made": "true"}})
    own_namespaces.provide(kube, "ada-logging")
    with pytest.raises(InputError, match="there is no namespace ada-other for this user"):
        own_namespaces.provide(kube, "ada-other")
    assert set(kube.found) == {"ada-logging"}


def test_on_somebody_elses_cluster_only_the_labs_own_namespaces_are_emptied(learner: None) -> None:
    kube = Cluster(other={})
    with pytest.raises(InputError, match="that this lab did not make"), own_namespaces.temporary(kube, "other"):
        pass
    with pytest.raises(InputError, match="there is no namespace ada-tour for this user"):
        own_namespaces.empty(kube, "ada-tour")
    assert kube.emptied == []
