"""Facts: what a span, a log line or a metric says, as a plain mapping, and the part of it that a report claims.

A fact has columns that say what it is (`IDENTITY`), and columns that a report must claim (`COLUMNS`). A sign counts only in a claimed
column, so a report has to point at the sign, and not only at a row that happens to have it.
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

Fact = Mapping[Any, Any]
TRACE, LOG, METRIC = "trace", "log", "metric"
SIGNALS = (METRIC, TRACE, LOG)
IDENTITY = ("signal", "service", "target", "kind", "container", "time")
"""`service` reports it, `target` is the service that it is about; `kind` is client or server, as in a span, or program."""
COLUMNS = ("status", "flags", "seconds", "own", "cluster", "details", "reason", "message", "version")
"""`own`: seconds of a server span that none of its calls explains; `details` and `reason`: the proxy's explanations."""
SLOW = 0.25
"""Seconds: bookinfo's services answer within a few milliseconds, and within some ten on a busy machine."""
CHANGED = 2.0
"""A value deviates if it is at least so many times larger or smaller than before."""


def claimed(fact: Fact, shows: Mapping[str, Any]) -> dict[str, Any]:
    """The identity of a fact, and the columns that a report claims."""
    return {name: fact[name] for name in fact if name in IDENTITY or name in shows}


def agrees(seen: Any, said: Any) -> bool:
    """Whether a column holds what a report says: the same count or status, a time within 10 %, a text that contains it.

    >>> agrees(0.512, 0.5), agrees("ENOSPC: No space left on device", "No space left"), agrees("UH", "FI"), agrees(503, 500)
    (True, True, False, False)
    """
    if isinstance(seen, Real) and not isinstance(seen, bool):
        try:
            number = float(said)
        except (TypeError, ValueError):
            return False
        slack = 0.0 if isinstance(seen, Integral) else 0.1 * abs(float(seen))
        return abs(float(seen) - number) <= slack + 1e-9
    text = str(said).strip()
    return bool(text) and text != "-" and text in str(seen)


def deviates(now: float | None, before: float | None) -> bool:
    """Whether a metric has changed; None stands for no answer.

    >>> deviates(0.4, 0.0), deviates(None, 1.0), deviates(5.1, 5.0), deviates(None, None)
    (True, True, False, False)
    """
    if now is None or before is None:
        return (now is None) != (before is None)
    low, high = sorted((abs(now), abs(before)))
    return high > 1e-6 and high >= CHANGED * low


def flags(fact: Fact) -> set[str]:
    """Envoy's response flags; empty if none was claimed."""
    return set(str(fact.get("flags", "-")).split(",")) - {"-", ""}


def subset(fact: Fact) -> str:
    """The subset in the name of an outbound cluster.

    >>> subset({"cluster": "outbound|9080|v9|reviews.default.svc.cluster.local"})
    'v9'
    """
    parts = str(fact.get("cluster", "")).split("|")
    return parts[2] if len(parts) == 4 else ""


def symptom(fact: Fact) -> str:
    """The symptom that a claimed fact shows: `errors`, `slow` or nothing; `any` for a metric that has changed."""
    if fact["signal"] == METRIC:
        return "any" if deviates(fact["value"], fact["before"]) else ""
    status = fact.get("status")
    if flags(fact) - {"DI"} or (status is not None and (int(status) >= 400 or int(status) == 0)):
        return "errors"
    if "DI" in flags(fact) or max(float(fact.get("seconds", 0)), float(fact.get("own", 0))) >= SLOW:
        return "slow"
    return ""
