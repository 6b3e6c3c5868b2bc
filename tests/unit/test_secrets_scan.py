"""The search for secrets finds what is planted, wherever and however, and nothing else."""

from __future__ import annotations

import base64
import gzip
import html
import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
import secrets_scan
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from secrets_scan import command_lines, scan

ROOT = Path(__file__).parents[2]
CANARY = 'Canary7"<qz&\\9xK'
KEY = "QUJD" * 20
PLANTED = {
    "bootstrap token": "kubeadm join --token abcdef.0123456789abcdef x",
    "JSON web token": f"eyJ{'a1' * 10}.eyJ{'b2' * 10}.{'c3' * 10}",
    "private key": f"-----BEGIN RSA PRIVATE KEY-----\n{KEY}\n-----END RSA PRIVATE KEY-----",
    "private key in base64": base64.b64encode(b"-----BEGIN EC PRIVATE KEY-----\nabc").decode(),
    "kubeconfig key": f"    client-key-data: {KEY}",
    "certificate key": f"Using certificate key:\n{'0123abcd' * 8}",
    "bearer token": "Authorization: Bearer abcdefghijkl0123",
    "password": "MYSQL_ROOT_PASSWORD=hunter22hunter",
}


def notebook(text: str) -> str:
    lines = text.splitlines(keepends=True)
    output = {"output_type": "stream", "name": "stdout", "text": lines}
    cell = {"cell_type": "code", "execution_count": 1, "id": "a", "metadata": {}, "source": [], "outputs": [output]}
    return json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


WRAPPED = {
    "x.log": lambda t: f"one\ntwo {t}\n",
    "x.ipynb": notebook,
    "x.html": lambda t: f"<p>{html.escape(t)}</p>",
    "run.json": lambda t: json.dumps({"steps": [{"reason": t}]}),
    "events.jsonl": lambda t: '{"event": "a"}\n' + json.dumps({"event": "b", "stderr": t}, ensure_ascii=False) + "\n",
    "x": lambda t: t,
}


@pytest.mark.parametrize("name", WRAPPED)
@pytest.mark.parametrize("kind", PLANTED)
def test_each_shape_is_found_in_each_kind_of_file(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / "clean.txt").write_text("nothing here\n")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / name).write_text(WRAPPED[name](PLANTED[kind]), encoding="utf-8")
    found = scan([tmp_path])
    assert kind in {f.kind for f in found}
    assert {f.path.name for f in found} == {name}


@pytest.mark.parametrize("name", WRAPPED)
def test_a_canary_is_found_in_each_kind_of_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(WRAPPED[name](f"it is {CANARY}."), encoding="utf-8")
    found = scan([tmp_path], [CANARY, "another-canary"])
    assert {f.kind for f in found} >= {"canary"}
    assert not any(CANARY in str(f) for f in found)


def test_among_many_files_each_that_has_it_is_named_once_and_in_order(tmp_path: Path) -> None:
    for number in range(60):
        text = f"it is {CANARY}. {CANARY}" if number % 7 == 0 else "nothing"
        (tmp_path / f"{number:02d}.log").write_text(text, encoding="utf-8")
    found = scan([tmp_path], [CANARY])
    assert [f.path.stem for f in found] == [f"{n:02d}" for n in range(0, 60, 7) for _ in range(2)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.binary(max_size=9), st.binary(max_size=9))
def test_a_canary_is_found_in_base64_at_any_place(tmp_path: Path, before: bytes, after: bytes) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(b"data: " + base64.b64encode(before + CANARY.encode() + after))
    assert [f.kind for f in scan([path], [CANARY])][:1] == ["canary"]


def test_a_canary_is_found_in_a_url_in_hex_compressed_and_torn_by_highlighting(tmp_path: Path) -> None:
    (tmp_path / "a").write_text(f"https://example.org/?x={quote(CANARY, safe='')}")
    (tmp_path / "b").write_text(CANARY.encode().hex())
    (tmp_path / "c.gz").write_bytes(gzip.compress(CANARY.encode()))
    half = html.escape(CANARY[:7]), html.escape(CANARY[7:])
    (tmp_path / "d.html").write_text(f"<span>{half[0]}</span><span>{half[1]}</span>")
    (tmp_path / "e.ipynb").write_text(json.dumps({"cells": [{"source": [CANARY[:5], CANARY[5:]]}]}))
    assert {f.path.name for f in scan([tmp_path], [CANARY])} == {"a", "b", "c.gz", "d.html", "e.ipynb"}


def test_it_says_where_without_saying_what(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_text(f"one\ntwo\npassphrase is {CANARY}\n")
    (found,) = scan([path], [CANARY])
    assert str(found) == f"{path}:3: canary: passphrase is Can…"


def test_a_process_with_a_secret_on_its_command_line_is_found(tmp_path: Path) -> None:
    code = "import sys; print('ready', flush=True); sys.stdin.read()"
    argv = [sys.executable, "-c", code, f"--password={CANARY}"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline()
        (found,) = command_lines([CANARY, "not-in-there"])
        assert found.path == Path(f"/proc/{process.pid}/cmdline") and CANARY not in str(found)
    assert command_lines([CANARY]) == []
    with pytest.raises(FileNotFoundError):
        command_lines([CANARY], proc=tmp_path)


def test_a_missing_path_and_a_meaningless_canary_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        scan([tmp_path / "none"])
    with pytest.raises(ValueError, match="less than 6"):
        scan([tmp_path], ["abc"])


def test_a_link_to_a_run_is_followed_when_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "x.log").write_text(PLANTED["bootstrap token"])
    (tmp_path / "latest").symlink_to("run")
    assert len(scan([tmp_path / "latest"])) == 1


ORDINARY = """kubeadm token create
sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
password: *** | PASSWORD=*** | "password": "***" | --token *** | client-key-data: ***
result.getattributename | secretName: istio-ca-secret | password: your own
61fwo7.13hldbyt1oyd6qra
{"warn": "apply request took too long", "request": "range key:\\"/registry/events/default/reviews-v1-broken.18bb2a3c4d5e6f70\\" "}
-----BEGIN CERTIFICATE----- | -----BEGIN PRIVATE KEY-----***"""


@pytest.mark.parametrize("name", WRAPPED)
def test_ordinary_text_is_no_secret(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(WRAPPED[name](ORDINARY), encoding="utf-8")
    assert scan([tmp_path], ["not-in-there"]) == []


@pytest.mark.slow
def test_nothing_committed_holds_a_secret() -> None:
    of_examples = (*secrets_scan.GUIDES_OWN, "abcdef.0123456789abcdef")
    committed = [ROOT / name for name in ("notebooks", "docs", "parameters", "lib/stackbook")]
    found = scan(committed, allowed=of_examples)
    assert not found, "\n".join(map(str, found))


def test_the_shapes_are_as_many_as_the_planted() -> None:
    assert set(PLANTED) == set(secrets_scan.SHAPES)
