"""What several rules read: tables of df, dates of certificates, systemd units, the newest line that matches."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timezone

from stackbook.app.diagnose.snapshot import Machine
from stackbook.machines.facts import parse_key_values

FULL_PERCENT = 95


def full_disks(table: str) -> Iterator[tuple[str, str]]:
    """Mount point and line of each full file system in the output of `df -P`, each once."""
    seen = set()
    for line in table.splitlines()[1:]:
        words = line.split()
        if len(words) >= 6 and words[4].rstrip("%").isdigit() and int(words[4][:-1]) >= FULL_PERCENT:
            if words[5] not in seen:
                yield words[5], " ".join(words)
            seen.add(words[5])


def moment(text: str) -> float | None:
    """Seconds since the epoch of a date as openssl prints it; None if it is not a date.

    >>> moment("Nov 27 18:00:00 2026 GMT")
    1795802400.0
    """
    try:
        return (
            datetime.strptime(" ".join(text.split()), "%b %d %H:%M:%S %Y GMT").replace(tzinfo=timezone.utc).timestamp()
        )
    except ValueError:
        return None


def since(text: str) -> float:
    """Seconds since the epoch of a time in the API's format; 0 if there is none.

    >>> since("2026-11-27T18:00:00Z")
    1795802400.0
    """
    try:
        return datetime.strptime(text[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc).timestamp()
    except ValueError:
        return 0.0


def valid_until(dates: str, now: float) -> str:
    """What is wrong with a certificate's dates in the output of `openssl x509 -dates`; empty if nothing is."""
    values = parse_key_values(dates)
    begin, end = moment(values.get("notBefore", "")), moment(values.get("notAfter", ""))
    if end is not None and end < now:
        return f"expired since {values['notAfter']}"
    if begin is not None and begin > now + 60:
        return f"not valid before {values['notBefore']}"
    return ""


def unit(machine: Machine, name: str) -> dict[str, str]:
    """What systemd reports about a unit; empty if it did not answer."""
    for block in machine.text("units").split("\n\n"):
        values = parse_key_values(block)
        if values.get("Id") == f"{name}.service":
            return values
    return {}


def newest(text: str, pattern: str) -> str:
    """The last line that matches; empty if none does."""
    found = [line.strip() for line in text.splitlines() if re.search(pattern, line)]
    return found[-1][:400] if found else ""


def sections(text: str) -> dict[str, str]:
    """Split a text with headings `== name` into name → the text below it."""
    parts = re.split(r"^== (.+)$", text, flags=re.MULTILINE)
    return {name.strip(): body.strip() for name, body in zip(parts[1::2], parts[2::2], strict=True)}
