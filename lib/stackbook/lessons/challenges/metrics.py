"""Chapter 10: an alert that cannot fire, a target that is down, a rule that records the wrong thing.

Each challenge has its own small Prometheus: changing the lab's Prometheus would lose its samples.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import yaml

from stackbook.core.errors import CheckFailed, InputError
from stackbook.core.waiting import until
from stackbook.lab.attempt import Attempt
from stackbook.lab.challenge import Challenge, Claim, Typed, require
from stackbook.lessons.challenges import workloads
from stackbook.mesh import istio

_CHAPTER, _NEEDS = "10-metrics", ("03-flannel/ready",)
_CONFIG, _RULES = "prometheus.yml", "rules.yml"
_ITSELF = {"job_name": "prometheus", "static_configs": [{"targets": ["localhost:9090"]}]}


def _prometheus(attempt: Attempt, jobs: Sequence[dict[str, Any]], rule: dict[str, Any] | None = None) -> None:
    """Deploy a Prometheus that scrapes these jobs and itself every second, with a rule."""
    lab = attempt.lab
    if not lab.kube.kubectl("get", "deployment", "prometheus", "-n", istio.NAMESPACE, check=False).ok:
        raise InputError(
            f"challenge {attempt.challenge.id} needs chapter 10: the lab has no Prometheus",
            fix="stackbook run --only 10",
        )
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [f"/etc/prometheus/{_RULES}"],
        "scrape_configs": [_ITSELF, *jobs],
    }
    groups = {"groups": [{"name": "own", "rules": [rule] if rule else []}]}
    data = {_CONFIG: yaml.safe_dump(config, sort_keys=False), _RULES: yaml.safe_dump(groups, sort_keys=False)}
    item = workloads.deployment(
        attempt, "prometheus", "prometheus", port=9090, sidecar=False, probe={"httpGet": {"path": "/-/ready", "port": 9090}},
        args=[f"--config.file=/etc/prometheus/{_CONFIG}", "--storage.tsdb.path=/data"],
        volumeMounts=[{"name": "config", "mountPath": "/etc/prometheus"}, {"name": "data", "mountPath": "/data"}],
    )  # fmt: skip
    spec = item["spec"]["template"]["spec"]
    spec["securityContext"] = {"runAsUser": 65534, "runAsGroup": 65534, "fsGroup": 65534}
    spec["volumes"] = [{"name": "config", "configMap": {"name": "prometheus"}}, {"name": "data", "emptyDir": {}}]
    attempt.space()
    attempt.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "prometheus"}, "data": data},
        item,
        workloads.service("prometheus", port=9090),
    )
    workloads.wait(attempt, 1)
    until(lambda: len(_query(attempt, "count_over_time(up[1m]) > 2")) > len(jobs), what="some scrapes of every target",
          timeout=60, tolerate=(CheckFailed,))  # fmt: skip


def _get(attempt: Attempt, path: str) -> Any:
    """The data of an answer of the challenge's Prometheus, requested through the API server."""
    url = f"/api/v1/namespaces/{attempt.namespace}/services/prometheus:9090/proxy/api/v1/{path}"
    answer = attempt.lab.kube.kubectl("get", f"--raw={url}", check=False, timeout=15)
    if not answer.ok:
        raise CheckFailed(f"Prometheus does not answer: {answer.stderr.strip()[-200:]}")
    return json.loads(answer.stdout)["data"]


def _query(attempt: Attempt, text: str) -> list[tuple[dict[str, str], float]]:
    """The series of an instant query: labels and value."""
    found = _get(attempt, f"query?query={quote(text, safe='')}")
    require(found["resultType"] == "vector", f"{text} does not return a vector")
    return [(series["metric"], float(series["value"][1])) for series in found["result"]]


def _rule(attempt: Attempt, name: str) -> dict[str, Any]:
    """The rule with this name, as Prometheus has loaded it."""
    groups = _get(attempt, "rules")["groups"]
    found = [rule for group in groups for rule in group["rules"] if rule["name"] == name]
    require(found, f"Prometheus has no rule {name}; it reads its files when it starts")
    require(found[0]["health"] != "err", f"{name} cannot be evaluated: {found[0].get('lastError', '')[:150]}")
    return dict(found[0])


def _edit(attempt: Attempt, file: str, old: str, new: str) -> list[Typed]:
    """The commands that replace a text in a file of the ConfigMap, and make Prometheus read it."""
    space = attempt.namespace
    quoted = [re.sub(r"([\[\]*.|&\\])", r"\\\1", text) for text in (old, new)]
    return [
        Typed(
            f"kubectl -n {space} get configmap prometheus -o jsonpath='{{.data.{file.replace('.', chr(92) + '.')}}}'"
        ),
        Typed(
            f"kubectl -n {space} get configmap prometheus -o yaml \\\n"
            f"  | sed 's|{quoted[0]}|{quoted[1]}|' | kubectl replace -f -"
        ),
        Typed(f"kubectl -n {space} rollout restart deployment/prometheus-v1"),
        Typed(f"kubectl -n {space} rollout status deployment/prometheus-v1 --timeout=90s"),
    ]


# 10-a

_DEAD = {"job_name": "shop", "static_configs": [{"targets": ["127.0.0.1:9"]}]}
_RIGHT = 'up{job="shop"} == 0'


def _silent(attempt: Attempt) -> None:
    expr = attempt.draw("expr", ['up{job="shops"} == 0', 'up{job="shop"} < 0', 'down{job="shop"} == 1'])
    _prometheus(attempt, [_DEAD], {"alert": "ShopDown", "expr": expr, "labels": {"severity": "page"}})


def _silent_claims(attempt: Attempt) -> Sequence[Claim]:
    def firing() -> str:
        rule = _rule(attempt, "ShopDown")
        found = [alert["labels"].get("job", "") for alert in rule["alerts"] if alert["state"] == "firing"]
        require("shop" in found, f"ShopDown is {rule['state']}: {rule['query']}")
        return "ShopDown fires for job shop"

    def alone() -> str:
        found = {alert["labels"].get("job", "") for alert in _rule(attempt, "ShopDown")["alerts"]}
        require(found <= {"shop"}, f"it also fires for {', '.join(sorted(found - {'shop'}))}")
        return "for shop alone"

    def honest() -> str:
        """The same expression must return nothing for a target that is up."""
        query = str(_rule(attempt, "ShopDown")["query"])
        require('"shop"' in query, f"{query} does not name the job shop")
        seen = _query(attempt, query.replace('"shop"', '"prometheus"'))
        require(not seen, f"{query} would also fire for a target that is up")
        return "silent for a target that is up"

    return [
        Claim("the alert fires: shop is down", firing),
        Claim("it fires for nothing else", alone),
        Claim("it would be silent if shop were up", honest),
    ]


# 10-b

_TARGET = {
    "job_name": "istiod",
    "metrics_path": "/metrics",
    "static_configs": [{"targets": ["istiod.istio-system:15014"]}],
}
_SLIPS = {
    "port": ("istiod.istio-system:15012", "istiod.istio-system:15014"),
    "path": ("metrics_path: /metric\n", "metrics_path: /metrics"),
    "name": ("istiod.istio:15014", "istiod.istio-system:15014"),
}


def _down(attempt: Attempt) -> None:
    slip = attempt.draw("slip", sorted(_SLIPS))
    wrong = dict(_TARGET)
    if slip == "path":
        wrong["metrics_path"] = "/metric"
    else:
        wrong["static_configs"] = [{"targets": [_SLIPS[slip][0]]}]
    _prometheus(attempt, [wrong])


def _down_claims(attempt: Attempt) -> Sequence[Claim]:
    def up() -> str:
        targets = [t for t in _get(attempt, "targets?state=active")["activeTargets"] if t["labels"]["job"] == "istiod"]
        require(targets, "there is no target of job istiod")
        bad = [t for t in targets if t["health"] != "up"]
        require(not bad, bad[0]["lastError"] or "not scraped yet" if bad else "")
        return "up"

    def counted() -> str:
        found = _query(attempt, 'count({job="istiod", __name__=~"pilot_.*"})')
        require(found, "Prometheus has no metrics of istiod")
        return f"{found[0][1]:.0f} series of istiod"

    return [
        Claim("the target of job istiod is up", up),
        Claim("istiod's own metrics arrive", counted),
    ]


def _down_solution(attempt: Attempt) -> Sequence[Typed]:
    old, new = _SLIPS[attempt.drawn["slip"]]
    return _edit(attempt, _CONFIG, old.strip() + ("$" if old.endswith("\n") else ""), new)


# 10-c

_COUNTER = "prometheus_http_requests_total"
_RECORD = "http:requests:rate"
_GOOD = f"sum(rate({_COUNTER}[15s]))"


def _raw(attempt: Attempt) -> None:
    expr = attempt.draw("expr", [_COUNTER, f"sum({_COUNTER})", f"sum by (handler) (increase({_COUNTER}[1m]))"])
    _prometheus(attempt, [], {"record": _RECORD, "expr": expr})


def _raw_claims(attempt: Attempt) -> Sequence[Claim]:
    def single() -> str:
        _rule(attempt, _RECORD)
        found = _query(attempt, _RECORD)
        require(len(found) == 1, f"{_RECORD} has {len(found)} series, not 1")
        return "one series"

    def slope() -> str:
        """Compared with the rate that Prometheus sees now; the queries of this verification are requests, too."""
        recorded = [value for _, value in _query(attempt, _RECORD)]
        real = [value for _, value in _query(attempt, _GOOD)]
        require(recorded and real and real[0] > 0, "there are no samples yet")
        seen = f"{recorded[0]:.2f} recorded, {real[0]:.2f} requests a second now"
        require(0.4 * real[0] <= recorded[0] <= 2.5 * real[0], seen)
        return seen

    return [
        Claim(f"{_RECORD} is one number for the whole server", single),
        Claim("it is the requests a second: a rate, and not a count", slope),
    ]


CHALLENGES = (
    Challenge(
        id="10-a",
        chapter=_CHAPTER,
        title="An alert that cannot fire",
        situation="In the namespace challenge-10-a a Prometheus watches the job shop, which has been down from the start. Its alert "
        "ShopDown does not fire.",
        goal="ShopDown fires for shop and for nothing else, and would be silent if shop were up.",
        hints=(
            "`kubectl -n challenge-10-a port-forward svc/prometheus 9090`, then ask for `up` and for the alert's expression.",
            "An expression that matches no series is not an error: its result is always empty. Which labels does `up` have?",
            'The expression is `up{job="shop"} == 0`. Edit the ConfigMap prometheus, then restart the Deployment.',
        ),
        begin=_silent,
        claims=_silent_claims,
        solution=lambda attempt: _edit(attempt, _RULES, attempt.drawn["expr"], _RIGHT),
        needs=_NEEDS,
    ),
    Challenge(
        id="10-b",
        chapter=_CHAPTER,
        title="A target that is down",
        situation="In the namespace challenge-10-b a Prometheus should scrape istiod, which is healthy. But it has no samples of it.",
        goal="The target of job istiod is up, and istiod's metrics arrive.",
        hints=(
            "The page Targets shows how the last scrape ended: `kubectl … port-forward svc/prometheus 9090`.",
            "Compare address, port and path in the ConfigMap with the lab's own Prometheus in istio-system.",
            "istiod serves its metrics at istiod.istio-system:15014/metrics. Correct the ConfigMap, then restart the Deployment.",
        ),
        begin=_down,
        claims=_down_claims,
        solution=_down_solution,
        needs=("03-flannel/ready", "05-istio/istio"),
    ),
    Challenge(
        id="10-c",
        chapter=_CHAPTER,
        title="A count where a rate was meant",
        situation=f"In the namespace challenge-10-c a Prometheus records {_RECORD}. It should be the server's requests a second, but "
        "it is something else.",
        goal=f"{_RECORD} is one number: the requests a second to this Prometheus, over all of its pages.",
        hints=(
            f"Query {_RECORD} twice, some seconds apart. How many series does it have, and does the number only grow?",
            "A counter only grows; rate() is its slope. sum() adds up what the labels tell apart.",
            f"The expression is {_GOOD}. Edit the ConfigMap prometheus, then restart the Deployment.",
        ),
        begin=_raw,
        claims=_raw_claims,
        solution=lambda attempt: _edit(attempt, _RULES, f"expr: {attempt.drawn['expr']}", f"expr: {_GOOD}"),
        needs=_NEEDS,
    ),
)
