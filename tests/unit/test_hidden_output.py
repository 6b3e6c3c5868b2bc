"""What a command with `secret=True` prints is shown nowhere, however it ends: in no error, no context, no record, no repr."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from stackbook.artifacts import go_toolchain
from stackbook.artifacts.go_toolchain import ToolFailed
from stackbook.cluster.kube import Kube
from stackbook.core.errors import CheckFailed, CommandFailed, InputError, StackbookError, TransportError, WaitTimeout
from stackbook.core.redact import MASK
from stackbook.core.results import Result
from stackbook.lab.step import Record, step
from stackbook.machines.transports import LocalHost

# Computed by the shell, so that it stands in the output only; of no shape that `redact` knows.
WORD = "word-42-hidden"
LIBRARY = "lib/stackbook"
SAY = "echo word-$((40 + 2))-hidden; echo word-$((40 + 2))-hidden >&2"


@dataclass
class Broken(LocalHost):
    """A machine whose transport breaks at status 255, with what the command printed as the reason, as ssh's may be."""

    def _argv(self, argv: Sequence[str], env: Mapping[str, str], stdin: bool) -> list[str]:
        return list(argv) if argv[0] != "true" else ["sh", "-c", "echo no route to host >&2; exit 255"]

    def _transport_failed(self, result: Result) -> str:
        return result.stderr.strip() if result.rc == 255 else ""


def everything(error: BaseException) -> str:
    """All that a page, a log or a debugger could show of an error: those that it came from, their fields, and the variables
    in the frames that it went through."""
    found, todo, seen = [], [error], set()
    while todo:
        one = todo.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        found += [repr(one), str(one), repr(vars(one)), *(repr(value) for value in one.args)]
        found += traceback.format_exception(one, chain=False)
        found += [
            repr(frame.f_locals)
            for frame, _ in traceback.walk_tb(one.__traceback__)
            if LIBRARY in frame.f_code.co_filename
        ]
        todo += [e for e in (one.__cause__, one.__context__) if e is not None]
    return "\n".join(found)


@pytest.mark.parametrize(
    ("host", "end", "kind"),
    [
        (LocalHost(), "exit 3", CommandFailed),
        (LocalHost(), "sleep 30", WaitTimeout),
        (Broken(), "exit 255", TransportError),
    ],
)
def test_no_error_has_it(host: LocalHost, end: str, kind: type[StackbookError], tmp_path: Path) -> None:
    record = Record(tmp_path / "events.jsonl")
    for secret in (False, True):
        with pytest.raises(kind) as caught, step("s", "t", chapter="x", record=record, quiet=True) as current:
            host = replace(host, observers=[current.observe])
            host.run(["sh", "-c", f"{SAY}; {end}"], timeout=0.5, secret=secret)
        shown = everything(caught.value) + record.path.read_text()
        assert (WORD in shown) is not secret  # the control: without the flag it is there to be seen
        record.path.unlink()


def test_what_is_wrong_with_a_transport_is_asked_without_the_secret() -> None:
    with pytest.raises(TransportError, match="no route to host"):
        Broken(name="n").run(["sh", "-c", f"{SAY}; exit 255"], secret=True)


@pytest.mark.parametrize("rc", [0, 1])
def test_no_result_has_it_but_by_reveal(rc: int) -> None:
    seen: list[Result] = []
    result = LocalHost(observers=[seen.append]).run(["sh", "-c", f"{SAY}; exit {rc}"], check=False, secret=True)
    for one in (result, seen[0], replace(result, host="other"), result.hide()):
        assert WORD not in f"{one!r} {one} {vars(one)} {one.lines} {CommandFailed(one)}"
        assert (one.stdout, one.stderr) == (MASK, MASK)
        assert one.reveal() == f"{WORD}\n"


def test_what_is_no_secret_is_shown_without_those_that_have_a_shape() -> None:
    result = LocalHost().run(["sh", "-c", "echo plain; echo password=hunter22x"])
    assert result.reveal() == result.stdout == "plain\npassword=hunter22x\n"
    assert "plain" in repr(result) and "hunter22x" not in repr(result)


@pytest.mark.parametrize("end", ["exit 0", "exit 1", "sleep 30"])
def test_kubectl_does_not_tell_either(end: str, tmp_path: Path) -> None:
    program = tmp_path / "kubectl"
    program.write_text(f"#!/bin/sh\n{SAY}\n{end}\n")
    program.chmod(0o755)
    seen: list[Result] = []
    kube = Kube(tmp_path / "kubeconfig", program, observers=[seen.append])
    try:
        shown = repr(kube.kubectl("get", "secret", "x", timeout=0.5, secret=True))
    except StackbookError as error:
        shown = everything(error)
    assert WORD not in f"{shown} {seen!r}"


def test_a_tool_does_not_tell_either(tmp_path: Path) -> None:
    done = go_toolchain.call(["sh", "-c", SAY], secret=True)
    assert done.reveal() == f"{WORD}\n" and WORD not in f"{done!r} {done.text} {vars(done)}"
    for end, kind in (("exit 1", ToolFailed), ("sleep 30", go_toolchain.subprocess.TimeoutExpired)):
        with pytest.raises(kind) as caught:
            go_toolchain.call(["sh", "-c", f"{SAY}; {end}"], secret=True, timeout=0.5)
        assert WORD not in everything(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        CheckFailed("join --token abcdef.0123456789abcdef"),
        InputError("wrong", fix="use abcdef.0123456789abcdef"),
        WaitTimeout("abcdef.0123456789abcdef", 1, last="abcdef.0123456789abcdef", cause="abcdef.0123456789abcdef"),
        CommandFailed(Result(("x", "abcdef.0123456789abcdef"), 1, "", "abcdef.0123456789abcdef", 1)),
    ],
)
def test_every_error_masks_what_has_the_shape_of_a_secret(error: StackbookError) -> None:
    assert "0123456789abcdef" not in everything(error)
    assert MASK in str(error)
