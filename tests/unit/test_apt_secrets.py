"""A proxy's password in apt's configuration gets into the machines' root filesystem's making by no command line."""

from __future__ import annotations

import stat
import subprocess
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stackbook.artifacts import machine_releases, package_registries
from stackbook.artifacts.machine_releases import of_suite
from stackbook.artifacts.sources import Debian

DUMP = """\
Acquire::Languages "none";
Acquire::http::Proxy "http://me:hunter22x@proxy.invalid:3128";
Acquire::https::CaInfo "/etc/ssl/own.pem";
"""
TARGETS = "Debian|bookworm|oldstable|bookworm|http://me:hunter33y@mirror.invalid/debian/\n"
AUTH = "machine mirror.invalid login me password hunter44z"


@pytest.mark.parametrize("boots", [True, False])
def test_apts_settings_go_by_the_environment(boots: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package_registries, "_ask", lambda argv: DUMP if argv[0] == "apt-config" else TARGETS)
    monkeypatch.setattr(package_registries, "_apt_passwords", lambda: AUTH)
    monkeypatch.setattr(package_registries.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(machine_releases, "of_suite", lambda suite: replace(of_suite(suite), keyring=tmp_path))
    seen: dict[str, Any] = {}

    def run(argv: list[str], *, env: dict[str, str], **_: Any) -> int:
        seen.update(argv=argv, env=env)
        return 0

    package_registries.debian_rootfs(
        Debian("bookworm", ("bash",), boots), folder=tmp_path, job="x", report=lambda _: None, log=tmp_path / "log",
        estimate=1.0, cancel=threading.Event(), run=run,
    )  # fmt: skip
    assert "hunter" not in " ".join(seen["argv"])
    mirrors = Path(seen["argv"][-1])
    assert mirrors.read_text() == "deb http://me:hunter33y@mirror.invalid/debian bookworm main\n"
    assert stat.S_IMODE(mirrors.stat().st_mode) == 0o600
    # What mmdebstrap makes of the hooks: a shell with the new root as its argument.
    new = tmp_path / "root" / "etc" / "apt"
    for name in ("apt.conf.d", "sources.list.d"):
        (new / name).mkdir(parents=True)
    (new / "sources.list.d" / "0000sources.list").write_text(mirrors.read_text())
    (hook,) = [w.removeprefix("--setup-hook=") for w in seen["argv"] if w.startswith("--setup-hook=")]
    subprocess.run(["sh", "-c", hook, "exec", str(tmp_path / "root")], env=seen["env"], check=True)
    options, passwords = new / "apt.conf.d" / "98stackbook", new / "auth.conf.d" / "98stackbook.conf"
    assert options.read_text().splitlines() == DUMP.splitlines()[1:]
    assert passwords.read_text().strip() == AUTH
    assert {stat.S_IMODE(path.stat().st_mode) for path in (options, passwords)} == {0o600}
    for name in ("opt", "usr/lib/cni", "etc/systemd/system", "lib/systemd/system", "var/lib/dbus"):
        (tmp_path / "root" / name).mkdir(parents=True, exist_ok=True)
    (tmp_path / "root" / "usr/lib/cni" / "bridge").write_text("")
    subprocess.run(["sh", str(tmp_path / "customize.sh"), str(tmp_path / "root")], check=True)
    left = [path.read_text() for path in new.rglob("*") if path.is_file()]
    assert left == ["deb http://mirror.invalid/debian bookworm main\n"]
