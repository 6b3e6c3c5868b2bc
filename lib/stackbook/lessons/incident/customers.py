"""Customers: a pod outside the mesh that opens the product page several times a second through the ingress gateway, for at most an hour."""

from __future__ import annotations

import time
from typing import Any

from stackbook.core.waiting import pause
from stackbook.lab.attempt import Attempt
from stackbook.lessons.challenges import workloads

NAME = "customers"
PAGES = 5
"""Pages a second; each page has about ten spans."""
HEALTHY = 12.0
"""Seconds of traffic before anything is planted: enough for a few scrapes of Prometheus, to compare with later."""
LONGEST = 3600
TOKEN = "/tmp/token"
"""A file with a header that customers send, if it exists."""
_URL = "http://istio-ingressgateway.istio-system/productpage"
_SCRIPT = f"""end=$(( $(busybox date +%s) + {LONGEST} ))
while [ "$(busybox date +%s)" -lt "$end" ]; do
  set --
  [ -s {TOKEN} ] && set -- -H @{TOKEN}
  curl -s -o /dev/null -m 15 "$@" {_URL} &
  busybox sleep {1 / PAGES:g}
done
exec busybox sleep 86400"""


def begin(attempt: Attempt) -> float:
    """Start the customers in the incident's namespace, and wait `HEALTHY` seconds; returns the Unix time of their start."""
    attempt.space()
    attempt.apply(pod(attempt))
    workloads.wait(attempt, 1)
    began = time.time()
    pause(HEALTHY)
    return began


def pod(attempt: Attempt) -> dict[str, Any]:
    """The Deployment."""
    return workloads.deployment(attempt, NAME, "tools", port=0, sidecar=False, command=["/bin/sh", "-c", _SCRIPT])


def give_token(attempt: Attempt, header: str) -> None:
    """Let the customers send a header from now on. It is on no command line, so no other process sees it."""
    target = f"deploy/{NAME}-v1"
    attempt.lab.kube.exec(attempt.namespace, target, "/bin/sh", "-c", f"cat > {TOKEN}", container=NAME, stdin=header)
