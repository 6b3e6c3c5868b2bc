"""What chapter 02 proves about a control plane: options, components, certificates, ports, completion."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from stackbook.cluster import addresses, kubeadm
from stackbook.cluster.kubeconfig import write_kubeconfig
from stackbook.config.profile import Profile
from stackbook.core.errors import WaitTimeout
from stackbook.core.waiting import until
from stackbook.machines import facts
from stackbook.machines.transports import Host

if TYPE_CHECKING:
    from stackbook.lab.lab import Lab

HEALTH = {
    "etcd": "http://127.0.0.1:2381/health",
    "kube-apiserver": "https://127.0.0.1:6443/readyz",
    "kube-controller-manager": "https://127.0.0.1:10257/healthz",
    "kube-scheduler": "https://127.0.0.1:10259/healthz",
}
_ETCD_TO = ("-p", "tcp", "--dport", "2379:2380", "-j")
STATIC_PODS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")


def service_range(guide: str = "10.1.0.0/12") -> list[dict[str, Any]]:
    """How a strict and a lenient parser read the guide's service range, and the resulting addresses (K20)."""
    try:
        strict = str(ipaddress.ip_network(guide))
    except ValueError as error:
        strict = f"refused: {error}"
    network = ipaddress.ip_network(guide, strict=False)
    rows = [
        {"question": f"{guide}, read strictly", "answer": strict},
        {"question": f"{guide}, read as it is meant", "answer": str(network)},
        {"question": "first and last address", "answer": f"{network[0]} – {network[-1]}"},
        {"question": "service kubernetes (the first)", "answer": str(network[1])},
        {"question": "service kube-dns (the tenth)", "answer": str(network[10])},
    ]
    for name, address in (("kiali", "10.5.226.87"), ("grafana", "10.4.88.184"), ("productpage", "10.0.188.88")):
        inside = ipaddress.ip_address(address) in network
        literal = ipaddress.ip_address(address) in ipaddress.ip_network("10.1.0.0/16")
        answer = f"{'inside' if inside else 'outside'}; {'inside' if literal else 'outside'} of 10.1.0.0/16"
        rows.append({"question": f"the guide's own {name} at {address}", "answer": answer})
    return rows


def options(profile: Profile, images: kubeadm.Images) -> list[dict[str, str]]:
    """The guide's options of kubeadm init, their current form, and their place in kubeadm's configuration file."""
    return [
        {"option": "--pod-network-cidr", "guide": "10.244.0.0/16", "today": profile.pod_cidr,
         "in the file": "networking.podSubnet"},
        {"option": "--service-cidr", "guide": "10.1.0.0/12", "today": profile.service_cidr,
         "in the file": "networking.serviceSubnet"},
        {"option": "--kubernetes-version", "guide": "v1.19.0", "today": f"v{profile.kubernetes_version}",
         "in the file": "kubernetesVersion"},
        {"option": "--image-repository", "guide": "registry.aliyuncs.com/google_containers",
         "today": images.repository, "in the file": "imageRepository"},
        {"option": "--apiserver-advertise-address", "guide": "192.168.98.3", "today": profile.control_plane.address,
         "in the file": "localAPIEndpoint.advertiseAddress"},
    ]  # fmt: skip


def refused(host: Host, *argv: str) -> str:
    """The error of a command that must fail; empty if it succeeded."""
    answer = host.run(list(argv), check=False, timeout=60)
    lines = [x for x in (answer.stderr + answer.stdout).splitlines() if x.strip()]
    wanted = next((x for x in lines if re.search(r"unknown|error|invalid|arg", x, re.IGNORECASE)), "")
    return (wanted or (lines[-1] if lines else f"status {answer.rc}")) if not answer.ok else ""


def fetch_kubeconfig(lab: Lab) -> int:
    """Save kubeadm's kubeconfig for the user (C16-C18) and for this host; returns the number of changes.

    On a machine that is not the lab's own, root's earlier kubeconfig is kept beside the new one until a reset restores it.

    The keys go from the machine only to a file that only its owner can read.
    """
    host = lab.control_plane
    changed = host.run(["sh", "-c", kubeadm.KEEP_KUBECONFIG], env={"HOME": "/root"}).stdout.count("changed")
    text = host.run(["cat", "/etc/kubernetes/admin.conf"], secret=True).reveal()
    return changed + write_kubeconfig(text, lab.state / "kubeconfig")


def components(lab: Lab) -> list[dict[str, Any]]:
    """Each component of the control plane: its purpose, how it runs, whether it is healthy."""
    duties = {
        "etcd": "stores every object",
        "kube-apiserver": "the only way to etcd: REST, authentication, admission",
        "kube-controller-manager": "moves the actual state towards the desired state",
        "kube-scheduler": "chooses a node for each pod",
    }
    pods = {p["metadata"]["name"]: p for p in lab.kube.pods("kube-system", "tier=control-plane")}
    node = lab.profile.control_plane.name
    return [
        {
            "component": name,
            "duty": duties[name],
            "started by": _starter(pods.get(f"{name}-{node}")),
            "healthy": healthy(lab.control_plane, name),
        }
        for name in STATIC_PODS
    ]


def _starter(pod: dict[str, Any] | None) -> str:
    source = (pod or {"metadata": {}})["metadata"].get("annotations", {}).get("kubernetes.io/config.source", "")
    return "the kubelet, from a file" if source == "file" else source or "nobody"


def healthy(host: Host, component: str) -> bool:
    """The answer of a component's own health endpoint, asked on its machine."""
    url = HEALTH[component]
    # -k: these endpoints have self-signed certificates, only for 127.0.0.1.
    answer = host.run(["curl", "-sk", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", url], check=False)
    return answer.stdout == "200"


def readyz(lab: Lab, *, timeout: float = 60.0) -> list[dict[str, Any]]:
    """The checks behind the API server's /readyz: `check` is the name, and `holds` whether it passes.

    On a busy machine, a check of etcd can fail for some seconds. So they are asked again until all hold; after `timeout` seconds, the
    last answer is returned as it is.
    """
    rows: list[dict[str, Any]] = []

    def all_hold() -> bool:
        answer = lab.kube.kubectl("get", "--raw=/readyz?verbose", check=False)  # a check that fails makes kubectl fail
        found = re.finditer(r"^\[([+-])\](\S+)", f"{answer.stdout}\n{answer.stderr}", re.MULTILINE)
        rows[:] = [{"check": m[2], "holds": m[1] == "+"} for m in found]
        return bool(rows) and all(row["holds"] for row in rows)

    with contextlib.suppress(WaitTimeout):
        until(all_hold, what="every check behind /readyz to hold", timeout=timeout, every=1.0)
    return rows


def certificates(host: Host) -> list[dict[str, Any]]:
    """The control plane's certificates and how long each is valid, from `kubeadm certs check-expiration`."""
    data = json.loads(host.run(["kubeadm", "certs", "check-expiration", "-o", "json"], timeout=60).stdout)
    rows = []
    for kind, key in (("certificate", "certificates"), ("authority", "certificateAuthorities")):
        for entry in data.get(key, []):
            end = datetime.fromisoformat(entry["expirationDate"].replace("Z", "+00:00"))
            days = (end - datetime.now(timezone.utc)).days
            rows.append(
                {
                    "name": entry["name"],
                    "kind": kind,
                    "signed by": entry.get("caName", "itself") or "itself",
                    "expires": f"{end:%Y-%m-%d}",
                    "days left": days,
                }
            )
    return rows  # fmt: skip


def advertised(lab: Lab) -> list[dict[str, str]]:
    """Where the API server listens, and which address it advertises: two different things (K21)."""
    host = lab.control_plane
    listening = host.run(["ss", "-Hltn", "sport", "=", ":6443"]).lines
    manifest = host.read("/etc/kubernetes/manifests/kube-apiserver.yaml")
    told = re.search(r"--advertise-address=(\S+)", manifest)
    answering = [a for e in addresses.endpoints(lab.kube, "default", "kubernetes") for a in e["addresses"]]
    return [
        {"question": "listens on", "answer": ", ".join(sorted(line.split()[3] for line in listening))},
        {"question": "--advertise-address", "answer": told.group(1) if told else "not set"},
        {"question": "endpoint of the service kubernetes", "answer": ", ".join(answering)},
    ]


def ca_hash(host: Host) -> str:
    """The hash of the CA's public key for kubeadm join, computed by openssl (C19)."""
    script = (
        "openssl x509 -pubkey -noout -in /etc/kubernetes/pki/ca.crt | openssl pkey -pubin -outform der | "
        "sha256sum | cut -d' ' -f1"
    )
    return "sha256:" + host.run(["sh", "-c", script]).stdout.strip()


def tokens(host: Host) -> list[dict[str, Any]]:
    """The bootstrap tokens' purposes and remaining hours; never the tokens themselves."""
    text = host.run(["kubeadm", "token", "list", "-o", "json"], secret=True, timeout=60).reveal()
    decoder, found, position = json.JSONDecoder(), [], 0
    while position < len(text.rstrip()):
        entry, position = decoder.raw_decode(text, position)
        position += len(text[position:]) - len(text[position:].lstrip())
        end = entry.get("expires")
        left = (datetime.fromisoformat(end.replace("Z", "+00:00")) - datetime.now(timezone.utc)) if end else None
        found.append(
            {"usages": ", ".join(entry.get("usages", [])), "hours left": left.total_seconds() / 3600 if left else None}
        )
    return found


def firewall_trial(lab: Lab) -> list[dict[str, Any]]:
    """Who reaches which port of the control plane, before and after a rule that lets only nodes reach etcd.

    The rule is in its own chain on the control plane, and is removed again.
    """
    from stackbook.lessons.machines.addressing import open_ports

    host, address = lab.control_plane, lab.profile.control_plane.address
    ports = {"API server 6443": 6443, "etcd 2379": 2379}
    nodes = ",".join([n.address for n in lab.profile.nodes] + ["127.0.0.1"])
    chain = "STACKBOOK-TRIAL"
    rows: list[dict[str, Any]] = []
    worker = next(iter(lab.workers.values()), host)

    def look(when: str) -> None:
        stranger = open_ports(lab.local, address, ports)
        member = open_ports(worker, address, ports)
        rows.extend(
            {"when": when, "port": p, "from a stranger (this host)": stranger[p], "from a node": member[p]}
            for p in ports
        )

    look("without a firewall")
    try:
        _remove_chain(host, chain)  # left by a killed trial
        host.run([*facts.IPTABLES, "-N", chain])
        host.run([*facts.IPTABLES, "-A", chain, "-s", nodes, "-j", "RETURN"])
        host.run([*facts.IPTABLES, "-A", chain, "-j", "REJECT", "--reject-with", "tcp-reset", "-p", "tcp"])
        host.run([*facts.IPTABLES, "-I", "INPUT", *_ETCD_TO, chain])
        look("etcd's ports for nodes only")
    finally:
        _remove_chain(host, chain)
    return rows


def _remove_chain(host: Host, chain: str) -> None:
    """Remove the trial's chain and the rule that jumps to it, if they exist."""
    host.run([*facts.IPTABLES, "-D", "INPUT", *_ETCD_TO, chain], check=False)
    host.run([*facts.IPTABLES, "-F", chain], check=False)
    host.run([*facts.IPTABLES, "-X", chain], check=False)


def completion(host: Host) -> list[dict[str, Any]]:
    """Kubectl's completion, tested in bash and fish."""
    bash = "source /usr/share/bash-completion/bash_completion; "
    scripts = {
        "bash: the package's file exists": ["sh", "-c", "dpkg -L bash-completion | grep -x /usr/share/bash-completion/bash_completion"],
        "bash: the file loads": ["bash", "-c", bash + "type -t _init_completion | grep -x function"],
        "bash: kubectl is completed": ["bash", "-c", bash + "source <(kubectl completion bash); complete -p kubectl | grep -F __start_"],
        "fish: kubectl writes the file": ["sh", "-c", "mkdir -p ~/.config/fish/completions && cd ~/.config/fish && "
                                          "kubectl completion fish > completions/kubectl.fish && readlink -e completions/kubectl.fish"],
        "fish: kubectl is completed": ["fish", "-c", "complete -C 'kubectl ver' | string match -q 'version*'"],
    }  # fmt: skip
    return [
        {"shell": name.split(":")[0], "step": name.split(": ")[1],
         "works": host.run(argv, check=False, env={"HOME": "/root"}, timeout=60).ok}
        for name, argv in scripts.items()
    ]  # fmt: skip


def settled(lab: Lab, *, timeout: float = 60.0) -> list[dict[str, Any]]:
    """`components`, once all are healthy and the kubelet has reported them to the API server.

    Raises:
        WaitTimeout: one is not; the error names it.
    """

    def done() -> list[dict[str, Any]]:
        rows = components(lab)
        return rows if all(r["healthy"] and r["started by"] != "nobody" for r in rows) else []

    def last() -> str:
        return ", ".join(
            str(r["component"]) for r in components(lab) if not r["healthy"] or r["started by"] == "nobody"
        )

    return until(done, what="every component of the control plane to be healthy", timeout=timeout, every=0.3, last=last,
                 cause=lambda: lab.kube.explain("kube-system"))  # fmt: skip


def lease_ages(kube: Any) -> dict[str, float]:
    """Seconds since each kubelet renewed its lease, by node."""
    ages = {}
    for lease in kube.json("get", "leases", "-n", "kube-node-lease")["items"]:
        renewed = datetime.fromisoformat(lease["spec"]["renewTime"].replace("Z", "+00:00"))
        ages[lease["metadata"]["name"]] = (datetime.now(timezone.utc) - renewed).total_seconds()
    return ages
