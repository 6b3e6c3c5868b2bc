"""The context of an existing cluster: which one, from which files, and that no key of the others comes along."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from stackbook.cluster.kubeconfig import existing, write_kubeconfig
from stackbook.config.profile import Profile
from stackbook.core.errors import InputError
from stackbook.lab.lab import Lab


def config(*names: str, **more: Any) -> str:
    """A kubeconfig with a context, a cluster and a user of each name; the first is the current one."""
    return yaml.safe_dump(
        {
            "current-context": names[0] if names else "",
            "clusters": [{"name": n, "cluster": {"server": f"https://{n}.example.com:6443", **more}} for n in names],
            "users": [{"name": n, "user": {"token": f"token-of-{n}"}} for n in names],
            "contexts": [{"name": n, "context": {"cluster": n, "user": n, "namespace": "x"}} for n in names],
        }
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("STACKBOOK_STATE", str(tmp_path / "state"))
    return tmp_path


def written(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def test_of_several_contexts_one_must_be_named(folder: Path) -> None:
    path = written(folder, "config", config("prod", "kind-lab"))
    with pytest.raises(
        InputError, match=r"several contexts, and the profile names none — set context: .*kind-lab, prod"
    ):
        existing(path)
    with pytest.raises(InputError, match="no context 'kind-lap' — did you mean 'kind-lab'"):
        existing(path, "kind-lap")
    found = existing(path, "kind-lab")
    assert str(found) == "context kind-lab, server https://kind-lab.example.com:6443, user kind-lab"
    assert "prod" not in found.text
    assert "token-of-kind-lab" in found.text
    assert "token" not in repr(found)


def test_one_context_needs_no_name(folder: Path) -> None:
    (folder / ".kube").mkdir()
    written(folder / ".kube", "config", config("only"))
    assert existing("").context == "only"
    assert yaml.safe_load(existing("").text)["current-context"] == "only"


def test_several_files_are_merged_as_kubectl_does_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = written(folder, "a", config("one")), written(folder, "b", config("one", "two"))
    (folder / "b").write_text((folder / "b").read_text().replace("one.example.com", "other.example.com"))
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join([first, str(folder / "gone"), second]))
    assert existing("", "one").server == "https://one.example.com:6443"
    assert existing("", "two").server == "https://two.example.com:6443"
    assert existing(second, "one").server == "https://other.example.com:6443"  # the profile's goes before KUBECONFIG


def test_paths_stay_those_of_the_file(folder: Path) -> None:
    (folder / "sub").mkdir()
    path = written(folder / "sub", "config", config("a", **{"certificate-authority": "pki/ca.crt"}))
    cluster = yaml.safe_load(existing(path).text)["clusters"][0]["cluster"]
    assert cluster["certificate-authority"] == str(folder / "sub" / "pki" / "ca.crt")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no context"),
        ("clusters: 3", "cannot be read as a kubeconfig"),
        ("a: [", "cannot be read as a kubeconfig"),
        ("contexts: [{name: c, context: {cluster: gone, user: u}}]", "names the cluster 'gone', which is missing"),
        ("users: [{name: u, user: {token: hunter22}}\n", "cannot be read"),
    ],
)
def test_a_broken_file_is_one_line_without_its_keys(folder: Path, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        existing(written(folder, "config", text))
    assert "\n" not in str(caught.value)
    assert "hunter22" not in str(caught.value)
    with pytest.raises(InputError, match="there is no kubeconfig at"):
        existing(str(folder / "nowhere"))


def test_a_lab_on_it_says_whose_cluster_it_is_and_keeps_a_private_copy(folder: Path) -> None:
    path = written(folder, "config", config("prod", "kind-lab"))
    overrides = {"target": "cluster", "kubeconfig": path, "context": "kind-lab"}
    profile = folder / "theirs.yaml"
    profile.write_text(yaml.safe_dump(overrides))
    before = Path(path).read_text()
    lab = Lab.open("04", str(profile))
    assert lab.describe() == (
        "04-kubernetes on an existing cluster: context kind-lab, server https://kind-lab.example.com:6443, "
        "user kind-lab, namespace stackbook"
    )
    assert lab.kubeconfig == lab.state / "existing.kubeconfig"
    assert stat.S_IMODE(lab.kubeconfig.stat().st_mode) == 0o600
    assert "prod" not in lab.kubeconfig.read_text()
    assert Path(path).read_text() == before
    mine = existing(path, "kind-lab", namespace="stackbook")
    assert write_kubeconfig(mine.text, lab.kubeconfig) == 0
    assert yaml.safe_load(mine.text)["contexts"][0]["context"]["namespace"] == "stackbook"
    assert yaml.safe_load(existing(path, "kind-lab").text)["contexts"][0]["context"]["namespace"] == "x"


def test_a_context_belongs_to_an_existing_cluster() -> None:
    with pytest.raises(InputError, match="context: it is valid only with target: cluster"):
        Profile.load("embedded", overrides={"context": "kind-lab"})


@pytest.mark.parametrize("name", ["service_cidr", "pod_cidr"])
def test_a_machine_inside_the_services_or_pods_range_is_refused(name: str) -> None:
    nodes = [{"name": "a", "address": "10.0.1.3"}, {"name": "b", "address": "10.0.1.4"}]
    ranges = {"service_cidr": "10.96.0.0/12", "pod_cidr": "10.244.0.0/16", name: "10.0.0.0/16"}
    with pytest.raises(InputError, match=f"{name}: node a has 10.0.1.3, which lies in 10.0.0.0/16"):
        Profile.load("embedded", overrides={"target": "ssh", "nodes": nodes, **ranges})
