"""A release: the verdict on a canary, the registry's files, the pipeline's rights, and the repository itself."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from scipy import stats
from stackbook.artifacts import go_toolchain
from stackbook.config.profile import Profile
from stackbook.core.errors import CheckFailed
from stackbook.core.redact import Secret
from stackbook.lessons.delivery.actions import Run
from stackbook.lessons.delivery.release import access, registry, run, verdict


class Service(http.server.BaseHTTPRequestHandler):
    """Two tracks in turn; of the canary, item `broken` fails."""

    broken = -1
    silent = False
    asked: list[str]

    def do_GET(self) -> None:
        type(self).asked.append(self.path)
        item, canary = int(self.path.rpartition("/")[2]), len(type(self).asked) % 2 == 0
        failed = canary and item == type(self).broken
        self.send_response(500 if failed else 200)
        if not (failed and type(self).silent):
            self.send_header("X-Track", "canary" if canary else "stable")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def service(*, broken: int = -1, silent: bool = False) -> Iterator[str]:
    Service.broken, Service.silent, Service.asked = broken, silent, []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_canary_that_is_as_good_stays(capsys: pytest.CaptureFixture[str]) -> None:
    with service() as url:
        assert verdict.main([url, "front.example.com"]) == 0
    said = capsys.readouterr().out
    assert "it stays: 0 of 200" in said
    assert len(Service.asked) <= verdict.REQUESTS + 2


@pytest.mark.parametrize("silent", [False, True])
def test_one_that_fails_for_one_item_goes_also_if_its_answers_name_nobody(
    capsys: pytest.CaptureFixture[str], silent: bool
) -> None:
    with service(broken=4, silent=silent) as url:
        assert verdict.main([url, "front.example.com"]) == 1
    said = capsys.readouterr().out
    assert "it goes: 40 of 200, before 0 of 200 failed: Fisher's exact" in said


def test_a_first_release_is_compared_with_one_that_never_fails() -> None:
    assert verdict.judge({"stable": (0, 0), "canary": (1, 400)}).stays
    assert not verdict.judge({"stable": (0, 0), "canary": (80, 400)}).stays


def test_a_stable_version_that_fails_as_often_does_not_blame_the_canary() -> None:
    assert verdict.judge({"stable": (40, 200), "canary": (41, 200)}).stays


@pytest.mark.parametrize(("answers", "share", "power"), [(verdict.NEEDED, 0.15, 0.9), (200, 0.1, 0.99)])
def test_it_notices_what_its_text_and_the_chapter_promise(answers: int, share: float, power: float) -> None:
    least = next(n for n in range(answers) if not verdict.judge({"stable": (0, answers), "canary": (n, answers)}).stays)
    assert stats.binom.sf(least - 1, answers, share) > power
    assert stats.binom.sf(least - 1, 200, 0.001) < 0.001, "one failure in a thousand is not noticed"


def test_too_few_answers_are_no_verdict() -> None:
    assert verdict.judge({"stable": (0, 399), "canary": (0, 1)}).why.startswith("too few answers of the canary: 1")


def test_nobody_there_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    real = verdict.measured
    monkeypatch.setattr(verdict, "measured", lambda *args: real(*args, timeout=0.3))
    assert verdict.main(["http://127.0.0.1:1", "front.example.com"]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("error: timed out after") and "waiting for the canary to answer" in line


@pytest.mark.parametrize("argv", [[], ["192.0.2.1", "front"], ["http://192.0.2.1", "front", "more"]])
def test_called_wrongly_it_says_how(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert verdict.main(argv) == 2
    assert capsys.readouterr().out.count("\n") == 1


def workflow() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(run.tree()[run.WORKFLOW])
    return found


def test_the_workflow_has_the_steps_of_the_table_and_rolls_back_only_after_a_canary() -> None:
    (job,) = workflow()["jobs"].values()
    steps = {step["name"]: step for step in job["steps"]}
    assert tuple(steps) == run.STEPS
    assert job["runs-on"] == run.LABEL
    assert "if" not in steps["promote"]
    assert steps["roll-back"]["if"] == "failure() && steps.canary.conclusion != 'skipped'"


def test_secrets_go_by_standard_input_or_into_a_file_and_nowhere_else() -> None:
    (job,) = workflow()["jobs"].values()
    for step in job["steps"]:
        for name in ("PASSWORD", "ACCESS"):
            for line in step["run"].splitlines():
                if f"${name}" in line:
                    assert line.lstrip("( ").startswith(("printf %s", "umask 077 && mkdir -p ~/.kube && printf")), line
    assert "${{ secrets" not in json.dumps([step["run"] for step in job["steps"]])


def test_what_is_released_is_named_by_its_digest() -> None:
    text = run.tree()[run.WORKFLOW]
    assert text.count('"front=$IMAGE@$(cat digest)"') == 2


def test_the_pipelines_rights_end_at_its_namespace() -> None:
    objects = {item["kind"]: item for item in access.objects()}
    assert set(objects) == {"ServiceAccount", "Role", "RoleBinding"}
    assert {item["metadata"]["namespace"] for item in objects.values()} == {access.NAMESPACE}
    resources = {resource for rule in objects["Role"]["rules"] for resource in rule["resources"]}
    assert not resources & {"secrets", "roles", "rolebindings", "serviceaccounts", "*"}
    assert all("*" not in rule["verbs"] for rule in objects["Role"]["rules"])


def test_the_kubeconfig_has_the_accounts_token_and_no_key_of_anybody_else() -> None:
    cluster = {"server": "https://192.0.2.1:6443", "certificate-authority-data": "Q0E=", "proxy-url": "left out"}
    text = access.kubeconfig(cluster, Secret("the-accounts-token"))
    made = yaml.safe_load(text)
    assert made["users"] == [{"name": "pipeline", "user": {"token": "the-accounts-token"}}]
    assert made["contexts"][0]["context"]["namespace"] == access.NAMESPACE
    assert made["clusters"][0]["cluster"] == {"server": "https://192.0.2.1:6443", "certificate-authority-data": "Q0E="}


class Machine:
    """A machine whose commands run here, with another folder in the place of containerd's."""

    def __init__(self, certs: Path) -> None:
        self.certs, self.programs = certs, certs.parent / "programs"
        self.programs.mkdir(exist_ok=True)
        program = self.programs / "ctr"  # prints the images, and notes what it is to remove
        program.write_text(
            f'#!/bin/sh\ncase "$4" in ls) cat {certs.parent}/images;; rm) echo "$@" >{certs.parent}/removed;; esac\n'
        )
        program.chmod(0o755)

    def run(self, argv: list[str]) -> None:
        argv = [str(self.certs) if word == registry.CERTS else word for word in argv]
        subprocess.run(argv, check=True, timeout=10, env={"PATH": f"{self.programs}:{os.defpath}"})


class Machines:
    def __init__(self, certs: Path) -> None:
        self.machines = {"node": Machine(certs)}
        self.profile = Profile.load()


IMAGES = """\
REF TYPE DIGEST SIZE PLATFORMS LABELS
{gateway}:5000/trainer/front@sha256:a1 application/vnd sha256:a1 4.7 MiB linux/amd64 -
{gateway}:5000/trainer/other@sha256:b2 application/vnd sha256:b2 4.7 MiB linux/amd64 -
docker.io/trainer/front@sha256:c3 application/vnd sha256:c3 4.7 MiB linux/amd64 -
sha256:1d application/vnd sha256:a1 4.7 MiB linux/amd64 -
sha256:2d application/vnd sha256:c3 4.7 MiB linux/amd64 -
"""


def test_only_the_chapters_own_files_and_images_are_removed_from_a_machine(tmp_path: Path) -> None:
    certs = tmp_path / "certs"
    texts = {
        "192.0.2.1:5000": registry.hosts_file("192.0.2.1:5000"),
        "192.0.2.1:5001 of a killed run": registry.hosts_file("192.0.2.1:5001"),
        "docker.io": 'server = "https://mirror.example.com"\n',
    }
    for name, text in texts.items():
        (certs / name).mkdir(parents=True)
        (certs / name / "hosts.toml").write_text(text)
    (certs / "empty").mkdir()
    machines = Machines(certs)
    (tmp_path / "images").write_text(IMAGES.format(gateway=machines.profile.gateway))
    registry.forget(machines)  # type: ignore[arg-type]
    assert sorted(path.name for path in certs.iterdir()) == ["docker.io", "empty"]
    assert (certs / "docker.io" / "hosts.toml").read_text() == texts["docker.io"]
    removed = (tmp_path / "removed").read_text().split()
    assert set(removed[4:]) == {f"{machines.profile.gateway}:5000/trainer/front@sha256:a1", "sha256:1d"}


def test_where_nothing_was_left_nothing_is_removed(tmp_path: Path) -> None:
    (tmp_path / "images").write_text(IMAGES.format(gateway="192.0.2.9"))
    registry.forget(Machines(tmp_path / "missing"))  # type: ignore[arg-type]
    assert not (tmp_path / "removed").exists()


def test_podman_writes_into_its_folder_alone_and_asks_one_registry_without_tls(tmp_path: Path) -> None:
    environment = registry.podman(tmp_path, "192.0.2.1:5000")
    assert all(value.startswith(str(tmp_path)) for value in environment.values())
    assert 'location = "192.0.2.1:5000"\ninsecure = true' in (tmp_path / "registries.conf").read_text()
    assert "insecure" not in (tmp_path / "containers.conf").read_text()


def test_what_the_verdict_printed_is_read_from_gitea_s_log() -> None:
    lines = ["go: ok", "version     requests    failed", "stable           200         0", "canary           200        40",
             "it goes: 40 of 200 failed", "exitcode '1': failure"]  # fmt: skip
    log = "".join(f"2026-11-29T16:00:0{n}.0000000Z {line}\n" for n, line in enumerate(lines))
    assert run.verdicts(Run("c", "failure", {}, log)) == lines[1:5]
    assert run.verdicts(Run("c", "failure", {}, "")) == []


def test_a_step_that_did_not_run_has_a_dash() -> None:
    table = run.rows({"first": Run("c", "failure", {"clone": "success"}, "")})
    assert table[0] == {"step": "clone", "first": "success"}
    assert table[1] == {"step": "test", "first": "–"}


def test_requests_are_watched_with_who_answered() -> None:
    with service(broken=3) as url, run.watched(url, gap=0.005) as seen:
        seen.note("begin")
        until_many(seen)
    frame = seen.frame()
    assert set(frame["track"]) == {"stable", "canary"}
    assert set(frame["item"]) == set(range(verdict.ITEMS))
    assert (frame["status"] == 500).sum() == ((frame["item"] == 3) & (frame["track"] == "canary")).sum() > 0
    assert frame.attrs["began"] <= seen.changes[0].at


def until_many(seen: run.Watched) -> None:
    for _ in range(500):
        if len(seen.rows) >= 40:
            return
        threading.Event().wait(0.02)
    pytest.fail(f"only {len(seen.rows)} requests")


@pytest.mark.toolchain
def test_the_programs_own_test_passes_and_does_not_see_the_missing_discount(tmp_path: Path) -> None:
    for name, text in run.tree().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    go = go_toolchain.toolchain()
    assert "ok" in go.run("test", "./...", cwd=tmp_path).text
    worse = run.version(3)["main.go"]
    assert worse != run.version(2)["main.go"]
    (tmp_path / "main.go").write_text(worse)
    assert "ok" in go.run("test", "./...", cwd=tmp_path).text
    (tmp_path / "main.go").write_text(worse.replace("120, 80", "121, 80"))
    assert go.run("test", "./...", cwd=tmp_path, check=False).rc == 1


@pytest.mark.parametrize(("broken", "possible"), [("bookinfo", True), ("page", True), ("istio", False)])
def test_a_release_needs_the_mesh_and_not_bookinfo(broken: str, possible: bool, tmp_path: Path) -> None:
    def check(name: str) -> Any:
        def prove(_: Any) -> str:
            if name == broken:
                raise CheckFailed(f"{name} is broken")
            return "fine"

        return SimpleNamespace(id=name, prove=prove)

    turns: list[str] = []
    (tmp_path / "kubeconfig").touch()
    lab: Any = SimpleNamespace(
        profile=Profile(), kubeconfig=tmp_path / "kubeconfig", checks_of=lambda _: [check(n) for n in ("istio", "bookinfo", "page")],
        turn=lambda what, of: turns.append(of) or contextlib.nullcontext(),
    )  # fmt: skip
    assert (run.impossible(lab) == "") is possible
    assert turns == ["istiod"], "chapter 11 stops it for a while"
    lab.kubeconfig = tmp_path / "none"
    assert (run.impossible(lab) == "") is possible
    assert turns == ["istiod"], "without a lab, no turn is taken"
