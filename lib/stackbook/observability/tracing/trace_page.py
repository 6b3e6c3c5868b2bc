"""A page for the traces where Jaeger's own cannot be had: Zipkin's, with the spans that Jaeger has.

Zipkin runs in a pod for as long as the page is open, keeps its spans in memory, and gets them from Jaeger's API. So the page shows
neither more nor less than Jaeger has.

https://github.com/openzipkin/zipkin/tree/master/zipkin-server
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import httpx

from stackbook.cluster import manifests
from stackbook.config.namespaces import MESH, here
from stackbook.core import health
from stackbook.core.errors import CheckFailed, StackbookError
from stackbook.core.waiting import beside, until
from stackbook.observability.tracing.jaeger import Jaeger
from stackbook.observability.tracing.zipkin_spans import converted

if TYPE_CHECKING:
    from stackbook.lab.lab import Lab

IMAGE = "zipkin"
PATH = "/zipkin/"
SELECTOR = "app=zipkin-page"
_PORT = 9411
_AT_ONCE = 1000
_KEPT = 25_000
"""So many spans, the newest, are shown: more do not fit into Zipkin's memory."""
_EVERY = 3.0
_OVERLAP = 120.0
"""So many seconds before the last look are looked at again: a proxy sends its spans some time after they ended."""
_LIMIT = 20_000
_Key = tuple[str, str, str]


@dataclass
class TracePage:
    """A running Zipkin.

    Attributes:
        url: its address, without a slash at the end.
        copied: how many spans it has.
        what: what it has, in words.
        trouble: why no more spans are copied; empty while all is well.
    """

    url: str
    copied: int = 0
    trouble: str = ""
    what: ClassVar[str] = "spans of Jaeger"
    _sent: set[_Key] = field(default_factory=set)
    _until: float = 0.0

    def copy(self, jaeger: Jaeger) -> int:
        """Copy the newest spans that Jaeger has and this page has not; returns how many.

        Raises:
            CheckFailed: Zipkin refuses them or does not answer, or Jaeger has too many traces.
        """
        began, since = time.time(), max(self._until - _OVERLAP, 0.0)
        new: dict[_Key, dict[str, Any]] = {}
        for service in jaeger.services():
            for span in converted(jaeger.answers(service, since=since, limit=_LIMIT)):
                key = (span["traceId"], span["id"], span.get("kind", ""))
                if key not in self._sent:
                    new[key] = span
        spans = sorted(new.values(), key=lambda span: span["timestamp"])[-_KEPT:]
        for first in range(0, len(spans), _AT_ONCE):
            batch = spans[first : first + _AT_ONCE]
            try:
                answer = httpx.post(f"{self.url}/api/v2/spans", json=batch, timeout=60, trust_env=False)
            except httpx.TransportError as error:
                said = f"{type(error).__name__}: {error}"
                raise CheckFailed(f"Zipkin takes no more spans, after {self.copied + first}: {said}") from None
            if answer.status_code != httpx.codes.ACCEPTED:
                raise CheckFailed(f"Zipkin answers {answer.status_code}: {answer.text.strip()[:300]}")
        self._sent |= new.keys()
        self._until = began
        self.copied += len(spans)
        return len(spans)

    def healthy(self) -> bool:
        """Whether Zipkin answers."""
        return health.answers(f"{self.url}/health")

    def ended(self) -> str:
        """Why the page is of no use any more; empty while it is."""
        return self.trouble

    def trace(self, trace_id: str) -> list[dict[str, Any]]:
        """The spans of a trace, by its id of 32 hexadecimal digits; empty if Zipkin does not have it."""
        answer = httpx.get(f"{self.url}/api/v2/trace/{trace_id}", timeout=30, trust_env=False)
        return list(answer.json()) if answer.status_code == httpx.codes.OK else []


@contextlib.contextmanager
def running(lab: Lab, *, timeout: float = 120.0) -> Iterator[TracePage]:
    """Run Zipkin in a pod while the block runs. A pod that a killed command left is replaced.

    Raises:
        WaitTimeout: it did not become Ready within `timeout` seconds; the error has the reason.
    """
    lab.images.load(IMAGE)
    pod = manifests.render("zipkin.yaml", image_zipkin=lab.images.reference(IMAGE))
    pod = pod.replace(f"namespace: {MESH}", f"namespace: {here().monitoring}")
    lab.kube.delete(pod)
    lab.kube.apply(pod)
    try:
        lab.kube.wait_pods(here().monitoring, SELECTOR, count=1, timeout=timeout)
        with lab.kube.port_forward(here().monitoring, "pod/zipkin-page", _PORT) as port:
            page = TracePage(f"http://127.0.0.1:{port}")
            until(page.healthy, what="Zipkin to answer", timeout=30, every=0.3,
                  cause=lambda: lab.kube.explain(here().monitoring, SELECTOR))  # fmt: skip
            yield page
    finally:
        lab.kube.delete(pod)


@contextlib.contextmanager
def following(lab: Lab) -> Iterator[TracePage]:
    """A page with all spans of the lab's Jaeger, which new spans reach after some seconds, while the block runs.

    Raises:
        StackbookError: Jaeger does not answer, or Zipkin does not start.
    """
    with Jaeger(lab.kube) as jaeger, running(lab) as page:
        page.copy(jaeger)

        def follow(stop: threading.Event) -> None:
            try:
                while not stop.wait(_EVERY):
                    if not page.healthy():
                        raise CheckFailed("Zipkin does not answer: its pod is gone, or the connection to it has ended")
                    page.copy(jaeger)
            except (StackbookError, httpx.HTTPError) as error:
                page.trouble = f"new spans cannot be copied: {error}"

        with beside(follow, name="trace page", timeout=60):
            yield page
