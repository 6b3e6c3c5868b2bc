"""The causes that an incident can have: a closed vocabulary. Each has a symptom, near misses, and the signs that tell it from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from stackbook.lessons.incident import facts
from stackbook.lessons.incident.facts import LOG, METRIC, TRACE, Fact

PLACES = ("details", "productpage", "ratings", "reviews")
"""The places of a cause: the service whose requests it affects."""


@dataclass(frozen=True)
class Cause:
    """One cause.

    Attributes:
        id: as a report names it.
        text: what is wrong.
        symptom: what a user of the service sees: `errors` or `slow`.
        sign: what tells it from its near misses, for a reader.
        first: the signal that has the sign.
        near: causes with the same symptom that are easily mistaken for it.
        places: the services where it may be planted.
        tells: whether a claimed fact about a place has the sign.
    """

    id: str
    text: str
    symptom: str
    sign: str
    first: str
    near: tuple[str, ...]
    places: tuple[str, ...]
    tells: Callable[[Fact, str], bool]

    def told_by(self, fact: Fact, place: str) -> bool:
        """Whether a claimed fact is about a place and has this cause's sign."""
        return about(fact, place) and self.tells(fact, place)


def about(fact: Fact, place: str) -> bool:
    """Whether a fact is about requests to a place, or about its own container; a metric has to name the place."""
    return bool(fact["target"] == place)


def _flag(letters: str) -> Callable[[Fact, str], bool]:
    return lambda fact, _: letters in facts.flags(fact)


def _said(*words: str) -> Callable[[Fact, str], bool]:
    """Whether a log line's claimed text has one of these words; an access log writes underscores for spaces."""

    def plain(text: str) -> str:
        return text.lower().replace("_", " ")

    def tells(fact: Fact, _: str) -> bool:
        text = plain(" ".join(str(fact.get(name, "")) for name in ("message", "details", "reason")))
        return fact["signal"] == LOG and any(plain(word) in text for word in words)

    return tells


def _empty_subset(fact: Fact, _: str) -> bool:
    return "UH" in facts.flags(fact) and bool(facts.subset(fact))


def _gone(fact: Fact, _: str) -> bool:
    return fact["signal"] == METRIC and fact["value"] is None and fact["before"] is not None


def _refused(fact: Fact, place: str) -> bool:
    forbidden = fact["kind"] == "server" and int(fact.get("status", 0)) == 403
    return forbidden or _said("rbac_access_denied")(fact, place)


def _plain(fact: Fact, place: str) -> bool:
    return "UC" in facts.flags(fact) or _said("filter_chain_not_found", "tls_error: wrong")(fact, place)


def _own_time(fact: Fact, place: str) -> bool:
    inside = fact["signal"] == TRACE and fact["kind"] == "server" and float(fact.get("own", 0)) >= facts.SLOW
    return inside or _said("slow query")(fact, place)


def _crashed(fact: Fact, place: str) -> bool:
    return fact["container"] == place and _said("fatal")(fact, place)


_ALL = (
    Cause("abort-rule", "a rule of the mesh aborts a share of the requests", "errors",
          "the caller's proxy answers by itself: flag FI", TRACE, ("full-disk", "denied"),
          ("details", "ratings", "reviews"), _flag("FI")),
    Cause("delay-rule", "a rule of the mesh delays a share of the requests", "slow",
          "the caller's proxy waits: flag DI, and the callee's span is short", TRACE, ("slow-store",),
          ("details", "ratings", "reviews"), _flag("DI")),
    Cause("empty-subset", "a rule sends requests to a subset that has no pods", "errors",
          "flag UH, and the cluster's name has a subset: outbound|9080|v9|…", LOG, ("no-pods", "crash"),
          ("ratings", "reviews"), _empty_subset),
    Cause("no-pods", "the service has no pod at all", "errors",
          "flag UH, and the metrics of its pods have ended", METRIC, ("crash", "empty-subset"),
          ("details", "ratings"), _gone),
    Cause("crash", "the service's program ends as soon as it starts", "errors",
          "flag UH, and the last log lines of the container itself", LOG, ("no-pods", "empty-subset"),
          ("details", "ratings"), _crashed),
    Cause("denied", "a policy forbids the requests", "errors",
          "status 403 from the callee's own proxy: rbac_access_denied", LOG, ("abort-rule", "wrong-clock"),
          ("details", "ratings"), _refused),
    Cause("plain-text", "callers speak plain text to a service that demands mutual TLS", "errors",
          "the connection ends before an answer: flag UC", LOG, ("expired-certificate", "crash"),
          ("details", "ratings"), _plain),
    Cause("expired-certificate", "the service's certificate has expired", "errors",
          "the caller's proxy gives the reason: certificate has expired", LOG, ("plain-text", "wrong-clock"),
          ("details", "ratings"), _said("certificate has expired")),
    Cause("full-disk", "a version of the service cannot write: its disk is full", "errors",
          "status 500 from the program itself, which says: No space left on device", LOG, ("abort-rule", "crash"),
          ("ratings",), _said("no space left on device")),
    Cause("slow-store", "a version of the service waits for its slow database", "slow",
          "the time is the service's own: a long server span without a flag", TRACE, ("delay-rule",),
          ("ratings",), _own_time),
    Cause("wrong-clock", "the clock of the tokens' issuer is ahead", "errors",
          "status 401 from the service's proxy: the token is not yet valid", LOG, ("denied", "expired-certificate"),
          ("productpage",), _said("not_yet_valid", "not yet valid")),
)  # fmt: skip
CAUSES: Mapping[str, Cause] = {cause.id: cause for cause in _ALL}
"""All causes, by their id."""


def candidates(cause: str) -> list[str]:
    """The possible causes at the level easy, in alphabetical order: the cause, its near misses, and one with the other symptom.

    >>> candidates("delay-rule")
    ['abort-rule', 'delay-rule', 'slow-store']
    """
    found = {cause, *CAUSES[cause].near, "abort-rule" if CAUSES[cause].symptom == "slow" else "delay-rule"}
    return sorted(found)
