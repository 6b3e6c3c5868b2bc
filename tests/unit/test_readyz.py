"""The checks behind the API server's /readyz: one that fails for a moment is asked again, one that fails for good is shown."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from stackbook.lessons.kubeadm import control_plane

READY = SimpleNamespace(stdout="[+]ping ok\n[+]etcd ok\nreadyz check passed\n", stderr="")
BUSY = SimpleNamespace(
    stdout="", stderr="[+]ping ok\n[-]etcd failed: reason withheld\nError from server: readyz check failed\n"
)


def lab(*answers: Any) -> tuple[Any, list[Any]]:
    left = [*answers]

    def kubectl(*argv: str, check: bool) -> Any:
        assert argv == ("get", "--raw=/readyz?verbose") and not check
        return left.pop(0) if len(left) > 1 else left[0]

    return SimpleNamespace(kube=SimpleNamespace(kubectl=kubectl)), left


def test_a_check_that_fails_for_a_moment_is_asked_again() -> None:
    there, left = lab(BUSY, READY)
    assert control_plane.readyz(there) == [{"check": "ping", "holds": True}, {"check": "etcd", "holds": True}]
    assert left == [READY]


def test_a_check_that_fails_for_good_is_shown() -> None:
    there, _ = lab(BUSY)
    assert control_plane.readyz(there, timeout=0) == [
        {"check": "ping", "holds": True},
        {"check": "etcd", "holds": False},
    ]
