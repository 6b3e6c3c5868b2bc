"""An existing cluster: what the lab asks before it changes anything, what an administrator grants, and where the workloads go."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import yaml
from stackbook.app import cluster_access, cluster_rights, preflight, rbac
from stackbook.app.cluster_access import Question, questions
from stackbook.app.plan import plan
from stackbook.config.namespaces import Namespaces
from stackbook.config.profile import Profile
from stackbook.core import temp_dirs
from stackbook.core.errors import HostUnfit, InputError

NAMES = Namespaces("ada").every
MESH = {"accessLogFile": "/dev/stdout", "accessLogEncoding": "JSON"}


class Api(ThreadingHTTPServer):
    """An API server that knows namespaces, quotas, the mesh and who may do what; any other request fails the test."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.refused: set[tuple[str, str, str]] = set()  # namespace, verb, resource
        self.namespaces: dict[str, dict[str, str]] = {name: {"stackbook.lab/made": "true"} for name in NAMES}
        self.hard: dict[str, dict[str, str]] = {}
        self.mesh: dict[str, str] = MESH
        self.status = 200
        self.asked: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Api

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self, data: Any, status: int = 200) -> None:
        body = json.dumps(data).encode()
        self.send_response(self.server.status if self.server.status != 200 else status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.path == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", self.path
        asked = given["spec"]["resourceAttributes"]
        resource = asked["resource"] + (f"/{asked['subresource']}" if "subresource" in asked else "")
        key = (asked.get("namespace", ""), asked["verb"], resource)
        self.server.asked.append(("POST", "/".join(key)))
        given["status"] = {"allowed": key not in self.server.refused}
        self._answer(given)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append(("GET", path))
        parts = path.strip("/").split("/")
        if path == "/version/":
            versions = dict.fromkeys(
                ("buildDate", "compiler", "gitCommit", "gitTreeState", "gitVersion", "goVersion", "platform"), "x"
            )
            self._answer({"major": "1", "minor": "36", **versions})
        elif parts[:3] == ["api", "v1", "namespaces"] and len(parts) == 4:
            labels = self.server.namespaces.get(parts[3])
            found = {"kind": "Namespace", "metadata": {"name": parts[3], "labels": labels}}
            self._answer(found, 200 if labels is not None else 404)
        elif path.endswith("/resourcequotas"):
            hard = self.server.hard.get(parts[3])
            items = [{"metadata": {"name": "stackbook"}, "spec": {"hard": hard}}] if hard else []
            self._answer({"kind": "ResourceQuotaList", "items": items})
        else:
            raise AssertionError(f"unexpected: {path}")


@pytest.fixture
def api() -> Iterator[Api]:
    with Api() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def profile(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Profile:
    monkeypatch.setattr(temp_dirs, "of_this_process", lambda _name: tmp_path)
    monkeypatch.setattr(cluster_access.learners_mesh, "problem", lambda _kube: "" if api.mesh == MESH else "no JSON")
    monkeypatch.setenv("STACKBOOK_STATE", str(tmp_path / "state"))
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "theirs",
        "clusters": [{"name": "c", "cluster": {"server": api.url}}],
        "users": [{"name": "learner", "user": {"token": "a-token-to-hide"}}],
        "contexts": [{"name": "theirs", "context": {"cluster": "c", "user": "learner"}}],
    }  # fmt: skip
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(config))
    return Profile.load(overrides={"target": "cluster", "lab": "ada", "kubeconfig": str(path), "context": "theirs"})


def refusal(profile: Profile, numbers: tuple[str, ...] = cluster_access.CHAPTERS) -> str:
    with pytest.raises(HostUnfit) as caught:
        preflight.demand(profile, numbers)
    assert caught.value.exit_status == 2
    assert "\n" not in str(caught.value)
    assert "a-token-to-hide" not in str(caught.value)
    return str(caught.value)


def test_whoever_has_every_right_is_let_in_and_only_questions_were_asked(api: Api, profile: Profile) -> None:
    preflight.demand(profile)
    assert {path for verb, path in api.asked if verb == "GET"} >= {"/version/", "/api/v1/namespaces/ada"}
    asked = [path for verb, path in api.asked if verb == "POST"]
    assert len(asked) == len(questions(profile, cluster_access.CHAPTERS)) + 1


def test_a_missing_right_is_named_with_its_chapters(api: Api, profile: Profile) -> None:
    api.refused = {("ada", "create", "virtualservices")}
    said = refusal(profile)
    assert (
        "the user learner may not create virtualservices.networking.istio.io in namespace ada, which chapters 04, 05, 06, 07"
        in said
    )
    assert "stackbook rbac --profile" in said
    api.refused = {("istio-system", "create", "pods/portforward"), ("istio-system", "get", "pods/portforward")}
    assert "may not get pods/portforward in namespace istio-system" in refusal(profile)
    assert "(and 1 more)" in refusal(profile)
    preflight.demand(profile, ["04"])  # which needs no mesh


def test_a_right_on_the_whole_cluster_names_no_namespace(api: Api, profile: Profile) -> None:
    api.refused = {("", "get", "customresourcedefinitions")}
    wanted = (
        "get customresourcedefinitions.apiextensions.k8s.io virtualservices.networking.istio.io, which chapter 06 needs"
    )
    assert wanted in refusal(profile)


def test_chapters_about_machines_need_no_rights(api: Api, profile: Profile) -> None:
    api.refused = {(name, verb, "pods") for name in NAMES for verb in cluster_rights.CHANGE}
    preflight.demand(profile, ["00", "01", "02", "03"])
    assert api.asked == []


def test_a_namespace_must_be_there_and_be_the_labs(api: Api, profile: Profile) -> None:
    api.namespaces["ada-tour"] = {"kubernetes.io/metadata.name": "ada-tour"}
    assert "the namespace ada-tour is not the lab's: it has no label stackbook.lab/made=true" in refusal(profile)
    del api.namespaces["ada-tour"]
    assert "there is no namespace ada-tour" in refusal(profile)
    preflight.demand(profile, ["06"])  # which does not use it


@pytest.mark.parametrize(
    ("name", "hard", "said"),
    [
        ("ada", {"pods": "15"}, "of namespace ada allows pods: 15, but the chapters need 16"),
        ("ada", {"requests.memory": "512Mi"}, "requests.memory: 512Mi, but the chapters need 1Gi"),
        ("ada", {"requests.cpu": "250m"}, "requests.cpu: 250m, but the chapters need 500m"),
        ("ada", {"services.nodeports": "0"}, "services.nodeports: 0"),
        ("ada-gone", {"pods": "3"}, "of namespace ada-gone allows pods: 3"),
    ],
)
def test_a_quota_that_is_too_small(api: Api, profile: Profile, name: str, hard: dict[str, str], said: str) -> None:
    api.hard[name] = hard
    assert said in refusal(profile)


def test_the_quotas_that_are_printed_are_large_enough(api: Api, profile: Profile) -> None:
    api.hard = {name: dict(quota.hard) for name, quota in cluster_rights.quotas(profile.namespaces).items()}
    preflight.demand(profile)


def test_a_user_whom_nobody_knows(api: Api, profile: Profile) -> None:
    api.status = 401
    assert "the API server does not know this user (401 Unauthorized)" in refusal(profile)


def test_a_server_that_does_not_answer(api: Api, profile: Profile, tmp_path: Path) -> None:
    text = (tmp_path / "config").read_text().replace(api.url, "http://127.0.0.1:9")
    (tmp_path / "config").write_text(text)
    assert "the API server cannot be asked" in refusal(profile)


def test_a_mesh_that_does_not_fit(api: Api, profile: Profile) -> None:
    api.mesh = {}
    assert "mesh: no JSON" in refusal(profile)
    preflight.demand(profile, ["04"])


def test_a_mistyped_context(profile: Profile) -> None:
    assert "no context 'thiers' — did you mean 'theirs'" in refusal(profile.model_copy(update={"context": "thiers"}))


@pytest.mark.parametrize(
    "name", ["default", "kube-system", "istio-system", "kube-flannel", "tigera-operator", "gpu-system"]
)
def test_namespaces_of_the_cluster_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"namespace: {name} is the cluster's own: name one for the learner"):
        Profile.load(overrides={"target": "cluster", "namespace": name})


def test_a_namespace_belongs_to_an_existing_cluster() -> None:
    with pytest.raises(InputError, match="namespace: it is valid only with target: cluster"):
        Profile.load(overrides={"namespace": "ada"})
    with pytest.raises(InputError, match="is not a name"):
        Profile.load(overrides={"target": "cluster", "namespace": "Ada"})
    assert Profile.load(overrides={"target": "cluster", "lab": "ada"}).namespaces.workloads == "ada"
    assert Profile.load().namespaces == Namespaces()


# what an administrator grants


def allowed(rules: list[dict[str, Any]], question: Question) -> bool:
    names = question.right.names
    return any(
        question.right.group in rule["apiGroups"]
        and question.resource in rule["resources"]
        and question.verb in rule["verbs"]
        and ("resourceNames" not in rule or (names and set(names) <= set(rule["resourceNames"])))
        for rule in rules
    )


def granted(profile: Profile) -> dict[str, list[dict[str, Any]]]:
    """The rules by namespace, as the bindings give them to the learner's account."""
    objects = list(yaml.safe_load_all(rbac.manifest(profile)))
    roles = {
        (o["kind"], o["metadata"].get("namespace", ""), o["metadata"]["name"]): o["rules"]
        for o in objects
        if "rules" in o
    }
    found: dict[str, list[dict[str, Any]]] = {}
    for binding in (o for o in objects if "roleRef" in o):
        if binding["metadata"]["name"] in ("prometheus", "shipper"):
            continue
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "learner", "namespace": "ada"}]
        where = binding["metadata"].get("namespace", "")
        found.setdefault(where, []).extend(roles.pop((binding["roleRef"]["kind"], where, binding["roleRef"]["name"])))
    assert list(roles) == [
        ("Role", "ada", "prometheus"),
        ("Role", "ada", "shipper"),
        ("Role", "ada-logging", "shipper"),
    ]
    return found


def test_the_learners_prometheus_may_find_pods_and_nothing_else(profile: Profile) -> None:
    objects = list(yaml.safe_load_all(rbac.manifest(profile)))
    role, binding = (o for o in objects if o["kind"].startswith("Role") and o["metadata"]["name"] == "prometheus")
    assert role["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "prometheus", "namespace": "ada"}]
    assert {o["metadata"]["namespace"] for o in (role, binding)} == {"ada"}


def test_the_learners_shipper_may_read_logs_of_the_learners_pods_and_nothing_else(profile: Profile) -> None:
    objects = list(yaml.safe_load_all(rbac.manifest(profile)))
    roles = [o for o in objects if o["kind"] == "Role" and o["metadata"]["name"] == "shipper"]
    bindings = [o for o in objects if o["kind"] == "RoleBinding" and o["metadata"]["name"] == "shipper"]
    for role in roles:
        given = {resource: rule["verbs"] for rule in role["rules"] for resource in rule["resources"]}
        assert given == {"pods": ["get", "list"], "pods/log": ["get"], "namespaces": ["get"]}
    for found in (roles, bindings):
        assert [o["metadata"]["namespace"] for o in found] == ["ada", "ada-logging"]
    assert [b["subjects"] for b in bindings] == [
        [{"kind": "ServiceAccount", "name": "shipper", "namespace": "ada-logging"}]
    ] * 2


def test_secrets_are_the_learners_in_one_namespace_alone(profile: Profile) -> None:
    where = [n for n, rules in granted(profile).items() for rule in rules if "secrets" in rule["resources"]]
    assert where == ["ada-logging"]


def test_the_file_grants_what_the_lab_asks_for_and_nothing_else(profile: Profile) -> None:
    rules = granted(profile)
    asked = questions(profile, cluster_access.CHAPTERS)
    assert [str(question) for question in asked if not allowed(rules[question.namespace], question)] == []
    given = {
        (where, group, resource, verb)
        for where, found in rules.items()
        for rule in found
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    # The Role of the learner is the same in each of the namespaces.
    wanted = {(q.namespace, q.right.group, q.resource, q.verb) for q in asked}
    wanted |= {(n, r.group, one, verb) for n in NAMES for r in cluster_rights.RIGHTS if r.where == cluster_rights.LEARNER
               for one in r.resources for verb in r.verbs}  # fmt: skip
    assert given == wanted
    assert not any("*" in (*entry,) for entry in given)


def test_outside_the_learners_namespaces_nothing_can_be_changed(profile: Profile) -> None:
    for where, rules in granted(profile).items():
        if where not in NAMES:
            verbs = {(r, verb) for rule in rules for r in rule["resources"] for verb in rule["verbs"]}
            assert {verb for r, verb in verbs if r != "pods/portforward"} <= {"get", "list"}
            assert not {r for r, _ in verbs} & {"secrets", "pods/exec"}


def test_every_rule_says_which_chapter_needs_it(profile: Profile) -> None:
    lines = rbac.manifest(profile).splitlines()
    for number, line in enumerate(lines):
        if line.startswith("- apiGroups:"):
            assert lines[number - 1].startswith(("# chapter 0", "# chapters 0", "# chapter 1"))


def test_the_namespaces_have_the_label_a_quota_and_defaults(profile: Profile) -> None:
    objects = list(yaml.safe_load_all(rbac.manifest(profile)))
    made = {o["metadata"]["name"]: o["metadata"]["labels"] for o in objects if o["kind"] == "Namespace"}
    assert list(made) == list(NAMES)
    assert {labels["stackbook.lab/made"] for labels in made.values()} == {"true"}
    assert [name for name, labels in made.items() if labels.get("istio-injection") == "enabled"] == ["ada"]
    for kind in ("ResourceQuota", "LimitRange"):
        assert [o["metadata"]["namespace"] for o in objects if o["kind"] == kind] == list(NAMES)


def test_rbac_is_about_somebody_elses_cluster() -> None:
    with pytest.raises(InputError, match="target: cluster"):
        rbac.manifest(Profile.load())


# the plan


def test_the_plan_names_the_cluster_and_what_it_would_create(api: Api, profile: Profile, tmp_path: Path) -> None:
    path = tmp_path / "theirs.yaml"
    path.write_text(yaml.safe_dump(profile.model_dump(mode="json", include={"target", "lab", "kubeconfig", "context"})))
    lines = list(plan(str(path), only=("01", "14")))
    assert lines[0] == f"cluster: server {api.url}, context theirs, user learner"
    assert lines[-2] == "01-machines: would only be read: it makes machines"
    assert lines[-1].startswith("14-ecosystem: would only be read")
    assert api.asked == []
    lines = list(islice(plan(str(path), only=("06",)), 3))
    assert lines[1].startswith("  would create in namespace ada: bookinfo")
    assert lines[2] == "  would create nothing else in this cluster, and change nothing outside these namespaces"
