"""A container registry of the tests' own on the lab's gateway address: Debian's docker-registry, with TLS by a CA made here.

It serves what the lab has built under the official names, so that pulling is tried for real where no public registry is reached.
"""

from __future__ import annotations

import http.server
import json
import shutil
import ssl
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from labtools import ROOT
from stackbook.config.registries import Reference
from stackbook.core.waiting import until

PROGRAM = ROOT / ".venv" / "test-tools" / "usr" / "bin" / "docker-registry"


def certificate(folder: Path, address: str) -> tuple[Path, Path, Path]:
    """A CA and a certificate of it for an address: (CA, certificate, key)."""
    ca, ca_key, cert, key, request = (folder / f"{n}.pem" for n in ("ca", "ca-key", "cert", "key", "request"))
    new = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    days = ["-days", "2"]
    commands = [
        [*new, "-x509", *days, "-subj", "/CN=tests' CA", "-keyout", ca_key, "-out", ca],
        [*new, "-subj", f"/CN={address}", "-addext", f"subjectAltName=IP:{address}", "-keyout", key, "-out", request],
        ["openssl", "x509", "-req", *days, "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial",
         "-copy_extensions", "copy", "-out", cert],
    ]  # fmt: skip
    for command in commands:
        subprocess.run([str(word) for word in command], check=True, capture_output=True, timeout=30)
    return ca, cert, key


@dataclass
class Server:
    """A registry that runs.

    Attributes:
        address: its URL.
        ca: the PEM file that its certificate is signed by.
        storage: where its blobs lie.
        process: its process.
    """

    address: str
    ca: Path
    storage: Path
    process: subprocess.Popen[bytes]
    pushed: dict[str, str] = field(default_factory=dict)

    def push(self, archive: Path, names: dict[str, str]) -> None:
        """Put images of an OCI archive there under other names; `names` is reference in the archive → name here."""
        with (
            tarfile.open(archive) as tar,
            httpx.Client(verify=ssl.create_default_context(cafile=self.ca), timeout=60) as client,
        ):
            index = json.load(_member(tar, "index.json"))
            manifests = {m["annotations"]["io.containerd.image.name"]: m for m in index["manifests"]}
            for reference, official in names.items():
                image = Reference.parse(official)
                url = f"{self.address}/v2/{image.repository}"
                entry = manifests[reference]
                text = _member(tar, _blob(entry["digest"])).read()
                manifest = json.loads(text)
                for part in (manifest["config"], *manifest["layers"]):
                    self._blob(client, url, tar, part["digest"])
                put = client.put(f"{url}/manifests/{image.version}", content=text,
                                 headers={"Content-Type": manifest.get("mediaType", entry["mediaType"])})  # fmt: skip
                assert put.status_code == 201, put.text
                self.pushed[official] = entry["digest"]

    def _blob(self, client: httpx.Client, url: str, tar: tarfile.TarFile, digest: str) -> None:
        if client.head(f"{url}/blobs/{digest}").status_code == 200:
            return
        if (self.storage / digest).exists():  # another repository has it: mounted, not sent again
            mounted = client.post(
                f"{url}/blobs/uploads/", params={"mount": digest, "from": (self.storage / digest).read_text()}
            )
            if mounted.status_code == 201:
                return
        begun = client.post(f"{url}/blobs/uploads/")
        assert begun.status_code == 202, begun.text
        place = begun.headers["Location"]
        sent = client.put(place, params={**httpx.URL(place).params, "digest": digest}, content=_chunks(_member(tar, _blob(digest))),
                          headers={"Content-Type": "application/octet-stream"})  # fmt: skip
        assert sent.status_code == 201, sent.text
        (self.storage / digest).write_text(httpx.URL(url).path.removeprefix("/v2/"))

    def blob(self, digest: str) -> Path:
        """The file in which the server keeps a blob."""
        kind, value = digest.split(":")
        return self.storage / "data/docker/registry/v2/blobs" / kind / value[:2] / value / "data"


def _member(tar: tarfile.TarFile, name: str):
    file = tar.extractfile(name)
    assert file is not None, name
    return file


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _chunks(file) -> Iterator[bytes]:
    while chunk := file.read(1 << 20):
        yield chunk


@contextmanager
def serving(folder: Path, host: str, port: int) -> Iterator[Server]:
    """A registry at https://host:port while the block runs."""
    program = shutil.which("docker-registry") or str(PROGRAM)
    assert Path(program).exists(), f"{PROGRAM} is missing: run STACKBOOK_BROWSER=1 tools/setup.sh"
    ca, cert, key = certificate(folder, host)
    config = {
        "version": "0.1", "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "cache": {"blobdescriptor": "inmemory"}},
        "http": {"addr": f"{host}:{port}", "tls": {"certificate": str(cert), "key": str(key)}},
    }  # fmt: skip
    (folder / "config.yml").write_text(json.dumps(config))
    with (folder / "registry.log").open("wb") as log:
        process = subprocess.Popen([program, "serve", str(folder / "config.yml")], stdout=log, stderr=log)
        server = Server(f"https://{host}:{port}", ca, folder, process)
        try:
            trust = ssl.create_default_context(cafile=ca)
            until(lambda: httpx.get(f"{server.address}/v2/", verify=trust, timeout=5).status_code == 200,
                  what="the registry answers", timeout=20, every=0.2, tolerate=(httpx.HTTPError,),
                  last=lambda: (folder / "registry.log").read_text()[-300:])  # fmt: skip
            yield server
        finally:
            process.terminate()
            process.wait(10)


@contextmanager
def refusing(host: str, port: int, status: int, *, seconds: float = 0.0) -> Iterator[str]:
    """A registry that answers every request with this status, after some seconds; gives its URL."""
    over = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            over.wait(seconds)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Nothing is printed."""

    server = http.server.ThreadingHTTPServer((host, port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{server.server_address[1]}"
    finally:
        over.set()
        server.shutdown()
        server.server_close()
        thread.join(5)
