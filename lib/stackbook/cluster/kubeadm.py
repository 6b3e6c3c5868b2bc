"""Kubernetes on machines by kubeadm: preparing a machine, init, join.

Sources: kubeadm's configuration API v1beta4 (https://kubernetes.io/docs/reference/config-api/kubeadm-config.v1beta4/)
and the packages' own unit files (https://github.com/kubernetes/release/tree/master/cmd/krel/templates/latest).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stackbook.config.profile import Profile
from stackbook.config.registries import CERTS, PROXY_FILE, Registries
from stackbook.core.errors import CommandFailed, StackbookError
from stackbook.core.redact import Secret
from stackbook.core.waiting import until
from stackbook.machines import facts, operations
from stackbook.machines.operations import Command, Operation, command
from stackbook.machines.transports import Host

SOCKET = "unix:///run/containerd/containerd.sock"
# What kubeadm 1.36 names where nothing else is said; containerd has to be told (K17).
DEFAULT_PAUSE = "registry.k8s.io/pause:3.10.2"
CONFIG = "/etc/stackbook/kubeadm.yaml"
JOIN = "/run/stackbook/join.yaml"
PATCHES = "/etc/stackbook/patches"
# CoreDNS is asked every second whether it is ready, not every ten: a cluster answers names that much sooner.
DNS_PATCH = """\
spec:
  template:
    spec:
      containers:
      - name: coredns
        readinessProbe:
          periodSeconds: 1
"""
SYSCTLS = {
    "net.ipv4.ip_forward": "1",
    "net.bridge.bridge-nf-call-iptables": "1",
    "net.bridge.bridge-nf-call-ip6tables": "1",
}
MODULES = ("overlay", "br_netfilter")
BINARIES = ("kubelet", "kubeadm", "kubectl")

KUBELET_UNIT = """\
[Unit]
Description=kubelet: The Kubernetes Node Agent
Documentation=https://kubernetes.io/docs/
Wants=network-online.target
After=network-online.target

[Service]
ExecStart=/usr/bin/kubelet
Restart=always
StartLimitInterval=0
RestartSec=1

[Install]
WantedBy=multi-user.target
"""

KUBEADM_DROP_IN = """\
# Read by kubeadm init and kubeadm join: they write the two files named here.
[Service]
Environment="KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf \
--kubeconfig=/etc/kubernetes/kubelet.conf"
Environment="KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml"
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
EnvironmentFile=-/etc/default/kubelet
ExecStart=
ExecStart=/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS
"""


@dataclass(frozen=True)
class Images:
    """Where kubeadm's images come from.

    Args:
        repository: prefix of the images, for `--image-repository`.
        preloaded: they are on each machine before kubeadm runs, and the kubelet asks no registry.
        pause: reference of the sandbox image, which `--image-repository` does not reach (K17).
        etcd, dns: references of etcd's and CoreDNS' images; empty for kubeadm's defaults.
    """

    repository: str = "registry.k8s.io"
    preloaded: bool = False
    pause: str = ""
    etcd: str = ""
    dns: str = ""


def containerd_config(pause: str, *, contained: bool) -> str:
    """Containerd's configuration (format 2, which containerd 2.x still reads).

    Args:
        pause: reference of the sandbox image.
        contained: the machine is a container itself, which may neither lower oom scores nor load AppArmor profiles.
    """
    lines = ["version = 2", "", '[plugins."io.containerd.grpc.v1.cri"]', f'  sandbox_image = "{pause}"']
    if contained:
        lines += ["  restrict_oom_score_adj = true", "  disable_apparmor = true"]
    # containerd 2's defaults: a container that is not root's may use port 80 and ping, in its own network namespace.
    lines += ["  enable_unprivileged_ports = true", "  enable_unprivileged_icmp = true"]
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    runc = f"{cri}.containerd.runtimes.runc"
    lines += ["", f"[{cri}.registry]", f'  config_path = "{CERTS}"']
    lines += ["", f"[{cri}.cni]", '  bin_dir = "/opt/cni/bin"', '  conf_dir = "/etc/cni/net.d"']
    lines += ["", f"[{runc}]", '  runtime_type = "io.containerd.runc.v2"']
    lines += ["", f"[{runc}.options]", "  SystemdCgroup = true", ""]
    return "\n".join(lines)


def runtime(
    pause: str, *, contained: bool, registries: Registries | None = None, proxies: str = ""
) -> Operation:  # fmt: skip
    """Containerd runs with the systemd cgroup driver and the lab's sandbox image, and knows mirrors and proxies.

    Args:
        pause: reference of the sandbox image.
        contained: see `containerd_config`.
        registries: whose mirrors are asked; none when None.
        proxies: the environment file of the proxies (`registries.proxy_file`); empty for none. Only root may read it, as a
            proxy's address may hold a password.
    """
    files = dict((registries or Registries()).hosts_files())
    if proxies:
        files["/etc/systemd/system/containerd.service.d/proxy.conf"] = f"[Service]\nEnvironmentFile=-{PROXY_FILE}\n"

    def operation(host: Host) -> Iterator[Command]:
        text = containerd_config(pause, contained=contained)
        changed = facts.text_file("/etc/containerd/config.toml").read(host) != text
        if changed:
            yield Command(path="/etc/containerd/config.toml", text=text)
        for path, wanted in files.items():  # hosts.toml is read anew at each pull
            yield from operations.file(path, wanted)(host)
        if facts.text_file(PROXY_FILE).read(host) != proxies:
            yield Command(path=PROXY_FILE, text=proxies, mode=0o600)
            yield command("systemctl", "daemon-reload")
            changed = True
        yield from cni_plugins()(host)
        state, at_boot = facts.unit_state("containerd").read(host)
        if at_boot != "enabled":
            yield command("systemctl", "enable", "containerd")
        if changed or state != "active":
            yield command("systemctl", "restart", "containerd")

    return operation


def cni_plugins() -> Operation:
    """The CNI plugins are where containerd looks for them: Debian's package puts them elsewhere."""

    def operation(host: Host) -> Iterator[Command]:
        if not host.run(["test", "-x", "/opt/cni/bin/bridge"], check=False).ok:
            yield command("sh", "-c", "mkdir -p /opt/cni/bin && cp /usr/lib/cni/* /opt/cni/bin/")

    return operation


def kubelet_service() -> Operation:
    """The kubelet's unit as the packages of the project install it."""

    def operation(host: Host) -> Iterator[Command]:
        written = [
            *operations.file("/usr/lib/systemd/system/kubelet.service", KUBELET_UNIT)(host),
            *operations.file("/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf", KUBEADM_DROP_IN)(host),
        ]
        yield from written
        if written:
            yield command("systemctl", "daemon-reload")
        if facts.unit_state("kubelet").read(host)[1] != "enabled":
            yield command("systemctl", "enable", "kubelet")

    return operation


def version_of(host: Host, program: str) -> str:
    """The version of kubeadm, kubelet or kubectl on a machine, without the v; empty when it is not there."""
    argv = {
        "kubeadm": ["kubeadm", "version", "-o", "short"],
        "kubelet": ["kubelet", "--version"],
        "kubectl": ["kubectl", "version", "--client", "-o", "json"],
    }[program]
    answer = host.run(argv, check=False)
    found = re.search(r"v(\d+\.\d+\.\d+)", answer.stdout)
    return found.group(1) if answer.ok and found else ""


def install(host: Host, binaries: Mapping[str, Path], version: str) -> list[str]:
    """Put the programs on a machine where they are missing or of another version; returns those that were put.

    Raises:
        CommandFailed: a program does not say the expected version after it was put there.
    """
    done = []
    for name, local in binaries.items():
        if version_of(host, name) != version:
            host.put(local, f"/usr/bin/{name}", mode=0o755)
            done.append(name)
            if (seen := version_of(host, name)) != version:
                raise StackbookError(f"{name} on {host.name} says version {seen or 'nothing'}, not {version}")
    return done


def init_config(profile: Profile, images: Images, *, cgroup_v1: bool, contained: bool) -> str:
    """Kubeadm's configuration for `kubeadm init`: the guide's options and what today's versions need besides.

    >>> from stackbook.config.profile import Profile
    >>> "advertiseAddress: 192.168.98.3" in init_config(Profile(), Images(), cgroup_v1=False, contained=True)
    True
    """
    api = "kubeadm.k8s.io/v1beta4"
    node = profile.control_plane
    cluster: dict[str, Any] = {
        "apiVersion": api,
        "kind": "ClusterConfiguration",
        "kubernetesVersion": f"v{profile.kubernetes_version}",
        "imageRepository": images.repository,
        "networking": {"podSubnet": profile.pod_cidr, "serviceSubnet": profile.service_cidr},
    }
    if images.etcd:
        cluster["etcd"] = {"local": _image(images.etcd, images.repository)}
    if images.dns:
        cluster["dns"] = _image(images.dns, images.repository)
    init = {
        "apiVersion": api,
        "kind": "InitConfiguration",
        "localAPIEndpoint": {"advertiseAddress": node.address, "bindPort": 6443},
        "nodeRegistration": _registration(node.name, images, cgroup_v1=cgroup_v1),
        "patches": {"directory": PATCHES},
    }
    kubelet: dict[str, Any] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "cgroupDriver": "systemd",
    }
    if cgroup_v1:
        kubelet["failCgroupV1"] = False
    if _at_least(profile.kubernetes_version, (1, 35)):  # containers are killed here on purpose, again and again
        kubelet["crashLoopBackOff"] = {"maxContainerRestartPeriod": "2s"}
    if contained:  # the host may swap, and a machine that is a container cannot and must not change that
        kubelet["failSwapOn"] = False
    proxy: dict[str, Any] = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
    }
    if contained:  # /proc/sys/net/netfilter/nf_conntrack_max belongs to the host: leave it alone
        proxy["conntrack"] = {"maxPerCore": 0}
    return yaml.safe_dump_all([init, cluster, kubelet, proxy], sort_keys=False)


def _image(reference: str, repository: str) -> dict[str, str]:
    """An image as kubeadm's configuration has it; the repository only where it is not that of the others.

    >>> _image("quay.io/coreos/etcd:v3.7.2", "registry.k8s.io")
    {'imageRepository': 'quay.io/coreos', 'imageTag': 'v3.7.2'}
    """
    name, _, tag = reference.rpartition(":")
    prefix = name.rpartition("/")[0]
    return {**({} if prefix == repository else {"imageRepository": prefix}), "imageTag": tag}


def _at_least(version: str, wanted: tuple[int, int]) -> bool:
    """Whether a version such as "1.36.3" is as new as (1, 36)."""
    major, minor = version.split(".")[:2]
    return (int(major), int(minor)) >= wanted


def _registration(name: str, images: Images, *, cgroup_v1: bool) -> dict[str, Any]:
    return {
        "name": name,
        "criSocket": SOCKET,
        "imagePullPolicy": "Never" if images.preloaded else "IfNotPresent",
        "ignorePreflightErrors": ["SystemVerification"] if cgroup_v1 else [],
    }


def initialised(host: Host) -> bool:
    """Whether kubeadm init has completed on this machine: it writes admin.conf early and the ConfigMap last."""
    probe = [
        "kubectl",
        "--kubeconfig=/etc/kubernetes/admin.conf",
        "-n",
        "kube-system",
        "get",
        "configmap",
        "kube-proxy",
    ]
    return host.run(["test", "-s", "/etc/kubernetes/admin.conf"], check=False).ok and host.run(probe, check=False).ok


def joined(host: Host) -> bool:
    """Whether kubeadm join has completed: the kubelet has its own certificate."""
    return host.run(["test", "-s", "/etc/kubernetes/kubelet.conf"], check=False).ok


def kubeadm_init(host: Host, config: str, *, timeout: float = 240.0) -> int:
    """Run `kubeadm init` unless it has completed; a half-done one is reset first. Returns the number of changes.

    Raises:
        CommandFailed: kubeadm failed; the message ends with what the kubelet said last.
    """
    if initialised(host):
        return 0
    if host.run(["test", "-e", "/etc/kubernetes/manifests/kube-apiserver.yaml"], check=False).ok:
        host.run(["kubeadm", "reset", "-f", "--cri-socket", SOCKET], timeout=120)
    host.write(CONFIG, config, mode=0o600)
    host.write(f"{PATCHES}/corednsdeployment+strategic.yaml", DNS_PATCH)
    # Its output holds the token of the join command, which lives for a day: kept out of every record.
    _explained(host, ["kubeadm", "init", "--config", CONFIG, "--skip-token-print"], timeout)
    return 1


def join_command(control_plane: Host) -> tuple[Secret, str]:
    """A fresh bootstrap token and the hash of the cluster's CA, from `kubeadm token create --print-join-command`."""
    text = control_plane.run(
        ["kubeadm", "token", "create", "--ttl", "30m", "--print-join-command"], secret=True, timeout=60
    ).reveal()
    token, digest = parsed(text)
    _wait_signed(control_plane, token)
    return token, digest


def parsed(text: str) -> tuple[Secret, str]:
    """The token and the hash of the CA out of the join command that kubeadm prints."""
    token = re.search(r"--token (\S+)", text)
    digest = re.search(r"--discovery-token-ca-cert-hash (sha256:[0-9a-f]{64})", text)
    if not token or not digest:
        raise StackbookError("kubeadm token create did not print a join command")
    return Secret(token.group(1)), digest.group(1)


def _wait_signed(control_plane: Host, token: Secret) -> None:
    """Wait until the cluster's public description is signed with a new token.

    kubeadm join asks for that signature every five seconds; asked too soon, it sleeps through it.
    """
    name = f"jws-kubeconfig-{token.reveal().partition('.')[0]}"
    ask = [
        "kubectl",
        "--kubeconfig=/etc/kubernetes/admin.conf",
        "-n",
        "kube-public",
        "get",
        "configmap",
        "cluster-info",
    ]
    until(
        lambda: name in control_plane.run([*ask, "-o", "yaml"], secret=True).reveal(),
        what="the controller manager has signed cluster-info with the new token",
        timeout=60,
        every=0.2,
    )


def kubeadm_join(
    host: Host,
    control_plane: Host,
    profile: Profile,
    images: Images,
    *,
    cgroup_v1: bool,
    timeout: float = 180.0,
) -> int:
    """Run `kubeadm join` unless it has completed; a half-done one is reset first. Returns the number of changes.

    The token goes to the machine in a file that only root reads, which is removed afterwards, never in a command line.
    """
    if joined(host):
        return 0
    if host.run(["test", "-e", "/etc/kubernetes/bootstrap-kubelet.conf"], check=False).ok:
        host.run(["kubeadm", "reset", "-f", "--cri-socket", SOCKET], timeout=120)
    token, digest = join_command(control_plane)
    host.write(JOIN, join_config(host.name, token, digest, profile, images, cgroup_v1=cgroup_v1), mode=0o600)
    try:
        _explained(host, ["kubeadm", "join", "--config", JOIN], timeout)
    finally:
        host.run(["rm", "-f", JOIN])
    return 1


def join_config(name: str, token: Secret, digest: str, profile: Profile, images: Images, *, cgroup_v1: bool) -> Secret:
    """Kubeadm's configuration for `kubeadm join`: the way for the token, which everybody could read on a command line."""
    config = {
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "JoinConfiguration",
        "discovery": {
            "bootstrapToken": {
                "apiServerEndpoint": f"{profile.control_plane.address}:6443",
                "token": token.reveal(),
                "caCertHashes": [digest],
            }
        },
        "nodeRegistration": _registration(name, images, cgroup_v1=cgroup_v1),
    }
    return Secret(json.dumps(config), remember=False)


def _explained(host: Host, argv: list[str], timeout: float) -> None:
    """Run kubeadm; when it fails, say what the kubelet and the containers said, which is where the reason is."""
    try:
        host.run(argv, timeout=timeout)
    except CommandFailed as error:
        said = host.run(
            ["journalctl", "-m", "-u", "kubelet", "--no-pager", "-n", "40", "-o", "cat"], check=False
        ).stdout
        last = [line for line in said.splitlines() if re.search(r"^E|[Ff]ailed|[Ee]rror", line)][-3:]
        fix = f"the kubelet said: {' | '.join(last)}" if last else "see `journalctl -u kubelet` on the machine"
        raise CommandFailed(error.result, fix=fix) from None


FISHER: list[dict[str, str]] = [
    {"the guide": "curl https://git.io/fisher …", "today": "git.io is frozen; curl -sL …/fisher.fish | source"},
    {"the guide": "source …/fisher.fish", "today": "not needed: fish loads its functions folder by itself"},
    {"the guide": "fisher add evanlucas/fish-kubectl-completions", "today": "fisher install …; kubectl completion fish replaces it"},
]  # fmt: skip


def packages(version: str) -> list[dict[str, str]]:
    """The commands that install the three programs from the project's packages, in order, for a version like 1.36.3."""
    minor = ".".join(version.split(".")[:2])
    key = "/etc/apt/keyrings/kubernetes-apt-keyring.gpg"
    site = f"https://pkgs.k8s.io/core:/stable:/v{minor}/deb/"
    pins = " ".join(f"{name}='{version}-*'" for name in BINARIES)
    return [
        {"for": "the key", "command": f"curl -fsSL {site}Release.key | sudo gpg --dearmor -o {key}"},
        {"for": "the source", "command": f"deb [signed-by={key}] {site} /"},
        {"for": "the lists", "command": "sudo apt-get update"},
        {"for": "the programs, pinned", "command": f"sudo apt-get install -y {pins}"},
        {"for": "no surprise upgrade", "command": "sudo apt-mark hold kubelet kubeadm kubectl"},
    ]


def image_list(host: Host, version: str, repository: str) -> list[str]:
    """The images that `kubeadm init` would use, from `kubeadm config images list`."""
    return host.run(
        ["kubeadm", "config", "images", "list", "--kubernetes-version", f"v{version}", "--image-repository", repository]
    ).lines


def sandbox_image(host: Host) -> str:
    """The pause image that containerd starts for each pod, from its effective configuration."""
    dump = host.run(["containerd", "config", "dump"], timeout=30).stdout
    found = re.search(r"^\s*sandbox(?:_image)? = [\"'](.+?)[\"']", dump, re.MULTILINE)
    return found.group(1) if found else ""


def cluster_part(config: str) -> str:
    """The ClusterConfiguration in kubeadm's file: no secret is in it."""
    parts = [d for d in yaml.safe_load_all(config) if d["kind"] == "ClusterConfiguration"]
    return yaml.safe_dump(parts[0], sort_keys=False).rstrip()


def lease_ages(kube: Any) -> dict[str, float]:
    """Seconds since each kubelet renewed its lease, by node."""
    from datetime import datetime, timezone

    ages = {}
    for lease in kube.json("get", "leases", "-n", "kube-node-lease")["items"]:
        renewed = datetime.fromisoformat(lease["spec"]["renewTime"].replace("Z", "+00:00"))
        ages[lease["metadata"]["name"]] = (datetime.now(timezone.utc) - renewed).total_seconds()
    return ages
