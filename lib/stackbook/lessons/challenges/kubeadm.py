"""Chapter 02: a static pod with a wrong flag, a kubelet that does not start, a cluster-info with a wrong address."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import datetime, timezone

from stackbook.cluster.problems import node_problem, pod_problem
from stackbook.core.errors import CheckFailed, StackbookError
from stackbook.core.waiting import until
from stackbook.lab.attempt import Attempt
from stackbook.lab.challenge import Challenge, Claim, Typed, require
from stackbook.lessons.kubeadm import control_plane

_CHAPTER, _NEEDS = "02-kubeadm", ("02-kubeadm/control-plane",)
_MANIFESTS = "/etc/kubernetes/manifests"
_FLAGS = "/var/lib/kubelet/kubeadm-flags.env"

# 02-a

_WRONG = {
    "kube-scheduler": ("--leader-elect=", "--leader-elects="),
    "kube-controller-manager": ("--cluster-name=", "--clustername="),
}


def _wrong_flag(attempt: Attempt) -> None:
    name = attempt.draw("component", sorted(_WRONG))
    right, wrong = _WRONG[name]
    attempt.change_file(attempt.master, f"{_MANIFESTS}/{name}.yaml", lambda text: text.replace(right, wrong))
    host = attempt.lab.machines[attempt.master]
    until(lambda: not control_plane.healthy(host, name), what=f"{name} to stop", timeout=60)


def _component_claims(attempt: Attempt) -> Sequence[Claim]:
    name = attempt.drawn["component"]
    host = attempt.lab.machines[attempt.master]

    def healthy() -> str:
        require(control_plane.healthy(host, name), f"{name} does not answer at {control_plane.HEALTH[name]}")
        return "healthy"

    def static() -> str:
        found = attempt.lab.kube.pods("kube-system", f"component={name}")
        require(found, f"the API server has no pod of {name}")
        source = found[0]["metadata"].get("annotations", {}).get("kubernetes.io/config.source")
        require(source == "file", f"{name} was not started from a file")
        require(not pod_problem(found[0]), pod_problem(found[0]))
        return "Ready"

    def elected() -> str:
        """A component that works renews its lease; one that only answers its health check does not."""
        lease = attempt.lab.kube.json("get", "lease", name, "-n", "kube-system")["spec"]
        renewed = datetime.fromisoformat(str(lease["renewTime"]).replace("Z", "+00:00"))
        age = (datetime.now(timezone.utc) - renewed).total_seconds()
        require(age < 10, f"its lease was last renewed {age:.0f} s ago")
        return "renewed just now"

    return [
        Claim(f"{name} reports that it is healthy", healthy),
        Claim(f"it is a static pod, and Ready: {_MANIFESTS}/{name}.yaml", static),
        Claim(f"{name} works: it renews its lease", elected),
    ]


def _component_solution(attempt: Attempt) -> Sequence[Typed]:
    name = attempt.drawn["component"]
    right, wrong = _WRONG[name]
    return [
        Typed(f"tail -qn 2 /var/log/pods/kube-system_{name}-*/{name}/*.log || true", on=attempt.master),
        Typed(f"sed -i 's/{wrong}/{right}/' {_MANIFESTS}/{name}.yaml", on=attempt.master),
    ]


def _component_back(attempt: Attempt) -> None:
    name = attempt.drawn["component"]
    host = attempt.lab.machines[attempt.master]
    until(lambda: control_plane.healthy(host, name), what=f"{name} to be healthy again", timeout=120)


# 02-b

_UNKNOWN = (
    "--pod-manifest-folder=/etc/kubernetes",
    "--runtime-socket=/run/containerd.sock",
    "--cgroup-manager=systemd",
)


def _no_kubelet(attempt: Attempt) -> None:
    flag = attempt.draw("flag", _UNKNOWN)
    attempt.undo(attempt.worker, "sh", "-c", "systemctl reset-failed kubelet; systemctl restart kubelet")
    attempt.change_file(attempt.worker, _FLAGS, lambda text: text.replace('ARGS="', f'ARGS="{flag} '))
    attempt.lab.machines[attempt.worker].run(["systemctl", "restart", "kubelet"], check=False)


def _kubelet_claims(attempt: Attempt) -> Sequence[Claim]:
    name = attempt.worker
    host = attempt.lab.machines[name]

    def runs() -> str:
        said = host.run(["systemctl", "is-active", "kubelet"], check=False).stdout.strip()
        main = host.run(["systemctl", "show", "-p", "NRestarts", "--value", "kubelet"], check=False).stdout.strip()
        require(said == "active", f"the kubelet is {said}, restarted {main} times: see journalctl -u kubelet")
        return "active"

    def answers() -> str:
        url = "http://127.0.0.1:10248/healthz"
        said = host.run(["curl", "-s", "-m", "3", url], check=False).stdout.strip()
        require(said == "ok", f"no answer from {url}")
        return "ok"

    def reports() -> str:
        age = control_plane.lease_ages(attempt.lab.kube).get(name, 999.0)
        require(age < 20, f"the kubelet last reported {age:.0f} s ago")
        node = next(n for n in attempt.lab.kube.nodes() if n["metadata"]["name"] == name)
        # Before chapter 03 a node is not Ready, because it has no pod network: this challenge ignores that.
        problem = node_problem(node)
        require(not problem or "cni" in problem.lower(), problem)
        return problem or "Ready"

    return [
        Claim(f"the kubelet of {name} runs", runs),
        Claim("it reports that it is healthy", answers),
        Claim("it renews its lease, and its node is Ready", reports),
    ]


def _kubelet_solution(attempt: Attempt) -> Sequence[Typed]:
    flag = attempt.drawn["flag"]
    return [
        Typed("journalctl -u kubelet -n 20 --no-pager | grep -m 1 'unknown flag' || true", on=attempt.worker),
        Typed(f"sed -i 's#{flag} ##' {_FLAGS}", on=attempt.worker),
        Typed("systemctl reset-failed kubelet; systemctl restart kubelet", on=attempt.worker),
    ]


def _kubelet_back(attempt: Attempt) -> None:
    claims = _kubelet_claims(attempt)
    until(lambda: [claim.prove() for claim in claims], what="the kubelet to report again", timeout=90,
          tolerate=(StackbookError,))  # fmt: skip


# 02-c

_INFO = ("configmap", "cluster-info")


def _wrong_way(attempt: Attempt) -> None:
    address = attempt.lab.profile.control_plane.address
    wrong = attempt.draw("address", ["192.0.2.3", "198.51.100.3", "203.0.113.3"])

    def change(item: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
        item["data"]["kubeconfig"] = item["data"]["kubeconfig"].replace(f"//{address}:", f"//{wrong}:")
        return item

    attempt.change_object(*_INFO, change, namespace="kube-public")


def _way_claims(attempt: Attempt) -> Sequence[Claim]:
    host = attempt.lab.machines[attempt.worker]
    master = attempt.lab.profile.control_plane.address

    def told() -> str:
        """The API server's address in cluster-info, read without credentials, as `kubeadm join` reads it."""
        url = f"https://{master}:6443/api/v1/namespaces/kube-public/configmaps/cluster-info"
        said = host.run(["curl", "-sk", "-m", "5", url], check=False).stdout
        try:
            text = str(json.loads(said)["data"]["kubeconfig"])
        except (ValueError, KeyError, TypeError) as error:
            raise CheckFailed("a machine without a certificate cannot read cluster-info") from error
        found = re.search(r"server: (\S+)", text)
        require(found, "the kubeconfig in cluster-info names no server")
        return str(found and found[1])

    def leads() -> str:
        server = told()
        done = host.run(["curl", "-sk", "-m", "4", f"{server}/readyz"], check=False, timeout=15)
        require(done.stdout.strip() == "ok", f"{server} does not answer")
        return server

    def certified() -> str:
        said = attempt.lab.kube.json("get", *_INFO, "-n", "kube-public")["data"]["kubeconfig"]
        require("certificate-authority-data" in said, "cluster-info no longer has a CA certificate")
        return "it has the CA certificate"

    return [
        Claim("a new machine can read the API server's address", told),
        Claim("the API server answers the worker at that address", leads),
        Claim("cluster-info still has the CA certificate that identifies the server", certified),
    ]


def _way_solution(attempt: Attempt) -> Sequence[Typed]:
    wrong, right = attempt.drawn["address"], attempt.lab.profile.control_plane.address
    return [
        Typed("kubectl -n kube-public get configmap cluster-info -o jsonpath='{.data.kubeconfig}' | grep server"),
        Typed(
            "kubectl -n kube-public get configmap cluster-info -o yaml \\\n"
            f"  | sed 's#https://{re.escape(wrong)}:#https://{right}:#' | kubectl replace -f -"
        ),
    ]


CHALLENGES = (
    Challenge(
        id="02-a",
        chapter=_CHAPTER,
        title="A static pod with a wrong flag",
        situation="Somebody has edited a manifest of the control plane. The API server answers, but the cluster no longer "
        "does all of its work.",
        goal="Every component of the control plane is healthy, and each is still a static pod.",
        hints=(
            "`kubectl -n kube-system get pods` shows which component has no Ready pod, or none at all.",
            "Its log on the control plane, in /var/log/pods, ends with the reason: a flag that it does not know.",
            "Correct the flag in /etc/kubernetes/manifests. The kubelet watches the folder; nothing has to be restarted.",
        ),
        begin=_wrong_flag,
        claims=_component_claims,
        solution=_component_solution,
        needs=_NEEDS,
        machines=True,
        recovered=_component_back,
    ),
    Challenge(
        id="02-b",
        chapter=_CHAPTER,
        title="A kubelet that does not start",
        situation="The worker's kubelet was given an option that it does not know. Its pods keep running, but nothing manages "
        "them any more.",
        goal="The worker's kubelet runs and reports.",
        hints=(
            "On the worker, `systemctl status kubelet` shows that it starts again and again.",
            "`journalctl -u kubelet` names the flag. kubeadm keeps the kubelet's flags in /var/lib/kubelet.",
            "Remove the flag from /var/lib/kubelet/kubeadm-flags.env, and run `systemctl restart kubelet`.",
        ),
        begin=_no_kubelet,
        claims=_kubelet_claims,
        solution=_kubelet_solution,
        needs=_NEEDS,
        machines=True,
        recovered=_kubelet_back,
    ),
    Challenge(
        id="02-c",
        chapter=_CHAPTER,
        title="Directions that lead nowhere",
        situation="A third machine should join. `kubeadm join` asks the API server where the cluster is, and then waits for a "
        "server that does not answer.",
        goal="The directions for new machines have the API server's real address and the right CA certificate.",
        hints=(
            "kubeadm join reads a ConfigMap that anybody can read, in the namespace kube-public.",
            "`kubectl -n kube-public get configmap cluster-info -o yaml` has a kubeconfig in it. Look at `server:`.",
            "Put the control plane's address there, with `kubectl -n kube-public edit configmap cluster-info`.",
        ),
        begin=_wrong_way,
        claims=_way_claims,
        solution=_way_solution,
        needs=_NEEDS,
        machines=True,
    ),
)
