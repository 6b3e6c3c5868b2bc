"""An audit that could not ask anybody does not say that nothing was found. The texts are those of the real programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from stackbook.app import audit
from stackbook.app.audit import CLEAN, FOUND, NOT_AUDITED, Finding, read_govulncheck, read_pip_audit

GOOD = {"name": "pyyaml", "version": "6.0.3", "vulns": []}
BAD = {"name": "jinja2", "version": "2.0", "vulns": [{"id": "PYSEC-2019-217", "fix_versions": ["2.10.1"]}]}
# pip-audit 2.10.1 without PyPI's own API: status 0, and "No known vulnerabilities found" on stderr.
SKIPPED = {"name": "aiohttp", "skip_reason": "Dependency not found on PyPI and could not be audited: aiohttp (3.14.5)"}


@pytest.mark.parametrize(
    ("entries", "status", "words"),
    [
        ([GOOD], CLEAN, "1 packages"),
        ([GOOD, BAD, SKIPPED], FOUND, "jinja2 2.0: PYSEC-2019-217"),
        ([GOOD, SKIPPED], NOT_AUDITED, "1 of 2 packages could not be looked up, for example: Dependency not found"),
        ([], NOT_AUDITED, "0 of 0"),
    ],
)
def test_pip_audit_is_read(entries: list[object], status: int, words: str) -> None:
    found = read_pip_audit(0, json.dumps({"dependencies": entries}), "No known vulnerabilities found")
    assert found.status == status and words in " ".join(found.lines)


def test_pip_audit_without_an_answer_is_no_audit() -> None:
    error = "Traceback\n  ...\nrequests.exceptions.ConnectionError: Failed to resolve 'api.osv.dev'\n"
    found = read_pip_audit(1, "", error)
    assert (found.status, found.lines) == (NOT_AUDITED, (f"status 1: {error.splitlines()[-1]}",))


@pytest.mark.parametrize(
    ("rc", "said", "error", "status", "words"),
    [
        (0, "No vulnerabilities found.\n", "", CLEAN, "no known"),
        (3, "=== Package Results ===\n\nVulnerability #1: GO-2024-2687\n    HTTP/2\n", "", FOUND, "GO-2024-2687"),
        (1, "", "go: downloading x\ngovulncheck: fetching vulnerabilities: no such host\nexit status 1\n", NOT_AUDITED,
         "status 1: govulncheck: fetching vulnerabilities: no such host"),
        (0, "", "", NOT_AUDITED, "no output"),
    ],
)  # fmt: skip
def test_govulncheck_is_read(rc: int, said: str, error: str, status: int, words: str) -> None:
    found = read_govulncheck("lib/apps", rc, said, error)
    assert found.status == status and words in " ".join(found.lines)


@pytest.mark.parametrize(
    ("python", "go", "status"),
    [(CLEAN, CLEAN, 0), (FOUND, NOT_AUDITED, 1), (CLEAN, FOUND, 1), (NOT_AUDITED, CLEAN, 3), (CLEAN, NOT_AUDITED, 3)],
)
def test_the_exit_status_and_what_to_look_up(
    python: int, go: int, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit, "python", lambda: Finding("Python", python, ("why",)))
    monkeypatch.setattr(audit, "go", lambda: [Finding("Go", go, ("why",))])
    assert audit.main() == status
    said = capsys.readouterr().out
    assert ("not audited: why" in said) is (NOT_AUDITED in (python, go)) is ("look them up" in said)


def test_every_direct_dependency_has_its_locked_version() -> None:
    lines = audit.versions(Path(__file__).parents[2])
    assert not [line for line in lines if "not locked" in line]
    shown = {line.split()[0] for line in lines}
    assert {
        "jupyterlab",
        "pydantic",
        "cyclonedx-python-lib",
        "lib/apps/go.mod:",
        "google.golang.org/grpc",
        "istio",
        "kubernetes",
    } <= shown
