"""Stopping and starting a lab: its machines keep their addresses and everything on their disks."""

from __future__ import annotations

import shlex
import time
from concurrent.futures import ThreadPoolExecutor

from stackbook.app import readiness
from stackbook.app.snapshots.store import Store
from stackbook.app.supervision import only_run
from stackbook.cluster import early_pods, flannel, kubeadm
from stackbook.config import chapters
from stackbook.config.profile import ChapterParameters, Profile
from stackbook.core.errors import InputError, StackbookError
from stackbook.lab.lab import Lab
from stackbook.lessons.machines import addressing, clones
from stackbook.machines import operations
from stackbook.machines.providers import power
from stackbook.machines.providers.base import Say
from stackbook.machines.providers.podman import Embedded
from stackbook.machines.providers.vm import VirtualMachines
from stackbook.machines.transports import Host

READY_SECONDS = 180.0
"""The deadline for everything to be Ready; measured: see the README."""


def word(profile: Profile, *command: str) -> str:
    """A command of stackbook for this profile, as a reader types it."""
    named = [] if profile.name == "embedded" else ["--profile", profile.name]
    return f"stackbook {shlex.join([*command, *named])}"


Own = Embedded | VirtualMachines
"""A provider whose machines stackbook creates."""


def demand_own(profile: Profile, what: str) -> Own:
    """The provider of a lab whose machines stackbook created.

    Raises:
        InputError: stackbook did not create the machines, or there are none.
    """
    if not profile.creates_machines:
        raise InputError(
            f"{what} works only on machines that stackbook created; it did not create those of target {profile.target!r}",
            fix="use a profile with target embedded or vm",
        )
    provider = _provider(profile)
    if len(_missing(provider)) == len(profile.nodes):
        raise InputError(f"there is no lab {profile.lab!r} on this host", fix=word(profile, "run"))
    return provider


def demand_embedded(profile: Profile, what: str) -> Embedded:
    """The provider of a lab whose machines are containers of this host.

    Raises:
        InputError: they are not, or there are none.
    """
    if profile.target == "vm":
        raise InputError(f"{what} works only with target embedded, and not with virtual machines",
                         fix="stackbook stop and start keep them as they are")  # fmt: skip
    provider = demand_own(profile, what)
    assert isinstance(provider, Embedded)
    return provider


def _provider(profile: Profile) -> Own:
    return VirtualMachines(profile) if profile.target == "vm" else Embedded(profile)


def _missing(provider: Own) -> list[str]:
    """The nodes whose machines were never created."""
    nodes = provider.profile.nodes
    if isinstance(provider, VirtualMachines):
        return [node.name for node in nodes if not provider.machine(node).disk.exists()]
    there = provider.containers()
    return [node.name for node in nodes if provider.container(node.name) not in there]


def _asleep(provider: Own) -> list[str]:
    """The nodes whose machines do not run."""
    names = [node.name for node in provider.profile.nodes]
    if isinstance(provider, VirtualMachines):
        running = provider.machines()
        return [name for name in names if name not in running]
    states = provider.containers()
    return [name for name in names if states.get(provider.container(name)) not in ("running", "paused")]


def is_stopped(provider: Own) -> bool:
    """Whether all machines of the profile exist, and none of them runs."""
    if isinstance(provider, VirtualMachines):
        return not _missing(provider) and not provider.machines()
    return not _missing(provider) and not power.running(provider)


def stop(profile: Profile, *, say: Say = print) -> None:
    """Stop the lab's machines; everything on their disks stays.

    Raises:
        InputError: there is no such lab, it is stopped already, or a run uses it; nothing was changed.
    """
    began = time.monotonic()
    Store(profile.lab).demand_whole()
    demand_own(profile, "stop")
    with only_run(profile.lab, who="stackbook stop"):
        provider = demand_own(profile, "stop")
        count = provider.stop(say=say) if isinstance(provider, VirtualMachines) else power.stop(provider, say=say)
    if not count:
        raise InputError(f"the lab {profile.lab!r} is not running", fix=word(profile, "start"))
    say(
        f"✓ the lab {profile.lab!r} is stopped ({time.monotonic() - began:.0f} s); {word(profile, 'start')} continues it"
    )


def start(profile: Profile, *, say: Say = print) -> None:
    """Start the lab's machines, and wait until its nodes and pods are Ready.

    Raises:
        InputError: there is no such lab, or a run uses it; nothing was changed.
        WaitTimeout: something is not Ready.
    """
    Store(profile.lab).demand_whole()
    demand_own(profile, "start")
    with only_run(profile.lab, who="stackbook start"):
        provider = demand_own(profile, "start")
        Store(profile.lab).demand_whole()
        if isinstance(provider, Embedded):
            provider.demand_names()
        if missing := _missing(provider):
            raise InputError(f"the machine {missing[0]} was never created", fix=word(profile, "run"))
        wake(profile, say=say)


def wake_if_stopped(profile: Profile, *, say: Say) -> None:
    """Start a stopped lab before a run's chapters; the chapters handle what is not Ready."""
    if profile.creates_machines and is_stopped(_provider(profile)):
        say("the lab is stopped: starting it")
        try:
            wake(profile, say=lambda text: say(f"  {text}"))
        except StackbookError as error:
            say(f"  – {error}")


def wake(profile: Profile, *, say: Say) -> None:
    """Do the work of `start`; the caller holds the run's lock.

    It restores what a reboot of this host removes: the network, the rule for the machines' packets, kernel modules and parameters.

    Raises:
        WaitTimeout: something is not Ready.
    """
    began, start = time.time(), time.monotonic()
    lab = Lab(chapters.ALL[0], profile, ChapterParameters())
    provider = _provider(profile)
    asleep = _asleep(provider)
    provider.provision(say=say)
    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(lambda pair: _settle(lab, *pair), provider.machines().items()))
    what = f"{len(profile.nodes)} machines run"
    if lab.kubeconfig.exists():
        say("waiting for nodes and pods")
        patience = 4 if isinstance(provider, VirtualMachines) else 1  # without KVM, everything takes longer
        count = ready_again(lab, asleep, began, timeout=READY_SECONDS * patience)
        what = f"{len(profile.nodes)} nodes and {count} pods are Ready"
    say(f"✓ the lab {profile.lab!r} runs: {what} ({time.monotonic() - start:.0f} s)")


def ready_again(lab: Lab, asleep: list[str], began: float, *, timeout: float = READY_SECONDS) -> int:
    """Wait until everything in the cluster is Ready again; if flannel is not installed yet, until its API server answers.

    Args:
        lab: the lab.
        asleep: the machines that were started.
        began: when their start began, in seconds since the epoch.
        timeout: deadline in seconds.

    Returns:
        The number of pods.
    """
    left = began + timeout - time.time()
    machines = [host for name, host in lab.provider.machines().items() if name in asleep]
    with ThreadPoolExecutor(max_workers=8) as pool:
        tries = [pool.submit(early_pods.retry, host, timeout=left) for host in machines]
        readiness.answers(lab.kube, timeout=timeout)
        for each in tries:
            each.result()
    if not flannel.running_backend(lab.kube):
        return 0
    return readiness.wait(lab.kube, asleep, began, timeout=timeout)


def _settle(lab: Lab, name: str, host: Host) -> None:
    """Do what a machine of this lab needs at each start but does not do itself."""
    operations.apply(
        host,
        operations.together(
            clones.identity(lab, name),
            addressing.names(lab.profile),
            operations.modules(kubeadm.MODULES),
            operations.sysctls(kubeadm.SYSCTLS),
        ),
    )
