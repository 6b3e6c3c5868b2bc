"""The test bed of the chapters about traffic: one pod in the mesh and one outside, and this host, all of which send requests."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from stackbook.cluster import manifests, waits
from stackbook.config.namespaces import here
from stackbook.core.errors import CheckFailed, InputError, WaitTimeout
from stackbook.core.waiting import until
from stackbook.mesh import envoy_admin
from stackbook.mesh.rules import Rule, destination_rule, in_turn, route, to, virtual_service
from stackbook.traffic.load_client import FromHost, FromPod, Plan, Source, send, with_flags

if TYPE_CHECKING:
    from stackbook.cluster.kube import Kube
    from stackbook.lab.lab import Lab

REVIEWS = "http://reviews:9080/reviews/0"
RATINGS = "http://ratings:9080/ratings/0"
PODS = ("load", "outside")


@dataclass(frozen=True)
class Testbed:
    """Where requests come from: `inside` the mesh, `outside` it in a pod without a sidecar, or this `host`."""

    __test__ = False  # pytest takes a class with such a name for tests

    kube: Kube
    ingress: str
    inside: Source
    outside: Source
    host: Source

    @classmethod
    def prepare(cls, lab: Lab) -> Testbed:
        """Start the two pods unless they run already, wait until they are Ready, and return the test bed."""
        kube = lab.kube
        lab.images.load("apps")
        images = {f"image_{name}": lab.images.reference(name) for name in ("load", "echo", "tools")}
        if missing := [name for name, reference in images.items() if not reference]:
            raise InputError(f"no registry has {', '.join(missing)}", fix="set images: preload in the profile")
        gone = "the pods of an earlier test bed to be gone"  # until then, applying them again has no effect
        waits.pods_ended(kube, here().workloads, "app in (load, outside)", what=gone, timeout=60)
        kube.kubectl("apply", "-n", here().workloads, "-f", "-", stdin=manifests.render("testbed.yaml", **images))
        kube.wait_pods(here().workloads, "app in (load, outside)", count=2, timeout=90)
        return cls(
            kube=kube,
            ingress=lab.ingress,
            inside=FromPod(kube, here().workloads, "load"),
            outside=FromPod(kube, here().workloads, "outside"),
            host=FromHost(lab.local, str(lab.artifacts.path("app-load"))),
        )

    @property
    def outside_address(self) -> str:
        """The address of the pod outside the mesh; its server listens on port 9080."""
        return str(self.kube.json("get", "pod", "outside", "-n", here().workloads)["status"]["podIP"])

    def compare(
        self,
        plan: Plan,
        variants: Mapping[str, Sequence[Rule]],
        *,
        source: Source | None = None,
        checked: bool = True,
        flags: bool = False,
    ) -> dict[str, pd.DataFrame]:
        """Send the same traffic under several sets of rules, one after the other; afterwards, restore the earlier rules.

        Args:
            plan: the traffic.
            variants: sets of rules by name; an empty set leaves the mesh as it is.
            source: where the traffic comes from; by default, from inside the mesh.
            checked: refuse rules that the mesh cannot carry out.
            flags: add the response flags of the access log: those of the sending proxy, or else of the receiving one.
        """

        def batch() -> pd.DataFrame:
            if flags:
                return self.noted(lambda: send(source or self.inside, plan, app="reviews"), receivers="app=reviews")
            return send(source or self.inside, plan, app="reviews")

        frames = {}
        with in_turn(self.kube, checked=checked) as use:
            for name, rules in variants.items():
                use(*rules)
                frames[name] = batch()
        return frames

    def access_log(self, *pods: str, namespace: str = "", seconds: int = 300) -> list[str]:
        """The last seconds of a proxy's log, including its access log in JSON; of the pod `load` unless another is named.

        To name several pods, use the arguments of `kubectl logs`: "-l", a label selector, "--tail=-1".
        """
        flags = ["-c", "istio-proxy", f"--since={seconds}s"]
        return self.kube.kubectl(
            "logs", "-n", namespace or here().workloads, *(pods or ("load",)), *flags, timeout=60
        ).lines

    def flagged(
        self, frame: pd.DataFrame, pod: str = "load", *, namespace: str = "", receivers: str = ""
    ) -> pd.DataFrame:
        """The table with the response flags of a proxy's access log, which Envoy writes once a second.

        If a request is not in the log after 8 s, its field stays empty.

        Args:
            frame: the requests.
            pod: the one that sent them.
            namespace: the namespace of all of them; if empty, that of the workloads.
            receivers: label selector of the pods that they reach. If the sending proxy only passed on an error (status 500
                    and above, flags "-"), a receiver's proxy has the flags; the wait for them is as long.
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
            until(complete, what="each request to be in the access log", timeout=8, every=0.3)
        return found

    def noted(self, sent: Callable[[], pd.DataFrame], *, receivers: str = "") -> pd.DataFrame:
        """Send requests, and add the flags as `flagged` does.

        If a request is not in the log, the requests are sent once more: the kubelet has rotated the log meanwhile, and
        shows only the new file.
        """
        frame = self.flagged(sent(), receivers=receivers)
        return self.flagged(sent(), receivers=receivers) if (frame["flags"] == "").any() else frame

    def passed(self, paths: Sequence[str], pod: str, *, namespace: str = "", wanted: int = 0) -> dict[str, int]:
        """How many requests for each path a proxy's access log has; waits at most 5 s for `wanted` requests for the last path.

        It counts by path, not by id, because a gateway at the edge gives each request a new id.
        """
        counts = dict.fromkeys(paths, 0)

        def complete() -> bool:
            entries = [line for line in self.access_log(pod, namespace=namespace) if line.startswith("{")]
            seen = Counter(json.loads(line).get("path") for line in entries)
            counts.update({path: seen[path] for path in paths})
            return counts[paths[-1]] >= wanted

        with contextlib.suppress(WaitTimeout):
            until(complete, what="the requests to be in the access log", timeout=5, every=0.3)
        return counts

    @contextlib.contextmanager
    def replicas(self, workload: str, count: int) -> Iterator[None]:
        """Scale a Deployment of reviews while the block runs, and then back."""
        name = f"deployment/{workload}"
        before = self.kube.json("get", name, "-n", here().workloads)["spec"]["replicas"]
        try:
            self._scale(name, count)
            yield
        finally:
            self._scale(name, before)

    def _scale(self, name: str, count: int) -> None:
        self.kube.kubectl("scale", name, "-n", here().workloads, f"--replicas={count}")
        self.kube.wait_rollout(here().workloads, name, timeout=90)
        self.settle()

    @contextlib.contextmanager
    def broken_pod(self, lab: Lab) -> Iterator[None]:
        """Run a pod that belongs to version v1 of reviews and that never answers, while the block runs."""
        text = manifests.render("broken.yaml", image_load=lab.images.reference("load"))
        try:
            self.kube.kubectl("apply", "-n", here().workloads, "-f", "-", stdin=text)
            self.kube.wait_pods(here().workloads, "broken=yes", count=1, timeout=60)
            self.settle()
            yield
        finally:
            flags = ("-n", here().workloads, "-l", "broken=yes", "--ignore-not-found")
            self.kube.kubectl("delete", "pod", *flags, timeout=60)
            self.settle()

    def settle(self, *, timeout: float = 30.0) -> None:
        """Wait until the sending proxy knows exactly the pods of reviews that exist.

        istiod collects changes of endpoints before it sends them: for 0.1 s, or up to 10 s while more arrive.

        Raises:
            WaitTimeout: it does not; the error has the addresses that it knows and those that exist.
        """
        known: set[str] = set()
        wanted: set[str] = set()

        def same() -> bool:
            nonlocal known, wanted
            wanted = {str(pod["status"].get("podIP")) for pod in self.kube.pods(here().workloads, "app=reviews")}
            known = envoy_admin.endpoints(self.kube, "load", f"outbound|9080||{here().host('reviews')}")
            return known == wanted

        until(same, what="the sending proxy to know the pods of reviews", timeout=timeout, every=0.2,
              last=lambda: f"it knows {sorted(known)}; the pods have {sorted(wanted)}")  # fmt: skip

    def ask(self, url: str, **headers: str) -> Any:
        """Send one request from inside the mesh, and return its JSON; `_` in a header's name stands for `-`."""
        flags = [part for name, value in headers.items() for part in ("-H", f"{name.replace('_', '-')}: {value}")]
        argv = ("curl", "-sSf", "-m", "10", *flags, url)
        return json.loads(self.kube.exec(here().workloads, "load", *argv, container="capture").stdout)

    def failures(self, frame: pd.DataFrame) -> list[str]:
        """The requests without a 200, as lines for an error message: status, error, and the flags of the sending proxy."""
        failed = frame[frame["status"] != 200]
        if failed.empty:
            return []
        told = self.flagged(failed)
        kinds = Counter(zip(told["status"], told["error"], told["flags"], strict=True))
        return [f"{count} × {status} {error} {flags}" for (status, error, flags), count in sorted(kinds.items())]

    def session(self, user: str) -> dict[str, str]:
        """The header by which productpage recognises a user: the cookie of its own login form, which asks for no password.

        Raises:
            InputError: the user's name is empty, or is not printable ASCII.
            CheckFailed: the login was refused.
        """
        import httpx

        if not user.strip() or not user.isascii() or not user.isprintable():
            raise InputError(f"user is {user!r}", fix="give a name in printable ASCII")
        answer = httpx.post(f"{self.ingress}/login", data={"username": user}, timeout=10, trust_env=False)
        if not answer.cookies:
            raise CheckFailed(f"productpage refused the login of {user}: status {answer.status_code}")
        return {"cookie": "; ".join(f"{name}={value}" for name, value in answer.cookies.items())}


def to_v1(*, retries: Mapping[str, Any] | None = None, **policy: Any) -> list[Rule]:
    """Rules that send all requests for reviews to random pods of its version v1, with TLS if the pod supports it.

    Args:
        retries: the route's retries; by default Istio's own; `{"attempts": 0}` disables them.
        policy: further fields of the DestinationRule's trafficPolicy.
    """
    subset = destination_rule("reviews", versions=["v1"], balance="RANDOM", tls="", **policy)
    return [subset, virtual_service("reviews", route(to("reviews", "v1"), retries=retries))]


def own_paths(path: str, names: Iterable[str]) -> dict[str, str]:
    """A new path for each name: it separates these requests from those of earlier runs in the same log."""
    return {name: f"{path}?{name}-{secrets.token_hex(6)}" for name in names}


def statuses(frames: Mapping[str, pd.DataFrame]) -> dict[str, list[int]]:
    """The statuses that occur in each table."""
    return {name: sorted(set(frame["status"])) for name, frame in frames.items()}
