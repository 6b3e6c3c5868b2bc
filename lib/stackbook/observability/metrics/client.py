"""Prometheus' HTTP API as DataFrames, by prometheus-api-client over a port-forward.

https://prometheus.io/docs/prometheus/latest/querying/api/
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from stackbook.config.namespaces import here
from stackbook.core.errors import CheckFailed, InputError

if TYPE_CHECKING:
    from stackbook.cluster.kube import Kube

SERVICE, PORT = "svc/prometheus", 9090
_TIMEOUT = 30


@dataclass(frozen=True)
class Prometheus:
    """A Prometheus server at `url`, which has no slash at the end."""

    url: str

    def query(self, text: str, *, at: float | None = None, newer: float | None = None) -> pd.DataFrame:
        """The answer to an instant query: a column per label, `timestamp` (Unix time) and `value`; empty if there is no answer.

        Args:
            text: PromQL.
            at: Unix time; now when None.
            newer: ignore samples taken before this Unix time; if None, those of the last 5 min count.

        Raises:
            InputError: Prometheus cannot read the query.
        """
        from prometheus_api_client import MetricSnapshotDataFrame

        when = {} if at is None else {"time": at}
        back = {} if newer is None else {"lookback_delta": f"{max(0.001, (at or time.time()) - newer):.3f}"}
        found = self._ask("custom_query", text, params=when | back or None)
        if not found:
            return pd.DataFrame(columns=["timestamp", "value"])
        return pd.DataFrame(MetricSnapshotDataFrame(found, ts_as_datetime=False))

    def over(self, text: str, *, start: float, end: float, step: float = 5.0) -> pd.DataFrame:
        """The answer to a range query, one line per series and instant; columns as in `query`.

        Args:
            text: PromQL.
            start: Unix time.
            end: Unix time.
            step: seconds between instants.
        """
        found = self._ask("custom_query_range", text, start_time=_when(start), end_time=_when(end), step=f"{step:g}")
        rows = [{**s["metric"], "timestamp": float(t), "value": float(v)} for s in found for t, v in s["values"]]
        return pd.DataFrame(rows, columns=None if rows else ["timestamp", "value"])

    def times(self, selector: str, *, window: str = "10m") -> list[float]:
        """The Unix times of all samples of the series that a selector picks, in the order of the scrapes."""
        found = self._ask("custom_query", f"{selector}[{window}]")
        return sorted(float(moment) for series in found for moment, _ in series["values"])

    def targets(self) -> pd.DataFrame:
        """What is scraped: job, instance (the pod or node), health (`up` or `down`), error, scraped (Unix time)."""
        rows = []
        for target in self._get("targets?state=active")["activeTargets"]:
            labels = target["labels"]
            rows.append({
                "job": labels["job"],
                "instance": labels.get("pod") or labels.get("node") or labels["instance"],
                "health": target["health"],
                "error": target["lastError"],
                "scraped": pd.Timestamp(target["lastScrape"]).timestamp(),
                "seconds": float(target["lastScrapeDuration"]),
            })  # fmt: skip
        frame = pd.DataFrame(rows, columns=["job", "instance", "health", "error", "scraped", "seconds"])
        return frame.sort_values(["job", "instance"], ignore_index=True)

    def alerts(self) -> list[dict[str, Any]]:
        """The alerts that are pending or firing, according to Prometheus."""
        return list(self._get("alerts")["alerts"])

    def rules(self) -> list[dict[str, str]]:
        """The rules: name, health (`ok`, `err`, or `unknown` before the first evaluation), and lastError, which may be empty."""
        groups = self._get("rules")["groups"]
        return [
            {"name": rule["name"], "health": rule["health"], "lastError": rule.get("lastError", "")}
            for group in groups
            for rule in group["rules"]
        ]

    def alertmanagers(self) -> list[str]:
        """The addresses that alerts are sent to."""
        return [str(entry["url"]) for entry in self._get("alertmanagers")["activeAlertmanagers"]]

    def version(self) -> str:
        """The server's version."""
        return str(self._get("status/buildinfo")["version"])

    def down(self, *, window: str = "1h") -> pd.DataFrame:
        """The targets that cannot be scraped: job, instance, error, and `since`, the Unix time of their last good scrape (0: none)."""
        found = self.targets()
        rows = found[found["health"] == "down"].copy()
        seen = self.query(f"max by (job, pod, node, instance) (max_over_time(timestamp(up == 1)[{window}:5s]))")
        last: dict[tuple[str, str], float] = {}
        for line in seen.to_dict("records"):
            name = next(str(line[k]) for k in ("pod", "node", "instance") if isinstance(line.get(k), str) and line[k])
            last[str(line["job"]), name] = float(line["value"])
        rows["since"] = [last.get((job, name), 0.0) for job, name in zip(rows["job"], rows["instance"], strict=True)]
        return rows[["job", "instance", "error", "since"]].reset_index(drop=True)

    def _get(self, path: str) -> Any:
        import httpx

        try:
            answer = httpx.get(f"{self.url}/api/v1/{path}", timeout=_TIMEOUT, trust_env=False)
        except httpx.TransportError as error:
            raise CheckFailed(f"Prometheus does not answer: {error}", fix=_away()) from error
        if answer.status_code != 200:
            raise CheckFailed(f"Prometheus answers /api/v1/{path} with {answer.status_code}: {answer.text[:200]}")
        return answer.json()["data"]

    def _ask(self, method: str, text: str, **arguments: Any) -> list[dict[str, Any]]:
        import requests
        from prometheus_api_client import PrometheusConnect
        from prometheus_api_client.exceptions import PrometheusApiClientException

        with requests.Session() as session:
            session.trust_env = False  # no proxy: the port-forward is on this host's loopback
            api = PrometheusConnect(url=self.url, session=session, timeout=_TIMEOUT)
            try:
                return list(getattr(api, method)(text, **arguments))
            except requests.ConnectionError as error:
                raise CheckFailed(f"Prometheus does not answer: {error}", fix=_away()) from error
            except PrometheusApiClientException as error:
                reason = str(error).partition("error")[2].strip("\":b'}\\n ") or str(error)
                raise InputError(
                    f"Prometheus cannot answer {text!r}: {reason[:300]}", fix="correct the query"
                ) from error


def _away() -> str:
    return f"check its pod: kubectl get pods -n {here().monitoring} -l app=prometheus"


def _when(seconds: float) -> Any:
    from datetime import datetime

    return datetime.fromtimestamp(seconds)


@contextlib.contextmanager
def opened(kube: Kube) -> Iterator[Prometheus]:
    """Open the lab's Prometheus on a free loopback port of this host while the block runs.

    Raises:
        CheckFailed: there is no Prometheus.
        WaitTimeout: it cannot be reached.
    """
    answer = kube.kubectl("get", SERVICE, "-n", here().monitoring, check=False)
    if not answer.ok:
        raise CheckFailed(f"there is no Prometheus in {here().monitoring}", fix="stackbook run --only 10")
    with kube.port_forward(here().monitoring, SERVICE, PORT) as port:
        yield Prometheus(f"http://127.0.0.1:{port}")
