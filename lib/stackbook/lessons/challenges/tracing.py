"""Chapter 11: a service that does not forward the trace's headers, a namespace that is hardly traced, spans that go nowhere."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Sequence
from typing import Any

import pandas as pd

from stackbook.core.errors import WaitTimeout
from stackbook.core.waiting import until
from stackbook.lab.attempt import Attempt
from stackbook.lab.challenge import Challenge, Claim, Typed, require
from stackbook.lessons.challenges import workloads
from stackbook.observability.tracing.jaeger import Jaeger
from stackbook.observability.tracing.telemetry import PROVIDER, RESOURCE

_CHAPTER, _NEEDS = "11-tracing", ("11-tracing/jaeger", "05-istio/istio")
_SWITCH = "FORWARD_TRACE_HEADERS"
_ARRIVE = 8.0
"""Seconds to wait for spans: a proxy sends them when it has five, or after at most five seconds."""


def _service(attempt: Attempt, name: str, version: str, **env: str) -> list[dict[str, Any]]:
    picture = f"bookinfo-{name}-{version}"
    known = {"SERVICE": name, "SERVICE_VERSION": version, "DRAIN_SECONDS": "0", **env}
    probe = {"httpGet": {"path": "/health", "port": 9080}}
    one = workloads.deployment(attempt, name, picture, version=version, port=9080, env=known, probe=probe)
    return [one, workloads.service(name, port=9080)]


def _probe(attempt: Attempt, url: str) -> str:
    """Send one request that is part of a trace of its own; returns the trace's id."""
    trace = secrets.token_hex(16)
    got = workloads.ask(attempt, url, 1, headers={"traceparent": f"00-{trace}-{secrets.token_hex(8)}-01"})
    require(got.share() == 1, f"{url} answers {got}")
    return trace


def _spans(attempt: Attempt, trace: str, services: set[str]) -> pd.DataFrame:
    """The spans of a trace, once it has spans of all these services, or after `_ARRIVE` seconds."""
    frame = pd.DataFrame(columns=["service"])
    with Jaeger(attempt.lab.kube) as jaeger:

        def complete() -> bool:
            nonlocal frame
            frame = jaeger.traces([trace])
            return services <= set(frame["service"])

        with contextlib.suppress(WaitTimeout):
            until(complete, what="the spans to arrive", timeout=_ARRIVE, every=0.3)
    return frame


# 11-a


def _keeps(attempt: Attempt) -> None:
    value = attempt.draw("value", ["false", "0", "F"])
    attempt.space(mesh=True)
    parts = [*_service(attempt, "reviews", "v3", **{_SWITCH: value}), *_service(attempt, "ratings", "v1")]
    attempt.apply(*parts, workloads.client(attempt, sidecar=False))
    workloads.wait(attempt, 3)


def _keeps_claims(attempt: Attempt) -> Sequence[Claim]:
    names = {f"{app}.{attempt.namespace}" for app in ("reviews", "ratings")}

    def whole() -> str:
        frame = _spans(attempt, _probe(attempt, "http://reviews:9080/reviews/0"), names)
        missing = names - set(frame["service"])
        seen = f"{len(frame)} spans of {', '.join(sorted(set(frame['service']))) or 'no service'}"
        require(not missing, f"{seen}; {', '.join(sorted(missing))} is in another trace")
        return seen

    def asked() -> str:
        got = workloads.ask(attempt, "http://reviews:9080/reviews/0", 1)
        require('"stars"' in got.text, "the reviews have no stars: reviews did not call ratings")
        return "with stars"

    return [
        Claim("reviews calls ratings", asked),
        Claim("a request to reviews and the call to ratings are one trace", whole),
    ]


def _keeps_solution(attempt: Attempt) -> Sequence[Typed]:
    space = attempt.namespace
    return [
        Typed(f"kubectl -n {space} set env deployment/reviews-v3 --list"),
        Typed(f"kubectl -n {space} set env deployment/reviews-v3 {_SWITCH}-"),
        Typed(f"kubectl -n {space} rollout status deployment/reviews-v3 --timeout=90s"),
    ]


# 11-b and 11-c


def _telemetry(attempt: Attempt, tracing: dict[str, Any]) -> None:
    """Deploy a client with a proxy, shop without one, and a Telemetry resource of the namespace."""
    attempt.space(mesh=True)
    rule = {"apiVersion": "telemetry.istio.io/v1", "kind": "Telemetry", "metadata": {"name": "tracing"},
            "spec": {"tracing": [tracing]}}  # fmt: skip
    attempt.apply(workloads.echo(attempt), workloads.service(), rule, workloads.client(attempt))
    workloads.wait(attempt, 2)


def _rarely(attempt: Attempt) -> None:
    percent = attempt.draw("percent", [0, 0.1, 1])
    _telemetry(attempt, {"providers": [{"name": PROVIDER}], "randomSamplingPercentage": percent})


def _rarely_claims(attempt: Attempt) -> Sequence[Claim]:
    wanted = 10

    def traced() -> str:
        began = time.time()
        got = workloads.ask(attempt, "http://shop/", wanted)
        require(got.share() == 1, str(got))
        found = 0
        with Jaeger(attempt.lab.kube) as jaeger:

            def all_there() -> bool:
                nonlocal found
                frame = jaeger.find(f"client.{attempt.namespace}", since=began - 1)
                found = int(frame["trace_id"].nunique())
                return found >= wanted

            with contextlib.suppress(WaitTimeout):
                until(all_there, what="the traces to arrive", timeout=_ARRIVE, every=0.5)
        require(found >= wanted, f"{found} of {wanted} requests have a trace")
        return f"{found} of {wanted}"

    return [Claim(f"{wanted} requests without trace headers become {wanted} traces", traced)]


def _rarely_solution(attempt: Attempt) -> Sequence[Typed]:
    space = attempt.namespace
    patch = '[{"op": "add", "path": "/spec/tracing/0/randomSamplingPercentage", "value": 100}]'
    return [
        Typed(f"kubectl get {RESOURCE} -A"),
        Typed(f"kubectl -n {space} get {RESOURCE} tracing -o yaml"),
        Typed(f"kubectl -n {space} patch {RESOURCE} tracing --type=json -p '{patch}'"),
    ]


_NOWHERE: dict[str, dict[str, Any]] = {
    "provider": {"providers": [{"name": "jeager"}], "randomSamplingPercentage": 100},
    "disabled": {"disableSpanReporting": True},
}


def _nowhere(attempt: Attempt) -> None:
    _telemetry(attempt, _NOWHERE[attempt.draw("how", sorted(_NOWHERE))])


def _nowhere_claims(attempt: Attempt) -> Sequence[Claim]:
    name = f"client.{attempt.namespace}"

    def reported() -> str:
        frame = _spans(attempt, _probe(attempt, "http://shop/"), {name})
        require(name in set(frame["service"]), f"Jaeger has no span of {name}")
        return f"{len(frame)} span"

    return [Claim("a request with trace headers leaves a span of the client's proxy", reported)]


def _nowhere_solution(attempt: Attempt) -> Sequence[Typed]:
    space = attempt.namespace
    value = f'[{{"providers": [{{"name": "{PROVIDER}"}}], "randomSamplingPercentage": 100}}]'
    patch = f'[{{"op": "replace", "path": "/spec/tracing", "value": {value}}}]'
    return [
        Typed("kubectl -n istio-system get configmap istio -o yaml | grep -A 8 extensionProviders"),
        Typed(f"kubectl -n {space} get {RESOURCE} tracing -o yaml"),
        Typed(f"kubectl -n {space} patch {RESOURCE} tracing --type=json -p '{patch}'"),
    ]


CHALLENGES = (
    Challenge(
        id="11-a",
        chapter=_CHAPTER,
        title="A trace that breaks in two",
        situation="In the namespace challenge-11-a reviews calls ratings for stars. In Jaeger, the call to ratings is a separate trace, "
        "and nothing shows what caused it.",
        goal="A request to reviews, and the call to ratings that it causes, are one trace.",
        hints=(
            "A proxy sees a request go in and another come out. Who is the only one to know that they belong together?",
            "The program must forward the trace's headers. How is reviews-v3 configured? Look at its environment.",
            "FORWARD_TRACE_HEADERS switches that off. Remove it: `kubectl set env deployment/reviews-v3 FORWARD_TRACE_HEADERS-`.",
        ),
        begin=_keeps,
        claims=_keeps_claims,
        solution=_keeps_solution,
        needs=_NEEDS,
    ),
    Challenge(
        id="11-b",
        chapter=_CHAPTER,
        title="Requests that leave no trace",
        situation="In the namespace challenge-11-b the client sends requests to shop. The mesh traces the requests of every other "
        "namespace, but hardly any of these.",
        goal="Every request of the client becomes a trace, even without trace headers.",
        hints=(
            "Send ten requests from deploy/client-v1, and look for the service client.challenge-11-b in Jaeger.",
            "Telemetry resources set the share of requests that is traced. That of a namespace overrides that of the mesh.",
            "Set randomSamplingPercentage to 100 in the Telemetry of the namespace, or delete it.",
        ),
        begin=_rarely,
        claims=_rarely_claims,
        solution=_rarely_solution,
        needs=_NEEDS,
    ),
    Challenge(
        id="11-c",
        chapter=_CHAPTER,
        title="Spans that go nowhere",
        situation="In the namespace challenge-11-c the client's requests have trace headers, so they are part of a trace. But the "
        "client's proxy adds no span to it.",
        goal="A request with trace headers leaves a span of the client's proxy in its trace.",
        hints=(
            "Where does a proxy send its spans? `istioctl proxy-config bootstrap` and the Telemetry resources show it.",
            "A Telemetry resource names a provider from the mesh's configuration, and can switch reporting off.",
            "Compare the Telemetry with the one in istio-system, and make it the same.",
        ),
        begin=_nowhere,
        claims=_nowhere_claims,
        solution=_nowhere_solution,
        needs=_NEEDS,
    ),
)
