"""The automatic solution: it reads metrics, spans and log lines, looks for the signs of each cause, and writes a report.

It knows neither the cause nor the seed. It knows when the complaints began, and how many causes there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stackbook.core.waiting import until
from stackbook.lessons.incident import facts
from stackbook.lessons.incident.causes import CAUSES, PLACES, about
from stackbook.lessons.incident.facts import LOG, METRIC, TRACE, Fact
from stackbook.lessons.incident.reports import Evidence, Finding, Metric, row
from stackbook.lessons.incident.witnesses import Witnesses

Compare = Callable[[str], Mapping[str, Any]]
Rows = Sequence[Fact]
LEAST = 3
"""How many rows must show a sign: a single failure may be a connection that was closed at the wrong moment."""
BACK = 20.0
"""How many seconds of spans and log lines it reads at a time."""
TIMEOUT = 90.0
_ORDER = ("expired-certificate", "wrong-clock", "full-disk", "crash", "denied", "empty-subset", "no-pods", "abort-rule", "delay-rule",
          "slow-store", "plain-text")  # fmt: skip
"""The order in which causes are tried: first those with a reason in words, last those whose sign can have other reasons."""
SHOWS: Mapping[str, tuple[str, ...]] = {
    "abort-rule": ("flags",), "delay-rule": ("flags",), "empty-subset": ("flags", "cluster"), "no-pods": ("flags",),
    "crash": ("message",), "denied": ("status", "details"), "plain-text": ("flags",), "expired-certificate": ("reason",),
    "full-disk": ("message",), "slow-store": ("own", "message"), "wrong-clock": ("details",),
}  # fmt: skip
"""The columns that show the sign of a cause."""


def solve(see: Witnesses, *, causes: int = 1, timeout: float = TIMEOUT) -> list[Finding]:
    """Read the signals until they tell so many causes, each with evidence of two signals.

    Raises:
        WaitTimeout: they do not; the message says what was found.
    """
    found: list[Finding] = []

    def decided() -> bool:
        rows = [*see.spans(seconds=BACK).to_dict("records"), *see.lines(seconds=BACK).to_dict("records")]
        found[:] = decide(rows, see.compare, see.words.name)
        return len(found) >= causes and all(len(one.evidence) > 1 for one in found[:causes])

    until(decided, what="the signals to tell the causes", timeout=timeout, every=2.0,
          last=lambda: ", ".join(f"{one.cause} at {one.place}" for one in found) or "no cause found")  # fmt: skip
    return found[:causes]


def decide(rows: Rows, compare: Compare, words: str) -> list[Finding]:
    """The causes that the rows tell, the one with most bad rows first; at most one for each service.

    Args:
        rows: spans and log lines, with all their columns.
        compare: queries a metric now and before the incident; returns query, at, value, before.
        words: the vocabulary of the metrics: `istio` or `envoy`.
    """
    found: list[tuple[int, Finding]] = []
    for place in PLACES:
        here = [one for one in rows if about(one, place)]
        bad = [one for one in here if facts.symptom(one) or CAUSES["crash"].tells(one, place)]
        if len(bad) < LEAST:
            continue
        for cause in _ORDER:
            telling = _telling(cause, place, here, compare)
            if telling:
                rest = _symptom(CAUSES[cause].symptom, place, bad, compare, words)
                found.append((len(bad), Finding(cause, place, tuple(_one_of_each(telling, rest)))))
                break
    return [finding for _, finding in sorted(found, key=lambda pair: -pair[0])]


def _telling(cause: str, place: str, here: Rows, compare: Compare) -> list[Evidence]:
    """Evidence that tells a cause at a place: one piece of each signal that has it; empty if the sign is missing or too rare."""
    if cause == "no-pods":
        unhealthy = [one for one in here if "UH" in facts.flags(one) and not facts.subset(one)]
        query = f'sum(up{{app="{place}"}})'
        asked = compare(query) if len(unhealthy) >= LEAST else {"value": 0, "before": 0}
        gone = asked["value"] is None and asked["before"] is not None
        return [Metric(query, None, asked["at"]), row(unhealthy[-1], "flags")] if gone else []
    shows = SHOWS[cause]
    marked = [
        one for one in here if CAUSES[cause].told_by(facts.claimed(one, dict.fromkeys(_columns(one, shows))), place)
    ]
    if len(marked) < (1 if cause == "crash" else LEAST):
        return []
    last = {one["signal"]: one for one in marked}
    return [row(one, *_columns(one, shows)) for one in last.values()]


def _columns(one: Fact, shows: Sequence[str]) -> list[str]:
    """The columns in which a row has a value."""
    return [name for name in shows if name in one and one[name] not in ("", "-")]


def _symptom(symptom: str, place: str, bad: Rows, compare: Compare, words: str) -> list[Evidence]:
    """Evidence of the symptom, of each signal: a bad span, a bad line of the access log, and the metric of failures or of time."""
    found: list[Evidence] = []
    for signal in (TRACE, LOG):
        some = [one for one in bad if one["signal"] == signal]
        column = "status" if symptom == "errors" else "seconds"
        for one in reversed(some):
            if facts.symptom(facts.claimed(one, {column: None})) == symptom:
                found.append(row(one, column))
                break
    asked = compare(failures(place, words) if symptom == "errors" else duration(place, words))
    if asked["value"] is not None and facts.deviates(asked["value"], asked["before"]):
        found.append(Metric(asked["query"], asked["value"], asked["at"]))
    return found


def _one_of_each(telling: Sequence[Evidence], rest: Sequence[Evidence]) -> list[Evidence]:
    """One piece of each signal, the telling ones first."""
    chosen: dict[str, Evidence] = {}
    for one in (*telling, *rest):
        chosen.setdefault(METRIC if isinstance(one, Metric) else one.signal, one)
    return list(chosen.values())


def failures(place: str, words: str, *, window: int = 15) -> str:
    """PromQL: calls of a service that failed, per second, as its callers counted them."""
    if words == "istio":
        labels = f'reporter="source",destination_canonical_service="{place}",response_code=~"0|[45].."'
        return f"sum(rate(istio_requests_total{{{labels}}}[{window}s]))"
    labels = f'cluster_name=~"outbound.*[|]{place}[.].*",response_code=~"[45].."'
    return f"sum(rate(envoy_cluster_upstream_rq{{{labels}}}[{window}s]))"


def answers(place: str, words: str, *, window: int = 15) -> str:
    """PromQL: requests that a service answered without an error, per second, as its own proxies counted them."""
    good = 'response_code=~"[123].."'
    if words == "istio":
        labels = f'reporter="destination",destination_canonical_service="{place}",{good}'
        return f"sum(rate(istio_requests_total{{{labels}}}[{window}s]))"
    return f'sum(rate(envoy_cluster_upstream_rq{{app="{place}",cluster_name=~"inbound.*",{good}}}[{window}s]))'


def duration(place: str, words: str, *, window: int = 15) -> str:
    """PromQL: the average time of a service's requests in milliseconds, as its own proxies measured it."""
    if words == "istio":
        name, labels = (
            "istio_request_duration_milliseconds",
            f'reporter="destination",destination_canonical_service="{place}"',
        )
    else:
        name, labels = "envoy_cluster_upstream_rq_time", f'app="{place}",cluster_name=~"inbound.*"'
    return f"sum(rate({name}_sum{{{labels}}}[{window}s])) / sum(rate({name}_count{{{labels}}}[{window}s]))"
