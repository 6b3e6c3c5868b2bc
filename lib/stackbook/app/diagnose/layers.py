"""What the diagnosis looks at in each layer, and the commands to do the same by hand."""

from __future__ import annotations

from stackbook.app.diagnose.findings import LAYERS
from stackbook.app.diagnose.snapshot import Snapshot

BY_HAND: tuple[dict[str, str], ...] = (
    {"layer": "this host", "looked at": "podman, disks, the kubeconfig and its certificate",
     "by hand": "podman ps -a; df -h; stackbook kubeconfig"},
    {"layer": "machines", "looked at": "running or paused, disks, inodes, memory, clock, /etc/hosts, packet filters",
     "by hand": "df -h; df -i; free -m; timedatectl; cat /etc/hosts; iptables-save | grep -E 'DROP|REJECT'"},
    {"layer": "container runtime", "looked at": "containerd, its configuration, sandbox image, cgroup driver, proxies",
     "by hand": "systemctl status containerd; journalctl -m -u containerd -n 50; ctr -n k8s.io images ls -q"},
    {"layer": "kubelet", "looked at": "the unit, its log, configuration, address of the API server, swap",
     "by hand": "systemctl status kubelet; journalctl -m -u kubelet -n 50; curl http://127.0.0.1:10248/healthz"},
    {"layer": "control plane", "looked at": "etcd, API server, controller manager, scheduler: manifest, process, health",
     "by hand": "ls /etc/kubernetes/manifests; kubectl get --raw '/readyz?verbose'; tail /var/log/pods/kube-system_etcd-*/etcd/*.log"},
    {"layer": "certificates", "looked at": "the dates of each certificate of kubeadm's and of the kubelets",
     "by hand": "kubeadm certs check-expiration"},
    {"layer": "pod network", "looked at": "forwarding, CNI configuration and plugins, flannel, VXLAN, routes, kube-proxy",
     "by hand": "ls /etc/cni/net.d /opt/cni/bin; cat /run/flannel/subnet.env; bridge fdb show dev flannel.1; ip route"},
    {"layer": "DNS", "looked at": "CoreDNS, its Corefile, its address, an answer on each machine",
     "by hand": "kubectl -n kube-system get pods -l k8s-app=kube-dns; nslookup kubernetes.default.svc.cluster.local ADDRESS"},
    {"layer": "storage", "looked at": "claims without a volume",
     "by hand": "kubectl get pvc,storageclass -A"},
    {"layer": "mesh", "looked at": "istiod, webhooks, injection, refused configuration, routes without a destination",
     "by hand": "istioctl proxy-status; istioctl analyze -A; kubectl get mutatingwebhookconfigurations"},
    {"layer": "workloads", "looked at": "images, restarts, memory, probes, quotas, selectors, cordoned nodes",
     "by hand": "kubectl get pods -A; kubectl describe pod POD; kubectl logs POD --previous"},
    {"layer": "observability", "looked at": "shippers, Elasticsearch, Prometheus, Jaeger",
     "by hand": "kubectl -n logging get pods; kubectl -n logging logs daemonset/shipper"},
)  # fmt: skip
"""In the order of LAYERS."""
assert tuple(row["layer"] for row in BY_HAND) == LAYERS


def looked_at(snapshot: Snapshot) -> list[dict[str, str]]:
    """Which layers this diagnosis could look at."""
    skipped = []
    if not snapshot.up:
        skipped += ["machines", "container runtime", "kubelet", "control plane", "certificates"]
    if not snapshot.cluster.reached:
        skipped += ["DNS", "storage", "mesh", "workloads", "observability"]
    return [
        {"layer": row["layer"], "looked at": "could not be asked" if row["layer"] in skipped else row["looked at"]}
        for row in BY_HAND
    ]
