"""The backend of `Host` for machines reached by OpenSSH."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stackbook.core.errors import StackbookError, TransportError
from stackbook.core.results import Result
from stackbook.machines import ssh_sockets
from stackbook.machines.transports import LocalHost, RunningHost

_CONSEQUENCE = re.compile(
    r"kex_exchange_identification: Connection closed|Connection closed by UNKNOWN|banner exchange: "
)


@dataclass
class SSHHost(RunningHost):
    """A machine reached by OpenSSH; `sudo` is used when the user is not root.

    Args:
        address: host name or IP address.
        user: login name.
        port: TCP port.
        key: path of a private key, or None for the agent's and the default keys.
        known_hosts: file of accepted host keys; ssh refuses a changed key.
        strict: also refuse a host key that is not in that file, instead of adding it at the first connection.
        jump: a jump host, `[user@]host[:port]`, which the connection goes through; the same key and known hosts apply to it.
    """

    address: str = ""
    user: str = "root"
    port: int = 22
    key: Path | None = None
    known_hosts: Path | None = None
    strict: bool = False
    jump: str = ""

    def _options(self) -> list[str]:
        who = f"{self.user}@{self.address}:{self.port} {self.key} {self.known_hosts} {self.strict} {self.jump}"
        shared = ["-o", "ControlMaster=auto", "-o", "ControlPersist=60", "-o", f"ControlPath={ssh_sockets.path(who)}"]
        return [*self._identity(), *shared, *self._through()]

    def _identity(self) -> list[str]:
        """Who logs in and which host keys are accepted, the same for the machine and its jump host."""
        options = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=15"]
        options += ["-o", f"StrictHostKeyChecking={'yes' if self.strict else 'accept-new'}"]
        if self.known_hosts:
            options += ["-o", f"UserKnownHostsFile={self.known_hosts}"]
        return options + (["-i", str(self.key)] if self.key else [])

    def _through(self) -> list[str]:
        """The jump host. Not by `-J`, which would take neither the key nor the known hosts from this command line."""
        if not self.jump:
            return []
        return ["-o", f"ProxyCommand={shlex.join(self._hop()).replace('%', '%%')} -W '[%h]:%p'"]

    def _hop(self) -> list[str]:
        """A connection to the jump host alone."""
        where, _, port = self.jump.partition(":")
        return ["ssh", *self._identity(), "-o", "ControlPath=none", "-p", port or "22", where]

    def login(self, *, terminal: bool) -> list[str]:
        """The command of a shell on the machine, which takes the place of this process."""
        return ["ssh", *self._identity(), *self._through(), *(["-t"] if terminal else []), "-p", str(self.port),
                f"{self.user}@{self.address}"]  # fmt: skip

    def _argv(self, argv: Sequence[str], env: Mapping[str, str], stdin: bool) -> list[str]:
        words = [*(["sudo", "-n"] if self.user != "root" else []), "env", *(f"{k}={v}" for k, v in env.items())]
        remote = shlex.join([*words, *argv])
        return ["ssh", *self._options(), "-p", str(self.port), f"{self.user}@{self.address}", "--", remote]

    def _transport_failed(self, result: Result) -> str:
        # ssh(1): "exits with the exit status of the remote command or with 255 if an error occurred".
        if result.rc != 255:
            return ""
        lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
        # Where the way through the jump host ends, ssh says so as well, after the reason.
        reasons = [line for line in lines if not _CONSEQUENCE.match(line)]
        if not reasons and self.jump:
            reasons = self._reason_of_the_hop()
        reasons = reasons or lines or ["ssh failed"]
        return " | ".join(reasons[-2:] if self.jump else reasons[-1:])

    def _reason_of_the_hop(self) -> list[str]:
        """Why there is no way through the jump host. A shared connection hides what its ProxyCommand prints (ssh_proxy_connect)."""
        way = [*self._hop(), "-W", f"[{self.address}]:{self.port}"]
        try:
            said = LocalHost().run(way, check=False, stdin="", timeout=20).stderr
        except StackbookError:
            return []
        return [line.strip() for line in said.splitlines() if line.strip()]

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
