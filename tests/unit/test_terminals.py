"""What JupyterLab's terminals and kernels find: the lab's programs, its addresses, and a clear word where there is no cluster."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from stackbook.app import terminals
from stackbook.config.profile import Profile
from stackbook.core import paths
from stackbook.core.names import profile_path


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STACKBOOK_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return paths.states() / "stackbook"


@pytest.fixture
def tools(tmp_path: Path, state: Path) -> terminals.Terminals:
    kubectl = tmp_path / "cache" / "kubectl"
    kubectl.parent.mkdir()
    kubectl.write_text('#!/bin/sh\n[ "$1" = get ] && echo 30080 || echo "# $KUBECONFIG $*"\n')
    kubectl.chmod(0o755)
    folder = tmp_path / "a folder"
    return terminals.prepare(
        Profile.load("embedded"), profile_path("embedded"), folder, {"kubectl": kubectl}, root=tmp_path / "cache"
    )


def has_cluster(state: Path) -> Path:
    state.mkdir(parents=True)
    (state / "kubeconfig").write_text("apiVersion: v1\n")
    return state / "kubeconfig"


def terminal(tools: terminals.Terminals, script: str, cwd: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a script in bash as JupyterLab starts it, in a folder."""
    rc = tools.path.parent / "bashrc"
    assert tools.argument == f'--ServerApp.terminado_settings={{"shell_command": ["bash", "--rcfile", "{rc}"]}}'
    env = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
    return subprocess.run(
        ["bash", "--rcfile", str(rc), "-i"],
        input=script,
        env=env,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_terminal_has_the_labs_programs_and_addresses(tools: terminals.Terminals, state: Path) -> None:
    config = has_cluster(state)
    said = terminal(
        tools, 'kubectl version; echo "$K8S_MASTER $K8S_NODE1 $INGRESS"; type -p k8s-node1 stackbook istioctl'
    ).stdout
    assert f"# {config} version" in said
    assert "192.168.98.3 192.168.98.4 http://192.168.98.3:30080" in said
    assert [Path(line).name for line in said.splitlines() if line.startswith(f"{tools.path}/")] == [
        "k8s-node1", "stackbook", "istioctl"]  # fmt: skip
    assert "A shell on a machine: k8s-master, k8s-node1." in said


def test_a_printed_protoc_command_can_be_typed(tools: terminals.Terminals, tmp_path: Path) -> None:
    (tmp_path / "a b.proto").write_text('syntax = "proto3";\nimport "google/protobuf/timestamp.proto";\n')
    at = shlex.quote(str(tmp_path))
    said = terminal(tools, f"cd {at} && protoc -I. --descriptor_set_out=set 'a b.proto' && protoc --version")
    assert re.search(r"(?m)^libprotoc \d+", said.stdout), said
    assert (tmp_path / "set").is_file(), "also with a file that protoc brings"


def test_the_menu_lab_opens_a_terminal_on_each_machine(tools: terminals.Terminals, state: Path) -> None:
    has_cluster(state)
    settings = json.loads((tools.settings / "labconfig" / "default_setting_overrides.json").read_text())
    (menu,) = settings["@jupyterlab/mainmenu-extension:plugin"]["menus"]
    here, *machines = menu["items"]
    assert menu["label"] == "Lab" and here == {"command": "terminal:create-new", "rank": 0}
    assert [item["submenu"]["label"] for item in machines] == ["k8s-master", "k8s-node1"]
    for item in machines:
        (opens,) = item["submenu"]["items"]
        name, cwd = item["submenu"]["label"], str((tools.path.parents[1] / "cache" / opens["args"]["cwd"]).resolve())
        assert opens["command"] == "terminal:create-new"
        program = tools.path / name
        program.write_text(f"#!/bin/sh\necho 'a shell on {name}'; read line; echo \"$line\" there\n")
        said = terminal(tools, 'hostname\necho "now in $PWD"\n', cwd).stdout
        assert f"a shell on {name}\nhostname there" in said and f"now in {Path.home()}" in said, (
            "after it, a shell of this host"
        )
        assert "a shell on" not in terminal(tools, "exit\n", str(Path(cwd).parent)).stdout
    of_user = tools.environment({"JUPYTER_CONFIG_PATH": "/mine"})["JUPYTER_CONFIG_PATH"]
    assert of_user == f"{tools.settings}:/mine" and tools.environment({})["JUPYTER_CONFIG_PATH"] == str(tools.settings)


def test_without_a_cluster_the_next_step_is_named(tools: terminals.Terminals) -> None:
    done = terminal(tools, "kubectl get pods; exit $?")
    assert done.returncode == 1
    assert "the lab has no cluster yet. Run chapters 00 to 02, or: stackbook run --to 02" in done.stderr
    assert "The lab stackbook: kubectl and istioctl use its cluster" in done.stdout


def test_a_kernel_finds_them_and_another_kubeconfig_goes_before(tools: terminals.Terminals, state: Path) -> None:
    config, other = has_cluster(state), state / "other"
    other.write_text("apiVersion: v1\n")
    env = tools.environment({"PATH": os.environ["PATH"]})
    for given, wanted in (({}, config), ({"KUBECONFIG": str(other)}, other)):
        done = subprocess.run(["kubectl", "x"], env={**env, **given}, capture_output=True, text=True, check=True)
        assert done.stdout == f"# {wanted} x\n"


def test_the_programs_are_the_command_lines_own(tools: terminals.Terminals) -> None:
    env = tools.environment({"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]})
    done = subprocess.run(["stackbook", "--version"], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip()
    text = (tools.path / "k8s-node1").read_text()
    assert text.rstrip().endswith(f'-m stackbook shell --profile {profile_path("embedded")} k8s-node1 "$@"')
    assert (
        "-m stackbook istioctl --profile" in (tools.path / "istioctl").read_text()
    )  # not in the cache: fetched when it is called


def test_of_an_existing_cluster_its_own_kubeconfig_is_taken(tmp_path: Path, state: Path) -> None:
    config = tmp_path / "theirs"
    config.write_text(
        "clusters: [{name: a, cluster: {server: 'https://192.0.2.1:6443'}}]\nusers: [{name: u, user: {}}]\n"
        "contexts: [{name: c, context: {cluster: a, user: u}}]\n"
    )
    profile = Profile.load("embedded", overrides={"target": "cluster", "kubeconfig": str(config)})
    tools = terminals.prepare(profile, profile_path("embedded"), tmp_path / "t", {}, root=tmp_path)
    assert f"KUBECONFIG:-{state / 'existing.kubeconfig'}" in (tools.path / "kubectl").read_text()
    assert "https://192.0.2.1:6443" in (state / "existing.kubeconfig").read_text()
    assert not (tools.path / "k8s-master").exists()


def test_on_an_existing_cluster_the_ingress_is_the_learners_own(tmp_path: Path, state: Path) -> None:
    config = tmp_path / "theirs"
    config.write_text(
        "clusters: [{name: a, cluster: {server: 'https://192.0.2.1:6443'}}]\nusers: [{name: u, user: {}}]\n"
        "contexts: [{name: c, context: {cluster: a, user: u}}]\n"
    )
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(
        '#!/bin/sh\ncase "$*" in *"-n ada"*) echo 31080 ;; *"get nodes"*) echo 192.0.2.7 ;; *) echo ":" ;; esac\n'
    )
    kubectl.chmod(0o755)
    settings = {"target": "cluster", "kubeconfig": str(config), "context": "c", "namespace": "ada"}
    profile = Profile.load("embedded", overrides=settings)
    tools = terminals.prepare(
        profile, profile_path("embedded"), tmp_path / "a folder", {"kubectl": kubectl}, root=tmp_path / "cache"
    )
    assert "INGRESS=http://192.0.2.7:31080" in terminal(tools, "true").stdout
