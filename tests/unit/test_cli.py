"""The command line: exit statuses, one-line errors with near misses, and what it hands over."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from stackbook.app import cli, commands, own_folders, report, runner
from stackbook.artifacts import resolver
from stackbook.config import chapters
from stackbook.config.profile import Profile
from stackbook.core import paths
from stackbook.core.errors import ArtifactUnavailable, CheckFailed, HostUnfit, InputError

TOKEN = "abcdef.0123456789abcdef"
KEPT = {
    "SSL_CERT_FILE": "/home/me/ca.pem",
    "SSL_CERT_DIR": "/home/me/certs",
    "REQUESTS_CA_BUNDLE": "/home/me/ca.pem",
    "CURL_CA_BUNDLE": "/home/me/ca.pem",
    "https_proxy": "http://proxy.invalid:3128",
    "HTTP_PROXY": "http://proxy.invalid:3128",
    "all_proxy": "http://proxy.invalid:3128",
    "NO_PROXY": "intranet.invalid",
    "no_proxy": "intranet.invalid",
    "LANG": "ja_JP.UTF-8",
    "LC_ALL": "ja_JP.UTF-8",
    "LC_TIME": "de_DE.UTF-8",
    "TZ": "Asia/Tokyo",
    "KUBECONFIG": "/home/me/.kube/config",
}


@pytest.fixture(autouse=True)
def _root(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root, without the folders of this user; nothing here asks for more."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.fixture
def ran(home: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What `runner.run` was asked for; it passes."""
    asked: list[tuple[str, dict[str, Any]]] = []

    def run(profile: str, **wishes: Any) -> runner.Run:
        asked.append((profile, wishes))
        chosen = [chapters.ALL[0]]
        folder = paths.runs() / "1"
        folder.mkdir(parents=True, exist_ok=True)
        done = runner.Run(Profile(), chosen, folder, [runner.Outcome(chosen[0].id, "passed")])
        runner.save(done)
        return done

    monkeypatch.setattr(runner, "run", run)
    return asked


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rn"], "unknown command 'rn' — did you mean 'run'?"),
        ([], "the following arguments are required: COMMAND — see `stackbook --help`"),
        (["run", "--frm", "01"], "unrecognized arguments: --frm 01 — see `stackbook --help`"),
        (["run", "--profile", "embeded"], "no profile is named 'embeded' — did you mean 'embedded'?"),
        (["run", "--only", "kubeadmn"], "no chapter is named 'kubeadmn' — did you mean 'kubeadm'?"),
        (["run", "--only", "03", "-p", "ping", "5"], "unknown parameter 'ping' — did you mean 'pings'?"),
        (
            ["run", "--only", "03", "-p", "pings", "5", "-p", "pings", "6"],
            "parameter 'pings' is given twice — give it once",
        ),
        (["run", "-p", "kubernetes_version", "latest"], "embedded.yaml: kubernetes_version: 'latest' is not a version"),
        (["run", "--only", "03", "-p", "pings", "many"], "chapter 03-flannel: pings: "),
        (["run", "-p", "pings"], "argument -p: expected 2 arguments"),
        (["plan", "--from", "05", "--to", "02"], "there are no chapters from 05 to 02 — swap --from and --to"),
        (["plan", "--profile", "/dev/null/x"], "no profile is named '/dev/null/x'"),
        (["fetch", "--source", "relase"], "unknown source 'relase' — did you mean 'release'?"),
        (["shell", "k8s-nod1"], "there is no machine 'k8s-nod1' — did you mean 'k8s-node1'?"),
        (["kubeconfig"], "there is no kubeconfig yet at "),
        (["kubectl", "get", "pods"], "there is no cluster yet — stackbook run --to 02"),
        (["notebooks", "--port", "99999"], "99999 is not a valid port"),
        (["notebooks", "--root", "/dev"], "/dev has no folder notebooks"),
        (["snapshot", "sav", "x"], "unknown action 'sav' — did you mean 'save'?"),
        (["snapshot", "save"], "snapshot save needs the snapshot's name — stackbook snapshot save NAME"),
        (["snapshot", "list", "x"], "snapshot list takes no name, but got 'x' — leave it out"),
        (["snapshot", "remove", "x"], "the lab 'stackbook' has no snapshot 'x' — available snapshots: none"),
        (["snapshot", "restore", "x"], "the lab 'stackbook' has no snapshot 'x' — available snapshots: none"),
        (["snapshot", "save", "X Y"], "'X Y' is not a valid name for a snapshot — use up to 40 of a-z"),
        (["run", "--from-snapshot", "x"], "the lab 'stackbook' has no snapshot 'x' — available snapshots: none"),
        (["strat"], "unknown command 'strat' — did you mean 'start'?"),
        (["notebooks", "--port", "x"], "argument --port: invalid int value: 'x'"),
    ],
)
def test_bad_input_is_one_line_with_status_2(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"stackbook: {said}")
    assert shown.err.count("\n") == 1
    assert not paths.runs().exists()


@pytest.mark.parametrize(
    ("raised", "status"),
    [
        (InputError("bad", fix="do"), 2),
        (HostUnfit("unfit"), 2),
        (CheckFailed(f"join --token {TOKEN} failed"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_each_ending_has_its_status(
    raised: BaseException, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(runner, "run", run)
    assert cli.main(["run"]) == status
    said = capsys.readouterr().err
    assert said.startswith("stackbook: ")
    assert said.count("\n") == 1
    assert TOKEN not in said


def test_a_run_ends_with_its_table_and_where_things_are(
    ran: list[tuple[str, dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", "--profile", "document-2020", "--from", "0", "--to", "flannel", "--again"]
    assert cli.main([*words, "-p", "pings", "9", "-p", "kubernetes_version", "1.30"]) == 0
    (profile, wishes), *rest = ran
    assert not rest
    assert (profile, wishes["first"], wishes["last"], wishes["only"], wishes["again"]) == (
        "document-2020",
        "0",
        "flannel",
        (),
        True,
    )
    # YAML would make the number 1.3 of the version.
    assert wishes["parameters"] == {"pings": 9, "kubernetes_version": "1.30"}
    shown = capsys.readouterr().out
    assert "00-preflight  passed" in shown
    assert f"report:      {paths.runs() / '1' / 'report.html'}" in shown
    assert (paths.runs() / "1" / "report.html").is_file()


def test_a_failed_run_has_status_1(ran: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner.Run, "passed", False)
    assert cli.main(["run"]) == 1


def test_a_report_that_breaks_does_not_fail_a_run_but_is_said(
    ran: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def breaks(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report, "_report", breaks)
    assert cli.main(["run"]) == 0
    assert "stackbook: report: the report could not be created: OSError: [Errno 28]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("2.5", 2.5),
        ("true", True),
        ("{v1: 10, v3: 90}", {"v1": 10, "v3": 90}),
        ("[1, 2]", [1, 2]),
        ("a: b: c", "a: b: c"),
    ],
)
def test_values_are_typed_as_yaml_would(text: str, value: Any) -> None:
    assert commands._given([["x", text]]) == {"x": value}


def test_without_root_and_without_sudo_the_host_is_unfit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", "/nonexistent")
    assert cli.main(["run"]) == 2
    assert (
        capsys.readouterr().err
        == "stackbook: user id 1000 is not root, and there is no sudo — run as root, or install sudo\n"
    )
    assert not paths.runs().exists()


def test_without_root_it_starts_again_under_sudo_with_the_same_words(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    def execv(path: str, argv: list[str]) -> None:
        raise CheckFailed(json.dumps([path, *argv]))

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(cli.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(os, "execv", execv)
    for name, value in (KEPT | {"LD_PRELOAD": "x", "PYTHONSTARTUP": "x"}).items():
        monkeypatch.setenv(name, value)
    words = ["run", "--only", "03", "-p", "pings", "9; rm x"]
    with pytest.raises(CheckFailed) as error:
        cli.become_root(cli._parser().parse_args(words), words)
    path, program, *rest = json.loads(error.value.message)
    assert (path, program) == ("/usr/bin/sudo", "/usr/bin/sudo")
    assert rest[-len(words) :] == words
    file = Path(rest[-len(words) - 1])
    env = json.loads(file.read_text())
    assert env["STACKBOOK_CACHE"] == str(home / "cache")
    assert KEPT.items() <= env.items() and not {"LD_PRELOAD", "PYTHONSTARTUP"} & env.keys()
    shutil.rmtree(file.parent)


def test_other_targets_and_harmless_commands_need_no_root(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(cli.shutil, "which", lambda _: None)
    profile = tmp_path / "existing.yaml"
    profile.write_text("target: cluster\n", encoding="utf-8")
    cli.become_root(cli._parser().parse_args(["run", "--profile", str(profile)]), ["run"])
    assert cli.main(["list"]) == 0
    assert cli.main(["parameters"]) == 0
    shown = capsys.readouterr().out
    assert "00-preflight" in shown
    assert "  pings                          50" in shown


def test_the_notebooks_are_served_on_loopback_with_a_token(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def execve(path: str, argv: list[str], env: dict[str, str]) -> None:
        raise CheckFailed(json.dumps([argv, env["JUPYTER_TOKEN_FILE"]]))

    (tmp_path / "notebooks").mkdir()
    monkeypatch.setattr(os, "execve", execve)
    with pytest.raises(CheckFailed) as error:
        commands.serve_notebooks(cli._parser().parse_args(["notebooks", "--port", "9999", "--root", str(tmp_path)]))
    argv, file = json.loads(error.value.message)
    token = Path(file).read_text()
    assert {"--ip=127.0.0.1", "--port=9999", f"--ServerApp.root_dir={tmp_path}"} <= set(argv)
    assert not [word for word in argv if token in word or "token" in word.lower() or "password" in word.lower()]
    assert len(token) == 48 and token not in capsys.readouterr().out


def test_reset_says_what_differs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from stackbook.app import reset

    monkeypatch.setattr(reset, "reset", lambda *_, **__: ["a bridge stayed"])
    assert cli.main(["reset"]) == 1
    assert capsys.readouterr().out == "✗ a bridge stayed\n"
    monkeypatch.setattr(reset, "reset", lambda *_, **__: [])
    assert cli.main(["reset"]) == 0
    assert "no record of this host from before the lab to compare with" in capsys.readouterr().out
    monkeypatch.setattr(reset, "before", lambda _: {})
    assert cli.main(["reset"]) == 0
    assert capsys.readouterr().out == "✓ this host is as it was before the lab\n"


def test_coverage_is_json_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["coverage", "--json"]) in (0, 1)
    assert json.loads(capsys.readouterr().out)["total"] == 311


@pytest.mark.slow
def test_a_closed_pipe_and_an_interrupt_end_quietly(home: Path) -> None:
    """In processes of their own, as the shell sees them."""
    listed = subprocess.Popen(
        [sys.executable, "-m", "stackbook", "parameters"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert listed.stdout is not None
    listed.stdout.close()
    assert listed.wait(30) == 0
    assert listed.stderr is not None
    assert listed.stderr.read() == ""
    listed.stderr.close()
    code = "import os, signal\nfrom stackbook.app import cli, runner\n"
    code += "runner.run = lambda *a, **k: os.kill(os.getpid(), signal.SIGINT)\nraise SystemExit(cli.main(['run']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 128 + signal.SIGINT, done.stderr
    assert "Traceback" not in done.stderr


def test_plan_refuses_a_kubeconfig_that_is_not_there(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profile = home / "cluster.yaml"
    profile.write_text(f"target: cluster\nkubeconfig: {home}/nowhere\n")
    assert cli.main(["plan", "--profile", str(profile), "--only", "04"]) == 2
    said = capsys.readouterr()
    assert "nowhere" in said.err and len(said.err.strip().splitlines()) == 1 and said.out == ""


HEAVY = {
    "pandas",
    "numpy",
    "matplotlib",
    "scipy",
    "kubernetes",
    "papermill",
    "nbclient",
    "IPython",
    "httpx",
    "requests",
}


def imported(words: list[str]) -> tuple[int, str, set[str]]:
    """Exit status, what is said, and which large packages a command has imported, in a process of its own."""
    code = (
        "import sys\nfrom stackbook.app import cli\n"
        "try:\n    status = cli.main(sys.argv[1:])\nexcept SystemExit as end:\n    status = end.code\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))\nsys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stderr, set(done.stdout.splitlines()[-1].split())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["--help"], 0),
        (["run", "--help"], 0),
        (["--version"], 0),
        (["list"], 0),
        (["rn"], 2),
        (["run", "--only", "kubeadmn"], 2),
        (["plan", "--from", "05", "--to", "02"], 2),
        (["plan", "--profile", "embeded"], 2),
        (["status", "--profile", "embeded"], 2),
    ],
)
def test_help_and_what_is_refused_by_name_need_no_large_package(words: list[str], status: int, home: Path) -> None:
    ended, said, modules = imported(words)
    assert ended == status, said
    assert modules & (HEAVY | {"pydantic", "yaml"}) == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["run", "--only", "03", "-p", "ping", "5"],
        ["run", "-p", "kubernetes_version", "latest"],
        ["plan", "--only", "03", "-p", "pings", "many"],
        ["kubeconfig"],
        ["shell", "k8s-nod1"],
    ],
)
def test_what_is_refused_by_its_value_needs_no_more_than_the_parameters(words: list[str], home: Path) -> None:
    ended, said, modules = imported(words)
    assert ended == 2, said
    assert modules & HEAVY == set()


def test_a_full_disk_is_one_line_with_its_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(runner, "run", full)
    monkeypatch.setattr(
        own_folders.shutil, "disk_usage", lambda path: SimpleNamespace(free=0 if path == runs_parent else 1 << 40)
    )
    runs_parent = next(path for path in (paths.runs(), *paths.runs().parents) if path.exists())
    assert cli.main(["run"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("stackbook: No space left on device: ")
    assert str(paths.runs()) in said
    assert said.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "gb2312", "gb18030"])
def test_a_terminal_without_such_letters_gets_other_ones(encoding: str) -> None:
    code = "from stackbook.app.streams import lasting\nwith lasting():\n    print('\\u2717 done')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=60,
                          env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": str(paths.checkout() / "lib")})  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(b" done\n")


@pytest.mark.parametrize("reached", [True, False])
def test_without_npms_registry_everything_else_is_fetched(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, reached: bool
) -> None:
    """No chapter needs the web pages that are built of npm packages."""
    got: list[list[str]] = []

    def fetch(names: list[str], **_: object) -> None:
        got.append(list(names))
        if not reached and any(name.endswith("-pages") for name in names):
            raise ArtifactUnavailable("pnpm could not be got", fix="check npm's registry")

    monkeypatch.setattr(resolver, "fetch", fetch)
    assert cli.main(["fetch"]) == 0
    needed, pages = got
    assert "kubeadm" in needed and not [name for name in needed if name.endswith("-pages")]
    assert pages == ["prometheus-pages", "gitea-pages", "kiali-pages"]
    said = capsys.readouterr().out
    assert (
        "without prometheus-pages, gitea-pages, kiali-pages, which no chapter needs: pnpm could not be got" in said
    ) is not reached
    assert cli.main(["fetch", "prometheus-pages"]) == (0 if reached else 1), "what is named is needed"
