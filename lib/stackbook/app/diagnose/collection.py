"""Reading a lab once: every probe has a deadline, and a missing answer is evidence, too. It never raises an error."""

from __future__ import annotations

import base64
import contextlib
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import yaml

from stackbook.app.diagnose import cluster_probes, machine_probes
from stackbook.app.diagnose.asking import Hasty, ask
from stackbook.app.diagnose.collect_cluster import Asker, by_control_plane, by_kubeconfig, read_cluster, refusing
from stackbook.app.diagnose.machine_probes import Probe
from stackbook.app.diagnose.snapshot import ABSENT, RUNNING, Answer, Machine, Snapshot, pod_address
from stackbook.cluster.kubeconfig import EXISTING, existing
from stackbook.config import proxies
from stackbook.config.profile import Profile
from stackbook.core import paths
from stackbook.core.errors import StackbookError
from stackbook.machines import facts
from stackbook.machines.providers import Embedded, for_profile
from stackbook.machines.transports import Host, LocalHost

_AT_ONCE = 6


def collect(profile: Profile, word: str = "embedded", *, local: Host | None = None,
            hosts: Mapping[str, tuple[str, Host]] | None = None) -> Snapshot:  # fmt: skip
    """Read everything.

    Args:
        profile: the lab's profile.
        word: how the reader names the profile.
        local: this host.
        hosts: state and host of each machine, by name; if None, the profile's provider finds them.
    """
    proxies.spare(profile)
    start = time.monotonic()
    here = local or LocalHost(name="this host")
    found = Snapshot(profile, word, time=time.time())
    _read_host(found, here)
    known = _machines(found, here) if hosts is None else dict(hosts)
    for name, (state, _) in known.items():
        node = next(n for n in profile.nodes if n.name == name)
        found.machines[name] = Machine(name, node.address, state, node.name == profile.control_plane.name)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        jobs = [pool.submit(_read_machine, found, name, host) for name, (_, host) in known.items()]
        for job in jobs:
            job.result()
        _read_between(found, {name: host for name, (_, host) in known.items()}, pool)
    refused = [pod for machine in found.up for pod in refusing(machine.text("refused by proxies"))]
    found.cluster = read_cluster(_askers(found, here, known), refused)
    found.seconds = time.monotonic() - start
    return found


def _read_host(found: Snapshot, here: Host) -> None:
    folder = paths.cache()
    while not folder.exists():
        folder = folder.parent
    found.host["disks"] = ask(here, ("df", "-P", "-k", "/", str(folder)), 4)
    found.host["memory"] = ask(here, facts.MEMORY.argv, 4)
    _read_kubeconfig(found, here)


def kubeconfig_of(profile: Profile) -> str:
    """The path of the lab's kubeconfig, whether it exists or not; creates no folder."""
    if profile.target == "cluster":
        try:
            found = existing(profile.kubeconfig, profile.context)
        except StackbookError:
            return profile.kubeconfig or "~/.kube/config"
        copy = paths.states() / profile.lab / EXISTING
        return str(copy if copy.is_file() else found.files[0])
    return str(paths.states() / profile.lab / "kubeconfig")


def _read_kubeconfig(found: Snapshot, here: Host) -> None:
    """The kubeconfig's server, its certificate's dates, and whether the server answers; never its key."""
    path = kubeconfig_of(found.profile)
    answer = ask(here, ("cat", path), 4)
    if not answer.ok:
        found.host["kubeconfig"] = Answer(err=answer.err, rc=answer.rc or 1, problem=answer.problem)
        return
    server, certificate = "", ""
    with contextlib.suppress(yaml.YAMLError, LookupError, TypeError, ValueError, AttributeError):
        data: dict[str, Any] = yaml.safe_load(answer.out)
        server = str(data["clusters"][0]["cluster"]["server"])
        encoded = data["users"][0]["user"].get("client-certificate-data", "")
        certificate = base64.b64decode(encoded).decode()
    found.host["kubeconfig"] = Answer(out=server, rc=0 if server else 1, err="" if server else "it has no server")
    if certificate:
        argv = ("openssl", "x509", "-noout", "-dates")
        found.host["kubeconfig certificate"] = ask(here, argv, 4, stdin=certificate)
    if server:
        command = ("curl", "-sk", "-m", "4", "--noproxy", "*", f"{server}{cluster_probes.READY}")
        found.host["API server"] = ask(here, command, 6)


def _machines(found: Snapshot, here: Host) -> dict[str, tuple[str, Host]]:
    profile = found.profile
    try:
        if profile.target != "embedded":
            return {name: (RUNNING, host) for name, host in for_profile(profile).machines().items()}
        provider = Embedded(profile, Hasty(here))
        states = provider.containers()
        found.host["podman"] = Answer(out="works")
        return {n.name: (states.get(provider.container(n.name), ABSENT), provider.machine(n)) for n in profile.nodes}
    except StackbookError as error:
        found.host["podman"] = Answer(rc=1, err=error.message)
        return {}


def _read_machine(found: Snapshot, name: str, host: Host) -> None:
    machine = found.machines[name]
    if machine.state != RUNNING:
        return
    machine.answers["clock"] = ask(host, machine_probes.CLOCK.argv, machine_probes.CLOCK.timeout)
    if machine["clock"].problem:
        return
    _all(machine, host, machine_probes.of_machine(found.profile, control_plane=machine.control_plane))


def _all(machine: Machine, host: Host, probes: Mapping[str, Probe]) -> None:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        asked = {name: pool.submit(ask, host, probe.argv, probe.timeout) for name, probe in probes.items()}
        machine.answers |= {name: job.result() for name, job in asked.items()}


def _read_between(found: Snapshot, hosts: Mapping[str, Host], pool: ThreadPoolExecutor) -> None:
    jobs: list[tuple[Machine, str, Callable[[], Answer]]] = []
    for machine in found.up:
        for other in found.up:
            if other is not machine:
                host = hosts[machine.name]
                for what, probe in machine_probes.between(other.address, pod_address(other)).items():
                    jobs.append(
                        (machine, f"{what} {other.name}", pool.submit(ask, host, probe.argv, probe.timeout).result)
                    )
    for machine, name, result in jobs:
        machine.answers[name] = result()


def _askers(found: Snapshot, here: Host, known: Mapping[str, tuple[str, Host]]) -> list[Asker]:
    """The ways to ask the API server: kubectl on the control plane's machine, which needs no file of this host; then kubectl here."""
    askers = []
    if found.control_plane:
        askers.append(by_control_plane(known[found.control_plane.name][1]))
    if found.host["kubeconfig"].ok and (asker := by_kubeconfig(here, found.profile, kubeconfig_of(found.profile))):
        askers.append(asker)
    return askers
