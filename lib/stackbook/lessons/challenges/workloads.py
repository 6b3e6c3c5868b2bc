"""The workloads that challenges deploy in their own namespaces, and requests to them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stackbook.cluster import addresses
from stackbook.core.errors import CheckFailed
from stackbook.lab.attempt import Attempt
from stackbook.lab.challenge import require

Object = dict[str, Any]
_QUICK = {"periodSeconds": 1, "failureThreshold": 3}
CLIENT = "client"


def image(attempt: Attempt, name: str) -> str:
    """The reference of an image of the lab.

    Raises:
        CheckFailed: this lab has no such image.
    """
    found = attempt.lab.images.reference(name)
    require(found, f"this lab has no image {name}")
    return found


def pod_labels(app: str, version: str = "v1", *, sidecar: bool = True) -> dict[str, str]:
    """The labels of a pod; without `sidecar`, it gets none in a namespace with injection."""
    return {"app": app, "version": version, **({} if sidecar else {"sidecar.istio.io/inject": "false"})}


def deployment(
    attempt: Attempt,
    app: str,
    picture: str,
    *,
    version: str = "v1",
    port: int = 80,
    replicas: int = 1,
    env: Mapping[str, str] | None = None,
    probe: Mapping[str, Any] | None = None,
    sidecar: bool = True,
    **container: Any,
) -> Object:
    """A Deployment of one container named like the application.

    Args:
        attempt: the challenge; its lab has the images.
        app: the label `app`; the Deployment is named after it and the version.
        picture: the name of the image.
        version: the label `version`.
        port: the port that the container listens on; 0 for none.
        replicas: how many pods.
        env: the container's environment.
        probe: the readiness probe; None for a TCP probe of the port, empty for no probe.
        sidecar: whether the pods may get a sidecar.
        container: more fields of the container.
    """
    labels = pod_labels(app, version, sidecar=sidecar)
    ready = {"tcpSocket": {"port": port}} if probe is None and port else dict(probe or {})
    one: Object = {
        "name": app,
        "image": image(attempt, picture),
        "imagePullPolicy": "IfNotPresent",
        "env": [{"name": name, "value": value} for name, value in (env or {}).items()],
        **({"ports": [{"containerPort": port}]} if port else {}),
        **({"readinessProbe": {**ready, **_QUICK}} if ready else {}),
        **container,
    }
    spec = {"terminationGracePeriodSeconds": 1, "automountServiceAccountToken": False, "containers": [one]}
    match = {"app": app, "version": version}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": f"{app}-{version}", "labels": match},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": match},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def echo(attempt: Attempt, version: str = "v1", **more: Any) -> Object:
    """The service `shop`, which says its version and its pod's name; without a sidecar unless asked for one."""
    env = {"SERVICE_VERSION": version, "DRAIN_SECONDS": "0"}
    return deployment(attempt, "shop", "echo", version=version, env=env, **{"sidecar": False, **more})


def client(attempt: Attempt, *, sidecar: bool = True) -> Object:
    """A Deployment of one pod with curl, from which requests are sent."""
    return deployment(attempt, CLIENT, "tools", port=0, sidecar=sidecar, command=["sleep", "86400"])


def service(app: str = "shop", *, port: int = 80, selector: Mapping[str, str] | None = None, **more: Any) -> Object:
    """A Service of an application; `more` goes into its port."""
    entry = {"name": "http", "port": port, "targetPort": port, **more}
    spec = {"selector": dict(selector or {"app": app}), "ports": [entry]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": app, "labels": {"app": app}}, "spec": spec}


def wait(attempt: Attempt, count: int, *, timeout: float = 90.0) -> None:
    """Wait until that many pods of the challenge's namespace are Ready."""
    attempt.lab.kube.wait_pods(attempt.namespace, count=count, timeout=timeout)


@dataclass(frozen=True)
class Answers:
    """The answers to requests: how often each status came (0: no answer), and all bodies in one text."""

    statuses: Counter[int]
    text: str

    @property
    def total(self) -> int:
        """How many requests were sent."""
        return sum(self.statuses.values())

    def share(self, status: int = 200) -> float:
        """The share of a status, from 0 to 1."""
        return self.statuses[status] / max(1, self.total)

    def versions(self) -> Counter[str]:
        """How often each version of `shop` answered."""
        return Counter(re.findall(r"Version: (\S+)", self.text))

    def __str__(self) -> str:
        kinds = (f"{count} × {status or 'no answer'}" for status, count in sorted(self.statuses.items()))
        return ", ".join(kinds) or "no requests"


def ask(
    attempt: Attempt,
    url: str,
    count: int = 20,
    *,
    headers: Mapping[str, str] | None = None,
    limit: float = 4.0,
    parallel: int = 4,
) -> Answers:
    """Request a URL from the client's pod, with one curl process.

    Args:
        attempt: the challenge.
        url: the URL.
        count: how many requests.
        headers: the headers of each request.
        limit: seconds that one request may take.
        parallel: how many requests at once.

    Raises:
        CheckFailed: curl could not run in the client's pod.
    """
    flags = [part for name, value in (headers or {}).items() for part in ("-H", f"{name}: {value}")]
    mark = "&" if "?" in url else "?"
    argv = ["curl", "-s", "-Z", "--parallel-max", str(parallel), "-m", f"{limit:g}", *flags,
            "-w", "\\n#%{http_code}\\n", f"{url}{mark}n=[1-{count}]"]  # fmt: skip
    said = attempt.lab.kube.exec(
        attempt.namespace, f"deploy/{CLIENT}-v1", *argv, container=CLIENT, check=False,
        timeout=30 + count * limit / parallel,
    )  # fmt: skip
    found = Counter(int(code) for code in re.findall(r"^#(\d{3})$", said.stdout, re.MULTILINE))
    require(found, f"the client cannot send requests: {said.stderr.strip()[-200:] or 'no output from curl'}")
    return Answers(found, said.stdout)


def endpoints(attempt: Attempt, name: str = "shop") -> list[str]:
    """The addresses of a Service's ready endpoints."""
    found = addresses.endpoints(attempt.lab.kube, attempt.namespace, name, ready=True)
    return sorted(address for endpoint in found for address in endpoint["addresses"])


def there(attempt: Attempt, kind: str, name: str, namespace: str = "") -> Any:
    """An object of the challenge's namespace, or of another one.

    Raises:
        CheckFailed: it does not exist.
    """
    answer = attempt.lab.kube.kubectl(
        "get", kind, name, "-n", namespace or attempt.namespace, "-o", "json", check=False
    )
    if not answer.ok:
        raise CheckFailed(f"{kind} {name} no longer exists, but the challenge needs it")
    return json.loads(answer.stdout)


def pods(attempt: Attempt, selector: str = "") -> list[dict[str, Any]]:
    """The pods of the challenge's namespace."""
    return attempt.lab.kube.pods(attempt.namespace, selector)


def names(items: Sequence[Mapping[str, Any]]) -> str:
    """The names of objects, separated by commas; "none" if there are none."""
    return ", ".join(str(item["metadata"]["name"]) for item in items) or "none"
