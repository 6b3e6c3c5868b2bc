"""A cluster seen from this host: kubectl, the official Python client, and waits that say why they failed."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from stackbook.cluster import rest_apply, rest_get, webhook_retry
from stackbook.core import private, temp_dirs
from stackbook.core.errors import CommandFailed, InputError, StackbookError, WaitTimeout
from stackbook.core.redact import redact
from stackbook.core.results import Result
from stackbook.core.waiting import until
from stackbook.machines.transports import LocalHost, Observer, Text

CREDENTIALS = "client"
"""The scratch folder of the API's client."""


def _as_list(manifest: str | dict[str, Any] | Sequence[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    """A manifest as text for kubectl, and its objects; of a text they are not looked at."""
    if isinstance(manifest, str):
        return manifest, []
    items = [manifest] if isinstance(manifest, dict) else list(manifest)
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items}), items


@dataclass
class Kube:
    """kubectl and the API of one cluster.

    Args:
        kubeconfig: path of its kubeconfig.
        kubectl_path: the kubectl to run, of the cluster's own version.
        observers: called with each command's Result.
    """

    kubeconfig: Path
    kubectl_path: Path | str = "kubectl"
    observers: list[Observer] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs in its environment to reach this cluster."""
        return {"KUBECONFIG": str(self.kubeconfig)}

    def kubectl(
        self, *args: str, check: bool = True, stdin: Text | None = None, timeout: float = 60.0, secret: bool = False
    ) -> Result:
        """Run kubectl; an `apply` again where `webhooks.applied` does. See `Host.run` for what is raised."""

        def run() -> Result:
            result = LocalHost(name="kubectl").run(
                [str(self.kubectl_path), *args], check=False, stdin=stdin, timeout=timeout, env=self.environment,
                secret=secret,
            )  # fmt: skip
            result = replace(result, argv=("kubectl", *args), host="this host")
            for observe in self.observers:
                observe(result)
            return result

        result = webhook_retry.applied(run) if args[:1] == ("apply",) else run()
        if check and not result.ok:
            raise CommandFailed(result)
        return result

    def json(self, *args: str, timeout: float = 60.0) -> Any:
        """The answer of a kubectl command with `-o json`; a plain `get` is asked of the API without kubectl."""
        start = time.monotonic()
        if (found := self._asked(args, timeout)) is not None:
            for observe in self.observers:
                shown = ("kubectl", *args, "-o", "json")
                observe(Result(shown, 0, json.dumps(found), "", time.monotonic() - start, "this host"))
            return found
        return json.loads(self.kubectl(*args, "-o", "json", timeout=timeout).stdout)

    def _asked(self, args: tuple[str, ...], timeout: float) -> dict[str, Any] | None:
        if rest_get.paths(args) is None or (client := self._reached()) is None:
            return None
        return rest_get.answer(client, args, timeout=timeout)

    def _reached(self) -> Any:
        """The client; None where there is no kubeconfig yet: kubectl says so.

        Raises:
            InputError: there is one, and it cannot be used; with the reason.
        """
        if not Path(self.kubeconfig).is_file():
            return None
        try:
            return self.client
        except Exception as error:  # of a broken file, the client raises whatever its parts raise
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(
                f"the kubeconfig {self.kubeconfig} cannot be used: {redact(reason)[:300]}",
                fix="stackbook run --only 02 writes the lab's again; another cluster's comes from its administrator",
            ) from error

    def _written(self, verb: str, items: Sequence[dict[str, Any]], timeout: float) -> list[str] | None:
        """The lines of `kubectl VERB` for rules of Istio, written without it; None where it has to do it itself."""
        start = time.monotonic()
        if rest_apply.paths(items) is None or (client := self._reached()) is None:
            return None
        write = rest_apply.apply if verb == "apply" else rest_apply.delete
        lines = write(client, items, timeout=timeout)
        for observe in self.observers if lines is not None else ():
            shown = ("kubectl", verb, "-f", "-")
            observe(Result(shown, 0, "\n".join(lines or ()), "", time.monotonic() - start, "this host"))
        return lines

    def apply(self, manifest: str | dict[str, Any] | Sequence[dict[str, Any]], *, server_side: bool = False) -> int:
        """Apply a manifest (YAML text or objects); returns how many objects were changed."""
        text, items = _as_list(manifest)
        lines = None if server_side else self._written("apply", items, 30)
        if lines is None:
            flags = ["--server-side", "--force-conflicts"] if server_side else []
            lines = self.kubectl("apply", *flags, "-f", "-", stdin=text, timeout=120).lines
        return sum(not line.endswith(" unchanged") for line in lines)

    def delete(self, manifest: str | dict[str, Any] | Sequence[dict[str, Any]], *, timeout: float = 120.0) -> int:
        """Delete the objects of a manifest; those that do not exist are no error. Returns how many were deleted."""
        text, items = _as_list(manifest)
        lines = self._written("delete", items, 30)
        if lines is None:
            lines = self.kubectl("delete", "--ignore-not-found", "-f", "-", stdin=text, timeout=timeout).lines
        return len(lines)

    @cached_property
    def client(self) -> Any:
        """The official client's ApiClient for this cluster, with a bounded number of retries.

        It wants certificate and key as files: in a folder that goes even where a kernel is killed.
        """
        from kubernetes import client, config

        configuration = client.Configuration()
        config.load_kube_config(  # type: ignore[no-untyped-call]
            config_file=str(self.kubeconfig),
            client_configuration=configuration,
            temp_file_path=str(temp_dirs.of_this_process(CREDENTIALS)),
        )
        configuration.retries = 1
        return client.ApiClient(configuration)

    @property
    def api(self) -> Any:
        """CoreV1Api of the official client."""
        from kubernetes import client

        return client.CoreV1Api(self.client)

    @property
    def apps(self) -> Any:
        """AppsV1Api of the official client."""
        from kubernetes import client

        return client.AppsV1Api(self.client)

    def ready(self) -> bool:
        """Whether the API server answers /readyz with ok, at the first try and within 5 s."""
        answer = self.kubectl("get", "--raw=/readyz", "--request-timeout=5s", check=False, timeout=10)
        return answer.ok and answer.stdout.strip() == "ok"

    # reading

    def nodes(self) -> list[dict[str, Any]]:
        """The nodes as the API has them, by name."""
        return sorted(self.json("get", "nodes")["items"], key=lambda n: str(n["metadata"]["name"]))

    def pods(self, namespace: str, selector: str = "") -> list[dict[str, Any]]:
        """The pods of a namespace that match a label selector, by name; those that are being deleted are left out."""
        flags = ["-l", selector] if selector else []
        items = self.json("get", "pods", "-n", namespace, *flags)["items"]
        alive = [p for p in items if "deletionTimestamp" not in p["metadata"]]
        return sorted(alive, key=lambda p: str(p["metadata"]["name"]))

    # waiting

    def wait_nodes(self, names: Sequence[str], *, timeout: float = 120.0) -> None:
        """Wait until these nodes are Ready.

        Raises:
            WaitTimeout: with the Ready condition of those that are not.
        """

        def seen() -> dict[str, str]:
            return {n["metadata"]["name"]: node_problem(n) for n in self.nodes()}

        def done() -> bool:
            state = seen()
            return all(state.get(name) == "" for name in names)

        def last() -> str:
            state = seen()
            return "; ".join(f"{n}: {state.get(n, 'not registered')}" for n in names if state.get(n) != "")

        until(
            done,
            what=f"nodes to be Ready: {', '.join(names)}",
            timeout=timeout,
            every=0.5,
            last=last,
            tolerate=(CommandFailed,),
        )

    def wait_pods(
        self, namespace: str, selector: str = "", *, count: int | None = None, timeout: float = 120.0
    ) -> None:
        """Wait until the pods that match are Ready, and there are `count` of them (at least one when None).

        Raises:
            WaitTimeout: with each pod that is not Ready, its reason, the newest warning and the last log line.
        """

        def done() -> bool:
            pods = self.pods(namespace, selector)
            enough = len(pods) == count if count is not None else bool(pods)
            return enough and all(pod_problem(p) == "" for p in pods)

        def last() -> str:
            pods = self.pods(namespace, selector)
            waiting = [f"{p['metadata']['name']}: {pod_problem(p)}" for p in pods if pod_problem(p)]
            return "; ".join(waiting) or f"{len(pods)} pods Ready"

        until(
            done,
            what=f"pods to be Ready in {namespace}" + (f" ({selector})" if selector else ""),
            timeout=timeout,
            every=0.5,
            last=last,
            cause=lambda: self.explain(namespace, selector),
            tolerate=(CommandFailed,),
        )

    def wait_rollout(self, namespace: str, workload: str, *, timeout: float = 120.0) -> None:
        """Wait until a rollout is complete: `workload` like deployment/reviews-v1.

        Raises:
            WaitTimeout: with what kubectl said last and the likely cause.
        """
        answer = self.kubectl(
            "rollout",
            "status",
            "-n",
            namespace,
            workload,
            f"--timeout={timeout:.0f}s",
            check=False,
            timeout=timeout + 10,
        )
        if not answer.ok:
            said = (answer.stdout + answer.stderr).strip().splitlines()
            cause = self.explain(namespace)
            raise WaitTimeout(f"rollout of {workload}", timeout, last=said[-1] if said else "", cause=cause)

    def explain(self, namespace: str, selector: str = "") -> str:
        """Why pods are not Ready: reason, newest warning event and last log line of the first that is not."""
        for pod in self.pods(namespace, selector):
            problem = pod_problem(pod)
            if not problem:
                continue
            name = pod["metadata"]["name"]
            parts = [f"{name}: {problem}"]
            events = self.json(
                "get", "events", "-n", namespace, "--field-selector", f"involvedObject.name={name},type=Warning"
            )["items"]
            if events:
                newest = max(events, key=lambda e: str(e.get("lastTimestamp") or e.get("eventTime") or ""))
                parts.append(f"{newest['reason']}: {' '.join(str(newest['message']).split())[:300]}")
            logs = self.kubectl("logs", "-n", namespace, name, "--all-containers", "--tail=1", check=False)
            if logs.ok and logs.lines:
                parts.append(f"log: {redact(logs.lines[-1])[:300]}")
            return "; ".join(parts)
        warnings = self.json("get", "events", "-n", namespace, "--field-selector", "type=Warning")["items"]
        if warnings:
            newest = max(warnings, key=lambda e: str(e.get("lastTimestamp") or e.get("eventTime") or ""))
            return f"{newest['involvedObject']['name']}: {' '.join(str(newest['message']).split())[:300]}"
        return ""

    def exec(
        self,
        namespace: str,
        target: str,
        *argv: str,
        container: str = "",
        timeout: float = 60.0,
        check: bool = True,
        stdin: str | None = None,
    ) -> Result:
        """Run a command in a container of a pod: `target` like deploy/ratings-v1 or a pod's name."""
        flags = ["-c", container] if container else []
        flags += ["-i"] if stdin is not None else []
        return self.kubectl(
            "exec", "-n", namespace, target, *flags, "--", *argv, timeout=timeout, check=check, stdin=stdin
        )

    @contextlib.contextmanager
    def port_forward(self, namespace: str, target: str, port: int, *, timeout: float = 20.0) -> Iterator[int]:
        """A free port of this host's loopback, forwarded to a port of a pod or service while the block runs.

        Args:
            namespace: where the target is.
            target: like svc/productpage or pod/x.
            port: the target's port.
            timeout: deadline for the first connection, in seconds.

        Raises:
            WaitTimeout: kubectl did not start to listen; holds what it said.
        """
        process = subprocess.Popen(
            [str(self.kubectl_path), "port-forward", "-n", namespace, target, f":{port}", "--address", "127.0.0.1"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **self.environment},
            start_new_session=True,
        )
        try:
            yield _listening(process, f"{namespace}/{target}:{port}", timeout)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)
            if process.stdout:
                process.stdout.close()


def _listening(process: subprocess.Popen[bytes], what: str, timeout: float) -> int:
    """The local port that kubectl port-forward says it listens on."""
    assert process.stdout is not None
    deadline = time.monotonic() + timeout
    said = b""
    while time.monotonic() < deadline and process.poll() is None:
        if select.select([process.stdout], [], [], 0.2)[0]:
            said += os.read(process.stdout.fileno(), 4096)
            for line in said.decode(errors="replace").splitlines():
                if line.startswith("Forwarding from 127.0.0.1:"):
                    return int(line.split(":")[1].split()[0])
    raise WaitTimeout(f"port-forward to {what}", timeout, last=said.decode(errors="replace").strip()[-300:])


def node_problem(node: dict[str, Any]) -> str:
    """Why a node is not Ready; empty when it is."""
    for condition in node["status"].get("conditions", []):
        if condition["type"] == "Ready":
            return "" if condition["status"] == "True" else f"{condition['reason']}: {condition['message']}"[:300]
    return "no Ready condition yet"


def pod_problem(pod: dict[str, Any]) -> str:
    """Why a pod is not Ready; empty when it is (a pod that has completed counts as Ready)."""
    status = pod["status"]
    if status.get("phase") == "Succeeded":
        return ""
    conditions = {c["type"]: c for c in status.get("conditions", [])}
    if conditions.get("Ready", {}).get("status") == "True":
        return ""
    for state in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        waiting = state.get("state", {}).get("waiting")
        if waiting and waiting.get("reason") not in ("PodInitializing", "ContainerCreating"):
            message = " ".join(str(waiting.get("message", "")).split())
            return f"{state['name']} {waiting.get('reason')}: {message}"[:300].rstrip(": ")
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        return f"not scheduled: {scheduled.get('message', '')}"[:300]
    return str(status.get("phase", "Unknown")) + ": not ready yet"


def write_kubeconfig(text: str, path: Path) -> int:
    """Keep a kubeconfig where only its owner can read it; returns 1 when it was changed."""
    if path.exists() and path.read_text(encoding="utf-8") == text and path.stat().st_mode & 0o777 == 0o600:
        return 0
    private.write(path, text)
    return 1


def existing_kubeconfig(path: str) -> Path:
    """The kubeconfig of an existing cluster.

    Raises:
        InputError: there is no such file.
    """
    found = Path(path or os.environ.get("KUBECONFIG", "~/.kube/config")).expanduser()
    if not found.is_file():
        raise InputError(f"there is no kubeconfig at {found}", fix="set kubeconfig: in the profile")
    return found


__all__ = ["Kube", "StackbookError", "existing_kubeconfig", "node_problem", "pod_problem", "write_kubeconfig"]
