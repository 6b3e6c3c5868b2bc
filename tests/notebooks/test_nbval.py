"""nbval, as the chapters use it: what it compares, what it lets pass, and that a wrong output fails."""

import configparser
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

CONFIG = Path(__file__).parents[1] / "sanitize.cfg"


def code(source, printed, *tags):
    output = [{"output_type": "stream", "name": "stdout", "text": [printed]}] if printed else []
    return {
        "cell_type": "code", "execution_count": 1, "id": f"c{abs(hash(source)) % 10**8}", "source": source,
        "outputs": output, "metadata": {"tags": list(tags)},
    }  # fmt: skip


def nbval(folder, *cells):
    """Exit status and output of nbval over one notebook."""
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    book = {"cells": list(cells), "metadata": {"kernelspec": spec}, "nbformat": 4, "nbformat_minor": 5}
    path = folder / "chapter.ipynb"
    path.write_text(json.dumps(book))
    flags = ["-q", "-p", "no:cacheprovider", "--nbval", "--nbval-current-env", "--nbval-sanitize-with", CONFIG]
    command = [sys.executable, "-m", "pytest", *flags, path]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=120)
    return done.returncode, done.stdout


@pytest.mark.slow
def test_outputs_are_compared_but_for_what_is_named_volatile(tmp_path):
    status, said = nbval(
        tmp_path,
        code("print('✓ init: the control plane')", "✓ init: the control plane\n"),
        code("import random; print(random.random())", "0.5\n", "nbval-ignore-output"),
        code("print('10.244.2.7 in 10.244.2.0/24')", "10.244.1.7 in 10.244.1.0/24\n"),
        code("print('reviews-v1-7d5f8c9b64-x2x4z', hex(id(object())))", "reviews-v1-5c4d9bf667-bbw7k 0x7f0123456789\n"),
    )
    assert status == 0, said


WRONG = {
    "print('✓ init: the control plane')": "✗ init: the control plane\n",
    "print('v1 50 %')": "v1 90 %\n",
    "print('reviews-v1-7d5f8c9b64-x2x4z')": "reviews-v3-7d5f8c9b64-x2x4z\n",
    "print('10.244.1.7')": "10.244.1.8\n",
    "pass": "something\n",
    "raise ValueError": "",
}


@pytest.mark.slow
def test_a_wrong_output_fails(tmp_path):
    status, said = nbval(tmp_path, *(code(source, committed) for source, committed in WRONG.items()))
    assert status == 1, said
    assert f"{len(WRONG)} failed" in said and "passed" not in said, said


def patterns():
    config = configparser.RawConfigParser()
    config.read(CONFIG)
    return [(config.get(name, "regex"), config.get(name, "replace")) for name in config.sections()]


KEPT = """reviews-v1 | k8s-master-3 | bookinfo-gateway | productpage-v1 1/1 | 10.244.0.7 | v1.36.3
sha256:0123456789abcdef
kube-controller-manager-k8s-master | 500 30 % 5 s | 0x1F | 2026-11-23 | spiffe://cluster.local/ns/default/sa/bookinfo"""


@pytest.mark.parametrize("text", KEPT.replace("\n", " | ").split(" | "))
def test_what_a_reader_must_be_able_to_trust_is_left_alone(text):
    for regex, replace in patterns():
        assert re.sub(regex, replace, text) == text


def test_the_list_stays_short():
    assert len(patterns()) <= 6


DEAD = "Kernel died before replying to kernel_info"


@pytest.mark.parametrize(
    ("said", "last"),
    [([DEAD, "1 passed"], "1 passed"), (["1 failed", "1 passed"], "1 failed"), ([DEAD] * 4, DEAD)],
    ids=["died at its start", "failed", "dies each time"],
)
def test_only_a_kernel_that_has_not_even_answered_is_started_again(monkeypatch, tmp_path, said, last):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "live")
    import test_c_nbval

    answers = iter(said)
    monkeypatch.setattr(
        subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 0, next(answers), "")
    )
    assert test_c_nbval.nbval(tmp_path / "x.ipynb", tmp_path).stdout == last
