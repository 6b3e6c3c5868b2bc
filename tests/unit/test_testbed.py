"""What the test bed reads from the proxies' access logs."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pandas as pd
import pytest
from stackbook.traffic import testbed
from stackbook.traffic.testbed import Testbed


def entry(number: int, flags: str) -> str:
    return json.dumps({"request_id": f"01234567-89ab-4cde-8f01-00000000000{number}", "response_flags": flags})


class Logs:
    """kubectl logs: that of the sending proxy, and those of the receivers, of which the last one comes with the second look."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    def kubectl(self, *argv: str, timeout: float) -> SimpleNamespace:
        del timeout
        self.asked.append(argv)
        if "load" in argv:
            return SimpleNamespace(lines=[entry(1, "-"), entry(2, "UO"), entry(3, "-"), entry(4, "-")])
        looks = sum("-l" in asked for asked in self.asked)
        return SimpleNamespace(lines=[entry(1, "-"), entry(3, "UO"), entry(4, "UC")][: 1 + looks])


def bench(logs: Logs) -> Testbed:
    return Testbed(logs, "", inside=None, outside=None, host=None)


def frame() -> pd.DataFrame:
    ids = [f"01234567-89ab-4cde-8f01-00000000000{number}" for number in (1, 2, 3, 4)]
    return pd.DataFrame({"status": [200, 503, 503, 503], "request_id": ids})


def test_a_request_that_the_receiver_refused_has_the_receivers_flags():
    logs = Logs()
    assert list(bench(logs).flagged(frame(), receivers="app=reviews")["flags"]) == ["-", "UO", "UO", "UC"]
    assert len(logs.asked) == 4


def test_without_receivers_the_sending_proxys_word_stands():
    logs = Logs()
    assert list(bench(logs).flagged(frame())["flags"]) == ["-", "UO", "-", "-"]
    assert len(logs.asked) == 1


class Rotated:
    """kubectl logs of a file that the kubelet has begun while the first requests were sent: it lacks two of them."""

    def __init__(self) -> None:
        self.lines = [entry(3, "-"), entry(4, "-")]

    def kubectl(self, *argv: str, timeout: float) -> SimpleNamespace:
        del argv, timeout
        return SimpleNamespace(lines=self.lines)


@pytest.mark.parametrize("again", [True, False])
def test_requests_whose_log_was_rotated_meanwhile_are_sent_once_more(again: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(testbed, "until", lambda done, **more: done())
    logs, sent = Rotated(), []

    def send() -> pd.DataFrame:
        sent.append(len(logs.lines))
        if len(sent) == 2 and again:
            logs.lines += [entry(1, "-"), entry(2, "FI")]
        return frame()

    found = list(bench(logs).noted(send)["flags"])
    assert found == (["-", "FI", "-", "-"] if again else ["", "", "-", "-"])
    assert len(sent) == 2


def test_what_is_in_the_log_at_once_is_sent_once():
    sent = []
    bench(Logs()).noted(lambda: sent.append(1) or frame())
    assert len(sent) == 1
