"""OCI archives, and base layers out of a root filesystem's tar."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import pytest
from archives import read_index
from stackbook.artifacts import image_layers
from stackbook.artifacts.catalogue import Base, Image
from stackbook.artifacts.debian_layers import DebianRoot, parse_status

STATUS = """Package: libc6
Status: install ok installed

Package: iptables
Status: install ok installed
Pre-Depends: libc6 (>= 2.36)
Depends: missing-one | libxtables12 (= 1.8), debconf

Package: libxtables12
Status: install ok installed
Depends: libc6

Package: debconf
Status: install ok installed

Package: curl
Status: install ok installed
Depends: libc6, iptables

Package: gone
Status: deinstall ok config-files
"""


def image(name: str, files: dict[str, str], base: str = "", **more) -> Image:
    given = {"folders": (), "owner": 0, "env": (("PATH", "/usr/bin"),), "entrypoint": (f"/{name}",), "command": ()}
    given |= {"user": "", **more}
    return Image(name, f"stackbook.local/{name}:v1", "", base, tuple(files.items()), **given)


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    """A tiny root filesystem with a merged /usr, as mmdebstrap writes it."""
    path = tmp_path / "rootfs.tar"
    lists = {
        "iptables": "/.\n/usr/sbin\n/usr/sbin/xtables-nft-multi\n/usr/sbin/iptables-nft\n/usr/share/doc/iptables/x\n",
        "libc6:amd64": "/.\n/lib\n/lib/x86_64-linux-gnu\n/lib/x86_64-linux-gnu/libc.so.6\n",
        "libxtables12:amd64": "/usr/lib/libxtables.so\n",
        "curl": "/usr/bin/curl\n/usr/bin/curl2\n",
    }
    files = {
        "usr/sbin/xtables-nft-multi": "multi",
        "usr/lib/x86_64-linux-gnu/libc.so.6": "libc",
        "usr/lib/libxtables.so": "xt",
        "usr/share/doc/iptables/x": "doc",
        "usr/bin/curl": "curl",
        "var/lib/dpkg/status": STATUS,
        **{f"var/lib/dpkg/info/{name}.list": text for name, text in lists.items()},
    }
    links = {"lib": "usr/lib", "bin": "usr/bin", "sbin": "usr/sbin", "usr/sbin/iptables-nft": "xtables-nft-multi"}
    with tarfile.open(path, "w") as tar:
        for name, target in links.items():
            info = tarfile.TarInfo(f"./{name}")
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
        for name, text in files.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size, info.mode = len(text), 0o755
            tar.addfile(info, io.BytesIO(text.encode()))
        hard = tarfile.TarInfo("./usr/bin/curl2")
        hard.type, hard.linkname = tarfile.LNKTYPE, "./usr/bin/curl"
        tar.addfile(hard)
    return path


def unpack(archive: Path, reference: str) -> tuple[dict[str, tarfile.TarInfo], dict[str, bytes], dict]:
    """Members, contents and config of an image, layers applied in order."""
    members: dict[str, tarfile.TarInfo] = {}
    contents: dict[str, bytes] = {}
    with tarfile.open(archive) as tar:

        def blob(digest: str) -> bytes:
            found = tar.extractfile(f"blobs/sha256/{digest.removeprefix('sha256:')}")
            assert found is not None
            data = found.read()
            assert f"sha256:{hashlib.sha256(data).hexdigest()}" == digest
            return data

        index = read_index(archive)
        entry = next(m for m in index["manifests"] if m["annotations"]["io.containerd.image.name"] == reference)
        manifest = json.loads(blob(entry["digest"]))
        config = json.loads(blob(manifest["config"]["digest"]))
        assert [layer["digest"] for layer in manifest["layers"]] == config["rootfs"]["diff_ids"]
        for layer in manifest["layers"]:
            data = blob(layer["digest"])
            assert len(data) == layer["size"]
            with tarfile.open(fileobj=io.BytesIO(data)) as inner:
                for member in inner:
                    members[member.name] = member
                    content = inner.extractfile(member) if member.isreg() else None
                    contents[member.name] = content.read() if content else b""
    return members, contents, config


def test_an_image_of_one_static_binary(tmp_path: Path) -> None:
    (tmp_path / "tool").write_bytes(b"ELF")
    target = tmp_path / "out.tar"
    made = image("tool", {"tool": "/usr/local/bin/tool"}, user="1000:1000")
    digest = image_layers.assemble(
        [made], target, bases={}, files={"tool": tmp_path / "tool"}, root=lambda: pytest.fail("not needed")
    )
    assert digest == hashlib.sha256(target.read_bytes()).hexdigest()
    members, contents, config = unpack(target, made.reference)
    assert contents["usr/local/bin/tool"] == b"ELF"
    assert members["usr/local/bin/tool"].mode == 0o755
    assert members["tmp"].mode == 0o1777
    assert config["config"]["User"] == "1000:1000"
    assert config["config"]["Entrypoint"] == ["/tool"]
    assert b"istio-proxy:x:1337" in contents["etc/passwd"]


def test_the_same_input_gives_the_same_bytes_whenever_and_whoever(tmp_path: Path) -> None:
    made = image("tool", {"tool": "/tool"})
    digests = set()
    for turn in range(2):
        source = tmp_path / f"{turn}" / "tool"
        source.parent.mkdir()
        source.write_bytes(b"same")
        os.utime(source, (turn * 1e6, turn * 1e6))
        source.chmod(0o700 if turn else 0o755)
        target = tmp_path / f"{turn}.tar"
        digests.add(
            image_layers.assemble([made], target, bases={}, files={"tool": source}, root=lambda: pytest.fail(""))
        )
    assert len(digests) == 1


def test_images_of_a_bundle_share_their_base_once(tmp_path: Path, rootfs: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    bases = {"net": Base(("iptables",)), "tools": Base(("curl",), below="net")}
    made = [image(name, {name: f"/{name}"}, base="net") for name in ("one", "two")] + [image("tools", {}, base="tools")]
    target = tmp_path / "out.tar"
    files = {name: tmp_path / name for name in ("one", "two")}
    image_layers.assemble(made, target, bases=bases, files=files, root=lambda _: DebianRoot.read(rootfs))
    with tarfile.open(target) as tar:
        names = tar.getnames()
    assert len(names) == len(set(names)) == 2 + 3 * 2 + 4  # layout, index; manifest and config each; four layers
    _, contents, _ = unpack(target, "stackbook.local/one:v1")
    assert contents["one"] == b"one"
    assert contents["usr/lib/x86_64-linux-gnu/libc.so.6"] == b"libc"
    _, tools, _ = unpack(target, "stackbook.local/tools:v1")
    assert tools["usr/bin/curl"] == tools["usr/bin/curl2"] == b"curl"


def test_a_base_has_what_its_packages_need_and_no_more(rootfs: Path) -> None:
    root = DebianRoot.read(rootfs)
    assert root.closure(["iptables"]) == ("iptables", "libc6", "libxtables12")
    layer = {entry.path: entry for entry in root.layer(["iptables"]).entries}
    assert layer["lib"].target == "usr/lib"
    assert layer["usr/sbin/iptables"].target == "iptables-nft"
    assert "usr/share/doc/iptables/x" not in layer
    assert "usr/bin/curl" not in layer
    upper = {entry.path for entry in root.layer(["curl"], without=["iptables"]).entries}
    assert upper == {"usr", "usr/bin", "usr/bin/curl", "usr/bin/curl2"}


def test_folders_of_the_image_belong_to_its_user(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text("{}")
    made = image("proxy", {"t": "/var/lib/x/t.json"}, folders=("/var/lib/x", "/etc/x"), owner=1337)
    target = tmp_path / "out.tar"
    image_layers.assemble([made], target, bases={}, files={"t": tmp_path / "t.json"}, root=lambda: pytest.fail(""))
    members, _, _ = unpack(target, made.reference)
    assert [members[name].uid for name in ("var/lib/x", "var/lib/x/t.json", "etc/x", "var")] == [1337, 1337, 1337, 0]
    assert members["var/lib/x/t.json"].mode == 0o644


def test_only_installed_packages_count() -> None:
    found = parse_status(STATUS)
    assert "gone" not in found
    assert found["iptables"] == (("libc6",), ("missing-one", "libxtables12"), ("debconf",))


def test_a_tree_is_a_layer_with_its_modes_links_and_owner(tmp_path: Path) -> None:
    folder = tmp_path / "server"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "run").write_text("#!")
    (folder / "bin" / "run").chmod(0o755)
    (folder / "notes.json").write_text("{}")
    (folder / "notes.json").chmod(0o640)
    (folder / "current").symlink_to("bin/run")
    made = image("server", {"server": "/usr/share/server"}, folders=("/usr/share/server",), owner=1000)
    target = tmp_path / "out.tar"
    image_layers.assemble([made], target, bases={}, files={"server": folder}, root=lambda _: pytest.fail(""))
    layer = {entry.path: entry for entry in image_layers.tree_layer(folder, "/usr/share/server", owner=1000).entries}
    assert (layer["usr/share/server/bin/run"].mode, layer["usr/share/server/notes.json"].mode) == (0o755, 0o640)
    assert layer["usr/share/server/current"].target == "bin/run"
    assert {entry.owner for path, entry in layer.items() if path.startswith("usr/share/server")} == {1000}
    assert layer["usr/share"].owner == 0
    _, contents, _ = unpack(target, "stackbook.local/server:v1")
    assert contents["usr/share/server/bin/run"] == b"#!"


def test_images_may_stand_on_different_roots(tmp_path: Path, rootfs: Path) -> None:
    bases = {"net": Base(("iptables",)), "java": Base(("curl",), root="other")}
    asked: list[str] = []

    def root(name: str) -> DebianRoot:
        asked.append(name)
        return DebianRoot.read(rootfs)

    image_layers.assemble(
        [image("a", {}, base="net"), image("b", {}, base="java")], tmp_path / "o.tar", bases=bases, files={}, root=root
    )
    assert asked == ["machine-rootfs", "other"]
