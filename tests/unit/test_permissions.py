"""Each place that writes a key, a token, a password or a kubeconfig: mode 0600 from the first moment, below a folder of mode 0700.

The real code writes into a temporary folder, under an umask that takes nothing away and under one that takes all.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from stackbook.app import elevation, jupyter_access, open_drone
from stackbook.app.benchmark.floor import Floor
from stackbook.app.snapshots import archive
from stackbook.app.snapshots.manifest import Manifest, Part
from stackbook.app.snapshots.store import Store
from stackbook.cluster import kubeadm, kubeconfig
from stackbook.cluster.kube import CREDENTIALS, Kube
from stackbook.config.profile import Profile
from stackbook.config.registries import PROXY_FILE
from stackbook.core import paths, private, redact, temp_dirs
from stackbook.core.results import Result
from stackbook.lessons.delivery import compose, gitea
from stackbook.lessons.incident import expired
from stackbook.lessons.kubeadm import control_plane
from stackbook.machines import operations
from stackbook.machines.providers import VirtualMachines
from stackbook.machines.transports import LocalHost
from stackbook.machines.virtual import disks
from stackbook.observability.logs import credentials

ROOT = paths.checkout()
TOKEN, DIGEST = "abcdef.0123456789abcdef", "sha256:" + "a" * 64
LOOK = "stat -c '%a %n' {0} >> {1}; stat -c '%a %n/' \"$(dirname {0})\" >> {1}\n"

Modes = dict[str, int]
"""Permissions by name; that of a folder ends with a slash."""


def modes(path: Path) -> Modes:
    return {name: stat.S_IMODE(p.stat().st_mode) for name, p in ((str(path), path), (f"{path.parent}/", path.parent))}


def seen(note: Path) -> Modes:
    """What a program found that looked while the file was there."""
    return {name: int(mode, 8) for mode, _, name in (line.partition(" ") for line in note.read_text().splitlines())}


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@dataclass
class Machine(LocalHost):
    """A machine whose /root, /run and /etc/kubernetes are in a folder of this host, with a kubeadm that only looks."""

    base: Path = Path()

    def _argv(self, argv: Sequence[str], env: Mapping[str, str], stdin: bool) -> list[str]:
        return [
            word.replace("/etc/kubernetes", f"{self.base}/kubernetes")
            .replace("/etc/stackbook", f"{self.base}/etc-stackbook")
            .replace("/run/", f"{self.base}/")
            for word in argv
        ]

    def run(self, argv: Sequence[str], **more: Any) -> Result:
        env = {
            **(more.pop("env", None) or {}),
            "PATH": f"{self.base}/bin:{os.environ['PATH']}",
            "HOME": f"{self.base}/root",
        }
        return super().run(argv, env=env, **more)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    says = f"kubeadm join x --token {TOKEN} --discovery-token-ca-cert-hash {DIGEST}"
    program(
        tmp_path / "bin" / "kubeadm",
        f'case "$1" in token) echo "{says}" ;; join) {LOOK.format("$3", tmp_path / "note")} ;; esac',
    )
    program(tmp_path / "bin" / "kubectl", "echo jws-kubeconfig-abcdef")
    (tmp_path / "kubernetes").mkdir()
    (tmp_path / "kubernetes" / "admin.conf").write_text("users: []\n")
    return Machine(base=tmp_path)


def _join(folder: Path, machine: Machine, _: pytest.MonkeyPatch) -> Modes:
    kubeadm.kubeadm_join(machine, machine, Profile(), kubeadm.Images(), cgroup_v1=False)
    assert not (folder / "stackbook" / "join.yaml").exists()
    return seen(folder / "note")


def _machines_proxies(folder: Path, machine: Machine, _: pytest.MonkeyPatch) -> Modes:
    operation = kubeadm.runtime("pause:1", contained=True, proxies='HTTPS_PROXY="http://me:word@proxy.example.com"\n')
    wanted = next(each for each in operation(machine) if each.path == PROXY_FILE)
    operations.apply(machine, lambda _: iter([wanted]))
    return modes(folder / "etc-stackbook" / "proxy.env")


def _benchmarks_join(folder: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Modes:
    monkeypatch.setattr(kubeadm, "JOIN", str(folder / "stackbook" / "join.yaml"))
    podman = program(
        folder / "podman", f'shift; [ "$1" = -i ] && shift; shift; PATH={folder}/bin:$PATH; export PATH; exec "$@"'
    )
    floor = object.__new__(Floor)
    floor.provider = SimpleNamespace(podman=(str(podman),), container=lambda node: node)  # type: ignore[assignment]
    floor.lab = SimpleNamespace(profile=Profile(), images=SimpleNamespace(kubeadm=kubeadm.Images()))  # type: ignore[assignment]
    floor._join(["one", "two"])
    assert not Path(kubeadm.JOIN).exists()
    return seen(folder / "note")


def _users_kubeconfig(folder: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Modes:
    lab = SimpleNamespace(control_plane=machine, state=folder / "states" / "lab")
    assert control_plane.fetch_kubeconfig(lab) == 2  # type: ignore[arg-type]
    return modes(folder / "root" / ".kube" / "config")


def _hosts_kubeconfig(folder: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Modes:
    monkeypatch.setenv("STACKBOOK_STATE", str(folder / "new" / "states"))
    path = paths.state("lab") / "kubeconfig"
    assert kubeconfig.write_kubeconfig("users: []\n", path) == 1
    above = {f"{p}/": stat.S_IMODE(p.stat().st_mode) for p in (folder / "new" / "states", folder / "new")}
    return modes(path) | above


def _clients_files(folder: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Modes:
    data = base64.b64encode(b"-----BEGIN CERTIFICATE-----\n").decode()
    config = {"apiVersion": "v1", "kind": "Config", "current-context": "c",
              "clusters": [{"name": "c", "cluster": {"server": "https://192.0.2.1:6443"}}],
              "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
              "users": [{"name": "u", "user": {"client-certificate-data": data, "client-key-data": data}}]}  # fmt: skip
    path = private.write(folder / "k" / "kubeconfig", yaml.safe_dump(config))
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setattr("kubernetes.config.kube_config._temp_files", {})
    temp_dirs.of_this_process.cache_clear()
    _ = Kube(path).client
    made = [p for p in temp_dirs.of_this_process(CREDENTIALS).iterdir() if p.is_file()]
    temp_dirs.of_this_process.cache_clear()
    assert made, "the client keeps its key elsewhere"
    return {name: mode for p in made for name, mode in modes(p).items()}


def _compose_variables(folder: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Modes:
    look = program(folder / "bin" / "compose-config", LOOK.format('"$PWD/.env"', folder / "note") + "echo '{}'")
    compose.config(look, "services: {}", {"DRONE_RPC_SECRET": "hunter22x"})
    return seen(folder / "note")


_GITEA = """\
import http.server, sys
if "user" in sys.argv:
    print("generated random password is 'hunter22x'")
    raise SystemExit
port = int(next(line.split("=")[1] for line in open(sys.argv[3]) if line.startswith("HTTP_PORT")))
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b'{"status": "pass"}')
http.server.HTTPServer(("127.0.0.1", port), Answer).serve_forever()
"""


def _giteas_settings(folder: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Modes:
    (folder / "gitea.py").write_text(_GITEA)
    start = program(folder / "bin" / "gitea", f'exec {sys.executable} {folder}/gitea.py "$@"')
    with gitea.running(gitea.Parts(start, folder / "templates", folder / "options")) as server:
        assert server.password.reveal() == "hunter22x"
        return modes(server.folder / "app.ini")


def _giteas_password(folder: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Modes:
    return modes(open_drone.keep(folder / "new", redact.Secret("hunter22x")))


def _edited_settings(folder: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Modes:
    look = program(folder / "bin" / "gitea", LOOK.format('"$4"', folder / "note") + 'cp "$4" "$7"')
    assert gitea.edited_ini(gitea.Parts(look, folder, folder), "[security]\n", {}) == "[security]\n"
    return seen(folder / "note")


def _certificates_key(folder: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Modes:
    real = shutil.which("openssl")
    assert real, "openssl is not installed"
    keys = 'for word; do [ "$last" = -keyout ] && key="$word"; last="$word"; done\n'
    program(folder / "bin" / "openssl", f'{real} "$@" || exit 1\n{keys}' + LOOK.format('"$key"', folder / "note"))
    monkeypatch.setenv("PATH", f"{folder}/bin:{os.environ['PATH']}")
    assert "PRIVATE KEY" in credentials._certificate()[1].reveal()
    return seen(folder / "note")


def _environment_under_sudo(folder: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Modes:
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return modes(Path(elevation.command("sudo", {"PIP_INDEX_URL": "https://me:hunter22x@x/"}, [])[-1]))


def _jupyters_token(folder: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Modes:
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    temp_dirs.of_this_process.cache_clear()
    access = jupyter_access.prepare(20_000)
    temp_dirs.of_this_process.cache_clear()
    return modes(access.file) | modes(Path(access.environment["JUPYTER_TOKEN_FILE"]))


def _snapshots_files(folder: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Modes:
    monkeypatch.setenv("STACKBOOK_STATE", str(folder / "new" / "states"))
    (folder / "disk").mkdir()
    (folder / "disk" / "ca.key").write_text("k")
    kept = Store("lab")
    new = kept.begin("one")
    archive.collect(folder / "disk", new / "m-root.tar", timeout=20)
    between = modes(new / "m-root.tar")
    packed = archive.compress(new / "m-root.tar", new / "m-root.tar.zst", timeout=20)
    part = Part("m", "root", "m-root.tar.zst", packed.size, packed.sha256, 1)
    Manifest("one", "", {}, "", "", {}, (part,)).write(new)
    made = [path for path in kept.finish("one").iterdir() if path.is_file()]
    assert len(made) == 2
    above = {f"{p}/": stat.S_IMODE(p.stat().st_mode) for p in (kept.folder, kept.folder.parent)}
    return {name: mode for p in made for name, mode in modes(p).items()} | above | between


def _expired_certificates_keys(folder: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Modes:
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    real = str(shutil.which("openssl"))
    words = [real, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key", "-out", "root", "-subj", "/O=x"]
    subprocess.run(words, cwd=folder, check=True, capture_output=True)
    names = 'for word; do case "$last" in -keyout|-keyfile) key="$PWD/$word" ;; esac; last="$word"; done\n'
    program(folder / "bin" / "openssl", f'{real} "$@" || exit 1\n{names}' + LOOK.format('"$key"', folder / "note"))
    monkeypatch.setenv("PATH", f"{folder}/bin:{os.environ['PATH']}")
    key = redact.Secret((folder / "key").read_text(), remember=False)
    assert "PRIVATE KEY" in expired.signed((folder / "root").read_text(), key, "spiffe://x/ns/y/sa/z")[1].reveal()
    assert sorted(Path(name).name for name in seen(folder / "note") if not name.endswith("/")) == ["ca.key", "own.key"]
    return seen(folder / "note")


def _virtual_machines_keys(folder: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Modes:
    monkeypatch.setenv("STACKBOOK_STATE", str(folder / "new"))
    provider = VirtualMachines(Profile.load("vm"))
    provider._ensure_keys()
    node = provider.profile.nodes[0]
    (provider.folder / node.name / "disk.qcow2").touch(0o600)
    provider._prepare(node, disks.Template(folder))
    keys = (provider.key, provider.folder / node.name / "host_key", provider.machine(node).seed)
    return {name: mode for key in keys for name, mode in modes(key).items()}


WRITERS: dict[str, Callable[[Path, Machine, pytest.MonkeyPatch], Modes]] = {
    "the join token on a machine": _join,
    "the proxies on a machine": _machines_proxies,
    "the benchmark's join token on a machine": _benchmarks_join,
    "root's kubeconfig on a machine": _users_kubeconfig,
    "this host's kubeconfig": _hosts_kubeconfig,
    "the API client's certificate and key": _clients_files,
    "the variables of a compose file": _compose_variables,
    "Gitea's settings": _giteas_settings,
    "Gitea's settings, edited": _edited_settings,
    "Gitea's password, for who looks at Drone": _giteas_password,
    "the key of Elasticsearch's certificate": _certificates_key,
    "the keys of an expired certificate": _expired_certificates_keys,
    "the environment under sudo": _environment_under_sudo,
    "JupyterLab's token and address": _jupyters_token,
    "the keys of virtual machines": _virtual_machines_keys,
    "a snapshot, which holds the lab's keys": _snapshots_files,
}


@pytest.fixture(params=[0, 0o077], ids=["umask 000", "umask 077"])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.parametrize("name", WRITERS)
def test_only_its_owner_gets_to_it(
    name: str, machine: Machine, tmp_path: Path, umask: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = WRITERS[name](tmp_path, machine, monkeypatch)
    files = {mode for path, mode in found.items() if not path.endswith("/")}
    folders = {mode for path, mode in found.items() if path.endswith("/")}
    assert (files, folders) == ({0o600}, {0o700}), found


def test_the_file_is_never_open_to_others_while_it_is_written(
    tmp_path: Path, umask: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is set afterwards: where `chmod` does not work at all, the mode is right all the same."""
    for name in ("chmod", "fchmod"):
        monkeypatch.delattr(os, name)
    path = tmp_path / "a" / "b" / "key"
    for text in ("one", "two"):
        (tmp_path / "a" / "b").exists() and (path.with_name("key.new")).symlink_to(tmp_path / "elsewhere")
        assert private.write(path, text).read_text() == text
    assert [stat.S_IMODE(p.stat().st_mode) for p in (path, path.parent, path.parent.parent)] == [0o600, 0o700, 0o700]
    assert not (tmp_path / "elsewhere").exists()


LOOKED_AT = {
    "app/benchmark/floor.py": "the benchmark's join token on a machine",
    "cluster/kubeconfig.py": "this host's kubeconfig",
    "cluster/kubeadm/root_kubeconfig.py": "root's kubeconfig on a machine",
    "lessons/kubeadm/control_plane.py": "root's kubeconfig on a machine",
    "lessons/delivery/compose.py": "the variables of a compose file",
    "lessons/delivery/gitea.py": "Gitea's settings",
    "app/open_drone.py": "Gitea's password, for who looks at Drone",
    "app/elevation.py": "the environment under sudo",
    "machines/transports.py": "the join token on a machine",
    "app/jupyter_access.py": "JupyterLab's token and address",
    "cluster/kubeadm/join.py": "the join token on a machine",
    "cluster/kubeadm/runtime.py": "the proxies on a machine",
    "observability/logs/credentials.py": "the key of Elasticsearch's certificate",
    "lessons/incident/expired.py": "the keys of an expired certificate",
    "app/snapshots/archive.py": "a snapshot, which holds the lab's keys",
    "app/snapshots/manifest.py": "a snapshot, which holds the lab's keys",
    "app/snapshots/store.py": "a snapshot, which holds the lab's keys",
    "machines/providers/vm.py": "the keys of virtual machines",
    "machines/virtual/disks.py": "the keys of virtual machines",
    "core/paths.py": "this host's kubeconfig",
    "core/private.py": "this host's kubeconfig",
}  # fmt: skip
WITHOUT_FILES = {
    "cluster/kubeadm/configuration.py",
    "lessons/delivery/webhook_receiver.py",
    "lessons/delivery/oauth.py",
    "lessons/delivery/drone_builds.py",
    "lessons/delivery/release/access.py",
    "lessons/incident/tokens.py",
    "lessons/delivery/openssl.py",
    "lessons/delivery/runner_pods.py",
    "artifacts/go_toolchain.py",
    "observability/logs/client.py",
    "observability/logs/deploy.py",
    "observability/logs/access_control.py",
    "core/redact.py",
}  # fmt: skip
"""They hand a secret to a server, or to a child's standard input or environment."""
OTHERWISE = {
    "lessons/delivery/gitea_compose.py": "compose.yaml and .env, which have no password: test_gitea_compose",
    "lessons/ecosystem/shop/compose_files.py": "compose.yaml and .env, which have no password: test_compose",
    "lessons/compose/project.py": "passwords for another user's containers, in a folder of mode 0700: test_compose, test_gitea_compose",
    "traffic/sharing.py": "a lock",
    "artifacts/package_registries.py": "a mirror's address with its password: test_apt_secrets",
    "core/locks.py": "a lock",
    "lessons/delivery/release/registry.py": "a program without a secret; settings in a folder of mode 0700: test_release",
    "lessons/delivery/repository.py": "the files of a commit",
    "lessons/delivery/actions.py": "the runner's settings, which have no token: test_actions",
    "lessons/delivery/drone.py": "Drone's log, in a folder of mode 0700",
    "cluster/image_import.py": "an image",
    "cluster/kubeadm/init.py": "kubeadm's configuration, which has no token",
    "app/reset.py": "this host's state before the lab: names, links, rules and kernel parameters",
    "lab/step.py": "a record, redacted",
    "lab/turns.py": "a lock",
    "lab/changes.py": "the record of a challenge, which keeps no copy of a Secret: test_challenges",
    "lab/learner.py": "what a learner has done",
    "lessons/machines/vm_clones.py": "an address, in a folder of mode 0700",
    "machines/virtual/agent.py": "nothing: a secret goes to a command's standard input",
    "core/results.py": "nothing: it holds what was said",
    "app/diagnose/collect_cluster.py": "nothing: kubectl reads it on its own machine",
    "app/diagnose/support_bundle.py": "a bundle of mode 0600, redacted: test_diagnose",
}  # fmt: skip
"""What they write, which is no secret."""
SECRETS = re.compile(r"\.reveal\(\)|private\.(write|folder)|0o600|admin\.conf|-keyout")
WRITES = re.compile(r"write_text|write_bytes|os\.open|mkstemp|\.write\(|open\([^)]*[\"'][wax]")


def test_every_module_that_handles_secrets_is_looked_at_here() -> None:
    library = ROOT / "lib" / "stackbook"
    found = {
        str(p.relative_to(library)) for p in library.rglob("*.py") if SECRETS.search(p.read_text(encoding="utf-8"))
    }
    assert found - {*LOOKED_AT, *WITHOUT_FILES, *OTHERWISE} == set()
    assert set(LOOKED_AT.values()) <= set(WRITERS)
    assert [name for name in WITHOUT_FILES if WRITES.search((library / name).read_text(encoding="utf-8"))] == []
