"""Stopping and starting a lab: its machines keep their addresses and everything on their disks."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from stackbook.app import readiness
from stackbook.app.snapshots.store import Store
from stackbook.app.supervision import only_run
from stackbook.cluster import early_pods, flannel, kubeadm
from stackbook.config import chapters
from stackbook.config.profile import ChapterParameters, Profile
from stackbook.core.errors import InputError, StackbookError
from stackbook.core.names import profile_names
from stackbook.lab.lab import Lab
from stackbook.lessons.machines import addressing, clones
from stackbook.machines import operations
from stackbook.machines.providers import power
from stackbook.machines.providers.base import Say
from stackbook.machines.providers.podman import Embedded
from stackbook.machines.transports import Host

READY_SECONDS = 180.0
"""The deadline for everything to be Ready; measured: see the README."""


def word(profile: Profile, *command: str) -> str:
    """A command of stackbook for this profile, as a reader types it."""
    named = [] if profile.name == "embedded" or profile.name not in profile_names() else ["--profile", profile.name]
    return " ".join(["stackbook", *command, *named])


def demand_own(profile: Profile, what: str) -> Embedded:
    """The provider of a lab whose machines stackbook created.

    Raises:
        InputError: stackbook did not create the machines, or there are none.
    """
    if profile.target != "embedded":
        raise InputError(
            f"{what} works only on machines that stackbook created; it did not create those of target {profile.target!r}",
            fix="use a profile with target embedded",
        )
    provider = Embedded(profile)
    there = provider.containers()
    if not any(provider.container(node.name) in there for node in profile.nodes):
        raise InputError(f"there is no lab {profile.lab!r} on this host", fix=word(profile, "run"))
    return provider


def is_stopped(provider: Embedded) -> bool:
    """Whether all machines of the profile exist, and none of them runs."""
    there = provider.containers()
    names = [provider.container(node.name) for node in provider.profile.nodes]
    return all(name in there for name in names) and not power.running(provider)


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
        count = power.stop(provider, say=say)
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
        provider.demand_names()
        there = provider.containers()
        names = [node.name for node in profile.nodes]
        if missing := [name for name in names if provider.container(name) not in there]:
            raise InputError(f"the machine {missing[0]} was never created", fix=word(profile, "run"))
        wake(profile, say=say)


def wake_if_stopped(profile: Profile, *, say: Say) -> None:
    """Start a stopped lab before a run's chapters; the chapters handle what is not Ready."""
    if profile.target == "embedded" and is_stopped(Embedded(profile)):
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
    provider = Embedded(profile)
    states = provider.containers()
    asleep = [
        node.name for node in profile.nodes if states.get(provider.container(node.name)) not in ("running", "paused")
    ]
    provider.provision(say=say)
    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(lambda pair: _settle(lab, *pair), provider.machines().items()))
    what = f"{len(profile.nodes)} machines run"
    if lab.kubeconfig.exists():
        say("waiting for nodes and pods")
        count = ready_again(lab, asleep, began)
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
