"""Base layers: packages with what they need, copied out of a Debian root filesystem's tar without unpacking it."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from stackbook.artifacts.oci_archive import Content, Entry, Layer, parents

# Dependencies of Debian's packaging, not of the programs.
_PACKAGING = """
debconf debconf-2.0 dpkg perl perl-base init-system-helpers install-info libcap2-bin libpam0g libpam-modules
libpam-runtime base-files debianutils netbase lsb-base sysvinit-utils openssl adduser gcc-12-base libcrypt1
"""
_NOT_NEEDED = frozenset(_PACKAGING.split())
_LEFT_OUT = re.compile(
    r"usr/share/(doc|man|locale|info|lintian|bash-completion|perl5|zsh|fish|bug|doc-base|ca-certificates|initramfs-tools)(/|$)"
    r"|(etc/(init\.d|default|network|dhcp|apparmor\.d|ca-certificates)|usr/lib/systemd|var/lib)(/|$)|.*/gconv(/|$)"
    r"|usr/sbin/update-ca-certificates|etc/ca-certificates\.conf"
)
_MERGED = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")

# Without dpkg's own set-up the alternatives do not exist; nf_tables is Debian's default, and kubelet's and kube-proxy's
# rules must be in the same place as the machine's own.
_IPTABLES = tuple(f"{ip}tables{tool}" for ip in ("ip", "ip6") for tool in ("", "-save", "-restore"))
_APPLETS = """
ash awk base64 basename cat chmod chown clear cp cut date dd df dirname du echo env expr false find free grep gzip
gunzip head hexdump hostname id kill killall less ln ls md5sum mkdir mktemp more mount mv nc netstat nslookup od
pgrep pidof printf ps pwd readlink realpath rm rmdir route sed seq sh sha256sum sleep sort split stat strings
tail tar tee telnet test timeout top touch tr true tty umount uname uniq uptime vi watch wc wget which whoami
xargs yes
"""

PASSWD = (
    "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"
    "app:x:1000:1000:app:/:/bin/false\nistio-proxy:x:1337:1337:istio-proxy:/home/istio-proxy:/bin/sh\n"
)
GROUP = "root:x:0:\nnogroup:x:65534:\napp:x:1000:\nistio-proxy:x:1337:\n"


@dataclass(frozen=True)
class DebianRoot:
    """What the tar of a root filesystem holds.

    Attributes:
        tar: its path.
        members: by path without a leading `./`.
        status: dependencies by package, from dpkg's status file.
        files: paths by package, from dpkg's file lists.
    """

    tar: Path
    members: Mapping[str, tarfile.TarInfo]
    status: Mapping[str, tuple[tuple[str, ...], ...]]
    files: Mapping[str, tuple[str, ...]]

    @classmethod
    def read(cls, tar: Path) -> DebianRoot:
        """Read the tar's table and dpkg's data base in it."""
        members, files, status = {}, {}, {}
        with tarfile.open(tar) as archive:
            for member in archive:
                name = member.name.removeprefix("./").rstrip("/")
                members[name] = member
                if name == "var/lib/dpkg/status":
                    status = parse_status(_text(archive, member))
                elif name.startswith("var/lib/dpkg/info/") and name.endswith(".list"):
                    package = Path(name).stem.partition(":")[0]
                    files[package] = tuple(
                        line.lstrip("/") for line in _text(archive, member).splitlines() if line != "/."
                    )
        return cls(tar, members, status, files)

    def closure(self, packages: Iterable[str]) -> tuple[str, ...]:
        """The packages and all that they need, sorted; of alternatives, the one that is installed."""
        found: set[str] = set()
        waiting = list(packages)
        while waiting:
            package = waiting.pop()
            if package in found or package in _NOT_NEEDED:
                continue
            if package not in self.status:
                continue  # virtual, or provided by another
            found.add(package)
            for alternatives in self.status[package]:
                waiting += [name for name in alternatives if name in self.status][:1]
        return tuple(sorted(found))

    def layer(self, packages: Iterable[str], *, without: Iterable[str] = ()) -> Layer:
        """A layer with the files of the packages' closure, less that of `without`."""
        below = set(self.closure(without))
        mine = [package for package in self.closure(packages) if package not in below]
        entries: dict[str, Entry] = {}
        for package in mine:
            for path in self.files.get(package, ()):
                self._add(self._merged(path), entries)
        if "ca-certificates" in mine:
            self._add("etc/ssl/certs/ca-certificates.crt", entries)
        if "ca-certificates-java" in mine:
            self._add("etc/ssl/certs/java/cacerts", entries)
        if "iptables" in mine:
            for name in _IPTABLES:
                tool = name.replace("tables", "tables-nft")
                entries[f"usr/sbin/{name}"] = Entry(f"usr/sbin/{name}", "link", 0o777, target=tool)
        if "dash" in mine:  # busybox's own shell runs its applets in place of ip, ping and the like
            entries["usr/bin/sh"] = Entry("usr/bin/sh", "link", 0o777, target="dash")
        if "busybox-static" in mine:
            for name in _APPLETS.split():
                path = f"usr/bin/{name}"
                entries.setdefault(path, Entry(path, "link", 0o777, target="busybox"))
        if not below:
            self._skeleton(entries)
        folders = {entry.path: entry for entry in parents(list(entries))}
        ordered = {**folders, **{path: entries[path] for path in sorted(entries)}}
        return Layer(tuple(ordered.values()))

    def _skeleton(self, entries: dict[str, Entry]) -> None:
        for name in _MERGED:
            member = self.members.get(name)
            if member is not None and member.issym():
                entries[name] = Entry(name, "link", 0o777, target=member.linkname)
        for name, mode in (("tmp", 0o1777), ("run", 0o755), ("root", 0o700), ("var/run", 0o755), ("etc", 0o755)):
            entries[name] = Entry(name, "folder", mode)
        entries["home/istio-proxy"] = Entry("home/istio-proxy", "folder", 0o755, 1337)
        for name, text in (("passwd", PASSWD), ("group", GROUP), ("nsswitch.conf", "hosts: files dns\n")):
            data = text.encode()
            entries[f"etc/{name}"] = Entry(f"etc/{name}", "file", 0o644, content=Content(len(data), data=data))

    def _merged(self, path: str) -> str:
        """Where a path of a file list really is: /lib is a link to /usr/lib, https://wiki.debian.org/UsrMerge ."""
        top, slash, rest = path.partition("/")
        member = self.members.get(top)
        return f"usr/{top}/{rest}" if slash and member is not None and member.issym() else path

    def _add(self, path: str, entries: dict[str, Entry]) -> None:
        member = self.members.get(path)
        if member is None or path in _MERGED or _LEFT_OUT.match(path) or member.isdir():
            return
        if member.issym():
            entries[path] = Entry(path, "link", 0o777, target=member.linkname)
            return
        original = self.members[member.linkname.removeprefix("./")] if member.islnk() else member
        if original.isreg():
            content = Content(original.size, self.tar, original.offset_data)
            entries[path] = Entry(path, "file", original.mode & 0o7777, content=content)


def parse_status(text: str) -> dict[str, tuple[tuple[str, ...], ...]]:
    r"""Dependencies by installed package from dpkg's status file: all of the outer, one of each inner tuple.

    >>> parse_status("Package: a\nStatus: install ok installed\nDepends: b (>= 1), c | d:any\n")
    {'a': (('b',), ('c', 'd'))}
    """
    found = {}
    for paragraph in text.split("\n\n"):
        fields = dict(re.findall(r"^([A-Z][\w-]*): (.*)$", paragraph, re.MULTILINE))
        if not fields.get("Status", "").endswith(" installed"):
            continue
        needs = ", ".join(filter(None, [fields.get("Pre-Depends", ""), fields.get("Depends", "")]))
        groups = [group.split("|") for group in needs.split(",") if group.strip()]
        found[fields["Package"]] = tuple(tuple(re.split(r"[ (:]", one.strip())[0] for one in group) for group in groups)
    return found


def _text(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    content = archive.extractfile(member)
    return content.read().decode("utf-8", "replace") if content else ""
