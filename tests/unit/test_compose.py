"""Docker Compose for the bookshop: its files, its ports, its health gates, and what is told of a failure. No engine is needed."""

from __future__ import annotations

import re
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from stackbook.artifacts.catalogue_loader import load
from stackbook.core.errors import CheckFailed, InputError
from stackbook.core.waiting import until
from stackbook.lessons.compose import health, project
from stackbook.lessons.ecosystem.shop import by_compose, comparing, compose_files, passwords, under_requests

FILE: dict[str, Any] = yaml.safe_load(compose_files.text())
REFERENCES = {name: load().image(name).reference for name in compose_files.IMAGES.values()}


def test_each_service_has_a_check_a_restart_policy_and_no_capability() -> None:
    assert set(FILE["services"]) == {"folders", "mariadb", "redis", "kafka", *passwords.PROGRAMS}
    for name, service in FILE["services"].items():
        assert re.fullmatch(r"\$\{IMAGE_\w+:\?see \.env\}", service["image"]), name
        assert service["pull_policy"] == "${PULL:-missing}", name
        if name != "folders":
            assert service["healthcheck"]["test"][0].startswith("CMD") and service["restart"] == "always", name
            assert service["cap_drop"] == ["ALL"], name


def test_the_file_gates_as_the_lesson_says() -> None:
    gated = {
        name: tuple(service["depends_on"]) for name, service in FILE["services"].items() if "depends_on" in service
    }
    assert gated == by_compose.NEEDS
    conditions = {
        (needed, rule["condition"])
        for service in FILE["services"].values()
        for needed, rule in service.get("depends_on", {}).items()
    }
    assert {condition for needed, condition in conditions if needed != "folders"} == {"service_healthy"}


def test_only_the_loopback_interface_gets_a_port() -> None:
    ports = [port for service in FILE["services"].values() for port in service.get("ports", [])]
    assert ports == ["127.0.0.1:${SHOP_PORT:-8080}:8080"]
    good = {"services": {"orders": {"ports": [{"host_ip": "127.0.0.1", "published": "8080", "target": 8080}]}}}
    assert project.published(good) == [8080]
    bad = {"services": {"orders": {"ports": [{"published": "80", "target": 8080}]}}}
    with pytest.raises(InputError, match=r'orders publishes port 8080 to other hosts — write "127\.0\.0\.1:80:8080"'):
        project.published(bad)


def test_passwords_are_in_files_of_a_closed_folder_and_nowhere_else(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    compose_files.write(folder, REFERENCES, port=8081)
    assert folder.stat().st_mode & 0o777 == 0o700
    secrets = {path.name: path.read_text() for path in (folder / "secrets").iterdir()}
    assert set(secrets) == {Path(entry["file"]).name for entry in FILE["secrets"].values()}
    shown = (folder / "compose.yaml").read_text() + (folder / ".env").read_text()
    for program in (*passwords.PROGRAMS, "redis"):
        assert len(secrets[program]) > 20 and secrets[program] not in shown
    assert "SHOP_PORT=8081" in shown and "IMAGE_KAFKA=stackbook.local/kafka:" in shown
    compose_files.write(folder, REFERENCES)
    assert (folder / "secrets" / "orders").read_text() == secrets["orders"], "passwords that are there stay"


def _row(container: str, started: float, healthy: float | None) -> dict[str, Any]:
    return {"container": container, "service": container.partition("-")[0], "started": started, "healthy": healthy}


def test_a_container_that_did_not_wait_is_noticed() -> None:
    rows = [
        _row("folders-1", 0.0, None),
        _row("mariadb-1", 0.3, 4.0),
        _row("stock-1", 4.1, 5.0),
        _row("stock-2", 3.9, 5.0),
    ]
    assert {gate.container: gate.kept for gate in by_compose.gates(rows)} == {
        "mariadb-1": True, "stock-1": True, "stock-2": False,
    }  # fmt: skip
    assert by_compose.gates([]) == []
    assert [row["healthy"] for row in by_compose.rows(rows)][:2] == ["it has ended", 4.0]
    with pytest.raises(CheckFailed, match="never healthy: mariadb-1"):
        by_compose.gates([_row("mariadb-1", 0.3, None)])


def test_the_copies_of_stock_are_counted_by_their_logs() -> None:
    lines = [
        '{"pod":"a","order":"1"}',
        "not JSON",
        '{"pod":"b","order":"2"}',
        '{"pod":"a","order":"3"}',
        '{"pod":"a","order":"x"}',
    ]
    assert by_compose.counted(lines, {"1", "2", "3"}, Counter({"a": 0, "b": 0, "c": 0})) == [2, 1, 0]


def test_lost_requests_are_told_with_the_pause() -> None:
    good = under_requests.Requests(((0.0, True), (0.1, True)))
    bad = under_requests.Requests(((0.0, True), (0.1, False), (1.3, True)))
    assert (good.words(), bad.failed) == ("0 of 2 requests failed", 1)
    assert bad.words() == "1 of 3 requests failed, none answered for 1.3 s"
    here, there = (comparing.Trials(r, r, [20, 0], "tmpfs") for r in (bad, good))
    first, *_, last = comparing.rows(here, there)
    assert first["Docker Compose"] == bad.words() and first["Kubernetes"] == good.words()
    assert last == {"tried": "the passwords are files on", "Docker Compose": "tmpfs", "Kubernetes": "tmpfs"}


def test_a_service_that_is_not_ready_is_named_with_its_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def entry(service: str, status: str, health_: str = "", said: str = "") -> dict[str, Any]:
        return {"Name": f"p-{service}-1", "Config": {"Labels": {"com.docker.compose.service": service}},
                "State": {"Status": status, "ExitCode": 0,
                          "Health": {"Status": health_, "Log": [{"Output": said}] if said else []}}}  # fmt: skip

    mine = [entry("folders", "exited"), entry("kafka", "running", "healthy"), entry("orders", "created"),
            entry("mariadb", "running", "unhealthy", "ERROR 2002: no server\n")]  # fmt: skip
    monkeypatch.setattr(project.Project, "containers", lambda _self, _service="": mine)
    monkeypatch.setattr(project.Project, "logs", lambda _self, service: [f"a line of {service}", ""])
    here = project.Project(None, Path("/"), Path("/"), "p")  # type: ignore[arg-type]
    assert (
        here.unready()
        == "mariadb is unhealthy; its check says: ERROR 2002: no server; its last log lines: a line of mariadb"
    )
    mine[-1] = entry("mariadb", "running", "healthy")
    assert here.unready().startswith("orders is created")
    mine[2] = entry("orders", "running", "healthy")
    assert here.unready() == ""


def test_a_restarted_container_is_checked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its check is due in a minute, as it was healthy before."""
    monkeypatch.setattr(health, "STARTING", 0.1)
    checks, status = [], "starting"

    class Fake:
        def containers(self) -> list[dict[str, Any]]:
            return [{"Id": "db", "State": "running", "Status": status}]

        def get(self, path: str, timeout: float = 10.0) -> Any:
            nonlocal status
            assert path.endswith("/healthcheck")
            checks.append(time.monotonic())
            status = "healthy"

        def inspect(self, container: str) -> Any:
            check = {"Test": ["CMD", "true"], "Interval": 60e9, "Timeout": 1e9}
            found = {"Status": status, "Log": [{"End": "2026-01-01T00:00:00Z"}]}
            return {"Config": {"Healthcheck": check}, "State": {"Health": found}}

    with health.checked(Fake()):  # type: ignore[arg-type]
        until(lambda: len(checks) == 1, what="the first check", timeout=10, every=0.05)
        time.sleep(0.6)
        assert len(checks) == 1, "a healthy one is checked at its interval"
        status = "starting"
        until(lambda: len(checks) == 2, what="the check after the restart", timeout=10, every=0.05)


def test_a_restart_keeps_the_containers(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, ...]] = []
    monkeypatch.setattr(
        project.Project, "compose", lambda _self, *args, **_how: (said.append(args), SimpleNamespace(rc=0))[1]
    )
    here = project.Project(None, Path("/"), Path("/"), "p")  # type: ignore[arg-type]
    project.start(here)
    project.start(here, "db", recreate=False)
    assert "--no-recreate" not in said[0] and said[1][-2:] == ("--no-recreate", "db")


def test_podmans_nanoseconds_are_read() -> None:
    assert health.moment("2026-01-01T00:00:00.123456789Z") - health.moment("2026-01-01T00:00:00Z") == pytest.approx(
        0.123456
    )
