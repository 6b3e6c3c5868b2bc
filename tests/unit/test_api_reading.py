"""Which questions are asked of the API itself, and that everything else is left to kubectl."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from stackbook.cluster import rest_get
from stackbook.cluster.kube import Kube
from stackbook.core.errors import InputError
from urllib3.exceptions import MaxRetryError

CORE = "/api/v1/namespaces/default"


@pytest.mark.parametrize(
    ("args", "wanted"),
    [
        ("get nodes", ["/api/v1/nodes"]),
        ("get pods -n x", ["/api/v1/namespaces/x/pods"]),
        ("get pods", [f"{CORE}/pods"]),
        ("get pods --all-namespaces", ["/api/v1/pods"]),
        ("get pods -n x -l app=a", ["/api/v1/namespaces/x/pods?labelSelector=app%3Da"]),
        ("get deployment/web", ["/apis/apps/v1/namespaces/default/deployments/web"]),
        ("get svc web -n x", ["/api/v1/namespaces/x/services/web"]),
        ("get telemetry.telemetry.istio.io -n i", ["/apis/telemetry.istio.io/v1/namespaces/i/telemetries"]),
        (
            "get services,serviceentries.networking.istio.io",
            [f"{CORE}/services", "/apis/networking.istio.io/v1/namespaces/default/serviceentries"],
        ),
    ],
)
def test_a_plain_question_has_its_paths(args: str, wanted: list[str]) -> None:
    assert [path for path, _, _ in rest_get.paths(tuple(args.split())) or []] == wanted


@pytest.mark.parametrize(
    "args",
    ["", "describe pods", "get secret x", "get pods a b", "get pods --watch", "get pods x -l a=b", "get pods,nodes x",
     "get --raw=/readyz", "get gateway", "get pods -A x", "get"],
)  # fmt: skip
def test_any_other_question_is_left_to_kubectl(args: str) -> None:
    assert rest_get.paths(tuple(args.split())) is None


class Pool:
    """Answers by path; what is not known is 404."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers

    def request(self, method: str, url: str, **_: Any) -> Any:
        assert method == "GET"
        found = self.answers.get(url.removeprefix("https://api"), (404, {"kind": "Status"}))
        if isinstance(found, Exception):
            raise found
        status, data = found
        return SimpleNamespace(status=status, data=data if isinstance(data, bytes) else json.dumps(data).encode())


def client(answers: dict[str, Any]) -> Any:
    return SimpleNamespace(
        rest_client=SimpleNamespace(pool_manager=Pool(answers)), configuration=SimpleNamespace(host="https://api")
    )


def ask(answers: dict[str, Any], args: str) -> Any:
    return rest_get.answer(client(answers), tuple(args.split()), timeout=1)


def test_items_carry_kind_and_version_as_kubectl_shows_them() -> None:
    found = ask(
        {f"{CORE}/pods": (200, {"kind": "PodList", "items": [{"metadata": {"name": "a"}}]}),
         f"{CORE}/services": (200, {"kind": "ServiceList", "items": [{"metadata": {"name": "b"}}]})},
        "get services,pods",
    )  # fmt: skip
    assert [(i["kind"], i["apiVersion"], i["metadata"]["name"]) for i in found["items"]] == [
        ("Service", "v1", "b"), ("Pod", "v1", "a")]  # fmt: skip
    assert found["kind"] == "List"


def test_one_object_comes_as_it_is() -> None:
    one = {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a"}}
    assert ask({f"{CORE}/pods/a": (200, one)}, "get pod a") == one


@pytest.mark.parametrize(
    "answer", [(404, {}), (500, {}), (200, b"<html>"), OSError("gone"), MaxRetryError(None, "/", "gone")]
)
def test_what_fails_is_left_to_kubectl(answer: Any) -> None:
    assert ask({f"{CORE}/pods": answer}, "get pods") is None


@pytest.mark.parametrize("text", ["", "[", "clusters: 3\n", "users: [{name: a}]\ncurrent-context: gone\n"])
def test_a_kubeconfig_that_cannot_be_used_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(InputError, match=f"the kubeconfig {path} cannot be used: ") as caught:
        Kube(path).json("get", "pods")
    assert "\n" not in str(caught.value)
    assert caught.value.fix
