"""istiod's debug interface: one port-forward to each istiod, and plain HTTP over it.

A request through the port-forward comes from istiod's own loopback, which needs no token (istio.io/istio
pilot/pkg/xds/debug.go, allowAuthenticatedOrLocalhost). It takes 2 ms;
`kubectl exec … pilot-discovery request` takes 200 ms.
"""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from stackbook.core.errors import CheckFailed, TransportError

NAMESPACE, PORT = "istio-system", 15014
Ask = Callable[[str], str]
"""Takes a path like /debug/syncz, returns the body of the answer."""


class HasApi(Protocol):
    """The part of `cluster.Kube` that this module needs."""

    @property
    def api(self) -> Any:
        """CoreV1Api of the official client."""


@contextlib.contextmanager
def connect(kube: HasApi) -> Iterator[dict[str, Ask]]:
    """A function to query each istiod, by the name of its pod, while the block runs.

    Raises:
        CheckFailed: no istiod is running, or one answers with an error.
        TransportError: a connection broke.
    """
    pods = kube.api.list_namespaced_pod(NAMESPACE, label_selector="app=istiod").items
    names = sorted(pod.metadata.name for pod in pods if pod.status.phase == "Running")
    if not names:
        raise CheckFailed("no istiod is running", fix="stackbook run --only 05")
    with contextlib.ExitStack() as stack:
        yield {name: _open(kube.api, name, stack) for name in names}


def _open(api: Any, pod: str, stack: contextlib.ExitStack) -> Ask:
    from kubernetes.stream import portforward

    forward = portforward(api.connect_get_namespaced_pod_portforward, pod, NAMESPACE, ports=str(PORT))
    socket = forward.socket(PORT)
    stack.callback(socket.close)
    socket.settimeout(20)
    connection = http.client.HTTPConnection("localhost", PORT, timeout=20)
    connection.sock = socket
    connection.auto_open = 0  # never open a new connection: it would go to this host

    def ask(path: str) -> str:
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            raise TransportError(f"the request {path} to istiod {pod} failed: {error}") from error
        if answer.status != 200:
            raise CheckFailed(f"istiod {pod} answers {path} with {answer.status}: {body.strip()[:200]}")
        return body

    return ask
