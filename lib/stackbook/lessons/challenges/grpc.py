"""Chapter 09: a client that sees only one pod, a call that never ends, a port whose calls the mesh does not see."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from stackbook.cluster.problems import pod_problem
from stackbook.lab.attempt import Attempt
from stackbook.lab.challenge import Challenge, Claim, Typed, require
from stackbook.lessons.challenges import workloads
from stackbook.lessons.grpc import server

_CHAPTER = "09-grpc"
_PORT = 50051
_PROGRAM = "/usr/local/bin/greeter-client"
_CLIENT = "greeter-client"


def _greeter(attempt: Attempt, *, mesh: bool, target: str, balancer: str, port: dict[str, Any]) -> None:
    """Deploy two pods of the Greeter, a plain and a headless Service, and a client that calls `target`."""
    attempt.space(mesh=mesh)
    servers = workloads.deployment(
        attempt, "greeter", "greeter-server", port=_PORT, replicas=2, sidecar=False,
        env={"SERVICE_VERSION": "v1", "DRAIN_SECONDS": "0"}, probe={"grpc": {"port": _PORT}},
    )  # fmt: skip
    caller = workloads.deployment(
        attempt, _CLIENT, "greeter-client", port=0, sidecar=mesh,
        env={"TARGET": target, "BALANCER": balancer}, args=["-idle"],
    )  # fmt: skip
    plain = workloads.service("greeter", port=_PORT, **port)
    headless = workloads.service("greeter", port=_PORT, **port)
    headless["metadata"] = {**headless["metadata"], "name": "greeter-headless"}
    headless["spec"] = {**headless["spec"], "clusterIP": "None"}
    attempt.apply(servers, caller, plain, headless)
    workloads.wait(attempt, 3)


def _calls(attempt: Attempt, count: int = 60) -> dict[str, Any]:
    """Make `count` calls over one channel, with the settings of the client's Deployment; returns the client's counts."""
    spec = workloads.there(attempt, "deployment", f"{_CLIENT}-v1")["spec"]["template"]["spec"]
    one = next(c for c in spec["containers"] if c["name"] == _CLIENT)
    env = {entry["name"]: entry.get("value", "") for entry in one.get("env", [])}
    ready = [pod for pod in workloads.pods(attempt, f"app={_CLIENT}") if not pod_problem(pod)]
    require(len(ready) == 1, f"{len(ready)} pods of the client are Ready, not 1")
    argv = [_PROGRAM, "-target", env.get("TARGET", ""), "-balancer", env.get("BALANCER", "")]
    argv += ["-json", "-calls", str(count), "-timeout", "5s", "-interval", "5ms", "-wait-for-ready"]
    done = attempt.lab.kube.exec(
        attempt.namespace, ready[0]["metadata"]["name"], *argv, container=_CLIENT, check=False, timeout=60
    )
    require(done.ok, f"the client fails: {(done.stderr or done.stdout).strip()[-200:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _spread_claims(attempt: Attempt) -> list[Claim]:
    calls = functools.cache(lambda: _calls(attempt))

    def answered() -> str:
        codes = calls()["by_code"]
        require(set(codes) == {"OK"}, f"{codes}")
        return f"{codes['OK']} OK"

    def spread() -> str:
        counts = sorted(int(n) for n in calls()["by_pod"].values())
        require(len(counts) >= 2, f"one pod answered all {sum(counts)} calls")
        require(counts[0] >= 10, f"the calls are spread unevenly: {counts}")
        return f"calls by pod: {counts}"

    def standing() -> str:
        found = [pod for pod in workloads.pods(attempt, "app=greeter") if not pod_problem(pod)]
        require(len(found) == 2, f"{len(found)} pods of the Greeter are Ready, not 2")
        return "two pods are Ready"

    return [
        Claim("every call is answered", answered),
        Claim("both pods of the Greeter answer a share of the calls", spread),
        Claim("the Greeter has two Ready pods", standing),
    ]


# 09-a


def _one_pod(attempt: Attempt) -> None:
    target, balancer = attempt.draw("how", [["greeter", "pick_first"], ["greeter", "round_robin"],
                                            ["greeter-headless", "pick_first"]])  # fmt: skip
    _greeter(attempt, mesh=False, target=f"dns:///{target}:{_PORT}", balancer=balancer, port={"name": "grpc"})


def _one_pod_solution(attempt: Attempt) -> Sequence[Typed]:
    space = attempt.namespace
    return [
        Typed(f"kubectl -n {space} get services"),
        Typed(
            f"kubectl -n {space} set env deployment/{_CLIENT}-v1 \\\n"
            f"  TARGET=dns:///greeter-headless:{_PORT} BALANCER=round_robin"
        ),
        Typed(f"kubectl -n {space} rollout status deployment/{_CLIENT}-v1 --timeout=60s"),
    ]


# 09-b

_FILE = "client.py"
_SLOW = '''"""Greets once: python3 client.py ADDRESS SECONDS, where the server is to work for so long."""

import sys

from stackbook.lessons.grpc import grpc, stubs


def main(address: str, work: float) -> int:
    with grpc.insecure_channel(address) as channel:
        reply = stubs.stub(channel).SayHello(stubs.request("Ada", work=work))
        print(reply.message)
    return 0


sys.exit(main(sys.argv[1], float(sys.argv[2])))
'''
_PATIENT = """        reply = stubs.stub(channel).SayHello(stubs.request("Ada", work=work))
        print(reply.message)
"""
_LIMITED = """        try:
            reply = stubs.stub(channel).SayHello(stubs.request("Ada", work=work), timeout={limit})
        except grpc.RpcError as error:
            print(error.code().name)
            return 1
        print(reply.message)
"""


def _endless(attempt: Attempt) -> None:
    limit = attempt.draw("limit", [0.5, 1.0, 1.5])
    attempt.write(_FILE, _SLOW)
    attempt.write("GOAL", f"Give up after {limit} s: print the name of the status, and exit with 1.\n")


def _run(attempt: Attempt, address: str, work: float) -> tuple[int, str, float]:
    """Run the learner's client for at most 4.5 s; returns its exit status (-1 if it was stopped), its output, and seconds."""
    attempt.read(_FILE)
    start = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, str(attempt.folder / _FILE), address, str(work)], capture_output=True, text=True, timeout=4.5,
            check=False, stdin=subprocess.DEVNULL, cwd=attempt.folder,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return -1, "", time.monotonic() - start
    said = done.stdout.strip() or (done.stderr.strip().splitlines() or [""])[-1][:120]
    return done.returncode, said, time.monotonic() - start


def _endless_claims(attempt: Attempt) -> Sequence[Claim]:
    limit = attempt.drawn["limit"]

    def fast() -> str:
        with server.serving(greeter=server.Greeter(pod="one")) as address:
            status, said, _ = _run(attempt, address, 0)
        require((status, said) == (0, "Hello Ada"), f"the client exits with {status}: {said}")
        return said

    def slow() -> str:
        with server.serving(greeter=server.Greeter(pod="one")) as address:
            status, said, seconds = _run(attempt, address, 6)
        require(status != -1, f"the client still waits after {seconds:.1f} s")
        require(status == 1 and said == "DEADLINE_EXCEEDED", f"the client exits with {status}: {said}")
        return f"{said} after {limit} s, plus the time that Python takes to start"

    def patient() -> str:
        """A deadline that is too short would end calls that are in time."""
        with server.serving(greeter=server.Greeter(pod="one")) as address:
            status, said, _ = _run(attempt, address, round(limit / 2, 2))
        require(
            (status, said) == (0, "Hello Ada"), f"with {limit / 2} s of work, the client exits with {status}: {said}"
        )
        return said

    return [
        Claim("the client greets a server that answers at once", fast),
        Claim(f"if the server takes longer than {limit} s, the client prints DEADLINE_EXCEEDED and exits with 1", slow),
        Claim(f"if the server takes {limit / 2} s, the client waits for the answer", patient),
    ]


def _endless_solution(attempt: Attempt) -> Sequence[Typed]:
    text = _SLOW.replace(_PATIENT, _LIMITED.format(limit=attempt.drawn["limit"]))
    return [Typed(f"cat > {_FILE} <<'END'\n{text}END")]


# 09-c


def _bytes(attempt: Attempt) -> None:
    name = attempt.draw("name", ["tcp", "tcp-greeter"])
    _greeter(attempt, mesh=True, target=f"dns:///greeter:{_PORT}", balancer="pick_first", port={"name": name})


def _bytes_claims(attempt: Attempt) -> Sequence[Claim]:
    def one_channel() -> str:
        spec = workloads.there(attempt, "deployment", f"{_CLIENT}-v1")["spec"]["template"]["spec"]
        env = {e["name"]: e.get("value") for c in spec["containers"] for e in c.get("env", [])}
        require(env.get("BALANCER") == "pick_first", f"BALANCER is {env.get('BALANCER')}, not pick_first")
        return "pick_first"

    return [*_spread_claims(attempt), Claim("the client still uses one connection, to the first address", one_channel)]


def _bytes_solution(attempt: Attempt) -> Sequence[Typed]:
    space = attempt.namespace
    patch = '[{"op": "add", "path": "/spec/ports/0/appProtocol", "value": "grpc"}]'
    return [
        Typed(f"kubectl -n {space} get service greeter -o yaml | grep -A 5 ports"),
        Typed(f"kubectl -n {space} patch service greeter --type=json -p '{patch}'"),
    ]


CHALLENGES = (
    Challenge(
        id="09-a",
        chapter=_CHAPTER,
        title="A client that never sees the second pod",
        situation="In the namespace challenge-09-a the Greeter has two pods, and its client has no sidecar. One pod answers every "
        "call.",
        goal="Both pods answer. The client's environment says where it calls (TARGET) and how it chooses a server (BALANCER).",
        hints=(
            "A Service balances connections, and gRPC keeps one open. How many addresses does the client's TARGET resolve to?",
            "The headless Service resolves to the addresses of all pods. But with pick_first, a client uses only the first one.",
            "Set TARGET=dns:///greeter-headless:50051 and BALANCER=round_robin with `kubectl set env`.",
        ),
        begin=_one_pod,
        claims=_spread_claims,
        solution=_one_pod_solution,
        needs=("03-flannel/ready",),
    ),
    Challenge(
        id="09-b",
        chapter=_CHAPTER,
        title="A call that never ends",
        situation="client.py greets a server. When the server is slow, the client waits for as long as it takes. The file GOAL says "
        "how long it may wait.",
        goal="The client gives up in time, prints the status that it got, and exits with 1. Calls that end in time still succeed.",
        hints=(
            "A call without a deadline may last for ever. Where in client.py is the call?",
            "A method of a stub takes `timeout=` in seconds. When it has passed, the call raises grpc.RpcError.",
            "Give the call its timeout, catch grpc.RpcError, print error.code().name, and return 1.",
        ),
        begin=_endless,
        claims=_endless_claims,
        solution=_endless_solution,
    ),
    Challenge(
        id="09-c",
        chapter=_CHAPTER,
        title="A mesh that sees only bytes",
        situation="In the namespace challenge-09-c the client has a sidecar, which could balance each call. Still, one pod answers "
        "every call.",
        goal="Both pods answer the calls of one connection. The client stays as it is.",
        hints=(
            "How does the sidecar know that a connection carries gRPC? Look at the Service's port.",
            "The port's name says tcp. So the sidecar forwards bytes, and does not see single calls.",
            "Set appProtocol: grpc on the Service's port, or name the port grpc.",
        ),
        begin=_bytes,
        claims=_bytes_claims,
        solution=_bytes_solution,
        needs=("05-istio/istio",),
    ),
)
