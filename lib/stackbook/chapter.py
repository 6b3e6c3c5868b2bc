"""What a notebook binds to: the lab, as its profile describes it."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackbook import chapters, display, kubeadm, operations, paths, turns
from stackbook import step as steps
from stackbook.chapter_parameters import CHAPTER_PARAMETERS
from stackbook.cluster import Kube, existing_kubeconfig
from stackbook.errors import CheckFailed, InputError, StackbookError
from stackbook.hosts import Host, LocalHost, Result
from stackbook.parameters import ChapterParameters, Profile, validate
from stackbook.providers import Provider, for_profile

if TYPE_CHECKING:
    from stackbook.artifacts.resolver import Resolver


def bind(chapter: str, profile: str = "embedded", **parameters: Any) -> Lab:
    """Bind a notebook to its lab, validate its parameters, and say what the target is. Nothing is changed.

    Raises:
        InputError: something in the profile or in the parameters is wrong.
    """
    lab = Lab.open(chapter, profile, **parameters)
    display.style_plots()
    print(lab.describe())
    return lab


class Lab:
    """A lab, seen from one chapter."""

    def __init__(self, chapter: chapters.Chapter, profile: Profile, parameters: ChapterParameters) -> None:
        self.chapter, self.profile, self.parameters = chapter, profile, parameters
        folder = os.environ.get("STACKBOOK_RUN")
        self.record = steps.Record((Path(folder) if folder else self.state / "interactive") / "events.jsonl")
        self._observers: list[steps.Step] = []
        self._sharing = 0

    @classmethod
    def open(cls, chapter: str, profile: str | Path = "embedded", **parameters: Any) -> Lab:
        """The lab of a profile, for a chapter; see `bind`."""
        found = next((c for c in chapters.ALL if chapter in (c.id, c.name)), None) or chapters.find(chapter)
        loaded = Profile.load(profile)
        schema = CHAPTER_PARAMETERS.get(found.id, ChapterParameters)
        given = {**loaded.chapters.get(found.id, loaded.chapters.get(found.name, {})), **parameters}
        return cls(found, loaded, validate(schema, given, where=f"chapter {found.id}"))

    def describe(self) -> str:
        """The target in one line."""
        if self.profile.target == "cluster":
            return f"{self.chapter.id} on an existing cluster"
        nodes = ", ".join(f"{n.name} {n.address}" for n in self.profile.nodes)
        return f"{self.chapter.id} on {self.profile.target} machines: {nodes}"

    # the parts

    @cached_property
    def state(self) -> Path:
        """The folder of this lab's state."""
        return paths.state(self.profile.lab)

    @cached_property
    def provider(self) -> Provider:
        """Where the machines come from."""
        return for_profile(self.profile)

    @cached_property
    def artifacts(self) -> Resolver:
        """The components of the lab."""
        from stackbook.artifacts.resolver import Resolver

        versions = {"kubernetes": self.profile.kubernetes_version}
        return Resolver.open(
            source=self.profile.source, progress=self._progress, versions=versions, waited=self._waited_for
        )

    def _waited_for(self, names: Sequence[str], seconds: float) -> None:
        """Keep in the step's record which components it waited for, and how many seconds."""
        if self._observers:
            waited = self._observers[-1].evidence.setdefault("waited_for_components", {})
            waited[", ".join(names)] = round(seconds, 1)

    def _progress(self, text: str) -> None:
        self.record.append("progress", chapter=self.chapter.id, text=str(text))

    @property
    def machines(self) -> dict[str, Host]:
        """The machines by name, the control plane first.

        Raises:
            CheckFailed: one of the profile's is not running.
        """
        found = self.provider.machines()
        wanted = [n.name for n in self.profile.nodes] if self.profile.target != "cluster" else []
        if gone := [name for name in wanted if name not in found]:
            raise CheckFailed(f"machines not running: {', '.join(gone)}", fix="run chapter 01: stackbook run --only 01")
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
        return LocalHost(name="this host", observers=[self._observe])

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig of the lab's cluster."""
        if self.profile.target == "cluster":
            return existing_kubeconfig(self.profile.kubeconfig)
        return self.state / "kubeconfig"

    @cached_property
    def kube(self) -> Kube:
        """The lab's cluster."""
        return Kube(self.kubeconfig, self.artifacts.path("kubectl"), observers=[self._observe])

    def istioctl(self, *args: str, check: bool = True, timeout: float = 120.0, stdin: str | None = None) -> Result:
        """Run the lab's istioctl against the lab's cluster."""
        host = LocalHost(name="istioctl", observers=[self._observe])
        argv = [str(self.artifacts.path("istioctl")), *args]
        return host.run(argv, check=check, timeout=timeout, stdin=stdin, env=self.kube.environment)

    def _observe(self, result: Result) -> None:
        for current in self._observers[-1:]:
            current.observe(result)

    # images

    @cached_property
    def preloads(self) -> bool:
        """Whether images are imported into the machines, as no registry can be asked. Decided once for a lab."""
        if self.profile.target == "cluster" or self.profile.images == "pull":
            return False
        if self.profile.images == "preload":
            return True
        memory = self.state / "images.json"
        if memory.exists():
            return bool(json.loads(memory.read_text(encoding="utf-8"))["preload"])
        reached = self.local.run(
            ["curl", "-sS", "-o", "/dev/null", "-m", "4", "https://registry.k8s.io/v2/"], check=False
        )
        memory.write_text(json.dumps({"preload": not reached.ok}), encoding="utf-8")
        return not reached.ok

    def image(self, name: str) -> str:
        """The reference of an image: the lab's own build where images are preloaded, else the official one."""
        image = self.artifacts.catalogue.image(name)
        return image.reference if self.preloads else image.official

    @property
    def images(self) -> kubeadm.Images:
        """Where kubeadm's images come from."""
        if not self.preloads:
            return kubeadm.Images(repository=self.profile.image_repository or "registry.k8s.io")
        reference = {name: self.artifacts.image_reference(name) for name in ("pause", "etcd", "coredns")}
        return kubeadm.Images(
            repository=reference["pause"].rpartition("/")[0],
            preloaded=True,
            pause=reference["pause"],
            etcd_tag=reference["etcd"].rpartition(":")[2],
            dns_tag=reference["coredns"].rpartition(":")[2],
        )

    def load_images(self, bundle: str, *, on: Sequence[str] | None = None, step: steps.Step | None = None) -> int:
        """Import a bundle of images into machines that lack any of them; returns how many machines were changed.

        Args:
            bundle: name of the bundle in the catalogue.
            on: names of machines; all when None.
            step: the step that this counts for.
        """
        if not self.preloads:
            return 0
        from stackbook.images import load

        wanted = {name: host for name, host in self.machines.items() if on is None or name in on}
        changed = load(wanted, self.artifacts.bundle(bundle).archive)
        if step:
            step.changed += changed
        return changed

    def preload(self, bundle: str, *, on: Sequence[str] | None = None) -> None:
        """Begin to import a bundle in the background, if it is in the cache; `load_images` waits for its end."""
        from stackbook.images import begin

        cached = {entry.name for entry in self.artifacts.status() if entry.state == "cached"}
        if self.preloads and bundle in cached:
            wanted = {name: host for name, host in self.machines.items() if on is None or name in on}
            begin(wanted, self.artifacts.bundle(bundle).archive)

    @property
    def cgroup_v1(self) -> bool:
        """Whether the machines have the old cgroup hierarchy."""
        from stackbook import facts

        return facts.CGROUP.read(self.control_plane) != "cgroup2fs"

    @cached_property
    def contained(self) -> bool:
        """Whether the machines are containers: made here, or found to be such (systemd-detect-virt)."""
        from stackbook import facts

        if self.profile.target != "ssh":
            return self.profile.target == "embedded"
        return any(facts.CONTAINER.read(host) for host in self.machines.values())

    @property
    def ingress(self) -> str:
        """The URL of the ingress gateway, without a path: its NodePort on a machine, or its external address."""
        from stackbook.mesh import ingress_url

        return ingress_url(self.kube)

    # steps

    @contextlib.contextmanager
    def step(self, id: str, title: str, *, alone: bool = True) -> Iterator[steps.Step]:
        """Run a block as a step of this chapter; see `stackbook.step.step`.

        Within `by_turns`, as while the chapter has the bench, each step waits for the lab's turn; those that are not
        `alone` do not: it is all the same to them what others do with bookinfo.
        """
        with steps.step(id, title, chapter=self.chapter.id, record=self.record) as current:
            self._observers.append(current)
            try:
                with self.turn(id) if self._sharing and alone else contextlib.nullcontext():
                    yield current
            finally:
                self._observers.remove(current)

    @contextlib.contextmanager
    def by_turns(self) -> Iterator[None]:
        """While the block runs, each step of this chapter has the lab's turn: it uses, changes or restarts what others use."""
        self._sharing += 1
        try:
            yield
        finally:
            self._sharing -= 1

    @contextlib.contextmanager
    def turn(self, what: str, *, of: str = turns.BOOKINFO) -> Iterator[None]:
        """Have bookinfo, its rules and what its mesh traces for this process alone while the block runs; see `stackbook.turns`.

        Args:
            what: what for, in a word or two.
            of: something else that the lab has only once, such as Prometheus.

        Raises:
            WaitTimeout: another process had it all the time.
        """
        current = self._observers[-1] if self._observers else None
        say = current.progress if current else None
        with turns.turn(self.state, f"{self.chapter.id}, {what}", of=of, say=say) as waited:
            if current and waited > 0.1:
                current.note(seconds_until_its_turn=round(waited, 3))
            yield

    def enter(self, scope: contextlib.AbstractContextManager[Any]) -> contextlib.ExitStack:
        """Enter a context that lasts over several cells; `leave` ends it, and so does the end of the kernel."""
        stack = contextlib.ExitStack()
        stack.enter_context(scope)
        atexit.register(stack.close)
        return stack

    def leave(self, stack: contextlib.ExitStack) -> None:
        """End what `enter` began."""
        atexit.unregister(stack.close)
        stack.close()
        print("✓ what this chapter made is taken away")

    def apply(self, host: Host, operation: operations.Operation, step: steps.Step) -> list[operations.Command]:
        """Run what an operation still needs on a machine, as part of a step."""
        return operations.apply(host, operation, step=step)

    # checks

    def _undisturbed(self, what: str) -> contextlib.AbstractContextManager[None]:
        """The lab's turn, for a chapter that stands on the mesh."""
        return self.turn(what) if "05-istio" in self.chapter.needs else contextlib.nullcontext()

    def preconditions(self) -> None:
        """Prove that the chapters this one stands on have left what it needs.

        Raises:
            CheckFailed: the first thing missing, and the chapter to run.
        """
        from stackbook import checks

        with self._undisturbed("preconditions"):
            for needed in self.chapter.needs:
                for check in checks.of(needed):
                    try:
                        check.prove(self)
                    except StackbookError as error:
                        raise CheckFailed(
                            f"{self.chapter.id} cannot start: not so: {check.claim}: {error.message}",
                            fix=f"stackbook run --only {needed}",
                        ) from error
        self.record.append("preconditions", chapter=self.chapter.id, holds=True)
        print(
            f"✓ what {self.chapter.id} needs is there" if self.chapter.needs else f"✓ {self.chapter.id} needs nothing"
        )

    def postconditions(self) -> None:
        """Prove what this chapter leaves, and show it as a table.

        Raises:
            CheckFailed: something is not as the chapter promises.
        """
        from stackbook import checks

        rows = []
        with self._undisturbed("postconditions"):
            for check in checks.of(self.chapter.id):
                try:
                    evidence = check.prove(self)
                except StackbookError as error:
                    self.record.append("postcondition", chapter=self.chapter.id, claim=check.claim, holds=False)
                    raise CheckFailed(
                        f"{self.chapter.id} does not leave what it promises: {check.claim}: {error}"
                    ) from error
                self.record.append(
                    "postcondition", chapter=self.chapter.id, claim=check.claim, holds=True, evidence=evidence
                )
                rows.append({"after this chapter": check.claim, "holds": "✓"})
        if rows:
            display.table(rows)
        else:
            print(f"✓ {self.chapter.id} leaves nothing behind")

    def key(self) -> str:
        """What a proof of this chapter is valid for: its notebook, its parameters, the lab's, and this very lab."""
        book = json.loads(self.chapter.notebook.read_text(encoding="utf-8"))
        sources = ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code"]
        profile = self.profile.model_dump(exclude={"chapters", "name"}, mode="json")
        instance = self.instance() if self.chapter.needs else ""
        parts = [sources, profile, self.parameters.model_dump(mode="json"), instance]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def instance(self) -> str:
        """What tells this lab from one built later under the same name."""
        marker = self.state / "instance"
        return marker.read_text(encoding="utf-8").strip() if marker.exists() else ""

    def provision(self) -> int:
        """Make and start the machines that are missing; returns how many things were changed."""
        changed = self.provider.provision(say=self._progress)
        marker = self.state / "instance"
        if not marker.exists():
            marker.write_text(f"{uuid.uuid4()}\n", encoding="utf-8")
        return changed

    # pages

    def errata(self) -> None:
        """Show what the guide says wrongly or no longer rightly, of the ids that this chapter's cells name."""
        from stackbook.ledger import entries

        known = entries.load()
        book = json.loads(self.chapter.notebook.read_text(encoding="utf-8"))
        said = [c["metadata"].get("stackbook", []) for c in book["cells"]]
        ids = {i for item in said for part in (item if isinstance(item, list) else [item]) for i in part["ids"]}
        rows = [
            {"id": e.id, "the guide": e.text, "verdict": e.verdict, "today": e.correction}
            for e in known.values()
            if e.id in ids and e.verdict != "ok"
        ]
        if rows:
            display.table(rows)
        else:
            print("✓ everything the guide says here still holds")

    def show(self, rows: Any, caption: str = "") -> None:
        """Show rows as a table."""
        display.table(rows, caption)

    def figure(self, fig: Any, *, alt: str) -> None:
        """Show a plot with a text for those who cannot see it."""
        display.figure(fig, alt)


__all__ = ["InputError", "Lab", "bind"]
