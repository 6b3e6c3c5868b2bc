"""The lessons that compile Go; they need the toolchain, which `stackbook fetch go` provides."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from gotools import MARKS
from stackbook.artifacts import go_toolchain, protoc
from stackbook.lessons.grpc import balance, failures, guide, layouts, processes, retry
from stackbook.lessons.protobuf import malformed

pytestmark = MARKS


@pytest.fixture(scope="module")
def pair() -> Iterator[processes.Pair]:
    started = processes.Pair.start()
    yield started
    started.close()


def test_both_servers_fail_alike(pair: processes.Pair) -> None:
    assert failures.blamed(pair.to_go) == failures.blamed(pair.to_python)
    assert [f.code for f in failures.abuse(pair.to_go)] == [f.code for f in failures.abuse(pair.to_python)]


def test_retries_reach_the_server() -> None:
    with processes.go_server() as fresh:
        assert retry.attempts(fresh, 1) == ["Unavailable", "OK"]


def test_tls_refuses_what_it_must(tmp_path: Path) -> None:
    assert {f.code for f in failures.transport(processes.certificates(tmp_path))} == {"UNAVAILABLE"}


def test_balance() -> None:
    counts = {(c.client, c.policy): c for c in balance.compare(calls=90)}
    assert len(counts["Go", "pick_first"].calls) == len(counts["Python", "pick_first"].calls) == 1
    assert counts["Python", "round_robin"].fair


@pytest.mark.parametrize("layout", layouts.LAYOUTS, ids=lambda layout: layout.name)
def test_layouts(layout: layouts.Layout) -> None:
    assert layouts.attempt(layout).as_expected


def test_the_guides_programs_compile_and_greet() -> None:
    with guide.trial() as trial:
        assert "mustEmbedUnimplementedGreeterServer" in trial.missing
        with trial.server():
            assert trial.greetings() == ["Greeting: Hello world", "Greeting: Hello Ada"] * 2


@pytest.mark.parametrize("case", malformed.CASES, ids=lambda case: case.name)
def test_malformed_bytes_in_go_too(case: malformed.Case) -> None:
    (program,) = go_toolchain.toolchain().build("./lessons/wire")
    assert malformed.judge(case, program).as_expected


@pytest.mark.parametrize(
    ("proto", "folder", "options", "grpc"),
    [
        ("lessons/v1/types.proto", "", [], False),
        ("lessons/v1/access_log.proto", "", [], False),
        ("helloworld/helloworld.proto", "", [], True),
        ("pics.proto", "guide", ["Mpics.proto=stackbook.dev/apps/internal/pb/protoc"], False),
    ],
)
def test_the_committed_go_code_is_what_the_plugins_write(
    proto: str, folder: str, options: list[str], grpc: bool
) -> None:
    made = protoc.go_code(proto, include=protoc.protos() / folder, options=options, grpc=grpc)
    assert not made.error
    for path, text in made.files.items():
        assert (go_toolchain.modules() / path).read_text() == text
