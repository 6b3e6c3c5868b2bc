"""Chapter 12: a shipper with a wrong password, old lines that are never deleted, one request in a thousand lines."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence

from stackbook.core.errors import CheckFailed, WaitTimeout
from stackbook.core.waiting import until
from stackbook.lab.attempt import Attempt
from stackbook.lab.challenge import Challenge, Claim, Typed, require
from stackbook.lessons.challenges.faults import ANSWER, answer
from stackbook.observability.logs import access_control, client, credentials, loss_accounting, queries, retention
from stackbook.traffic.request_keys import plain_id

_CHAPTER, _NEEDS = "12-logs", ("12-logs/kept",)
_SPACE = credentials.NAMESPACE
_POD = ("elasticsearch-0", "-n", _SPACE, "-c", "elasticsearch")

# 12-a


def _locked_out(attempt: Attempt) -> None:
    """Change the shipper's password in Elasticsearch; the shippers and the Secret keep the old one."""
    attempt.undo_kubectl("exec", *_POD, "--", "cp", "/users/users", "config/users")
    wrong = f"shipper:{credentials.hashed(secrets.token_urlsafe(24))}\n"
    kube = attempt.lab.kube
    kube.exec(_SPACE, "elasticsearch-0", "sh", "-c", "cat > config/users", container="elasticsearch", stdin=wrong)
    until(
        lambda: access_control.attempts(kube)["the shipper reads"] == "401",
        what="the shipper to be refused",
        timeout=30,
    )


def _locked_claims(attempt: Attempt) -> Sequence[Claim]:
    kube = attempt.lab.kube

    def let_in() -> str:
        said = access_control.attempts(kube)["the shipper reads"]
        # The shipper may write but not read: 403 means that its password is accepted, 401 that it is not.
        require(said == "403", f"Elasticsearch answers the shipper with status {said}")
        return "accepted, and may only add"

    def current() -> str:
        began = time.time()
        with client.opened(kube, timeout=30) as store:

            def arrived() -> bool:
                found = loss_accounting.newest(store)
                names = {node["metadata"]["name"] for node in kube.nodes()}
                return names <= {name for name, moment in found.items() if moment >= began - 3}

            try:
                until(arrived, what="new lines of every machine", timeout=6, every=0.5)
            except WaitTimeout as error:
                ages = {name: round(time.time() - moment) for name, moment in loss_accounting.newest(store).items()}
                raise CheckFailed(f"the age of the newest line of each machine, in seconds: {ages}") from error
        return "new lines of every machine arrive"

    def guarded() -> str:
        wrong = access_control.unguarded(kube)
        require(not wrong, "; ".join(wrong))
        return "TLS, and a password for each user"

    return [
        Claim("Elasticsearch accepts the password that the shippers have", let_in),
        Claim("new lines of every machine arrive", current),
        Claim("nobody else gets access", guarded),
    ]


def _locked_solution(attempt: Attempt) -> Sequence[Typed]:
    return [
        Typed(f"kubectl -n {_SPACE} logs daemonset/shipper --tail=3"),
        Typed(
            f"kubectl -n {_SPACE} exec elasticsearch-0 -c elasticsearch -- \\\n  sh -c 'cmp config/users /users/users || true'"
        ),
        Typed(f"kubectl -n {_SPACE} exec elasticsearch-0 -c elasticsearch -- cp /users/users config/users"),
    ]


def _current_again(attempt: Attempt) -> None:
    with client.opened(attempt.lab.kube, timeout=30) as store:
        loss_accounting.wait_current(attempt.lab.kube, store, timeout=60)


# 12-b


def _kept_for_ever(attempt: Attempt) -> None:
    kube = attempt.lab.kube
    days = retention.days(kube)
    age = days + attempt.draw("over", [2, 3, 4])
    attempt.note(days=days, index=retention.index_of(age))

    def suspended(item: dict[str, dict[str, bool]]) -> dict[str, dict[str, bool]]:
        item["spec"]["suspend"] = True
        return item

    attempt.change_object("cronjob", "retention", suspended, namespace=_SPACE)
    with client.opened(kube) as store:
        retention.make_old(store, [age])


def _kept_claims(attempt: Attempt) -> Sequence[Claim]:
    kube = attempt.lab.kube
    days, old = attempt.drawn["days"], attempt.drawn["index"]

    def scheduled() -> str:
        found = retention.days(kube)
        require(found == days, f"old lines are not deleted after {days} days")
        return f"after {days} days"

    def gone() -> str:
        with client.opened(kube) as store:
            found = retention.indices(store)
        require(old not in found, f"the index {old} still exists")
        return f"{len(found)} indices are left"

    def today() -> str:
        with client.opened(kube) as store:
            found = retention.indices(store)
        name = retention.index_of(0)
        require(name in found, f"today's index {name} is gone")
        return f"{name} exists"

    return [
        Claim(f"old lines are deleted every hour, after {days} days", scheduled),
        Claim("the old index is deleted", gone),
        Claim("today's index still exists", today),
    ]


def _kept_solution(attempt: Attempt) -> Sequence[Typed]:
    job = "retention-by-hand"
    return [
        Typed(f"kubectl -n {_SPACE} get cronjobs"),
        Typed(f'kubectl -n {_SPACE} patch cronjob retention -p \'{{"spec": {{"suspend": false}}}}\''),
        Typed(f"kubectl -n {_SPACE} create job --from=cronjob/retention {job}"),
        Typed(f"kubectl -n {_SPACE} wait --for=condition=complete job/{job} --timeout=90s"),
        Typed(f"kubectl -n {_SPACE} delete job {job}"),
    ]


def _old_gone(attempt: Attempt) -> None:
    """Delete the index that the challenge created, if it still exists."""
    with client.opened(attempt.lab.kube) as store:
        there = attempt.drawn["index"] in retention.indices(store)
        if there:
            store.client.indices.delete(index=attempt.drawn["index"])


# 12-c


def _one_in_many(attempt: Attempt) -> None:
    order = attempt.draw("order", list(range(1001, 9999)))
    lab = attempt.lab
    page = f"{lab.ingress}/api/v1/products/0/reviews"
    others = [str(number) for number in range(order - 12, order + 13) if number != order]

    def lines() -> int:
        log = ("logs", "-l", "app=productpage", "-c", "istio-proxy", "--tail=-1", "--since=1h")
        return lab.kube.kubectl(*log).stdout.count(f"order={order}")

    before = lines()
    attempt.note(sent=time.time())
    for numbers in (others[:12], [str(order)], others[12:]):
        url = f"{page}?order={{{','.join(numbers)}}}"
        lab.local.run(["curl", "-sf", "-m", "20", "-o", "/dev/null", url], timeout=60)
    # A proxy writes its access log once a second.
    until(lambda: lines() > before, what="the request to be in the access log", timeout=20)
    attempt.write(
        ANSWER,
        f"# One request asked for the reviews with order={order}.\n"
        "id: # its x-request-id\nservices: [] # productpage, details, reviews, ratings: which of them answered for it?\n",
    )


def _one_claims(attempt: Attempt) -> Sequence[Claim]:
    order = attempt.drawn["order"]

    def lines() -> tuple[str, set[str]]:
        """The request's id and the services whose proxies received it, from Elasticsearch."""
        with client.opened(attempt.lab.kube) as store:

            def found() -> str:
                log = queries.access_log(store, start=attempt.drawn["sent"], services=["productpage"])
                mine = log[log["path"].str.contains(f"order={order}", regex=False)]
                return str(mine["request_id"].iloc[-1]) if len(mine) else ""

            id = until(found, what="the request's line to be found", timeout=20, every=0.5)
            log = queries.access_log(store, requests=[id])
        came = log[log["direction"] == "inbound"]
        return id, set(came["service"])

    def named() -> str:
        said = str(answer(attempt).get("id") or "")
        require(said, f"{ANSWER} has no id")
        id, _ = lines()
        require(plain_id(said) == plain_id(id), f"{said} is the id of another request")
        return said

    def passed() -> str:
        said = answer(attempt).get("services") or []
        require(isinstance(said, list) and said, f"{ANSWER} lists no services")
        _, services = lines()
        require({str(name) for name in said} == services, f"{said} does not agree with the logs")
        return ", ".join(sorted(services))

    return [
        Claim(f"the answer has the id of the request with order={order}", named),
        Claim("the answer lists the services that took part in it, and no others", passed),
    ]


def _one_solution(attempt: Attempt) -> Sequence[Typed]:
    order = attempt.drawn["order"]
    log = "kubectl logs -c istio-proxy --tail=-1 --since=1h"
    return [
        Typed(
            f"id=$({log} -l app=productpage | grep 'order={order}\"' | grep -i inbound | tail -1 \\\n"
            '  | sed \'s/.*"request_id":"\\([^"]*\\)".*/\\1/\')\n'
            'echo "id: $id" > answer.yaml; echo "services:" >> answer.yaml\n'
            "for name in productpage details reviews ratings; do\n"
            f'  if {log} -l app=$name | grep -i inbound | grep -q "$id"; then echo "- $name" >> answer.yaml; fi\n'
            "done\ncat answer.yaml"
        ),
    ]


CHALLENGES = (
    Challenge(
        id="12-a",
        chapter=_CHAPTER,
        title="A shipper with a wrong password",
        situation="For some seconds, no new lines have arrived in Elasticsearch. The shippers run, and so does Elasticsearch.",
        goal="New lines of every machine arrive again, and nobody else gets access.",
        hints=(
            "What do the shippers say? `kubectl -n logging logs daemonset/shipper --tail=5`.",
            "Elasticsearch refuses them. It reads its users from config/users, a copy of /users/users, which is from the Secret.",
            "Copy the file again in the pod: `cp /users/users config/users`. Elasticsearch reads it every second.",
        ),
        begin=_locked_out,
        claims=_locked_claims,
        solution=_locked_solution,
        needs=_NEEDS,
        recovered=_current_again,
    ),
    Challenge(
        id="12-b",
        chapter=_CHAPTER,
        title="Lines that are kept for ever",
        situation="Elasticsearch still has an index that should have been deleted days ago, and its disk fills up.",
        goal="The old index is deleted, and from now on old lines are deleted automatically. Today's lines stay.",
        hints=(
            "Who deletes old indices in this lab, and when did it last run? `kubectl -n logging get cronjobs`.",
            "The CronJob retention is suspended.",
            "Set suspend to false. `kubectl create job --from=cronjob/retention NAME` runs it at once.",
        ),
        begin=_kept_for_ever,
        claims=_kept_claims,
        solution=_kept_solution,
        needs=_NEEDS,
        recovered=_old_gone,
    ),
    Challenge(
        id="12-c",
        chapter=_CHAPTER,
        title="One request in many lines",
        situation="Some customers asked for reviews, each with an order number. One of them complains, and the file answer.yaml says "
        "which. What happened to that request?",
        goal="Write into answer.yaml the request's x-request-id and the services that took part in it.",
        hints=(
            "The access log of productpage's proxy has the path with the order number, and the request's id.",
            "The same id is in the log of every proxy that the request passed. A line with inbound means that a service received it.",
            "`kubectl logs -l app=reviews -c istio-proxy --tail=-1 | grep ID`, for each service; or ask Elasticsearch.",
        ),
        begin=_one_in_many,
        claims=_one_claims,
        solution=_one_solution,
        needs=("12-logs/kept", "05-istio/page"),
    ),
)
