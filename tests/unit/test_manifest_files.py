"""The manifests of the chapters as files: what a record holds becomes files, and the files are complete and harmless."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
import tool_module
import yaml
from stackbook.config import chapters
from stackbook.core import paths

FOLDER = paths.notebooks() / "manifests"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return tool_module.load("manifests")


def ended(step: str, *commands: dict[str, object], outcome: str = "passed") -> dict[str, object]:
    return {"event": "step-end", "chapter": "05-istio", "step": step, "outcome": outcome, "commands": list(commands)}


def test_what_the_cluster_took_becomes_files(tool: ModuleType) -> None:
    one = {"command": "kubectl apply --server-side --field-manager=stackbook -f -", "input": "a: 1\n", "rc": 0}
    events = [
        {"event": "step-start", "chapter": "05-istio", "step": "x"},
        ended(
            "bookinfo",
            one,
            {"command": "/c/files/0123456789abcdef/kubectl apply -n shop -f -", "input": "{b: [2]}", "rc": 0},
        ),
        ended("again", one),
        ended("failed", {**one, "input": "c: 3\n"}, outcome="failed"),
        ended("refused", {**one, "input": "d: 4\n", "rc": 1}),
        ended("tried", {"command": "kubectl apply --dry-run=server -f -", "input": "e: 5\n", "rc": 0}),
        ended("secret", {**one, "input": "password: ***\n"}),
        ended("address", {**one, "input": "endpoints: [{address: 10.244.1.41}]\n"}),
        ended("network", {**one, "input": "Network: 10.244.0.0/16\n"}),
        ended("read", {"command": "kubectl get -f -", "input": "f: 6\n", "rc": 0}),
    ]
    assert tool.files(events) == {
        "05-istio/bookinfo.yaml": "# kubectl apply -f bookinfo.yaml\na: 1\n",
        "05-istio/bookinfo-2.yaml": "# kubectl apply -n shop -f bookinfo-2.yaml\nb:\n- 2\n",
        "05-istio/network.yaml": "# kubectl apply -f network.yaml\nNetwork: 10.244.0.0/16\n",
    }


def test_a_new_record_replaces_the_files_of_its_steps_alone(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool.paths, "notebooks", lambda: tmp_path)
    command = {"command": "kubectl create -f -", "rc": 0}
    record = tmp_path / "events.jsonl"

    def write(*events: dict[str, object]) -> None:
        record.write_text("".join(f"{json.dumps(event)}\n" for event in events) + '{"event": "step-')
        assert tool.main([str(record)]) == 0

    write(
        ended("pod", {**command, "input": "a: 1"}, {**command, "input": "a: 2"}),
        ended("pod-two", {**command, "input": "b: 1"}),
    )
    write(ended("pod", {**command, "input": "a: 3"}))
    found = {path.name: yaml.safe_load(path.read_text()) for path in (tmp_path / "manifests/05-istio").iterdir()}
    assert found == {"pod.yaml": {"a": 3}, "pod-two.yaml": {"b": 1}}
    assert tool.main([]) == 2


def test_each_file_is_a_manifest_of_a_chapter_that_names_its_folder() -> None:
    files = sorted(FOLDER.glob("*/*.yaml"))
    assert {path.parent.name for path in files} >= {"03-flannel", "04-kubernetes", "05-istio"}
    for path in files:
        text = path.read_text(encoding="utf-8")
        documents = [one for one in yaml.safe_load_all(text) if one]
        assert documents and all(one["kind"] and one["apiVersion"] for one in documents), path
        assert not [one for one in documents if one["kind"] == "Secret"] and "***" not in text, path
        assert text.startswith("# kubectl ") and f"-f {path.name}\n" in text, path
    for folder in {path.parent for path in files}:
        for edition in (chapters.find(folder.name).notebook, FOLDER.parent / "zh" / f"{folder.name}.ipynb"):
            assert f"notebooks/manifests/{folder.name}/" in edition.read_text(encoding="utf-8"), edition
