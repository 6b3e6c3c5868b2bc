"""Gitea and MariaDB by compose on the lab's own engine: a commit outlives both, and what is broken is noticed. It needs no lab."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from stackbook.artifacts.resolver import Resolver
from stackbook.core.errors import WaitTimeout
from stackbook.lessons.delivery import gitea_compose

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def artifacts() -> Resolver:
    found = Resolver.open()
    if reason := gitea_compose.why_not(found):
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return found


def test_a_commit_outlives_a_restart_of_both(artifacts: Resolver) -> None:
    found = gitea_compose.trial(artifacts)
    assert found.tables > 50 and found.loaded > 500
    assert re.fullmatch(r"[0-9a-f]{40}", found.pushed) and found.after == found.pushed


@pytest.mark.more
def test_without_its_volume_the_commit_is_gone(artifacts: Resolver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: with MariaDB's data in memory, a restart loses them, and Gitea finds no table with its user."""
    lost = gitea_compose.text().replace("volumes: [db:/db]\n    tmpfs: [", 'tmpfs: ["/db:mode=0777", ')
    assert lost.count("/db:mode=0777") == 1
    monkeypatch.setattr(gitea_compose, "text", lambda: lost)
    with pytest.raises(Exception, match=r"401|Unauthorized|to be healthy"):
        gitea_compose.trial(artifacts)


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
    with (
        pytest.raises(
            WaitTimeout, match=r"server is (starting|unhealthy|running).*last log line: .*Access denied"
        ) as late,
        gitea_compose.running(artifacts, timeout=40),
    ):
        raise AssertionError("the block ran")
    assert "another one" not in str(late.value)
