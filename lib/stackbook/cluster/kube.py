"""Access to a cluster from this host: kubectl, the official Python client, and waits that explain a timeout."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from stackbook.cluster import manifests, waits, webhook_retry
from stackbook.cluster.objects import FIELD_MANAGER, ApiError, Objects, question
from stackbook.cluster.port_forward import forwarding, instance, kept
from stackbook.core import temp_dirs
from stackbook.core.errors import CommandFailed, InputError
from stackbook.core.redact import redact
from stackbook.core.results import Result
from stackbook.machines.transports import LocalHost, Observer, Text

CREDENTIALS = "client"
"""Name of the temporary folder that the API's client uses."""


BY_API = "this host, by the API"
"""The `host` of a Result that comes from the API and not from a kubectl process."""


@dataclass
class Kube:
    """kubectl and the API of one cluster.

    Args:
        kubeconfig: path of its kubeconfig.
        kubectl_path: the kubectl to run, of the cluster's own version.
        observers: called with each command's Result.
        namespace: the namespace of commands and objects that name none; the kubeconfig must name the same.
    """

    kubeconfig: Path
    kubectl_path: Path | str = "kubectl"
    observers: list[Observer] = field(default_factory=list)
    namespace: str = "default"

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables with which a program reaches this cluster."""
        return {"KUBECONFIG": str(self.kubeconfig)}

    def kubectl(
        self, *args: str, check: bool = True, stdin: Text | None = None, timeout: float = 60.0, secret: bool = False
    ) -> Result:
        """Run kubectl; an `apply` is repeated as `webhook_retry.applied` describes. Raises what `Host.run` raises."""

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
        """The answer of a kubectl command with `-o json`; a plain `get` goes to the API over an open connection.

        Raises:
            CommandFailed: there is no such resource or object, or the API server does not answer.
        """
        asked = question(args, default=self.namespace)
        if asked is None or (objects := self._reached()) is None:
            return json.loads(self.kubectl(*args, "-o", "json", timeout=timeout).stdout)
        found = self._by_api(("kubectl", *args, "-o", "json"), lambda: objects.answer(asked, timeout=timeout))
        return found

    def _by_api(self, shown: tuple[str, ...], call: Callable[[], Any], *, given: str = "") -> Any:
        """Send a request to the API; the record shows the kubectl command that does the same, with the host BY_API."""
        start = time.monotonic()
        try:
            found, error = call(), ""
        except ApiError as refused:
            found, error = None, str(refused)
        text = "\n".join(found) if isinstance(found, list) else json.dumps(found)
        result = Result(
            shown, 1 if error else 0, "" if error else text, error, time.monotonic() - start, BY_API, given=given
        )
        if "secret" in shown or "secrets" in shown:
            result = result.hide()
        for observe in self.observers:
            observe(result)
        if error:
            raise CommandFailed(result)
        return found

    def _reached(self) -> Objects | None:
        """The objects of the cluster; None if there is no kubeconfig yet, which kubectl then reports.

        Raises:
            InputError: the kubeconfig cannot be used; the message gives the reason.
        """
        if not Path(self.kubeconfig).is_file():
            return None
        try:
            return self._objects
        except Exception as error:  # for a broken file, the client raises errors of many kinds
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(
                f"the kubeconfig {self.kubeconfig} cannot be used: {redact(reason)[:300]}",
                fix="stackbook run --only 02 writes the lab's again; another cluster's comes from its administrator",
            ) from error

    def apply(self, manifest: str | Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> int:
        """Apply a manifest (YAML text or objects) on the server's side, as the field manager `stackbook`.

        Returns:
            How many objects were created or changed.

        Raises:
            CommandFailed: the API server refuses an object.
        """
        items = manifests.objects(manifest)
        flags = ("--server-side", "--force-conflicts", f"--field-manager={FIELD_MANAGER}")
        lines = self._write("apply", flags, items, 60)
        return sum(not line.endswith(" unchanged") for line in lines)

    def delete(self, manifest: str | Mapping[str, Any] | Sequence[Mapping[str, Any]], *, timeout: float = 120.0) -> int:
        """Delete the objects of a manifest and wait until they are gone; missing ones are not an error.

        Returns:
            How many objects were deleted.
        """
        return len(self._write("delete", ("--ignore-not-found",), manifests.objects(manifest), timeout))

    def _write(
        self, verb: str, flags: tuple[str, ...], items: Sequence[Mapping[str, Any]], timeout: float
    ) -> list[str]:
        objects = self._reached()
        if objects is None:  # no kubeconfig: kubectl reports that
            text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
            return self.kubectl(verb, *flags, "-f", "-", stdin=text, timeout=timeout).lines
        write = objects.apply if verb == "apply" else objects.delete
        shown = ("kubectl", verb, *flags, "-f", "-")
        lines: list[str] = self._by_api(shown, lambda: write(items, timeout=timeout), given=manifests.text(items))
        return lines

    @cached_property
    def _objects(self) -> Objects:
        return Objects(self.client, temp_dirs.of_this_process(CREDENTIALS), self.namespace)

    @cached_property
    def client(self) -> Any:
        """The official client's ApiClient for this cluster, with a bounded number of retries.

        The client writes the certificate and key into files. They are in a temporary folder that is removed even if the kernel
        is killed.
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
        """The nodes from the API, sorted by name."""
        return sorted(self.json("get", "nodes")["items"], key=lambda n: str(n["metadata"]["name"]))

    def pods(self, namespace: str, selector: str = "") -> list[dict[str, Any]]:
        """The pods of a namespace that match a label selector, sorted by name, without those that are being deleted."""
        flags = ["-l", selector] if selector else []
        items = self.json("get", "pods", "-n", namespace, *flags)["items"]
        alive = [p for p in items if "deletionTimestamp" not in p["metadata"]]
        return sorted(alive, key=lambda p: str(p["metadata"]["name"]))

    # waiting

    def wait_nodes(self, names: Sequence[str], *, timeout: float = 120.0) -> None:
        """Wait until these nodes are Ready; see `waits.nodes_ready`."""
        waits.nodes_ready(self, names, timeout=timeout)

    def wait_pods(
        self, namespace: str, selector: str = "", *, count: int | None = None, timeout: float = 120.0
    ) -> None:
        """Wait until the pods that match are Ready; see `waits.pods_ready`."""
        waits.pods_ready(self, namespace, selector, count=count, timeout=timeout)

    def wait_rollout(self, namespace: str, workload: str, *, timeout: float = 120.0) -> None:
        """Wait until a rollout is complete; see `waits.rolled_out`."""
        waits.rolled_out(self, namespace, workload, timeout=timeout)

    def explain(self, namespace: str, selector: str = "") -> str:
        """Why pods are not Ready; see `waits.explain`."""
        return waits.explain(self, namespace, selector)

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
        """Run a command in a container of a pod; `target` is like deploy/ratings-v1, or a pod's name."""
        flags = ["-c", container] if container else []
        flags += ["-i"] if stdin is not None else []
        return self.kubectl(
            "exec", "-n", namespace, target, *flags, "--", *argv, timeout=timeout, check=check, stdin=stdin
        )

    @contextlib.contextmanager
    def port_forward(self, namespace: str, target: str, port: int, *, timeout: float = 20.0) -> Iterator[int]:
        """While the block runs, forward a free port of this host's loopback interface to a port of a pod or service.

        Args:
            namespace: the target's namespace.
            target: like svc/productpage or pod/x.
            port: the target's port.
            timeout: deadline for the first connection, in seconds.

        Raises:
            WaitTimeout: kubectl did not start to listen; the message contains its output.
        """
        command = [
            str(self.kubectl_path),
            "port-forward",
            "-n",
            namespace,
            target,
            f":{port}",
            "--address",
            "127.0.0.1",
        ]
        with forwarding(command, self.environment, f"{namespace}/{target}:{port}", timeout) as local:
            yield local

    @contextlib.contextmanager
    def port_kept(self, namespace: str, pod: str, port: int, *, address: str) -> Iterator[None]:
        """While the block runs, keep forwarding the same port of a loopback address; see `port_forward.kept`.

        Args:
            namespace: the pod's namespace.
            pod: its name; it may be replaced by another one with this name.
            port: the port, the same here and there.
            address: an address of this host's loopback interface, 127.0.0.0/8.
        """
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        api, known = self.api, [""]

        def ready() -> str:
            try:
                found = api.read_namespaced_pod(pod, namespace, _request_timeout=5).to_dict()
            except ApiException as error:
                known[0] = "" if error.status == 404 else known[0]
            except HTTPError:
                pass  # the API server does not answer: that says nothing about the pod
            else:
                known[0] = instance(found)
            return known[0]

        command = [str(self.kubectl_path), "port-forward", "-n", namespace, f"pod/{pod}", f"{port}:{port}"]
        with kept([*command, "--address", address], self.environment, ready):
            yield
