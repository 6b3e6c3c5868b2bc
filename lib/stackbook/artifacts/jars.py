"""Get the files of a lock from Maven Central: with one call of `mvn` if it can be used, otherwise each by HTTP.

The lock has the form of `sha256sum`: a SHA-256 and a path below the repository's root in each line. So inside a Maven
repository, `sha256sum -c jars.lock` verifies it.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath

from stackbook.artifacts import downloads
from stackbook.artifacts.digests import sha256_of
from stackbook.artifacts.maven import coordinates, maven_repository, mvn_serves, settings_options
from stackbook.artifacts.sources import Jars
from stackbook.artifacts.subprocesses import Spawn, spawn
from stackbook.core.errors import CorruptArtifact, InputError
from stackbook.core.progress import Progress, Report

_LINE = re.compile(r"([0-9a-f]{64})  (\S+)")
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_AT_A_TIME = 4


def read_lock(path: Path) -> Jars:
    """The files of a lock.

    Raises:
        InputError: the lock is missing, or a line does not have its form.
    """
    fix = "run stackbook from its checkout, which has lib/maven"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", fix=fix) from None
    found = [_LINE.fullmatch(line) for line in lines]
    if not all(found):
        raise InputError(f"{path} has a line that is not a SHA-256 and a path", fix="restore it from git")
    return Jars(tuple((match[2], match[1]) for match in found if match))


def jars(
    source: Jars, *, folder: Path, partial_folder: Path, repository: Path, job: str, report: Report, log: Path,
    cancel: threading.Event, run: Spawn = spawn,
) -> Path:  # fmt: skip
    """Get all files of a lock into one folder, and return it.

    Args:
        source: the files, with their pinned SHA-256.
        folder: the folder for the work.
        partial_folder: files of an interrupted download.
        repository: Maven's local repository, so that its plugins do not go into the user's home folder.
        job: the name of the job in progress.
        report: gets progress.
        log: the file for the output of mvn.
        cancel: an event that ends the work when it is set.
        run: starts child processes.

    Raises:
        ArtifactUnavailable: the repository does not answer or does not have a file.
        CorruptArtifact: the content of a file does not match its pinned checksum.
    """
    target = folder / "jars"
    target.mkdir()
    if mvn_serves():
        _by_mvn(source, target, folder, repository, job, report, log, cancel, run)
    missing = [(path, sha256) for path, sha256 in source.files if not (target / PurePosixPath(path).name).is_file()]
    if missing:
        _by_http(missing, target, partial_folder, job, report, cancel)
    for path, sha256 in source.files:
        name = PurePosixPath(path).name
        if (actual := sha256_of(target / name)) != sha256:
            raise CorruptArtifact(f"{name}: its sha256 is {actual}, it should be {sha256}")
    return target


def project(source: Jars) -> str:
    """A Maven project whose dependencies are the files of the lock and nothing else.

    >>> text = project(Jars((("org/slf4j/slf4j-api/1.7.36/slf4j-api-1.7.36.jar", "0" * 64),)))
    >>> "<groupId>org.slf4j</groupId><artifactId>slf4j-api</artifactId><version>1.7.36</version>" in text
    True
    """
    alone = "<exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions>"
    lines = []
    for path, _ in source.files:
        group, artifact, version, kind, *classifier = coordinates(path).split(":")
        named = f"<groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version>"
        more = "".join(f"<classifier>{word}</classifier>" for word in classifier)
        lines.append(f"<dependency>{named}<type>{kind}</type>{more}{alone}</dependency>")
    return (
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        "<groupId>local</groupId><artifactId>jars</artifactId><version>1</version><packaging>pom</packaging>"
        f"<dependencies>{''.join(lines)}</dependencies></project>\n"
    )


def _by_mvn(
    source: Jars, target: Path, folder: Path, repository: Path, job: str, report: Report, log: Path,
    cancel: threading.Event, run: Spawn,
) -> None:  # fmt: skip
    """Get the files with Maven's own client; if it fails, a note says so, and what is missing is left to HTTP."""
    pom, start = folder / "pom.xml", time.monotonic()
    pom.write_text(project(source), encoding="utf-8")
    argv = [
        "mvn", "-B", "-ntp", *settings_options(), f"-Dmaven.repo.local={repository}", "-f", str(pom), _COPY,
        f"-DoutputDirectory={target}",
    ]  # fmt: skip
    said: list[str] = []

    def tick(_seconds: float) -> None:
        got = len(list(target.iterdir()))
        report(Progress(job, "download", got, len(source.files), "files", time.monotonic() - start))

    status = run(argv, env=os.environ, cwd=folder, log=log, on_line=said.append, on_tick=tick, cancel=cancel)
    for path, _ in source.files:  # the cache has the files, so they need not be here as well
        shutil.rmtree(repository / Path(path).parent, ignore_errors=True)
    if status != 0:
        reason = next((line for line in said if "ERROR" in line), f"exit status {status}")
        text = f"mvn could not get all files ({reason[:200]}); downloading the rest from the repository without mvn"
        report(Progress(job, "note", message=text))


def _by_http(
    missing: list[tuple[str, str]], target: Path, partial_folder: Path, job: str, report: Report, cancel: threading.Event
) -> None:  # fmt: skip
    """Download files several at a time; those of an interrupted download are continued."""
    root, start = maven_repository(), time.monotonic()
    done: list[str] = []

    def one(path: str, sha256: str) -> None:
        name = PurePosixPath(path).name
        got = downloads.download(
            f"{root}/{path}", sha256=sha256, partial=partial_folder / name, job=job, report=lambda _: None,
            cancel=cancel,
        )  # fmt: skip
        shutil.move(got, target / name)
        done.append(name)
        report(Progress(job, "download", len(done), len(missing), "files", time.monotonic() - start))

    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        for future in [pool.submit(partial(one, path, sha256)) for path, sha256 in missing]:
            future.result()
    shutil.rmtree(partial_folder, ignore_errors=True)
