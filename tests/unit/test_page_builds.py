"""Web pages built from a module's own lockfile, with pnpm or Yarn: what is run, with which settings, and what a failure says."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import subprocess
import tarfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stackbook.artifacts import gobuild, npm_packages, page_builds
from stackbook.artifacts.catalogue import Group
from stackbook.artifacts.page_builds import Tools
from stackbook.artifacts.sources import Npm, Pages
from stackbook.artifacts.subprocesses import Cancelled
from stackbook.core.child_processes import end
from stackbook.core.errors import ArtifactError, ArtifactUnavailable, CorruptArtifact, InputError
from stackbook.core.progress import Progress, quiet

PAGES = Pages(
    "server", "example.org/server", "web", ("bash build.sh --all", "pnpm exec vite build"), "out", "index.html"
)
INSTALL = "pnpm install --frozen-lockfile --prefer-offline --ignore-scripts --reporter=append-only"
YARN = "yarn install --frozen-lockfile --ignore-scripts --non-interactive --json --network-timeout 300000"
Line = Callable[[str], None]


class FakeRun:
    """Runs nothing: each command writes what it is told to; a command that is not expected fails the test."""

    def __init__(self, **does: Callable[[Path, Line], int]) -> None:
        self.does = {"install": nothing, "build": nothing, "vite": pages, **does}
        self.ran: list[str] = []
        self.env: Mapping[str, str] = {}
        self.ticks: list[float] = []

    def __call__(self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path, on_line: Line,
                 on_tick: Callable[[float], None], cancel: threading.Event) -> int:  # fmt: skip
        known = {INSTALL: "install", YARN: "install", PAGES.commands[0]: "build", PAGES.commands[1]: "vite"}
        text = " ".join(argv)
        self.ran.append(text)
        self.env = env
        (name,) = [known[command] for command in known if text.endswith(command)]
        status = self.does[name](cwd, on_line)
        for seconds in self.ticks:
            on_tick(seconds)
        return status


def nothing(cwd: Path, say: Line) -> int:
    return 0


def pages(cwd: Path, say: Line) -> int:
    (cwd / "out").mkdir()
    (cwd / "out/index.html").write_text("<!doctype html>")
    return 0


def saying(*lines: str, status: int = 1) -> Callable[[Path, Line], int]:
    def say_them(cwd: Path, say: Line) -> int:
        for line in lines:
            say(line)
        return status

    return say_them


@pytest.fixture
def group(tmp_path: Path) -> Group:
    folder = tmp_path / "toolchain"
    folder.mkdir()
    (folder / "go.mod").write_text("module x\n\nrequire example.org/server v1.2.3 // indirect\n")
    (folder / "go.sum").write_text("example.org/server v1.2.3 h1:abc=\nexample.org/server v1.2.3/go.mod h1:def=\n")
    return Group("server", folder, 1, {})


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    """A module with its pages' sources, read-only as Go keeps it, and a Node.js that knows the user's npm settings."""
    module = tmp_path / "module"
    (module / "web").mkdir(parents=True)
    for name in ("package.json", "pnpm-lock.yaml", "build.sh"):
        (module / "web" / name).write_text("{}")
        (module / "web" / name).chmod(0o444)
    monkeypatch.setattr(gobuild, "module_folder", lambda name, group, env: module)
    node = tmp_path / "node"
    (node / "bin").mkdir(parents=True)
    settings = {"registry": "https://npm.example.org/", "proxy": None, "cafile": "/etc/ca.pem", "strict-ssl": True}
    (node / "bin/node").write_text(f"#!/bin/sh\necho '{json.dumps(settings)}'\n")
    (node / "bin/node").chmod(0o755)
    return Tools(go=tmp_path / "go", node=node, manager=tmp_path / "manager")


def built(run: Any, group: Group, tools: Tools, tmp_path: Path, source: Pages = PAGES, **more: Any) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir(exist_ok=True)
    given = {"report": quiet, "estimate": 100.0, "cancel": threading.Event(), "env": dict(os.environ), **more}
    return page_builds.build(
        source, group, tools, folder=folder, cache=tmp_path / "cache", job="server-pages", log=tmp_path / "log", run=run,
        **given,
    )  # fmt: skip


def test_packages_come_from_the_lockfile_and_pages_from_the_modules_own_commands(
    group: Group, tools: Tools, tmp_path: Path
) -> None:
    run = FakeRun()
    made = built(
        run, group, tools, tmp_path, env={"HOME": "/home/ann", "CI": "true", "NODE_OPTIONS": "-x", "PATH": "/bin"}
    )
    assert run.ran == [INSTALL, *PAGES.commands]
    assert (made / "index.html").read_text() == "<!doctype html>"
    env = run.env
    assert env["HOME"] == "/home/ann" and not {"CI", "NODE_OPTIONS"} & set(env)
    assert (env["pnpm_config_registry"], env["pnpm_config_cafile"]) == ("https://npm.example.org/", "/etc/ca.pem")
    assert env["pnpm_config_strict_ssl"] == "true" and "pnpm_config_http_proxy" not in env
    pnpm = Path(env["PATH"].split(":")[0]) / "pnpm"
    assert os.access(pnpm, os.X_OK) and str(tools.manager / "bin/pnpm.mjs") in pnpm.read_text()


def test_all_that_pnpm_keeps_lies_in_the_cache_until_the_pages_are_finished(
    group: Group, tools: Tools, tmp_path: Path
) -> None:
    store = tmp_path / "cache/build/pnpm/server-pages/store"

    def downloaded(cwd: Path, say: Line) -> int:
        store.mkdir(parents=True, exist_ok=True)
        return 0

    failing = FakeRun(install=downloaded, vite=saying("error: x"))
    with pytest.raises(ArtifactError):
        built(failing, group, tools, tmp_path)
    places = {name: value for name, value in failing.env.items() if name.endswith(("_dir", "_HOME", "_cache"))}
    assert places["pnpm_config_store_dir"] == str(store)
    assert all(value.startswith(f"{tmp_path}/cache/build/pnpm/server-pages/") for value in places.values())
    assert store.exists()
    (tmp_path / "folder").rename(tmp_path / "old")
    built(FakeRun(), group, tools, tmp_path)
    assert not store.exists()


def test_nobody_is_slowed_down_by_pages_for_which_nobody_waits(group: Group, tools: Tools, tmp_path: Path) -> None:
    run = FakeRun()
    built(run, group, tools, tmp_path, background=True)
    assert all(text.startswith("nice -n 19 ionice -c 3 ") for text in run.ran)


@pytest.mark.parametrize(
    ("lines", "kind", "words", "fix"),
    [
        (
            (" ERR_PNPM_FETCH_403  GET https://npm/x: Forbidden - 403",),
            ArtifactUnavailable,
            "Forbidden",
            "npm's registry",
        ),
        (
            ("request to https://npm/x failed, reason: connect ECONNREFUSED",),
            ArtifactUnavailable,
            "ECONNREFUSED",
            "network",
        ),
        (
            ("[WARN] GET http://npm:9/x-1.tgz error (unknown). Will retry in 10 seconds.", "[ERROR] fetch failed"),
            ArtifactUnavailable,
            r"failed: \[ERROR\] fetch failed / \[WARN\] GET http://npm:9/x-1\.tgz error",
            "npm's registry",
        ),
        ((" ERR_PNPM_TARBALL_INTEGRITY  Got unexpected checksum",), CorruptArtifact, "unexpected checksum", "lockfile"),
        (
            (" ERR_PNPM_OUTDATED_LOCKFILE  Cannot install with frozen-lockfile",),
            ArtifactError,
            "frozen-lockfile",
            "log",
        ),
        (("ENOSPC: no space left on device, write",), ArtifactError, "ENOSPC", "STACKBOOK_CACHE"),
        ((), ArtifactError, "no message", "see the log"),
        (("Error: https://ann:geheim@npm/ answers 401",), ArtifactError, r"ann:\*\*\*@", "see the log"),
    ],
)
def test_a_failure_says_why_and_what_to_do(
    lines: tuple[str, ...], kind: type[ArtifactError], words: str, fix: str, group: Group, tools: Tools, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=words) as raised:
        built(FakeRun(install=saying("Progress: resolved 9, reused 1, downloaded 2", *lines)), group, tools, tmp_path)
    assert fix in raised.value.fix and f"log: {tmp_path}/log" in raised.value.message
    assert "geheim" not in raised.value.message


def test_commands_that_leave_no_pages_are_a_failure(group: Group, tools: Tools, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"left no out/index\.html"):
        built(FakeRun(vite=nothing), group, tools, tmp_path)


def test_a_build_that_never_ends_has_a_deadline(group: Group, tools: Tools, tmp_path: Path) -> None:
    run = FakeRun(vite=saying("transforming (17) src/main.ts", status=0))
    run.ticks = [0.5]
    with pytest.raises(ArtifactError, match=r"not built within 0 s"):
        built(run, group, tools, tmp_path, deadline=1e-6)


def test_the_packages_are_counted(group: Group, tools: Tools, tmp_path: Path) -> None:
    run = FakeRun(install=saying("Progress: resolved 650, reused 100, downloaded 25, added 9", status=0))
    run.ticks = [0.5]
    seen: list[Progress] = []
    built(run, group, tools, tmp_path, report=seen.append)
    assert "server-pages: downloading, 125 of 650 packages, about" in seen[1].line()
    assert [moment.phase for moment in seen] == ["download", "download", "build", "build"]


def said_by_yarn(kind: str, data: object) -> str:
    return json.dumps({"type": kind, "data": data})


LOCK = """\
left-pad@^1.3.0:
  version "1.3.0"
  resolved "https://registry.yarnpkg.com/left-pad/-/left-pad-1.3.0.tgz#5b8a3a7765dfe001261dde915589e782f8c94d1e"
  integrity sha512-XI5MPzVNApjAyhQzphX8BkmKsKUxD4LdyK24iZeQGinBN9yTQT3bFlCBy/aVx2HrNcqQGsdot8ghrjyrvMCoEA==

pad@npm:left-pad@1:
  version "1.3.0"
  resolved "https://registry.npmjs.org/left-pad/-/left-pad-1.3.0.tgz"

forked@1.0.0:
  resolved "https://git.example.org/forked.tgz#1"
"""


def test_yarn_installs_what_its_lockfile_pins_from_the_users_own_registry(
    group: Group, tools: Tools, tmp_path: Path
) -> None:
    (tmp_path / "module/web/yarn.lock").write_text(LOCK)
    locks: list[str] = []

    def installed(cwd: Path, say: Line) -> int:
        locks.append((cwd / "yarn.lock").read_text())
        return 0

    run = FakeRun(install=installed)
    made = built(run, group, tools, tmp_path, replace(PAGES, manager="yarn"), env={"HOME": "/home/ann", "PATH": "/bin"})
    assert run.ran == [YARN, *PAGES.commands] and (made / "index.html").exists()
    env = run.env
    assert (env["npm_config_registry"], env["npm_config_cafile"]) == ("https://npm.example.org/", "/etc/ca.pem")
    assert env["YARN_IGNORE_PATH"] == "1", "a .yarnrc could name another Yarn"
    assert env["YARN_CACHE_FOLDER"] == str(tmp_path / "cache/build/yarn/server-pages/cache")
    yarn = Path(env["PATH"].split(":")[0]) / "yarn"
    assert os.access(yarn, os.X_OK) and str(tools.manager / "bin/yarn.js") in yarn.read_text()
    wanted = LOCK.replace("https://registry.yarnpkg.com/", "https://npm.example.org/")
    assert locks == [wanted.replace("https://registry.npmjs.org/", "https://npm.example.org/")]


def test_yarns_packages_are_counted_while_it_fetches_them(group: Group, tools: Tools, tmp_path: Path) -> None:
    (tmp_path / "module/web/yarn.lock").write_text("")
    fetching = [said_by_yarn("step", {"message": "Fetching packages", "current": 3, "total": 6}),
                said_by_yarn("progressStart", {"id": 0, "total": 1813}),
                said_by_yarn("progressTick", {"id": 0, "current": 700})]  # fmt: skip
    linking = [said_by_yarn("step", {"message": "Linking dependencies", "current": 4, "total": 6}),
               said_by_yarn("progressStart", {"id": 2, "total": 152047}), said_by_yarn("warning", "peer"), "{", '{"a": 1}']  # fmt: skip
    run = FakeRun(install=saying(*fetching, *linking, status=0))
    run.ticks = [0.5]
    seen: list[Progress] = []
    built(run, group, tools, tmp_path, replace(PAGES, manager="yarn"), report=seen.append)
    assert "server-pages: downloading, 700 of 1813 packages, about" in seen[1].line()


@pytest.mark.parametrize(
    ("line", "kind", "words"),
    [
        (said_by_yarn("error", "Error: https://npm/x-1.tgz: ESOCKETTIMEDOUT\n    at ClientRequest"),
         ArtifactUnavailable, r"failed: \[ERROR\] Error: https://npm/x-1\.tgz: ESOCKETTIMEDOUT \(log"),
        (said_by_yarn("error", 'https://npm/x-1.tgz: Request failed "404 Not Found"'), ArtifactUnavailable, "404 Not Found"),
        (said_by_yarn("error", 'Integrity check failed for "x" (got "sha512-B")'), CorruptArtifact, "Integrity check"),
        (said_by_yarn("error", "Your lockfile needs to be updated"), ArtifactError, "lockfile needs"),
    ],
)  # fmt: skip
def test_a_failure_of_yarn_says_why(
    line: str, kind: type[ArtifactError], words: str, group: Group, tools: Tools, tmp_path: Path
) -> None:
    (tmp_path / "module/web/yarn.lock").write_text("")
    other = said_by_yarn("warning", "some error in a peer dependency")
    with pytest.raises(kind, match=words) as raised:
        built(FakeRun(install=saying(other, line)), group, tools, tmp_path, replace(PAGES, manager="yarn"))
    assert type(raised.value) is kind and "peer" not in raised.value.message


def test_what_a_build_has_started_ends_with_it(group: Group, tools: Tools, tmp_path: Path) -> None:
    children: list[subprocess.Popen[bytes]] = []

    def interrupted(cwd: Path, say: Line) -> int:
        children.append(subprocess.Popen(["sleep", "60"], cwd=cwd))
        raise Cancelled

    elsewhere = subprocess.Popen(["sleep", "60"], cwd=tmp_path)
    try:
        with pytest.raises(Cancelled):
            built(FakeRun(build=interrupted), group, tools, tmp_path)
        assert children[0].wait(10) == -9
        assert elsewhere.poll() is None
    finally:
        for child in (*children, elsewhere):
            end(child)


def test_the_key_is_of_the_module_the_commands_and_the_tools(group: Group) -> None:
    key = page_builds.recipe_key(PAGES, group, ["node", "pnpm"])
    sums = group.folder / "go.sum"
    sums.write_text(f"example.org/other v1.0.0 h1:zzz=\n{sums.read_text()}")
    assert page_builds.recipe_key(PAGES, group, ["node", "pnpm"]) == key
    others = [
        page_builds.recipe_key(replace(PAGES, commands=("make",)), group, ["node", "pnpm"]),
        page_builds.recipe_key(PAGES, group, ["node", "another pnpm"]),
        page_builds.recipe_key(replace(PAGES, manager="yarn"), group, ["node", "pnpm"]),
    ]
    sums.write_text("example.org/server v1.2.3 h1:other=\n")
    others.append(page_builds.recipe_key(PAGES, group, ["node", "pnpm"]))
    assert len({key, *others}) == 5
    assert repr(replace(PAGES, manager="yarn")) == repr(PAGES), "else the keys of pages that were built earlier change"
    go_mod = group.folder / "go.mod"
    go_mod.write_text(f"{go_mod.read_text()}\nreplace (\n\texample.org/server => example.com/moved v1.2.4\n)\n")
    sums.write_text("example.org/server v1.2.3 h1:abc=\nexample.com/moved v1.2.4 h1:new=\n")
    assert page_builds.module_sum(PAGES, group) == "example.com/moved v1.2.4 h1:new="
    sums.write_text("")
    with pytest.raises(InputError, match=r"does not pin example\.org/server"):
        page_builds.recipe_key(PAGES, group, [])


def packed(*, text: str = "x") -> tuple[bytes, str]:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz") as tar:
        info = tarfile.TarInfo("package/bin/tool.mjs")
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text.encode()))
    data = sink.getvalue()
    return data, "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()


def package(tmp_path: Path, integrity: str, *, data: bytes = b"", says: str = "", status: int = 0) -> Path:
    def run(argv: Sequence[str], *, cwd: Path, on_line: Line, **more: Any) -> int:
        assert argv[2:4] == ["pack", "tool@1.0.0"] and "--ignore-scripts" in argv
        assert argv[argv.index("--cache") + 1] == str(tmp_path / "npm")
        if data:
            (cwd / "tool-1.0.0.tgz").write_bytes(data)
        on_line(says)
        return status

    folder = tmp_path / "get"
    folder.mkdir(exist_ok=True)
    return npm_packages.package(
        Npm("tool", integrity), version="1.0.0", node=tmp_path, folder=folder, npm_cache=tmp_path / "npm", job="tool",
        report=quiet, log=tmp_path / "log", cancel=threading.Event(), run=run,
    )  # fmt: skip


def test_a_package_of_npm_is_compared_with_its_pinned_checksum(tmp_path: Path) -> None:
    data, integrity = packed()
    assert (package(tmp_path, integrity, data=data) / "bin/tool.mjs").read_text() == "x"
    with pytest.raises(CorruptArtifact, match="it should be sha512-AAAA"):
        package(tmp_path, "sha512-AAAA", data=packed(text="y")[0])
    with pytest.raises(ArtifactUnavailable, match="no checksum is pinned"):
        package(tmp_path, "", data=data)


def test_a_package_that_npm_does_not_get_is_refused_with_npms_words(tmp_path: Path) -> None:
    with pytest.raises(ArtifactUnavailable, match="npm error 404 Not Found") as raised:
        package(tmp_path, packed()[1], says="npm error 404 Not Found - GET https://npm/tool", status=1)
    assert "npm config get registry" in raised.value.fix
