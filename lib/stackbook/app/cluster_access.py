"""Can this user run the chapters on an existing cluster? It asks the API server, and changes nothing.

The questions are SelfSubjectAccessReviews, which every authenticated user may ask:
https://kubernetes.io/docs/reference/access-authn-authz/authorization/#checking-api-access
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from stackbook.app.cluster_rights import LEARNER, LOGS, Right, chapters_of, needed, quotas, used
from stackbook.app.requirement import Requirement
from stackbook.cluster import own_namespaces
from stackbook.cluster.kube import CREDENTIALS, Kube
from stackbook.cluster.kubeconfig import Existing, existing, write_kubeconfig
from stackbook.cluster.own_namespaces import ASK_ADMINISTRATOR, LABEL, MARK
from stackbook.config import namespaces
from stackbook.config.profile import Profile
from stackbook.core import temp_dirs
from stackbook.core.errors import StackbookError
from stackbook.core.redact import redact
from stackbook.mesh import learners_mesh

CHAPTERS = ("04", "05", "06", "07", "10", "11", "12")
"""The chapters that run on an existing cluster."""
_TIMEOUT = 10
_AT_ONCE = 4
_MESHED = {"05", "06", "07", "10", "11", "12"}


@dataclass(frozen=True)
class Question:
    """May this user use a verb on a resource?"""

    namespace: str
    verb: str
    right: Right
    resource: str

    @property
    def attributes(self) -> dict[str, str]:
        """The question's resourceAttributes."""
        plural, _, part = self.resource.partition("/")
        name = self.right.names[0] if self.right.names else ""
        found = {"namespace": self.namespace, "verb": self.verb, "group": self.right.group, "resource": plural}
        return {**found, "subresource": part, "name": name}

    def __str__(self) -> str:
        group = f".{self.right.group}" if self.right.group else ""
        plural, _, part = self.resource.partition("/")
        name = f" {self.right.names[0]}" if self.right.names else ""
        place = f" in namespace {self.namespace}" if self.namespace else ""
        return f"{self.verb} {plural}{group}{'/' + part if part else ''}{name}{place}"


def questions(profile: Profile, numbers: Sequence[str]) -> list[Question]:
    """What has to be asked for chapters, by their numbers."""
    asked = []
    for right in needed(numbers):
        own = {LEARNER: used(profile.namespaces, numbers), LOGS: [profile.namespaces.logging]}.get(
            right.where, [right.where]
        )
        asked += [Question(n, verb, right, r) for n in own for r in right.resources for verb in right.verbs]
    return asked


def examine(profile: Profile, numbers: Sequence[str] = CHAPTERS) -> list[Requirement]:
    """The requirements of chapters on the profile's cluster, each with what was found; stops at the first that is not met.

    Args:
        profile: the profile, with target: cluster.
        numbers: the chapters' numbers.
    """
    found: list[Requirement] = []
    try:
        which = existing(profile.kubeconfig, profile.context, namespace=profile.namespaces.workloads)
    except StackbookError as error:
        return [Requirement("kubeconfig", "must", False, error.message, error.fix)]
    found.append(Requirement("kubeconfig", "must", True, str(which), why="the cluster and the user"))
    numbers = [number for number in numbers if number in CHAPTERS]
    if not numbers:
        return found
    for requirement in _asked(profile, which, numbers):
        found.append(requirement)
        if not requirement.met:
            break
    return found


def _asked(profile: Profile, which: Existing, numbers: Sequence[str]) -> Iterator[Requirement]:
    path = temp_dirs.of_this_process(CREDENTIALS) / "examined.kubeconfig"
    write_kubeconfig(which.text, path)
    kube = Kube(path, namespace=profile.namespaces.workloads)
    asks: list[tuple[str, str, str, Callable[[], str]]] = [
        ("API server", f"{which.server} must answer, and know the user", "correct the kubeconfig, or renew the user's token",
         lambda: _unreached(kube)),
        ("namespaces", "the chapters use namespaces of their own", ASK_ADMINISTRATOR, lambda: _not_ours(kube, profile, numbers)),
        ("rights", "the least rights that the chapters need", ASK_ADMINISTRATOR, lambda: _missing(kube, which, profile, numbers)),
        ("quota", "bookinfo needs room", ASK_ADMINISTRATOR, lambda: _too_small(kube, profile, numbers)),
    ]  # fmt: skip
    if _MESHED & set(numbers):
        asks.append(
            ("mesh", "it must be there, with JSON access logs", learners_mesh.FIX, lambda: learners_mesh.problem(kube))
        )
    for name, why, fix, ask in asks:
        problem = _one_line(ask)
        yield Requirement(name, "must", not problem, problem or "as needed", fix if problem else "", why)


def give_back(profile: Profile, kube: Kube, *, say: Callable[[str], None]) -> None:
    """Delete what the chapters have made in the learner's namespaces, which stay; a namespace that is gone is none of the lab's.

    Raises:
        InputError: a namespace is not the lab's; it was left as it is.
        CommandFailed: the user may not delete something, or the API server does not answer.
    """
    namespaces.use(profile.namespaces)
    for name in profile.namespaces.every:
        said = kube.kubectl("get", "namespace", name, check=False).stderr
        if "NotFound" in said:
            continue
        if "Forbidden" in said:  # as one that an earlier version's rights do not have
            say(f"left the namespace {name} as it is: this user may not read it")
            continue
        own_namespaces.empty(kube, name)
        say(f"emptied the namespace {name}")


def _one_line(ask: Callable[[], str]) -> str:
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    try:
        return ask()
    except ApiException as error:
        said = {401: "the API server does not know this user (401 Unauthorized)"}
        return said.get(error.status, f"the API server answers {error.status} {error.reason}")
    except (HTTPError, OSError, StackbookError) as error:
        return redact(f"the API server cannot be asked: {' '.join(str(error).split())[:200]}")


def _unreached(kube: Kube) -> str:
    from kubernetes import client

    client.VersionApi(kube.client).get_code(_request_timeout=_TIMEOUT)
    _may(kube, {"verb": "get", "resource": "pods", "namespace": kube.namespace})  # asks as the user, not as anybody
    return ""


def _not_ours(kube: Kube, profile: Profile, numbers: Sequence[str]) -> str:
    from kubernetes.client.exceptions import ApiException

    for name in used(profile.namespaces, numbers):
        try:
            labels = kube.api.read_namespace(name, _request_timeout=_TIMEOUT).metadata.labels or {}
        except ApiException as error:
            if error.status == 404:
                return f"there is no namespace {name}"
            if error.status == 403:
                return f"there is no namespace {name}, or the user may not read it"
            raise
        if labels.get(LABEL) != "true":
            return f"the namespace {name} is not the lab's: it has no label {MARK}"
    return ""


def _missing(kube: Kube, which: Existing, profile: Profile, numbers: Sequence[str]) -> str:
    asked = questions(profile, numbers)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        answers = pool.map(lambda question: _may(kube, question.attributes), asked)
        refused = [question for question, may in zip(asked, answers, strict=True) if not may]
    if not refused:
        return ""
    more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
    return f"the user {which.user} may not {refused[0]}, which {chapters_of(refused[0].right)} needs{more}"


def _may(kube: Kube, attributes: dict[str, str]) -> bool:
    from kubernetes import client

    given: dict[str, Any] = {name: value for name, value in attributes.items() if value}
    asked = client.V1ResourceAttributes(**given)
    body = client.V1SelfSubjectAccessReview(spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=asked))
    answer = client.AuthorizationV1Api(kube.client).create_self_subject_access_review(body, _request_timeout=_TIMEOUT)
    return answer.status is not None and bool(answer.status.allowed)


def _number(quantity: str) -> Decimal:
    """A quantity of Kubernetes as a number.

    >>> _number("500m") < _number("1"), _number("1Gi")
    (True, Decimal('1073741824'))
    """
    from kubernetes.utils import parse_quantity

    return Decimal(parse_quantity(quantity))  # type: ignore[no-untyped-call]


def _too_small(kube: Kube, profile: Profile, numbers: Sequence[str]) -> str:
    all_quotas = quotas(profile.namespaces)
    for name in used(profile.namespaces, numbers):
        for item in kube.api.list_namespaced_resource_quota(name, _request_timeout=_TIMEOUT).items:
            hard: dict[str, Any] = item.spec.hard or {}
            for what, least in all_quotas[name].least.items():
                if what in hard and _number(hard[what]) < _number(least):
                    return f"the quota {item.metadata.name} of namespace {name} allows {what}: {hard[what]}, but the chapters need {least}"
    return ""
