"""Chapter 04: a selector that matches nothing, a probe that never passes, a pod that fits nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stackbook.cluster import addresses
from stackbook.cluster.problems import pod_problem
from stackbook.lab.attempt import Attempt
from stackbook.lab.challenge import Challenge, Claim, Typed, require
from stackbook.lessons.challenges import workloads

_CHAPTER, _NEEDS = "04-kubernetes", ("03-flannel/ready",)
_SHOP = "deployment", "shop-v1"


def _answers(attempt: Attempt) -> str:
    """Send a request to the Service's ClusterIP from a machine."""
    address = addresses.cluster_ip(attempt.lab.kube, attempt.namespace, "shop")
    lab = attempt.lab
    host = lab.local if lab.profile.target == "cluster" else lab.control_plane
    done = host.run(["curl", "-sS", "-m", "8", f"http://{address}/"], check=False, timeout=20)
    require(
        "Hello MyApp" in done.stdout,
        done.stderr.strip() or done.stdout.strip()[:100] or f"an empty answer; curl's exit status is {done.rc}",
    )
    return "Hello MyApp"


def _ready(attempt: Attempt, count: int) -> str:
    found = workloads.pods(attempt, "app=shop")
    problems = {pod["metadata"]["name"]: pod_problem(pod) for pod in found if pod_problem(pod)}
    said = "; ".join(f"{name}: {problem}" for name, problem in problems.items())
    require(len(found) >= count and not problems, said or f"shop has {len(found)} pods, not {count}")
    return f"{len(found)} Ready"


def _service_claims(attempt: Attempt, count: int) -> list[Claim]:
    def behind() -> str:
        wanted = sorted(str(pod["status"].get("podIP")) for pod in workloads.pods(attempt, "app=shop"))
        found = workloads.endpoints(attempt)
        require(
            len(found) >= count and found == wanted,
            f"the Service has {len(found)} endpoints, but there are {len(wanted)} pods",
        )
        return f"{len(found)} endpoints"

    return [
        Claim("the Service has the pods of shop as its endpoints", behind),
        Claim("the Service answers at its ClusterIP", lambda: _answers(attempt)),
    ]


# 04-a


def _no_match(attempt: Attempt) -> None:
    key, value = attempt.draw("selector", [["app", "shops"], ["app", "Shop"], ["name", "shop"]])
    attempt.space()
    attempt.apply(workloads.echo(attempt, replicas=2), workloads.service(selector={key: value}))
    workloads.wait(attempt, 2)


def _match_claims(attempt: Attempt) -> Sequence[Claim]:
    def untouched() -> str:
        labels = workloads.there(attempt, *_SHOP)["spec"]["template"]["metadata"]["labels"]
        require(labels.get("app") == "shop", f"the pods' labels are {labels}")
        return "app=shop"

    return [*_service_claims(attempt, 2), Claim("the pods still have the label app=shop", untouched)]


def _match_solution(attempt: Attempt) -> Sequence[Typed]:
    space = attempt.namespace
    patch = '[{"op": "replace", "path": "/spec/selector", "value": {"app": "shop"}}]'
    return [
        Typed(f"kubectl -n {space} get pods --show-labels"),
        Typed(f"kubectl -n {space} get service shop -o wide"),
        Typed(f"kubectl -n {space} patch service shop --type=json -p '{patch}'"),
    ]


# 04-b


def _no_pass(attempt: Attempt) -> None:
    probe = attempt.draw("probe", [{"path": "/ready", "port": 80}, {"path": "/healthz", "port": 8080}])
    attempt.space()
    attempt.apply(workloads.echo(attempt, replicas=2, probe={"httpGet": probe}), workloads.service())


def _pass_claims(attempt: Attempt) -> Sequence[Claim]:
    def probed() -> str:
        spec = workloads.there(attempt, *_SHOP)["spec"]["template"]["spec"]["containers"][0]
        require(spec.get("readinessProbe"), "the Deployment no longer has a readiness probe")
        return "it has a readiness probe"

    return [
        Claim("two pods of shop are Ready", lambda: _ready(attempt, 2)),
        *_service_claims(attempt, 2),
        Claim("the Deployment still has a readiness probe", probed),
    ]


def _pass_solution(attempt: Attempt) -> Sequence[Typed]:
    space = attempt.namespace
    value = '{"httpGet": {"path": "/healthz", "port": 80}, "periodSeconds": 1}'
    patch = f'[{{"op": "replace", "path": "/spec/template/spec/containers/0/readinessProbe", "value": {value}}}]'
    return [
        Typed(f"kubectl -n {space} get pods"),
        Typed(f"kubectl -n {space} get events --field-selector reason=Unhealthy"),
        Typed(f"kubectl -n {space} patch deployment shop-v1 --type=json -p '{patch}'"),
        Typed(f"kubectl -n {space} rollout status deployment/shop-v1 --timeout=60s"),
    ]


# 04-c

_WHY: dict[str, dict[str, Any]] = {
    "cpu": {"resources": {"requests": {"cpu": "4096"}}},
    "memory": {"resources": {"requests": {"memory": "400Ti"}}},
    "disk": {},
}


def _no_place(attempt: Attempt) -> None:
    why = attempt.draw("why", sorted(_WHY))
    item = workloads.echo(attempt, **_WHY[why])
    if why == "disk":
        item["spec"]["template"]["spec"]["nodeSelector"] = {"disk": "ssd"}
    attempt.space()
    attempt.apply(item, workloads.service())


def _place_claims(attempt: Attempt) -> Sequence[Claim]:
    def placed() -> str:
        found = workloads.pods(attempt, "app=shop")
        waiting = [pod for pod in found if not pod["spec"].get("nodeName")]
        if not found or waiting:
            said = [c.get("message", "") for pod in waiting for c in pod["status"].get("conditions", [])]
            require(False, next((text for text in said if text), "no pod is scheduled"))
        return f"on {', '.join(sorted({str(pod['spec']['nodeName']) for pod in found}))}"

    def labels() -> str:
        """A new label on a node would change the lab instead of the Deployment."""
        own = [n["metadata"]["name"] for n in attempt.lab.kube.nodes() if "disk" in n["metadata"].get("labels", {})]
        require(not own, f"the label disk was added to {', '.join(own)}")
        return "no node was changed"

    return [
        Claim("the scheduler has found a node", placed),
        Claim("the pod of shop is Ready", lambda: _ready(attempt, 1)),
        Claim("the Service answers at its ClusterIP", lambda: _answers(attempt)),
        Claim("the Deployment was changed, and not the nodes", labels),
    ]


def _place_solution(attempt: Attempt) -> Sequence[Typed]:
    space, why = attempt.namespace, attempt.drawn["why"]
    if why == "disk":
        patch = '[{"op": "remove", "path": "/spec/template/spec/nodeSelector"}]'
        mend = f"kubectl -n {space} patch deployment shop-v1 --type=json -p '{patch}'"
    else:
        amount = {"cpu": "cpu=10m", "memory": "memory=16Mi"}[why]
        mend = f"kubectl -n {space} set resources deployment shop-v1 --requests={amount}"
    return [
        Typed(f"kubectl -n {space} describe pods | grep -A 3 FailedScheduling || true"),
        Typed(mend),
        Typed(f"kubectl -n {space} rollout status deployment/shop-v1 --timeout=60s"),
    ]


CHALLENGES = (
    Challenge(
        id="04-a",
        chapter=_CHAPTER,
        title="A Service with no pods behind it",
        situation="In the namespace challenge-04-a two pods of shop are Ready. Their Service refuses every connection.",
        goal="The Service answers, with both pods as its endpoints. The pods stay as they are.",
        hints=(
            "`kubectl -n challenge-04-a get endpointslices`: how many endpoints does the Service have?",
            "A Service selects pods by labels. Compare its selector with `kubectl get pods --show-labels`.",
            "Change the selector to app=shop, with `kubectl edit service shop`. A merge patch only adds labels to a selector.",
        ),
        begin=_no_match,
        claims=_match_claims,
        solution=_match_solution,
        needs=_NEEDS,
    ),
    Challenge(
        id="04-b",
        chapter=_CHAPTER,
        title="Running, but never Ready",
        situation="In the namespace challenge-04-b the pods of shop run and do not restart. But they get no requests.",
        goal="Both pods are Ready and the Service answers. The Deployment still has a readiness probe.",
        hints=(
            "`kubectl -n challenge-04-b get pods` shows 0/1. Who decides that a pod is Ready?",
            "`kubectl -n challenge-04-b get events` shows the probe's result: what does it request, and what does shop serve?",
            "Let the readiness probe request /healthz on port 80, with `kubectl edit deployment shop-v1`.",
        ),
        begin=_no_pass,
        claims=_pass_claims,
        solution=_pass_solution,
        needs=_NEEDS,
    ),
    Challenge(
        id="04-c",
        chapter=_CHAPTER,
        title="A pod that fits nowhere",
        situation="In the namespace challenge-04-c the pod of shop is Pending. No kubelet knows about it.",
        goal="The pod runs on a node and the Service answers. The nodes stay as they are.",
        hints=(
            "Only the scheduler has handled a pod without a node. `kubectl -n challenge-04-c describe pods` shows its message.",
            "The Deployment asks for something that no node has: compare it with `kubectl describe nodes`.",
            "Remove that requirement from the Deployment, with `kubectl edit deployment shop-v1`.",
        ),
        begin=_no_place,
        claims=_place_claims,
        solution=_place_solution,
        needs=_NEEDS,
    ),
)
