"""`stackbook images push`: what is copied where, what is refused before anything is done, and the references that pods then have."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from stackbook.app import image_push
from stackbook.artifacts.resolver import Resolver
from stackbook.config.profile import Profile
from stackbook.core.errors import ArtifactUnavailable, InputError, StackbookError
from stackbook.lab.lab import Lab

REGISTRY = "registry.example.com:5000/stackbook"
SKOPEO = """#!/bin/sh
# Stands for skopeo and its registry: a file for each image, with its digest.
for last; do :; done
file="$FAKE/$(printf '%s' "${last#docker://}" | tr '/:' '__')"
echo "$*" >>"$FAKE/log"
case $1 in
  inspect) cat "$file" 2>/dev/null || exit 1 ;;
  copy) [ -z "$REFUSES" ] || { echo "$REFUSES" >&2; exit 1; }
        archive=$(printf '%s\\n' "$@" | sed -n 's/^oci-archive://p'); cat "$archive.digest" >"$file" ;;
esac
"""


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    fake = tmp_path / "bin"
    fake.mkdir()
    for name in ("skopeo", "kind"):
        (fake / name).write_text(SKOPEO)
        (fake / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake}:/usr/bin:/bin")
    monkeypatch.setenv("FAKE", str(fake))
    monkeypatch.setenv("REFUSES", "")
    monkeypatch.setenv("STACKBOOK_STATE", str(tmp_path / "state"))
    (tmp_path / "state").mkdir()
    monkeypatch.setattr(image_push.image_import, "contents", lambda path: json.loads(path.read_text()))
    return opened(tmp_path, monkeypatch, image_registry=REGISTRY)


def opened(folder: Path, monkeypatch: pytest.MonkeyPatch, **more: str) -> Lab:
    path = folder / "cluster.yaml"
    path.write_text(yaml.safe_dump({"target": "cluster", "lab": "sbcluster", "kubeconfig": "none", **more}))
    lab = Lab.open("05-istio", str(path))
    lab.state.mkdir(parents=True, exist_ok=True)

    def image(self: Resolver, name: str) -> Any:
        archive = folder / f"{name}.tar"
        reference, digest = (
            lab.artifacts.catalogue.image(name).reference,
            f"sha256:{hashlib.sha256(name.encode()).hexdigest()}",
        )
        archive.write_text(json.dumps({reference: digest}))
        Path(f"{archive}.digest").write_text(digest)
        return SimpleNamespace(reference=reference, archive=archive)

    monkeypatch.setattr(Resolver, "image", image)
    return lab


def log(folder: Path) -> list[str]:
    path = folder / "bin" / "log"
    return path.read_text().splitlines() if path.exists() else []


def test_what_the_lab_builds_is_pushed_once_and_named_by_digest(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(ArtifactUnavailable, match="image echo has not been pushed") as early:
        lab.images.reference("echo")
    assert "stackbook images push" in early.value.fix
    said: list[str] = []
    changed = image_push.push(lab, say=said.append)
    assert changed == len(said) == len(image_push.names(lab)) > 3
    assert {"echo", "load"} <= set(image_push.names(lab))
    assert not {"pilot", "kube-apiserver"} & set(image_push.names(lab)), (
        "the nodes pull these from their own registries"
    )
    reference = lab.images.reference("echo")
    digest = hashlib.sha256(b"echo").hexdigest()
    assert reference.startswith(f"{REGISTRY}/") and reference.endswith(f"@sha256:{digest}")
    assert image_push.push(lab, say=said.append) == 0
    assert [line for line in log(tmp_path) if line.startswith("copy")] == [
        line for line in log(tmp_path) if "--preserve-digests" in line
    ]
    assert said[-1].endswith("there already")


def test_images_preload_pushes_also_what_others_pull(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = opened(tmp_path, monkeypatch, image_registry=REGISTRY, images="preload")
    image_push.push(lab, say=lambda _: None)
    assert lab.images.reference("pilot").startswith(f"{REGISTRY}/pilot:"), "Istio takes a registry and a tag"
    assert "@" not in lab.images.reference("pilot")
    assert lab.images.components(["apps", "istioctl"]) == ["istioctl"], "a run need not build them"


def test_another_registrys_note_does_not_count(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image_push.push(lab, say=lambda _: None)
    other = opened(tmp_path, monkeypatch, image_registry="other.example.com/x")
    with pytest.raises(ArtifactUnavailable, match=r"other\.example\.com/x"):
        other.images.reference("echo")


@pytest.mark.parametrize(
    ("reason", "fix"),
    [
        ("unauthorized: authentication required", "skopeo login registry.example.com:5000"),
        ("dial tcp: connection refused", ""),
    ],
)
def test_a_registry_that_refuses_is_named_with_what_it_said(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, reason: str, fix: str
) -> None:
    monkeypatch.setenv("REFUSES", f"time=x\nFATA {reason}")
    with pytest.raises(StackbookError, match=reason) as failed:
        image_push.push(lab, say=lambda _: None)
    assert failed.value.fix == fix


def test_local_clusters_load_archives(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = opened(tmp_path, monkeypatch)
    count = image_push.push(lab, to="kind:demo", say=lambda _: None)
    assert count == len(log(tmp_path))
    assert log(tmp_path)[0].startswith("load image-archive /") and log(tmp_path)[0].endswith("--name demo")
    assert lab.images.reference("echo") == lab.artifacts.catalogue.image("echo").reference


@pytest.mark.parametrize(
    ("settings", "to", "message"),
    [
        ({}, "", "names no registry"),
        ({}, "kind", "--to 'kind' is not known"),
        ({}, "swarm:x", "is not known"),
        ({}, "k3d:x", "program k3d is missing"),
        ({"image_registry": REGISTRY}, "kind:x", "names the registry"),
        ({"target": "embedded"}, "", "import its images themselves"),
    ],
)
def test_bad_input_is_refused(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], to: str, message: str
) -> None:
    embedded = settings.pop("target", "")
    lab = Lab.open("05-istio", "embedded") if embedded else opened(tmp_path, monkeypatch, **settings)
    with pytest.raises(InputError, match=message):
        image_push.push(lab, to=to, say=lambda _: None)
    assert log(tmp_path) == []


@pytest.mark.parametrize("value", ["https://registry.example.com", "a b", "registry/", "Registry.example.com"])
def test_the_profile_refuses_what_is_no_registry(value: str) -> None:
    with pytest.raises(InputError, match="is not a registry"):
        Profile.load(overrides={"target": "cluster", "image_registry": value})


def test_it_is_for_existing_clusters_alone() -> None:
    with pytest.raises(InputError, match="image_registry: it is valid only with target: cluster"):
        Profile.load(overrides={"image_registry": REGISTRY})
