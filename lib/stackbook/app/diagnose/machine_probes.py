"""What the diagnosis asks each machine: read-only commands, each with a deadline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stackbook.config.profile import Profile
from stackbook.config.registries import PROXY_FILE
from stackbook.machines import facts


@dataclass(frozen=True)
class Probe:
    """A command, and how many seconds it may take."""

    argv: tuple[str, ...]
    timeout: float = 5.0


def _script(text: str, timeout: float = 5.0) -> Probe:
    return Probe(("sh", "-c", text), timeout)


def _curl(url: str, *flags: str) -> Probe:
    return Probe(("curl", "-sk", "-m", "3", "--noproxy", "*", *flags, url))


COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
_CERTIFICATES = (
    "/etc/kubernetes/pki/*.crt /etc/kubernetes/pki/etcd/*.crt /var/lib/kubelet/pki/kubelet-client-current.pem "
    "/var/lib/kubelet/pki/kubelet.crt"
)
_DISKS = ("/", "/var/lib/containerd", "/var/lib/kubelet", "/run", "/tmp")

CLOCK = Probe(("date", "+%s.%N"), 4.0)
"""The quickest probe: a machine that does not answer it gets no other."""

# -m: the lab gives a running machine its own machine-id, but journald still writes under the earlier id.
EVERYWHERE: Mapping[str, Probe] = {
    "units": Probe(
        (
            "systemctl",
            "show",
            "-p",
            "Id,LoadState,ActiveState,SubState,NRestarts,UnitFileState",
            "kubelet.service",
            "containerd.service",
        )
    ),
    "kubelet log": Probe(("journalctl", "-m", "--no-pager", "-o", "cat", "-n", "300", "-u", "kubelet")),
    "containerd log": Probe(("journalctl", "-m", "--no-pager", "-o", "cat", "-n", "300", "-u", "containerd")),
    "kubelet config": Probe(("cat", "/var/lib/kubelet/config.yaml")),
    "kubelet flags": _script("cat /var/lib/kubelet/kubeadm-flags.env /etc/default/kubelet 2>/dev/null"),
    "kubelet healthz": _curl("http://127.0.0.1:10248/healthz"),
    "containerd config": Probe(("cat", "/etc/containerd/config.toml")),
    "containerd proxies": Probe(("cat", PROXY_FILE)),
    "images": Probe(("ctr", "--connect-timeout", "2s", "-n", "k8s.io", "images", "ls", "-q"), 6.0),
    "processes": Probe(("ps", "-eo", "comm=")),
    "server of kubeconfigs": Probe(("grep", "-H", "server:", "/etc/kubernetes/kubelet.conf")),
    "certificates": _script(
        f"for f in {_CERTIFICATES}; do [ -e $f ] || continue; echo == $f; openssl x509 -noout -dates -in $f 2>&1; done"
    ),
    "CNI configuration": _script('for f in /etc/cni/net.d/*.conf*; do [ -e "$f" ] && cat "$f"; done; true'),
    "CNI plugins": Probe(("ls", "-1", "/opt/cni/bin")),
    "subnet.env": Probe(facts.SUBNET_ENV.argv),
    "sysctls": Probe(("sysctl", "net.ipv4.ip_forward", "net.bridge.bridge-nf-call-iptables")),
    "links": Probe(facts.INTERFACES.argv),
    "routes": Probe(facts.ROUTES.argv),
    "forwarding entries": Probe(("bridge", "fdb", "show", "dev", "flannel.1")),
    "packet filter": Probe(("iptables-save",)),
    "kube-proxy healthz": _curl("http://127.0.0.1:10256/healthz", "-o", "/dev/null", "-w", "%{http_code}"),
    "disks": Probe(("df", "-P", "-k", *_DISKS)),
    "inodes": Probe(("df", "-P", "-i", *_DISKS)),
    "memory": Probe(facts.MEMORY.argv),
    "swap": Probe(facts.SWAP.argv),
    "hosts": Probe(facts.HOSTS.argv),
    "name servers": Probe(("cat", "/etc/resolv.conf")),
    "refused by proxies": _script(
        "grep -HE 'gRPC config for .* rejected' /var/log/pods/*/istio-proxy/*.log 2>/dev/null | tail -n 40"
    ),
}

CONTROL_PLANE: Mapping[str, Probe] = {
    "manifests": Probe(("ls", "-1", "/etc/kubernetes/manifests")),
    "etcd health": _curl("http://127.0.0.1:2381/health"),
    "kube-scheduler healthz": _curl("https://127.0.0.1:10259/healthz"),
    "kube-controller-manager healthz": _curl("https://127.0.0.1:10257/healthz"),
    "component logs": _script(
        f"for c in {' '.join(COMPONENTS)}; do f=$(ls -t /var/log/pods/kube-system_$c-*/$c/*.log 2>/dev/null | head -n 1); "
        "[ -n \"$f\" ] && echo == $c && tail -n 12 \"$f\"; done; true"
    ),
}  # fmt: skip


def of_machine(profile: Profile, *, control_plane: bool) -> dict[str, Probe]:
    """The probes of one machine, by name."""
    name = "kubernetes.default.svc.cluster.local"
    return {
        **EVERYWHERE,
        **(CONTROL_PLANE if control_plane else {}),
        "API server": _curl(f"https://{profile.control_plane.address}:6443/readyz?verbose"),
        "DNS": Probe(("busybox", "nslookup", name, profile.dns_address), 6.0),
    }


def between(address: str, pods: str) -> dict[str, Probe]:
    """What the diagnosis asks a machine about another one.

    Args:
        address: the other machine's address.
        pods: an address in its pod network, of flannel's device or of the bridge; empty if it has none.
    """
    found = {"kubelet of": _curl(f"https://{address}:10250/healthz", "-o", "/dev/null", "-w", "%{http_code}")}
    if pods:
        found["pods of"] = Probe(("ping", "-c", "2", "-i", "0.3", "-W", "1", pods))
    return found
