"""Which of istiod's pushes contains a change.

istiod collects changes for 0.1 s (PILOT_DEBOUNCE_AFTER), makes a push context of everything that it has read, and sends it to the
proxies. It makes one context after the other and numbers them; a nonce in /debug/syncz names the number. The count of the
histogram `pilot_pushcontext_init_seconds` is the number of the newest finished context (istio.io/istio pilot/pkg/xds/discovery.go,
`Push`, `NextVersion` and `debounce`). A context that istiod began before it had read the change does not contain it. So of the
contexts that finish after istiod had read the change, the second contains it for certain, and the first if it was begun late enough.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from stackbook.mesh.rules.istiod_debug import Ask

GATHERED = 0.1
"""The minimum time in seconds for which istiod collects changes before it pushes them."""
SETTLED = GATHERED + 0.3
"""If istiod has finished no context for so many seconds after it had read a change, none is due: the newest contains the change."""
QUIET = 2.0
"""After so many seconds without a new context, a proxy that has acknowledged what it was sent is not sent anything more."""
_SERIES = re.compile(r"^pilot_pushcontext_init_seconds_(sum|count)(?:\{[^}]*\})? (\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Contexts:
    """How many push contexts an istiod has finished, and how many seconds it spent on them."""

    count: int
    seconds: float


@dataclass(frozen=True)
class Sight:
    """What one poll says about one istiod, with its monotonic times in seconds.

    Attributes:
        asked: when it was asked which rules it has read.
        answered: when the answer was there.
        changed: whether the answer has the change.
        newest: the newest push that a proxy was sent.
        counted: when it was asked for its push contexts.
        contexts: what it answered; None if it does not say.
    """

    asked: float
    answered: float
    changed: bool
    newest: int
    counted: float
    contexts: Contexts | None


@dataclass(frozen=True)
class Needed:
    """Which pushes contain a change.

    Attributes:
        certain: this push and every later one contain it; None if that cannot be said yet.
        quiet: istiod has finished no context for two seconds, so what the proxies have acknowledged is all that they get.
        without: the newest push that certainly does not contain it.
    """

    certain: int | None
    quiet: bool
    without: int

    def arrived(self, push: int) -> bool:
        """Whether a proxy that was sent this push has the change."""
        return (self.certain is not None and push >= self.certain) or (self.quiet and push > self.without)


def finished(ask: Ask) -> Contexts | None:
    """The push contexts that an istiod has finished, from its metrics; None if the metrics do not have them."""
    found = dict(_SERIES.findall(ask("/metrics")))
    try:
        return Contexts(int(float(found["count"])), float(found["sum"]))
    except (KeyError, ValueError, OverflowError):
        return None


def needed(sights: Sequence[Sight]) -> Needed:
    """Which pushes of an istiod contain a change that the last of these sights has and the first may not have.

    Args:
        sights: of one istiod, in order of time, the first one before the change.
    """
    read = max((place for place, sight in enumerate(sights, 1) if not sight.changed), default=0)
    since = sights[max(read - 1, 0)].asked
    early = [sight for sight in sights if sight.counted <= since + GATHERED] or list(sights[:1])
    without = max(sight.newest for sight in early)
    after = sights[read:]
    if not after or not _comparable(sights):
        return Needed(without + 1, quiet=False, without=without)
    counts = [sight.contexts.count for sight in after if sight.contexts]
    first, last = counts[0], counts[-1]
    still = after[-1].counted - next(
        sight.counted for sight in after if sight.contexts and sight.contexts.count == last
    )
    quiet = still >= QUIET
    if still >= SETTLED:
        return Needed(last, quiet, without)
    if last > first:
        return Needed(first + 1 if _began_after(after, first + 1) else first + 2, quiet, without)
    return Needed(None, quiet, without)


def _began_after(after: Sequence[Sight], number: int) -> bool:
    """Whether istiod began this context after it had read the change: it took so long, and was not finished at the sight before."""
    read = after[0].answered
    for before, sight in itertools.pairwise(after):
        if before.contexts and sight.contexts and before.contexts.count < number <= sight.contexts.count:
            return before.counted - (sight.contexts.seconds - before.contexts.seconds) >= read
    return False


def _comparable(sights: Sequence[Sight]) -> bool:
    """Whether the numbers of pushes are the numbers of contexts: istiod counts each context before it sends it."""
    return all(sight.contexts is not None and sight.contexts.count >= sight.newest for sight in sights)
