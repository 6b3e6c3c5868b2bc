"""Chapter 07: a fault to count, a fault for the wrong users, a broken pod that nobody should notice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from stackbook.core.errors import CheckFailed
from stackbook.lab.attempt import Attempt
from stackbook.lab.challenge import Challenge, Claim, Typed, require
from stackbook.lessons.challenges import workloads
from stackbook.lessons.challenges.traffic import all_answered
from stackbook.mesh import rules

_CHAPTER, _NEEDS = "07-faults", ("05-istio/istio",)
_PAGE = "http://shop/"
_ROUTE = "virtualservices.networking.istio.io"
ANSWER = "answer.yaml"


def answer(attempt: Attempt) -> Mapping[str, Any]:
    """What the learner has written into answer.yaml.

    Raises:
        CheckFailed: it cannot be read, or is not a mapping.
    """
    try:
        found = yaml.safe_load(attempt.read(ANSWER))
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise CheckFailed(f"{ANSWER} is not valid YAML: {' '.join(str(error).split())[:120]}") from error
    require(isinstance(found, dict), f"{ANSWER} has no lines like `name: value`")
    return dict(found)


def _shop(attempt: Attempt, *objects: Any, pods: int = 2) -> None:
    """Deploy one version of shop without a proxy, a client with one, and rules."""
    attempt.space(mesh=True)
    attempt.apply(workloads.echo(attempt), workloads.service(), *objects, workloads.client(attempt))
    workloads.wait(attempt, pods)


def _route(*routes: Mapping[str, Any]) -> dict[str, Any]:
    return rules.virtual_service("shop", *(dict(route) for route in routes))


# 07-a


def _hidden(attempt: Attempt) -> None:
    kind = attempt.draw("kind", ["abort", "delay"])
    percent = attempt.draw("percent", [20, 40, 60])
    fault = rules.fault(abort_percent=percent, abort_status=503) if kind == "abort" else rules.fault(
        delay_percent=percent, delay_seconds=0.4)  # fmt: skip
    _shop(attempt, _route(rules.route(rules.to("shop"), fault=fault)))
    attempt.write(
        ANSWER,
        "# What happens to the requests for http://shop/, and to how many of a hundred?\nkind: # abort or delay\npercent:\n",
    )


def _hidden_claims(attempt: Attempt) -> Sequence[Claim]:
    kind, percent = attempt.drawn["kind"], attempt.drawn["percent"]

    def named() -> str:
        said = answer(attempt).get("kind")
        require(said in ("abort", "delay"), f"kind in {ANSWER} is {said}, which is neither abort nor delay")
        require(said == kind, f"the requests do not show the fault {said}")
        return str(said)

    def counted() -> str:
        said = answer(attempt).get("percent")
        number = isinstance(said, int | float) and not isinstance(said, bool)
        require(number, f"percent in {ANSWER} is {said}, which is not a number")
        near = abs(float(said or 0) - percent) <= 10
        require(near, f"{said} % does not agree with a count of several hundred requests")
        return f"{said} %"

    def gone() -> str:
        found = workloads.ask(attempt, _PAGE, 60, limit=0.35, parallel=2)
        require(found.share() >= 0.97, f"{found} within 0.35 s")
        return f"{found} within 0.35 s"

    return [
        Claim("the answer names the kind of the fault", named),
        Claim("the answer gives the share of requests with the fault, within 10 percentage points", counted),
        Claim("the fault is gone: requests are answered at once", gone),
    ]


def _hidden_solution(attempt: Attempt) -> Sequence[Typed]:
    space = attempt.namespace
    url = f"{_PAGE}?n=[1-200]"
    return [
        Typed(
            f"kubectl -n {space} exec deploy/client-v1 -c client -- \\\n"
            f"  curl -sZ --parallel-max 8 -o /dev/null -w '%{{http_code}} %{{time_total}}\\n' '{url}' \\\n"
            '  | awk \'{print $1, ($2 > 0.3) ? "slow" : "fast"}\' | sort | uniq -c'
        ),
        Typed(f"cat > {ANSWER} <<'END'\nkind: {attempt.drawn['kind']}\npercent: {attempt.drawn['percent']}\nEND"),
        Typed(f"kubectl -n {space} delete virtualservice shop"),
    ]


# 07-b


def _wrong_people(attempt: Attempt) -> None:
    how = attempt.draw("how", ["header", "order"])
    fault = rules.fault(abort_percent=100, abort_status=418)
    header = "user" if how == "header" else "end-user"
    hit = rules.route(rules.to("shop"), headers={header: "jason"}, fault=fault)
    everybody = rules.route(rules.to("shop"))
    _shop(attempt, _route(*([everybody, hit] if how == "order" else [hit, everybody])))


def _people_claims(attempt: Attempt) -> Sequence[Claim]:
    def user() -> str:
        found = workloads.ask(attempt, _PAGE, 20, headers={"end-user": "jason"})
        require(found.share(418) == 1, f"jason gets {found}")
        return str(found)

    def others() -> str:
        found = workloads.ask(attempt, _PAGE, 20, headers={"end-user": "maria"})
        require(found.share() == 1, f"maria gets {found}")
        return str(found)

    def nobody() -> str:
        found = workloads.ask(attempt, _PAGE, 20)
        require(found.share() == 1, f"requests without a user get {found}")
        return str(found)

    return [
        Claim("every request of jason is aborted with 418", user),
        Claim("no request of another user is aborted", others),
        Claim("no request without a user is aborted", nobody),
    ]


def _people_solution(attempt: Attempt) -> Sequence[Typed]:
    space = attempt.namespace
    hit = rules.route(
        rules.to("shop"), headers={"end-user": "jason"}, fault=rules.fault(abort_percent=100, abort_status=418)
    )
    text = rules.as_yaml({**_route(hit, rules.route(rules.to("shop"))), "metadata": {"name": "shop"}})
    return [
        Typed(f"kubectl -n {space} get virtualservice shop -o yaml"),
        Typed(f"kubectl -n {space} delete virtualservice shop"),
        Typed(f"kubectl -n {space} apply -f - <<'END'\n{text}END"),
    ]


# 07-c


def _broken_pod(attempt: Attempt) -> None:
    one = workloads.deployment(
        attempt, "shop", "tools", version="v2", port=0, sidecar=False, command=["sleep", "86400"]
    )
    _shop(attempt, one, _route(rules.route(rules.to("shop"), retries={"attempts": 0})), pods=3)


def _broken_claims(attempt: Attempt) -> Sequence[Claim]:
    def standing() -> str:
        found = workloads.endpoints(attempt)
        workloads.there(attempt, "deployment", "shop-v2")
        require(len(found) >= 2, f"the Service has {len(found)} endpoints, not 2")
        return f"{len(found)} endpoints"

    return [
        all_answered(attempt, 60),
        Claim("the pod that does not answer is still an endpoint of the Service", standing),
    ]


def _broken_solution(attempt: Attempt) -> Sequence[Typed]:
    space = attempt.namespace
    value = '{"attempts": 3, "retryOn": "connect-failure,refused-stream,reset"}'
    patch = f'[{{"op": "replace", "path": "/spec/http/0/retries", "value": {value}}}]'
    return [
        Typed(f"kubectl -n {space} get pods,endpointslices"),
        Typed(f"kubectl -n {space} patch {_ROUTE} shop --type=json -p '{patch}'"),
    ]


CHALLENGES = (
    Challenge(
        id="07-a",
        chapter=_CHAPTER,
        title="A fault to count",
        situation="In the namespace challenge-07-a some requests for http://shop/ go wrong. Nobody knows how many, or in which way.",
        goal="Count, and write into answer.yaml what happens and to which share of the requests. Then remove the fault.",
        hints=(
            "Send several hundred requests from deploy/client-v1, and record the status and the time of each with curl -w.",
            "Either some of them get an error at once, or some of them take longer. Count their share.",
            "The fault is in the VirtualService shop: compare your count with it, then delete the rule.",
        ),
        begin=_hidden,
        claims=_hidden_claims,
        solution=_hidden_solution,
        needs=_NEEDS,
    ),
    Challenge(
        id="07-b",
        chapter=_CHAPTER,
        title="A fault for the wrong users",
        situation="In the namespace challenge-07-b every request of the user jason (header end-user) should be aborted with 418, "
        "for a test. That does not happen.",
        goal="jason's requests get 418, all others get 200.",
        hints=(
            "Ask with `curl -H 'end-user: jason' http://shop/` and without the header. Who gets what?",
            "The first route that matches is taken. A route without a match takes everything.",
            "The route with the fault must come first, and it must match the header end-user.",
        ),
        begin=_wrong_people,
        claims=_people_claims,
        solution=_people_solution,
        needs=_NEEDS,
    ),
    Challenge(
        id="07-c",
        chapter=_CHAPTER,
        title="A broken pod that nobody notices",
        situation="In the namespace challenge-07-c Kubernetes reports two Ready pods of shop, but one does not answer. About half "
        "of the requests fail.",
        goal="No request of the client fails, while the pod stays as it is.",
        hints=(
            "A refused connection fails at once, so a retry is cheap. What does the client's proxy do then, and what could it do?",
            "The VirtualService says how often a request is tried again: look at its retries.",
            "Allow some attempts, with retryOn connect-failure. Or eject the pod with outlierDetection in a DestinationRule.",
        ),
        begin=_broken_pod,
        claims=_broken_claims,
        solution=_broken_solution,
        needs=_NEEDS,
    ),
)
