"""The certificate and the passwords of Elasticsearch: created once, kept in a Secret of the cluster, shown nowhere."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stackbook.cluster import own_namespaces
from stackbook.config.namespaces import here
from stackbook.core.errors import CheckFailed, InputError
from stackbook.core.redact import Secret

if TYPE_CHECKING:
    from stackbook.cluster.kube import Kube

NAMESPACE = "logging"
NAME = "elasticsearch"
USERS = ("elastic", "shipper", "kibana")
_DAYS = 3650


@dataclass(frozen=True)
class Access:
    """What a client needs: the certificate to trust, and a password for each user."""

    certificate: str
    passwords: dict[str, Secret]


def server() -> str:
    """The name of Elasticsearch's Service, as in its certificate."""
    return f"{NAME}.{here().logging}.svc"


def labels() -> dict[str, dict[str, str]]:
    """The labels of an object, by which a learner's namespace on an existing cluster is emptied; none on the lab's own cluster."""
    return {"labels": {own_namespaces.CHAPTER: "12"}} if here().learner else {}


def ensure(kube: Kube) -> int:
    """Create the Secret if there is none; returns 1 if it was created. The namespace must exist."""
    if kube.kubectl("get", "secret", NAME, "-n", here().logging, check=False).ok:
        return 0
    certificate, key = _certificate()
    text = {"tls.crt": certificate, "ca.crt": certificate, "tls.key": key.reveal()}
    text |= {user: secrets.token_urlsafe(24) for user in USERS}
    text["users"] = f"shipper:{hashed(text['shipper'])}\n"
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": NAME, "namespace": here().logging, **labels()},
        "data": {name: base64.b64encode(value.encode()).decode() for name, value in text.items()},
    }
    # Created and not applied: `apply` would keep a second copy in an annotation.
    kube.kubectl("create", "-f", "-", stdin=Secret(json.dumps(body), remember=False), secret=True)
    return 1


def access(kube: Kube) -> Access:
    """Read the Secret.

    Raises:
        CheckFailed: there is no Secret.
    """
    answer = kube.kubectl("get", "secret", NAME, "-n", here().logging, "-o", "json", check=False, secret=True)
    if not answer.ok:
        raise CheckFailed(f"there is no Elasticsearch in the namespace {here().logging}", fix="stackbook run --only 12")
    data = {name: base64.b64decode(value).decode() for name, value in json.loads(answer.reveal())["data"].items()}
    return Access(data["ca.crt"], {user: Secret(data[user]) for user in USERS})


def hashed(password: str, *, salt: bytes = b"", rounds: int = 10_000) -> str:
    """A password in the form of Elasticsearch's file `users`: PBKDF2 with SHA-512, 32 bytes each of salt and hash.

    https://www.elastic.co/guide/en/elasticsearch/reference/8.19/security-settings.html#hashing-settings
    """
    grain = salt or secrets.token_bytes(32)
    key = hashlib.pbkdf2_hmac("sha512", password.encode(), grain, rounds, dklen=32)
    return f"{{PBKDF2}}{rounds}${base64.b64encode(grain).decode()}${base64.b64encode(key).decode()}"


def _certificate() -> tuple[str, Secret]:
    """A self-signed certificate and its key; clients trust only this one."""
    openssl = shutil.which("openssl")
    if openssl is None:
        raise InputError("openssl is missing: it creates Elasticsearch's certificate", fix="apt install openssl")
    names = ",".join(
        ["IP:127.0.0.1", *(f"DNS:{name}" for name in (server(), f"{server()}.cluster.local", NAME, "localhost"))]
    )
    with tempfile.TemporaryDirectory(prefix="stackbook-tls-") as folder:
        key, certificate = Path(folder, "tls.key"), Path(folder, "tls.crt")
        argv = [openssl, "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                "-keyout", str(key), "-out", str(certificate), "-days", str(_DAYS), "-subj", f"/CN={server()}",
                "-addext", f"subjectAltName={names}", "-addext", "keyUsage=critical,digitalSignature,keyCertSign",
                "-addext", "extendedKeyUsage=serverAuth"]  # fmt: skip
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
        if done.returncode:
            raise CheckFailed(f"openssl could not create a certificate: {done.stderr.strip()[-300:]}")
        return certificate.read_text(encoding="ascii"), Secret(key.read_text(encoding="ascii"))
