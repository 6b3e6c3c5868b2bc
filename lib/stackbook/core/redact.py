"""Keeping secrets out of notebooks, records and logs.

`redact` masks in text, `scrub` in data that is going to be JSON. Both mask the secrets that this process knows (`Secret`)
and everything that looks like one, quoted or not, and however often it was escaped. If in doubt, they mask more of a word.
Text that is already masked stays as it is.
"""

from __future__ import annotations

import base64
import hmac
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NoReturn, final
from urllib.parse import quote

from stackbook.core import command_lines

MASK = "***"

# A shorter "secret" would mask ordinary text, and protects nothing.
_SHORTEST = 4
# A shorter one could occur in a path or in the name of a program by chance.
_LONG = 8

# The end of a key whose value is a secret, whatever comes before it: PASSWORD, rootPassword, DRONE_RPC_SECRET.
_WORD = r"(?i:passw(?:or)?d|passphrase|secret(?:[_-]?key)?|api[_-]?key|private[_-]?key)"
_DATA = r"(?:client-key|certificate-authority|client-certificate)-data"
_TOKEN = r"[A-Za-z0-9+/=._~-]{16,}"
_COLON = r"(?:\\*[\"'])?[ \t]*[:=][ \t]*"
_OPEN = r"(?:\\*[\"'])?"
# From a quote to the same one; an escaped quote inside belongs to the value. Without a closing quote, it ends with the line.
_QUOTED = r"(?P<quote>\\*[\"'])[^\n]*?(?=(?<!\\)(?P=quote)|\n|\Z)"
# A word, but no yes or no, no mask, and not what closes the structure around it.
_WORDS_END = r"(?=[\s\"'{}\[\],;\\]|\Z)"
_BARE = (
    rf"(?!(?:true|True|false|False|null|None|none|nil|yes|no|\*\*\*){_WORDS_END})"
    rf"(?=[^\s\"'{{}}\[\],;]{{{_SHORTEST}}})[^\s\"'{{}}\[\]]*[^\s\"'{{}}\[\],;\\]"
)
_PRIVATE = r"[A-Z0-9 ]*PRIVATE KEY-----"

# The groups `keep` and `quote` stay before the mask.
_PATTERNS = (
    re.compile(rf"-----BEGIN {_PRIVATE}.*?(?:-----END {_PRIVATE}|\Z)", re.DOTALL),
    # base64 of "-----BEGIN [RSA |EC |OPENSSH ]PRIVATE KEY", as in kubeconfigs and Secrets.
    re.compile(
        r"LS0tLS1CRUdJTi(?:BQUklWQVRF|BSU0EgUFJJVkFURS|BFQyBQUklWQVRF|BPUEVOU1NIIFBSSVZBVEUg)[A-Za-z0-9+/=]*"
        r"(?:(?:\s|\\n)+[A-Za-z0-9+/=]{40,})*"
    ),
    # A bootstrap token, kubeadm's own format. In JSON, an escaped line break can come before it.
    re.compile(r"(?:(?<![A-Za-z0-9_])|(?<=\\[nrt]))[a-z0-9]{6}\.[a-z0-9]{16}(?![A-Za-z0-9_])"),
    re.compile(r"eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),  # a JSON web token
    # kubeadm prints "Using certificate key:" and the key on the next line.
    re.compile(r"(?P<keep>(?i:certificate[ _-]?key)(?:\\n|[\s:=,\[\]\\\"'])*)[0-9a-fA-F]{32,}"),
    re.compile(rf"(?P<keep>--certificate-key[ =]){_BARE}"),
    re.compile(r"(?P<keep>://[^\s/:@\"']*:)[^\s/@\"']+(?=@)"),
    re.compile(r"(?P<keep>(?i:authorization)\W{1,8}(?i:basic|bearer|token) )[A-Za-z0-9+/=._~-]{6,}"),
    re.compile(rf"(?P<keep>{_DATA}{_COLON}{_OPEN})[A-Za-z0-9+/=._-]{{16,}}"),
    re.compile(rf"(?P<keep>(?i:token){_COLON}{_OPEN}|--[\w-]*token[ \t]+|(?i:\bbearer) ){_TOKEN}"),
    re.compile(rf"(?P<keep>{_WORD}{_COLON})(?:{_QUOTED}|{_BARE})"),
    re.compile(rf"(?P<keep>--?[\w-]*{_WORD}[ \t]+)(?!-)(?:{_QUOTED}|{_BARE})"),
)
_END = re.compile(rf"-----END {_PRIVATE}")
_BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=\n\r\\ ")
_SECRET_KEY = re.compile(rf"{_WORD}$|{_DATA}$|(?i:certificate[ _-]?key)$")
_TOKEN_KEY = re.compile(r"(?i:token)$")

_known: dict[str, None] = {}


@final
class Secret:
    """A text that is never shown and is not a `str`: only `reveal` returns it.

    `repr`, `str` and `format` print `***`. Operations that need the text itself (`+`, `join`, an index, `len`, `json.dumps`,
    pickle, a process's arguments) raise TypeError. A Secret equals another Secret with the same text, and never a `str`.
    """

    __slots__ = ("__value",)
    __value: str

    def __init__(self, value: str, *, remember: bool = True) -> None:
        """Remember the value, so that `redact` masks it everywhere and no process starts with it in its arguments.

        Args:
            value: the secret.
            remember: False for a long text that only contains a secret somewhere.
        """
        if not isinstance(value, str):
            raise TypeError(f"a secret must be a str, not {type(value).__name__}")
        object.__setattr__(self, "_Secret__value", value)
        if remember:
            for form in _forms(value):
                _known[form] = None
            command_lines.guard(on_a_command_line)

    def reveal(self) -> str:
        """The value itself."""
        return self.__value

    def __repr__(self) -> str:
        return f"Secret({MASK})"

    def __str__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return MASK

    # In constant time; and without a hash, so that it cannot be the key of a mapping.
    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        mine, theirs = (one.reveal().encode(errors="surrogatepass") for one in (self, other))
        return hmac.compare_digest(mine, theirs)

    __hash__ = None  # type: ignore[assignment]

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a secret cannot be changed")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a secret cannot be changed")

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret cannot be pickled")


def on_a_command_line(words: Iterable[str]) -> bool:
    """Whether these words contain a secret that this process knows."""
    long = [form for form in list(_known) if len(form) >= _LONG]
    return any(form in word for word in words for form in long)


def _forms(value: str) -> Iterator[str]:
    """A secret as it is, and as it appears in JSON, in a URL and in base64."""
    plain = value.strip()
    if len(plain) < _SHORTEST or plain == MASK:
        return
    yield plain
    yield json.dumps(plain)[1:-1]
    yield json.dumps(plain, ensure_ascii=False)[1:-1]
    data = plain.encode(errors="surrogatepass")
    yield quote(data, safe="")
    if len(data) >= 8:  # the few letters of a shorter one would also occur elsewhere
        yield base64.b64encode(data).decode()


def redact(text: str) -> str:
    """`text` with every secret masked: the known ones and everything that has the shape of one.

    >>> redact("kubeadm join --token abcdef.0123456789abcdef")
    'kubeadm join --token ***'
    """
    # The longest first: a secret may be the beginning of another.
    for value in sorted(_known, key=len, reverse=True):
        text = text.replace(value, MASK)
    for pattern in _PATTERNS:
        text = pattern.sub(_mask, text)
    return _without_tails(text) if "PRIVATE KEY-----" in text else text


def _mask(match: re.Match[str]) -> str:
    found = match.groupdict()
    return (found.get("keep") or "") + (found.get("quote") or "") + MASK


def _without_tails(text: str) -> str:
    """Mask the base64 before the last line of a private key whose beginning is missing."""
    while match := _END.search(text):
        start = match.start()
        while start and text[start - 1] in _BASE64:
            start -= 1
        text = text[:start] + MASK + text[match.end() :]
    return text


def scrub(value: Any) -> Any:
    """Data in JSON's types, with every secret masked: by its key, by its shape, or because it is known.

    Masking the JSON text instead would tear quotes and numbers apart.

    >>> scrub({"password": 12345, "join": ["--token", "abcdef.0123456789abcdef"], "port": 6443})
    {'password': '***', 'join': ['--token', '***'], 'port': 6443}
    """
    return _scrubbed(value, "")


def _scrubbed(value: Any, key: str) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Mapping):
        return {redact(str(name)): _scrubbed(item, str(name)) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_scrubbed(item, key) for item in value]
    if _SECRET_KEY.search(key) and value != "":
        return MASK
    if isinstance(value, int | float):
        return value
    text = redact(str(value))
    return MASK if _TOKEN_KEY.search(key) and re.fullmatch(_TOKEN, text) else text
