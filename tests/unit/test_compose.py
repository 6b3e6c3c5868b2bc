"""Docker Compose for the bookshop: its files, its ports, its health gates, and what is told of a failure. No engine is needed."""

from __future__ import annotations

import re
import socket
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from stackbook.artifacts.catalogue_loader import load
from stackbook.core.errors import CheckFailed, HostUnfit, InputError
from stackbook.lessons.compose import health, image_store, nameserver, namespaces, project
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


def test_the_name_server_knows_no_name() -> None:
    question = struct.pack(">HHHHHH", 7, 0x0100, 1, 0, 0, 0) + b"\x05stock\x00\x00\x10\x00\x01"
    reply = nameserver.answer(question)
    number, flags, questions, answers, *_ = struct.unpack(">HHHHHH", reply[:12])
    assert (number, flags & 0x8000, flags & 15, questions, answers) == (7, 0x8000, 3, 1, 0)
    assert reply[12:] == question[12:]
    assert nameserver.answer(b"short") == b"" and nameserver.answer(reply) == b""


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
        == "mariadb is unhealthy; its check says: ERROR 2002: no server; its last log line: a line of mariadb"
    )
    mine[-1] = entry("mariadb", "running", "healthy")
    assert here.unready().startswith("orders is created")
    mine[2] = entry("orders", "running", "healthy")
    assert here.unready() == ""


def test_without_root_or_a_program_the_fix_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(HostUnfit, match=r"need root — sudo stackbook run"):
        namespaces.demand()
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda name, path: None if name == "podman" else f"/bin/{name}")
    with pytest.raises(HostUnfit, match="podman not found"):
        namespaces.demand()


def test_a_port_in_use_is_said_before_anything_starts() -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        with (
            pytest.raises(InputError, match=f"port {port} of 127.0.0.1 is in use — name another port in .env"),
            project.forwarded(None, [port]),  # type: ignore[arg-type]
        ):
            pass


def test_nothing_of_the_hosts_podman_is_in_the_settings(tmp_path: Path) -> None:
    folder = namespaces.Folder(tmp_path / "p", graph_root=tmp_path / "storage", image_stores=[tmp_path / "store"])
    folder.write()
    said = (folder.path / "containers.conf").read_text() + (folder.path / "storage.conf").read_text()
    assert f'graphroot = "{tmp_path}/storage"' in said and str(tmp_path / "store") in said
    assert "/var/lib/containers" not in said and set(folder.environment) >= {
        "CONTAINERS_CONF",
        "CONTAINERS_STORAGE_CONF",
    }
    words = namespaces.command(folder, "true")
    assert {"--net", "--mount", "--pid", "--kill-child"} <= set(words) and "mount -t tmpfs tmpfs /run" in words[-6]


def test_an_archive_without_the_image_is_refused(tmp_path: Path) -> None:
    import io
    import tarfile

    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        data = b'{"manifests": [{"digest": "sha256:0", "annotations": {"io.containerd.image.name": "x/y:1"}}]}'
        entry = tarfile.TarInfo("index.json")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    assert image_store._manifest(image_store.Wanted("x/y:1", tmp_path / "a.tar")) == {"digest": "sha256:0"}
    with pytest.raises(CheckFailed, match="does not contain the image x/y:2"):
        image_store._manifest(image_store.Wanted("x/y:2", tmp_path / "a.tar"))


def test_podmans_nanoseconds_are_read() -> None:
    assert health.moment("2026-01-01T00:00:00.123456789Z") - health.moment("2026-01-01T00:00:00Z") == pytest.approx(
        0.123456
    )
