"""The checks of `stackbook.app.checks` about what chapters 10 to 16 add to the cluster: metrics, traces, logs, Kafka, the bookshop.

Each returns its evidence, and raises CheckFailed or WaitTimeout if its claim does not hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackbook.app.claim import require
from stackbook.mesh import bookinfo

if TYPE_CHECKING:
    from stackbook.lab.lab import Lab

# 10


def scraped(lab: Lab) -> str:
    """Prometheus scrapes everything that it should."""
    from stackbook.observability import metrics

    with (  # wait for the turn: chapter 10 kills it
        lab.turn("what is scraped", of=metrics.PROMETHEUS),
        metrics.opened(lab.kube) as prometheus,
    ):
        wrong = metrics.missing_in_the_end(lab, prometheus)
        require(not wrong, "; ".join(wrong[:5]), fix="stackbook run --only 10")
        return f"{len(prometheus.targets())} targets"


# 11


def jaeger(lab: Lab) -> str:
    """Jaeger answers."""
    from stackbook.observability import tracing

    return tracing.readiness(lab.kube)


def traced(lab: Lab) -> str:
    """Every proxy of bookinfo traces the share of requests that chapter 11 has set."""
    from stackbook.config.chapter_parameters import Tracing
    from stackbook.observability import tracing

    share = tracing.share_in_proxies(lab.kube)
    if isinstance(lab.parameters, Tracing):
        wanted = lab.parameters.sampling
        require(share == wanted, f"the proxies trace {share:g} % of requests, not {wanted:g} %", fix="run chapter 11")
    require(share > 0, "the proxies trace no request", fix="run chapter 11")
    return f"{share:g} % of requests"


# 12


def logs_guarded(lab: Lab) -> str:
    """Elasticsearch refuses who has no password, and the shipper may only add."""
    from stackbook.observability.logs import access_control

    problems = access_control.unguarded(lab.kube)
    require(not problems, "; ".join(problems), fix="run chapter 12")
    return "TLS; without a password 401; the shipper's user may only add documents"


def logs_current(lab: Lab) -> str:
    """A search finds the newest line of every machine."""
    from stackbook.observability.logs import client, loss_accounting

    with client.opened(lab.kube, timeout=30) as store:
        loss_accounting.wait_current(lab.kube, store, timeout=20)
        return ", ".join(sorted(loss_accounting.newest(store)))


def logs_kept(lab: Lab) -> str:
    """Old indices are deleted after a number of days."""
    from stackbook.observability.logs import retention

    days = retention.days(lab.kube)
    require(days > 0, "nothing deletes old indices", fix="run chapter 12")
    return f"{days} days"


# 14


def kafka(lab: Lab) -> str:
    """Kafka keeps a message, and a group reads it."""
    from stackbook.lessons.ecosystem import broker

    return broker.works(lab)


def shop(lab: Lab) -> str:
    """The bookshop takes an order, and a consumer hears of it."""
    from stackbook.lessons.ecosystem.shop import accounting

    return accounting.works(lab)


# 16


def no_incident(lab: Lab) -> str:
    """No incident of chapter 16 is open, and bookinfo is healthy."""
    from stackbook.lab import attempt

    with lab.turn("whether an incident is open"):
        open = attempt.open_on(lab)
        require(not open.startswith("16-"), f"the incident {open} is open", fix="stackbook challenge end")
        wrong = bookinfo.unhealthy(lab.kube)
        require(not wrong, "; ".join(wrong[:3]), fix="stackbook run --only 05")
        return "no incident is open; bookinfo and its proxies are healthy"
