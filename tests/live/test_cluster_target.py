"""`target: cluster`: an embedded lab is somebody else's cluster here, and a learner has the rights that `stackbook rbac` prints.

Chapters 04 to 07 and 10 to 12 run with these rights alone, the others are read, and nothing outside the learner's namespaces changes.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_objects import objects
from labtools import Done, keep_evidence, left_on_this_host, stackbook
from stackbook.app import reset
from stackbook.cluster.kube import Kube
from stackbook.config import namespaces
from stackbook.config.namespaces import Namespaces
from stackbook.config.profile import Profile
from stackbook.core import paths
from stackbook.core.waiting import until
from stackbook.lab.lab import Lab
from stackbook.observability.logs import client, deploy, generators, learners, loss_accounting
from stackbook.observability.tracing import telemetry

pytestmark = [pytest.mark.live, pytest.mark.more]
THEIRS, LEARNER, NET = "sbtheirs", "ada", "192.168.85"
NAMESPACES = Namespaces(LEARNER).every
LOGS = Namespaces(LEARNER).logging
CONTEXT = "learner@theirs"


def run(profile: Path, *words: str) -> Done:
    done = stackbook("run", "--profile", str(profile), *words)
    if done.status:
        keep_evidence(done.output)
    return done


def telemetry_way(lab: Lab) -> None:
    """The administrator gives the learner's spans a way, as `stackbook rbac` says: an extension provider of the mesh."""
    config = lab.kube.json("get", "configmap", "istio", "-n", "istio-system")
    mesh = yaml.safe_load(config["data"]["mesh"])
    mesh["extensionProviders"] = [
        *mesh.get("extensionProviders", []),
        telemetry.extension_provider(Namespaces(LEARNER)),
    ]
    patch = json.dumps({"data": {"mesh": yaml.safe_dump(mesh)}})
    lab.kube.kubectl("patch", "configmap", "istio", "-n", "istio-system", "--type", "merge", "-p", patch)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Somebody else's cluster: two machines with Istio and a bookinfo of their own; it is taken away at the end."""
    before = reset.snapshot()
    path = tmp_path_factory.mktemp("theirs") / f"{THEIRS}.yaml"
    profile = {
        "target": "embedded", "lab": THEIRS,
        "nodes": [{"name": "their-master", "address": f"{NET}.3"}, {"name": "their-node1", "address": f"{NET}.4"}],
        "subnet": f"{NET}.0/24", "gateway": f"{NET}.2",
    }  # fmt: skip
    path.write_text(yaml.safe_dump(profile))
    with ExitStack() as stack:
        stack.callback(lambda: reset.reset(Profile.load(path), say=lambda text: None))
        for words in (("--to", "03"), ("--only", "05")):
            done = run(path, *words)
            assert done.status == 0, done.output[-4000:]
        lab = Lab.open("05-istio", path)
        telemetry_way(lab)
        lab.images.load(
            "metrics", "tracing", "logs", "shipper", learners.IMAGE
        )  # the administrator has put the learners' images on the machines
        yield lab
    assert left_on_this_host(path, before) == []


@pytest.fixture(scope="module")
def profile(theirs: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The learner's profile and kubeconfig; the administrator has applied what `stackbook rbac` prints."""
    folder = tmp_path_factory.mktemp("learner")
    path = written(folder, folder / "kubeconfig")
    granted(theirs.kube, rights(path))
    answer = theirs.kube.kubectl("create", "token", "learner", "-n", LEARNER, "--duration=2h", secret=True)
    cluster = yaml.safe_load(theirs.kubeconfig.read_text())["clusters"][0]["cluster"]
    config = {
        "apiVersion": "v1", "kind": "Config",
        "clusters": [{"name": "theirs", "cluster": cluster}],
        "users": [{"name": "learner", "user": {"token": answer.reveal().strip()}}],
        "contexts": [{"name": CONTEXT, "context": {"cluster": "theirs", "user": "learner"}}],
    }  # fmt: skip
    descriptor = os.open(folder / "kubeconfig", os.O_WRONLY | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "w") as file:
        yaml.safe_dump(config, file)
    return path


def written(folder: Path, kubeconfig: Path, name: str = "learner", **more: str) -> Path:
    path = folder / f"{name}.yaml"
    settings = {"target": "cluster", "lab": "sblearner", "namespace": LEARNER, "kubeconfig": str(kubeconfig),
                "context": CONTEXT, "images": "preload", **more}  # fmt: skip
    path.write_text(yaml.safe_dump(settings))
    return path


def rights(profile: Path) -> str:
    done = stackbook("rbac", "--profile", str(profile))
    assert done.status == 0, done.output
    return done.output


def granted(kube: Kube, text: str) -> None:
    kube.kubectl("apply", "-f", "-", stdin=text)


@pytest.fixture(scope="module")
def untouched(theirs: Lab, profile: Path) -> dict[str, str]:
    """Every object outside the learner's namespaces, before the learner does anything, and after what their chapters delete is gone."""

    def going() -> list[str]:
        items = theirs.kube.json("get", "namespaces")["items"]
        return [item["metadata"]["name"] for item in items if "deletionTimestamp" in item["metadata"]]

    until(
        lambda: not going(), what="deleted namespaces to be gone", timeout=180, every=1, last=lambda: ", ".join(going())
    )
    return objects(theirs.kube, without=NAMESPACES)


def refused(profile: Path, theirs: Lab, *words: str) -> str:
    """What a run says that must be refused: one line, status 2, and no object in the whole cluster is another one afterwards."""
    before = objects(theirs.kube)
    done = stackbook("run", "--profile", str(profile), *words, timeout=120)
    assert done.status == 2, done.output[-3000:]
    assert done.output.count("\n") == 1, done.output
    assert done.output.startswith("stackbook: ")
    assert objects(theirs.kube) == before
    return done.output


def test_a_right_that_is_missing_is_refused_before_anything_is_changed(
    theirs: Lab, profile: Path, untouched: dict[str, str]
) -> None:
    whole = rights(profile)
    rule = re.search(r'  resources: \["virtualservices".*\n  verbs: \[.*\]', whole)
    assert rule
    without = whole.replace(rule[0], rule[0].replace('"create", ', ""))
    assert without != whole
    try:
        granted(theirs.kube, without)
        said = refused(profile, theirs, "--only", "06")
    finally:
        granted(theirs.kube, whole)
    assert "the user learner may not create virtualservices.networking.istio.io in namespace ada" in said
    assert "stackbook rbac --profile" in said


def test_a_quota_that_is_too_small_is_refused(theirs: Lab, profile: Path, untouched: dict[str, str]) -> None:
    whole = rights(profile)
    try:
        granted(theirs.kube, whole.replace('pods: "20"', 'pods: "5"'))
        said = refused(profile, theirs, "--only", "05")
    finally:
        granted(theirs.kube, whole)
    assert "the quota stackbook of namespace ada allows pods: 5, but the chapters need 16" in said


def test_a_mistyped_context_and_a_system_namespace_are_refused(
    theirs: Lab, profile: Path, untouched: dict[str, str]
) -> None:
    kubeconfig = profile.parent / "kubeconfig"
    wrong = written(profile.parent, kubeconfig, "wrong", context="leaner@theirs")
    assert "did you mean 'learner@theirs'" in refused(wrong, theirs, "--only", "05")
    system = written(profile.parent, kubeconfig, "system", namespace="istio-system")
    assert "istio-system is the cluster's own" in refused(system, theirs, "--only", "05")
    somebodys = written(profile.parent, kubeconfig, "somebodys", namespace="bob")
    assert "there is no namespace bob" in refused(somebodys, theirs, "--only", "05")


def test_the_plan_names_the_cluster_and_what_it_would_create(
    theirs: Lab, profile: Path, untouched: dict[str, str]
) -> None:
    before = objects(theirs.kube)
    done = stackbook("plan", "--profile", str(profile), "--to", "07")
    assert done.status == 0, done.output
    assert f"server https://{NET}.3:6443, context {CONTEXT}, user learner" in done.output
    assert "would create in namespace ada: bookinfo, an ingress and an egress gateway" in done.output
    assert "01-machines: would only be read: it makes machines" in done.output
    assert objects(theirs.kube) == before


def outcomes(done: Done) -> dict[str, str]:
    data = json.loads((done.run / "run.json").read_text())
    return {entry["chapter"]: entry["outcome"] for entry in data["chapters"]}


def shown(done: Done, chapter: str) -> str:
    """All text that the cells of a chapter printed in a run."""
    book: dict[str, Any] = json.loads((done.run / f"{chapter}.ipynb").read_text())
    found = [output for cell in book["cells"] for output in cell.get("outputs", [])]
    return "".join("".join(output.get("text", "")) for output in found)


def test_the_chapters_about_machines_are_read(theirs: Lab, profile: Path, untouched: dict[str, str]) -> None:
    before = objects(theirs.kube)
    done = run(profile, "--to", "03")
    assert done.status == 0, done.output[-3000:]
    assert set(outcomes(done).values()) == {"passed"}, outcomes(done)
    for chapter in ("01-machines", "02-kubeadm", "03-flannel"):
        assert "– on an existing cluster, this chapter is only read: it " in shown(done, chapter)
    assert objects(theirs.kube) == before


@pytest.mark.parametrize("number", ["04", "05", "06", "07", "10", "11", "12"])
def test_a_chapter_runs_with_the_learners_rights(
    theirs: Lab, profile: Path, untouched: dict[str, str], number: str
) -> None:
    done = run(profile, "--only", number)
    assert done.status == 0, done.output[-4000:]
    assert set(outcomes(done).values()) == {"passed"}, outcomes(done)
    assert objects(theirs.kube, without=NAMESPACES) == untouched


def test_the_learners_bookinfo_is_the_learners(theirs: Lab, profile: Path, untouched: dict[str, str]) -> None:
    """Chapter 05 has left bookinfo and two gateways, which answer at an address of their own; 10 and 11 have left Prometheus and Jaeger."""
    pods = {p["metadata"]["labels"].get("app") for p in theirs.kube.pods(LEARNER)}
    assert pods == {
        "jaeger",
        "prometheus",
        "productpage",
        "details",
        "reviews",
        "ratings",
        "istio-ingressgateway",
        "istio-egressgateway",
    }
    mine = Lab.open("05-istio", profile)
    assert mine.ingress != theirs.ingress
    assert {p["metadata"]["labels"].get("app") for p in theirs.kube.pods(LOGS)} >= {"elasticsearch", "shipper", "pulse"}
    assert all(not theirs.kube.pods(name) for name in NAMESPACES[1:] if name != LOGS)


@pytest.mark.parametrize("how", ["killed", "deleted"])
def test_the_learners_shipper_loses_nothing(theirs: Lab, profile: Path, untouched: dict[str, str], how: str) -> None:
    """What follows the logs is killed, or its pod deleted, while lines are written: each line arrives, and each once."""
    mine = Lab.open("12-logs", profile)
    namespaces.use(mine.namespaces)
    try:
        with generators.numbered(mine, 6000, seconds=12, filled=0.5) as writers, client.opened(mine.kube) as store:
            until(
                lambda: store.count(loss_accounting.lines_of(writers)) > 500,
                what="the first lines",
                timeout=60,
                every=0.5,
            )
            assert store.count(loss_accounting.lines_of(writers)) < writers.lines, "it is too late for the fault"
            if how == "killed":
                killed = [
                    host.run(["pkill", "-KILL", "-x", "follow"], check=False).ok for host in theirs.machines.values()
                ]
                assert sum(killed) == 1
            else:
                deploy.restart(mine.kube, "shipper")
            found = loss_accounting.wait_arrived(store, writers)
    finally:
        namespaces.use(Namespaces())
    assert sorted(found["number"]) == list(range(1, writers.lines + 1))


def test_later_chapters_are_read(theirs: Lab, profile: Path, untouched: dict[str, str]) -> None:
    before = objects(theirs.kube)
    done = run(profile, "--only", "14")
    assert done.status == 0, done.output[-3000:]
    assert "its Kafka and its bookshop need namespaces of their own" in shown(done, "14-ecosystem")
    assert objects(theirs.kube) == before


def test_no_token_is_shown_and_reset_empties_the_namespaces(
    theirs: Lab, profile: Path, untouched: dict[str, str]
) -> None:
    kubeconfig = profile.parent / "kubeconfig"
    token = yaml.safe_load(kubeconfig.read_text())["users"][0]["user"]["token"]
    state = Lab.open("05-istio", profile).state
    assert stat.S_IMODE((state / "existing.kubeconfig").stat().st_mode) == 0o600
    places = [paths.runs().resolve() / entry.name for entry in sorted(paths.runs().iterdir())[-12:]]
    files = [file for place in [*places, state] if place.is_dir() for file in place.rglob("*") if file.is_file()]
    shown_in = [str(file) for file in files if token in file.read_text(errors="replace")]
    assert shown_in == [str(state / "existing.kubeconfig")]
    done = stackbook("reset", "--profile", str(profile))
    assert done.status == 0, done.output
    left = [
        name
        for name in objects(theirs.kube, only=NAMESPACES)
        if name.split()[0] in ("Deployment", "StatefulSet", "CronJob", "Job", "Service", "VirtualService", "Secret")
        or (
            name.startswith(("ConfigMap", "ServiceAccount"))
            and name.endswith(("/prometheus", "/elasticsearch", "/shipper"))
        )
    ]
    assert left == []
    assert not state.exists()
    assert objects(theirs.kube, without=NAMESPACES) == untouched
