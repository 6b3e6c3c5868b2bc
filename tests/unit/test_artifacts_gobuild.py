"""Go builds with a fake compiler: the command, the environment, progress, and causes of failure."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest
from stackbook.artifacts import gobuild, subprocesses
from stackbook.artifacts.catalogue import Group
from stackbook.artifacts.sources import Build
from stackbook.artifacts.subprocesses import Cancelled
from stackbook.core.errors import ArtifactError, ArtifactUnavailable
from stackbook.core.progress import Progress
from stackbook.core.waiting import until


class FakeGo:
    """Stands in for `spawn`: says lines, writes outputs, keeps the calls."""

    def __init__(self, lines=(), status: int = 0, outputs=("tool",)) -> None:
        self.lines, self.status, self.outputs = lines, status, outputs
        self.calls: list[tuple[list[str], dict[str, str]]] = []

    def __call__(self, argv, *, env, cwd, log, on_line, on_tick, cancel) -> int:
        self.calls.append((list(argv), dict(env)))
        log.write_text("\n".join(self.lines))
        for line in self.lines:
            on_line(line)
        on_tick(60.0)
        out = Path(argv[argv.index("-o") + 1])
        for name in self.outputs if self.status == 0 else ():
            (out / name).write_text("ELF")
        return self.status


TOOL = (Build("demo", "x/cmd/tool", "tool"),)
GROUP = Group("demo", Path("/nowhere"), 100.0, {"a/version.v": "v1"})


def build(tmp_path: Path, go: FakeGo, *, report=lambda _: None, env=None, builds=TOOL):
    return gobuild.build(
        GROUP, builds, goroot=tmp_path / "goroot", cache=tmp_path, out=tmp_path / "out", log=tmp_path / "log",
        report=report, estimate=100.0, cancel=threading.Event(), run=go, env=env or {"PATH": "/bin"},
    )  # fmt: skip


def test_the_command_and_its_environment(tmp_path: Path) -> None:
    go = FakeGo()
    env = {"PATH": "/bin", "GOFLAGS": "-modcacherw", "GOPROXY": "https://proxy.example", "GOTOOLCHAIN": "auto"}
    built = build(tmp_path, go, env=env)
    assert [path.read_text() for path in built.paths.values()] == ["ELF"]
    argv, seen = go.calls[0]
    assert argv[0] == str(tmp_path / "goroot/bin/go")
    assert argv[1:6] == ["build", "-v", "-trimpath", "-tags", "netgo,osusergo"]
    assert "-s -w -X a/version.v=v1 -extldflags=-static" in argv
    assert argv[-1] == "x/cmd/tool"
    assert seen["GOFLAGS"] == "-modcacherw -buildvcs=false"
    assert seen["GOPROXY"] == "https://proxy.example"
    assert (seen["GOTOOLCHAIN"], seen["CGO_ENABLED"]) == ("local", "1")
    assert seen["GOCACHE"] == str(tmp_path / "build/gocache")


@pytest.mark.parametrize(
    ("free", "given", "used"),
    [(9 << 30, {}, ("off", "2GiB")), (4 << 30, {}, (None, None)), (9 << 30, {"GOGC": "50"}, ("50", None))],
)
def test_compilers_collect_less_often_where_there_is_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, given: dict[str, str], used: str | None
) -> None:
    monkeypatch.setattr(gobuild, "free_memory", lambda: free)
    go = FakeGo()
    build(tmp_path, go, env={"PATH": "/bin", **given})
    argv, seen = go.calls[0]
    assert (seen.get("GOGC"), seen.get("GOMEMLIMIT")) == used
    assert argv[argv.index("-gcflags") + 1] == "all=-dwarf=false"


def test_progress_counts_packages_and_estimates_what_is_left(tmp_path: Path) -> None:
    seen: list[Progress] = []
    build(tmp_path, FakeGo(["go: downloading x v1", "fmt", "k8s.io/api/core/v1"]), report=seen.append)
    moment = next(progress for progress in seen if progress.seconds == 60.0)
    assert (moment.done, moment.unit, moment.message) == (2, "packages", "k8s.io/api/core/v1")
    assert moment.remaining == 40.0


@pytest.mark.parametrize(
    ("lines", "kind", "words"),
    [
        (["fmt", "# x/cmd/tool", "./main.go:3:2: undefined: foo"], ArtifactError, r"main.go:3:2: undefined: foo.*log"),
        (['go: x@v1: Get "https://p": dial tcp: lookup p: no such host'], ArtifactUnavailable, "GOPROXY"),
        (["go: verifying x@v1: checksum mismatch"], ArtifactError, "go.sum"),
        (["write /x: no space left on device"], ArtifactError, "STACKBOOK_CACHE"),
    ],
)
def test_a_failure_names_its_cause_and_the_log(tmp_path: Path, lines: list[str], kind, words: str) -> None:
    with pytest.raises(kind, match=words):
        build(tmp_path, FakeGo(lines, status=1))


def test_warnings_of_the_static_link_are_no_cause(tmp_path: Path) -> None:
    lines = [
        "# k8s.io/kubernetes/cmd/kubectl",
        "/usr/bin/ld: /tmp/go-link/000001.o: in function `pluginOpen':",
        "x.go:19: warning: Using 'dlopen' in statically linked applications requires at runtime the shared libraries",
        "./main.go:1:1: syntax error",
    ]
    with pytest.raises(ArtifactError, match=r"failed: \./main.go:1:1: syntax error"):
        build(tmp_path, FakeGo(lines, status=1))


def test_an_output_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="left no tool"):
        build(tmp_path, FakeGo(outputs=()))


def test_a_key_follows_everything_that_goes_in() -> None:
    one = Build("demo", "x/cmd/tool", "tool")
    keys = {
        gobuild.recipe_key(GROUP, one, go_sha256="a", sources="s"),
        gobuild.recipe_key(GROUP, one, go_sha256="b", sources="s"),
        gobuild.recipe_key(GROUP, one, go_sha256="a", sources="t"),
        gobuild.recipe_key(GROUP, Build("demo", "x/cmd/other", "tool"), go_sha256="a", sources="s"),
        gobuild.recipe_key(Group("demo", Path("/x"), 1, {"a/version.v": "v2"}), one, go_sha256="a", sources="s"),
    }
    assert len(keys) == 5
    assert (
        gobuild.recipe_key(Group("demo", Path("/elsewhere"), 9, GROUP.ldflags), one, go_sha256="a", sources="s") in keys
    )


def test_the_build_cache_is_trimmed_oldest_first(tmp_path: Path) -> None:
    import os

    for number in range(4):
        path = tmp_path / f"build/gocache/0{number}/{number}-d"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x" * 100)
        os.utime(path, (number, number))
    assert gobuild.trim(tmp_path, keep=250) == 200
    assert sorted(path.name for path in tmp_path.rglob("*-d")) == ["2-d", "3-d"]
    assert gobuild.trim(tmp_path, keep=250) == 0


def run(tmp_path: Path, code: str, cancel: threading.Event, on_tick=lambda _: None) -> tuple[int, list[str]]:
    lines: list[str] = []
    status = subprocesses.spawn(
        [sys.executable, "-c", code], env={"PATH": "/usr/bin:/bin"}, cwd=tmp_path, log=tmp_path / "log",
        on_line=lines.append, on_tick=on_tick, cancel=cancel,
    )  # fmt: skip
    return status, lines


def test_a_child_is_read_line_by_line_and_logged(tmp_path: Path) -> None:
    status, lines = run(tmp_path, "import sys; print('a'); sys.stderr.write('b\\n'); sys.exit(3)", threading.Event())
    assert (status, sorted(lines)) == (3, ["a", "b"])
    assert sorted((tmp_path / "log").read_text().split()) == ["a", "b"]


def test_an_interrupt_ends_the_child(tmp_path: Path) -> None:
    cancel = threading.Event()
    with pytest.raises(Cancelled):
        run(tmp_path, "import time; time.sleep(60)", cancel, on_tick=lambda _: cancel.set())


def test_an_interrupt_ends_what_the_child_has_started(tmp_path: Path) -> None:
    """As mmdebstrap does, which runs compilers: one of them does not hear SIGTERM, and the child ends at once."""
    deaf = "import os, pathlib, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    deaf += "pathlib.Path('deaf.new').write_text(str(os.getpid())); os.rename('deaf.new', 'deaf'); time.sleep(60)"
    code = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {deaf!r}]); time.sleep(60)"
    cancel, started = threading.Event(), tmp_path / "deaf"
    with pytest.raises(Cancelled):
        run(tmp_path, code, cancel, on_tick=lambda _: cancel.set() if started.exists() else None)
    status = Path(f"/proc/{started.read_text()}/stat")
    until(lambda: not status.exists() or " Z " in status.read_text(), what="the grandchild to end", timeout=5)


def test_unpacked_modules_are_removed_oldest_first_and_their_zips_stay(tmp_path: Path) -> None:
    root = tmp_path / "build" / "gomod"
    for age, name in enumerate(
        ["example.org/new@v2.0.0", "example.org/deep/old@v1.0.0", "cache/download/example.org/x@v1"]
    ):
        folder = root / name / "sub"
        folder.mkdir(parents=True)
        (folder / "file.go").write_bytes(b"x" * 100)
        folder.chmod(0o555)
        (root / name).chmod(0o555)
        os.utime(root / name, (1000 - age, 1000 - age))
    assert gobuild.trim_modules(tmp_path, keep=150) == 100
    assert not (root / "example.org/deep/old@v1.0.0").exists()
    assert (root / "example.org/new@v2.0.0/sub/file.go").exists()
    assert (root / "cache/download/example.org/x@v1/sub/file.go").exists()
    assert gobuild.trim_modules(tmp_path, keep=150) == 0
    assert gobuild.trim_modules(tmp_path / "empty", keep=0) == 0
