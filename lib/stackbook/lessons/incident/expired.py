"""A workload whose certificate has expired: signed by the mesh's own CA, and valid for a month of 2020.

Istio's agent takes a certificate from files in /etc/certs if there are any, and otherwise asks istiod for one (istio.io/istio
pkg/security, `DefaultCertChainFilePath`). The files come from a Secret, which a user volume mounts into the sidecar.
"""

from __future__ import annotations

import base64
import json
import subprocess
from typing import Any

from stackbook.core import private, temp_dirs
from stackbook.core.errors import CheckFailed
from stackbook.core.redact import Secret
from stackbook.lab.attempt import Attempt
from stackbook.mesh import istio

NAMESPACE = "default"
FOLDER = "/etc/certs"
FROM, UNTIL = "20200101000000Z", "20200201000000Z"
_CONFIGURATION = """[ca]
default_ca = own
[own]
dir = .
new_certs_dir = .
database = index.txt
serial = serial
default_md = sha256
policy = any
copy_extensions = none
unique_subject = no
[any]
organizationName = optional
[leaf]
keyUsage = critical,digitalSignature,keyEncipherment
extendedKeyUsage = serverAuth,clientAuth
basicConstraints = critical,CA:FALSE
subjectAltName = critical,URI:IDENTITY
"""


def certificate(attempt: Attempt, place: str) -> None:
    """Make the sidecar of a service present an expired certificate."""
    kube, name = attempt.lab.kube, f"{place}-certificate"
    root, key = _authority(attempt)
    chain, own = signed(root, key, f"spiffe://cluster.local/ns/{NAMESPACE}/sa/bookinfo-{place}")
    files = {"cert-chain.pem": chain + root, "key.pem": own.reveal(), "root-cert.pem": root}
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "stringData": files,
    }
    attempt.undo_kubectl("delete", "secret", name, "-n", NAMESPACE, "--ignore-not-found")
    kube.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(secret), secret=True)

    def mounted(item: dict[str, Any]) -> dict[str, Any]:
        notes = item["spec"]["template"]["metadata"].setdefault("annotations", {})
        notes["sidecar.istio.io/userVolume"] = json.dumps({name: {"secret": {"secretName": name}}})
        notes["sidecar.istio.io/userVolumeMount"] = json.dumps({name: {"mountPath": FOLDER, "readOnly": True}})
        return item

    attempt.change_object("deployment", f"{place}-v1", mounted, namespace=NAMESPACE)
    kube.wait_rollout(NAMESPACE, f"deployment/{place}-v1", timeout=90)


def _authority(attempt: Attempt) -> tuple[str, Secret]:
    """The certificate and the key of the mesh's CA.

    Raises:
        CheckFailed: the cluster does not have them.
    """
    flags = ("get", "secret", "istio-ca-secret", "-n", istio.NAMESPACE, "-o", "json")
    answer = attempt.lab.kube.kubectl(*flags, check=False, secret=True)
    if not answer.ok:
        raise CheckFailed(
            f"the key of the mesh's CA is not in this cluster: {istio.NAMESPACE} has no Secret istio-ca-secret",
            fix="begin the incident with another seed",
        )
    data = json.loads(answer.reveal())["data"]
    named = {name: base64.b64decode(data[name]).decode() for name in ("ca-cert.pem", "ca-key.pem")}
    return named["ca-cert.pem"], Secret(named["ca-key.pem"])


def signed(root: str, key: Secret, identity: str) -> tuple[str, Secret]:
    """Create an expired certificate for an identity, signed by a CA; returns it and its key. `openssl ca` accepts any dates.

    Raises:
        CheckFailed: openssl failed.
    """
    with temp_dirs.folder("authority") as folder:
        (folder / "ca.cnf").write_text(_CONFIGURATION.replace("IDENTITY", identity), encoding="ascii")
        (folder / "index.txt").touch()
        (folder / "serial").write_text("20\n", encoding="ascii")
        (folder / "ca.pem").write_text(root, encoding="ascii")
        private.write(folder / "ca.key", key)
        new = ["openssl", "req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "own.key", "-out", "own.csr",
               "-subj", "/O=incident"]  # fmt: skip
        sign = ["openssl", "ca", "-batch", "-notext", "-config", "ca.cnf", "-in", "own.csr", "-out", "own.pem", "-cert", "ca.pem",
                "-keyfile", "ca.key", "-extensions", "leaf", "-startdate", FROM, "-enddate", UNTIL]  # fmt: skip
        for argv in (new, sign):
            done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False, timeout=30)
            if done.returncode:
                raise CheckFailed(f"openssl could not sign a certificate: {done.stderr.strip()[-300:]}")
        return (folder / "own.pem").read_text(encoding="ascii"), Secret(
            (folder / "own.key").read_text(encoding="ascii")
        )
