"""Download official releases and files of Maven Central, with a SHA-256 that is pinned or that the project publishes."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

from stackbook.artifacts.subprocesses import Cancelled
from stackbook.core.errors import ArtifactError, ArtifactUnavailable, CorruptArtifact
from stackbook.core.progress import Progress, Report

_ATTEMPTS = 4
_SECONDS, _TO_CONNECT = 30.0, 10.0
_NEVER = threading.Event()


class Probe:
    """Asks each host once per run whether it answers within `seconds`."""

    def __init__(self, *, seconds: float = 3.0) -> None:
        self._seconds = seconds
        self._known: dict[str, str] = {}
        self._lock = threading.Lock()

    def why_not(self, url: str) -> str:
        """Why the host of `url` does not answer; empty if it does."""
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        with self._lock:
            if origin not in self._known:
                self._known[origin] = self._ask(origin)
            return self._known[origin]

    def _ask(self, origin: str) -> str:
        import httpx

        try:
            answer = httpx.head(origin, timeout=self._seconds, follow_redirects=False)
        except httpx.HTTPError as error:
            return f"{origin} does not answer ({str(error) or type(error).__name__})"
        if answer.status_code in (403, 407) or answer.status_code >= 500:
            return f"{origin} answers {answer.status_code}"
        return ""


def download(
    url: str, *, sha256: str | None, partial: Path, job: str, report: Report, cancel: threading.Event = _NEVER,
    attempts: int = _ATTEMPTS,
) -> Path:  # fmt: skip
    """Download `url` to `partial` and verify it; returns `partial`.

    If an interrupted download has left data in `partial`, a Range request continues it; if the server ignores the range,
    the whole file is downloaded again. After a lost connection, the download continues where it stopped. Content that does
    not match the checksum is deleted.

    Raises:
        ArtifactUnavailable: there is no checksum, the host did not answer, or it does not have the file.
        CorruptArtifact: the content does not match the checksum.
        Cancelled: `cancel` was set; the partial file stays.
    """
    import httpx

    if not sha256:
        reason = f"{url}: no checksum of this version is known, so it is not downloaded"
        raise ArtifactUnavailable(reason, fix="use --source auto or registry, or pin the checksum in catalogue.yaml")
    partial.parent.mkdir(parents=True, exist_ok=True)
    start, trouble = time.monotonic(), ""
    for attempt in range(attempts):
        try:
            _attempt(url, partial, job, report, cancel, start)
        except httpx.HTTPError as error:
            trouble = str(error) or type(error).__name__
            cancel.wait(min(0.2 * 2**attempt, 5.0))
            continue
        actual = _digest(partial)
        if actual == sha256:
            return partial
        size = partial.stat().st_size
        partial.unlink()
        raise CorruptArtifact(f"{url}: sha256 of the {size} bytes is {actual}, it should be {sha256}; deleted")
    have = partial.stat().st_size if partial.exists() else 0
    fix = "try again: it continues there" if have else "check the network, or use --source registry"
    raise ArtifactUnavailable(f"{url}: {trouble} ({attempts} attempts, {have} bytes so far)", fix=fix)


def published(url: str, *, seconds: float = _SECONDS) -> str:
    """The SHA-256 that a project publishes at `url`: the first word of that file (Kubernetes publishes only the digest).

    Raises:
        ArtifactUnavailable: the host does not answer or does not have it, it is not a digest, or a redirect leaves https.
    """
    import httpx

    try:
        answer = httpx.get(url, timeout=httpx.Timeout(seconds, connect=_TO_CONNECT), follow_redirects=True)
    except httpx.HTTPError as error:
        raise ArtifactUnavailable(
            f"{url}: {str(error) or type(error).__name__}", fix="check the network, or use a pinned version"
        ) from error
    if answer.status_code != 200:
        raise _refused(url, answer.status_code)
    if url.startswith("https:") and answer.url.scheme != "https":
        raise ArtifactUnavailable(f"{url} leads to {answer.url.host} without TLS: its checksum proves nothing")
    word = answer.text[:200].split()[:1]
    if not word or not re.fullmatch(r"[0-9a-f]{64}", word[0]):
        raise ArtifactUnavailable(f"{url} holds no SHA-256", fix="use a pinned version, or --source registry")
    return word[0]


def _attempt(url: str, partial: Path, job: str, report: Report, cancel: threading.Event, start: float) -> None:
    import httpx

    have = partial.stat().st_size if partial.exists() else 0
    timeout = httpx.Timeout(_SECONDS, connect=_TO_CONNECT)
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    with httpx.stream("GET", url, headers=headers, timeout=timeout, follow_redirects=True) as answer:
        if answer.status_code == 416:  # the file is complete already; the digest decides whether it is the right one
            return
        if answer.status_code >= 500 or answer.status_code == 429:
            raise httpx.RemoteProtocolError(f"the server answered {answer.status_code}")
        if answer.status_code not in (200, 206):
            raise _refused(url, answer.status_code)
        resumed = answer.status_code == 206
        done = have if resumed else 0
        begun, first = time.monotonic(), done
        total = done + int(answer.headers.get("Content-Length", 0))
        with partial.open("ab" if resumed else "wb") as sink:
            for chunk in answer.iter_raw():  # write data as it arrives, so that a lost connection loses nothing
                if cancel.is_set():
                    raise Cancelled
                sink.write(chunk)
                done += len(chunk)
                speed = (done - first) / max(time.monotonic() - begun, 1e-3)
                remaining = (total - done) / speed if total > done and speed else None
                report(Progress(job, "download", done, total, "bytes", time.monotonic() - start, remaining))


def _refused(url: str, status: int) -> ArtifactError:
    reason = {404: "there is no such file", 403: "access is refused"}.get(status, "it cannot be obtained")
    return ArtifactUnavailable(f"{url}: {reason} (HTTP {status})", fix="check the version, or use --source registry")


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as source:
        while chunk := source.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
