"""kubeadm's configuration files: the guide's options, and what today's versions need in addition.

Source: kubeadm's configuration API v1beta4 (https://kubernetes.io/docs/reference/config-api/kubeadm-config.v1beta4/).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import yaml

from stackbook.config.profile import Profile
from stackbook.core import yaml_text
from stackbook.core.redact import Secret

SOCKET = "unix:///run/containerd/containerd.sock"
PATCHES = "/etc/stackbook/patches"
_EVICTION = {"memory.available": "100Mi", "nodefs.available": "500Mi", "nodefs.inodesFree": "1%",
             "imagefs.available": "500Mi", "imagefs.inodesFree": "1%"}  # fmt: skip
"""When a kubelet evicts pods. A machine that is a container is on the host's disk: by default, its kubelet would evict pods and accept no
new ones as soon as less than 15 % of that disk is free, which on a large disk is plenty."""

_CONTROLLERS = {"kube-api-qps": "100", "kube-api-burst": "200", "leader-elect-retry-period": "1s"}
"""How many requests a second the controller manager may send, and how long it waits until it tries to get its lease again.

It asks for a token for each of its controllers before it starts them. With its default of 20 requests a second, that takes 5 s. In a
new cluster, its first request for the lease is refused, because no roles exist yet, and by default it waits up to 4.4 s for the second.
Until its controllers run, no node can join: nobody signs cluster-info with the token."""


@dataclass(frozen=True)
class Images:
    """Where kubeadm's images come from.

    Args:
        repository: prefix of the images, for `--image-repository`.
        preloaded: the images are on each machine before kubeadm runs, and the kubelet never pulls them.
        pause: reference of the sandbox image, which `--image-repository` does not affect (K17).
        etcd, dns: references of etcd's and CoreDNS' images; empty for kubeadm's defaults.
    """

    repository: str = "registry.k8s.io"
    preloaded: bool = False
    pause: str = ""
    etcd: str = ""
    dns: str = ""


def init_config(profile: Profile, images: Images, *, cgroup_v1: bool, contained: bool) -> str:
    """The configuration for `kubeadm init`: the guide's options, and what today's versions need in addition.

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
        "encryptionAlgorithm": "ECDSA-P256",  # such keys take no time; RSA's take a second here, on a machine without KVM about 20
        "networking": {"podSubnet": profile.pod_cidr, "serviceSubnet": profile.service_cidr},
        "controllerManager": {"extraArgs": [{"name": name, "value": value} for name, value in _CONTROLLERS.items()]},
    }
    if images.etcd:
        cluster["etcd"] = {"local": _image(images.etcd, images.repository)}
    if images.dns:
        cluster["dns"] = _image(images.dns, images.repository)
    init: dict[str, Any] = {
        "apiVersion": api,
        "kind": "InitConfiguration",
        "localAPIEndpoint": {"advertiseAddress": node.address, "bindPort": 6443},
        "nodeRegistration": _registration(node.name, images, cgroup_v1=cgroup_v1),
        "patches": {"directory": PATCHES},
        **_patience(profile),
    }
    if (
        len(profile.nodes) == 1
    ):  # else kubeadm keeps all other pods away from the control plane, and they would run nowhere
        init["nodeRegistration"]["taints"] = []
    kubelet: dict[str, Any] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "cgroupDriver": "systemd",
    }
    if cgroup_v1:
        kubelet["failCgroupV1"] = False
    if _at_least(profile.kubernetes_version, (1, 35)):  # the lab kills containers on purpose, again and again
        kubelet["crashLoopBackOff"] = {"maxContainerRestartPeriod": "2s"}
    # The lab's own programs are imported, and cannot be pulled again: no image is removed to free the disk.
    kubelet["imageGCHighThresholdPercent"] = 100
    if contained:
        kubelet["failSwapOn"] = False  # the host may use swap, and a machine that is a container must not change that
        kubelet["evictionHard"] = _EVICTION
    proxy: dict[str, Any] = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
    }
    if contained:  # /proc/sys/net/netfilter/nf_conntrack_max belongs to the host: leave it alone
        proxy["conntrack"] = {"maxPerCore": 0}
    return yaml.safe_dump_all([init, cluster, kubelet, proxy], sort_keys=False)


def _image(reference: str, repository: str) -> dict[str, str]:
    """An image in the format of kubeadm's configuration; the repository is included only if it differs from the others'.

    >>> _image("quay.io/coreos/etcd:v3.7.2", "registry.k8s.io")
    {'imageRepository': 'quay.io/coreos', 'imageTag': 'v3.7.2'}
    """
    name, _, tag = reference.rpartition(":")
    prefix = name.rpartition("/")[0]
    return {**({} if prefix == repository else {"imageRepository": prefix}), "imageTag": tag}


def _at_least(version: str, wanted: tuple[int, int]) -> bool:
    """Whether a version such as "1.36.3" is at least (1, 36)."""
    major, minor = version.split(".")[:2]
    return (int(major), int(minor)) >= wanted


def _registration(name: str, images: Images, *, cgroup_v1: bool) -> dict[str, Any]:
    return {
        "name": name,
        "criSocket": SOCKET,
        "imagePullPolicy": "Never" if images.preloaded else "IfNotPresent",
        "ignorePreflightErrors": ["SystemVerification"] if cgroup_v1 else [],
    }


def _patience(profile: Profile) -> dict[str, Any]:
    """How long kubeadm waits. Its own minute for the API server is too short on a busy host; see `Timeouts` in its reference.

    Virtual machines without KVM are about ten times as slow as kubeadm expects.
    """
    if profile.target != "vm":
        return {"timeouts": {"kubernetesAPICall": "4m"}}
    waits = ("controlPlaneComponentHealthCheck", "kubeletHealthCheck", "kubernetesAPICall", "discovery", "tlsBootstrap")
    return {"timeouts": dict.fromkeys(waits, "12m")}


def join_config(name: str, token: Secret, digest: str, profile: Profile, images: Images, *, cgroup_v1: bool) -> Secret:
    """The configuration for `kubeadm join`. It contains the token, because every user could read a token on a command line."""
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
        **_patience(profile),
    }
    return Secret(json.dumps(config), remember=False)


def cluster_part(config: str) -> str:
    """The ClusterConfiguration in kubeadm's file; it contains no secret."""
    parts = [d for d in yaml_text.load_all(config) if d["kind"] == "ClusterConfiguration"]
    return yaml.safe_dump(parts[0], sort_keys=False).rstrip()
