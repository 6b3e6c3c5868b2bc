"""Get files of Maven Central: with `mvn` and the user's settings if it is installed, otherwise in the same way by HTTP."""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from stackbook.artifacts import downloads
from stackbook.artifacts.digests import sha256_of
from stackbook.artifacts.package_registries import unpack
from stackbook.artifacts.sources import Maven
from stackbook.artifacts.subprocesses import Spawn, spawn
from stackbook.core.errors import CorruptArtifact, InputError
from stackbook.core.progress import Progress, Report

# Maven's default repository (from its super POM), for hosts without `mvn`; a mirror in the user's settings.xml replaces it.
_CENTRAL = "https://repo.maven.apache.org/maven2"
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"
_PROXIES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")


def maven(
    source: Maven, *, partial: Path, folder: Path, repository: Path, job: str, report: Report, log: Path,
    cancel: threading.Event, run: Spawn = spawn,
) -> Path:  # fmt: skip
    """Get a file of Maven Central, and unpack it if the source says so.

    Args:
        source: the file, with its pinned SHA-256.
        partial: the file of an interrupted download.
        folder: the folder for the file.
        repository: Maven's local repository, so that its plugins do not go into the user's home folder.
        job: the name of the job in progress.
        report: gets progress.
        log: the file for the output of mvn.
        cancel: an event that ends the work when it is set.
        run: starts child processes.

    Raises:
        ArtifactUnavailable: the repository does not answer or does not have the file.
        CorruptArtifact: the content does not match the pinned checksum.
    """
    path = None
    if mvn_serves():
        path = _by_mvn(source, folder, repository, job, report, log, cancel, run)
    if path is None:
        url = f"{maven_repository()}/{source.path}"
        path = downloads.download(url, sha256=source.sha256, partial=partial, job=job, report=report, cancel=cancel)
    if not source.folder:
        return path
    report(Progress(job, "assemble", message="unpacking"))
    unpacked = unpack(path, folder / "unpacked", top=source.folder)
    path.unlink()
    return unpacked


def mvn_serves() -> bool:
    """Whether `mvn` is installed and can be used: it takes a proxy only from its settings, not from the environment."""
    return shutil.which("mvn") is not None and (_settings().is_file() or not any(map(os.environ.get, _PROXIES)))


def coordinates(path: str) -> str:
    """A file's coordinates in Maven's notation: group:artifact:version:type[:classifier].

    >>> coordinates("org/apache/kafka/kafka_2.13/4.1.0/kafka_2.13-4.1.0.tgz")
    'org.apache.kafka:kafka_2.13:4.1.0:tgz'
    >>> coordinates("io/zipkin/zipkin-server/3.5.1/zipkin-server-3.5.1-exec.jar")
    'io.zipkin:zipkin-server:3.5.1:jar:exec'
    """
    *group, artifact, version, name = PurePosixPath(path).parts
    rest = name.removeprefix(f"{artifact}-{version}")
    classifier, _, kind = rest.removeprefix("-").partition(".")
    return ":".join([".".join(group), artifact, version, kind, *([classifier] if classifier else [])])


def _by_mvn(
    source: Maven, folder: Path, repository: Path, job: str, report: Report, log: Path, cancel: threading.Event,
    run: Spawn,
) -> Path | None:  # fmt: skip
    """Get the file with Maven's own client; if that fails, report it in a note and return None."""
    got, start = folder / "mvn", time.monotonic()
    argv = [
        "mvn", "-B", "-ntp", *settings_options(), f"-Dmaven.repo.local={repository}", _COPY,
        f"-Dartifact={coordinates(source.path)}", f"-DoutputDirectory={got}",
    ]  # fmt: skip
    said: list[str] = []

    def tick(_seconds: float) -> None:
        report(Progress(job, "download", seconds=time.monotonic() - start))

    status = run(argv, env=os.environ, cwd=folder, log=log, on_line=said.append, on_tick=tick, cancel=cancel)
    kept = repository / Path(source.path).parent
    shutil.rmtree(kept, ignore_errors=True)  # the cache has the file, so it need not be here as well
    name = PurePosixPath(source.path).name
    if status != 0 or not (got / name).is_file():
        reason = next((line for line in said if "ERROR" in line), f"exit status {status}")
        report(
            Progress(
                job,
                "note",
                message=f"mvn could not get it ({reason[:200]}); downloading it from the repository without mvn",
            )
        )
        return None
    actual = sha256_of(got / name)
    if actual != source.sha256:
        raise CorruptArtifact(f"{name} from mvn: its sha256 is {actual}, it should be {source.sha256}")
    return got / name


def settings_options() -> list[str]:
    """The options of `mvn` for the user's settings, if there are any."""
    return ["-s", str(_settings())] if _settings().is_file() else []


def _settings() -> Path:
    return Path.home() / ".m2" / "settings.xml"


def maven_repository() -> str:
    """The repository that the user's Maven uses for Maven Central: a mirror in `~/.m2/settings.xml`, otherwise Central itself.

    Raises:
        InputError: settings.xml cannot be read.
    """
    settings = _settings()
    if not settings.is_file():
        return _CENTRAL
    try:
        root = ElementTree.parse(settings).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise InputError(f"{settings} cannot be read: {error}", fix="correct or remove it") from None
    for mirror in root.iterfind("{*}mirrors/{*}mirror"):
        of = {part.strip() for part in (mirror.findtext("{*}mirrorOf") or "").split(",")}
        if "!central" not in of and of & {"*", "central", "external:*"}:
            return (mirror.findtext("{*}url") or _CENTRAL).strip().rstrip("/")
    return _CENTRAL
