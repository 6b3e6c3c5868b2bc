"""Chapter 13 without Gitea, npm or a network: the guide's files, the pipeline, the listener, what a compose program says."""

from __future__ import annotations

import doctest
import hashlib
import hmac
import json
from pathlib import Path

import httpx
import pytest
import yaml
from stackbook.core.errors import InputError, WaitTimeout
from stackbook.core.redact import Secret
from stackbook.lessons.delivery import compose, gitea, guide_files, npm, pipeline, webhook_receiver


@pytest.mark.parametrize("module", [guide_files, pipeline])
def test_examples(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


# the guide's files


def test_the_guides_pipeline_is_no_yaml_and_the_correction_is() -> None:
    with pytest.raises(yaml.scanner.ScannerError):
        yaml.safe_load(guide_files.guide("drone-pipeline"))
    assert pipeline.problem(guide_files.guide("drone-pipeline")).startswith("line 45: while scanning an alias")
    steps = [step.name for step in pipeline.parse(guide_files.today("drone-pipeline")).steps]
    assert steps == ["restore-cache", "npm-install", "rebuild-cache", "build-dist", "docker"]


def test_env_has_what_the_compose_file_asks_for() -> None:
    assert sorted(guide_files.variables(guide_files.guide("drone-compose"))) == sorted(guide_files.ENV)
    assert set(guide_files.variables(guide_files.today("drone-compose"))) == set(guide_files.ENV)


@pytest.mark.parametrize("name", ["gitea-compose", "drone-compose"])
def test_todays_compose_files_have_no_version_and_no_latest(name: guide_files.Name) -> None:
    today = yaml.safe_load(guide_files.today(name))
    assert "version" in yaml.safe_load(guide_files.guide(name))
    assert "version" not in today
    images = [service["image"] for service in today["services"].values()]
    assert all(":" in image and not image.endswith(":latest") for image in images)


# compose


def said(tmp_path: Path, script: str) -> Path:
    program = tmp_path / "compose-config"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return program


def test_warnings_are_read_and_sorted(tmp_path: Path) -> None:
    lines = [
        'time="x" level=warning msg="The \\"B\\" variable is not set."',
        'time="x" level=warning msg="A `v` is old"',
    ]
    script = "cat .env >&2; " + "".join(f"echo '{line}' >&2; " for line in lines) + "echo '{\"services\": {}}'"
    found = compose.config(said(tmp_path, script), "services: {}", {"A": "1"})
    assert found.warnings == ("A `v` is old", 'The "B" variable is not set.')
    assert found.error == ""
    assert found.model == {"services": {}}


def test_a_refusal_is_told_without_the_folder(tmp_path: Path) -> None:
    found = compose.config(said(tmp_path, 'echo "$PWD/compose.yaml: bad" >&2; exit 1'), "x")
    assert (found.model, found.error) == ({}, "compose.yaml: bad")


def test_a_variable_of_a_service() -> None:
    found = compose.Config({"services": {"a": {"environment": {"X": "", "Y": None}}}}, (), "")
    assert [found.variable("a", name) for name in "XYZ"] == ["", None, None]


# the pipeline


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: *", "alias"),
        ("kind: secret", "no pipeline"),
        ("[]", "no pipeline"),
        ("kind: pipeline\nsteps: []", "no pipeline"),
    ],
)
def test_what_is_no_pipeline_is_refused(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        pipeline.parse(text)


def built(tmp_path: Path, *commands: str, workspace: str = "one") -> list[pipeline.Done]:
    text = yaml.safe_load(guide_files.today("drone-pipeline"))
    text["steps"][1]["commands"] = list(commands)
    text["steps"][3]["commands"] = ["cat node_modules/x"]
    folder = tmp_path / workspace
    folder.mkdir()
    env = {"PATH": "/usr/bin:/bin"}
    return pipeline.run(
        pipeline.parse(yaml.safe_dump(text)), folder, repository="me/shop", cache=tmp_path / "cache", env=env
    )


def test_the_second_build_gets_back_what_the_first_left(tmp_path: Path) -> None:
    first = built(tmp_path, "mkdir node_modules .npm-cache", "echo first > node_modules/x")
    assert first[0].said == ("No cache for ./.npm-cache", "No cache for ./node_modules")
    assert [done.outcome for done in first] == ["success"] * 4 + ["not run"]
    assert (tmp_path / "cache/me/shop/node_modules/x").read_text() == "first\n"
    second = built(tmp_path, "true", workspace="two")
    assert second[0].said == ("Restoring cache for ./.npm-cache", "Restoring cache for ./node_modules")
    assert second[3].said == ("first",)


def test_a_failing_step_ends_the_build(tmp_path: Path) -> None:
    done = built(tmp_path, "echo before", "false", "echo after")
    assert [(d.step, d.outcome) for d in done] == [("restore-cache", "success"), ("npm-install", "failure")]
    assert done[1].said == ("before",)


def test_a_value_in_place_of_a_secret_is_seen() -> None:
    text = yaml.safe_load(guide_files.today("drone-pipeline"))
    text["steps"][4]["settings"]["password"] = "in the clear"
    assert pipeline.parse(yaml.safe_dump(text)).secrets == ["docker_user"]


# the listener


def test_it_keeps_what_it_is_sent_and_knows_a_signature() -> None:
    secret = Secret("a shared secret")
    body = json.dumps({"ref": "refs/heads/main"}).encode()
    signature = hmac.new(secret.reveal().encode(), body, hashlib.sha256).hexdigest()
    with webhook_receiver.listening() as place:
        answer = httpx.post(
            f"{place.url}/hook?x=1", content=body, headers={"x-gitea-signature": signature}, trust_env=False
        )
        request = place.wait("/hook")
        assert answer.status_code == 204
        assert (request.method, request.body) == ("POST", body)
        assert body in request.raw and b"POST /hook?x=1" in request.raw
        assert webhook_receiver.signed(request, secret)
        assert not webhook_receiver.signed(request, Secret("another secret"))
        forged = webhook_receiver.Request("POST", "/hook", request.headers, body + b" ", b"")
        assert not webhook_receiver.signed(forged, secret)
        with pytest.raises(WaitTimeout, match="1 other"):
            place.wait("/elsewhere", timeout=0.1)
    with pytest.raises(httpx.TransportError):
        httpx.get(place.url, trust_env=False)


# Gitea and npm


SETUP = """\
#!/bin/bash
if [ ! -f ${GITEA_CUSTOM}/conf/app.ini ]; then
    mkdir -p x
    if [ -n "$SECRET_KEY" ]; then
        INSTALL_LOCK=true
    fi
    HTTP_PORT=${HTTP_PORT:-"3000"} \\
    DB_HOST=${DB_HOST:-"x"} \\
    envsubst < a > b
fi
    LATER=${LATER:-"x"}
"""


def test_what_the_image_reads_on_its_first_start_only() -> None:
    assert gitea.first_start_only(SETUP) == ["HTTP_PORT", "DB_HOST"]
    assert gitea.first_start_only("#!/bin/sh\nHTTP_PORT=${HTTP_PORT}\n") == []


def test_npm_reads_and_asks_nothing_of_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("npm_config_registry", "http://registry.invalid")
    env = npm.Npm(tmp_path / "node", tmp_path / "root").environment
    assert env["HOME"].startswith(str(tmp_path)) and env["npm_config_prefix"].startswith(str(tmp_path))
    assert env["npm_config_offline"] == "true"
    assert "npm_config_registry" not in env
