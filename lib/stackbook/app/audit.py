"""`make audit`: known vulnerabilities in the lab's parts, by pip-audit and govulncheck.

Both query a database on the Internet. If they cannot reach it, nothing is audited: the output says so with the reason and the
versions to look up elsewhere, and the exit status is not 0. pip-audit prints "No known vulnerabilities found" even if it could
not look up a single package, so stackbook counts its packages.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stackbook.artifacts import go_toolchain
from stackbook.artifacts.catalogue_loader import load
from stackbook.artifacts.sources import Build
from stackbook.core import paths
from stackbook.core.errors import StackbookError

PIP_AUDIT = "pip-audit@2.10.1"
GOVULNCHECK = "golang.org/x/vuln/cmd/govulncheck@v1.9.0"
CLEAN, FOUND, NOT_AUDITED = 0, 1, 3
_PINNED = re.compile(r"^([A-Za-z0-9][\w.-]*)==([^\s;\\]+)", re.MULTILINE)


@dataclass(frozen=True)
class Finding:
    """The result of one audit: `status` is CLEAN, FOUND or NOT_AUDITED; `lines` say what was found, or why nothing was audited."""

    what: str
    status: int
    lines: tuple[str, ...]


def read_pip_audit(rc: int, said: str, error: str) -> Finding:
    """Read the output of `pip-audit -f json`."""
    what = "Python packages (requirements.lock), by pip-audit"
    try:
        entries: list[dict[str, Any]] = json.loads(said)["dependencies"]
    except (ValueError, LookupError, TypeError):
        return Finding(what, NOT_AUDITED, (f"status {rc}: {_last(error or said)}",))
    found = [f"{e['name']} {e['version']}: {v['id']}" for e in entries for v in e.get("vulns", ())]
    if found:
        return Finding(what, FOUND, tuple(found))
    skipped = [e for e in entries if "skip_reason" in e]
    if skipped or not entries:
        reason = f", for example: {skipped[0]['skip_reason']}" if skipped else ""
        return Finding(
            what, NOT_AUDITED, (f"{len(skipped)} of {len(entries)} packages could not be looked up{reason}",)
        )
    return Finding(what, CLEAN, (f"{len(entries)} packages",))


def read_govulncheck(folder: str, rc: int, said: str, error: str) -> Finding:
    """Read the output of `govulncheck`: its status is 0 if it found nothing, and 3 if it found something."""
    what = f"Go modules of {folder}, by govulncheck"
    if rc == 0 and "No vulnerabilities found" in said:
        return Finding(what, CLEAN, ("no known vulnerability in the compiled packages",))
    if ids := re.findall(r"^Vulnerability #\d+: (\S+)", said, re.MULTILINE):
        return Finding(what, FOUND, tuple(ids))
    return Finding(what, NOT_AUDITED, (f"status {rc}: {_last(error or said)}",))


def _last(text: str) -> str:
    """The last line with a message, without the "exit status" that `go run` adds."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("exit status")]
    return lines[-1][:400] if lines else "no output"


def python() -> Finding:
    """Run pip-audit, which uv fetches if needed."""
    argv = [str(Path(sys.executable).with_name("uv")), "tool", "run", PIP_AUDIT, "-r", "requirements.lock", "--disable-pip",
            "--require-hashes", "--format", "json", "--progress-spinner", "off"]  # fmt: skip
    try:
        done = go_toolchain.call(argv, cwd=paths.checkout(), check=False, timeout=600)
    except (OSError, subprocess.TimeoutExpired) as error:
        return read_pip_audit(-1, "", str(error))
    return read_pip_audit(done.rc, done.text, done.stderr)


def go() -> Iterable[Finding]:
    """Run govulncheck on the packages that the lab compiles, module by module."""
    catalogue = load()
    packages: dict[Path, list[str]] = {}
    for source in (s for a in catalogue.artifacts.values() for s in a.sources):
        if isinstance(source, Build) and source.package:
            packages.setdefault(catalogue.groups[source.group].folder, []).append(source.package)
    for folder, names in packages.items():
        short = str(folder.relative_to(paths.checkout()))
        try:
            done = go_toolchain.toolchain().run(
                "run", GOVULNCHECK, "-C", str(folder), "-scan", "package", *names, cwd=folder, check=False, timeout=1800
            )
            finding = read_govulncheck(short, done.rc, done.text, done.stderr)
        except (StackbookError, OSError, subprocess.TimeoutExpired) as error:
            finding = read_govulncheck(short, -1, "", str(error))
        yield finding
        if finding.status == NOT_AUDITED:  # it would query the same database again
            return


def versions(root: Path) -> list[str]:
    """What to look up by hand: the locked direct dependencies, the catalogue's components, the modules of each go.mod."""
    project = (root / "pyproject.toml").read_text(encoding="utf-8")
    wanted = re.search(r"^dependencies = \[(.*?)^\]", project, re.MULTILINE | re.DOTALL)
    names = re.findall(r'"([A-Za-z0-9._-]+)', wanted[1]) if wanted else []
    locked = dict(_PINNED.findall((root / "requirements.lock").read_text(encoding="utf-8")))
    lines = [f"  {name:28} {locked.get(name.lower(), 'not locked')}" for name in names]
    lines += ["catalogue.yaml:", *(f"  {name:28} {version}" for name, version in load().versions.items())]
    for path in sorted((root / "lib").rglob("go.mod")):
        lines.append(f"{path.relative_to(root)}:")
        direct = re.findall(r"^\s*(?:require )?(\S+\.\S+) (v\S+)\s*$", path.read_text(encoding="utf-8"), re.MULTILINE)
        lines += [f"  {name:60} {version}" for name, version in direct]
    return lines


def _locked_on(root: Path) -> str:
    done = go_toolchain.call(["git", "log", "-1", "--format=%cs", "--", "requirements.lock"], cwd=root, check=False)
    return done.text.strip() or "an unknown day"


def main() -> int:
    """Audit, and print what was found; returns the worst status as exit status."""
    marks = {CLEAN: "✓", FOUND: "✗", NOT_AUDITED: "–"}
    findings = []
    for finding in (python(), *go()):
        findings.append(finding)
        said = "not audited: " if finding.status == NOT_AUDITED else ""
        print(f"{marks[finding.status]} {finding.what}: {said}{'; '.join(finding.lines)}", flush=True)
    statuses = {finding.status for finding in findings}
    if NOT_AUDITED in statuses:
        print(f"\nThese were locked on {_locked_on(paths.checkout())}; look them up at osv.dev:")
        print("\n".join(versions(paths.checkout())))
    return FOUND if FOUND in statuses else max(statuses)


if __name__ == "__main__":
    sys.exit(main())
