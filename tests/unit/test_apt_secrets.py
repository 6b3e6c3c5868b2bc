"""A proxy's password in apt's configuration gets into the machines' root filesystem's making by no command line."""

from __future__ import annotations

import stat
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from stackbook.artifacts import package_registries
from stackbook.artifacts.catalogue import Debian

DUMP = """\
Acquire::Languages "none";
Acquire::http::Proxy "http://me:hunter22x@proxy.invalid:3128";
Acquire::https::CaInfo "/etc/ssl/own.pem";
"""


@pytest.mark.parametrize("boots", [True, False])
def test_apts_settings_go_by_the_environment(boots: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package_registries, "_ask", lambda argv: DUMP if argv[0] == "apt-config" else "")
    monkeypatch.setattr(package_registries.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(package_registries, "_KEYRING", tmp_path)
    seen: dict[str, Any] = {}

    def run(argv: list[str], *, env: dict[str, str], **_: Any) -> int:
        seen.update(argv=argv, env=env)
        return 0

    package_registries.debian_rootfs(
        Debian("bookworm", ("bash",), boots), folder=tmp_path, job="x", report=lambda _: None, log=tmp_path / "log",
        estimate=1.0, cancel=threading.Event(), run=run,
    )  # fmt: skip
    assert "hunter22x" not in " ".join(seen["argv"])
    # What mmdebstrap makes of the hook: a shell with the new root as its argument.
    (hook,) = [w.removeprefix("--setup-hook=") for w in seen["argv"] if w.startswith("--setup-hook=")]
    folder = tmp_path / "root" / "etc" / "apt" / "apt.conf.d"
    folder.mkdir(parents=True)
    subprocess.run(["sh", "-c", hook, "exec", str(tmp_path / "root")], env=seen["env"], check=True)
    (written,) = folder.iterdir()
    assert written.read_text().splitlines() == DUMP.splitlines()[1:]
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    assert f"/etc/apt/apt.conf.d/{written.name}" in (tmp_path / "customize.sh").read_text()  # and goes again
