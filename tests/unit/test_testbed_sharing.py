"""The test bed's pods and the earlier rules, if several chapters use the test bed at the same time, or one of them is killed."""

from __future__ import annotations

import contextlib
import json
from types import SimpleNamespace

import pytest
from stackbook.core.errors import CheckFailed
from stackbook.traffic import sharing


class Cluster:
    """Pods, and what was deleted."""

    def __init__(self, *pods: str) -> None:
        self.there, self.deleted, self.scaled = list(pods), [], []
        self.replicas = {"reviews-v1": 1, "ratings-v1": 1, "of-somebody": 2}

    def pods(self, namespace):
        return [{"metadata": {"name": name}} for name in self.there]

    def json(self, *args):
        assert args == ("get", "deployments", "-n", "default")
        items = [{"metadata": {"name": name}, "spec": {"replicas": count}} for name, count in self.replicas.items()]
        return {"items": items}

    def wait_rollout(self, namespace, workload, *, timeout):
        self.scaled.append(workload)

    def kubectl(self, *args, timeout):
        if args[0] == "scale":
            self.replicas[args[1].partition("/")[2]] = int(args[-1].partition("=")[2])
            return
        assert args[:4] == ("delete", "pod", "-n", "default")
        self.deleted.append([arg for arg in args[4:] if not arg.startswith("-")])


@pytest.fixture
def rules(monkeypatch):
    """The traffic rules that there are, and those that were given back."""
    state = SimpleNamespace(now=[], given_back=[])
    monkeypatch.setattr(sharing, "found", lambda kube, namespace: list(state.now))
    monkeypatch.setattr(sharing, "restore", lambda kube, before, namespace: state.given_back.append(list(before)))
    return state


@pytest.fixture
def lab(tmp_path):
    return SimpleNamespace(
        state=tmp_path, kube=Cluster(), turn=lambda what: contextlib.nullcontext(), by_turns=contextlib.nullcontext
    )


def test_the_pods_go_with_the_last_who_has_the_bench(lab, rules):
    with contextlib.ExitStack() as first, contextlib.ExitStack() as second:
        first.enter_context(sharing.restored(lab))
        lab.kube.there += ["load", "outside"]
        second.enter_context(sharing.restored(lab))
        first.close()
        assert lab.kube.deleted == []
        sharing.given_back(lab)
    assert lab.kube.deleted == [["load", "outside"]]
    assert not (lab.state / "rules.json").exists()


def test_pods_that_were_there_before_stay(lab, rules):
    lab.kube.there = ["load", "outside", "productpage-v1"]
    with sharing.restored(lab):
        pass
    assert lab.kube.deleted == []


def test_who_is_killed_has_its_rules_given_back_and_its_pods_taken_away_by_the_next(lab, rules):
    rules.now = [{"kind": "Sidecar", "metadata": {"name": "before"}}]
    note = {"rules": [], "pods": []}  # as one leaves it that was killed: nobody has the lock
    (lab.state / "rules.json").write_text(json.dumps(note))
    lab.kube.there = ["load", "outside"]
    with pytest.raises(CheckFailed, match="before it restored"):
        sharing.given_back(lab)
    with sharing.restored(lab):
        assert rules.given_back == [[]]
        assert "Sidecar before" in sharing.given_back(lab)
    assert lab.kube.deleted == [["broken=yes"], ["load", "outside"]]


def test_what_a_killed_chapter_has_scaled_is_scaled_back_and_nothing_else(lab, rules):
    note = {"rules": [], "pods": [], "replicas": {"reviews-v1": 1, "ratings-v1": 1}}
    (lab.state / "rules.json").write_text(json.dumps(note))
    lab.kube.replicas |= {"reviews-v1": 3, "of-somebody": 5}
    with sharing.restored(lab):
        assert lab.kube.replicas == {"reviews-v1": 1, "ratings-v1": 1, "of-somebody": 5}
        assert lab.kube.scaled == ["deployment/reviews-v1"]
        assert lab.kube.deleted == [["broken=yes"]]
        assert json.loads((lab.state / "rules.json").read_text())["replicas"] == {"reviews-v1": 1, "ratings-v1": 1}


def test_what_somebody_has_scaled_stays(lab, rules):
    lab.kube.replicas["reviews-v1"] = 3
    with sharing.restored(lab):
        pass
    assert lab.kube.replicas["reviews-v1"] == 3 and lab.kube.scaled == []


def test_each_gives_back_what_it_has_found_after_an_error_too(lab, rules):
    rules.now = ["mine"]
    with pytest.raises(RuntimeError), sharing.restored(lab):
        rules.now = ["mine", "another's"]
        raise RuntimeError
    assert rules.given_back == [["mine"]]
    assert not (lab.state / "rules.json").exists()
