"""Objects read, applied and deleted over HTTP, against a small API server of the test's own on loopback."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from stackbook.cluster import managed_fields, webhook_retry
from stackbook.cluster.kube import BY_API, Kube
from stackbook.cluster.manifests import objects
from stackbook.cluster.objects import Question, question
from stackbook.core.errors import CommandFailed, InputError, WaitTimeout
from stackbook.core.results import Result
from stackbook.mesh import rules

RULE = rules.destination_rule("reviews", versions=["v1"])
OTHER = rules.virtual_service("ratings", rules.route(rules.to("ratings")))
SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"k": "c2VjcmV0LXZhbHVl"}}
RULES = "/apis/networking.istio.io/v1/namespaces/default"


def _resource(name: str, kind: str, short: str = "", *, namespaced: bool = True) -> dict[str, Any]:
    singular = kind.lower()
    return {"name": name, "kind": kind, "singularName": singular, "namespaced": namespaced, "verbs": ["get"],
            "shortNames": [short] if short else []}  # fmt: skip


GROUPS = {
    "/api/v1": [_resource("pods", "Pod", "po"), _resource("services", "Service", "svc"), _resource("secrets", "Secret"),
                _resource("nodes", "Node", "no", namespaced=False), _resource("events", "Event", "ev")],
    "/apis/apps/v1": [_resource("deployments", "Deployment", "deploy")],
    "/apis/networking.istio.io/v1": [_resource("destinationrules", "DestinationRule", "dr"),
                                     _resource("virtualservices", "VirtualService", "vs")],
    "/apis/networking.istio.io/v1alpha3": [_resource("envoyfilters", "EnvoyFilter"),
                                           _resource("virtualservices", "VirtualService", "vs")],
}  # fmt: skip


class Api(ThreadingHTTPServer):
    """An API server: discovery, and a store of objects by path. `refuse` is what the next writes are answered with."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.groups = copy.deepcopy(GROUPS)
        self.stored: dict[str, dict[str, Any]] = {}
        self.calls: list[tuple[str, str, dict[str, list[str]]]] = []
        self.refuse: list[tuple[int, dict[str, Any]]] = []
        self.keeps: set[str] = set()
        self.version = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def writes(self) -> list[str]:
        return [method for method, _, _ in self.calls if method != "GET"]


def _status(reason: str, message: str) -> dict[str, Any]:
    return {"kind": "Status", "reason": reason, "message": message}


class Handler(BaseHTTPRequestHandler):
    server: Api

    def answer(self, method: str) -> None:
        parts = urlsplit(self.path)
        query = parse_qs(parts.query)
        self.server.calls.append((method, parts.path, query))
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        status, data = self.found(method, parts.path, query, body)
        text = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def found(self, method: str, path: str, query: Any, body: Any) -> tuple[int, Any]:
        store = self.server.stored
        if path == "/version":
            return 200, {"gitVersion": "v1.36.3"}
        if path == "/apis":
            versions: dict[str, list[dict[str, str]]] = {}
            for group in self.server.groups:
                if group.startswith("/apis/"):
                    _, _, name, version = group.split("/")
                    versions.setdefault(name, []).append({"version": version, "groupVersion": f"{name}/{version}"})
            groups = [{"name": name, "versions": v, "preferredVersion": v[0]} for name, v in versions.items()]
            return 200, {"kind": "APIGroupList", "groups": groups}
        if path in self.server.groups:
            return 200, {"kind": "APIResourceList", "resources": self.server.groups[path]}
        if method != "GET" and self.server.refuse:
            return self.server.refuse.pop(0)
        if method == "PATCH" and "dryRun" in query:
            return 200, body
        if method == "PATCH":
            return 200, self.patched(path, query, body)
        there = store.get(path)
        if there is None and path.rpartition("/")[2] in ("pods", "services", "nodes", "events", "destinationrules"):
            return 200, {"kind": "List", "items": [o for p, o in store.items() if p.startswith(f"{path}/")]}
        if there is None:
            *_, plural, name = path.split("/")
            return 404, _status("NotFound", f'{plural} "{name}" not found')
        if method == "DELETE" and path not in self.server.keeps:
            del store[path]
        return 200, there

    def patched(self, path: str, query: Any, body: Any) -> dict[str, Any]:
        store = self.server.stored
        if isinstance(body, list):  # a JSON patch of managedFields
            assert body[0]["value"] == store[path]["metadata"]["resourceVersion"]
            store[path]["metadata"]["managedFields"] = body[1]["value"]
            return store[path]
        there = store.get(path, {"metadata": {"uid": "1", "resourceVersion": "0"}})
        applied = {**body, "metadata": {**there["metadata"], **body["metadata"]}}
        if {k: v for k, v in there.items() if k != "status"} != applied:
            self.server.version += 1
            applied["metadata"]["resourceVersion"] = str(self.server.version)
            store[path] = {**applied, "status": {"seen": self.server.version}}
        assert query["fieldManager"] == ["stackbook"]
        assert query["fieldValidation"] == ["Strict"]
        assert query["force"] in (["True"], ["true"])
        assert self.headers["Content-Type"] == "application/apply-patch+yaml"
        return store[path]

    def do_GET(self) -> None:
        self.answer("GET")

    def do_PATCH(self) -> None:
        self.answer("PATCH")

    def do_DELETE(self) -> None:
        self.answer("DELETE")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def api() -> Iterator[Api]:
    with Api() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def kube(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kube:
    from stackbook.core import temp_dirs

    monkeypatch.setattr(temp_dirs, "of_this_process", lambda _name: tmp_path)
    path = tmp_path / "kubeconfig"
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": api.url}}], "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    }  # fmt: skip
    path.write_text(yaml.safe_dump(config))
    return Kube(path, kubectl_path="/nonexistent/kubectl")


def put(api: Api, path: str, item: dict[str, Any], **metadata: Any) -> None:
    api.stored[path] = {**item, "metadata": {"uid": "1", "resourceVersion": "0", **item["metadata"], **metadata}}


def test_what_is_not_there_is_created_and_the_second_time_unchanged(api: Api, kube: Kube) -> None:
    seen: list[Result] = []
    kube.observers.append(seen.append)
    assert kube.apply([RULE, OTHER]) == 2
    assert kube.apply([RULE, OTHER]) == 0
    assert sorted(api.stored) == [f"{RULES}/destinationrules/reviews", f"{RULES}/virtualservices/ratings"]
    assert seen[0].lines == [
        "destinationrule.networking.istio.io/reviews created",
        "virtualservice.networking.istio.io/ratings created",
    ]
    assert seen[1].lines[0] == "destinationrule.networking.istio.io/reviews unchanged"
    wanted = ("kubectl", "apply", "--server-side", "--force-conflicts", "--field-manager=stackbook", "-f", "-")
    assert {(result.argv, result.host) for result in seen} == {(wanted, BY_API)}


def test_what_names_no_namespace_goes_to_the_learners(api: Api, kube: Kube) -> None:
    kube.namespace = "ada"
    plain = {**RULE, "metadata": {"name": RULE["metadata"]["name"]}}
    assert kube.apply(plain) == 1
    (path,) = api.stored
    assert "/namespaces/ada/" in path
    assert question(["get", "pods"], default="ada") == Question(("pods",), namespace="ada")
    assert question(["get", "pods", "-n", "x"], default="ada") == Question(("pods",), namespace="x")


def test_what_is_another_is_applied(api: Api, kube: Kube) -> None:
    kube.apply(RULE)
    assert kube.apply(rules.destination_rule("reviews", versions=["v2"])) == 1
    (stored,) = api.stored.values()
    assert stored["spec"]["subsets"][0]["name"] == "v2"


def test_what_kubectl_applied_before_is_taken_over(api: Api, kube: Kube) -> None:
    fields = [
        {"manager": "kubectl-client-side-apply", "operation": "Update", "fieldsV1": {"f:spec": {"f:host": {}}}},
        {"manager": "pilot-discovery", "operation": "Update", "fieldsV1": {"f:status": {}}, "subresource": "status"},
    ]
    put(api, f"{RULES}/destinationrules/reviews", RULE, managedFields=fields)
    kube.apply(RULE)
    assert api.writes() == ["PATCH", "PATCH"]
    kept = api.stored[f"{RULES}/destinationrules/reviews"]["metadata"]["managedFields"]
    assert [(entry["manager"], entry["operation"]) for entry in kept] == [
        ("stackbook", "Apply"),
        ("pilot-discovery", "Update"),
    ]


def test_fields_of_two_managers_become_one() -> None:
    entries = [
        {"manager": "stackbook", "operation": "Apply", "fieldsV1": {"f:spec": {"f:a": {}}}, "time": "t"},
        {"manager": "kubectl-client-side-apply", "operation": "Update", "fieldsV1": {"f:spec": {"f:b": {}}}},
    ]
    (entry,) = managed_fields.taken_over(entries, "stackbook") or []
    assert entry["fieldsV1"] == {"f:spec": {"f:a": {}, "f:b": {}}}
    assert managed_fields.taken_over(entries[:1], "stackbook") is None


@pytest.mark.parametrize(
    ("status", "answer", "words"),
    [
        (403, _status("Forbidden", "no rights"), r"Error from server \(Forbidden\): no rights"),
        (400, _status("BadRequest", 'strict decoding error: unknown field "spec.hosst"'), "unknown field"),
        (500, {}, r"Error from server \(500\)"),
        (
            400,
            {"message": 'admission webhook "validation.istio.io" denied the request'},
            r"Error from server: admission webhook",
        ),
    ],
)
def test_what_is_refused_is_an_error_in_kubectls_words(
    api: Api, kube: Kube, status: int, answer: dict[str, Any], words: str
) -> None:
    api.refuse = [(status, answer)]
    with pytest.raises(CommandFailed, match=words):
        kube.apply(RULE)
    assert api.stored == {}


def test_of_a_set_of_rules_none_is_applied_where_one_is_refused(api: Api, kube: Kube) -> None:
    denied = (400, {"message": 'admission webhook "validation.istio.io" denied the request: no hosts'})
    fine = (200, {"metadata": {}})
    api.refuse = [fine, denied]  # the first is tried without effect, the second is refused
    with pytest.raises(CommandFailed, match="no hosts"):
        kube.apply([RULE, OTHER])
    assert api.stored == {}
    assert all(query["dryRun"] == ["All"] for method, _, query in api.calls if method == "PATCH")
    assert kube.apply([RULE, OTHER]) == 2


def test_a_webhook_whose_connection_broke_is_asked_again(api: Api, kube: Kube, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        'failed calling webhook "validation.istio.io": failed to call webhook: Post "https://istiod:443/validate": EOF'
    )
    broken = (500, _status("InternalError", f"Internal error occurred: {text}"))
    api.refuse = [broken, broken]
    assert kube.apply(RULE) == 1
    monkeypatch.setattr(webhook_retry, "BACK", 0.2)
    api.refuse = [broken] * 9
    with pytest.raises(CommandFailed, match="EOF"):
        kube.apply(OTHER)
    denied = (400, _status("BadRequest", 'admission webhook "validation.istio.io" denied the request: no hosts'))
    api.refuse = [denied, denied]
    with pytest.raises(CommandFailed, match="no hosts"):
        kube.apply(OTHER)
    assert len(api.refuse) == 1


def test_only_what_was_there_counts_as_deleted(api: Api, kube: Kube) -> None:
    put(api, f"{RULES}/destinationrules/reviews", RULE)
    unknown = {"apiVersion": "nowhere.io/v1", "kind": "Thing", "metadata": {"name": "a"}}
    assert kube.delete([OTHER, RULE, unknown]) == 1
    assert api.stored == {}


def test_what_does_not_go_is_said_with_its_finalizers(api: Api, kube: Kube) -> None:
    path = f"{RULES}/destinationrules/reviews"
    put(api, path, RULE, finalizers=["keep.it/here"])
    api.keeps.add(path)
    with pytest.raises(
        WaitTimeout, match=r"destinationrule\.networking\.istio\.io/reviews to be deleted.*keep\.it/here"
    ):
        kube.delete(RULE, timeout=0.5)


@pytest.mark.parametrize(
    ("args", "path"),
    [
        ("get nodes", "/api/v1/nodes"),
        ("get no", "/api/v1/nodes"),
        ("get pods -n x", "/api/v1/namespaces/x/pods"),
        ("get pods --all-namespaces", "/api/v1/pods"),
        ("get deployment/web", "/apis/apps/v1/namespaces/default/deployments/web"),
        ("get svc web -n x", "/api/v1/namespaces/x/services/web"),
        (
            "get virtualservice.networking.istio.io a -n i",
            "/apis/networking.istio.io/v1/namespaces/i/virtualservices/a",
        ),
        ("get envoyfilters a", "/apis/networking.istio.io/v1alpha3/namespaces/default/envoyfilters/a"),
        ("get dr", f"{RULES}/destinationrules"),
    ],
)
def test_a_question_goes_where_kubectl_would_ask(api: Api, kube: Kube, args: str, path: str) -> None:
    if path.rpartition("/")[2] in ("web", "a"):
        put(api, path, {"kind": "X", "metadata": {"name": "a"}})
    kube.json(*args.split())
    assert api.calls[-1][:2] == ("GET", path)


def test_selectors_are_sent(api: Api, kube: Kube) -> None:
    kube.json("get", "events", "-n", "x", "--field-selector", "type=Warning", "-l", "app=web")
    assert api.calls[-1][2] == {"fieldSelector": ["type=Warning"], "labelSelector": ["app=web"]}


def test_items_carry_kind_and_version_as_kubectl_shows_them(api: Api, kube: Kube) -> None:
    put(api, "/api/v1/namespaces/default/pods/a", {"metadata": {"name": "a"}})
    put(api, "/api/v1/namespaces/default/services/b", {"metadata": {"name": "b"}})
    found = kube.json("get", "services,pods")
    assert [(i["kind"], i["apiVersion"], i["metadata"]["name"]) for i in found["items"]] == [
        ("Service", "v1", "b"), ("Pod", "v1", "a")]  # fmt: skip


def test_what_was_installed_meanwhile_is_found(api: Api, kube: Kube) -> None:
    kube.json("get", "pods")
    api.groups["/apis/telemetry.istio.io/v1"] = [_resource("telemetries", "Telemetry")]
    put(api, "/apis/telemetry.istio.io/v1/namespaces/default/telemetries/t", {"metadata": {"name": "t"}})
    assert kube.json("get", "telemetry.telemetry.istio.io", "t")["metadata"]["name"] == "t"
    with pytest.raises(CommandFailed, match='doesn\'t have a resource type "gardens"'):
        kube.json("get", "gardens")


def test_what_is_not_there_is_an_error_that_names_it(api: Api, kube: Kube) -> None:
    with pytest.raises(CommandFailed, match=r'Error from server \(NotFound\): pods "gone" not found'):
        kube.json("get", "pod", "gone")


def test_a_secret_is_in_no_record(api: Api, kube: Kube) -> None:
    put(api, "/api/v1/namespaces/default/secrets/s", SECRET)
    seen: list[Result] = []
    kube.observers.append(seen.append)
    assert kube.json("get", "secret", "s")["data"] == SECRET["data"]
    assert seen and "c2VjcmV0" not in repr(seen) + seen[0].stdout


def test_an_api_that_is_gone_is_said(api: Api, kube: Kube) -> None:
    api.shutdown()
    api.server_close()
    for call in (lambda: kube.json("get", "pods"), lambda: kube.apply(RULE), lambda: kube.delete(RULE)):
        with pytest.raises(CommandFailed, match="Unable to connect to the server"):
            call()


@pytest.mark.parametrize(
    "args",
    ["", "describe pods", "get pods a b", "get pods --watch", "get pods x -l a=b", "get pods,nodes x",
     "get --raw=/readyz", "get pods -A x", "get"],
)  # fmt: skip
def test_any_other_question_is_left_to_kubectl(args: str) -> None:
    assert question(args.split()) is None


@pytest.mark.parametrize("text", ["", "[", "clusters: 3\n", "users: [{name: a}]\ncurrent-context: gone\n"])
def test_a_kubeconfig_that_cannot_be_used_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(InputError, match=f"the kubeconfig {path} cannot be used: ") as caught:
        Kube(path).json("get", "pods")
    assert "\n" not in str(caught.value)
    assert caught.value.fix


def test_without_a_kubeconfig_kubectl_says_what_is_wrong(tmp_path: Path) -> None:
    from stackbook.core.errors import StackbookError

    kube = Kube(tmp_path / "none", kubectl_path=str(tmp_path / "no-kubectl"))
    with pytest.raises(StackbookError, match="no-kubectl"):
        kube.apply(RULE)


def test_a_manifest_is_read_as_kubectl_reads_it() -> None:
    text = (
        "---\n# nothing\n---\napiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: a}}\n"
    )
    assert [item["metadata"]["name"] for item in objects(text)] == ["a"]
    dated = objects("{apiVersion: v1, kind: Pod, metadata: {name: a, annotations: {on: 2026-11-27}}}")
    assert list(dated[0]["metadata"]["annotations"].values()) == ["2026-11-27"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "cannot be read as YAML"),
        ("{kind: Pod, metadata: {name: a}}", "no apiVersion"),
        ("{apiVersion: v1, kind: Pod, metadata: {generateName: a}}", "no name"),
        ("just text", "no kind"),
    ],
)
def test_what_is_no_manifest_is_named(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        objects(text)
