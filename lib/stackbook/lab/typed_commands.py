"""The commands of a step as somebody would type them: with the machine that each belongs to, and the file that it takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stackbook.core.redact import redact

# The lab's own bookkeeping: commands that only check whether something has to be done.
_BOOKKEEPING = re.compile(
    r"^(test |stat |cat |systemctl (is-active|show|is-enabled) |ctr -n k8s\.io (images|content) |systemd-run |sh -c 'command -v)"
)
_WRITE = re.compile(r'^sh -c .*cat > "\$1\.new".*\' write (\S+) (\d+)$', re.DOTALL)
_IN_PLACE = re.compile(r"^sh -c '(cat > \S+)'$")
_TAKES_A_FILE = re.compile(r"(^|\s)(-f|--filename) -(\s|$)")
_CACHED = re.compile(r"(?<!\S)(?:/[^\s/]+)+/files/[0-9a-f]{16}/(\w[\w.-]*)")
_BY_API = "by the API"


def typed(commands: Sequence[Mapping[str, Any]], *, everything: bool = False, longest: int = 0) -> Iterator[str]:
    """The lines, with a comment where the machine changes; each command once on each machine.

    Args:
        commands: as a step recorded them: `host`, `command`, `rc`, and `input` where it was given a file.
        everything: also repeated commands, and questions that only decide whether something has to be done.
        longest: the file that a command reads is shown as a here-document of up to so many lines; 0 leaves it out.
    """
    host, seen = "", set()
    for command in commands:
        text, given = str(command.get("command", "")), str(command.get("input", "")) if longest else ""
        where = str(command.get("host", ""))
        if not everything and (_BOOKKEEPING.match(text) or (where, text, given) in seen):
            continue
        seen.add((where, text, given))
        if where != host:
            host = where
            by_api = where.endswith(_BY_API)
            yield f"# on {where.partition(',')[0]}" + (
                ": stackbook used the API; this is the kubectl command for it" if by_api else ""
            )
        shown = _shown(text)
        takes = given and bool(_WRITE.match(text) or _IN_PLACE.match(text) or _TAKES_A_FILE.search(text))
        end = _end(given)
        rc = command.get("rc")
        yield shown + (f" <<'{end}'" if takes else "") + (f"  # exit status {rc}" if rc else "")
        if takes:
            yield from _file(given, longest)
            yield end


def _shown(text: str) -> str:
    """A command as somebody would type it.

    >>> _shown("/var/cache/stackbook/files/c457535b88cb5f15/istioctl install -y")
    'istioctl install -y'
    >>> _shown("sh -c 'cat > /etc/hosts'")
    'cat > /etc/hosts'
    """
    if match := _WRITE.match(text):
        return f"install -D -m {match[2]} /dev/stdin {shlex.quote(_at_home(match[1]))}"
    if match := _IN_PLACE.match(text):
        return match[1]
    return redact(_at_home(_CACHED.sub(r"\1", text)))


def _at_home(text: str) -> str:
    """Paths below this user's home with `~`; in quotes a shell would not expand it."""
    return re.sub(rf"(?<![^\s=]){re.escape(str(Path.home()))}/", "~/", text)


def _file(text: str, longest: int) -> Iterator[str]:
    """The lines of a file, of a long one the first."""
    lines = redact(text).splitlines()
    yield from lines[:longest]
    if len(lines) > longest:
        yield f"# … and {len(lines) - longest} more lines: `stackbook commands` prints them"


def _end(text: str) -> str:
    """What ends a here-document: no line of the text.

    >>> _end("a b")
    'EOF'
    >>> _end("EOF")
    'EOF_'
    """
    word = "EOF"
    while word in text.splitlines():
        word += "_"
    return word
