"""Gitea by compose: its file, its passwords, and what is said where it cannot run. No engine is started."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import yaml
from stackbook.core.errors import HostUnfit
from stackbook.lessons.containers import docker_daemon, namespaces
from stackbook.lessons.delivery import gitea_compose, gitea_image, guide_files

FILE: dict[str, Any] = yaml.safe_load(gitea_compose.text())


def test_it_is_todays_file_with_the_labs_images() -> None:
    today = yaml.safe_load(guide_files.today("gitea-compose"))["services"]
    mine = FILE["services"]
    assert set(mine) == {*today, "folders"}
    assert mine["server"]["depends_on"]["db"] == today["server"]["depends_on"]["db"] == {"condition": "service_healthy"}
    variables = {name for name in mine["server"]["environment"] if name.startswith("GITEA__database__")}
    todays = {line.split("=")[0] for line in today["server"]["environment"] if line.startswith("GITEA__database__")}
    assert {name.removesuffix("__FILE") for name in variables} == todays, "with the password in a file"
    for name in ("server", "db"):
        assert mine[name]["healthcheck"]["test"][0] == "CMD-SHELL" and mine[name]["restart"] == "always"
        assert mine[name]["cap_drop"] == ["ALL"] and mine[name]["user"] == "1000:1000"
    assert {service["pull_policy"] for service in mine.values()} == {"never"}
    ports = [port for service in mine.values() for port in service.get("ports", [])]
    assert ports == ["127.0.0.1:${GITEA_PORT}:${GITEA_PORT}"]


def test_a_database_whose_making_was_interrupted_is_made_again(tmp_path: Path) -> None:
    """The container's command in a shell, with stand-ins for both programs: the first making ends after its first table."""
    data, programs = tmp_path / "db", tmp_path / "bin"
    data.mkdir()
    programs.mkdir()
    make = f"mkdir {data}/mysql; test -e {tmp_path}/interrupted || {{ touch {tmp_path}/interrupted; exit 1; }}; touch {data}/mysql/whole"
    for name, script in (("mariadb-install-db", make), ("mariadbd", f"test -e {data}/mysql/whole")):
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    command = FILE["services"]["db"]["command"]
    command = [*command[:-1], command[-1].replace("/db", str(data))]
    environment = {"PATH": f"{programs}:{os.defpath}"}
    statuses = [subprocess.run(command, env=environment, timeout=20, check=False).returncode for _ in range(3)]
    assert statuses == [1, 0, 0]
    assert command[-1].count("--innodb-log-file-size=48M") == 2, "or the first start makes the log anew"


def test_a_push_that_gitea_has_not_handled_is_waited_for_and_a_refusal_is_not() -> None:
    answers = [
        httpx.Response(409, json={"message": "Git Repository is empty."}),
        httpx.Response(200, json=[{"sha": "abc"}]),
    ]

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/api/v1/repos/trainer/shop/commits"
        return answers.pop(0)

    with httpx.Client(transport=httpx.MockTransport(answer), base_url="http://gitea") as client:
        server, shop = SimpleNamespace(client=lambda: client), SimpleNamespace(path="trainer/shop")
        assert gitea_compose._newest(server, shop) == "abc"  # type: ignore[arg-type]
        assert answers == []
        answers.append(httpx.Response(404))
        with pytest.raises(httpx.HTTPStatusError):
            gitea_compose._newest(server, shop)  # type: ignore[arg-type]


def test_passwords_are_in_files_of_a_closed_folder_and_nowhere_else(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    gitea_compose.write(folder, port=8081, mariadb="stackbook.local/mariadb:1")
    assert folder.stat().st_mode & 0o777 == 0o700
    secrets = {path.name: path.read_text() for path in (folder / "secrets").iterdir()}
    assert set(secrets) == {Path(entry["file"]).name for entry in FILE["secrets"].values()}
    settings = (folder / ".env").read_text()
    assert f"IMAGE_GITEA={gitea_image.REFERENCE}\n" in settings and "GITEA_PORT=8081\n" in settings
    assert len(secrets["gitea"]) > 20 and secrets["gitea"] in secrets["init.sql"]
    assert secrets["gitea"] not in settings + (folder / "compose.yaml").read_text() + secrets["client.cnf"]


class Components:
    """A resolver that has some components."""

    def __init__(self, *there: str) -> None:
        self.there = there

    def at_hand(self, name: str) -> Path | None:
        return Path(name) if name in self.there else None


def test_what_is_missing_is_named_with_the_command_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    some = Components(*gitea_compose.COMPONENTS[1:])
    said = gitea_compose.why_not(some)  # type: ignore[arg-type]
    assert said == "not built yet, and the chapter goes on without it: stackbook fetch docker-compose"
    everything: Any = Components(*gitea_compose.COMPONENTS)
    monkeypatch.setattr(namespaces, "demand", lambda: None)
    assert gitea_compose.why_not(everything) == ""

    def refuse() -> None:
        raise HostUnfit("only root can", fix="run it with sudo")

    monkeypatch.setattr(namespaces, "demand", refuse)
    monkeypatch.setattr(docker_daemon, "found", lambda: Path("/var/run/docker.sock"))
    assert gitea_compose.why_not(everything) == "", "Docker can do it"
    monkeypatch.setattr(docker_daemon, "found", lambda: None)
    assert gitea_compose.why_not(everything).endswith(
        "goes on without it: only root can, and no Docker daemon answers — run it with sudo"
    )
