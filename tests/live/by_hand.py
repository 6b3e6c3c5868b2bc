"""The commands that `stackbook commands` prints, typed one after another in shells: on the machines of a lab and on this host.

What a person does beside typing them stands in three short tables with their reasons: `LEFT_OUT`, `ONLY_LOOKS` and `Hand.instead`.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from stackbook.artifacts import protoc
from stackbook.cluster import kubeadm
from stackbook.cluster.kubeconfig import write_kubeconfig
from stackbook.cluster.problems import node_problem, pod_problem
from stackbook.core.errors import StackbookError, WaitTimeout
from stackbook.core.redact import MASK, redact
from stackbook.core.results import Result
from stackbook.lab.lab import Lab
from stackbook.machines.transports import Host, LocalHost
from stackbook.observability.logs import credentials

HERE = "this host"
FOLDER = "/root/by-hand"
"""The working directory on a machine: it has the programs that `install` takes from there."""
PROGRAMS = ("kubelet", "kubeadm", "kubectl", "istioctl")

LEFT_OUT = (
    (r"nsenter -t \d+ |readlink /proc/\d+/|^kill -\w+ \d+( |$)",
     "the number of a process of the recorded run: on another machine it is another process. What is killed so is restarted"),
    (r"^ctr -n k8s\.io (tasks kill|containers info) ",
     "the id of a container of the recorded run. What is killed so is restarted"),
    (r"\b(app-)?load (answered|stop) ",
     "asks or ends a program that sends requests beside other commands; requests change no object"),
)  # fmt: skip
"""Commands that are not typed: a pattern and the reason. `beside` adds the programs that send requests beside other commands."""

ONLY_LOOKS = re.compile(
    r"^(kubectl (-\S+ \S+ )*(get|logs|explain|api-resources|api-versions|auth|config|top|version|rollout status)( |$)"
    r"|kubectl (\S+ )*?exec (?!.* -- (sh -c|pilot-agent request POST) ?)"
    r"|istioctl (version|profile|manifest|proxy-|analyze|install --help)"
    r"|(curl|nc|ss|ps|pgrep|readlink|ping|openssl|busybox|dpkg|app-load) "
    r"|iptables-save|(ip|bridge) -j |timeout \d+ tcpdump|ctr -n k8s\.io (tasks ls|containers ls)|containerd config dump"
    r"|(kubelet --version|kubeadm (version|config|token list|certs check-expiration))"
    r"|sh -c 'i=0; while )"
)
"""Commands that change nothing. What they print is not compared, so it matters only that a shell can run them."""

ITS_OWN = re.compile(
    r"\b10\.\d+\.\d+\.\d+\b|:3[0-2]\d{3}\b|[0-9a-f]{12,}|tcpdump|load run|curl (\S+ )*-K -|kubectl logs|istioctl (proxy-|analyze)"
    r"|-[bcdfghjklmnpqrstvwxz2456789]{5}\b"
)
"""Signs that a command looks at what only the recorded run had, such as a pod's address: here it may find nothing."""

_GENERATED = re.compile(
    r"\b([a-z][a-z0-9-]*?)(?:-[bcdfghjklmnpqrstvwxz2456789]{8,10})?-([bcdfghjklmnpqrstvwxz2456789]{5})(?![\w.-])"
)
_HEREDOC = re.compile(r"<<'(EOF_*)'$")
_STATUS = re.compile(r"  # exit status (\d+)$")
_PLACE = re.compile(r"^# on ([^:]+)(:|$)")
_AGAIN = re.compile(r"^(kubectl|istioctl) ")
LOOK_SECONDS, CHANGE_SECONDS, LONG_SECONDS = 40.0, 180.0, 600.0
_LONG = re.compile(r"^(kubeadm|istioctl install|ctr -n k8s\.io images) ?")


@dataclass(frozen=True)
class Command:
    """One printed command: its step, where it is typed, its text with what it reads, and the recorded exit status."""

    step: str
    place: str
    text: str
    status: int = 0

    @property
    def looks(self) -> bool:
        """Whether it changes nothing."""
        return bool(ONLY_LOOKS.match(self.text))

    @property
    def private(self) -> bool:
        """Whether it looks at what only the recorded run had."""
        return bool(ITS_OWN.search(self.text))


def parse(printed: str) -> list[Command]:
    """What `stackbook commands` prints, as commands.

    Raises:
        ValueError: a quote or a here-document has no end.
    """
    found: list[Command] = []
    step = place = ""
    lines = iter(printed.split("\n"))
    for line in lines:
        if named := _PLACE.match(line):
            place = named[1]
        elif line.startswith("# "):
            step = line[2:].partition(":")[0]
        elif line:
            text = line
            while _open(text):
                text += "\n" + _next(lines, text)
            status = _STATUS.search(text)
            text = _STATUS.sub("", text)
            if end := _HEREDOC.search(text):
                body = [text]
                while body[-1] != end[1] or len(body) == 1:
                    body.append(_next(lines, text))
                text = "\n".join(body)
            found.append(Command(step, place, text, int(status[1]) if status else 0))
    return found


def _next(lines: Iterator[str], of: str) -> str:
    for line in lines:
        return line
    raise ValueError(f"this command has no end: {of[:200]}")


def _open(text: str) -> bool:
    """Whether a quote of a shell is still open at the end of a text."""
    quote, skip = "", False
    for place, letter in enumerate(text):
        if skip:
            skip = False
        elif letter == "\\" and quote != "'":
            skip = True
        elif quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter == "#" and (place == 0 or text[place - 1] in " \n"):
            return False  # only the exit status stands behind it
    return bool(quote)


def left_out(command: Command, beside: frozenset[str] = frozenset()) -> str:
    """Why a command is not typed; empty if it is."""
    for pattern, reason in LEFT_OUT:
        if re.search(pattern, command.text):
            return reason
    if any(f"load run {key}" in command.text for key in beside):
        return "sends requests beside other commands; requests change no object"
    return ""


def beside(commands: Iterable[Command]) -> frozenset[str]:
    """The keys of the programs that send requests beside other commands: those that are asked or ended meanwhile."""
    found = (re.search(r"\b(?:app-)?load (?:answered|stop) (\w+)", command.text) for command in commands)
    return frozenset(match[1] for match in found if match)


def base(name: str) -> str:
    """The name of a pod without the suffixes that its controller has generated.

    >>> base("coredns-5c6458f85f-kkcs2"), base("shipper-s48l4"), base("load")
    ('coredns', 'shipper', 'load')
    """
    return _GENERATED.sub(r"\1", name)


def with_living(text: str, living: Iterable[str], known: dict[str, str]) -> str:
    """A command with the pods of this lab instead of those of the recorded run: another one of the same controller.

    Args:
        text: the command.
        living: the names of the pods that exist.
        known: which pod stands for which recorded one; it is filled, so that two names stay two pods.
    """
    there = sorted(living)

    def own(match: re.Match[str]) -> str:
        name = match[0]
        if name in there:
            return name
        if known.get(name) not in there:
            same = [pod for pod in there if pod != base(pod) and base(pod) == match[1]]
            free = [pod for pod in same if pod not in known.values()]
            if not same:
                return name
            known[name] = (free or same)[0]
        return known[name]

    return _GENERATED.sub(own, text)


class Failed(AssertionError):
    """A typed command did something else than the recorded one."""

    def __init__(self, command: Command, result: Result | None, why: str) -> None:
        said = redact((result.stderr or result.stdout)[-3000:]) if result else ""
        status = result.rc if result else "none"
        super().__init__(
            f"{why}\nstep {command.step}, on {command.place}:\n{redact(command.text[:3000])}\n"
            f"exit status {status}, recorded {command.status}\n{said}"
        )


@dataclass
class Hand:
    """Types commands.

    Args:
        lab: the lab.
        folder: a folder of this host for the shell there.
        say: takes lines of progress.
    """

    lab: Lab
    folder: Path
    say: Callable[[str], None] = print
    names: dict[str, str] = field(default_factory=dict)
    unsettled: set[str] = field(default_factory=set)
    prepared: set[str] = field(default_factory=set)

    @cached_property
    def machines(self) -> dict[str, Host]:
        """The machines by name."""
        return self.lab.machines

    def type(self, printed: str) -> None:
        """Type what `stackbook commands` has printed for a chapter.

        Raises:
            Failed: a command that succeeded in the recorded run failed, or the other way round.
        """
        commands = parse(printed)
        background = beside(commands)
        for number, command in enumerate(commands, 1):
            line = command.text.splitlines()[0][:110]
            if reason := left_out(command, background):
                self.say(f"  – {number}/{len(commands)} {command.place}: {line}: left out: {reason}")
                continue
            self.say(f"  • {number}/{len(commands)} {command.place}: {line}")
            self._one(command)
            if not command.looks:
                self.settle()

    def _one(self, command: Command) -> None:
        if self.instead(command):
            return
        if MASK in command.text:
            raise Failed(command, None, "a secret is masked, and no row of the table says what a person types instead")
        deadline = CHANGE_SECONDS if not command.looks else LOOK_SECONDS
        if _LONG.match(command.text) or " --timeout=" in command.text:  # it has a deadline of its own
            deadline = LONG_SECONDS
        # A person who reads "not ready yet" types the command again.
        again = 60.0 if command.status == 0 and _AGAIN.match(command.text) else 0.0
        lenient = command.looks and (command.private or command.status != 0)
        start = time.monotonic()
        result: Result | None = None
        while True:
            why = ""
            try:
                result = self._run(command, deadline)
                if result.rc and not command.status:
                    why = "this command failed"
                elif command.status and not result.rc:
                    why = "this command succeeded, and failed in the recorded run"
            except (StackbookError, WaitTimeout) as error:
                why = str(error)
            if not why:
                return
            if lenient or time.monotonic() - start >= again:
                break
            time.sleep(2)
        if not lenient:
            raise Failed(command, result, why)
        self.say(f"    it only looks, at what the recorded run had: {redact(why.splitlines()[0])}")

    def _run(self, command: Command, deadline: float) -> Result:
        if host := self.machines.get(command.place):
            self._programs(host)
            return host.run(
                ["bash", "-s"], stdin=f"cd {FOLDER} || exit 99\n{command.text}\n", check=False, timeout=deadline
            )
        self._kubeconfig()
        text = with_living(command.text, self._pods() if _GENERATED.search(command.text) else (), self.names)
        script = f"cd {self.folder} || exit 99\n{text}\n"
        return LocalHost(HERE).run(["bash", "-s"], stdin=script, check=False, timeout=deadline, env=self._environment())

    def instead(self, command: Command) -> bool:
        """Do what a person does instead of typing a secret that is masked; returns whether this was such a command.

        - The configuration of `kubeadm join` has a token: a new one, from `kubeadm token create --print-join-command`.
        - The Secret of Elasticsearch has a key and passwords: the lab's own, made by the library.
        """
        if f" {kubeadm.JOIN} " in command.text and MASK in command.text:
            token, digest = kubeadm.join_command(self.lab.control_plane)
            text = kubeadm.join_config(
                command.place, token, digest, self.lab.profile, self.lab.images.kubeadm, cgroup_v1=self.lab.cgroup_v1
            )
            self.machines[command.place].write(kubeadm.JOIN, text, mode=0o600)
            return True
        if command.text.startswith("kubectl create -f - ") and command.text.splitlines()[1:2] == [MASK]:
            assert command.step == credentials.NAME, f"another Secret than Elasticsearch's is masked: {command}"
            assert credentials.ensure(self.lab.kube) == 1
            return True
        return False

    # what the commands expect

    def _programs(self, host: Host) -> None:
        """Put the programs where the commands take them from."""
        if host.name in self.prepared:
            return
        for name in PROGRAMS:
            host.put(self.lab.artifacts.path(name), f"{FOLDER}/{name}", mode=0o755)
        self.prepared.add(host.name)

    def _environment(self) -> dict[str, str]:
        programs = self.folder / "bin"
        programs.mkdir(parents=True, exist_ok=True)
        for name in ("kubectl", "istioctl", "app-load"):
            if not (programs / name).exists():
                (programs / name).symlink_to(self.lab.artifacts.path(name))
        (programs / "protoc").write_text(protoc.script())
        (programs / "protoc").chmod(0o755)
        return {"PATH": f"{programs}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "KUBECONFIG": str(self.lab.kubeconfig)}  # fmt: skip

    def _kubeconfig(self) -> None:
        """Copy the administrator's kubeconfig to this host once it exists: chapter 02 does that without a command."""
        if not self.lab.kubeconfig.is_file():
            text = self.lab.control_plane.run(["cat", "/etc/kubernetes/admin.conf"], secret=True).reveal()
            write_kubeconfig(text, self.lab.kubeconfig)

    def _pods(self) -> list[str]:
        items = self.lab.kube.json("get", "pods", "--all-namespaces")["items"]
        return [str(pod["metadata"]["name"]) for pod in items if "deletionTimestamp" not in pod["metadata"]]

    # waiting

    def settle(self, seconds: float = 90.0) -> None:
        """Wait until all is as it was asked for, as a person looks before typing on.

        What stays unready is not waited for again. Before there is a pod network, no node is Ready, and there is nothing to wait for.
        """
        if not self.lab.kubeconfig.is_file():
            return
        start = time.monotonic()
        while True:
            now = self._unready()
            self.unsettled &= now
            if not now - self.unsettled:
                return
            if time.monotonic() - start > seconds:
                self.say(f"    still not ready after {seconds:.0f} s: {', '.join(sorted(now)[:6])}")
                self.unsettled |= now
                return
            time.sleep(0.5)

    def _unready(self) -> set[str]:
        try:
            kinds = "pods,deployments.apps,daemonsets.apps,statefulsets.apps"
            items = json.loads(self.lab.kube.kubectl("get", kinds, "-A", "-o", "json").stdout)["items"]
            nodes = self.lab.kube.json("get", "nodes")["items"]
            items += nodes + self.lab.kube.json("get", "namespaces")["items"]
        except StackbookError:
            return {"the API"}
        if all(unready(node) for node in nodes):
            return set()
        return {
            f"{i['kind']} {i['metadata'].get('namespace', '')}/{i['metadata']['name']}" for i in items if unready(i)
        }


def unready(item: dict[str, Any]) -> bool:
    """Whether a pod, a workload, a node or a namespace is not yet as it was asked for, or is about to go."""
    if "deletionTimestamp" in item["metadata"]:
        return True
    status, kind = item.get("status", {}), item["kind"]
    if kind == "Pod":
        return bool(pod_problem(item))
    if kind == "Node":
        return bool(node_problem(item))
    if kind == "DaemonSet":
        wanted = status.get("desiredNumberScheduled", 0)
        done = min(status.get("numberReady", 0), status.get("updatedNumberScheduled", 0))
    elif kind in ("Deployment", "StatefulSet"):
        wanted = item["spec"].get("replicas", 1)
        done = min(status.get("readyReplicas", 0), status.get("updatedReplicas", 0))
    else:
        return False
    return bool(status.get("observedGeneration", 0) < item["metadata"].get("generation", 0) or done < wanted)
