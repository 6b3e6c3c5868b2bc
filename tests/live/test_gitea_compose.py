"""Gitea and MariaDB by compose on the lab's own engine: a commit outlives both, and what is broken is noticed. It needs no lab."""

from __future__ import annotations

import os
import re
from pathlib import Path

import httpx
import pytest
from stackbook.artifacts.resolver import Resolver
from stackbook.core.errors import WaitTimeout
from stackbook.core.waiting import until
from stackbook.lessons.compose import project
from stackbook.lessons.delivery import gitea_compose

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def artifacts() -> Resolver:
    found = Resolver.open()
    if reason := gitea_compose.why_not(found):
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return found


@pytest.mark.more
def test_a_commit_outlives_a_restart_of_both(artifacts: Resolver, monkeypatch: pytest.MonkeyPatch) -> None:
    restart, kept = gitea_compose.Running.restart, []

    def watched(runs: gitea_compose.Running) -> None:
        before = [(entry["Id"], entry["State"]["Pid"]) for entry in runs.project.containers("db")]
        restart(runs)
        after = [(entry["Id"], entry["State"]["Pid"]) for entry in runs.project.containers("db")]
        kept.append([one[0] == other[0] and one[1] != other[1] for one, other in zip(before, after, strict=True)])

    monkeypatch.setattr(gitea_compose.Running, "restart", watched)
    found = gitea_compose.trial(artifacts)
    assert kept == [[True]], "the same container, with another process"
    assert found.tables > 50 and found.loaded > 500
    assert re.fullmatch(r"[0-9a-f]{40}", found.pushed) and found.after == found.pushed


@pytest.mark.more
def test_a_killed_database_is_started_again(artifacts: Resolver) -> None:
    """It was not while its socket was on a tmpfs: that had another mode when the container started again."""
    with gitea_compose.running(artifacts) as runs:
        before = runs.project.container("db")["State"]["Pid"]
        runs.project.engine.kill(runs.project.container("db")["Id"])
        until(lambda: runs.project.container("db")["State"]["Pid"] not in (0, before), what="the database", timeout=60)
        project.start(runs.project)
        assert int(runs.query("SELECT COUNT(*) FROM gitea.user")) == 1


@pytest.mark.more
def test_a_database_that_keeps_nothing_loses_the_commit(artifacts: Resolver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: MariaDB begins anew at each start, so after the restart Gitea has neither its user nor its repository."""
    lost = gitea_compose.text().replace("test -e /db/complete ||", "rm -rf /db/*;")
    assert lost != gitea_compose.text()
    monkeypatch.setattr(gitea_compose, "text", lambda: lost)
    restart, restarted = gitea_compose.Running.restart, []

    def again(runs: gitea_compose.Running) -> None:
        assert int(runs.query("SELECT COUNT(*) FROM gitea.repository")) == 1
        restart(runs)
        restarted.append(int(runs.query("SELECT COUNT(*) FROM gitea.repository")))

    monkeypatch.setattr(gitea_compose.Running, "restart", again)
    with pytest.raises(httpx.HTTPStatusError, match="401"):
        gitea_compose.trial(artifacts)
    assert restarted == [0], "MariaDB is new, so is Gitea's database"


@pytest.mark.more
def test_a_wrong_password_of_the_database_is_named_with_the_servers_last_line(
    artifacts: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = gitea_compose.write

    def wrong(folder: Path, *, port: int, mariadb: str) -> None:
        write(folder, port=port, mariadb=mariadb)
        (folder / "secrets" / "gitea").chmod(0o600)
        (folder / "secrets" / "gitea").write_text("another one")
        (folder / "secrets" / "gitea").chmod(0o444)

    monkeypatch.setattr(gitea_compose, "write", wrong)
    with (  # in 80 s a busy host, too, has made the database, and Gitea has asked it
        pytest.raises(
            WaitTimeout, match=r"server is (starting|unhealthy|running).*last log lines: .*Access denied"
        ) as late,
        gitea_compose.running(artifacts, timeout=80),
    ):
        raise AssertionError("the block ran")
    assert "another one" not in str(late.value)
