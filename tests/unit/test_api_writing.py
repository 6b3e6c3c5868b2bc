"""Istio's rules written without kubectl as kubectl would have it, and everything else left to kubectl."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from stackbook.cluster import rest_apply
from stackbook.cluster.kube import Kube
from stackbook.core.results import Result
from stackbook.mesh import rules

RULE = rules.destination_rule("reviews", versions=["v1"])
OTHER = rules.virtual_service("ratings", rules.route(rules.to("ratings")))
FOLDER = "/apis/networking.istio.io/v1/namespaces/default/"
KEPT = {"kubectl.kubernetes.io/last-applied-configuration": "{}"}


class Server:
    """An API server's store, by path; `refuses` is a status for every write."""

    def __init__(self, *objects: dict[str, Any]) -> None:
        self.stored = {rest_apply.paths([item])[0][1]: copy.deepcopy(item) for item in objects}  # type: ignore[index]
        self.calls: list[str] = []
        self.refuses = 0

    def request(self, method: str, url: str, *, body: str | None, **_: Any) -> Any:
        path = url.removeprefix("https://api")
        self.calls.append(method)
        status, answer = self._answer(method, path, json.loads(body) if body else {})
        return SimpleNamespace(status=status, data=json.dumps(answer).encode())

    def _answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if method != "GET" and self.refuses:
            return self.refuses, {"kind": "Status"}
        if method == "POST":
            self.stored[f"{path}/{body['metadata']['name']}"] = body
            return 201, body
        if path not in self.stored:
            return 404, {"kind": "Status"}
        if method == "PUT":
            self.stored[path] = body
        return 200, self.stored.pop(path) if method == "DELETE" else self.stored[path]

    @property
    def client(self) -> Any:
        return SimpleNamespace(
            rest_client=SimpleNamespace(pool_manager=self), configuration=SimpleNamespace(host="https://api")
        )


def test_what_is_not_there_is_created() -> None:
    server = Server()
    assert rest_apply.apply(server.client, [RULE, OTHER], timeout=1) == [
        "destinationrule.networking.istio.io/reviews created", "virtualservice.networking.istio.io/ratings created"]  # fmt: skip
    assert server.stored == {f"{FOLDER}destinationrules/reviews": RULE, f"{FOLDER}virtualservices/ratings": OTHER}


def test_what_is_the_same_is_left_as_it_is() -> None:
    server = Server(RULE)
    assert rest_apply.apply(server.client, [RULE], timeout=1) == [
        "destinationrule.networking.istio.io/reviews unchanged"
    ]
    assert server.calls == ["GET"]


def test_what_is_another_gets_the_new_spec_and_keeps_its_labels() -> None:
    there = copy.deepcopy(RULE)
    there["metadata"] |= {"labels": {"of": "somebody"}, "resourceVersion": "7"}
    wanted = rules.destination_rule("reviews", versions=["v2"])
    wanted["metadata"]["labels"] = {"more": "yes"}
    server = Server(there)
    assert rest_apply.apply(server.client, [wanted], timeout=1) == [
        "destinationrule.networking.istio.io/reviews configured"
    ]
    (stored,) = server.stored.values()
    assert stored["spec"] == wanted["spec"]
    assert stored["metadata"]["labels"] == {"of": "somebody", "more": "yes"}
    assert stored["metadata"]["resourceVersion"] == "7"  # or a change by somebody else, meanwhile, would be lost


@pytest.mark.parametrize("status", [400, 403, 404, 409, 422, 500])
def test_what_is_refused_is_left_to_kubectl(status: int) -> None:
    server = Server(RULE)
    server.refuses = status
    assert rest_apply.apply(server.client, [OTHER], timeout=1) is None
    assert rest_apply.apply(server.client, [rules.destination_rule("reviews", versions=["v9"])], timeout=1) is None
    assert (rest_apply.delete(server.client, [RULE], timeout=1) is None) == (status != 404)


def test_what_kubectl_has_applied_is_left_to_kubectl() -> None:
    there = copy.deepcopy(RULE)
    there["metadata"]["annotations"] = KEPT
    server = Server(there)
    assert rest_apply.apply(server.client, [RULE], timeout=1) is None
    assert server.calls == ["GET"]


@pytest.mark.parametrize(
    "item",
    [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}},
        {"apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter", "metadata": {"name": "a"}},
        {"apiVersion": "networking.istio.io/v1", "kind": "Gateway", "metadata": {"generateName": "a"}},
    ],
)
def test_what_is_no_rule_is_left_to_kubectl(item: dict[str, Any]) -> None:
    assert rest_apply.paths([RULE, item]) is None
    assert rest_apply.apply(Server().client, [RULE, item], timeout=1) is None
    assert rest_apply.delete(Server().client, [item], timeout=1) is None


def test_only_what_was_there_counts_as_deleted() -> None:
    server = Server(RULE)
    assert rest_apply.delete(server.client, [OTHER, RULE], timeout=1) == [
        'destinationrule.networking.istio.io/reviews "reviews" deleted'
    ]
    assert server.stored == {}


def test_an_api_that_does_not_answer_is_left_to_kubectl() -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise OSError("gone")

    client = Server().client
    client.rest_client.pool_manager = SimpleNamespace(request=broken)
    assert rest_apply.apply(client, [RULE], timeout=1) is None


def test_a_rule_is_in_the_record_as_a_command_however_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "kubeconfig"
    config.write_text("")
    seen: list[Result] = []
    server = Server()
    kube = Kube(config, kubectl_path="/nonexistent/kubectl", observers=[seen.append])
    monkeypatch.setattr(Kube, "client", server.client)
    assert (kube.apply(RULE), kube.apply([RULE]), kube.delete([RULE, OTHER])) == (1, 0, 1)
    assert [result.argv for result in seen] == [("kubectl", verb, "-f", "-") for verb in ("apply", "apply", "delete")]
    assert seen[1].stdout == "destinationrule.networking.istio.io/reviews unchanged"


def test_without_a_kubeconfig_kubectl_says_what_is_wrong(tmp_path: Path) -> None:
    from stackbook.core.errors import StackbookError

    kube = Kube(tmp_path / "none", kubectl_path=str(tmp_path / "no-kubectl"))
    with pytest.raises(StackbookError, match="no-kubectl"):
        kube.apply(RULE)
