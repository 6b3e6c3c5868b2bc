"""Chapter 06: a subset without pods, mutual TLS switched off, a canary to write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stackbook.analysis import statistics
from stackbook.lab.attempt import Attempt
from stackbook.lab.challenge import Challenge, Claim, Typed, require
from stackbook.lessons.challenges import workloads
from stackbook.mesh import rules
from stackbook.mesh.rules.builders import NETWORKING

_CHAPTER, _NEEDS = "06-traffic", ("05-istio/istio",)
_PAGE = "http://shop/"
_RULE, _ROUTE = "destinationrules.networking.istio.io", "virtualservices.networking.istio.io"
_ALPHA = 0.001
"""The chance that a claim about a share fails although it is true."""


def two_versions(attempt: Attempt, *objects: Any, sidecar: bool = False) -> None:
    """Deploy the service shop in two versions, a client in the mesh, and rules.

    Args:
        attempt: the challenge.
        objects: the rules.
        sidecar: whether shop has proxies, too.
    """
    attempt.space(mesh=True)
    pods = [workloads.echo(attempt, version, sidecar=sidecar) for version in ("v1", "v2")]
    attempt.apply(*pods, workloads.service(), *objects, workloads.client(attempt))
    workloads.wait(attempt, 3)


def subsets(labels: dict[str, str], **policy: Any) -> dict[str, Any]:
    """A DestinationRule for shop; `labels` has the version label of each subset by the subset's name."""
    entries = [{"name": name, "labels": {"version": value}} for name, value in labels.items()]
    spec = {"host": "shop", "subsets": entries, **({"trafficPolicy": policy} if policy else {})}
    return {"apiVersion": NETWORKING, "kind": "DestinationRule", "metadata": {"name": "shop"}, "spec": spec}


def all_answered(attempt: Attempt, count: int = 20, url: str = _PAGE, **more: Any) -> Claim:
    """The claim that every request is answered with 200."""

    def prove() -> str:
        found = workloads.ask(attempt, url, count, **more)
        require(found.share() == 1, str(found))
        return str(found)

    return Claim("every request is answered with 200", prove)


# 06-a


def _no_pods(attempt: Attempt) -> None:
    wrong = attempt.draw("label", ["v22", "2", "version2"])
    two_versions(
        attempt,
        subsets({"v1": "v1", "v2": wrong}),
        rules.virtual_service("shop", rules.route(rules.to("shop", "v2"))),
    )


def _pods_claims(attempt: Attempt) -> Sequence[Claim]:
    def by_v2() -> str:
        found = workloads.ask(attempt, _PAGE, 20).versions()
        require(set(found) == {"v2"}, f"answered by {dict(found) or 'nobody'}")
        return f"{found['v2']} by v2"

    def still() -> str:
        http = workloads.there(attempt, _ROUTE, "shop")["spec"]["http"]
        goals = [r["destination"].get("subset") for entry in http for r in entry.get("route", [])]
        require(set(goals) == {"v2"}, f"the VirtualService sends requests to the subsets {goals}")
        return "subset v2"

    return [
        all_answered(attempt),
        Claim("version 2 answers all of them", by_v2),
        Claim("the VirtualService still sends all requests to the subset v2", still),
    ]


def _pods_solution(attempt: Attempt) -> Sequence[Typed]:
    space = attempt.namespace
    patch = '[{"op": "replace", "path": "/spec/subsets/1/labels/version", "value": "v2"}]'
    return [
        Typed(f"istioctl -n {space} proxy-config endpoint deploy/client-v1 | grep shop || true"),
        Typed(f"kubectl -n {space} get pods -L version"),
        Typed(f"kubectl -n {space} patch {_RULE} shop --type=json -p '{patch}'"),
    ]


# 06-b


def _plain(attempt: Attempt) -> None:
    mode = attempt.draw("mode", ["DISABLE", "SIMPLE"])
    two_versions(
        attempt,
        subsets({"v1": "v1", "v2": "v2"}, tls={"mode": mode}),
        {**rules.peer_authentication("default", "STRICT"), "metadata": {"name": "default"}},
        sidecar=True,
    )


def _tls_claims(attempt: Attempt) -> Sequence[Claim]:
    def mutual() -> str:
        """The receiving proxy adds this header to requests over mutual TLS; it names the caller."""
        found = workloads.ask(attempt, "http://shop/headers", 1)
        require(found.share() == 1, str(found))
        uri = found.text.partition("spiffe://")[2].partition('"')[0].partition(";")[0]
        require("X-Forwarded-Client-Cert" in found.text, "no client certificate arrived")
        return f"from {uri or 'the client'}"

    def refused() -> str:
        """A caller without a certificate: the control plane's machine, or this host if the lab has no machines."""
        host = attempt.lab.local if attempt.lab.profile.target == "cluster" else attempt.lab.control_plane
        got = []
        for address in workloads.endpoints(attempt):
            argv = ["curl", "-s", "-m", "3", "-o", "/dev/null", "-w", "%{http_code}", f"http://{address}/"]
            got.append(host.run(argv, check=False, timeout=10).stdout)
        require(got, "shop has no endpoints")
        require("200" not in got, "a caller without a certificate is answered")
        return "the connection is closed"

    return [
        all_answered(attempt),
        Claim("the client's certificate arrives at shop", mutual),
        Claim("a client without a certificate is refused", refused),
    ]


def _tls_solution(attempt: Attempt) -> Sequence[Typed]:
    space = attempt.namespace
    patch = '[{"op": "replace", "path": "/spec/trafficPolicy/tls", "value": {"mode": "ISTIO_MUTUAL"}}]'
    return [
        Typed(f"kubectl -n {space} logs deploy/client-v1 -c istio-proxy --tail=2"),
        Typed(f"kubectl -n {space} get {_RULE},peerauthentications -o yaml | grep -B 1 mode"),
        Typed(f"kubectl -n {space} patch {_RULE} shop --type=json -p '{patch}'"),
    ]


# 06-c


def _canary(attempt: Attempt) -> None:
    attempt.draw("percent", [10, 20, 30])
    attempt.draw("user", ["jason", "maria", "chen"])
    two_versions(attempt)
    attempt.write("GOAL", _asked(attempt) + "\n")


def _asked(attempt: Attempt) -> str:
    percent, user = attempt.drawn["percent"], attempt.drawn["user"]
    return f"{percent} % of all requests to v2, the others to v1; every request with the header end-user: {user} to v2."


def _canary_claims(attempt: Attempt) -> Sequence[Claim]:
    percent, user = attempt.drawn["percent"], attempt.drawn["user"]

    def shared() -> str:
        found = workloads.ask(attempt, _PAGE, 300, parallel=8)
        require(found.share() == 1, str(found))
        counts = found.versions()
        verdict = statistics.test_share(counts["v2"], sum(counts.values()), percent / 100, alpha=_ALPHA)
        seen = f"{counts['v2']} of {sum(counts.values())} by v2"
        require(verdict.passed, f"{seen}, but {percent} % are wanted")
        return seen

    def chosen() -> str:
        found = workloads.ask(attempt, _PAGE, 30, headers={"end-user": user}).versions()
        require(set(found) == {"v2"}, f"answered by {dict(found) or 'nobody'}")
        return "30 of 30 by v2"

    def others() -> str:
        found = workloads.ask(attempt, _PAGE, 60, headers={"end-user": f"not-{user}"}).versions()
        require(found["v1"] > 30, f"another user is answered by {dict(found)}")
        return "other users mostly get v1"

    return [
        Claim(f"{percent} % of the requests are answered by v2", shared),
        Claim(f"every request of {user} is answered by v2", chosen),
        Claim("that rule applies to this user only", others),
    ]


def _canary_solution(attempt: Attempt) -> Sequence[Typed]:
    percent, user = attempt.drawn["percent"], attempt.drawn["user"]
    text = rules.as_yaml(
        subsets({"v1": "v1", "v2": "v2"}),
        {
            **rules.virtual_service(
                "shop",
                rules.route(rules.to("shop", "v2"), headers={"end-user": user}),
                rules.route(*rules.split("shop", {"v1": 100 - percent, "v2": percent})),
            ),
            "metadata": {"name": "shop"},
        },
    )
    return [Typed(f"kubectl -n {attempt.namespace} apply -f - <<'END'\n{text}END")]


CHALLENGES = (
    Challenge(
        id="06-a",
        chapter=_CHAPTER,
        title="A subset without pods",
        situation="In the namespace challenge-06-a all requests should go to version 2 of shop, whose pod is Ready. The client "
        "gets 503.",
        goal="Version 2 answers every request. The VirtualService still names the subset v2.",
        hints=(
            "Which endpoints does the client's proxy have for the subset? `istioctl proxy-config endpoint deploy/client-v1`.",
            "A subset is a name for labels. Compare those in the DestinationRule with `kubectl get pods --show-labels`.",
            "Correct the label of v2 in the DestinationRule, with `kubectl edit destinationrule shop`.",
        ),
        begin=_no_pods,
        claims=_pods_claims,
        solution=_pods_solution,
        needs=_NEEDS,
    ),
    Challenge(
        id="06-b",
        chapter=_CHAPTER,
        title="Mutual TLS on one side only",
        situation="In the namespace challenge-06-b shop accepts only connections with a certificate of the mesh. The client has "
        "one, but its requests fail.",
        goal="The client's requests are answered, over mutual TLS. A caller without a certificate is still refused.",
        hints=(
            "The log of the client's proxy has a line for each request, with response flags: is the connection established?",
            "A PeerAuthentication says what is accepted; the tls mode of a DestinationRule says what is sent. Compare them.",
            "Set the DestinationRule's trafficPolicy.tls.mode to ISTIO_MUTUAL, or remove the tls part.",
        ),
        begin=_plain,
        claims=_tls_claims,
        solution=_tls_solution,
        needs=_NEEDS,
    ),
    Challenge(
        id="06-c",
        chapter=_CHAPTER,
        title="A canary of your own",
        situation="In the namespace challenge-06-c shop has two versions, and no rule: each answers half of the requests.",
        goal="A small share goes to v2, and one user always gets it. The file GOAL names both; they differ from lab to lab.",
        hints=(
            "A DestinationRule defines the subsets v1 and v2; a VirtualService chooses between them.",
            "Routes are tried in their order: the one with the header match comes first, the one with weights last.",
            "Take the objects of the chapter's section on weights and headers, with host shop. The weights must sum to 100.",
        ),
        begin=_canary,
        claims=_canary_claims,
        solution=_canary_solution,
        needs=_NEEDS,
    ),
)
