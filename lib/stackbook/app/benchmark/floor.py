"""The floor: the steps of chapters 00 to 05 by bare commands, as fast as they go."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from stackbook.app.benchmark.marks import BOOKINFO, READY
from stackbook.artifacts.resolver import Resolver
from stackbook.cluster import kubeadm
from stackbook.cluster.kubeconfig import write_kubeconfig
from stackbook.core import paths
from stackbook.core.errors import StackbookError
from stackbook.core.waiting import pause
from stackbook.lab.lab import Lab
from stackbook.lessons.flannel import backend_comparison
from stackbook.machines.providers.podman import Embedded
from stackbook.machines.transports import LocalHost, Text
from stackbook.mesh import bookinfo, install, istio


class Floor:
    """The bare commands; `phases` has the seconds of each phase."""

    def __init__(self, profile: str) -> None:
        self.lab = Lab.open("05-istio", profile)
        self.provider = Embedded(self.lab.profile)
        self.phases: dict[str, float] = {}
        self.start = time.monotonic()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure a phase."""
        begin = time.monotonic()
        yield
        self.phases[name] = round(time.monotonic() - begin, 2)

    def _sh(
        self, *argv: str, stdin: Text | None = None, env: dict[str, str] | None = None, secret: bool = False
    ) -> str:
        return LocalHost().run(argv, stdin=stdin, timeout=300, env=env, secret=secret).reveal()

    def _in(self, node: str, *argv: str, stdin: Text | None = None, secret: bool = False) -> str:
        inside = [*self.provider.podman, "exec", *(["-i"] if stdin is not None else []), self.provider.container(node)]
        return self._sh(*inside, *argv, stdin=stdin, secret=secret)

    def _kubectl(self, *argv: str, stdin: str | None = None) -> str:
        return self._sh(str(self.lab.artifacts.path("kubectl")), *argv, stdin=stdin,
                        env={"KUBECONFIG": str(self.lab.state / "kubeconfig")})  # fmt: skip

    def run(self) -> dict[str, float]:
        """Run every step; returns the seconds from the start to the two marks."""
        nodes = [n.name for n in self.lab.profile.nodes]
        with self.phase("machines"):
            self._machines()
        with self.phase("prepare"):
            self._prepare(nodes)
        with self.phase("images"):
            self._images(nodes)
        with self.phase("init"):
            self._init(nodes[0])
        with self.phase("join"):
            self._join(nodes)
        with self.phase("flannel, Ready, DNS"):
            self._flannel(nodes)
        marks = {READY: round(time.monotonic() - self.start, 2)}
        with self.phase("istio"):
            self._istio(nodes)
        with self.phase("bookinfo"):
            self._bookinfo()
        marks[BOOKINFO] = round(time.monotonic() - self.start, 2)
        return marks

    def _machines(self) -> None:
        profile, podman = self.lab.profile, self.provider.podman
        tag = f"localhost/stackbook/machine:{Resolver.open().digest('machine-rootfs')[:16]}"
        label = f"stackbook.lab={profile.lab}"
        self._sh(*podman, "network", "create", "--label", label, "--subnet", profile.subnet, "--gateway",
                 profile.gateway, self.provider.network)  # fmt: skip
        for node in profile.nodes:
            self._sh(*podman, "run", "-d", *self.provider.run_flags(node), tag, "/sbin/init")

    def _prepare(self, nodes: list[str]) -> None:
        self._until(lambda: all(self._booted(n) for n in nodes), "machines have booted")
        pause_image = self.lab.images.reference("pause")
        for number, node in enumerate(nodes):
            programs = kubeadm.BINARIES if number == 0 else kubeadm.BINARIES[:2]
            for name in programs:
                inside = self.lab.artifacts.path(name).resolve().relative_to(paths.cache().resolve())
                self._in(node, "install", "-m", "755", f"/opt/stackbook/{inside}", f"/usr/bin/{name}")
            self._write(node, "/etc/containerd/config.toml", kubeadm.containerd_config(pause_image, contained=True))
            self._write(node, "/usr/lib/systemd/system/kubelet.service", kubeadm.KUBELET_UNIT)
            self._write(node, "/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf", kubeadm.KUBEADM_DROP_IN)
            self._in(node, "sysctl", "-w", "net.ipv4.ip_forward=1")
            self._write(node, "/etc/systemd/resolved.conf.d/lab.conf", f"[Resolve]\nDNS={self.lab.profile.gateway}\n")
            self._in(node, "systemctl", "restart", "systemd-resolved")
            self._in(
                node, "sh", "-c", "systemctl daemon-reload && systemctl enable kubelet && systemctl restart containerd"
            )

    def _booted(self, node: str) -> bool:
        answer = subprocess.run([*self.provider.podman, "exec", self.provider.container(node), "systemctl",
                                 "is-system-running"], capture_output=True, text=True, check=False)  # fmt: skip
        return answer.stdout.strip() in ("running", "degraded")

    def _write(self, node: str, path: str, text: str) -> None:
        self._in(node, "sh", "-c", 'mkdir -p "$(dirname "$1")" && cat > "$1"', "w", path, stdin=text)

    def _import(self, bundle: str, nodes: list[str]) -> None:
        """Pull or import a bundle's images, each from the source that the lab uses for it."""
        cache = paths.cache().resolve()
        archives = [a.resolve().relative_to(cache) for a in self.lab.images.archives([bundle])]
        for node in nodes:
            for reference in self.lab.images.references_to_pull([bundle]):
                self._in(node, "ctr", "-n", "k8s.io", "images", "pull", reference)
            for archive in archives:
                self._in(node, "ctr", "-n", "k8s.io", "images", "import", f"/opt/stackbook/{archive}")

    def _images(self, nodes: list[str]) -> None:
        self._import("control-plane", nodes[:1])
        self._import("worker", nodes[1:])
        self._import("node", nodes)

    def _init(self, node: str) -> None:
        config = kubeadm.init_config(
            self.lab.profile, self.lab.images.kubeadm, cgroup_v1=self._v1(node), contained=True
        )
        self._write(node, "/etc/stackbook/patches/corednsdeployment+strategic.yaml", kubeadm.DNS_PATCH)
        self._write(node, kubeadm.CONFIG, config)
        self._in(node, "kubeadm", "init", "--config", kubeadm.CONFIG, "--skip-token-print")
        text = self._in(node, "cat", "/etc/kubernetes/admin.conf", secret=True)
        write_kubeconfig(text, self.lab.state / "kubeconfig")

    def _v1(self, node: str) -> bool:
        return self._in(node, "stat", "-fc", "%T", "/sys/fs/cgroup").strip() != "cgroup2fs"

    def _join(self, nodes: list[str]) -> None:
        said = self._in(nodes[0], "kubeadm", "token", "create", "--print-join-command", secret=True)
        token, digest = kubeadm.parsed(said)
        for node in nodes[1:]:
            config = kubeadm.join_config(
                node, token, digest, self.lab.profile, self.lab.images.kubeadm, cgroup_v1=self._v1(node)
            )
            self._in(
                node, "sh", "-c", f"umask 077; mkdir -p {Path(kubeadm.JOIN).parent}; cat > {kubeadm.JOIN}", stdin=config
            )
            try:
                self._in(node, "kubeadm", "join", "--config", kubeadm.JOIN)
            finally:
                self._in(node, "rm", "-f", kubeadm.JOIN)

    def _flannel(self, nodes: list[str]) -> None:
        self._kubectl("apply", "-f", "-", stdin=backend_comparison.manifest(self.lab, self.lab.profile.flannel_backend))
        self._kubectl("wait", "--for=condition=Ready", "nodes", "--all", "--timeout=180s")
        ask = ["busybox", "nslookup", "kubernetes.default.svc.cluster.local", self.lab.profile.dns_address]
        self._until(lambda: self.lab.profile.service_address in self._try(nodes[-1], *ask), "DNS answers")

    def _try(self, node: str, *argv: str) -> str:
        return subprocess.run([*self.provider.podman, "exec", self.provider.container(node), *argv],
                              capture_output=True, text=True, timeout=30, check=False).stdout  # fmt: skip

    def _istio(self, nodes: list[str]) -> None:
        self._import("istio", nodes)
        path = self.lab.state / "floor-operator.yaml"
        path.write_text(istio.operator(self.lab.profile.istio_profile, install.source(self.lab)), encoding="utf-8")
        self._sh(str(self.lab.artifacts.path("istioctl")), "install", "-f", str(path), "-y",
                 env={"KUBECONFIG": str(self.lab.state / "kubeconfig")})  # fmt: skip
        self._kubectl(
            "-n", istio.NAMESPACE, "wait", "--for=condition=Available", "deployment", "--all", "--timeout=180s"
        )

    def _bookinfo(self) -> None:
        self._import("apps", [n.name for n in self.lab.profile.nodes])
        self._kubectl("label", "namespace", "default", "istio-injection=enabled", "--overwrite")
        self._kubectl("apply", "-f", "-", stdin=bookinfo.manifest(self.lab))
        self._kubectl("wait", "--for=condition=Available", "deployment", "--all", "--timeout=180s")
        self._kubectl("wait", "--for=condition=Ready", "pod", "-l", bookinfo.SELECTOR, "--timeout=180s")

    def _until(self, check: Callable[[], bool], what: str) -> None:
        for _ in range(600):
            if check():
                return
            pause(0.2)
        raise StackbookError(f"the bare commands timed out waiting until {what}")
