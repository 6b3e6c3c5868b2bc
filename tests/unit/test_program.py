"""A module started by `python -m` ends with a status, and with one line for an error."""

from __future__ import annotations

import pytest
from stackbook.app import program
from stackbook.core.errors import InputError


def test_the_status_of_the_function_is_that_of_the_process() -> None:
    with pytest.raises(SystemExit) as ended:
        program.end_with(lambda: 3)
    assert ended.value.code == 3


def test_an_error_is_one_line_without_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    def refuse() -> int:
        raise InputError("no such thing: password: hunter2-and-more", fix="another one")

    with pytest.raises(SystemExit) as ended:
        program.end_with(refuse)
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.startswith("stackbook: no such thing") and said.count("\n") == 1 and "hunter2" not in said


def test_ctrl_c_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        program.end_with(interrupted)
    assert (ended.value.code, capsys.readouterr().err) == (130, "stackbook: interrupted\n")
