"""Registries: what is asked of them, what each answer means, and what the machines are told of mirrors and proxies."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from stackbook.app.plan import plan
from stackbook.app.runner import run
from stackbook.config.profile import Profile
from stackbook.config.registries import PROXY_FILE, Reference, Registries, for_machines, full_name, proxy_file
from stackbook.core.errors import InputError


class Registry(BaseHTTPRequestHandler):
    """A registry whose repositories are named after what it answers; `asked` has each request."""

    asked: list[tuple[str, str, str]]

    def do_HEAD(self) -> None:
        self.asked.append(("HEAD", self.path, self.headers.get("Authorization", "")))
        name = self.path.split("/")[2]
        if name == "slow":
            time.sleep(1.0)
        status = {"here": 200, "slow": 200, "missing": 404, "busy": 429, "closed": 401, "broken": 503}.get(name, 200)
        if name == "token" and self.headers.get("Authorization") != "Bearer for-pull":
            status = 401
        self.send_response(status)
        if name == "token":
            host, port = self.server.server_address[:2]
            challenge = f'Bearer realm="http://{host}:{port}/token",service="registry",scope="repository:token:pull"'
            self.send_header("WWW-Authenticate", challenge)
        elif name == "closed":
            self.send_header("WWW-Authenticate", 'Basic realm="registry"')
        self.end_headers()

    def do_GET(self) -> None:
        self.asked.append(("GET", self.path, ""))
        body = json.dumps({"token": "for-pull"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is printed."""


@pytest.fixture
def registry() -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    asked: list[tuple[str, str, str]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Registry,), {"asked": asked}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", asked
    server.shutdown()
    server.server_close()
    thread.join(5)


def test_an_image_that_is_there_is_asked_for_once_at_the_mirror(registry) -> None:
    address, asked = registry
    assert Registries({"docker.io": address}).why_not("docker.io/here:1.31.0") == ""
    assert asked == [("HEAD", "/v2/here/manifests/1.31.0", "")]


def test_an_anonymous_token_is_fetched_where_the_registry_wants_one(registry) -> None:
    address, asked = registry
    assert Registries({"docker.io": address}).why_not("docker.io/token:1") == ""
    assert asked[1] == ("GET", "/token?service=registry&scope=repository%3Atoken%3Apull", "")
    assert asked[2] == ("HEAD", "/v2/token/manifests/1", "Bearer for-pull")


@pytest.mark.parametrize(
    ("name", "reason"),
    [("missing", "has no missing:1"), ("busy", "limits the rate of requests (HTTP 429)"),
     ("closed", "requires a login for closed:1 (HTTP 401)"), ("broken", "answered HTTP 503 for broken:1")],
)  # fmt: skip
def test_each_refusal_has_its_reason(registry, name: str, reason: str) -> None:
    address, _ = registry
    assert Registries({"docker.io": address}).why_not(f"docker.io/{name}:1") == f"{address} {reason}"


def test_a_slow_registry_is_given_up_at_the_deadline(registry) -> None:
    """It would answer after a second that it has the image."""
    address, _ = registry
    assert "does not answer" in Registries({"docker.io": address}, seconds=0.3).why_not("docker.io/slow:1")


def test_a_registry_that_is_not_there_says_so() -> None:
    assert "http://127.0.0.1:9 does not answer" in Registries({"docker.io": "http://127.0.0.1:9"}).why_not(
        "docker.io/x:1"
    )


def test_the_registry_of_a_name_is_asked_where_it_is() -> None:
    assert Registries().address("docker.io") == "https://registry-1.docker.io"
    assert Registries().address("quay.io") == "https://quay.io"
    assert Registries({"quay.io": "https://mirror.example.com/"}).address("quay.io") == "https://mirror.example.com"


def test_containerd_asks_the_mirror_and_nobody_else(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_text("-----BEGIN CERTIFICATE-----\n")
    files = Registries({"docker.io": "https://192.168.98.2:5000"}, ca).hosts_files()
    assert files["/etc/containerd/certs.d/ca.crt"] == ca.read_text()
    assert files["/etc/containerd/certs.d/docker.io/hosts.toml"] == (
        'server = "https://192.168.98.2:5000"\nca = "/etc/containerd/certs.d/ca.crt"\n\n'
        '[host."https://192.168.98.2:5000"]\n'
        '  capabilities = ["pull", "resolve"]\n  ca = "/etc/containerd/certs.d/ca.crt"\n'
    )
    assert Registries().hosts_files() == {}


@pytest.mark.parametrize("text", ["pilot:1", "docker.io/pilot", "docker.io/pi lot:1", ""])
def test_a_name_that_is_not_full_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="not a full image name"):
        Reference.parse(text)


def test_short_names_of_manifests() -> None:
    assert Reference.parse(full_name("grafana/grafana:12")).registry == "docker.io"
    assert full_name("nginx@sha256:0") == "docker.io/library/nginx@sha256:0"


@pytest.mark.parametrize(
    ("mirrors", "said"),
    [({"docker.io": "mirror"}, "write it like https://"), ({"docker": "https://m"}, "is not a registry"),
     ({"docker.io": "https://me:word@m"}, "contains a login")],
)  # fmt: skip
def test_a_mirror_that_cannot_be_used_is_refused(mirrors: dict[str, str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Profile.load("embedded", overrides={"registry_mirrors": mirrors})


def test_a_ca_that_is_not_there_is_refused_by_what_asks_a_registry(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    profile = Profile.load(
        "embedded", overrides={"registry_ca": str(file)}
    )  # a reset and a stop go no further than this
    with pytest.raises(InputError, match=r"file .*ca\.pem not found"):
        profile.ca_file()
    file.write_text("-----BEGIN CERTIFICATE-----\n", encoding="utf-8")
    assert profile.ca_file() == file
    assert Profile.load("embedded").ca_file() is None


@pytest.mark.parametrize("start", [run, plan], ids=["run", "plan"])
def test_a_run_and_a_plan_refuse_a_ca_that_is_not_there(start: Any, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("STACKBOOK_STATE", str(tmp_path / "state"))
    with pytest.raises(InputError, match=r"registry_ca: file .*ca\.pem not found"):
        list(start("embedded", only=("00",), parameters={"registry_ca": str(tmp_path / "ca.pem")}))
    assert not (tmp_path / "state").exists()


def test_machines_get_the_proxies_that_they_can_reach() -> None:
    text = proxy_file(
        {"HTTPS_PROXY": 'http://u:p"w@proxy.example.com:1', "no_proxy": "a.example.com, "}, ["10.0.0.0/12"]
    )
    assert 'https_proxy="http://u:p\\"w@proxy.example.com:1"' in text.splitlines()
    assert 'NO_PROXY="a.example.com,10.0.0.0/12"' in text.splitlines()
    assert proxy_file({"https_proxy": "http://localhost:3128", "no_proxy": "x"}, []) == ""
    assert not for_machines("127.0.0.2:3128")
    assert PROXY_FILE.startswith("/etc/stackbook/")
