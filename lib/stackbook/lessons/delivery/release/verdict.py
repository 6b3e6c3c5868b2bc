"""Whether a canary may stay: requests through the ingress gateway, counted by who answered, and a test of what failed.

The pipeline runs it as a command (`python -m stackbook.lessons.delivery.release.verdict URL HOST`). Its exit status is 0 if the
canary may stay, 1 if it may not, and 2 if it was called wrongly.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from stackbook.analysis import statistics
from stackbook.core.errors import InputError, StackbookError
from stackbook.core.waiting import until

TRACKS = ("stable", "canary")
ITEMS = 5
REQUESTS = 400
NEEDED = 100
"""How many answers of each version a verdict needs: a version that fails in 15 % of them is then noticed in 9 of 10 cases."""
ALPHA = 0.001
"""The chance that a version that is as good as the stable one is taken back."""


@dataclass(frozen=True)
class Verdict:
    """What the requests say of a canary.

    Attributes:
        stays: whether it may stay.
        why: the test and its numbers, or what is missing.
    """

    stays: bool
    why: str


def measured(url: str, host: str, *, count: int = REQUESTS, timeout: float = 60.0) -> Mapping[str, tuple[int, int]]:
    """Send requests, one after another, to one item after another; begins when the canary answers.

    An answer that fails and names no version counts against the canary: without it, the service answered.

    Args:
        url: the ingress gateway.
        host: the host name that the route is for.
        count: how many requests.
        timeout: deadline in seconds, for the canary's first answer and for each request.

    Returns:
        Track → how many requests failed, and how many there were.

    Raises:
        WaitTimeout: the canary does not answer.
    """
    found = dict.fromkeys(TRACKS, (0, 0))
    with httpx.Client(base_url=url, headers={"Host": host}, timeout=timeout, trust_env=False) as client:

        def track(number: int) -> tuple[str, bool]:
            answer = client.get(f"/items/{number % ITEMS}")
            failed = answer.status_code != 200
            return answer.headers.get("x-track", TRACKS[1] if failed else ""), failed

        until(lambda: track(0)[0] == TRACKS[1], what="the canary to answer", timeout=timeout, every=0.1,
              tolerate=(httpx.TransportError,))  # fmt: skip
        for number in range(count):
            who, failed = track(number)
            if who in found:
                found[who] = (found[who][0] + failed, found[who][1] + 1)
    return found


def judge(counts: Mapping[str, tuple[int, int]], *, alpha: float = ALPHA, needed: int = NEEDED) -> Verdict:
    """Whether the canary fails more often than the stable version; a first release is compared with one that never fails.

    >>> judge({"stable": (0, 200), "canary": (0, 200)}).stays, judge({"stable": (0, 200), "canary": (40, 200)}).stays
    (True, False)
    >>> judge({"stable": (0, 390), "canary": (0, 10)}).why
    'too few answers of the canary: 10, and 100 are needed'
    """
    failed, answers = counts["canary"]
    if answers < needed:
        return Verdict(False, f"too few answers of the canary: {answers}, and {needed} are needed")
    before = counts["stable"] if counts["stable"][1] else (0, answers)
    test = statistics.no_more((failed, answers), before, alpha=alpha, needed=needed)
    return Verdict(test.passed, f"{test.observed} failed: {test.method}, p = {test.p_value:.2g}")


def main(argv: list[str]) -> int:
    """The command; prints a table and the verdict."""
    if len(argv) != 2 or not argv[0].startswith(("http://", "https://")):
        print(
            "error: give the gateway's URL and the route's host, for example http://192.0.2.1:30080 front.example.com"
        )
        return 2
    began = time.monotonic()
    try:
        counts = measured(*argv)
    except (StackbookError, httpx.HTTPError) as error:
        print(f"error: {' '.join(str(error).split())}")
        return 2 if isinstance(error, InputError) else 1
    print(f"{'version':<10}{'requests':>10}{'failed':>10}")
    for name, (failed, answers) in counts.items():
        print(f"{name:<10}{answers:>10}{failed:>10}")
    verdict = judge(counts)
    print(f"{'it stays' if verdict.stays else 'it goes'}: {verdict.why} ({time.monotonic() - began:.1f} s)")
    return 0 if verdict.stays else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
