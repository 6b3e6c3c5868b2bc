"""The backend of `Host` for machines reached by OpenSSH."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stackbook.core.errors import TransportError
from stackbook.core.results import Result
from stackbook.machines import ssh_sockets
from stackbook.machines.transports import LocalHost, RunningHost


@dataclass
class SSHHost(RunningHost):
    """A machine reached by OpenSSH; `sudo` is used when the user is not root.

    Args:
        address: host name or IP address.
        user: login name.
        port: TCP port.
        key: path of a private key, or None for the agent's and the default keys.
        known_hosts: file of accepted host keys; ssh refuses a changed key.
    """

    address: str = ""
    user: str = "root"
    port: int = 22
    key: Path | None = None
    known_hosts: Path | None = None

    def _options(self) -> list[str]:
        who = f"{self.user}@{self.address}:{self.port} {self.key} {self.known_hosts}"
        options = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=15"]
        options += ["-o", "StrictHostKeyChecking=accept-new"]
        options += ["-o", "ControlMaster=auto", "-o", "ControlPersist=60", "-o", f"ControlPath={ssh_sockets.path(who)}"]
        if self.known_hosts:
            options += ["-o", f"UserKnownHostsFile={self.known_hosts}"]
        return options + (["-i", str(self.key)] if self.key else [])

    def _argv(self, argv: Sequence[str], env: Mapping[str, str], stdin: bool) -> list[str]:
        words = [*(["sudo", "-n"] if self.user != "root" else []), "env", *(f"{k}={v}" for k, v in env.items())]
        remote = shlex.join([*words, *argv])
        return ["ssh", *self._options(), "-p", str(self.port), f"{self.user}@{self.address}", "--", remote]

    def _transport_failed(self, result: Result) -> str:
        # ssh(1): "exits with the exit status of the remote command or with 255 if an error occurred".
        return (result.stderr.strip().splitlines() or ["ssh failed"])[-1] if result.rc == 255 else ""

    def put(self, local: Path, remote: str, *, mode: int | None = None) -> None:
        """See `Host.put`."""
        staged = self.run(["mktemp", "-p", "/var/tmp"]).stdout.strip()
        self.run(["chown", self.user, staged])
        target = f"{self.user}@{self.address}:{staged}"
        copied = LocalHost().run(
            ["scp", "-q", *self._options(), "-P", str(self.port), str(local), target], check=False, timeout=1800
        )
        if not copied.ok:
            raise TransportError(f"{local.name} could not be copied to {self.name}: {copied.stderr.strip()[-300:]}")
        permissions = f"{mode or local.stat().st_mode & 0o777:o}"
        self.run(["sh", "-c", 'install -D -m "$2" "$1" "$3" && rm -f "$1"', "put", staged, permissions, remote])
