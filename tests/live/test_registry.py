"""Images pulled from a real registry, by the machines' own containerd: what goes wrong with one, and a lab that comes from it."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import yaml
from labtools import keep_evidence, left_on_this_host, stackbook
from registry_server import PROGRAM, Server, refusing, serving
from stackbook.app import reset
from stackbook.artifacts.oci_archive import Content, Entry, Image, Layer, write_archive
from stackbook.cluster import image_import
from stackbook.cluster.image_import import PullFailed
from stackbook.config.profile import Profile
from stackbook.config.registries import Reference, Registries
from stackbook.core.errors import ArtifactUnavailable
from stackbook.lab.lab import Lab
from stackbook.machines.transports import Host

pytestmark = pytest.mark.live

PORT = 5443
TOOLS = PROGRAM.parent  # skopeo, where it is not installed
OFFICIAL = ("docker.io", "registry.k8s.io", "quay.io", "ghcr.io", "docker.elastic.co")
BUNDLES = ("control-plane", "node", "istio", "apps")
LATER = ("metrics", "tracing", "logs")


@pytest.fixture(scope="module")
def registry(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A registry on the lab's gateway address, which only this host and its machines reach."""
    folder = tmp_path_factory.mktemp("registry")
    with serving(folder, lab.profile.gateway, PORT) as server:
        yield server
    shutil.rmtree(folder, ignore_errors=True)


def push(lab: Lab, server: Server, bundles: tuple[str, ...]) -> None:
    """What the lab has built of these bundles, under the official names."""
    catalogue = lab.artifacts.catalogue
    for bundle in bundles:
        archive = lab.artifacts.bundle(bundle).archive
        ours = image_import.contents(archive)
        for image in catalogue.images.values():
            stands_for = (
                catalogue.image(image.instead) if image.instead and image.name.startswith("bookinfo-") else image
            )
            if image.official and stands_for.reference in ours:
                server.push(archive, {stands_for.reference: image.official})


@pytest.fixture
def machine(lab: Lab) -> Host:
    return next(iter(lab.workers.values()))


@contextmanager
def mirrored(host: Host, name: str, url: str, ca: Path | None = None) -> Iterator[None]:
    """A machine asks `url` for the images of the registry `name` while the block runs."""
    files = Registries({name: url}, ca).hosts_files()
    try:
        for path, text in files.items():
            host.write(path, text)
        yield
    finally:
        host.run(["rm", "-rf", *{str(Path(path).parent) if path.endswith("hosts.toml") else path for path in files}])


@pytest.mark.parametrize(("status", "said"), [(404, "not found"), (401, "401"), (429, "429"), (503, "503")])
def test_what_a_registry_refuses_is_one_line(lab: Lab, machine: Host, status: int, said: str) -> None:
    with refusing(lab.profile.gateway, 0, status) as url, mirrored(machine, "faults.test", url):
        with pytest.raises(PullFailed) as caught:
            image_import.pull({machine.name: machine}, "faults.test/a:1", timeout=60)
        reason = Registries({"faults.test": url}).why_not("faults.test/a:1")
    assert said in caught.value.message and "\n" not in str(caught.value), caught.value.message
    assert reason and url in reason


def test_a_registry_that_is_slow_or_gone_is_given_up(lab: Lab, machine: Host) -> None:
    with refusing(lab.profile.gateway, 0, 200, seconds=60) as url, mirrored(machine, "faults.test", url):
        start = time.monotonic()
        with pytest.raises(PullFailed, match=r"timed out after 4 s pulling faults.test/a:1 .* registry"):
            image_import.pull({machine.name: machine}, "faults.test/a:1", timeout=4)
        assert time.monotonic() - start < 20
    with mirrored(machine, "faults.test", url), pytest.raises(PullFailed, match="refused"):
        image_import.pull({machine.name: machine}, "faults.test/a:1", timeout=60)
    left = machine.run(["systemctl", "list-units", "--no-legend", "stackbook-pull-*"], check=False).stdout
    assert left == "", left


def made(folder: Path, *, size: int) -> Path:
    """An archive with an image of so many bytes that no machine has yet."""
    content = Content(size, data=os.urandom(size))
    layer = Layer((Entry("random", "file", 0o644, content=content),))
    write_archive([Image("stackbook.local/faults:1", (layer,), (), (), (), "")], folder / "faults.tar")
    return folder / "faults.tar"


def test_a_corrupt_layer_is_noticed_and_what_is_right_is_pulled(
    lab: Lab, machine: Host, registry: Server, tmp_path: Path
) -> None:  # fmt: skip
    archive = made(tmp_path, size=1 << 20)
    ours = "stackbook.local/faults:1"
    registry.push(archive, {ours: "docker.io/faults/small:1"})
    manifest = json.loads(registry.blob(registry.pushed["docker.io/faults/small:1"]).read_text())
    layer = registry.blob(manifest["layers"][-1]["digest"])
    right = layer.read_bytes()
    name = "mirrored.test/faults/small:1"
    with mirrored(machine, "mirrored.test", registry.address, registry.ca):
        try:
            layer.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
            with pytest.raises(PullFailed, match="digest"):
                image_import.pull({machine.name: machine}, name, timeout=120)
            assert name not in image_import.present(machine)
            layer.write_bytes(right)
            assert (
                image_import.pull(
                    {machine.name: machine}, name, digest=image_import.contents(archive)[ours], timeout=120
                )
                == 1
            )
            assert image_import.pull({machine.name: machine}, name, timeout=120) == 0
            with pytest.raises(PullFailed, match="is pinned"):
                image_import.pull({machine.name: machine}, name, digest="sha256:" + "0" * 64, timeout=120)
        finally:
            machine.run(["ctr", "-n", "k8s.io", "images", "rm", name], check=False)


def test_another_ca_is_not_believed(lab: Lab, machine: Host, registry: Server) -> None:
    with mirrored(machine, "mirrored.test", registry.address), pytest.raises(PullFailed, match="certificate"):
        image_import.pull({machine.name: machine}, "mirrored.test/faults/small:1", timeout=60)
    assert "CERTIFICATE_VERIFY_FAILED" in Registries({"docker.io": registry.address}).why_not("docker.io/a:1")


# a lab that comes from the registry


def written(folder: Path, registry: Server, mode: str = "auto", name: str = "sbpull", net: str = "192.168.96") -> Path:
    """The profile of a second lab, whose machines ask the registry for every official image."""
    path = folder / f"{name}.yaml"
    profile = {
        "target": "embedded", "lab": name,
        "nodes": [{"name": "pull-master", "address": f"{net}.3"}, {"name": "pull-node1", "address": f"{net}.4"}],
        "subnet": f"{net}.0/24", "gateway": f"{net}.2", "images": mode,
        "registry_mirrors": dict.fromkeys(OFFICIAL, registry.address), "registry_ca": str(registry.ca),
    }  # fmt: skip
    path.write_text(yaml.safe_dump(profile))
    return path


@pytest.fixture(scope="module")
def pulled(lab: Lab, registry: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The profile of a second lab, which has run chapters 00 to 05; the lab is taken away at the end."""
    push(lab, registry, BUNDLES)
    before = reset.snapshot()
    path = written(tmp_path_factory.mktemp("pulled"), registry)
    with ExitStack() as stack:
        stack.callback(lambda: reset.reset(Profile.load(path), say=lambda text: None))
        run(path, "--to", "05")
        yield path
    assert left_on_this_host(path, before) == []


def forget(lab: Lab, bundle: str) -> None:
    """The lab asks the registry again for the images of a bundle: its first answer was that it lacks them."""
    memory = lab.state / "images.json"
    data = json.loads(memory.read_text())
    for name in lab.artifacts.catalogue.bundles[bundle]:
        data["not_pulled_because"].pop(lab.artifacts.catalogue.image(name).set, None)
    memory.write_text(json.dumps(data))


def run(profile: Path, *words: str) -> str:
    done = stackbook("run", "--profile", str(profile), *words)
    if done.status:
        keep_evidence(done.output)
    assert done.status == 0, done.output[-4000:]
    return done.output


def test_a_lab_comes_from_the_registry(pulled: Path, registry: Server) -> None:
    """Everything official was pulled for chapters 00 to 05; what the registry lacks is built or left out."""
    second = Lab.open("05-istio", pulled)
    source = {s.name: s.kind for s in second.images.sources.all()}
    from_registry = {name for name, kind in source.items() if kind == "pull"}
    assert {
        "kube-apiserver",
        "etcd",
        "pause",
        "coredns",
        "flannel",
        "pilot",
        "proxyv2",
        "bookinfo-reviews-v3",
    } <= from_registry
    assert (source["load"], source["kibana"], source["fluentd"]) == ("build", "none", "build")
    for host in second.machines.values():
        there = image_import.present(host)
        ours = [name for name in there if name.startswith("stackbook.local/")]
        assert not [
            name for name in ours if not any(word in name for word in ("load", "echo", "bookinfo", "greeter", "tools"))
        ]
        assert "docker.io/istio/proxyv2:1.31.0" in there
    pods = second.kube.json("get", "pods", "-A")["items"]
    running = {c["image"] for p in pods for c in [*p["spec"]["containers"], *p["spec"].get("initContainers", [])]}
    assert {Reference.parse(name).registry for name in running} <= {*OFFICIAL, "stackbook.local"}
    assert any(name.startswith("docker.io/istio/examples-bookinfo-reviews-v3:") for name in running)
    shown = stackbook("images", "--profile", str(pulled))
    assert shown.status == 0
    (row,) = [line.split() for line in shown.output.splitlines() if line.startswith("pilot ")]
    assert row[1:4] == ["05", "pull", "docker.io/istio/pilot:1.31.0"] and row[4].startswith("sha256:"), row


@pytest.mark.more
def test_a_pull_that_fails_half_way_ends_in_the_build(pulled: Path, registry: Server, lab: Lab) -> None:
    """The registry still says that it has the image, and a layer of it is broken."""
    push(lab, registry, ("metrics",))
    official = lab.artifacts.catalogue.image("prometheus").official
    manifest = json.loads(registry.blob(registry.pushed[official]).read_text())
    layer = registry.blob(manifest["layers"][-1]["digest"])
    right = layer.read_bytes()
    second = Lab.open("10-metrics", pulled)
    forget(second, "metrics")
    assert second.images.sources.pulled("prometheus")
    said: list[str] = []
    second.progress = said.append  # type: ignore[method-assign]
    try:
        layer.write_bytes(right[:100])
        assert second.images.load("metrics") == 2
    finally:
        layer.write_bytes(right)
    assert second.images.sources.of("prometheus").kind == "build"
    assert second.images.reference("prometheus") == lab.artifacts.catalogue.image("prometheus").reference
    assert any("prometheus is built instead" in line for line in said), said
    for host in second.machines.values():
        assert second.images.reference("prometheus") in image_import.present(host)


@pytest.mark.more
def test_a_lab_that_only_pulls_says_what_is_missing(lab: Lab, registry: Server, pulled: Path, tmp_path: Path) -> None:
    """`images: pull`, and an image that the registry lost: one line with the registry's reason and the fix."""
    profile = written(tmp_path, registry, mode="pull")
    only = Lab.open("11-tracing", profile)
    with pytest.raises(
        ArtifactUnavailable, match=r"jaegertracing.* could not be pulled: .*not found .* images: auto"
    ) as caught:
        only.images.load("tracing")
    assert "\n" not in str(caught.value)


@pytest.mark.more
def test_the_later_chapters_run_on_pulled_images(pulled: Path, registry: Server, lab: Lab) -> None:
    """Traffic, faults, metrics, traces and logs: a mixed lab, as Prometheus was built after its pull had failed."""
    push(lab, registry, LATER)
    for bundle in ("tracing", "logs"):
        forget(Lab.open("12-logs", pulled), bundle)
    run(pulled, "--only", "06", "--only", "07", "--only", "10", "--only", "11", "--only", "12")
    second = Lab.open("12-logs", pulled)
    source = {s.name: s.kind for s in second.images.sources.all()}
    assert (source["jaeger"], source["elasticsearch"], source["prometheus"]) == ("pull", "pull", "build")
    pods = second.kube.json("get", "pods", "-A")["items"]
    running = {c["image"] for p in pods for c in p["spec"]["containers"]}
    catalogue = lab.artifacts.catalogue
    assert {catalogue.image("jaeger").official, catalogue.image("elasticsearch").official} <= running


@pytest.mark.more
def test_an_existing_cluster_gets_the_labs_images(
    pulled: Path, registry: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`stackbook images push` fills the registry that a profile names, and a pod of that cluster starts from it.

    The second lab is somebody's cluster here, and this is its last test: containerd 1.6 forgets an image for the kubelet as soon as one
    of its names is removed, so this could not be undone for other chapters, or on the standing lab.
    """
    monkeypatch.setenv("PATH", f"{TOOLS}:{os.environ['PATH']}")
    second = Lab.open("05-istio", pulled)
    address = registry.address.removeprefix("https://")
    settings = {"target": "cluster", "lab": "sbpush", "kubeconfig": str(second.kubeconfig)}
    settings |= {"image_registry": f"{address}/stackbook", "registry_ca": str(registry.ca)}
    profile = tmp_path / "cluster.yaml"
    profile.write_text(yaml.safe_dump(settings))
    cluster = Lab.open("05-istio", profile)
    try:
        with pytest.raises(ArtifactUnavailable, match="echo has not been pushed"):
            cluster.images.reference("echo")
        said = stackbook("images", "push", "--profile", str(profile))
        assert said.status == 0, said.output
        assert said.output.count(": pushed") == said.output.count("\n") > 3
        assert ": pushed" not in stackbook("images", "push", "--profile", str(profile)).output
        reference = cluster.images.reference("echo")
        (name, host), *_ = second.workers.items()
        for path, text in Registries({address: registry.address}, registry.ca).hosts_files().items():
            host.write(path, text)
        on = json.dumps({"spec": {"nodeName": name, "terminationGracePeriodSeconds": 0}})
        cluster.kube.kubectl(
            "run", "pushed", "-n", "default", f"--image={reference}", "--restart=Never", f"--overrides={on}"
        )
        cluster.kube.kubectl(
            "wait", "-n", "default", "--for=condition=Ready", "pod/pushed", "--timeout=180s", timeout=200
        )
        (status,) = cluster.kube.json("get", "pod", "pushed", "-n", "default")["status"]["containerStatuses"]
        assert status["imageID"].endswith(reference.partition("@")[2])
        cluster.kube.kubectl("delete", "pod", "pushed", "-n", "default", "--now")
    finally:
        shutil.rmtree(cluster.state)


def test_the_registry_ends_while_an_image_is_pulled(lab: Lab, machine: Host, registry: Server, tmp_path: Path) -> None:
    """Last, as it ends the registry: what was begun is given up with the reason, and the machine is as it was."""
    registry.push(made(tmp_path, size=200 << 20), {"stackbook.local/faults:1": "docker.io/faults/large:1"})
    name = "mirrored.test/faults/large:1"
    killer = threading.Timer(0.4, registry.process.kill)
    with mirrored(machine, "mirrored.test", registry.address, registry.ca):
        killer.start()
        with pytest.raises(PullFailed) as caught:
            image_import.pull({machine.name: machine}, name, timeout=90)
        killer.join()
    assert "\n" not in caught.value.message
    assert name not in image_import.present(machine)
