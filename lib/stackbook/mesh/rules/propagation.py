"""Waiting until istiod reports that the proxies have a changed rule.

istiod's /debug/configz lists the objects that it has read; /debug/syncz lists for each proxy what was sent, what was
acknowledged, and the error with which the proxy rejected it. A nonce there is the number of the push and a UUID
(istio.io/istio pilot/pkg/xds, `NextVersion` and `nonce`), which identifies a push.
(Istio no longer has `istioctl experimental wait` and its distribution tracking.)

Not every push after a change contains it: a push for an earlier change may still be under way. Therefore stackbook polls istiod,
starting before the change, and `push_contexts` says from which push on the change is in it.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from stackbook.config.namespaces import here
from stackbook.core.errors import CheckFailed
from stackbook.core.waiting import beside, until
from stackbook.mesh.rules import push_contexts
from stackbook.mesh.rules.builders import Rule
from stackbook.mesh.rules.istiod_debug import NAMESPACE as ROOT
from stackbook.mesh.rules.istiod_debug import Ask, HasApi, connect

_UUID = 36
_EVERY = 0.03
PROPAGATION_SECONDS = 60.0
"""How long the proxies may take to have a rule: on an idle machine they take well below a second, on a busy one up to half a minute."""
Key = tuple[str, str, str]
"""Kind, namespace and name of a rule."""


class Mesh(HasApi, Protocol):
    """The part of `cluster.Kube` that this module needs."""

    def json(self, *args: str, timeout: float = 60.0) -> Any:
        """The answer of a kubectl command, as JSON."""


@dataclass(frozen=True)
class Proxy:
    """What an istiod reports about one proxy: `push` is the newest push sent to it, `pending` the types not acknowledged."""

    name: str
    namespace: str
    kind: str
    push: int
    pending: tuple[str, ...]
    rejected: str
    istiod: str = ""

    @property
    def state(self) -> str:
        """What the proxy has not acknowledged or has rejected, in words."""
        if self.rejected:
            return f"{self.name} rejects it: {self.rejected}"
        return f"{self.name}: push {self.push}, not acknowledged: {', '.join(self.pending) or 'nothing'}"


def push_number(nonce: str) -> int:
    """The number of the push that a nonce belongs to; 0 if it has none.

    >>> push_number("2026-11-23T03:45:00Z/17" + "1f0c5e3a-8d1b-4c53-9d42-6a1f0b7c9e11")
    17
    """
    number = nonce[:-_UUID].rpartition("/")[2]
    return int(number) if number.isdecimal() else 0


def parse_syncz(text: str) -> dict[str, Proxy]:
    """The proxies in an answer of /debug/syncz, by id ("reviews-v1-7d5f-x.default").

    A client to which nothing was sent is not a proxy: the list also contains istioctl's own queries.

    Raises:
        CheckFailed: the answer has an unexpected form.
    """
    with _of_its_form("/debug/syncz"):
        return {entry["proxy"]: proxy for entry in json.loads(text) or [] if (proxy := _proxy(entry))}


def _proxy(entry: Mapping[str, Any]) -> Proxy | None:
    name, _, namespace = entry["proxy"].rpartition(".")
    resources: Mapping[str, Mapping[str, str]] = entry.get("resources", {})
    sent = {url.rpartition(".")[2]: status for url, status in resources.items() if status.get("sent")}
    if not sent:
        return None
    errors = [f"{kind}: {status['lastError']}" for kind, status in sorted(sent.items()) if status.get("lastError")]
    return Proxy(
        name=name,
        namespace=namespace,
        kind=entry.get("proxy_type", ""),
        push=max((push_number(status["sent"]) for status in sent.values()), default=0),
        pending=tuple(sorted(kind for kind, s in sent.items() if s.get("acked", "") != s["sent"])),
        rejected="; ".join(errors)[:600],
    )


@contextmanager
def _of_its_form(path: str) -> Iterator[None]:
    """Raise an error that names the answer of istiod that has an unexpected form."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise CheckFailed(f"istiod's answer to {path} cannot be read: {type(error).__name__}: {error}") from error


def proxies(kube: HasApi) -> dict[str, Proxy]:
    """Every proxy that is connected to an istiod, by id."""
    with connect(kube) as istiods:
        return _connected(istiods)


def _connected(istiods: Mapping[str, Ask]) -> dict[str, Proxy]:
    return {
        id: replace(proxy, istiod=name)
        for name, ask in istiods.items()
        for id, proxy in parse_syncz(ask("/debug/syncz")).items()
    }


def concerned(rules: Sequence[Rule], known: Mapping[str, Proxy]) -> set[str]:
    """The ids of the proxies that istiod must send these rules to.

    Sidecars of the rules' namespaces, unless a rule is for gateways only; gateways if a rule names one. A `Sidecar`
    object affects only the pods that it selects, and narrows what others need: it requires no proxy here.
    A `Telemetry` in Istio's own namespace applies to the whole mesh.
    """
    wanted: set[str] = set()
    for rule in rules:
        gateways = rule["spec"].get("gateways", []) if rule["kind"] == "VirtualService" else []
        namespace = rule["metadata"].get("namespace", here().workloads)
        if rule["kind"] == "Telemetry" and namespace == ROOT:
            wanted |= set(known)
        if rule["kind"] not in ("Gateway", "Sidecar") and (not gateways or "mesh" in gateways):
            wanted |= {id for id, p in known.items() if p.kind == "sidecar" and p.namespace == namespace}
        if rule["kind"] == "Gateway" or any(name != "mesh" for name in gateways):
            wanted |= {id for id, p in known.items() if p.kind == "router" and _is_ours(p)}
    return wanted


def _is_ours(gateway: Proxy) -> bool:
    """Whether a gateway may get this lab's rules: on an existing cluster, only the learner's own gateways do."""
    return not here().learner or gateway.namespace == here().gateways


def identities(kube: Mesh, rules: Sequence[Rule]) -> dict[Key, str]:
    """Which of these rules exist, and in which state: uid and generation, which counts the changes of the spec.

    Not the resourceVersion: istiod itself writes an object's status, which causes no push.
    """
    found: dict[Key, str] = {}
    for kind, namespace in sorted({(r["kind"], r["metadata"].get("namespace", here().workloads)) for r in rules}):
        names = {r["metadata"]["name"] for r in rules if r["kind"] == kind}
        resource = f"{kind.lower()}.{rules_group(rules, kind)}"
        for item in kube.json("get", resource, "-n", namespace)["items"]:
            if item["metadata"]["name"] in names:
                found[kind, namespace, item["metadata"]["name"]] = _identity(item)
    return found


def _identity(item: Mapping[str, Any]) -> str:
    return f"{item['metadata'].get('uid', '')}/{item['metadata'].get('generation', 0)}"


def rules_group(rules: Sequence[Rule], kind: str) -> str:
    """The API group of a kind."""
    return str(next(r["apiVersion"] for r in rules if r["kind"] == kind).partition("/")[0])


@dataclass(frozen=True)
class Answers:
    """What one istiod answered in one poll.

    Attributes:
        read: the rules that it has read, in the form of `identities`.
        proxies: its proxies, by id.
        asked, answered: when it was asked for the rules, and when the answer was there (monotonic time in seconds).
        counted: when it was asked for its push contexts.
        contexts: what it answered.
    """

    read: Mapping[Key, str]
    proxies: Mapping[str, Proxy]
    asked: float
    answered: float
    counted: float
    contexts: push_contexts.Contexts | None

    def sight(self, rules: Mapping[Key, str]) -> push_contexts.Sight:
        """Its part in finding out which pushes contain these rules."""
        newest = max((proxy.push for proxy in self.proxies.values()), default=0)
        return push_contexts.Sight(self.asked, self.answered, self.read == rules, newest, self.counted, self.contexts)


Look = Mapping[str, Answers]
"""The answers of each istiod in one poll, by name."""


def _look(istiods: Mapping[str, Ask], keys: set[Key]) -> Look:
    return {name: _answers(name, ask, keys) for name, ask in istiods.items()}


def _answers(name: str, ask: Ask, keys: set[Key]) -> Answers:
    asked = time.monotonic()
    read = _read_by(ask("/debug/configz"), keys)
    answered = time.monotonic()
    known = _connected({name: ask})
    return Answers(read, known, asked, answered, time.monotonic(), push_contexts.finished(ask))


def _proxies(look: Look) -> dict[str, Proxy]:
    return {id: proxy for answers in look.values() for id, proxy in answers.proxies.items()}


def _read_by(configz: str, keys: set[Key]) -> dict[Key, str]:
    found = {}
    with _of_its_form("/debug/configz"):
        for item in json.loads(configz) or []:
            key = (item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"])
            if key in keys:
                found[key] = _identity(item)
    return found


@contextmanager
def _looking(istiods: Mapping[str, Ask], keys: set[Key]) -> Iterator[Callable[[], list[Look]]]:
    """Poll the istiods while the block runs; its value is a function that returns the looks so far, the first from before the block."""
    looks = [_look(istiods, keys)]
    errors: list[Exception] = []

    def work(ended: threading.Event) -> None:
        pause = _EVERY
        try:
            while not ended.wait(pause):
                start = time.monotonic()
                looks.append(_look(istiods, keys))
                pause = max(_EVERY, time.monotonic() - start)  # a busy istiod is left alone half of the time
        except Exception as error:  # raised when the caller asks for the looks
            errors.append(error)

    def so_far() -> list[Look]:
        if errors:
            raise errors[0]
        return list(looks)

    with beside(work, name="propagation", timeout=60):
        yield so_far


def propagate(
    kube: Mesh,
    change: Callable[[], int],
    rules: Sequence[Rule],
    *,
    timeout: float = PROPAGATION_SECONDS,
    only: Sequence[str] = (),
) -> float:
    """Change rules and wait until the proxies have the change; returns the seconds that this took.

    Args:
        kube: the cluster.
        change: applies or deletes the rules; returns how many objects changed. After 0, there is no wait.
        rules: the objects that it changes.
        timeout: deadline in seconds.
        only: wait only for pods whose names begin with one of these, if istiod does not send the rules to every proxy.

    Raises:
        CheckFailed: a proxy rejects what it was sent; the error quotes istiod.
        WaitTimeout: istiod has not read the rules, or did not send them to a proxy, or a proxy has not acknowledged them; the
            error says which.
    """
    keys = {(r["kind"], r["metadata"].get("namespace", here().workloads), r["metadata"]["name"]) for r in rules}
    with connect(kube) as istiods, _looking(istiods, keys) as so_far:
        first = _proxies(so_far()[0])
        wanted = {id for id in concerned(rules, first) if not only or first[id].name.startswith(tuple(only))}
        start = time.monotonic()
        if not change():
            return 0.0
        seen: list[str] = []

        def done() -> bool:
            seen[:] = missing(so_far(), identities(kube, rules), wanted)
            return not seen

        until(
            done,
            what="the proxies to have the changed rules",
            timeout=timeout,
            every=_EVERY,
            last=lambda: "; ".join(seen),
        )
        return time.monotonic() - start


def missing(looks: Sequence[Look], rules: Mapping[Key, str], wanted: set[str]) -> list[str]:
    """What is still missing before the proxies have a change, one line each; empty when they have it.

    Args:
        looks: at the istiods in order of time, the first one before the change.
        rules: the changed rules, as they are now; see `identities`.
        wanted: ids of the proxies that need them; if there are none, any one proxy is enough.

    Raises:
        CheckFailed: a proxy that needs the rules rejects what it was sent. istiod keeps a rejection until the proxy
            accepts something newer: one from before the change does not count. Nor does one of a proxy that these rules
            do not concern: another user of the cluster may have applied what it rejects.
    """
    first, now = _proxies(looks[0]), looks[-1]
    unread = [name for name, answers in now.items() if answers.read != rules]
    if unread:
        return [f"{name} has not read the rules yet" for name in unread]
    if all(look[name].read == answers.read for look in looks for name, answers in now.items()):
        return []  # nothing in it was new to istiod
    needed = {name: push_contexts.needed([look[name].sight(rules) for look in looks]) for name in now}
    late = {}
    for id, proxy in _proxies(now).items():
        arrived = needed[proxy.istiod].arrived(proxy.push)
        rejects = proxy.rejected not in ("", first[id].rejected if id in first else "")
        if rejects and arrived and (id in wanted or not wanted):
            raise CheckFailed(f"a proxy rejected the rules: {proxy.state}", fix="see `istioctl analyze`")
        if not arrived or proxy.pending:
            late[id] = proxy.state
    if not wanted:
        return ["istiod has not sent anything to a proxy"] if len(late) == len(_proxies(now)) else []
    return [late[id] for id in sorted(wanted & set(late))]
