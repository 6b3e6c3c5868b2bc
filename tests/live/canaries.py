"""Secrets that must not stand in anything that the lab leaves: two planted for the tests, and all that the lab has of its own."""

from __future__ import annotations

import base64
import json
import re
import secrets
import string
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import yaml
from stackbook.lab.lab import Lab

NAME = "stackbook-canary"
SECRET_NAMES = re.compile(r"key|passw|secret|token|canary|elastic|shipper|kibana")
PASSWORDS = re.compile(r"(?:IDENTIFIED BY '|^password=|^requirepass )([^'\s]{8,})", re.MULTILINE)
"""Passwords inside files of the bookshop: init.sql, client.cnf, redis.conf."""
PUBLIC_NAMES = re.compile(r"crt|cert|-id$|\.pub$|^auth-|^usage-")


def plant(lab: Lab) -> None:
    """A bootstrap token, as kubeadm makes it, and a Secret of a shape that nothing could recognise; earlier ones are taken away."""
    uproot(lab)
    name, word = ("".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(n)) for n in (6, 16))
    words = "".join(secrets.choice(string.ascii_lowercase) for _ in range(24))
    end = datetime.now(timezone.utc) + timedelta(hours=6)
    # As `kubeadm token create` makes it, which has no way for a token but its command line.
    token = {"description": NAME, "token-id": name, "token-secret": word, "expiration": f"{end:%Y-%m-%dT%H:%M:%SZ}",
             "usage-bootstrap-authentication": "true", "usage-bootstrap-signing": "true",
             "auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token"}  # fmt: skip
    items = [
        {"apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token", "stringData": token,
         "metadata": {"name": f"bootstrap-token-{name}", "namespace": "kube-system"}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": NAME}, "stringData": {"canary": words}},
    ]  # fmt: skip
    body = {"apiVersion": "v1", "kind": "List", "items": items}
    lab.kube.kubectl("create", "-f", "-", stdin=json.dumps(body), secret=True)


def uproot(lab: Lab) -> None:
    """Take what was planted away."""
    for entry in _secrets(lab):
        name, namespace = entry["metadata"]["name"], entry["metadata"]["namespace"]
        if name == NAME or _data(entry).get("description") == NAME:
            lab.kube.kubectl("delete", "secret", name, "-n", namespace)


def held(lab: Lab) -> dict[str, str]:
    """Every secret of the lab by where it lies; of a private key, a line from its middle."""
    found = dict(_of_secrets(lab))
    user = yaml.safe_load(lab.kubeconfig.read_text(encoding="utf-8"))["users"][0]["user"]
    found["kubeconfig"] = user["client-key-data"][40:160]
    found["kubeconfig, PEM"] = _middle(base64.b64decode(user["client-key-data"]).decode())
    for machine, host in lab.machines.items():
        for path in host.run(
            ["find", "/etc/kubernetes/pki", "/var/lib/kubelet/pki", "-name", "*.key"], check=False
        ).lines:
            found[f"{machine} {path}"] = _middle(host.run(["cat", path], secret=True).reveal())
    return found


def _secrets(lab: Lab) -> list[dict]:
    answer = lab.kube.kubectl("get", "secrets", "-A", "-o", "json", secret=True)
    return json.loads(answer.reveal())["items"]


def _data(entry: dict) -> dict[str, str]:
    return {k: base64.b64decode(v).decode(errors="replace") for k, v in (entry.get("data") or {}).items()}


def _of_secrets(lab: Lab) -> Iterator[tuple[str, str]]:
    for entry in _secrets(lab):
        where, data = f"{entry['metadata']['namespace']}/{entry['metadata']['name']}", _data(entry)
        if "token-secret" in data and "token-id" in data:
            yield f"{where} token", f"{data['token-id']}.{data['token-secret']}"
        for name, value in data.items():
            for number, password in enumerate(PASSWORDS.findall(value)):
                yield f"{where} {name}, password {number}", password
            if not SECRET_NAMES.search(name) or PUBLIC_NAMES.search(name) or len(value) < 8:
                continue
            yield f"{where} {name}", _middle(value) if "PRIVATE KEY-----" in value else value


def _middle(pem: str) -> str:
    """The second line of a key: its first lines are the same for every key of a kind."""
    lines = [line for line in pem.splitlines() if line and not line.startswith("-----")]
    return lines[min(1, len(lines) - 1)]
