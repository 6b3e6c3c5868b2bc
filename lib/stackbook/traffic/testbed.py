"""The bench of the chapters about traffic: a pod in the mesh and one outside that send requests, and this host."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from stackbook.cluster import manifests
from stackbook.core.errors import CheckFailed, InputError, WaitTimeout
from stackbook.core.locks import Held, Lock
from stackbook.core.waiting import until
from stackbook.mesh.rules import Rule, destination_rule, found, in_turn, proxies, restore, route, to, virtual_service
from stackbook.traffic.load_client import FromHost, FromPod, Plan, Source, send, with_flags

if TYPE_CHECKING:
    from stackbook.cluster.kube import Kube
    from stackbook.lab.lab import Lab

NAMESPACE = "default"
REVIEWS = "http://reviews:9080/reviews/0"
RATINGS = "http://ratings:9080/ratings/0"
PODS = ("load", "outside")


@dataclass(frozen=True)
class Bench:
    """Where requests come from: `inside` the mesh, `outside` of it in a pod without sidecar, and this `host`."""

    kube: Kube
    ingress: str
    inside: Source
    outside: Source
    host: Source

    @property
    def outside_address(self) -> str:
        """Address of the pod outside the mesh; its server listens on port 9080."""
        return str(self.kube.json("get", "pod", "outside", "-n", NAMESPACE)["status"]["podIP"])

    def compare(
        self,
        plan: Plan,
        variants: Mapping[str, Sequence[Rule]],
        *,
        source: Source | None = None,
        checked: bool = True,
        flags: bool = False,
    ) -> dict[str, pd.DataFrame]:
        """The same traffic under one set of rules after the other, by name; afterwards the rules found before come back.

        Args:
            plan: the traffic.
            variants: sets of rules by name; an empty one is the mesh as it is.
            source: where the traffic comes from; from inside the mesh where none is given.
            checked: refuse rules that the mesh cannot carry out.
            flags: add the response flags of the access log: of the sending proxy, or of the receiving one where only that has any.
        """

        def batch() -> pd.DataFrame:
            frame = send(source or self.inside, plan, app="reviews")
            return self.flagged(frame, receivers="app=reviews") if flags else frame

        frames = {}
        with in_turn(self.kube, checked=checked) as use:
            for name, rules in variants.items():
                use(*rules)
                frame = batch()
                # Where the kubelet has rotated the log meanwhile, it shows the new file only: once more.
                frames[name] = batch() if flags and (frame["flags"] == "").any() else frame
        return frames

    def access_log(self, *pods: str, namespace: str = NAMESPACE, seconds: int = 300) -> list[str]:
        """Lines of the log of the last seconds of a pod's proxy (`load` if none is named), its access log in JSON among them.

        Several pods are named as `kubectl logs` takes them: "-l", a label selector, "--tail=-1".
        """
        flags = ["-c", "istio-proxy", f"--since={seconds}s"]
        return self.kube.kubectl("logs", "-n", namespace, *(pods or ("load",)), *flags, timeout=60).lines

    def flagged(
        self, frame: pd.DataFrame, pod: str = "load", *, namespace: str = NAMESPACE, receivers: str = ""
    ) -> pd.DataFrame:
        """The table with the response flags of a proxy's access log, which Envoy writes once a second.

        A request that is not in the log after 8 s has no flags: the field stays empty.

        Args:
            frame: the requests.
            pod: the one that sent them.
            namespace: the namespace of all of them.
            receivers: label selector of the pods that they reach. Where the sending proxy only passed on an error (status
                500 and above, flags "-"), the flags are those that a receiver's proxy noted; they are waited for as long.
        """
        found = frame

        def complete() -> bool:
            nonlocal found
            found = with_flags(frame, self.access_log(pod, namespace=namespace, seconds=120))
            passed_on = (found["status"] >= 500) & (found["flags"] == "-")
            if receivers and passed_on.any():
                log = self.access_log("-l", receivers, "--tail=-1", namespace=namespace, seconds=120)
                theirs = with_flags(found[passed_on], log)["flags"].replace("", "-")
                found.loc[passed_on, "flags"] = theirs
                return bool((found["flags"] != "").all() and (theirs != "-").all())
            return bool((found["flags"] != "").all())

        with contextlib.suppress(WaitTimeout):
            until(complete, what="each request is in the access log", timeout=8, every=0.3)
        return found

    def passed(self, paths: Sequence[str], pod: str, *, namespace: str = NAMESPACE, wanted: int = 0) -> dict[str, int]:
        """How many requests for each path a proxy's access log has; `wanted` for the last one are waited for, 5 s at most.

        By path and not by id: a gateway stands at the edge, and gives each request a new id.
        """
        counts = dict.fromkeys(paths, 0)

        def complete() -> bool:
            entries = [line for line in self.access_log(pod, namespace=namespace) if line.startswith("{")]
            seen = Counter(json.loads(line).get("path") for line in entries)
            counts.update({path: seen[path] for path in paths})
            return counts[paths[-1]] >= wanted

        with contextlib.suppress(WaitTimeout):
            until(complete, what="the requests are in the access log", timeout=5, every=0.3)
        return counts

    def envoy(self, workload: str, path: str, *, namespace: str = NAMESPACE) -> str:
        """What the administration interface of a workload's proxy answers to GET."""
        ask = ("pilot-agent", "request", "GET", path)
        return self.kube.exec(namespace, workload, *ask, container="istio-proxy", timeout=60).stdout

    @contextlib.contextmanager
    def replicas(self, workload: str, count: int) -> Iterator[None]:
        """So many pods of a Deployment of reviews while the block runs, and then as many as before."""
        name = f"deployment/{workload}"
        before = self.kube.json("get", name, "-n", NAMESPACE)["spec"]["replicas"]
        try:
            self._scale(name, count)
            yield
        finally:
            self._scale(name, before)

    def _scale(self, name: str, count: int) -> None:
        self.kube.kubectl("scale", name, "-n", NAMESPACE, f"--replicas={count}")
        self.kube.wait_rollout(NAMESPACE, name, timeout=90)
        self.settle()

    @contextlib.contextmanager
    def broken_pod(self, lab: Lab) -> Iterator[None]:
        """A pod that the service reviews counts as its version v1, and that answers nothing, while the block runs."""
        text = manifests.render("broken.yaml", image_load=lab.images.reference("load"))
        try:
            self.kube.kubectl("apply", "-n", NAMESPACE, "-f", "-", stdin=text)
            self.kube.wait_pods(NAMESPACE, "broken=yes", count=1, timeout=60)
            self.settle()
            yield
        finally:
            flags = ("-n", NAMESPACE, "-l", "broken=yes", "--ignore-not-found")
            self.kube.kubectl("delete", "pod", *flags, timeout=60)
            self.settle()

    def settle(self, *, timeout: float = 30.0) -> None:
        """Wait until the sending proxy knows just the pods of reviews that there are.

        istiod gathers changes of endpoints before it sends them, for 0.1 s and up to 10 s while more come.

        Raises:
            WaitTimeout: with the addresses that it knows, and those that there are.
        """
        known: set[str] = set()
        wanted: set[str] = set()

        def same() -> bool:
            pods = self.kube.pods(NAMESPACE, "app=reviews")
            wanted.clear()
            wanted.update(str(pod["status"].get("podIP")) for pod in pods)
            known.clear()
            for entry in json.loads(self.envoy("load", "clusters?format=json"))["cluster_statuses"]:
                if entry["name"] == "outbound|9080||reviews.default.svc.cluster.local":
                    hosts = entry.get("host_statuses", [])
                    known.update(host["address"]["socket_address"]["address"] for host in hosts)
            return known == wanted

        until(same, what="the sending proxy knows the pods of reviews", timeout=timeout, every=0.2,
              last=lambda: f"it knows {sorted(known)}, there are {sorted(wanted)}")  # fmt: skip

    def ask(self, url: str, **headers: str) -> Any:
        """The JSON that one request from inside the mesh gets; `_` in a header's name stands for `-`."""
        flags = [part for name, value in headers.items() for part in ("-H", f"{name.replace('_', '-')}: {value}")]
        argv = ("curl", "-sSf", "-m", "10", *flags, url)
        return json.loads(self.kube.exec(NAMESPACE, "load", *argv, container="capture").stdout)

    def clusters(self, workload: str, host: str) -> list[dict[str, Any]]:
        """What a workload's proxy has for a host: subset, balancing, and whether it speaks TLS; by subset."""
        dump = json.loads(self.envoy(workload, "config_dump?resource=dynamic_active_clusters"))
        rows = []
        for entry in dump["configs"]:
            cluster = entry["cluster"]
            direction, _, subset, name = (cluster["name"].split("|") + [""] * 3)[:4]
            if direction == "outbound" and name == host:
                tls = "transport_socket" in cluster or "transport_socket_matches" in cluster
                rows.append({"subset": subset, "balance": cluster.get("lb_policy", "ROUND_ROBIN"), "tls": tls})
        return sorted(rows, key=lambda row: str(row["subset"]))

    def identity(self, workload: str) -> str:
        """The SPIFFE id in the certificate that a workload's proxy shows to others."""
        chains = [
            chain
            for entry in json.loads(self.envoy(workload, "certs"))["certificates"]
            for chain in entry["cert_chain"]
        ]
        names = {name["uri"] for chain in chains for name in chain.get("subject_alt_names", []) if "uri" in name}
        if len(names) != 1:
            raise CheckFailed(f"the proxy of {workload} has {len(names)} identities: {', '.join(sorted(names))}")
        return str(names.pop())

    def knowledge(self, workload: str) -> dict[str, int]:
        """How much a workload's proxy knows: size of its configuration in bytes, and its number of clusters."""
        clusters = json.loads(self.envoy(workload, "clusters?format=json"))["cluster_statuses"]
        return {"bytes": len(self.envoy(workload, "config_dump").encode()), "clusters": len(clusters)}

    def session(self, user: str) -> dict[str, str]:
        """The header with which productpage knows a user: the cookie of its own login form, which asks no password.

        Raises:
            InputError: the user's name is empty, or is no plain text.
            CheckFailed: the login was refused.
        """
        import httpx

        if not user.strip() or not user.isascii() or not user.isprintable():
            raise InputError(f"user is {user!r}", fix="give a name in printable ASCII")
        answer = httpx.post(f"{self.ingress}/login", data={"username": user}, timeout=10, trust_env=False)
        if not answer.cookies:
            raise CheckFailed(f"productpage let {user} not log in: status {answer.status_code}")
        return {"cookie": "; ".join(f"{name}={value}" for name, value in answer.cookies.items())}


def prepare(lab: Lab) -> Bench:
    """Start the two pods, wait until they are Ready, and return the bench; what is there already is kept."""
    kube = lab.kube
    lab.images.load("apps")
    images = {f"image_{name}": lab.images.reference(name) for name in ("load", "echo", "tools")}
    if missing := [name for name, reference in images.items() if not reference]:
        raise InputError(f"there is no {', '.join(missing)} in a registry", fix="set images: preload in the profile")
    _wait_gone(kube)
    kube.kubectl("apply", "-n", NAMESPACE, "-f", "-", stdin=manifests.render("bench.yaml", **images))
    kube.wait_pods(NAMESPACE, "app in (load, outside)", count=2, timeout=90)
    return Bench(
        kube=kube,
        ingress=lab.ingress,
        inside=FromPod(kube, NAMESPACE, "load"),
        outside=FromPod(kube, NAMESPACE, "outside"),
        host=FromHost(lab.local, str(lab.artifacts.path("app-load"))),
    )


def _wait_gone(kube: Kube) -> None:
    """Wait until pods of an earlier bench that are being deleted are gone: applying them again would change nothing."""

    def going() -> list[str]:
        items = kube.json("get", "pods", "-n", NAMESPACE, "-l", "app in (load, outside)")["items"]
        return [item["metadata"]["name"] for item in items if "deletionTimestamp" in item["metadata"]]

    until(lambda: not going(), what="the pods of an earlier bench are gone", timeout=60, every=0.2,
          last=lambda: ", ".join(going()))  # fmt: skip


@contextlib.contextmanager
def restored(lab: Lab) -> Iterator[None]:
    """Afterwards the traffic rules are those that were found; the bench's pods go with the last who has them.

    The pods stay where they were there before the first. What the first found is noted in the lab's state: where a chapter
    was killed before it could give the rules back, the next one does that first. While the block runs, each step of the
    lab's chapter waits for its turn (`Lab.turn`); between steps a chapter has no rules in force, or keeps the turn.
    """
    note = lab.state / "rules.json"
    with contextlib.ExitStack() as stack:
        with lab.turn("the rules found"):
            users = stack.enter_context(_users(lab))
            if users.alone():
                there = sorted({str(pod["metadata"]["name"]) for pod in lab.kube.pods(NAMESPACE)} & set(PODS))
                if held := _noted(note):
                    restore(lab.kube, held["rules"], NAMESPACE)
                    there = held["pods"]
                data = {"rules": found(lab.kube, NAMESPACE), "pods": there}
                note.write_text(json.dumps(data), encoding="utf-8")
            users.share()
            before = found(lab.kube, NAMESPACE)
        try:
            with lab.by_turns():
                yield
        finally:
            with lab.turn("the rules given back"):
                restore(lab.kube, before, NAMESPACE)
                if users.alone():
                    there = (_noted(note) or {}).get("pods", [])
                    if mine := [name for name in PODS if name not in there]:
                        flags = (
                            "--ignore-not-found",
                            "--wait=false",
                        )  # `prepare` waits, where their names are needed again
                        lab.kube.kubectl("delete", "pod", "-n", NAMESPACE, *mine, *flags, timeout=60)
                    note.unlink(missing_ok=True)


@contextlib.contextmanager
def _users(lab: Lab) -> Iterator[Held]:
    """The lock that everybody shares who has the bench, as long as its process lives.

    Whether somebody has it alone is asked within a turn only, so there it can always be shared.
    """
    with Lock(lab.state / "bench.users").held(what="the bench can be shared", timeout=10, shared=True) as users:
        yield users


@contextlib.contextmanager
def used(lab: Lab) -> Iterator[Bench]:
    """The bench for a block that has bookinfo for itself all the while; before and after it, others may have it."""
    with lab.turn("the bench"), restored(lab):
        yield prepare(lab)


def _noted(note: Path) -> dict[str, Any] | None:
    """What the first found who has the bench, or had it when it was killed: rules and pods; None where nobody has it."""
    try:
        data = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) and "rules" in data else None


def given_back(lab: Lab) -> str:
    """Prove that no chapter was ended before it gave the traffic rules back; returns what there is.

    Raises:
        CheckFailed: one was.
    """
    with lab.turn("rules given back"), _users(lab) as users:
        killed = _noted(lab.state / "rules.json") and users.alone()
    if killed:
        raise CheckFailed(
            "a chapter ended before it gave back the traffic rules", fix="run it again: it does that first"
        )
    now = [f"{rule['kind']} {rule['metadata']['name']}" for rule in found(lab.kube, NAMESPACE)]
    return ", ".join(now) or "no traffic rules"


def to_v1(*, retries: Mapping[str, Any] | None = None, **policy: Any) -> list[Rule]:
    """Rules that send all requests for reviews to its version v1, drawn at random among the pods; TLS as each pod can.

    Args:
        retries: of the route; Istio's own where none are given, `{"attempts": 0}` for none at all.
        policy: more of the DestinationRule's trafficPolicy.
    """
    subset = destination_rule("reviews", versions=["v1"], balance="RANDOM", tls="", **policy)
    return [subset, virtual_service("reviews", route(to("reviews", "v1"), retries=retries))]


def unhealthy(kube: Kube) -> list[str]:
    """What of bookinfo and its mesh is not healthy, one line each; empty when all is well."""
    from stackbook.cluster.kube import pod_problem
    from stackbook.mesh.istio import pods_with_sidecar

    pods = kube.pods(NAMESPACE, "app in (productpage, details, reviews, ratings)")
    wrong = [f"{p['metadata']['name']}: {pod_problem(p)}" for p in pods if pod_problem(p)]
    wrong += [f"{name}: no sidecar" for name, has in pods_with_sidecar(pods).items() if not has]
    if len(pods) < 6:
        wrong.append(f"{len(pods)} of 6 bookinfo pods are there")
    known = proxies(kube)
    for pod in pods:
        proxy = known.get(f"{pod['metadata']['name']}.{NAMESPACE}")
        if proxy is None:
            wrong.append(f"{pod['metadata']['name']}: its proxy is not connected to istiod")
        elif proxy.rejected:
            wrong.append(proxy.state)
    return wrong


def own_paths(path: str, names: Iterable[str]) -> dict[str, str]:
    """A path for each name that no request had before: by it, a log with earlier runs can be counted."""
    return {name: f"{path}?{name}-{secrets.token_hex(6)}" for name in names}


def failures(table: Bench, frame: pd.DataFrame) -> list[str]:
    """What was not answered with 200, for an error's text: status, error, and the flags that the sending proxy noted."""
    failed = frame[frame["status"] != 200]
    if failed.empty:
        return []
    told = table.flagged(failed)
    kinds = Counter(zip(told["status"], told["error"], told["flags"], strict=True))
    return [f"{count} × {status} {error} {flags}" for (status, error, flags), count in sorted(kinds.items())]


def statuses(frames: Mapping[str, pd.DataFrame]) -> dict[str, list[int]]:
    """Which statuses each table has."""
    return {name: sorted(set(frame["status"])) for name, frame in frames.items()}
