"""Drone itself at the lab's Gitea, its steps in containers. It needs no lab, but its components, and the acceptance of its licence.

Each check is seen to fail where what it is about is broken.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from stackbook.artifacts.resolver import Resolver
from stackbook.core.child_processes import end
from stackbook.core.errors import CheckFailed, WaitTimeout
from stackbook.core.waiting import until
from stackbook.lessons.containers import engine as engines
from stackbook.lessons.containers.engine import Engine
from stackbook.lessons.delivery import actions, drone, drone_builds, drone_shop, gitea
from stackbook.lessons.delivery.drone_shop import Shop

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not drone.accepted(), reason=f"Drone's licence is not accepted: {drone.VARIABLE}=true"),
]


def groups_of_containers() -> set[Path]:
    """The control groups of all containers of this host, and of this test's engine."""
    return {
        path
        for place in ("libpod_parent", "*/libpod_parent")
        for path in Path("/sys/fs/cgroup").glob(f"{place}/libpod-*")
    }


def traces(engine: Engine, containers: list[str]) -> list[str]:
    """What this host has of an engine and its containers: processes, mounts, control groups, containers of the host's podman."""
    commands = (
        "ps -ewwo args",
        "findmnt --raw --noheadings --output TARGET,SOURCE",
        "podman ps --all --no-trunc --format {{.ID}}",
    )
    lines = [
        line
        for c in commands
        for line in subprocess.run(c.split(), capture_output=True, text=True, check=False).stdout.splitlines()
    ]
    lines += [str(group) for group in groups_of_containers()]
    return [
        line
        for line in lines
        if any(word in line for word in (engine.folder.name, engine.socket.parent.name, *containers))
    ]


@pytest.fixture(scope="module")
def artifacts() -> Resolver:
    return Resolver.open()


@pytest.fixture(scope="module")
def shop(artifacts: Resolver) -> Iterator[Shop]:
    with drone_shop.running(artifacts, gitea.Parts.of(artifacts)) as running:
        yield running
        folders = [running.drone.folder, running.drone.engine.folder, running.gitea.folder]
        processes = [running.drone.process, running.drone.engine.process, running.gitea.process]
    assert not [folder for folder in folders if folder.exists()]
    assert None not in [process.poll() if process else None for process in processes]


def steps(*commands: str, **values: object) -> str:
    """A pipeline with one step, which needs no clone."""
    step = {"name": "one", "image": "node:24", "pull": "never", "commands": list(commands), **values}
    return yaml.safe_dump(
        {"kind": "pipeline", "type": "docker", "name": "default", "clone": {"disable": True}, "steps": [step]}
    )


@pytest.mark.more  # CI runs chapter 13, which does the same
def test_each_push_is_built_and_the_next_build_finds_the_cache(shop: Shop) -> None:
    commit = shop.push()
    first = shop.project.wait(commit=commit)
    drone_builds.demand_success([first])
    assert first.event == "push" and next(iter(first.steps)) == "clone" and set(first.steps.values()) == {"success"}
    second = shop.project.wait(number=shop.project.by_cron("often", "* * * * * *"))
    assert (second.status, second.event, second.cron) == ("success", "cron", "often")
    restored = [shop.project.log(build, "restore-cache")[0] for build in (first, second)]
    assert restored == ["No cache for ./.npm-cache", "Restoring cache for ./.npm-cache"]
    assert (shop.cache / shop.repository.path / "node_modules/demo-cli/package.json").is_file()
    assert shop.project.log(first, "docker")[-1] == "log in as ******** with ********"
    assert actions.status(shop.repository, commit) == "success", "Drone tells Gitea, which shows it beside the commit"
    assert [one["name"] for one in shop.project.secrets()] == ["docker_pass", "docker_user"]
    assert shop.password.reveal() not in json.dumps(shop.project.secrets())


def test_a_repository_that_is_not_trusted_is_refused(shop: Shop) -> None:
    shop.project.trust(False)
    try:
        commit = shop.push(f"{drone_builds.pipeline(shop.cache)}# not trusted\n", "of a repository that is not trusted")
        build = shop.project.wait(commit=commit)
    finally:
        shop.project.trust()
    assert build.problem == "linter: untrusted repositories cannot mount host volumes" and not build.steps
    with pytest.raises(CheckFailed, match=rf"^build {build.number} ended with error: linter: untrusted [a-z ]+$"):
        drone_builds.demand_success([build])


@pytest.mark.more
def test_a_webhook_with_another_secret_starts_nothing(shop: Shop) -> None:
    """A real event of Gitea, once with a signature by another secret, and once with Gitea's own delivery as the control."""
    commit = shop.push(steps("true"), "for the webhook")
    assert shop.project.wait(commit=commit).status == "success"
    (hook,) = shop.gitea.get(f"/v1/repos/{shop.repository.path}/hooks")
    assert hook["config"]["url"].startswith(f"{shop.drone.url}/hook")
    owner = {"login": gitea.USER, "username": gitea.USER}
    event = {"ref": "refs/heads/main", "before": "0" * 40, "after": commit, "commits": [], "pusher": owner, "sender": owner,
             "repository": {"name": "shop", "full_name": shop.repository.path, "owner": owner, "default_branch": "main"}}  # fmt: skip
    body = json.dumps(event).encode()
    sign = hmac.new(b"another secret", body, hashlib.sha256).hexdigest()
    headers = {"X-Gitea-Event": "push", "X-Gitea-Signature": sign, "Content-Type": "application/json"}
    before = len(shop.drone.ask("GET", f"/repos/{shop.repository.path}/builds"))
    answer = httpx.post(f"{shop.drone.url}/hook", content=body, headers=headers, trust_env=False)
    assert answer.status_code == 400 and "signature" in answer.text.lower(), answer.text
    assert len(shop.drone.ask("GET", f"/repos/{shop.repository.path}/builds")) == before


@pytest.mark.more
def test_a_build_that_never_ends_is_said_and_its_container_goes(shop: Shop) -> None:
    commit = shop.push(steps("sleep 600"), "for ever")
    with pytest.raises(
        WaitTimeout, match=r"a build of [0-9a-f]{8} to end; last seen: it is running, in its step one"
    ) as late:
        shop.project.wait(commit=commit, timeout=15)
    assert "\n" not in str(late.value)
    number = int(shop.drone.ask("GET", f"/repos/{shop.repository.path}/builds")[0]["number"])
    shop.project.cancel(number)
    until(lambda: not shop.drone.engine.containers(), what="the container to be removed", timeout=30)
    assert shop.project.build(number).status == "killed"


@pytest.mark.more
def test_an_image_that_is_not_there_is_said_in_one_line(shop: Shop) -> None:
    build = shop.project.wait(commit=shop.push(steps("true", image="node:23"), "another image"))
    with pytest.raises(
        CheckFailed, match=rf"^build {build.number} ended with \w+: .*no such image: [a-z./]*node:23[^\n]*$"
    ):
        drone_builds.demand_success([build])
    assert build.steps["one"] == "failure"


def test_steps_reach_gitea_and_nothing_else(shop: Shop) -> None:
    """Where a step asks for the host's network, it gets the engine's: Gitea is there, Drone and the outside are not."""
    ports = [url.rpartition(":")[2] for url in (shop.gitea.url, shop.drone.url)]
    near, drones = (f"nc -w 2 127.0.0.1 {port} </dev/null" for port in ports)
    commands = [near, f"! {drones}", "! nc -w 2 192.0.2.1 80 </dev/null"]
    build = shop.project.wait(commit=shop.push(steps(*commands, network_mode="host"), "who is there"))
    assert build.status == "success", shop.project.log(build, "one")


def test_a_missing_secret_fails_its_step(shop: Shop) -> None:
    text = steps('test -n "$PASS"', environment={"PASS": {"from_secret": "no_such_secret"}})
    build = shop.project.wait(commit=shop.push(text, "without a secret"))
    with pytest.raises(CheckFailed, match=f"build {build.number} ended with failure: its step one failed"):
        drone_builds.demand_success([build])


def test_nothing_is_left_after_an_error(artifacts: Resolver) -> None:
    with (
        pytest.raises(RuntimeError, match="in the middle"),
        drone_shop.running(artifacts, gitea.Parts.of(artifacts)) as shop,
    ):
        engine = shop.drone.engine
        shop.push(steps("sleep 600"))
        until(lambda: [c for c in engine.containers() if c["State"] == "running"], what="a step to run", timeout=60)
        ids = [container["Id"] for container in engine.containers()]
        seen = traces(engine, ids)
        assert [line for line in seen if "podman" in line] and [line for line in seen if "cgroup" in line], seen
        assert (
            ids[0]
            not in subprocess.run(
                ["podman", "ps", "-aq", "--no-trunc"], capture_output=True, text=True, check=True
            ).stdout
        )
        raise RuntimeError("in the middle")
    assert not [
        part for part in (shop.drone.folder, engine.folder, engine.socket.parent, shop.gitea.folder) if part.exists()
    ]
    assert traces(engine, ids) == []


KILLED = """
import os, signal, sys
from stackbook.artifacts.resolver import Resolver
from stackbook.core.waiting import until
from stackbook.lessons.delivery import drone_shop, gitea
artifacts = Resolver.open()
with drone_shop.running(artifacts, gitea.Parts.of(artifacts)) as shop:
    shop.push(sys.argv[1])
    engine = shop.drone.engine
    until(lambda: [c for c in engine.containers() if c["State"] == "running"], what="a step to run", timeout=60)
    print(*(c["Id"] for c in engine.containers()), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_goes_with_the_next() -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, steps("sleep 600")], capture_output=True, text=True, check=False, timeout=180
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    ids = done.stdout.split()

    def left() -> list[Path]:
        return [group for group in groups_of_containers() if any(one in group.name for one in ids)]

    assert ids and left(), "nobody could remove them"
    until(
        lambda: not any(group.joinpath("cgroup.procs").read_text() for group in left()),
        what="its steps to end",
        timeout=20,
    )
    engines.sweep()
    assert left() == [], "a reset would take them for the lab's"


@pytest.mark.more
def test_open_shows_both_pages_until_ctrl_c(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "stackbook", "open", "drone"]
    with (tmp_path / "errors").open("wb") as errors:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        assert process.stdout is not None
        lines = [line.strip() for line in (next(process.stdout) for _ in range(5))]
        drones, user, giteas = lines[1], lines[2], lines[3]
        assert httpx.get(f"{drones}/healthz", trust_env=False).status_code == 200, lines
        file = Path(user.rpartition(" ")[2])
        assert file.stat().st_mode & 0o077 == 0 and file.read_text() not in "\n".join(lines)
        auth = httpx.BasicAuth(gitea.USER, file.read_text())
        address, _, path = giteas.partition("/trainer/")
        assert httpx.get(f"{address}/api/v1/repos/trainer/{path}", auth=auth, trust_env=False).status_code == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0, (tmp_path / "errors").read_text()
        assert not file.parent.exists()
    finally:
        end(process)
        if process.stdout:
            process.stdout.close()


def test_open_refuses_without_the_licence() -> None:
    environment = {name: value for name, value in os.environ.items() if name != drone.VARIABLE}
    done = subprocess.run(
        [sys.executable, "-m", "stackbook", "open", "drone"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1 and not done.stdout
    assert "is not accepted" in done.stderr and "--accept-drone-licence" in done.stderr
