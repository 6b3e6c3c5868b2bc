"""Tokens of an issuer whose clock is ahead: customers send one, and the service's proxy finds that it is not yet valid.

The machines of the lab share this host's clock, so no machine can be given a wrong one. An issuer's clock shows only in its tokens:
they say when they become valid (`nbf`), and the proxy compares that with its own clock. RFC 7519.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from typing import Any

from stackbook.core.redact import Secret
from stackbook.lab.attempt import Attempt
from stackbook.lessons.incident import customers
from stackbook.mesh.rules import Rule
from stackbook.mesh.rules.builders import SECURITY

ISSUER = "accounts.incident"
AHEAD = 3600
"""Seconds by which the issuer's clock is ahead."""
_LIFE = 86400


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(key: bytes, now: float) -> Secret:
    """A token (HS256) of an issuer whose clock shows `now` (Unix time)."""
    head = {"alg": "HS256", "typ": "JWT", "kid": ISSUER}
    claims = {"iss": ISSUER, "sub": "customer", "iat": int(now), "nbf": int(now), "exp": int(now) + _LIFE}
    signed = ".".join(_text(json.dumps(part).encode()) for part in (head, claims))
    return Secret(f"{signed}.{_text(hmac.new(key, signed.encode(), hashlib.sha256).digest())}")


def demanded(attempt: Attempt, place: str) -> Rule:
    """Let customers send such a token from now on; returns the rule that makes the service's proxy check it."""
    key = secrets.token_bytes(32)
    issued = token(key, time.time() + AHEAD)
    customers.give_token(attempt, f"authorization: Bearer {issued.reveal()}")
    known = Secret(_text(key))  # the rule has to hold it; a record masks it
    keys: dict[str, Any] = {"keys": [{"kty": "oct", "alg": "HS256", "kid": ISSUER, "k": known.reveal()}]}
    spec = {
        "selector": {"matchLabels": {"app": place}},
        "jwtRules": [{"issuer": ISSUER, "jwks": json.dumps(keys), "forwardOriginalToken": False}],
    }
    return {
        "apiVersion": SECURITY, "kind": "RequestAuthentication", "metadata": {"name": place, "namespace": "default"}, "spec": spec,
    }  # fmt: skip
