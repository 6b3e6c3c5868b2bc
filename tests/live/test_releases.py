"""Other releases than this host's. They run after all other tests: their podman does not list the labs that other tests make on the
network which they share with this host, so each would find what the other does meanwhile."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from host_roots import PROFILE, RELEASES, root
from labtools import keep_evidence

pytestmark = [pytest.mark.live, pytest.mark.more]

MACHINES = {"debian-13": "13", "ubuntu-24.04": "24.04"}


@pytest.mark.parametrize("release", RELEASES)
def test_the_first_command_on_another_release(release: str, tmp_path: Path) -> None:
    """Nothing is installed there: `make lab` installs what it needs, and the chapters pass with that release's podman."""
    base = Path("/var/tmp") / f"stackbook-roots-{os.getpid()}"
    base.mkdir()
    try:
        with root(release, base) as other:
            (other.checkout / "parameters" / "here.yaml").write_text(PROFILE)
            script = (
                "make lab PROFILE=here RUN_ARGS='--to 03'; status=$?; podman --version; "
                ".venv/bin/python -c \"from stackbook.lab.lab import Lab; print(Lab.open('00-preflight', 'here').machines['one']"
                ".read('/etc/os-release'))\"; "
                ".venv/bin/stackbook reset --profile here || exit 3; exit $status"
            )
            done = other.run(script)
            if done.status:
                keep_evidence(done.output)
            assert done.status == 0, done.output[-5000:]
            version = MACHINES[release]
            assert f'VERSION_ID="{version}"' in done.output, "the machines are of another release than the host"
    finally:
        shutil.rmtree(base)
