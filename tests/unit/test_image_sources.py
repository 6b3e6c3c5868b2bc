"""Where images come from: each asked for once, sets together, and a pull that fails ends in the build or in one clear line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import FakeHost
from stackbook.app.benchmark.floor import Floor
from stackbook.artifacts.catalogue_loader import load
from stackbook.cluster import image_import
from stackbook.cluster.image_import import PullFailed, pull, pull_reason
from stackbook.config import chapters
from stackbook.config.registries import Reference
from stackbook.core import paths
from stackbook.core.errors import ArtifactUnavailable
from stackbook.lab.image_sources import ImageSources
from stackbook.lab.lab import Lab

CATALOGUE = load()
LS = "ctr -n k8s.io images ls"
HEAD = "REF TYPE DIGEST SIZE PLATFORMS LABELS\n"


class Asked:
    """Stands for the registries: has everything but what `without` names; `names` has each question."""

    def __init__(self, without: str = "") -> None:
        self.without, self.names = without, []

    def __call__(self, reference: str) -> str:
        self.names.append(reference)
        return f"it has no {reference}" if self.without and self.without in reference else ""


def sources(folder: Path, mode: str = "auto", without: str = "") -> tuple[ImageSources, Asked]:
    asked = Asked(without)
    return ImageSources(CATALOGUE, mode, asked, folder / "images.json"), asked


def test_every_official_image_names_a_registry_and_a_version() -> None:
    for image in CATALOGUE.images.values():
        if image.official:
            assert Reference.parse(image.official).version not in ("", "latest"), image.name
        assert image.official or image.built, image.name


def test_built_and_pulled_are_the_same_release() -> None:
    for image in CATALOGUE.images.values():
        ours, theirs = (r.rpartition(":")[2].removeprefix("v").split("-")[0] for r in (image.reference, image.official))
        if (
            image.official and image.built and image.name != "flannel-cni-plugin"
        ):  # its module of that version cannot be obtained
            assert ours == theirs, image.name


def test_the_labs_own_programs_are_always_built(tmp_path: Path) -> None:
    for mode in ("auto", "pull", "preload"):
        found, asked = sources(tmp_path / mode, mode)
        for name in ("load", "echo", "bookinfo", "greeter-server", "greeter-client", "tools", "rsyslog"):
            assert (found.of(name).kind, found.of(name).reason) == ("build", "the lab's own")
            assert found.of(name).reference.startswith("stackbook.local/")
        assert asked.names == []


def test_what_the_registry_has_is_pulled_and_asked_for_once(tmp_path: Path) -> None:
    tmp_path.mkdir(exist_ok=True)
    found, asked = sources(tmp_path)
    assert found.of("pilot").reference == "docker.io/istio/pilot:1.31.0"
    assert found.pulled("proxyv2")
    again, asked_again = sources(tmp_path, without="istio")
    assert again.pulled("pilot")
    assert (sorted(asked.names), asked_again.names) == (
        ["docker.io/istio/pilot:1.31.0", "docker.io/istio/proxyv2:1.31.0"], []
    )  # fmt: skip


def test_strict_pulls_by_a_pinned_digest_alone(tmp_path: Path) -> None:
    asked = Asked()
    digest = "sha256:" + "a" * 64
    pinned = replace(CATALOGUE, images={**CATALOGUE.images, "etcd": replace(CATALOGUE.image("etcd"), digest=digest)})
    found = ImageSources(pinned, "auto", asked, tmp_path / "images.json", strict=True)
    assert found.of("coredns").kind == "build"
    assert "not pinned" in found.of("coredns").reason
    assert asked.names == []
    assert found.of("etcd").kind == "pull"
    assert asked.names == [f"{CATALOGUE.image('etcd').official}@{digest}"]


def test_a_set_stays_together(tmp_path: Path) -> None:
    found, _ = sources(tmp_path, without="proxyv2")
    assert (found.of("pilot").kind, found.of("proxyv2").kind) == ("build", "build")
    assert "proxyv2" in found.of("pilot").reason
    assert found.pulled("coredns")  # a mixed lab


def test_the_image_that_takes_the_place_of_another(tmp_path: Path) -> None:
    found, _ = sources(tmp_path, without="examples-bookinfo-reviews-v3")
    ours = CATALOGUE.image("bookinfo").reference
    assert {found.of(f"bookinfo-{w}").reference for w in ("details-v1", "reviews-v3")} == {ours}
    assert found.to_build(["bookinfo-details-v1", "bookinfo-reviews-v3", "load"]) == ["bookinfo", "load"]
    there, _ = sources(tmp_path / "other")
    assert there.of("bookinfo-reviews-v3").reference.startswith("docker.io/istio/examples-bookinfo-reviews-v3:")


def test_what_can_only_be_pulled_is_left_out_elsewhere(tmp_path: Path) -> None:
    found, _ = sources(tmp_path, without="kibana")
    assert (found.of("kibana").kind, found.of("kibana").reference) == ("none", "")
    assert found.to_build(["kibana"]) == [] and found.to_pull(["kibana"]) == []


def test_a_pull_that_fails_is_built_from_then_on(tmp_path: Path) -> None:
    found, _ = sources(tmp_path)
    assert found.pulled("pilot")
    found.fall_back("pilot", "unexpected commit digest")
    assert (found.of("proxyv2").kind, found.of("proxyv2").reason) == (
        "build",
        "its pull failed: unexpected commit digest",
    )
    assert not sources(tmp_path)[0].pulled("pilot")


def test_a_lab_that_only_pulls_says_in_one_line_what_failed(tmp_path: Path) -> None:
    found, asked = sources(tmp_path, "pull", without="pilot")
    assert found.pulled("pilot")
    with pytest.raises(
        ArtifactUnavailable, match=r"istio/pilot:1\.31\.0 could not be pulled: 429 .* images: auto"
    ) as caught:
        found.fall_back("pilot", "429 Too Many Requests")
    assert "\n" not in str(caught.value)
    assert asked.names == []


def test_a_broken_memory_is_asked_for_again(tmp_path: Path) -> None:
    for text in ("{", "[]", '{"not_pulled_because": 3}', '{"preload": true}'):
        (tmp_path / "images.json").write_text(text)
        assert sources(tmp_path)[0].pulled("etcd")
        assert json.loads((tmp_path / "images.json").read_text())["not_pulled_because"] == {"etcd": ""}


def test_all_sources_in_the_catalogues_order(tmp_path: Path) -> None:
    found, asked = sources(tmp_path)
    assert [source.name for source in found.all()] == list(CATALOGUE.images)
    assert len(asked.names) == len(set(asked.names))


def test_the_lab_takes_the_smallest_archive_that_has_what_is_built(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab.open("05-istio")
    asked = Asked(without="coredns")
    monkeypatch.setattr(type(lab.images.registries), "why_not", lambda _self, reference: asked(reference))
    assert lab.images.components(["control-plane", "istio", "kubelet"]) == ["image:coredns", "kubelet"]
    assert lab.images.components(["bookinfo-details-v1"]) == []
    # A pulled Prometheus has its own pages, a pulled Kiali is whole; chapter 13 always runs the lab's own Gitea.
    pages = ["victoria-logs", "zipkin", "kiali", "prometheus-pages", "gitea-pages", "kiali-pages"]
    assert lab.images.components(pages) == ["gitea-pages"]
    assert lab.images.kubeadm.dns == CATALOGUE.image("coredns").reference
    assert lab.images.kubeadm.etcd == f"quay.io/coreos/etcd:v{CATALOGUE.versions['etcd']}"
    assert lab.images.kubeadm.repository == "registry.k8s.io"
    nothing = Lab.open("05-istio")
    (nothing.state / "images.json").unlink()
    asked.without = "/"
    assert nothing.images.components(["control-plane", "bookinfo-details-v1", "kibana"]) == [
        "bundle:control-plane",
        "bundle:apps",
    ]
    assert nothing.images.components(pages) == pages
    assert nothing.images.kubeadm.repository == "stackbook.local"


def test_the_benchmarks_floor_has_the_images_that_the_lab_has(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab.open("05-istio")
    asked = Asked(without="coredns")
    monkeypatch.setattr(type(lab.images.registries), "why_not", lambda _self, reference: asked(reference))
    archive = paths.cache() / "coredns.tar"
    monkeypatch.setattr(type(lab.images), "archives", lambda _self, names: [archive])
    floor, ran = object.__new__(Floor), []
    floor.lab = lab
    monkeypatch.setattr(floor, "_in", lambda node, *argv, **_: ran.append((node, *argv)) or "")
    floor._import("control-plane", ["one"])
    pulled = {argv[-1] for argv in ran if argv[-2] == "pull"}
    assert pulled == set(lab.images.references_to_pull(["control-plane"])) and lab.images.kubeadm.etcd in pulled
    assert ran[-1] == ("one", "ctr", "-n", "k8s.io", "images", "import", "/opt/stackbook/coredns.tar")


def test_the_profiles_own_repository_is_the_kubelets_to_pull_from(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab.open("02-kubeadm", "document-2020")
    asked = Asked()
    monkeypatch.setattr(type(lab.images.registries), "why_not", lambda _self, reference: asked(reference))
    found = lab.images.kubeadm
    assert (found.repository, found.preloaded) == ("registry.aliyuncs.com/google_containers", False)
    (lab.state / "images.json").unlink()
    asked.without = "/"
    built = Lab.open("02-kubeadm", "document-2020").images.kubeadm
    assert (built.repository, built.preloaded) == ("stackbook.local", True)


def host(*, lists: list[str], answer: tuple[int, str, str] = (0, "", "")) -> FakeHost:
    """A machine whose list of images is the next of `lists` at each look."""
    unit = image_import._pull_unit("docker.io/x:1")
    argv = [
        "systemd-run",
        "--quiet",
        "--collect",
        f"--unit={unit}-again",
        f"--property=EnvironmentFile=-{image_import.PROXY_FILE}",
    ]
    argv += [
        "--wait",
        "--pipe",
        "ctr",
        "-n",
        "k8s.io",
        "images",
        "pull",
        "--hosts-dir",
        image_import.CERTS,
        "docker.io/x:1",
    ]
    fake = FakeHost({f"systemctl is-active --quiet {unit}": (3, "", ""), " ".join(argv): answer,
                     "ctr -n k8s.io leases create": "lease-1\n", "ctr -n k8s.io leases delete --sync lease-1": "",
                     "ctr -n k8s.io images rm docker.io/x:1": ""})  # fmt: skip
    run = fake.run

    def listing(words, **flags):
        if " ".join(words) == LS:
            fake.answers[LS] = HEAD + (lists.pop(0) if len(lists) > 1 else lists[0])
        return run(words, **flags)

    fake.run = listing
    return fake


THERE = "docker.io/x:1 application/vnd.oci.image.index.v1+json sha256:abc 1.2 MiB linux/amd64 -\n"


def test_an_image_is_pulled_where_it_is_missing() -> None:
    said: list[str] = []
    lacking, having = host(lists=["", "", THERE]), host(lists=[THERE])
    assert pull({"a": lacking, "b": having}, "docker.io/x:1", digest="sha256:abc", say=said.append) == 1
    assert said == ["pulling docker.io/x:1 on a"]
    assert not any("pull" in command for command in having.ran)


def test_a_pull_that_fails_says_why_in_one_line() -> None:
    text = (
        'time="x" level=info msg="trying"\nctr: failed to copy: unexpected commit digest sha256:1, expected sha256:2\n'
    )
    damaged, missing = (
        host(lists=["", ""], answer=(1, "", text)),
        host(lists=["", ""], answer=(1, "", "ctr: not found")),
    )
    with pytest.raises(PullFailed, match=r"^failed to copy: unexpected commit digest sha256:1, expected sha256:2$"):
        pull({"a": damaged}, "docker.io/x:1")
    with pytest.raises(PullFailed, match=r"^not found$"):
        pull({"a": missing}, "docker.io/x:1")
    tries = [sum("images pull" in command for command in fake.ran) for fake in (damaged, missing)]
    assert tries == [2, 1], "what arrived damaged is tried once more"
    steps = [command.split() for command in damaged.ran if "leases" in command or "images pull" in command]
    assert [words[-1] for words in steps] == ["docker.io/x:1", "create", "lease-1"] * 2, "what is damaged does not stay"
    assert not any("leases" in command for command in missing.ran)
    stuck = host(lists=["", ""], answer=(1, "", text))
    stuck.answers["ctr -n k8s.io leases create"] = (1, "", "containerd does not answer")
    with pytest.raises(PullFailed, match=r"^failed to copy: unexpected commit digest"):
        pull({"a": stuck}, "docker.io/x:1")
    assert pull_reason("") == "no output"


def test_another_digest_than_the_pinned_one_is_refused_and_removed() -> None:
    fake = host(lists=["", "", THERE])
    with pytest.raises(PullFailed, match="has digest sha256:abc on fake, and sha256:def is pinned"):
        pull({"a": fake}, "docker.io/x:1", digest="sha256:def")
    assert "ctr -n k8s.io images rm docker.io/x:1" in fake.ran


def test_the_environment_of_an_image_tells_which_envoy_it_has() -> None:
    get = "ctr -n k8s.io content get"
    index = {"manifests": [{"digest": "sha256:arm", "platform": {"architecture": "arm64"}},
                           {"digest": "sha256:m", "platform": {"architecture": "amd64"}}]}  # fmt: skip
    config = {"config": {"Env": ["PATH=/bin", "ISTIO_META_ISTIO_PROXY_SHA=envoy-1.40.0"]}}
    fake = FakeHost({LS: HEAD + THERE, f"{get} sha256:abc": json.dumps(index),
                     f"{get} sha256:m": json.dumps({"config": {"digest": "sha256:c"}}),
                     f"{get} sha256:c": json.dumps(config)})  # fmt: skip
    assert image_import.environment(fake, "docker.io/x:1")["ISTIO_META_ISTIO_PROXY_SHA"] == "envoy-1.40.0"


@pytest.mark.parametrize("fails", [False, True])
def test_an_image_that_no_machine_has_yet_is_pulled_before_it_is_asked(
    home: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """Chapter 05 asks which Envoy the proxies are before it loads Istio's images."""
    lab = Lab.open("05-istio", "embedded")
    monkeypatch.setattr(type(lab.images.registries), "why_not", lambda _self, reference: "")
    monkeypatch.setattr(type(lab), "machines", {"one": "first", "two": "second"})
    pulls = []

    def pulled(machines: dict[str, str], reference: str, **_: object) -> int:
        pulls.append((list(machines), reference))
        if fails:
            raise PullFailed("it is gone")
        return 1

    monkeypatch.setattr(image_import, "pull", pulled)
    monkeypatch.setattr(image_import, "load", lambda *_: 0)
    monkeypatch.setattr(type(lab.images), "archives", lambda *_: [])
    monkeypatch.setattr(image_import, "environment", lambda host, _: {"ISTIO_META_ISTIO_PROXY_SHA": f"istio-of-{host}"})
    assert lab.images.upstream_envoy is fails, "the lab's own build is upstream Envoy"
    assert pulls == [(["one"], CATALOGUE.image("proxyv2").official)]


def test_no_chapter_names_a_component_that_could_be_meant_otherwise() -> None:
    """A plain "node" is Node.js, and chapter 03 means the images of a node."""
    spaces = (CATALOGUE.artifacts, CATALOGUE.bundles, CATALOGUE.images)
    for chapter in chapters.ALL:
        for name in chapter.artifacts:
            kind, plain = CATALOGUE.resolve(name)
            alone = name == plain and sum(name in space for space in spaces) > 1
            assert not alone or (chapter.number, name, kind) == ("13", "node", "file"), (chapter.id, name)
    assert CATALOGUE.resolve(chapters.find("03").artifacts[0]) == ("bundle", "node")
