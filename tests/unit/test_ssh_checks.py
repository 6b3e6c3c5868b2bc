"""A machine that is reached by SSH is checked before anything on it is changed; what waiting does not help is refused at once."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fakes import FakeHost
from stackbook.config.profile import Profile
from stackbook.core.errors import InputError, TransportError, WaitTimeout
from stackbook.core.results import Result
from stackbook.machines.providers import SSH, ssh_checks
from stackbook.machines.ssh_host import SSHHost
from stackbook.machines.transports import LocalHost

GOOD = {
    "true": "", "uname -m": "x86_64\n", "cat /etc/os-release": 'ID=debian\nPRETTY_NAME="Debian GNU/Linux 12"\n',
    "cat /proc/sys/kernel/random/boot_id": "b0\n", "stat -c %i /proc/1/ns/mnt": "4026531841\n",
}  # fmt: skip


@dataclass
class Unreachable(FakeHost):
    """A machine that ssh does not get to, some times or always."""

    reason: str = ""
    times: int = 1_000
    tried: list[str] = field(default_factory=list)

    def run(self, argv, **more):  # type: ignore[no-untyped-def]
        self.tried.append(" ".join(argv))
        if len(self.tried) <= self.times:
            raise TransportError(f"{self.name} could not be reached: {self.reason}")
        return super().run(argv, **more)


def test_a_good_machine_is_only_read() -> None:
    host = FakeHost(dict(GOOD))
    ssh_checks.demand(host)
    assert set(host.ran) <= set(GOOD)


@pytest.mark.parametrize(
    ("said", "fix"),
    [
        ("learner@10.0.0.5: Permission denied (publickey).", "authorized_keys"),
        ("Host key verification failed.", "known_hosts"),
        ("ssh: Could not resolve hostname gate: Name or service not known", "correct the name"),
        ("gate: Permission denied (publickey). | Connection closed by UNKNOWN port 65535", "authorized_keys"),
    ],
)
def test_a_refusal_is_one_line_at_once(said: str, fix: str) -> None:
    host = Unreachable(reason=said)
    with pytest.raises(InputError) as caught:
        ssh_checks.demand(host, timeout=30)
    assert fix in caught.value.fix and said in caught.value.message
    assert len(host.tried) == 1, "waiting does not help"


def test_a_machine_that_boots_is_waited_for() -> None:
    host = Unreachable(dict(GOOD), reason="connect to host 10.0.0.5 port 22: Connection refused", times=3)
    ssh_checks.demand(host, timeout=5, every=0.01)
    assert len(host.tried) > 3


def test_one_that_stays_away_is_told_with_what_ssh_said() -> None:
    host = Unreachable(reason="connect to host 10.0.0.5 port 22: No route to host")
    with pytest.raises(WaitTimeout, match="No route to host"):
        ssh_checks.demand(host, timeout=0.05, every=0.01)


@pytest.mark.parametrize(
    ("command", "answer", "message", "fix"),
    [
        ("true", (1, "", "sudo: a password is required"), "a password is required", "NOPASSWD"),
        ("true", (127, "", "bash: line 1: sudo: command not found"), "command not found", "user: root"),
        ("uname -m", "aarch64\n", "aarch64", "x86_64"),
        ("cat /etc/os-release", 'ID=fedora\nPRETTY_NAME="Fedora Linux 42"\n', "Fedora Linux 42", "Debian 12"),
    ],
)
def test_a_machine_that_the_lab_cannot_use(command: str, answer: object, message: str, fix: str) -> None:
    with pytest.raises(InputError) as caught:
        ssh_checks.demand(FakeHost({**GOOD, command: answer}))  # type: ignore[dict-item]
    assert message in caught.value.message and fix in caught.value.fix and "\n" not in str(caught.value)


def test_one_machine_under_two_names_is_refused() -> None:
    one, again, other = (
        FakeHost(dict(GOOD)),
        FakeHost(dict(GOOD)),
        FakeHost({**GOOD, "stat -c %i /proc/1/ns/mnt": "7\n"}),
    )
    with pytest.raises(InputError, match="a and b are the same machine"):
        ssh_checks.demand_different({"a": one, "b": again})
    ssh_checks.demand_different({"a": one, "b": other})


def test_the_jump_host_has_the_same_key_and_known_hosts() -> None:
    host = SSHHost(name="n", address="192.0.2.1", user="learner", key=Path("/a key"), known_hosts=Path("/k"), strict=True,
                   jump="me@gate.example:2222")  # fmt: skip
    options = host._options()
    assert "StrictHostKeyChecking=yes" in options
    (proxy,) = [word for word in options if word.startswith("ProxyCommand=")]
    words = shlex.split(proxy.removeprefix("ProxyCommand="))
    assert words[0] == "ssh" and words[-3:] == ["me@gate.example", "-W", "[%h]:%p"]
    for option in ("UserKnownHostsFile=/k", "StrictHostKeyChecking=yes", "/a key", "ControlPath=none", "2222"):
        assert option in words
    assert not [word for word in SSHHost(name="n", address="192.0.2.1")._options() if "Proxy" in word]


def test_a_shell_goes_the_same_way() -> None:
    host = SSHHost(name="n", address="192.0.2.1", user="learner", key=Path("/k"), known_hosts=Path("/h"), jump="gate")
    words = host.login(terminal=True)
    assert words[-4:] == ["-t", "-p", "22", "learner@192.0.2.1"]
    assert "-i" in words and "UserKnownHostsFile=/h" in words and any("ProxyCommand" in word for word in words)


def profile(tmp_path: Path, **more: object) -> Profile:
    nodes = [{"name": "a", "address": "192.0.2.3", "user": "learner", "jump": "me@gate"}]
    return Profile.load("embedded", overrides={"target": "ssh", "nodes": nodes, **more})


def test_a_profile_says_it(tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.write_text("")
    host = SSH(profile(tmp_path, known_hosts=str(known))).machines()["a"]
    assert isinstance(host, SSHHost)
    assert (host.jump, host.strict, host.known_hosts) == ("me@gate", True, known)
    assert not SSH(profile(tmp_path)).machines()["a"].strict  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"known_hosts": "/nowhere"}, "not found"),
        ({"nodes": [{"name": "a", "address": "192.0.2.3", "jump": "-oProxyCommand=x"}]}, "jump host"),
        ({"target": "embedded", "known_hosts": __file__}, "valid only with target: ssh"),
    ],
)
def test_bad_input_is_refused(more: dict[str, object], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        if more.get("target"):
            Profile.load("embedded", overrides=more)
        else:
            profile(tmp_path, **more)


@pytest.mark.parametrize(
    ("jump", "said", "reason"),
    [
        ("gate", ["learner@10.0.0.9: Permission denied (publickey).",
                  "kex_exchange_identification: Connection closed by remote host",
                  "Connection closed by UNKNOWN port 65535"], "learner@10.0.0.9: Permission denied (publickey)."),
        ("gate", ["Host key for 10.0.0.5 has changed and you have requested strict checking.", "Host key verification failed."],
         "Host key for 10.0.0.5 has changed and you have requested strict checking. | Host key verification failed."),
        ("", ["debug", "learner@10.0.0.5: Permission denied (publickey)."], "learner@10.0.0.5: Permission denied (publickey)."),
        ("", ["Connection closed by UNKNOWN port 65535"], "Connection closed by UNKNOWN port 65535"),
        ("", [], "ssh failed"),
    ],
)  # fmt: skip
def test_the_reason_is_not_what_follows_from_it(jump: str, said: list[str], reason: str) -> None:
    host = SSHHost(name="one", address="10.0.0.5", jump=jump)
    failed = Result(("ssh",), 255, "", "".join(f"{line}\r\n" for line in said), 0.1, "one")
    assert host._transport_failed(failed) == reason


def test_before_a_run_refusals_count_and_machines_that_do_not_answer_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bad input ends the command with status 2, before its first chapter; chapter 01 waits for a machine that boots."""
    away = Unreachable(name="one", reason="connect to host 10.0.0.5 port 22: No route to host")
    good = FakeHost(dict(GOOD), name="two")
    wrong = Unreachable(name="two", reason="learner@10.0.0.6: Permission denied (publickey).")
    machines: dict[str, object] = {"one": away, "two": good}
    monkeypatch.setattr(SSH, "machines", lambda self: machines)
    SSH(Profile()).demand()
    assert len(away.tried) == 1 and "uname -m" in good.ran
    machines["two"] = wrong
    with pytest.raises(InputError, match="Permission denied"):
        SSH(Profile()).demand()
    machines |= {"one": FakeHost(dict(GOOD), name="one"), "two": good}
    with pytest.raises(InputError, match="the same machine"):
        SSH(Profile()).demand()


def test_the_reason_of_a_jump_host_is_asked_for_where_ssh_hides_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a shared connection, ssh sends what its ProxyCommand prints to /dev/null."""
    asked: list[list[str]] = []

    def run(self: object, argv: list[str], **more: object) -> Result:
        asked.append(argv)
        return Result(tuple(argv), 255, "", "learner@10.0.0.9: Permission denied (publickey).\r\n", 0.1, "this host")

    monkeypatch.setattr(LocalHost, "run", run)
    host = SSHHost(name="one", address="10.0.0.5", user="learner", jump="learner@10.0.0.9:2222")
    said = (
        "kex_exchange_identification: Connection closed by remote host\r\nConnection closed by UNKNOWN port 65535\r\n"
    )
    assert (
        host._transport_failed(Result(("ssh",), 255, "", said, 0.1, "one"))
        == "learner@10.0.0.9: Permission denied (publickey)."
    )
    assert asked[0][-5:] == ["-p", "2222", "learner@10.0.0.9", "-W", "[10.0.0.5]:22"]
    assert host._transport_failed(Result(("ssh",), 255, "", "ssh: no route\r\n", 0.1, "one")) == "ssh: no route"
    assert len(asked) == 1
