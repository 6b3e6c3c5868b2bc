"""The commands of a step as a user would type them, each with its machine and its input file."""

from __future__ import annotations

import re
import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stackbook.core import observed, paths
from stackbook.core.redact import redact

# Commands that only check whether something has to be done.
_BOOKKEEPING = re.compile(
    r"^(test |stat |cat |systemctl (is-active|show|is-enabled) |ctr -n k8s\.io (images (ls|list)|content)( |$)|systemd-run "
    r"|sh -c 'command -v)"
)
# Commands that change something: they are shown each time, as what comes between may have undone them.
_CHANGE = re.compile(
    r"^(ip6?tables (-\w+ \w+ )*-[ADIFXN] |kubectl (\S+ )*?(apply|create|delete|label|annotate|patch|scale|replace|cordon|uncordon|drain"
    r"|taint|rollout restart|set env)( |$)|istioctl (install|uninstall) |kubeadm (init|join|reset)|p?kill |rm |install |cp |mv |swapo"
    r"|sysctl -w |systemctl (start|stop|restart|kill|enable|disable|mask|unmask) |bridge fdb (add|del|append|replace) "
    r"|ip (-n \S+ |-\S+ )*(link|address|addr|route|netns|neigh) (add|del|delete|set|flush|replace) )"
)
_WRITE = re.compile(r'^sh -c .*cat > "\$1\.new".*\' write (\S+) (\d+)$', re.DOTALL)
_IN_PLACE = re.compile(r"^sh -c '(cat > \S+)'$")
# An import or a pull in the background: typed in a shell, it is the same command without the unit around it.
_IN_BACKGROUND = re.compile(r"^systemd-run (?:--\S+ )*--unit=stackbook-(?:import|pull)-\S+ (?:--\S+ )*(?=ctr )")
_CACHED = re.compile(r"(?<!\S)(?:/[^\s/]+)+/(?:files/[0-9a-f]{16}|build/lessons)/(\w[\w.-]*)")
_TEMPORARY = re.compile(rf"{re.escape(tempfile.gettempdir())}/(?:stackbook-([a-z]+)-[\w-]*|tmp[a-z0-9_]{{8}})")
_BY_API = "by the API"


def typed(commands: Sequence[Mapping[str, Any]], *, everything: bool = False, longest: int = 0) -> Iterator[str]:
    """The commands as lines, with a comment where the machine changes; a command that only reads once for each machine.

    Args:
        commands: from the record of a step: `host`, `command`, `rc`, and `input` if the command read a file.
        everything: include repeated commands that only read, and commands that only check whether something has to be done.
        longest: maximum number of lines of an input file, shown as a here-document; 0 leaves input files out.
    """
    host = ""
    seen: set[tuple[str, str, str]] = set()
    written: dict[str, str] = {}
    made: set[str] = set()
    for command in commands:
        text = _IN_BACKGROUND.sub("", str(command.get("command", "")))
        given = str(command.get("input", "")) if longest else ""
        where = str(command.get("host", ""))
        if where == observed.HERE:
            text, given = _here(text, str(command.get("folder", ""))), _short(given)
            if _IN_PLACE.match(text) and written.get(text) != given:  # what read the file before reads another one now
                seen = {key for key in seen if key[0] != where}
                written[text] = given
        repeated = (where, text, given) in seen and not _CHANGE.match(text)
        if not everything and (_BOOKKEEPING.match(text) or repeated):
            continue
        seen.add((where, text, given))
        if where != host:
            host = where
            by_api = where.endswith(_BY_API)
            yield f"# on {where.partition(',')[0]}" + (
                ": stackbook used the API; this is the kubectl command for it" if by_api else ""
            )
        for folder in _folders(text) - made if where == observed.HERE else ():
            made.add(folder)
            yield f"mkdir -p {folder}"
        shown = _shown(text, empty=not command.get("input"))
        shown += " &" if command.get("background") else ""
        end = _end(given)
        rc = command.get("rc")
        yield shown + (f" <<'{end}'" if given else "") + (f"  # exit status {rc}" if rc else "")
        if given:
            yield from _file(given, longest)
            yield end


def _shown(text: str, *, empty: bool = False) -> str:
    """A command as a user would type it.

    >>> _shown("/var/cache/stackbook/files/c457535b88cb5f15/istioctl install -y")
    'istioctl install -y'
    >>> _shown("sh -c 'cat > /etc/hosts'")
    'cat > /etc/hosts'

    Args:
        text: the command.
        empty: it read nothing: a file that it writes is empty.
    """
    if match := _WRITE.match(text):
        return f"install -D -m {match[2]} {'/dev/null' if empty else '/dev/stdin'} {_at_home(match[1])}"
    if match := _IN_PLACE.match(text):
        return match[1] + (" < /dev/null" if empty else "")
    return redact(_at_home(_CACHED.sub(r"\1", text)))


def _here(text: str, folder: str) -> str:
    """A command of this host from the checkout's folder, with short names for temporary folders.

    >>> _here("protoc -I/tmp/tmpab12cd34 lesson.proto", "")
    'protoc -Itemp lesson.proto'
    >>> _here("git clone /tmp/stackbook-gitea-12-34-ab_c/work/one two", "/tmp/stackbook-gitea-12-34-ab_c/work")
    '(cd gitea/work && git clone one two)'
    """
    base = f"{paths.checkout()}/"
    if folder:  # paths in this folder are relative to it, and the folder itself is a dot
        text = re.sub(rf"{re.escape(folder)}(/|(?![\w./-]))", lambda found: "" if found[1] else ".", text)
    text, folder = (_short(words).replace(base, "") for words in (text, folder))
    return text if folder in ("", base[:-1]) else f"(cd {shlex.quote(folder)} && {text})"


def _folders(text: str) -> set[str]:
    """The folder that a command of this host works or writes in, if it has the short name of a temporary one.

    >>> _folders("sh -c 'cat > temp/lesson.proto'"), _folders("(cd gitea/work && git log)"), _folders("(cd lib && ls)")
    ({'temp'}, {'gitea/work'}, set())
    """
    found = re.match(r"\(cd (\S+) && ", text) or re.match(r"sh -c 'cat > (\S+)/[^/\s]+'$", text)
    return (
        {found[1]} if found and not found[1].startswith("/") and not (paths.checkout() / found[1]).is_dir() else set()
    )


def _short(text: str) -> str:
    """A text with short names for temporary folders."""
    return _TEMPORARY.sub(lambda found: found[1] or "temp", text)


def _at_home(text: str) -> str:
    """Write paths below this user's home with `~`, except in quotes, where a shell would not expand it."""
    return re.sub(rf"(?<![^\s=]){re.escape(str(Path.home()))}/", "~/", text)


def _file(text: str, longest: int) -> Iterator[str]:
    """The lines of a file; only the first ones if it is long."""
    lines = redact(text).removesuffix("\n").split("\n")  # not splitlines, which would also split at U+2028
    yield from lines[:longest]
    if len(lines) > longest:
        yield f"# … and {len(lines) - longest} more lines: `stackbook commands` prints them"


def _end(text: str) -> str:
    """A delimiter for a here-document that is not a line of the text.

    >>> _end("a b")
    'EOF'
    >>> _end("EOF")
    'EOF_'
    """
    word = "EOF"
    while word in text.split("\n"):
        word += "_"
    return word
