"""Keeping secrets out of notebooks, records and logs."""

from __future__ import annotations

import re

MASK = "***"

# Each pattern keeps its first group and masks the rest.
_PATTERNS = (
    re.compile(r"()\b[a-z0-9]{6}\.[a-z0-9]{16}\b"),  # a bootstrap token, kubeadm's own format
    re.compile(r"(--certificate-key[ =])\S+"),
    re.compile(
        r"((?:client-key-data|certificate-authority-data|client-certificate-data|token):\s*)[A-Za-z0-9+/=._-]{16,}"
    ),
    re.compile(r"()-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----", re.DOTALL),
    re.compile(r"()\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),  # a JSON web token
    re.compile(r"((?i:password|passwd|secret)[\"']?\s*[:=]\s*[\"']?)[^\s\"',}]{4,}"),
)

_known: set[str] = set()


class Secret(str):
    """A string that does not show itself: `repr` and `format` print `***`; use `.reveal()` where it is needed."""

    __slots__ = ()

    def __new__(cls, value: str) -> Secret:
        """Remember the value, so that `redact` finds it wherever it turns up."""
        if value:
            _known.add(value)
        return super().__new__(cls, value)

    def reveal(self) -> str:
        """The value itself."""
        return str.__str__(self)

    def __repr__(self) -> str:
        return f"Secret({MASK})"

    def __str__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return MASK


def redact(text: str) -> str:
    """`text` with every secret masked: the known ones and everything that has the shape of one.

    >>> redact("kubeadm join --token abcdef.0123456789abcdef")
    'kubeadm join --token ***'
    """
    for value in _known:
        text = text.replace(value, MASK)
    for pattern in _PATTERNS:
        text = pattern.sub(lambda match: (match.group(1) or "") + MASK, text)
    return text
