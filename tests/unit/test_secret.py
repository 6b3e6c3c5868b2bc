"""A Secret cannot be shown by accident, and reaches no process's command line."""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import pprint
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from stackbook.core.command_lines import SecretShown
from stackbook.core.redact import MASK, Secret, redact, scrub

VALUE = "hemlock-and-honey-42"


@dataclass(frozen=True)
class Login:
    user: str
    password: Secret


SHOWN: dict[str, Callable[[Any], object]] = {
    "str": str,
    "repr": repr,
    "ascii": ascii,
    "f-string": lambda s: f"{s} {s!r} {s!s} {s:>30}",
    "format": lambda s: "{} {!r}".format(s, s),  # noqa: UP032
    "percent": lambda s: "%s %r" % (s, s),  # noqa: UP031
    "print": lambda s: print(s, file=io.StringIO()),
    "in a list": lambda s: repr([s, {"key": s}]),
    "in a dataclass": lambda s: repr(Login("me", s)),
    "as a dict": lambda s: repr(asdict(Login("me", s))),
    "pprint": lambda s: pprint.pformat(s),
    "copy": lambda s: repr([copy.copy(s), copy.deepcopy({"a": [s]})]),
    "scrub": lambda s: json.dumps(scrub({"name": s, "more": [s, {"x": (s,)}]})),
    "redact": lambda s: redact(f"<{VALUE}>"),
    "json with a default": lambda s: json.dumps({"a": s}, default=str),
    "an error": lambda s: "".join(traceback.format_exception(ValueError(s))),
}
REFUSED: dict[str, Callable[[Any], object]] = {
    "plus": lambda s: s + "",
    "after plus": lambda s: "" + s,
    "times": lambda s: s * 2,
    "join": lambda s: "".join([s]),
    "percent of it": lambda s: s % (),
    "json": lambda s: json.dumps({"a": s}),
    "json as a key": lambda s: json.dumps({s: 1}),
    "pickle": pickle.dumps,
    "pickle inside": lambda s: pickle.dumps(Login("me", s)),
    "yaml": lambda s: yaml.dump({"a": s}),
    "iteration": list,
    "index": lambda s: s[0],
    "slice": lambda s: s[:],
    "len": len,
    "contains": lambda s: "a" in s,
    "bytes": bytes,
    "hash": lambda s: {s},
    "order": lambda s: sorted([s, s]),
    "write": lambda s: io.StringIO().write(s),
    "a path": Path,
    "variables": vars,
    "an environment": lambda s: os.environ.__setitem__("STACKBOOK_X", s),
    "a process": lambda s: subprocess.run(["true", s]),
    "replace": lambda s: "a".replace("a", s),
    "made of itself": Secret,
}


@pytest.mark.parametrize("name", SHOWN)
def test_it_shows_a_mask(name: str) -> None:
    assert VALUE not in str(SHOWN[name](Secret(VALUE)))


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_no_text(name: str) -> None:
    with pytest.raises(TypeError) as caught:
        REFUSED[name](Secret(VALUE))
    assert VALUE not in str(caught.value)


def test_yaml_that_keeps_to_plain_data_refuses_it() -> None:
    with pytest.raises(yaml.YAMLError) as caught:
        yaml.safe_dump({"a": Secret(VALUE)})
    assert VALUE not in str(caught.value)


def test_it_says_that_it_is_one() -> None:
    secret = Secret(VALUE)
    assert (str(secret), repr(secret), f"{secret:.3}") == (MASK, "Secret(***)", MASK)
    assert secret.reveal() == VALUE
    assert not isinstance(secret, str)


def test_it_equals_a_secret_only_and_does_not_change(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    monkeypatch.setattr("hmac.compare_digest", lambda a, b: compared.append((a, b)) or a == b)
    secret = Secret(VALUE)
    assert secret == Secret(VALUE) and secret != Secret(VALUE + "x")
    assert secret != VALUE and not VALUE == secret  # noqa: SIM300, SIM201
    assert len(compared) == 2
    assert Secret("\udc80 lone") == Secret("\udc80 lone")
    for change in (lambda: setattr(secret, "_Secret__value", "x"), lambda: setattr(secret, "new", 1),
                   lambda: delattr(secret, "_Secret__value")):  # fmt: skip
        with pytest.raises(AttributeError, match="cannot be changed"):
            change()


def test_a_long_text_that_holds_a_secret_is_not_searched_for() -> None:
    Secret("a whole page with something in it", remember=False)
    assert redact("a whole page with something in it") == "a whole page with something in it"


# command lines


STARTS: dict[str, Callable[[str], object]] = {
    "Popen": lambda w: subprocess.Popen(["true", w]),
    "run": lambda w: subprocess.run(["curl", "-u", f"elastic:{w}"], check=False),
    "bytes": lambda w: subprocess.run([b"true", w.encode()], check=False),
    "a path": lambda w: subprocess.run([Path("true"), Path(w)], check=False),
    "a shell": lambda w: subprocess.run(f"true --password={w}", shell=True, check=False),
    "system": lambda w: os.system(f"true {w}"),
    "exec": lambda w: os.execvp("true", ["true", w]),
    "exec with an environment": lambda w: os.execve("/bin/true", ["true", w], {}),
    "posix_spawn": lambda w: os.posix_spawn("/bin/true", ["true", w], {}),
}


@pytest.mark.parametrize("name", STARTS)
def test_no_process_is_started_with_a_known_secret_on_its_command_line(name: str) -> None:
    Secret(VALUE)
    with pytest.raises(SecretShown, match="standard input") as caught:
        STARTS[name](VALUE)
    assert VALUE not in str(caught.value)


def test_other_processes_and_other_ways_are_left_alone() -> None:
    Secret(VALUE)
    Secret("true")  # too short to be told from a word
    script = 'read word; test "$word" = "$WORD" && echo the same'
    env = {**os.environ, "WORD": VALUE}
    assert (
        subprocess.run(["sh", "-c", script], input=VALUE.encode(), env=env, capture_output=True).stdout == b"the same\n"
    )


def test_it_holds_in_every_process_that_knows_a_secret() -> None:
    code = (
        "import subprocess, sys\nfrom stackbook.core.redact import Secret\n"
        "word = sys.stdin.read()\nsubprocess.run(['true', word])\nSecret(word)\nsubprocess.run(['true', word])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], input=VALUE, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "line 6" in done.stderr and "SecretShown" in done.stderr and VALUE not in done.stderr
