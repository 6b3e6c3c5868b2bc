"""The Greeter in the cluster: deployed with and without sidecars, called from a pod, and observed in its logs."""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stackbook.cluster import manifests, own_namespaces
from stackbook.core.errors import CheckFailed, InputError, StackbookError, WaitTimeout
from stackbook.core.waiting import until
from stackbook.lessons.grpc import http2, stubs
from stackbook.mesh import envoy_admin, istio

if TYPE_CHECKING:
    from stackbook.cluster.kube import Kube
    from stackbook.lab.lab import Lab

INSIDE, OUTSIDE = "greeter", "greeter-plain"
PORT = 50051
PODS = {"app=greeter": 4, "app=greeter-client": 1}
LOG_TIMEOUT = 15.0  # seconds; Envoy writes its access log once a second
IMAGES = ("greeter-server", "greeter-client", "tools")


def asked_for(lab: Lab, wanted: bool) -> bool:
    """Whether the part of the chapter that needs a mesh runs; prints it if not.

    Raises:
        CheckFailed: it is requested, but what chapter 05 leaves behind is missing.
    """
    fix = "stackbook run --to 05; or leave this part out: -p mesh False"
    if not wanted:
        lab.record.append("skipped", chapter=lab.chapter.id, part="mesh", reason="the parameter mesh is false")
        print("– the part in the mesh is NOT run, because of mesh=False: this run proves none of its steps")
        print("  it needs chapter 05: stackbook run --to 05")
        return False
    if lab.profile.target == "cluster":
        reason = "it needs two further namespaces of its own"
        lab.record.append("skipped", chapter=lab.chapter.id, part="mesh", reason=reason)
        print(f"– on an existing cluster, the part in the mesh is only read: {reason}")
        return False
    if not lab.kubeconfig.is_file():
        raise CheckFailed("the part in the mesh cannot start: this lab has no cluster", fix=fix)
    with lab.turn("the mesh of chapter 05"):  # other chapters restart its pods
        for check in lab.checks_of("05-istio"):
            try:
                check.prove(lab)
            except StackbookError as error:
                reason = error.message.strip().splitlines()[-1].strip()
                said = f"the part in the mesh cannot start: precondition failed: {check.claim}: {reason}"
                raise CheckFailed(said, fix=fix) from error
    print("✓ the mesh of chapter 05 is ready")
    return True


@contextlib.contextmanager
def namespaces(lab: Lab) -> Iterator[None]:
    """Create two empty namespaces for the block; those that a killed run left behind are deleted first.

    Meanwhile, no other chapter stops istiod, which injects the sidecars and sends them the rules.
    """
    with lab.turn("gRPC in the mesh", of=istio.ISTIOD), own_namespaces.temporary(lab.kube, INSIDE, OUTSIDE):
        try:
            yield
        finally:
            # The namespaces first, so that no ReplicaSet recreates pods; and the pods need not drain, because nothing calls them.
            own_namespaces.delete(lab.kube, INSIDE, OUTSIDE, wait=False)
            for name in (INSIDE, OUTSIDE):
                lab.kube.kubectl("delete", "pods", "--all", "-n", name, "--grace-period=1", "--wait=false", check=False)


def deploy(lab: Lab, *, timeout: float = 120.0) -> tuple[Greeter, Greeter]:
    """Deploy the Greeter in both namespaces and wait until it is Ready; returns the one in the mesh and the other.

    Raises:
        InputError: this lab pulls images, but no registry has these.
        WaitTimeout: a pod does not become Ready; the error names it and the cause.
    """
    images = {f"image_{name.replace('-', '_')}": lab.images.reference(name) for name in IMAGES}
    if not all(images.values()):
        raise InputError("no registry has the Greeter's images", fix="set images: preload in the profile")
    lab.images.load("apps")
    found = tuple(Greeter(lab.kube, namespace) for namespace in (INSIDE, OUTSIDE))
    for greeter in found:
        text = manifests.render("greeter.yaml", inject=str(greeter.namespace == INSIDE).lower(), **images)
        both = f"{text}---\n{manifests.render('greeter-tcp.yaml')}"
        lab.kube.kubectl("apply", "-n", greeter.namespace, "-f", "-", stdin=both)
    for greeter in found:
        for selector, count in PODS.items():
            lab.kube.wait_pods(greeter.namespace, selector, count=count, timeout=timeout)
    return found[0], found[1]


@dataclass(frozen=True)
class Reply:
    """One call by hand: the response's first line, its headers and trailers together, and the message."""

    status_line: str
    headers: Mapping[str, str]
    message: Any

    @property
    def code(self) -> int:
        """The gRPC status as a number: 0 is OK."""
        return int(self.headers.get("grpc-status", "-1"))

    @property
    def time_left(self) -> float:
        """Seconds left of the deadline when the server saw it; 0 if it saw none."""
        left = self.message.time_left
        return float(left.seconds + left.nanos / 1e9) if self.message.HasField("time_left") else 0.0


@dataclass(frozen=True)
class Greeter:
    """The Greeter in one namespace: two versions with two pods each, two Services, and a client in its own pod."""

    kube: Kube
    namespace: str

    def target(self, service: str = "greeter", port: int = PORT) -> str:
        """A service in the form of gRPC's DNS resolver."""
        return f"dns:///{service}.{self.namespace}.svc.cluster.local:{port}"

    def client(self, *flags: str, target: str = "", check: bool = True) -> str:
        """The output of the client in Go; with `check` off, its errors if it fails."""
        argv = ("/usr/local/bin/greeter-client", "-target", target or self.target(), *flags)
        done = self.kube.exec(
            self.namespace, "deploy/greeter-client", *argv, container="greeter-client", check=check, timeout=120
        )
        return (done.stdout + ("" if done.ok else done.stderr)).strip()

    def calls(self, count: int, *flags: str, target: str = "") -> dict[str, Any]:
        """Make `count` calls over one channel; returns how many each pod and version served, and their statuses."""
        text = self.client("-json", "-calls", str(count), "-timeout", "5s", *flags, target=target)
        found: dict[str, Any] = json.loads(text)
        return found

    def too_late(self, *flags: str, tries: int = 5) -> dict[str, Any]:
        """Make one call whose deadline passes.

        If the server's timer is first, it resets the stream: its proxy then reports a fault of the server ("Unavailable"), and a
        client may report a cancelled call. Such a call is repeated. See `failures.deadline`.
        """
        found: dict[str, Any] = {}
        for _ in range(tries):
            found = self.calls(1, *flags)
            if not set(found["by_code"]) & {"Unavailable", "Canceled"}:
                break
        return found

    def exceeded(self, request_id: str, *flags: str, tries: int = 3) -> tuple[dict[str, int], dict[str, Any]]:
        """Make one call whose deadline passes while the server works.

        On a busy host, the deadline may pass before the server has the call. Such a call is repeated, too.

        Args:
            request_id: what `flags` send as the header `x-request-id`.
            flags: the client's, with a deadline that is shorter than the work.
            tries: calls at most.

        Returns:
            The client's statuses with their counts, and the line that the server logged.

        Raises:
            WaitTimeout: no call reached a server.
        """
        for _ in range(tries - 1):
            with contextlib.suppress(WaitTimeout):
                return self.too_late(*flags)["by_code"], self.attempts(request_id)[-1]
        return self.too_late(*flags)["by_code"], self.attempts(request_id)[-1]

    def tools(self, *argv: str, stdin: str | None = None) -> str:
        """A command's output in the container beside the client: it has the same network, and also curl and ss."""
        pod = "deploy/greeter-client"
        return self.kube.exec(self.namespace, pod, *argv, container="tools", stdin=stdin, timeout=60).stdout

    def by_hand(self, *headers: str, name: str = "Ada", work: float = 0.0, host: str = "greeter") -> Reply:
        """Make one SayHello with curl: HTTP/2, the message after its five bytes, and these headers ("name: value")."""
        message = stubs.request(name, work=work).SerializeToString()
        body = base64.b64encode(b"\0" + len(message).to_bytes(4, "big") + message).decode()
        wanted = ("content-type: application/grpc", "te: trailers", *headers)
        curl = ["curl", "-sv", "-m", "20", "--http2-prior-knowledge", "--data-binary", "@-"]
        curl += [part for header in wanted for part in ("-H", header)]
        curl.append(f"http://{host}:{PORT}/helloworld.Greeter/SayHello")
        script = f"base64 -d | {shlex.join(curl)} 2>/tmp/said | base64 -w0; echo; cat /tmp/said"
        answer, _, said = self.tools("sh", "-c", script, stdin=body).partition("\n")
        return reply(answer, said)

    def peers(self) -> list[str]:
        """The addresses to which the client's pod has a connection to port 50051, according to ss."""
        listed = self.tools("ss", "-Htn", "state", "established").splitlines()
        found = {line.split()[3] for line in listed if len(line.split()) >= 4}
        return sorted(address.removeprefix("[::ffff:").replace("]", "") for address in found if _is_call(address))

    def addresses(self) -> dict[str, str]:
        """The servers' pods: name by address."""
        return {str(p["status"]["podIP"]): str(p["metadata"]["name"]) for p in self.pods("greeter")}

    def pods(self, app: str) -> list[dict[str, Any]]:
        """The pods of one application."""
        return self.kube.pods(self.namespace, f"app={app}")

    def table(self) -> list[dict[str, Any]]:
        """The deployed workloads: name, pods, READY as kubectl prints it."""
        rows = []
        for app in ("greeter", "greeter-client"):
            by_version: dict[str, list[str]] = {}
            for pod in self.pods(app):
                by_version.setdefault(pod["metadata"]["labels"]["version"], []).append(istio.ready_column(pod))
            rows += [{"namespace": self.namespace, "workload": f"{app} {version}", "pods": len(columns),
                      "READY": ", ".join(sorted(set(columns)))} for version, columns in sorted(by_version.items())]  # fmt: skip
        return rows

    # logs

    def attempts(self, request_id: str, *, least: int = 1) -> list[dict[str, Any]]:
        """The lines that servers logged for a call, one for each attempt that reached one, in order of time."""
        return self._logged("app=greeter", "greeter", {"request_id": request_id}, least)

    def passed(self, app: str, request_id: str, *, least: int = 1, **values: str) -> list[dict[str, Any]]:
        """The lines of an application's sidecars for a call; Envoy writes them once a second."""
        return self._logged(f"app={app}", "istio-proxy", {"request_id": request_id, **values}, least)

    def _logged(self, selector: str, container: str, wanted: Mapping[str, Any], least: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []

        def enough() -> bool:
            flags = ("-l", selector, "-c", container, "--tail=-1", "--since=120s", "--max-log-requests=8")
            lines = self.kube.kubectl("logs", "-n", self.namespace, *flags).lines
            entries = [json.loads(line) for line in lines if line.startswith("{")]
            found[:] = [entry for entry in entries if wanted.items() <= entry.items()]
            return len(found) >= least

        until(enough, what=f"{least} lines with {dict(wanted)} in the log of {selector} ({container})", timeout=LOG_TIMEOUT,
              every=0.2, last=lambda: f"{len(found)} lines")  # fmt: skip
        return sorted(found, key=lambda entry: str(entry.get("time") or entry.get("start_time")))

    # proxies

    def envoy(self, path: str, *, workload: str = "deploy/greeter-client") -> Any:
        """The JSON that the administration interface of a workload's sidecar returns for a GET."""
        return json.loads(envoy_admin.ask(self.kube, workload, path, namespace=self.namespace))


def request_id() -> str:
    """A new request id. It is not a UUID, because Envoy changes UUIDs to note its tracing decision."""
    return f"lesson-{secrets.token_hex(8)}"


def reply(body: str, said: str) -> Reply:
    """A Reply from the body in base64 and what `curl -v` wrote."""
    lines = [line[2:].rstrip() for line in said.splitlines() if line.startswith("< ")]
    headers = dict(line.split(": ", 1) for line in lines if ": " in line)
    message = stubs.load().messages.HelloReply()
    for data in http2.messages(base64.b64decode(body)):
        message.ParseFromString(data)
    return Reply(lines[0] if lines else said.strip()[-200:], headers, message)


def _is_call(address: str) -> bool:
    return address.endswith(f":{PORT}")
