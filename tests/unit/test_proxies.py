"""Behind an HTTP proxy the lab is asked directly, by every client, and downloads are not: a real proxy on this host counts."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import shutil
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import requests
from stackbook.artifacts import downloads
from stackbook.cluster.kube import Kube
from stackbook.config import proxies
from stackbook.config.profile import Profile
from stackbook.config.registries import Registries
from stackbook.core.redact import Secret
from stackbook.lab.lab import Lab
from stackbook.lessons.delivery.gitea import Gitea
from stackbook.observability.metrics.client import Prometheus
from stackbook.observability.tracing import Jaeger

LIBRARY = Path(proxies.__file__).parents[1]
NODES = [{"name": "k8s-master", "address": "127.0.0.3"}, {"name": "k8s-node1", "address": "127.0.0.4"}]
# A lab whose machines are addresses of this host's loopback interface.
HERE = {"subnet": "127.0.0.0/24", "gateway": "127.0.0.2", "nodes": NODES}
BODY = b"what is downloaded"


class Answers(BaseHTTPRequestHandler):
    """Answers everything, and keeps what was asked."""

    asked: list[str]
    body = json.dumps({"status": "success", "data": {"resultType": "vector", "result": []}, "items": []}).encode()

    def do_GET(self) -> None:
        self.asked.append(self.path)
        body = BODY if self.path.endswith("/file") else self.body
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Elastic-Product", "Elasticsearch")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_CONNECT = do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def listening(address: str) -> Iterator[tuple[int, list[str]]]:
    """A server on an address; gives its port and what it was asked."""
    asked: list[str] = []
    server = ThreadingHTTPServer((address, 0), type("Handler", (Answers,), {"asked": asked}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port, asked
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What the host's proxy was asked for."""
    with listening("127.0.0.1") as (port, asked):
        for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
            for name_ in (name, name.upper()):
                monkeypatch.delenv(name_, raising=False)
                if name != "no_proxy" and name_ != "HTTP_PROXY":  # curl does not read that one
                    monkeypatch.setenv(name_, f"http://127.0.0.1:{port}")
        monkeypatch.setenv("no_proxy", "intranet.example.com")
        yield asked


def by_kubernetes(address: str, port: int, folder: Path) -> None:
    config = folder / "kubeconfig"
    config.write_text(json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        "clusters": [{"name": "here", "cluster": {"server": f"http://{address}:{port}"}}],
        "users": [{"name": "me", "user": {}}],
    }))  # fmt: skip
    assert Kube(config).api.list_node().items == []


def by_elasticsearch(address: str, port: int, folder: Path) -> None:
    import elasticsearch

    with elasticsearch.Elasticsearch(f"http://{address}:{port}") as client:
        client.cluster.health()


def by_jaeger(address: str, port: int, folder: Path) -> None:
    kube: Any = SimpleNamespace(port_forward=lambda *_, **__: contextlib.nullcontext(port))
    with Jaeger(kube) as jaeger:
        jaeger._connect().get("/api/services")


def by_gitea(address: str, port: int, folder: Path) -> None:
    server = Gitea(f"http://{address}:{port}", folder, None, Secret("not a real one"))  # type: ignore[arg-type]
    assert server.client().get("/api/healthz").status_code == 200


def by_curl(address: str, port: int, folder: Path) -> None:
    subprocess.run(["curl", "-sSf", "-o", "/dev/null", f"http://{address}:{port}/"], check=True)


BY_ENVIRONMENT: list[Callable[[str, int, Path], object]] = [
    by_kubernetes,
    by_curl,
    lambda address, port, _: urllib.request.build_opener().open(f"http://{address}:{port}/").close(),
    lambda address, port, _: requests.get(f"http://{address}:{port}/", timeout=10),
    lambda address, port, _: httpx.get(f"http://{address}:{port}/"),
]
BY_LIBRARY: list[Callable[[str, int, Path], object]] = [
    by_elasticsearch,
    by_jaeger,
    by_gitea,
    lambda address, port, _: Prometheus(f"http://{address}:{port}")._get("targets"),
    lambda address, port, _: Prometheus(f"http://{address}:{port}")._ask("custom_query", "up"),
]


@pytest.mark.slow
@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "127.0.0.3"])
def test_no_client_asks_the_lab_through_the_proxy(address: str, proxy: list[str], home: Path) -> None:
    profile = home / "here.yaml"
    profile.write_text(json.dumps(HERE), encoding="utf-8")
    Lab.open("00-preflight", str(profile))
    with listening(address) as (port, asked):
        clients = [*BY_ENVIRONMENT, *(c for c in BY_LIBRARY if c is not by_jaeger or address == "127.0.0.1")]
        for number, client in enumerate(clients, start=1):
            if client is by_curl and not shutil.which("curl"):
                asked.append("")
                continue
            client(address, port, home)
            assert proxy == [] and len(asked) >= number


@pytest.mark.parametrize("client", BY_ENVIRONMENT)
def test_without_it_the_proxy_would_be_asked(
    client: Callable[[str, int, Path], object], proxy: list[str], tmp_path: Path
) -> None:
    """The control: these are clients that go by the environment."""
    if client is by_curl and not shutil.which("curl"):
        pytest.skip("no curl here")
    with listening("127.0.0.3") as (port, asked):
        client("127.0.0.3", port, tmp_path)
    assert asked == [] and len(proxy) == 1


def test_downloads_and_registries_are_asked_through_the_proxy(proxy: list[str], tmp_path: Path) -> None:
    proxies.spare(Profile())
    url = "http://downloads.invalid/file"
    downloads.download(
        url=url, partial=tmp_path / "part", sha256=hashlib.sha256(BODY).hexdigest(), job="x", report=lambda _: None,
        cancel=threading.Event(), attempts=1,
    )  # fmt: skip
    assert proxy == [url]
    assert Registries({"docker.io": "http://mirror.invalid"}).why_not("docker.io/library/x:1") == ""
    assert proxy[1:] == ["http://mirror.invalid/v2/library/x/manifests/1"]


@pytest.mark.slow
def test_whoever_the_library_builds_to_ask_the_lab_by_httpx_does_not_look_at_the_environment() -> None:
    outside = {LIBRARY / "config" / "registries.py", *(LIBRARY / "artifacts").rglob("*.py")}
    calls = [
        (path.name, node)
        for path in LIBRARY.rglob("*.py")
        if path not in outside
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("httpx.")
        and ast.unparse(node.func).partition(".")[2] in ("Client", "get", "post", "put", "head", "request", "stream", "delete")
    ]  # fmt: skip
    assert len(calls) >= 8
    assert [f"{name}:{c.lineno}" for name, c in calls if "trust_env=False" not in ast.unparse(c)] == []


def test_what_the_user_has_excepted_stays_and_twice_is_as_once() -> None:
    environment = {"NO_PROXY": "a.example.com, b.example.com", "no_proxy": "c.example.com"}
    proxies.spare(Profile(), environment)
    once = dict(environment)
    proxies.spare(Profile(), environment)
    assert environment == once and once["no_proxy"] == once["NO_PROXY"]
    parts = once["no_proxy"].split(",")
    assert parts[:3] == ["c.example.com", "a.example.com", "b.example.com"] and len(parts) == len(set(parts))
    assert {"k8s-node1", "192.168.98.4", "192.168.98.2", "10.0.0.1", ".svc", "::1", "127.0.0.0/8"} <= set(parts)
    everything = {"no_proxy": "*"}
    proxies.spare(Profile(), everything)
    assert everything == {"no_proxy": "*", "NO_PROXY": "*"}


def test_an_existing_cluster_may_stand_behind_the_proxy() -> None:
    assert proxies.inside(Profile(target="cluster")) == [
        "localhost", "127.0.0.1", "::1", "127.0.0.0/8", ".svc", ".cluster.local",
    ]  # fmt: skip
