"""Changing rules under traffic: a canary's shift, and how soon a change takes effect."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from stackbook.core.waiting import pause
from stackbook.mesh.rules import Rule, applied, propagate
from stackbook.mesh.rules.apply import Cluster
from stackbook.traffic.load_client import Plan, Source, flowing, from_mesh


@dataclass(frozen=True)
class Change:
    """A change of rules under traffic: its Unix time, its label, and the seconds until the proxies had it."""

    at: float
    label: str
    waited: float

    @property
    def settled(self) -> float:
        """Unix time at which every proxy had it."""
        return self.at + self.waited


def shift(
    kube: Cluster,
    source: Source,
    plan: Plan,
    stages: Mapping[str, Rule],
    *,
    app: str,
    count: Mapping[str, int],
) -> tuple[pd.DataFrame, list[Change]]:
    """Send traffic and apply one rule after the other meanwhile; afterwards, restore the earlier rules.

    Args:
        kube: the cluster.
        source: where the traffic comes from.
        plan: the traffic; it is stopped after the last stage.
        stages: the rules by label, in order; the first applies before the traffic starts.
        app: the service whose version counts.
        count: by the stage's label, the minimum number of requests that start in it, once the proxies have its rules.

    Returns:
        The table of `traffic.send`, and the changes.
    """
    (first_label, first), *rest = stages.items()
    changes = []
    with applied(kube, first):
        with flowing(source, plan, app=app) as flow:
            changes.append(Change(0.0, first_label, 0.0))  # in force before the first request
            flow.more(count[first_label])
            for label, rule in rest:
                changes.append(change(kube, label, rule))
                flow.more(count[label] + plan.concurrency)  # some were under way during the change
        return flow.frame(), changes


def alternate(
    kube: Cluster, source: Source, plan: Plan, pair: Mapping[str, Rule], *, app: str, times: int, hold: float = 0.15
) -> tuple[pd.DataFrame, list[Change]]:
    """Like `shift`, but two rules alternate, `times` times; each label is the version to which its rule sends all requests."""
    labels = list(pair)
    with applied(kube, pair[labels[0]]):
        with flowing(source, plan, app=app) as flow:
            flow.more(1)  # so that each change is visible
            changes = [Change(0.0, labels[0], 0.0)]
            for number in range(times):
                label = labels[(number + 1) % len(labels)]
                changes.append(change(kube, label, pair[label]))
                pause(hold)
        return flow.frame(), changes


def change(kube: Cluster, label: str, rule: Rule) -> Change:
    """Apply a rule, and wait until the proxies have it."""
    return timed(kube, label, lambda: kube.apply([rule]), rule)


def timed(kube: Cluster, label: str, act: Callable[[], int], rule: Rule) -> Change:
    """Change a rule and wait until the proxies know; the time is that of the change's start."""
    began = 0.0

    def act_now() -> int:
        nonlocal began
        began = time.time()
        return act()

    waited = propagate(kube, act_now, [rule])
    return Change(began, label, waited)


def by_stage(frame: pd.DataFrame, changes: Sequence[Change]) -> pd.DataFrame:
    """The table with a column `stage`: the label that applied when a request started, empty during a change."""
    began = frame.attrs["began"]
    stage = pd.Series("", index=frame.index)
    for number, current in enumerate(changes):
        end = changes[number + 1].at if number + 1 < len(changes) else float("inf")
        inside = (frame["started"] + began >= current.settled) & (frame["started"] + began < end)
        stage[inside] = current.label
    return frame.assign(stage=stage)


def effects(frame: pd.DataFrame, changes: Sequence[Change]) -> pd.DataFrame:
    """How soon each change took effect, for changes that send all requests to the version that their label names.

    A change is effective once every later request is served by the new version. Columns: change, to,
    effective (seconds since just before it was applied; NaN if no request started before the next change), reported
    (seconds until istiod reported that all proxies had it).
    The first change is left out, because there was no traffic before it.
    """
    counted = from_mesh(frame)
    times = counted["started"] + frame.attrs["began"]
    rows = []
    for number, current in enumerate(changes[1:], 1):
        end = changes[number + 1].at if number + 1 < len(changes) else float("inf")
        window = (times >= current.at) & (times < end)
        late = times[window & (counted["version"] != current.label)]
        effective = float(late.max() - current.at) if len(late) else 0.0 if window.any() else float("nan")
        rows.append((number, current.label, effective, current.waited))
    return pd.DataFrame(rows, columns=["change", "to", "effective", "reported"])


def injected(frame: pd.DataFrame) -> pd.Series:
    """Which requests a proxy aborted (FI) or delayed (DI), by its flags."""
    return frame["flags"].str.split(",").map(lambda flags: bool({"FI", "DI"} & set(flags))).astype(bool)


def recovery(
    kube: Cluster,
    source: Source,
    plan: Plan,
    rule: Rule,
    *,
    flagged: Callable[[pd.DataFrame], pd.DataFrame],
    hold: float,
) -> tuple[pd.DataFrame, Change, float]:
    """Remove a fault under traffic, and measure how long it still hits requests, according to the proxy's flags.

    The flags say what the proxy did; durations do not, because on a busy machine a request can take long without any rule.

    Args:
        kube: the cluster.
        source: where the traffic comes from.
        plan: the traffic; it is stopped `hold` seconds after the proxies dropped the rule.
        rule: the rule with the fault.
        flagged: adds the flags of the proxy's access log to a table (`Testbed.flagged`).
        hold: seconds of traffic with the fault, and again without.

    Returns:
        The table, the removal, and the seconds from just before the removal to the start of the last request that was hit.
    """
    with applied(kube, rule):
        with flowing(source, plan, lead=hold) as flow:
            removed = timed(kube, "removed", lambda: kube.delete([rule]), rule)
            pause(hold)
        sent = flow.frame()
        frame = from_mesh(flagged(sent))
        frame.attrs.update(sent.attrs)
    times = frame["started"] + frame.attrs["began"]
    hit = injected(frame)
    last = times[hit & (times >= removed.at)].max()
    return frame, removed, 0.0 if pd.isna(last) else float(last - removed.at)
