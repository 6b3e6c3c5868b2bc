"""Who can access the logs: tested with real requests, not read from a configuration."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from stackbook.config.namespaces import here
from stackbook.observability.logs import credentials
from stackbook.observability.logs.client import PORT, TARGET

if TYPE_CHECKING:
    from stackbook.cluster.kube import Kube


def attempts(kube: Kube) -> dict[str, str]:
    """What Elasticsearch answers to attempts that it must refuse, and to one that it must accept: attempt → answer."""
    import httpx

    known = credentials.access(kube)
    trusted = ssl.create_default_context(cadata=known.certificate)
    shipper = ("shipper", known.passwords["shipper"].reveal())
    with kube.port_forward(here().logging, TARGET, PORT) as port:
        safe, plain = f"https://127.0.0.1:{port}", f"http://127.0.0.1:{port}"

        def ask(
            url: str, *, auth: tuple[str, str] | None = None, verify: ssl.SSLContext | bool = trusted, body: str = ""
        ) -> str:
            try:
                with httpx.Client(verify=verify, auth=auth, timeout=15, trust_env=False) as client:
                    answer = client.request("POST" if body else "GET", url, content=body or None,
                                            headers={"Content-Type": "application/json"})  # fmt: skip
            except httpx.ConnectError as error:
                return "not trusted" if "CERTIFICATE_VERIFY_FAILED" in str(error) else "no connection"
            except httpx.TransportError:
                return "no answer"
            return str(answer.status_code)

        return {
            "without TLS": ask(plain),
            "with the system CA certificates only": ask(safe, verify=True),
            "without a password": ask(safe),
            "with a wrong password": ask(safe, auth=("elastic", "wrong")),
            "the shipper reads": ask(f"{safe}/logstash-1/_doc/1", auth=shipper),
            "elastic, with the password of the Secret": ask(
                f"{safe}/_cluster/health", auth=("elastic", known.passwords["elastic"].reveal())
            ),
        }


WANTED = {
    "without TLS": "no answer",
    "with the system CA certificates only": "not trusted",
    "without a password": "401",
    "with a wrong password": "401",
    "the shipper reads": "403",
    "elastic, with the password of the Secret": "200",
}


def unguarded(kube: Kube) -> list[str]:
    """The attempts that Elasticsearch does not answer as expected, one line each; empty if there are none."""
    found = attempts(kube)
    return [
        f"Elasticsearch {who}: {found[who]}, expected {answer}"
        for who, answer in WANTED.items()
        if found[who] != answer
    ]
