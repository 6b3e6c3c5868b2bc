"""No canary in any shape comes through, and ordinary text is left alone."""

from __future__ import annotations

import base64
import json
import re
import shlex
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from stackbook.core import redact as module
from stackbook.core.redact import MASK, Secret, redact, scrub

LOWER = "abcdefghijklmnopqrstuvwxyz0123456789"
BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ" + LOWER + "+/"
HEX = "0123456789abcdef"


def word(alphabet: str, least: int, most: int | None = None) -> st.SearchStrategy[str]:
    return st.text(alphabet, min_size=least, max_size=most or least)


tokens = st.tuples(word(LOWER, 6), word(LOWER, 16)).map(".".join)
hexes = word(HEX, 64)
blobs = word(BASE64, 40, 200)
jwts = st.tuples(*[word(BASE64[:62] + "-_", 12, 60)] * 3).map(lambda p: "eyJ" + ".".join(p))
# Distinct enough to be searched for, and no word that stands in the text around it.
passwords = word("QXZJqxzj%^_@0123456789", 6, 20)
quotable = st.tuples(passwords, st.sampled_from(["", '"', "'", "\\", " ", ",", "}", "ü", "\\n"]), passwords)
OUTER = st.sampled_from(
    [
        lambda t: t,
        lambda t: f"stderr: {t}\nmore",
        lambda t: json.dumps({"event": "x", "text": t}),
        lambda t: json.dumps({"event": "x", "text": t}, ensure_ascii=False),
        lambda t: json.dumps({"outer": json.dumps({"inner": t})}),
        lambda t: repr(t),
        lambda t: f"a\n\n  {t}  \n",
    ]
)
PEM = "-----BEGIN {0}PRIVATE KEY-----\n{1}\n-----END {0}PRIVATE KEY-----\n"


def hidden(secret: str, text: str) -> None:
    """The secret is not in what is left, nor any long piece of it; a second time changes nothing.

    A piece may be in the words around the secret, too: it must not be there more often than in those.
    """
    left = redact(text)
    around = text.replace(secret, MASK) if secret in text else ""
    for start in range(0, max(1, len(secret) - 7), 4):
        piece = secret[start : start + 8]
        assert left.count(piece) <= around.count(piece), left
    assert MASK in left
    assert redact(left) == left


def test_what_is_left_of_a_secret_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "abcdefgh.000horizati0"
    for left in (f"Authorization: Bearer {secret} {MASK}", f"Authorization: {MASK} 00horizati", f"{MASK} abcdefgh"):
        monkeypatch.setitem(globals(), "redact", lambda _text, left=left: left)
        with pytest.raises(AssertionError):
            hidden(secret, f"Authorization: Bearer {secret}")


@given(tokens, OUTER)
@example("abcdef.0123456789abcdef", lambda t: json.dumps("token:\n" + t))
def test_bootstrap_tokens(token: str, outer: Any) -> None:
    for text in (f"kubeadm join 192.0.2.1:6443 --token {token} --discovery", f"--token={token}", f"\n{token}\n", token):
        hidden(token, outer(text))


@given(hexes, OUTER)
def test_certificate_keys(key: str, outer: Any) -> None:
    for text in (
        f"kubeadm join x --control-plane --certificate-key {key}",
        f"--certificate-key={key}",
        f"[upload-certs] Using certificate key:\n{key}\n",
        f"certificateKey: {key}",
        json.dumps(["--certificate-key", key]),
    ):
        hidden(key, outer(text))


@given(blobs, OUTER)
def test_kubeconfig_keys(blob: str, outer: Any) -> None:
    user = {"users": [{"name": "admin", "user": {"client-key-data": blob, "client-certificate-data": blob}}]}
    for text in (yaml.safe_dump(user, width=10_000), json.dumps(user), json.dumps(user, indent=1)):
        hidden(blob, outer(text))


@given(jwts, OUTER)
@example("eyJ000000000000.000000000000.000horizati0", lambda t: t)  # a piece of it is in "Authorization"
def test_web_tokens(token: str, outer: Any) -> None:
    for text in (f"Authorization: Bearer {token}", f"token: {token}", json.dumps({"token": token}), token):
        hidden(token, outer(text))


@given(blobs, st.sampled_from(["RSA ", "EC ", "", "OPENSSH "]), OUTER)
def test_private_keys(blob: str, kind: str, outer: Any) -> None:
    key = PEM.format(kind, blob)
    encoded = base64.b64encode(key.encode()).decode()
    cut = key.removesuffix(f"\n-----END {kind}PRIVATE KEY-----\n")
    for text in (key, f"ca.key: |\n{key}", cut):
        hidden(blob, outer(text))
    hidden(encoded, outer(f"ca.key: {encoded}"))
    tail = key.removeprefix(f"-----BEGIN {kind}PRIVATE KEY-----\n")
    assert blob not in redact(tail)


@given(passwords, OUTER)
def test_passwords(password: str, outer: Any) -> None:
    for text in (
        f"PASSWORD={password}",
        f"export MYSQL_ROOT_PASSWORD={shlex.quote(password)}",
        f"rootPassword: {password}",
        f"password: '{password}'",
        f'{{"passwd": "{password}"}}',
        f"DRONE_RPC_SECRET={password}",
        f"mysql --password={password} -h db",
        f"gitea admin user create --password {password} --email a@example.org",
        f"client_secret: {password}",
        f"api_key={password}&user=a",
        f"mysql://root:{quote(password, safe='')}@db:3306/x",
    ):
        hidden(quote(password, safe="") if "://" in text else password, outer(text))


@given(quotable, OUTER)
def test_passwords_with_what_needs_quoting(parts: tuple[str, str, str], outer: Any) -> None:
    password = "".join(parts)
    for text in (json.dumps({"password": password, "port": 1}), json.dumps({"secret": password}, ensure_ascii=False)):
        left = redact(outer(text))
        assert parts[0] not in left
        assert parts[2] not in left


@given(st.text(min_size=4, max_size=40).map(str.strip).filter(lambda s: len(s) >= 4 and s != MASK))
def test_a_known_secret_is_found_in_every_form(value: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_known", {})
        secret = Secret(value)
        forms = [value, json.dumps(value), json.dumps(value, ensure_ascii=False)]
        if len(value) >= 8:
            forms += [quote(value.encode(errors="surrogatepass"), safe="")]
        for form in forms:
            left = redact(f"<{form}>")
            assert value not in left.replace(MASK, "") or value in MASK * 3
            assert MASK in left
        assert (str(secret), f"{secret}", f"{secret:>9}", repr(secret)) == (MASK, MASK, MASK, "Secret(***)")
        assert secret.reveal() == value


def test_a_secret_that_begins_like_another_leaves_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_known", {})
    for value in ("abcd", "abcdefgh", "abcdef"):
        Secret(value)
    assert redact("<abcdefgh>") == "<***>"


def test_what_is_too_short_to_be_a_secret_masks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_known", {})
    assert str(Secret("a")) == MASK
    assert Secret("").reveal() == ""
    assert redact("a banana") == "a banana"


ORDINARY = """kubeadm token create --print-join-command
kubeadm join 192.168.98.3:6443 --token *** --discovery-token-ca-cert-hash sha256:{0}
sha256:{0}
kubernetes.io/service-account-token | bootstrap-token-abcdef | token-ttl: 24h
kubectl create secret generic db --from-file=password.txt
kubectl -n istio-system get secret istio-ca-secret -o jsonpath={{.data.root-cert\\.pem}}
secretName: istio-ca-secret | imagePullSecrets: [] | secretKeyRef: | kind: Secret
automountServiceAccountToken: false | password: null | "secret": true | secret=False
type: kubernetes.io/tls | resourceVersion: "123456" | uid: 5e0c5c4e-7b3a-4a4c-9e59-3f4a0f6d1d55
spiffe://cluster.local/ns/default/sa/bookinfo | http://192.168.98.3:31380/productpage | git@example.org:a/b.git
reviews-v1-7d5f8c9b64-x2x4z | registry.k8s.io/kube-apiserver:v1.36.3 | 10.244.1.7 | v1.36.3
-----BEGIN CERTIFICATE-----""".format("0123456789abcdef" * 4)


@pytest.mark.parametrize("line", ORDINARY.replace(" | ", "\n").splitlines())
def test_ordinary_text_is_left_alone(line: str) -> None:
    assert redact(line) == line
    assert redact(json.dumps({"text": line})) == json.dumps({"text": line})
    assert scrub({"text": [line]}) == {"text": [line]}


PIECES = st.sampled_from(
    ["password", "secret", "token", ":", "=", " ", '"', "'", "\\", "\n", "***", "--", "abcdef.0123456789abcdef", "eyJ",
     "-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----", "certificate key", "hunter2", "a" * 20, "{", ",", "://", "@", "]"]
)  # fmt: skip


@given(st.lists(PIECES | st.text(max_size=5), max_size=30).map("".join))
def test_it_is_idempotent_and_total(text: str) -> None:
    once = redact(text)
    assert redact(once) == once


def test_it_is_quick_on_long_text() -> None:
    import time

    for text in ("a" * 200_000, "ab " * 70_000, "password: " * 20_000, '\\"' * 50_000, "QUJD\n" * 40_000 + "x",
                 "-----BEGIN PRIVATE KEY-----\n" * 3000, "secret='" * 20_000, "://a:" * 30_000):  # fmt: skip
        start = time.process_time()
        redact(text)
        assert time.process_time() - start < 2, text[:20]


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
DATA = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["password", "rpcSecret", "name", "token", "client-key-data"]), inner, max_size=4
        )
    ),
)


@given(DATA)
def test_scrubbed_data_is_json_of_the_same_shape_and_stays_as_it_is(data: Any) -> None:
    once = scrub(data)
    assert scrub(once) == once
    assert json.loads(json.dumps(once)) == once

    def same(a: Any, b: Any) -> None:
        if isinstance(a, dict):
            assert isinstance(b, dict)
            assert list(a) == list(b)
            for key in a:
                same(a[key], b[key])
        elif isinstance(a, list):
            assert len(a) == len(b)
        elif a is None or isinstance(a, bool):
            assert a is b

    same(data, once)


@given(
    passwords | st.integers(min_value=10_000),
    st.sampled_from(["password", "dbPassword", "SECRET", "api_key", "client-key-data"]),
)
def test_scrub_masks_by_key_whatever_the_type(value: Any, key: str) -> None:
    assert scrub({key: value}) == {key: MASK}
    assert scrub({key: [value]}) == {key: [MASK]}
    assert not re.search(re.escape(str(value)), json.dumps(scrub([{"deep": {key: value}}])))


def test_scrub_masks_keys_and_strange_values() -> None:
    class Odd:
        def __str__(self) -> str:
            return "password=hunter22"

    assert scrub({"abcdef.0123456789abcdef": Odd(), 1: (Secret("swordfish"),)}) == {MASK: "password=***", "1": [MASK]}
