"""The bookshop by Docker Compose on the lab's own podman: it works, its checks notice what is broken, and nothing of it is left."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from stackbook.artifacts.resolver import Resolver
from stackbook.core import paths
from stackbook.core.errors import InputError, WaitTimeout
from stackbook.core.waiting import until
from stackbook.lessons.compose import project
from stackbook.lessons.containers import engine
from stackbook.lessons.ecosystem.shop import by_compose, comparing, compose_files

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def artifacts() -> Resolver:
    found = Resolver.open()
    if found.at_hand(by_compose.COMPONENT) is None or os.geteuid() != 0:
        pytest.skip("Docker Compose is not built here, or this is not root")
    assert by_compose.why_not(found) == ""
    return found


@pytest.fixture(scope="module")
def shop(artifacts: Resolver) -> Iterator[by_compose.Shop]:
    before = _host()
    with by_compose.running(artifacts, timeout=240) as found:
        assert _host() == before, "the host sees nothing of it"
        yield found
    assert _host() == before
    assert _left(found.project.engine.folder) == []


def _host() -> dict[str, list[str]]:
    """What podman could leave on this host; other labs' machines come and go meanwhile, so only what compose would add."""
    links = [line.split(": ")[1] for line in _run("ip", "-o", "link").splitlines()]
    return {
        "bridges": sorted(link for link in links if link.startswith("podman")),
        "networks": [name for name in _run("podman", "network", "ls", "-q").split() if "bookshop" in name],
        "containers": [
            name for name in _run("podman", "ps", "-a", "--format", "{{.Names}}").split() if "bookshop" in name
        ],
        "rules": sorted(line for line in _run("iptables-save").splitlines() if "10.89." in line),
    }


def _left(folder: Path) -> list[str]:
    """Processes with this folder in their arguments, mounts below it, and the folder itself."""
    processes = [line for line in _run("ps", "-eo", "args").splitlines() if str(folder) in line]
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if str(folder) in line]
    return [*processes, *mounts, *([str(folder)] if folder.exists() else [])]


def _run(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout


def test_every_service_waited_for_those_that_it_needs(shop: by_compose.Shop) -> None:
    gates = by_compose.gates(shop.starts())
    assert len(gates) == 7 and all(gate.kept for gate in gates), gates


def test_an_order_comes_to_its_mail_with_its_trace(shop: by_compose.Shop) -> None:
    placed, trace, _ = by_compose.order(shop)
    assert trace == placed.trace
    assert shop.query(f"SELECT quantity FROM orders.orders WHERE id = '{placed.order}'") == [["2"]]


def test_no_password_is_shown_by_the_engine_its_log_or_compose(shop: by_compose.Shop) -> None:
    secrets = [path.read_text() for path in (shop.project.folder / "secrets").iterdir() if path.stat().st_size < 100]
    assert len(secrets) == 5
    shown = json.dumps(shop.project.containers()) + (shop.project.engine.folder / "log").read_text()
    shown += json.dumps(shop.project.model()) + _run("ps", "-eo", "args")
    assert "IMAGE_BOOKSHOP" not in shown and "bookshop-shell" in shown
    assert not [secret for secret in secrets if secret in shown]


@pytest.mark.more
def test_the_containers_do_not_reach_this_host_or_beyond(shop: by_compose.Shop) -> None:
    assert isinstance(shop.project.engine, engine.Engine)
    answer = subprocess.run(["nsenter", "--target", str(shop.project.engine.inside), "--net", "ip", "route", "get", "192.0.2.1"],
                            capture_output=True, text=True, check=False)  # fmt: skip
    assert answer.returncode and "unreachable" in answer.stderr


@pytest.mark.more
def test_the_trials_of_the_lesson(shop: by_compose.Shop) -> None:
    trials = comparing.of_compose(shop)
    # Compose starts the new container after the old one has ended. How many requests come in between depends on how busy the host is.
    assert not all(good for _, good in trials.changed.answered), "one after the other, while nothing runs"
    assert sum(trials.copies) == comparing.ORDERS and len(trials.copies) == 2
    assert trials.secrets != "tmpfs"


@pytest.mark.more
@pytest.mark.parametrize("service", ["counter", "mariadb"])
def test_a_killed_container_is_started_again(shop: by_compose.Shop, service: str) -> None:
    before = shop.project.container(service)["State"]["Pid"]
    shop.project.engine.kill(shop.project.container(service)["Id"])
    until(lambda: shop.project.container(service)["State"]["Pid"] not in (0, before), what=service, timeout=60)
    project.start(shop.project)
    assert by_compose.order(shop)[0].order


def _broken(artifacts: Resolver, folder: Path, old: str, new: str, *, port: int = 18080) -> None:
    references = {name: artifacts.catalogue.image(name).reference for name in compose_files.IMAGES.values()}
    compose_files.write(folder, references, port=port, pull="never")
    text = compose_files.text()
    assert old in text
    (folder / "compose.yaml").write_text(text.replace(old, new))


@pytest.mark.more
def test_a_database_that_never_gets_healthy_is_named_with_its_last_line(artifacts: Resolver, tmp_path: Path) -> None:
    # The last option wins over the file that names the user.
    test = "mariadb --defaults-file=/secrets/client.cnf"
    _broken(artifacts, tmp_path / "shop", f"| {test}", f"| {test} --user=nobody")
    with (
        engine.running(by_compose.images(artifacts)) as runs,
        pytest.raises(
            WaitTimeout, match=r"mariadb is (starting|unhealthy); its check says: ERROR 1698 .*; its last log lines: "
        ),
        project.up(runs, artifacts.path(by_compose.COMPONENT), tmp_path / "shop", timeout=45),
    ):
        pass
    assert _left(runs.folder) == []


def test_a_missing_image_and_a_port_in_use_are_one_line_each(artifacts: Resolver, tmp_path: Path) -> None:
    program = artifacts.path(by_compose.COMPONENT)
    with engine.running(by_compose.images(artifacts)[1:]) as runs:
        _broken(artifacts, tmp_path / "a", "bookshop", "bookshop")
        with (
            pytest.raises(
                InputError, match=r"^the image stackbook\.local/mariadb:\S+ of the service mariadb is not there"
            ),
            project.up(runs, program, tmp_path / "a"),
        ):
            pass
        assert runs.left() == {}
    with engine.running(by_compose.images(artifacts)) as runs, socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        _broken(artifacts, tmp_path / "b", "bookshop", "bookshop", port=busy.getsockname()[1])
        with (
            pytest.raises(InputError, match=r"^port \d+ of 127\.0\.0\.1 is in use"),
            project.up(runs, program, tmp_path / "b"),
        ):
            pass
        assert runs.left() == {}


def test_down_leaves_nothing_and_what_is_left_is_noticed(artifacts: Resolver, tmp_path: Path) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    redis = artifacts.catalogue.image("redis").reference
    (folder / "compose.yaml").write_text(
        f"name: one\nservices:\n  redis: {{image: {redis}, command: [redis-server], volumes: ['data:/x']}}\nvolumes: {{data: {{}}}}\n"
    )
    wanted = [image for image in by_compose.images(artifacts) if image.reference == redis]
    with engine.running(wanted) as runs:
        with project.up(runs, artifacts.path(by_compose.COMPONENT), folder) as up:
            assert set(runs.left()) == {"containers", "volumes", "networks"}
            with runs.client() as client:
                client.post("/v4.0.0/libpod/volumes/create", json={"Name": "forgotten"}).raise_for_status()
            with pytest.raises(Exception, match=r"there is still: \{'volumes': \['forgotten'\]\}"):
                up.down()
            with runs.client() as client:
                client.delete("/v4.0.0/libpod/volumes/forgotten").raise_for_status()
        assert runs.left() == {}
    assert _left(runs.folder) == []


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.more), signal.SIGKILL])
def test_an_interrupt_and_a_kill_leave_no_process(artifacts: Resolver, number: signal.Signals) -> None:
    """After SIGKILL the temporary folder stays until the next engine sweeps it; processes, networks and mounts end with it."""
    script = ("from stackbook.artifacts.resolver import Resolver\nfrom stackbook.lessons.ecosystem.shop import by_compose\nimport time\n"
              "with by_compose.running(Resolver.open(), timeout=240) as shop:\n"
              "    print(shop.project.engine.folder, flush=True)\n    time.sleep(600)\n")  # fmt: skip
    env = {**os.environ, "PYTHONPATH": str(paths.checkout() / "lib")}
    with subprocess.Popen(
        [sys.executable, "-c", script], env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as child:
        assert child.stdout is not None
        folder = Path(child.stdout.readline().strip())
        assert folder.name.startswith("stackbook-engine-")
        child.send_signal(number)
        child.wait(60)
    until(lambda: not [line for line in _left(folder) if line != str(folder)], what="its processes to end", timeout=20)
    assert folder.exists() == (number == signal.SIGKILL)
    engine.sweep()
    assert not folder.exists()
