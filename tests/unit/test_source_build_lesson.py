"""What chapter 08 reads of protobuf's build from source; the build itself is a component of the cache."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from stackbook.lessons.protobuf import source_build

TESTS = """\
3: [==========] 2 tests from 1 test suite ran. (0 ms total)
3: [  PASSED  ] {} tests.
{}
100% tests passed, 0 tests failed out of 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a build leaves, with a protoc that is a shell script."""
    commands = ("sed x", "cmake -S .", "cmake --build build", "ctest", "cmake --install build")
    steps = [{"log": f"{number}-x", "seconds": 3 * number, "command": text} for number, text in enumerate(commands, 1)]
    record = {"source": "protobuf 3.21.12-3", "tree": ["CMakeLists.txt", "README.md"], "steps": steps}
    (tmp_path / "build.json").write_text(json.dumps(record))
    (tmp_path / "log").mkdir()
    for step in steps:
        (tmp_path / "log" / str(step["log"])).write_text("fine\n")
    prefix = tmp_path / "usr/local/protobuf"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin/protoc").write_text("#!/bin/sh\ntest $1 = --version && echo libprotoc 3.21.12 || cat\n")
    (prefix / "bin/protoc").chmod(0o755)
    (prefix / "lib/pkgconfig").mkdir(parents=True)
    text = "prefix=/usr/local/protobuf\nlibdir=${prefix}/lib\n\nName: Protocol Buffers\nVersion: 3.21.12.0\n"
    (prefix / "lib/pkgconfig/protobuf.pc").write_text(text)
    return tmp_path


def test_a_build_is_read_with_its_counted_tests(folder: Path) -> None:
    (folder / "log/4-x").write_text(TESTS.format(1200, "") + TESTS.format(34, ""))
    built = source_build.read(folder)
    assert (built.passed, built.failed) == (1234, 0)
    assert built.version() == "libprotoc 3.21.12"
    assert built.pkg_config()["prefix"] == "/usr/local/protobuf"
    assert built.pkg_config()["Version"] == "3.21.12.0"
    table = source_build.rows(built)
    assert [row["the guide"] for row in table][1:] == [
        "./configure --prefix=/usr/local/protobuf",
        "make",
        "make check",
        "make install",
    ]
    assert table[3]["result"] == "1234 tests passed, 0 failed" and table[4]["s"] == 15


def test_tests_that_failed_are_counted(folder: Path) -> None:
    (folder / "log/4-x").write_text(TESTS.format(1200, "3: [  FAILED  ] 1 test, listed below:"))
    assert source_build.read(folder).failed == 1


def test_other_bytes_are_noticed(folder: Path) -> None:
    theirs, ours = source_build.same_message(source_build.read(folder))  # this protoc copies its input
    assert theirs != ours and ours.hex(" ") == "08 96 01 12 03 74 65 61 12 05 62 72 65 61 64 18 01"
