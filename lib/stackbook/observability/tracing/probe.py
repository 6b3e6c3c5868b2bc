"""Requests whose traces can be found again: by a trace id chosen here, or by a mark in their path.

curl sends them in the pod `load`, which has a sidecar. (The load program of chapter 06 gives all requests of a run ids that
start with the same digits. Envoy samples by the first eight digits, so it would sample all requests or none.)
"""

from __future__ import annotations

import json
import re
import secrets
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stackbook.config.namespaces import here
from stackbook.core.errors import CheckFailed, InputError
from stackbook.core.results import Result
from stackbook.observability.tracing.span_table import DECISIONS
from stackbook.traffic.load_client import Executes

_BLOCK = 'silent\nshow-error\noutput = "/dev/null"\nwrite-out = "%{http_code}\\n"\nmax-time = 20\n'


@dataclass(frozen=True)
class Probe:
    """A request that names its own trace, in W3C's traceparent header.

    https://www.w3.org/TR/trace-context/#traceparent-header: version, trace id, id of the parent span, flags.
    """

    url: str
    trace_id: str = field(default_factory=lambda: secrets.token_hex(16))
    parent_id: str = field(default_factory=lambda: secrets.token_hex(8))
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    sampled: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def traceparent(self) -> str:
        """The header."""
        return f"00-{self.trace_id}-{self.parent_id}-{'01' if self.sampled else '00'}"

    @property
    def all_headers(self) -> dict[str, str]:
        """What is sent."""
        return {"traceparent": self.traceparent, "x-request-id": self.request_id, **self.headers}


def send(kube: Executes, *probes: Probe, rate: float = 0, parallel: int = 1) -> list[int]:
    """Send the probes from the pod `load` and return their statuses.

    They go one after the other, `rate` a second if given; or `parallel` at a time, with their statuses in any order.

    Raises:
        CheckFailed: a request has no status.
    """
    return request(kube, [(probe.url, probe.all_headers) for probe in probes], rate=rate, parallel=parallel)


def request(
    kube: Executes, wanted: Sequence[tuple[str, Mapping[str, str]]], *, rate: float = 0, parallel: int = 1
) -> list[int]:
    """Send GETs, each with exactly its headers, and return their statuses; 0 means no answer."""
    blocks = []
    for url, headers in wanted:
        lines = [f"header = {json.dumps(f'{name}: {value}')}" for name, value in headers.items()]
        blocks.append("\n".join([f"url = {json.dumps(url)}", *lines]) + f"\n{_BLOCK}")
    flags = ["--rate", f"{round(60 * rate)}/m"] if rate else []
    flags += ["-Z", "--parallel-max", str(parallel)] if parallel > 1 else []
    limit = 30.0 + len(wanted) * (1 / rate if rate else 0.1)
    said = kube.exec(
        here().workloads, "load", "curl", *flags, "-K", "-",
        container="capture", stdin="next\n".join(blocks), check=False, timeout=limit,
    )  # fmt: skip
    statuses = [int(line) for line in said.lines if line.strip().isdecimal()]
    if len(statuses) != len(wanted):
        raise CheckFailed(f"{len(statuses)} of {len(wanted)} requests have a status: {said.stderr.strip()[-300:]}")
    return statuses


def flood(kube: Executes, url: str, count: int, *, parallel: int = 8) -> str:
    """Send `count` GETs without an id, so that the proxy creates one for each; returns the mark in their paths.

    Up to 1 % may fail, plus as many as are sent at once: a proxy decides about tracing before the answer, and
    after a listener's change the callee's proxy cuts old connections together with their requests.

    Raises:
        InputError: the count is out of range.
        CheckFailed: more failed, or a request has no status, so the proxy may not have seen it.
    """
    if not 1 <= count <= 50_000:
        raise InputError(f"count is {count}", fix="give 1 to 50000 requests")
    mark, said = _flooded(kube, url, count, parallel)
    if not said.ok and _CUT.search(
        said.stderr
    ):  # an error of kubectl exec's stream, not of the requests: send them again under a new mark
        mark, said = _flooded(kube, url, count, parallel)
    statuses = [int(line) for line in said.lines if line.strip().isdecimal()]
    good = statuses.count(200)
    if len(statuses) != count or 0 in statuses or count - good > max(0.01 * count, parallel):
        raise CheckFailed(f"only {good} of {count} requests got the answer 200: {said.stderr.strip()[-300:]}")
    return mark


def decisions(access_log: Sequence[str], mark: str) -> dict[str, str]:
    """Request id → the proxy's decision about tracing it, for the requests with a mark in their path.

    The proxy notes the decision in the id itself before it forwards the request; the ids here include that change.
    """
    found = {}
    for line in access_log:
        try:
            entry = json.loads(line)
            path, id = str(entry["path"]), str(entry["request_id"])
        except (ValueError, LookupError, TypeError):
            continue  # the stream also has Envoy's own log
        if f"mark={mark}&" in path:
            found[id] = DECISIONS.get(id[14:15], "")
    return found


_CUT = re.compile(r"error stream|connection reset by peer|http2: client connection lost")


def _flooded(kube: Executes, url: str, count: int, parallel: int) -> tuple[str, Result]:
    mark = secrets.token_hex(8)
    said = kube.exec(
        here().workloads, "load", "curl", "-sS", "-Z", "--parallel-max", str(parallel), "-m", "60", "-o", "/dev/null",
        "-w", "%{http_code}\\n", f"{url}?mark={mark}&n=[1-{count}]",
        container="capture", check=False, timeout=60 + count / 50,
    )  # fmt: skip
    return mark, said
