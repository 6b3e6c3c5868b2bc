"""kubectl run again where the API server's connection to a webhook broke, and only there."""

from __future__ import annotations

from pathlib import Path

import pytest
from stackbook.cluster import webhook_retry
from stackbook.cluster.kube import Kube
from stackbook.core.errors import CommandFailed
from stackbook.core.results import Result

WEBHOOK = (
    'failed calling webhook "namespace.sidecar-injector.istio.io": failed to call webhook: '
    'Post "https://istiod:443/inject?timeout=10s": '
)


def kube(folder: Path, *said: str) -> Kube:
    """A kubectl that fails with each of these in turn, then succeeds; it counts its runs."""
    script = folder / "kubectl"
    for number, text in enumerate(said):
        (folder / str(number + 1)).write_text(text)
    script.write_text(f"""#!/bin/sh
cd {folder}
echo run >> runs
n=$(wc -l < runs)
[ -e "$n" ] || exit 0
cat "$n" >&2
exit 1
""")
    script.chmod(0o755)
    return Kube(folder / "none", kubectl_path=script)


def runs(folder: Path) -> int:
    return len((folder / "runs").read_text().splitlines())


def test_an_apply_is_tried_again_on_a_new_connection_to_the_webhook(tmp_path: Path) -> None:
    broken = [WEBHOOK + why for why in ("write: connection reset by peer", "use of closed network connection", "EOF")]
    assert kube(tmp_path, *broken).kubectl("apply", "-f", "-", stdin="x").ok
    assert runs(tmp_path) == 4


def test_every_try_is_in_the_record(tmp_path: Path) -> None:
    seen: list[Result] = []
    cluster = kube(tmp_path, WEBHOOK + "EOF")
    cluster.observers.append(seen.append)
    cluster.kubectl("apply", "-f", "-", stdin="x")
    assert [(result.argv[:2], result.rc, result.stderr.endswith("EOF")) for result in seen] == [
        (("kubectl", "apply"), 1, True),
        (("kubectl", "apply"), 0, False),
    ]


def test_what_the_first_try_made_is_no_less_made_because_the_second_finds_it() -> None:
    def result(text: str) -> Result:
        return Result(("kubectl", "apply"), 0, text, "", 1.0)

    first = result("service/a created\nservice/b unchanged\n")
    second = result("service/a unchanged\nservice/b unchanged\ndeployment.apps/c created\n")
    assert webhook_retry.together(first, second).lines == [
        "service/a created",
        "service/b unchanged",
        "deployment.apps/c created",
    ]


def test_a_webhook_that_stays_away_is_an_error_with_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_retry, "BACK", 0.2)
    with pytest.raises(CommandFailed, match="connection refused"):
        kube(tmp_path, *[WEBHOOK + "connect: connection refused"] * 9).kubectl("apply", "-f", "-", stdin="x")
    assert runs(tmp_path) == 2


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        ("apply", 'admission webhook "validation.istio.io" denied the request: no hosts'),
        ("apply", "The connection to the server was refused: connection refused"),
        (
            "apply",
            'failed calling webhook "x": failed to call webhook: the server rejected our request for an unknown reason',
        ),
        ("apply", WEBHOOK + "tls: failed to verify certificate: x509: certificate signed by unknown authority"),
        ("create", WEBHOOK + "EOF"),
    ],
)
def test_what_is_refused_and_what_cannot_be_repeated_runs_once(tmp_path: Path, verb: str, said: str) -> None:
    with pytest.raises(CommandFailed):
        kube(tmp_path, said).kubectl(verb, "-f", "-", stdin="x")
    assert runs(tmp_path) == 1
