"""The lab to which a notebook is bound, as its profile describes it."""

from __future__ import annotations

import atexit
import contextlib
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from stackbook.analysis import display
from stackbook.cluster import kubeadm
from stackbook.cluster.ingress import ingress_url
from stackbook.cluster.kube import Kube
from stackbook.cluster.kubeconfig import EXISTING, existing, write_kubeconfig
from stackbook.config import chapters, proxies
from stackbook.config.chapter_parameters import CHAPTER_PARAMETERS
from stackbook.config.namespaces import Namespaces
from stackbook.config.profile import ChapterParameters, Profile, validate
from stackbook.config.registries import proxy_file
from stackbook.core import observed, paths
from stackbook.core.errors import CheckFailed
from stackbook.core.results import Result
from stackbook.lab import attempt, learner, pages, proofs, turns, typed_kubectl
from stackbook.lab import claims as claimed
from stackbook.lab import step as steps
from stackbook.lab.images import LabImages
from stackbook.machines import operations
from stackbook.machines.each import on_each
from stackbook.machines.providers import Provider, for_profile
from stackbook.machines.transports import Host, LocalHost

if TYPE_CHECKING:
    from stackbook.artifacts.resolver import Resolver


class Check(Protocol):
    """A check of one thing that a chapter leaves."""

    @property
    def id(self) -> str:
        """Its name among the chapter's checks."""

    @property
    def claim(self) -> str:
        """The claim, in words."""

    def prove(self, lab: Lab) -> str:
        """Evidence that the claim holds; raises StackbookError if it does not."""


ChecksOf = Callable[[str], Sequence[Check]]
_WAITED = "waited_for_components"


class Lab:
    """A lab, seen from one chapter.

    Args:
        chapter: the chapter.
        profile: the lab's profile.
        parameters: the chapter's parameters.
        checks: returns the checks of what a chapter leaves. `app` passes them, because they import from every room.
        challenges: returns the challenge with an id; passed for the same reason.
    """

    def __init__(
        self, chapter: chapters.Chapter, profile: Profile, parameters: ChapterParameters, *, checks: ChecksOf | None = None,
        challenges: attempt.Find | None = None,
    ) -> None:  # fmt: skip
        self.chapter, self.profile, self.parameters = chapter, profile, parameters
        self._checks, self._challenges = checks, challenges
        proxies.spare(profile)
        folder = os.environ.get("STACKBOOK_RUN")
        self.record = steps.Record((Path(folder) if folder else self.state / "interactive") / "events.jsonl")
        self._observers: list[steps.Step] = []
        self._waited: dict[str, float] = {}  # between two steps, for components: component → seconds
        self._sharing = 0

    @classmethod
    def open(
        cls, chapter: str, profile: str | Path = "embedded", *, checks: ChecksOf | None = None,
        challenges: attempt.Find | None = None, **parameters: Any,
    ) -> Lab:  # fmt: skip
        """Open the lab of a profile for a chapter; see `session.bind`."""
        found = next((c for c in chapters.ALL if chapter in (c.id, c.name)), None) or chapters.find(chapter)
        loaded = Profile.load(profile)
        schema = CHAPTER_PARAMETERS.get(found.id, ChapterParameters)
        given = {**loaded.chapters.get(found.id, loaded.chapters.get(found.name, {})), **parameters}
        known = validate(schema, given, where=f"chapter {found.id}")
        return cls(found, loaded, known, checks=checks, challenges=challenges)

    def describe(self) -> str:
        """The target in one line."""
        if self.profile.target == "cluster":
            found = existing(self.profile.kubeconfig, self.profile.context)
            return f"{self.chapter.id} on an existing cluster: {found}, namespace {self.namespace}"
        nodes = ", ".join(f"{n.name} {n.address}" for n in self.profile.nodes)
        return f"{self.chapter.id} on {self.profile.target} machines: {nodes}"

    # the parts

    @cached_property
    def state(self) -> Path:
        """The folder of this lab's state."""
        return paths.state(self.profile.lab)

    @cached_property
    def provider(self) -> Provider:
        """The provider of the machines."""
        return for_profile(self.profile)

    @cached_property
    def artifacts(self) -> Resolver:
        """The components of the lab."""
        from stackbook.artifacts.resolver import Resolver

        return Resolver.open(
            source=self.profile.source,
            progress=self.progress,
            versions=self.profile.versions,
            waited=self._waited_for,
            strict=self.profile.strict,
        )

    def _waited_for(self, names: Sequence[str], seconds: float) -> None:
        """Add the components for which the step waited, and the seconds, to its evidence; between two steps, to the next one's."""
        waited = self._observers[-1].evidence.setdefault(_WAITED, {}) if self._observers else self._waited
        waited[", ".join(names)] = round(seconds, 1)

    def progress(self, text: str) -> None:
        """Add a line of progress to the record."""
        self.record.append("progress", chapter=self.chapter.id, text=str(text))

    @property
    def machines(self) -> dict[str, Host]:
        """The machines by name, the control plane first.

        Raises:
            CheckFailed: a machine of the profile is not running.
        """
        found = self.provider.machines()
        wanted = [n.name for n in self.profile.nodes] if self.profile.target != "cluster" else []
        if gone := [name for name in wanted if name not in found]:
            raise CheckFailed(
                f"machines not running: {', '.join(gone)}",
                fix="stackbook start; if they were never created, stackbook run --only 01",
            )
        for host in found.values():
            if self._observe not in host.observers:  # type: ignore[attr-defined]
                host.observers.append(self._observe)  # type: ignore[attr-defined]
        return found

    @property
    def control_plane(self) -> Host:
        """The machine of the control plane."""
        return self.machines[self.profile.control_plane.name]

    @property
    def workers(self) -> dict[str, Host]:
        """The other machines."""
        return {name: host for name, host in self.machines.items() if name != self.profile.control_plane.name}

    @cached_property
    def local(self) -> LocalHost:
        """This host."""
        return LocalHost(name=observed.HERE, observers=[self._observe])

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig of the lab's cluster; for an existing cluster, a copy with only the profile's context and namespace."""
        if self.profile.target == "cluster":
            path = self.state / EXISTING
            found = existing(self.profile.kubeconfig, self.profile.context, namespace=self.namespace)
            write_kubeconfig(found.text, path)
            return path
        return self.state / "kubeconfig"

    @property
    def namespaces(self) -> Namespaces:
        """Where the chapters' workloads go."""
        return self.profile.namespaces

    @property
    def namespace(self) -> str:
        """The namespace of bookinfo and of what sends it requests."""
        return self.profile.namespaces.workloads

    @cached_property
    def kube(self) -> Kube:
        """The lab's cluster."""
        return Kube(
            self.kubeconfig, self.artifacts.path("kubectl"), observers=[self._observe], namespace=self.namespace
        )

    def istioctl(self, *args: str, check: bool = True, timeout: float = 120.0, stdin: str | None = None) -> Result:
        """Run the lab's istioctl against the lab's cluster."""
        argv = [str(self.artifacts.path("istioctl")), *args]
        return self.local.run(argv, check=check, timeout=timeout, stdin=stdin, env=self.kube.environment)

    def _observe(self, result: Result) -> None:
        for current in self._observers[-1:]:
            current.observe(result)

    @cached_property
    def images(self) -> LabImages:
        """The lab's images."""
        return LabImages(self)

    @property
    def runtime(self) -> operations.Operation:
        """The operation that configures containerd for this lab."""
        spared = proxy_file(os.environ, proxies.inside(self.profile))
        return kubeadm.runtime(
            self.images.kubeadm.pause, contained=self.contained, registries=self.images.registries, proxies=spared
        )

    @property
    def cgroup_v1(self) -> bool:
        """Whether the machines use cgroup v1."""
        from stackbook.machines import facts

        return facts.CGROUP.read(self.control_plane) != "cgroup2fs"

    @cached_property
    def contained(self) -> bool:
        """Whether the machines are containers: created by stackbook, or according to systemd-detect-virt."""
        from stackbook.machines import facts

        if self.profile.target != "ssh":
            return self.profile.target == "embedded"
        return any(facts.CONTAINER.read(host) for host in self.machines.values())

    @property
    def ingress(self) -> str:
        """The URL of the ingress gateway, without a path: its NodePort on a machine, or its external address."""
        return ingress_url(self.kube, self.namespaces.gateways)

    # steps

    @contextlib.contextmanager
    def step(self, id: str, title: str, *, alone: bool = True) -> Iterator[steps.Step]:
        """Run a block as a step of this chapter; see `stackbook.lab.step.step`.

        Within `by_turns`, for example while the chapter uses the test bed, each step waits for the lab's turn. A step with
        `alone=False` does not wait, because it does not depend on what others do with bookinfo.
        """
        with steps.step(id, title, chapter=self.chapter.id, record=self.record) as current:
            if self._waited:
                current.evidence[_WAITED], self._waited = self._waited, {}
            with self._recorded(current), self.turn(id) if self._sharing and alone else contextlib.nullcontext():
                yield current

    @contextlib.contextmanager
    def _recorded(self, current: steps.Step) -> Iterator[None]:
        """While the block runs, a step gets what the machines, the cluster and programs of this host are asked."""
        self._observers.append(current)
        try:
            with observed.watching(current.observe):
                yield
        finally:
            self._observers.remove(current)

    def claims(self, id: str) -> contextlib.AbstractContextManager[claimed.Claims]:
        """Check what this chapter claims of a step that has ended; see `stackbook.lab.claims.claims`."""
        return claimed.claims(id, chapter=self.chapter.id, record=self.record)

    @contextlib.contextmanager
    def by_turns(self) -> Iterator[None]:
        """While the block runs, each step of this chapter takes the lab's turn, because it uses or changes what others use."""
        self._sharing += 1
        try:
            yield
        finally:
            self._sharing -= 1

    @contextlib.contextmanager
    def turn(self, what: str, *, of: str = turns.BOOKINFO) -> Iterator[None]:
        """Reserve bookinfo, its rules and its traces for this process while the block runs; see `stackbook.lab.turns`.

        Args:
            what: the purpose, in a word or two.
            of: another thing that the lab has only once, such as Prometheus.

        Raises:
            WaitTimeout: other processes held the turn until the deadline.
        """
        current = self._observers[-1] if self._observers else None
        say = current.progress if current else None
        with turns.turn(self.state, f"{self.chapter.id}, {what}", of=of, say=say) as waited:
            if current and waited > 0.1:
                current.note(seconds_until_its_turn=round(waited, 3))
            yield

    @contextlib.contextmanager
    def _between(self, id: str, title: str) -> Iterator[None]:
        """Record the commands of a block between two steps; those within a step belong to the step."""
        if self._observers:
            yield
            return
        with steps.between(id, title, chapter=self.chapter.id, record=self.record) as current, self._recorded(current):
            yield

    def enter(self, scope: contextlib.AbstractContextManager[Any]) -> contextlib.ExitStack:
        """Enter a context that lasts for several cells, until `leave` or the end of the kernel."""
        stack = contextlib.ExitStack()
        with self._between("enter", "what several steps need is made"):
            stack.enter_context(scope)
        atexit.register(stack.close)
        return stack

    def leave(self, stack: contextlib.ExitStack, what: str = "what this chapter made") -> None:
        """Leave a context that `enter` has entered; `what` is taken away with it, in a few words."""
        atexit.unregister(stack.close)
        with self._between("leave", f"{what} is taken away"):
            stack.close()
        print(f"✓ {what} is taken away")

    def apply(self, host: Host, operation: operations.Operation, step: steps.Step) -> list[operations.Command]:
        """Run the commands of an operation that a machine still needs, as part of a step."""
        return operations.apply(host, operation, step=step)

    def apply_to_all(self, operation: operations.Operation, step: steps.Step) -> None:
        """Run the commands of an operation that the machines still need, on several at once, as part of a step."""
        done = on_each(self.machines, lambda name, host: len(operations.apply(host, operation)))
        step.changed += sum(done.values())

    # checks

    def checks_of(self, chapter: str) -> Sequence[Check]:
        """The checks of what a chapter leaves; the lab must come from `session.bind` or `session.opened`."""
        assert self._checks, "this lab was opened without checks: use session.bind or session.opened"
        return self._checks(chapter)

    def preconditions(self) -> None:
        """Prove that earlier chapters have left what this one needs; see `proofs.preconditions`."""
        # Within somebody's turn it belongs to a chapter that is at work, which ends it.
        if (open := attempt.open_on(self)) and not turns.taken(self.state):
            print(
                f"– the challenge {open} is open on this lab: end it first, or steps may fail (stackbook challenge end)"
            )
        proofs.preconditions(self)

    def postconditions(self) -> None:
        """Prove what this chapter leaves, and show it as a table; see `proofs.postconditions`."""
        proofs.postconditions(self)
        learner.note(self.state, "finished", self.chapter.id)

    def challenge(self, id: str, *, seed: str = "") -> attempt.Attempt:
        """Begin a challenge on this lab, or continue it if it is open; see `attempt.begin`.

        Args:
            id: the chapter's number and a letter, like "06-b".
            seed: decides what is drawn, together with the lab's name. If empty, the draw differs from lab to lab.

        Raises:
            InputError: there is no such challenge, or a chapter that it needs has not run.
        """
        assert self._challenges, "this lab was opened without challenges: use session.bind or session.opened"
        return attempt.begin(self, self._challenges, id, seed)

    def instance(self) -> str:
        """An id that distinguishes this lab from a later lab with the same name."""
        marker = self.state / "instance"
        return marker.read_text(encoding="utf-8").strip() if marker.exists() else ""

    def provision(self) -> int:
        """Create and start the machines that are missing; returns the number of changes."""
        changed = self.provider.provision(say=self.progress)
        marker = self.state / "instance"
        if not marker.exists():
            marker.write_text(f"{uuid.uuid4()}\n", encoding="utf-8")
        return changed

    # pages

    def errata(self) -> None:
        """Show where the guide is wrong or outdated, for the ids that this chapter's cells name."""
        if rows := pages.errata(self.chapter):
            display.table(rows)
        else:
            print("✓ everything the guide says here still holds")

    def kubectl(self, text: str, *, timeout: float = 60.0) -> None:
        """Show a kubectl command on the page with its real output; see `stackbook.lab.typed_kubectl`."""
        typed_kubectl.kubectl(self.kube, text, timeout=timeout)

    def show(self, rows: Any, caption: str = "") -> None:
        """Show rows as a table."""
        display.table(rows, caption)

    def figure(self, fig: Any, *, alt: str) -> None:
        """Show a plot with its alternative text."""
        display.figure(fig, alt)
