"""Installing protobuf: the guide's ways, tried in temporary folders, and what is installed here."""

from __future__ import annotations

import importlib.metadata
import os
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

from stackbook.artifacts.go_toolchain import Output, call

# The guide's steps on Windows, and how they differ from Linux; none can be tried on this host.
WINDOWS = (
    {"step": "archive", "Windows": "protoc-<version>-win64.zip", "Linux": "protoc-<version>-linux-x86_64.zip"},
    {"step": "program", "Windows": r"bin\protoc.exe", "Linux": "bin/protoc"},
    {"step": "search path", "Windows": "the user's Path (Settings, or setx); entries end with ;",
     "Linux": "/etc/profile.d/protobuf.sh; entries end with :"},
    {"step": "check", "Windows": "where protoc; protoc --version", "Linux": "command -v protoc; protoc --version"},
    {"step": "wildcards", "Windows": "cmd.exe leaves *.proto as it is: protoc itself expands it",
     "Linux": "the shell expands *.proto"},
    {"step": "from a registry", "Windows": "pip install grpcio-tools", "Linux": "pip install grpcio-tools"},
)  # fmt: skip

# The top of protobuf's source tree since release 22 (2023), read in commit e712d276 of 2026-08-21.
SOURCE_TREE = ("BUILD.bazel", "CMakeLists.txt", "MODULE.bazel", "cmake", "python", "src", "third_party")
BUILD_STEPS = (
    {"guide": "tar -xvf protobuf", "today": "tar -xf protobuf-<version>.tar.gz", "why": "that is the archive's name"},
    {"guide": "cd protobuf", "today": "cd protobuf-<version>", "why": "that is the folder in it"},
    {"guide": "./configure --prefix=/usr/local/protobuf",
     "today": "cmake -S . -B build -DCMAKE_INSTALL_PREFIX=/usr/local/protobuf -Dprotobuf_BUILD_TESTS=ON",
     "why": "configure no longer exists: use CMake or Bazel; newer releases need Abseil"},
    {"guide": "make", "today": "cmake --build build -j $(nproc)", "why": "there is no Makefile"},
    {"guide": "make check", "today": "ctest --test-dir build", "why": "only if the tests were built, which needs GoogleTest"},
    {"guide": "make install", "today": "sudo cmake --install build", "why": "/usr/local belongs to root"},
)  # fmt: skip


def profile_trial() -> Output:
    """The guide's two lines of /etc/profile, under a temporary root: a shell that reads them finds protoc."""
    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder) / "usr/local/protobuf"
        (prefix / "bin").mkdir(parents=True)
        protoc = prefix / "bin/protoc"
        protoc.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m grpc_tools.protoc "$@"\n')
        protoc.chmod(0o755)
        profile = Path(folder) / "profile"
        profile.write_text(f"export PATH=$PATH:{prefix}/bin/\nexport PKG_CONFIG_PATH={prefix}/lib/pkgconfig/\n")
        script = f". {shlex.quote(str(profile))}; command -v protoc; protoc --version; echo $PKG_CONFIG_PATH"
        output = call(["bash", "--noprofile", "--norc", "-c", script], env={"PATH": os.defpath})
        return Output(output.argv, output.rc, output.stdout.replace(folder.encode(), b""), output.stderr)


def wheel(name: str) -> dict[str, Any]:
    """How a Python distribution was installed here."""
    found = importlib.metadata.distribution(name)
    tags = [
        line.partition(": ")[2] for line in (found.read_text("WHEEL") or "").splitlines() if line.startswith("Tag:")
    ]
    return {
        "package": name,
        "version": found.version,
        "installed from": "a wheel" if tags else "something else",
        "setup.py in it": any(file.name == "setup.py" for file in found.files or ()),
    }


def setup_py(command: Literal["build", "test"]) -> Output:
    """Run `python setup.py COMMAND` for a minimal project in a temporary folder; `install` would change this Python."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "setup.py").write_text("from setuptools import setup\nsetup(name='trial', version='1')\n")
        argv = [sys.executable, "-W", "ignore", "setup.py", command]
        return call(argv, shown=("python", "setup.py", command), cwd=Path(folder), check=False)
