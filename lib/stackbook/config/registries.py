"""Container registries: whether one has an image, asked as containerd asks, and how machines use mirrors.

The protocol: https://github.com/opencontainers/distribution-spec/blob/main/spec.md; tokens:
https://distribution.github.io/distribution/spec/auth/token/; mirrors of containerd:
https://github.com/containerd/containerd/blob/main/docs/hosts.md.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from stackbook.core.errors import InputError

if TYPE_CHECKING:
    import ssl

    import httpx

CERTS = "/etc/containerd/certs.d"
_MANIFESTS = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
# Registries whose address differs from their name.
_ADDRESSES = {"docker.io": "registry-1.docker.io"}


@dataclass(frozen=True)
class Reference:
    """The parts of an image's full name.

    >>> Reference.parse("docker.io/istio/pilot:1.31.0")
    Reference(registry='docker.io', repository='istio/pilot', version='1.31.0')
    >>> Reference.parse("localhost:5000/x@sha256:" + "0" * 64).version[:9]
    'sha256:00'
    """

    registry: str
    repository: str
    version: str

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Parse a name with registry, repository, and tag or digest.

        Raises:
            InputError: one of them is missing.
        """
        found = re.fullmatch(
            r"(?P<registry>[^/\s]*[.:][^/\s]*)/(?P<path>[^\s@]+?)(?::(?P<tag>[\w.-]+))?(?:@(?P<digest>\S+))?", text
        )
        version = found and (found["digest"] or found["tag"])
        if not found or not version:
            raise InputError(f"{text!r} is not a full image name", fix="write it like docker.io/istio/pilot:1.31.0")
        return cls(found["registry"], found["path"], version)


def full_name(image: str) -> str:
    """The full name of an image that a manifest names by its short name.

    >>> full_name("grafana/grafana:12"), full_name("nginx"), full_name("quay.io/kiali/kiali:v2")
    ('docker.io/grafana/grafana:12', 'docker.io/library/nginx:latest', 'quay.io/kiali/kiali:v2')
    """
    first, slash, _ = image.partition("/")
    if not slash:
        image = f"docker.io/library/{image}"
    elif not re.search(r"[.:]", first) and first != "localhost":
        image = f"docker.io/{image}"
    return image if re.search(r"[:@][^/]+$", image) else f"{image}:latest"


@dataclass(frozen=True)
class Registries:
    """The registry settings of a lab.

    Attributes:
        mirrors: registry → URL of the mirror that replaces it.
        ca: PEM file of a private CA that signed the mirrors' certificates; None for the system's CAs only.
        seconds: deadline for each request.
    """

    mirrors: Mapping[str, str] = field(default_factory=dict)
    ca: Path | None = None
    seconds: float = 4.0

    def address(self, registry: str) -> str:
        """The URL for images of a registry."""
        return self.mirrors.get(registry, f"https://{_ADDRESSES.get(registry, registry)}").rstrip("/")

    def why_not(self, reference: str) -> str:
        """Why the registry cannot serve an image; empty if it can.

        Sends one request, and a second one if the registry requires an anonymous token. Downloads nothing.
        """
        import httpx

        image = Reference.parse(reference)
        address = self.address(image.registry)
        url = f"{address}/v2/{image.repository}/manifests/{image.version}"
        try:
            with httpx.Client(timeout=self.seconds, verify=self._trust(), follow_redirects=True) as client:
                answer = client.head(url, headers={"Accept": _MANIFESTS})
                if answer.status_code == 401 and (token := _token(client, answer)):
                    answer = client.head(url, headers={"Accept": _MANIFESTS, "Authorization": f"Bearer {token}"})
        except (httpx.HTTPError, OSError) as error:
            return f"{address} does not answer ({str(error) or type(error).__name__})"
        return _refusal(answer.status_code, address, image)

    def _trust(self) -> ssl.SSLContext:
        import ssl

        context = ssl.create_default_context()
        if self.ca:
            context.load_verify_locations(self.ca)
        return context

    def hosts_files(self) -> dict[str, str]:
        """Path on a machine → text: the files that make containerd use only the mirrors for a registry's images."""
        files = {}
        for registry, mirror in sorted(self.mirrors.items()):
            # After its mirrors containerd asks `server`, with the settings before the first table. What it says then is the error.
            trust = [f'ca = "{CERTS}/ca.crt"'] if self.ca else []
            lines = [f'server = "{mirror}"', *trust, "", f'[host."{mirror}"]', '  capabilities = ["pull", "resolve"]']
            lines += [f"  {line}" for line in trust]
            files[f"{CERTS}/{registry}/hosts.toml"] = "\n".join(lines) + "\n"
        if self.ca:
            files[f"{CERTS}/ca.crt"] = self.ca.read_text(encoding="ascii")
        return files


def _token(client: httpx.Client, answer: httpx.Response) -> str:
    """The anonymous token that a registry asks for; empty if it requires a login."""
    challenge = answer.headers.get("www-authenticate", "")
    words = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    if not challenge.lower().startswith("bearer") or "realm" not in words:
        return ""
    given = client.get(words.pop("realm"), params=words)
    if given.status_code != 200:
        return ""
    body = given.json()
    return str(body.get("token") or body.get("access_token") or "")


def _refusal(status: int, address: str, image: Reference) -> str:
    name = f"{image.repository}:{image.version}"
    if status == 200:
        return ""
    reasons = {
        401: f"{address} requires a login for {name} (HTTP 401)",
        403: f"{address} refuses {name} (HTTP 403)",
        404: f"{address} has no {name}",
        429: f"{address} limits the rate of requests (HTTP 429)",
    }
    return reasons.get(status, f"{address} answered HTTP {status} for {name}")


def check_mirrors(mirrors: Mapping[str, str]) -> None:
    """Check that containerd can use a table of mirrors.

    Raises:
        ValueError: an entry is invalid; the error says how to write it.
    """
    for registry, mirror in mirrors.items():
        if not re.fullmatch(r"[a-z0-9.-]+(:\d+)?", registry) or not ("." in registry or ":" in registry):
            raise ValueError(f"{registry!r} is not a registry: write it like docker.io")
        parts = urlsplit(mirror)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"the mirror of {registry} is {mirror!r}: write it like https://mirror.example.com")
        if parts.username or parts.password:
            raise ValueError(f"the mirror of {registry} contains a login: use a mirror that needs none")


PROXY_FILE = "/etc/stackbook/proxy.env"
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def proxy_file(environment: Mapping[str, str], inside: Iterable[str]) -> str:
    """The environment file that makes containerd on a machine use this host's proxies; empty if it can use none.

    Args:
        environment: of this process. A proxy on this host's loopback interface is left out, because machines cannot
            reach it.
        inside: addresses, networks and names that bypass the proxy.

    >>> print(proxy_file({"https_proxy": "http://proxy.example.com:3128"}, ["10.0.0.0/8"]), end="")
    HTTPS_PROXY="http://proxy.example.com:3128"
    https_proxy="http://proxy.example.com:3128"
    NO_PROXY="10.0.0.0/8"
    no_proxy="10.0.0.0/8"
    """
    values = {}
    for name in _PROXIES:
        value = environment.get(name) or environment.get(name.upper()) or ""
        if value and for_machines(value):
            values[name] = value
    if not values:
        return ""
    given = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    spared = [*(part.strip() for part in given.split(",") if part.strip()), *inside]
    values["no_proxy"] = ",".join(dict.fromkeys(spared))
    quoted = {name: value.replace("\\", "\\\\").replace('"', '\\"') for name, value in values.items()}
    return "".join(f'{name.upper()}="{value}"\n{name}="{value}"\n' for name, value in quoted.items())


def for_machines(proxy: str) -> bool:
    """Whether machines can reach a proxy of this host; they cannot reach one on its loopback interface.

    >>> for_machines("http://127.0.0.1:3128"), for_machines("http://proxy.example.com:3128")
    (False, True)
    """
    host = urlsplit(proxy if "://" in proxy else f"http://{proxy}").hostname or ""
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host not in ("", "localhost")
