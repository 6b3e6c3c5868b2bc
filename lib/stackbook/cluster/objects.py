"""Read, apply (server-side) and delete objects of a cluster with the official client's dynamic client.

On a busy machine, a kubectl process takes 100 to 300 ms to find its configuration and connect. A request over an open
connection takes 10 ms, and a chapter sends hundreds of requests.
https://kubernetes.io/docs/reference/using-api/server-side-apply/
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from stackbook.cluster import managed_fields, webhook_retry
from stackbook.core.waiting import until

FIELD_MANAGER = "stackbook"
_RULES = ".istio.io"
_STRICT = ("fieldValidation", "Strict")  # a misspelt field is an error, like in kubectl


class ApiError(Exception):
    """The API server refused a request, or did not answer; the text is what kubectl would print."""


@dataclass(frozen=True)
class Question:
    """What a plain `kubectl get` asks for: resources as they are spelt there, and a choice of their objects."""

    resources: tuple[str, ...]
    name: str = ""
    namespace: str | None = "default"
    selectors: Mapping[str, str] = field(default_factory=dict)


def question(args: Sequence[str], *, default: str = "default") -> Question | None:
    """Parse a plain `kubectl get`; returns None for another command, several names, or an unknown flag.

    Args:
        args: the words after `kubectl`.
        default: the namespace of a command that names none.

    >>> question(["get", "pods", "-n", "default", "-l", "app=web"])
    Question(resources=('pods',), name='', namespace='default', selectors={'label_selector': 'app=web'})
    """
    if not args or args[0] != "get":
        return None
    flags = {"-l": "label_selector", "--selector": "label_selector", "--field-selector": "field_selector"}
    words: list[str] = []
    namespace: str | None = default
    selectors: dict[str, str] = {}
    rest = list(args[1:])
    while rest:
        word = rest.pop(0)
        if word in ("-n", "--namespace") and rest:
            namespace = rest.pop(0)
        elif word in flags and rest:
            selectors[flags[word]] = rest.pop(0)
        elif word in ("-A", "--all-namespaces"):
            namespace = None
        elif word.startswith("-"):
            return None
        else:
            words.append(word)
    if len(words) == 1 and words[0].count("/") == 1:
        words = words[0].split("/")
    if len(words) not in (1, 2) or (len(words) == 2 and (selectors or namespace is None or "," in words[0])):
        return None
    return Question(tuple(words[0].split(",")), words[1] if len(words) == 2 else "", namespace, selectors)


class Objects:
    """The objects of one cluster.

    Args:
        client: an `ApiClient` of the official client.
        folder: keeps the list of the API server's resources while this process lives.
        namespace: the namespace of objects that name none.
    """

    def __init__(self, client: Any, folder: Path, namespace: str = "default") -> None:
        self._client, self._folder, self._namespace = client, folder, namespace
        self._lock = threading.RLock()

    @cached_property
    def _dynamic(self) -> Any:
        from kubernetes.dynamic import DynamicClient

        return DynamicClient(self._client, cache_file=str(self._folder / "discovery.json"))  # type: ignore[no-untyped-call]

    def answer(self, asked: Question, *, timeout: float) -> dict[str, Any]:
        """What `kubectl get … -o json` prints: one object, or a List whose items have their kind and version.

        Raises:
            ApiError: there is no such resource or object, or the API server does not answer within `timeout` seconds.
        """
        with _as_kubectl_says():
            items: list[dict[str, Any]] = []
            for word in asked.resources:
                resource = self._named(word)
                namespace = asked.namespace if resource.namespaced else None
                found = self._dynamic.get(
                    resource, name=asked.name or None, namespace=namespace, serializer=_plain,
                    _request_timeout=timeout, **asked.selectors,
                )  # fmt: skip
                if asked.name:
                    return dict(found)
                which = {"apiVersion": resource.group_version, "kind": resource.kind}
                items += [{**which, **item} for item in found["items"]]
            return {"apiVersion": "v1", "kind": "List", "items": items}

    def apply(self, items: Sequence[Mapping[str, Any]], *, timeout: float) -> list[str]:
        """Apply objects server-side, in order; returns a line for each, as kubectl prints it.

        The lab becomes the owner of the fields that it sets. It takes over all fields that `kubectl apply` without
        --server-side has set, so that a field that is no longer in the manifest is removed.

        A set of Istio's rules is first applied as a dry run: if one rule is refused, none is applied. If a rule existed only
        for a moment, nobody could tell when every proxy has dropped it.

        Raises:
            ApiError: the API server refuses an object. Except in a set of rules, the objects before it are applied.
        """
        if len(items) > 1 and all(str(item["apiVersion"]).partition("/")[0].endswith(_RULES) for item in items):
            for item in items:
                with _as_kubectl_says():
                    resource, where = self._place(item)
                webhook_retry.called(partial(self._send, resource, where, item, timeout, dry_run="All"), ApiError)
        lines = []
        for item in items:
            with _as_kubectl_says():
                resource, where = self._place(item)
                there = self._there(resource, where, timeout)
                if there is not None:
                    self._take_over(resource, where, there, timeout)

                now = webhook_retry.called(partial(self._send, resource, where, item, timeout), ApiError)
                word = "created" if there is None else "unchanged" if _same(there, now) else "serverside-applied"
            lines.append(f"{_shown(resource, where)} {word}")
        return lines

    def _send(
        self, resource: Any, where: Mapping[str, Any], item: Mapping[str, Any], timeout: float, **more: str
    ) -> Any:
        with _as_kubectl_says():
            return self._dynamic.server_side_apply(
                resource, body=dict(item), **where, field_manager=FIELD_MANAGER, force_conflicts=True,
                query_params=[_STRICT], serializer=_plain, _request_timeout=timeout, **more,
            )  # fmt: skip

    def delete(self, items: Sequence[Mapping[str, Any]], *, timeout: float) -> list[str]:
        """Delete objects and wait until they are gone; returns a line for each that existed.

        Raises:
            ApiError: the API server refuses.
            WaitTimeout: an object still exists after `timeout` seconds; the message lists its finalizers.
        """
        from kubernetes.dynamic.exceptions import NotFoundError, ResourceNotFoundError

        going = []
        for item in items:
            with _as_kubectl_says():
                try:
                    resource, where = self._place(item)
                    there = self._there(resource, where, timeout)
                    if there is None:
                        continue
                    self._dynamic.delete(
                        resource, **where, propagation_policy="Background", serializer=_plain, _request_timeout=timeout
                    )
                    going.append((resource, where, there["metadata"]["uid"]))
                except (NotFoundError, ResourceNotFoundError):  # the object or its kind was deleted meanwhile
                    continue
        deadline = time.monotonic() + timeout
        for resource, where, uid in going:
            self._wait_gone(resource, where, uid, deadline, timeout)
        return [f"{_shown(resource, where).replace('/', ' ', 1)} deleted" for resource, where, _ in going]

    def _wait_gone(self, resource: Any, where: Mapping[str, Any], uid: str, deadline: float, timeout: float) -> None:
        seen: dict[str, Any] = {}

        def gone() -> bool:
            seen.clear()
            with _as_kubectl_says():
                seen.update(self._there(resource, where, 10) or {})
            return not seen or seen["metadata"]["uid"] != uid

        def last() -> str:
            finalizers = seen.get("metadata", {}).get("finalizers", [])
            return f"finalizers: {', '.join(finalizers)}" if finalizers else "it is being deleted"

        left = max(deadline - time.monotonic(), 1.0)
        until(gone, what=f"{_shown(resource, where)} to be deleted", timeout=min(left, timeout), every=0.1, last=last)

    def _place(self, item: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The resource of an object, with the object's name and namespace."""
        with self._lock:
            resource = self._dynamic.resources.get(api_version=item["apiVersion"], kind=item["kind"])
        namespace = item["metadata"].get("namespace", self._namespace) if resource.namespaced else None
        return resource, {"name": item["metadata"]["name"], "namespace": namespace}

    def _there(self, resource: Any, where: Mapping[str, Any], timeout: float) -> dict[str, Any] | None:
        from kubernetes.dynamic.exceptions import NotFoundError

        try:
            return dict(self._dynamic.get(resource, **where, serializer=_plain, _request_timeout=timeout))
        except NotFoundError:
            return None

    def _take_over(self, resource: Any, where: Mapping[str, Any], there: Mapping[str, Any], timeout: float) -> None:
        changed = managed_fields.taken_over(there["metadata"].get("managedFields", []), FIELD_MANAGER)
        if changed is None:
            return
        body = [
            {"op": "test", "path": "/metadata/resourceVersion", "value": there["metadata"]["resourceVersion"]},
            {"op": "replace", "path": "/metadata/managedFields", "value": changed},
        ]
        self._dynamic.patch(
            resource, body=body, **where, content_type="application/json-patch+json", serializer=_plain,
            _request_timeout=timeout,
        )  # fmt: skip

    def _named(self, word: str) -> Any:
        """The resource for a word that kubectl accepts: plural, singular or short name, with or without `.group`."""
        name, _, group = word.partition(".")
        with self._lock:
            for again in (False, True):
                if again:  # it may have been installed after the list was read
                    self._dynamic.resources.invalidate_cache()
                for resource in self._candidates(group):
                    if name in (resource.name, resource.singular_name, *(resource.short_names or ())):
                        return resource
        raise ApiError(f'error: the server doesn\'t have a resource type "{word}"')

    def _candidates(self, group: str) -> Iterator[Any]:
        """Sort resources as kubectl does: the core group, apps, then all others; preferred versions first."""
        from kubernetes.dynamic.resource import ResourceList

        core: list[dict[str, str]] = [{"prefix": "api"}, {"prefix": "apis", "group": "apps"}, {"prefix": "apis"}]
        for where in [{"prefix": "apis", "group": group}] if group else core:
            found = [r for r in self._dynamic.resources.search(**where) if not isinstance(r, ResourceList)]
            yield from sorted(found, key=lambda resource: not resource.preferred)


def _plain(_client: Any, data: Any) -> Any:
    return data


def _same(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether two versions of an object are the same, apart from the status and the fields that the server sets on each write."""
    noted = ("resourceVersion", "managedFields", "generation")
    forms = [
        {**{k: v for k, v in form.items() if k != "status"},
         "metadata": {k: v for k, v in form["metadata"].items() if k not in noted}}
        for form in (before, after)
    ]  # fmt: skip
    return forms[0] == forms[1]


def _shown(resource: Any, where: Mapping[str, Any]) -> str:
    """An object's name as kubectl prints it: service/reviews, destinationrule.networking.istio.io/reviews."""
    group = f".{resource.group}" if resource.group else ""
    return f"{resource.kind.lower()}{group}/{where['name']}"


@contextlib.contextmanager
def _as_kubectl_says() -> Iterator[None]:
    """Turn the client's exceptions into an `ApiError` with kubectl's message."""
    from kubernetes.client.exceptions import ApiException
    from kubernetes.dynamic.exceptions import DynamicApiError, ResourceNotFoundError, ResourceNotUniqueError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except (ApiException, DynamicApiError) as error:
        raise ApiError(_of_the_server(error)) from error
    except (ResourceNotFoundError, ResourceNotUniqueError) as error:
        raise ApiError(f"error: resource mapping not found: {error}") from error
    except (HTTPError, OSError) as error:
        raise ApiError(f"Unable to connect to the server: {' '.join(str(error).split())}") from error


def _of_the_server(error: Any) -> str:
    """The error message of an answer; when a webhook denies a request, the answer has a message but no reason."""
    try:
        body = json.loads(error.body)
        reason = f" ({body['reason']})" if body.get("reason") else ""
        return f"Error from server{reason}: {body['message']}"
    except (TypeError, ValueError, KeyError, AttributeError):
        return f"Error from server ({error.status}): {error.reason}"
