"""Causes to be found: each breaks one thing of a lab for as long as its block runs, and puts it back."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stackbook.app.diagnose.collection import kubeconfig_of
from stackbook.cluster.problems import node_problem
from stackbook.core import private
from stackbook.core.errors import StackbookError
from stackbook.core.waiting import until
from stackbook.lab.lab import Lab
from stackbook.machines import facts
from stackbook.machines.providers.podman import Embedded
from stackbook.machines.transports import Host

WORKER = "k8s-node1"
SPACE = "planted"
Harm = Callable[[Lab], AbstractContextManager[None]]


@dataclass(frozen=True)
class Plant:
    """What is broken, and under which names a diagnosis may find it."""

    id: str
    causes: tuple[str, ...]
    harm: Harm


PLANTS: list[Plant] = []


def plant(*causes: str) -> Callable[[Callable[[Lab], Iterator[None]]], Harm]:
    def registered(function: Callable[[Lab], Iterator[None]]) -> Harm:
        harm = contextmanager(function)
        PLANTS.append(Plant(function.__name__, causes, harm))
        return harm

    return registered


def worker(lab: Lab) -> Host:
    return lab.machines[WORKER]


def sh(host: Host, script: str, timeout: float = 60) -> str:
    return host.run(["sh", "-ec", script], timeout=timeout).stdout


@contextmanager
def changed(host: Host, path: str, change: str, after: str = "") -> Iterator[None]:
    """A file is changed by a script (`$F` is its path) while the block runs; what belongs to it is done both times."""
    name = shlex.quote(path)
    sh(host, f"F={name}; cp -a $F /root/kept; {change}; {after or 'true'}")
    try:
        yield
    finally:
        sh(host, f"F={name}; cp -a /root/kept $F; rm /root/kept; {after or 'true'}")


@contextmanager
def moved(host: Host, path: str) -> Iterator[None]:
    host.run(["mv", path, "/root/kept"])
    try:
        yield
    finally:
        host.run(["mv", "/root/kept", path])


@contextmanager
def rule(host: Host, *words: str, table: str = "filter") -> Iterator[None]:
    chain, *rest = words
    host.run([*facts.IPTABLES, "-t", table, "-I", chain, *rest])
    try:
        yield
    finally:
        host.run([*facts.IPTABLES, "-t", table, "-D", chain, *rest])


@contextmanager
def applied(lab: Lab, *objects: dict[str, Any]) -> Iterator[None]:
    lab.kube.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))
    try:
        yield
    finally:
        for item in reversed(objects):
            kind, meta = f"{item['kind']}.{item['apiVersion'].rpartition('/')[0]}".rstrip("."), item["metadata"]
            flags = ["-n", meta["namespace"]] if "namespace" in meta else []
            lab.kube.kubectl("delete", kind, meta["name"], *flags, "--ignore-not-found", "--wait=true", "--grace-period=1",
                             timeout=90)  # fmt: skip


def scaled(lab: Lab, namespace: str, name: str, to: int, back: int) -> Iterator[None]:
    lab.kube.kubectl("-n", namespace, "scale", "deployment", name, f"--replicas={to}")
    yield
    lab.kube.kubectl("-n", namespace, "scale", "deployment", name, f"--replicas={back}")
    lab.kube.wait_rollout(namespace, f"deployment/{name}", timeout=120)


# Machines


@plant("disk-full")
def a_full_disk(lab: Lab) -> Iterator[None]:
    """The tmpfs of /run, all but 8 MiB: nothing of this host's own disk."""
    host = worker(lab)
    sh(host, "n=$(df -P -k /run | awk 'NR==2 {print $4}'); fallocate -l $((n - 8192))k /run/filler")
    yield
    host.run(["rm", "-f", "/run/filler"])


@plant("hosts-entry")
def a_wrong_entry_in_the_host_table(lab: Lab) -> Iterator[None]:
    host = worker(lab)
    before = host.read("/etc/hosts")
    wrong = before.replace(lab.profile.control_plane.address, "192.0.2.9")
    host.run(["sh", "-c", "cat > /etc/hosts"], stdin=wrong)
    yield
    host.run(["sh", "-c", "cat > /etc/hosts"], stdin=before)


@plant("packet-filter")
def a_rule_against_the_kubelet(lab: Lab) -> Iterator[None]:
    with rule(worker(lab), "INPUT", "-p", "tcp", "--dport", "10250", "-j", "DROP"):
        yield


@plant("packet-filter")
def a_rule_against_the_api_server(lab: Lab) -> Iterator[None]:
    with rule(worker(lab), "OUTPUT", "-p", "tcp", "--dport", "6443", "-j", "REJECT"):
        yield


# This host


def _kubeconfig(lab: Lab, change: Callable[[str], str] | None) -> Iterator[None]:
    path = Path(kubeconfig_of(lab.profile))
    before = path.read_text()
    if change:
        private.write(path, change(before))
    else:
        path.unlink()
    yield
    private.write(path, before)


@plant("kubeconfig-missing")
def no_kubeconfig(lab: Lab) -> Iterator[None]:
    yield from _kubeconfig(lab, None)


@plant("kubeconfig-address")
def a_kubeconfig_that_leads_elsewhere(lab: Lab) -> Iterator[None]:
    yield from _kubeconfig(lab, lambda text: text.replace(lab.profile.control_plane.address, "127.0.0.9"))


# Runtime


@plant("containerd-stopped")
def containerd_stopped(lab: Lab) -> Iterator[None]:
    host = worker(lab)
    host.run(["systemctl", "stop", "containerd"])
    yield
    host.run(["systemctl", "start", "containerd"])


@plant("containerd-config")
def containerd_with_a_broken_configuration(lab: Lab) -> Iterator[None]:
    host = worker(lab)
    restart = "systemctl reset-failed containerd; systemctl restart containerd || true"
    with changed(host, "/etc/containerd/config.toml", 'echo "[plugins" >> $F', restart):
        yield


@plant("sandbox-image-missing")
def no_sandbox_image(lab: Lab) -> Iterator[None]:
    """Taken away under its name; its content is kept by another name, and put back from there."""
    host, name, kept = worker(lab), lab.images.reference("pause"), "kept.test/pause:1"
    host.run(["ctr", "-n", "k8s.io", "images", "tag", name, kept])
    host.run(["ctr", "-n", "k8s.io", "images", "rm", name])
    yield
    host.run(["ctr", "-n", "k8s.io", "images", "tag", "--force", kept, name])
    host.run(["ctr", "-n", "k8s.io", "images", "rm", kept])


@plant("cgroup-drivers")
def another_cgroup_driver(lab: Lab) -> Iterator[None]:
    """Containerd's, as a kubelet that changes its own ends all pods of its node."""
    change = "sed -i 's/SystemdCgroup = true/SystemdCgroup = false/' $F"
    with changed(worker(lab), "/etc/containerd/config.toml", change, "systemctl restart containerd"):
        yield


@plant("proxy-for-the-inside")
def a_dead_proxy(lab: Lab) -> Iterator[None]:
    host = worker(lab)
    host.write("/etc/stackbook/proxy.env", 'HTTPS_PROXY="http://192.0.2.9:3128"\nNO_PROXY="localhost"\n', mode=0o600)
    yield
    host.run(["rm", "/etc/stackbook/proxy.env"])


# Kubelet


@plant("kubelet-stopped")
def kubelet_stopped(lab: Lab) -> Iterator[None]:
    host = worker(lab)
    host.run(["systemctl", "stop", "kubelet"])
    yield
    host.run(["systemctl", "start", "kubelet"])


@plant("kubelet-config")
def kubelet_with_broken_yaml(lab: Lab) -> Iterator[None]:
    change = "printf 'maxPods: [\\n' >> $F"
    with changed(worker(lab), "/var/lib/kubelet/config.yaml", change, "systemctl restart kubelet"):
        yield


@plant("kubelet-flag")
def kubelet_with_an_unknown_flag(lab: Lab) -> Iterator[None]:
    change = """sed -i 's/ARGS="/ARGS="--no-such-flag /' $F"""
    with changed(worker(lab), "/var/lib/kubelet/kubeadm-flags.env", change, "systemctl restart kubelet"):
        yield


@plant("kubelet-address")
def kubelet_that_looks_elsewhere(lab: Lab) -> Iterator[None]:
    change = "sed -i 's#server: .*#server: https://192.0.2.9:6443#' $F"
    with changed(worker(lab), "/etc/kubernetes/kubelet.conf", change, "systemctl restart kubelet"):
        yield


# Control plane


def _no_manifest(lab: Lab, name: str) -> Iterator[None]:
    with moved(lab.control_plane, f"/etc/kubernetes/manifests/{name}.yaml"):
        process = name[:15]
        until(
            lambda: not lab.control_plane.run(["pgrep", "-x", process], check=False).ok,
            what=f"{name} is gone",
            timeout=60,
        )
        yield


@plant("etcd-missing")
def no_etcd(lab: Lab) -> Iterator[None]:
    yield from _no_manifest(lab, "etcd")


@plant("kube-controller-manager-missing")
def no_controller_manager(lab: Lab) -> Iterator[None]:
    yield from _no_manifest(lab, "kube-controller-manager")


@plant("kube-scheduler-missing")
def no_scheduler(lab: Lab) -> Iterator[None]:
    yield from _no_manifest(lab, "kube-scheduler")


@plant("kube-apiserver-flag")
def an_api_server_with_an_unknown_flag(lab: Lab) -> Iterator[None]:
    change = "sed -i 's/^    - kube-apiserver$/&\\n    - --no-such-flag=1/' $F"
    with changed(lab.control_plane, "/etc/kubernetes/manifests/kube-apiserver.yaml", change):
        yield


@plant("certificate-expired")
def an_expired_certificate(lab: Lab) -> Iterator[None]:
    """The API server's own, made anew with dates that have passed, signed by the cluster's CA; it is read as it changes."""
    pki = "/etc/kubernetes/pki"
    make = (
        "d=$(mktemp -d); cd $d; touch index; echo 77 > serial; "
        'printf "[ca]\\ndefault_ca=c\\n[c]\\ndatabase=index\\nserial=serial\\nnew_certs_dir=.\\ndefault_md=sha256\\n'
        'policy=p\\ncopy_extensions=copy\\nunique_subject=no\\n[p]\\ncommonName=supplied\\n" > c.cnf; '
        f'openssl req -new -key {pki}/apiserver.key -subj /CN=kube-apiserver -addext "subjectAltName=IP:'
        f'{lab.profile.control_plane.address},IP:{lab.profile.service_address},IP:127.0.0.1,DNS:kubernetes" -out r.csr; '
        f"openssl ca -batch -notext -config c.cnf -cert {pki}/ca.crt -keyfile {pki}/ca.key -startdate 20240101000000Z "
        "-enddate 20250101000000Z -in r.csr -out new.crt; cat new.crt > $F; cd /; rm -r $d"
    )
    with changed(lab.control_plane, f"{pki}/apiserver.crt", make):
        yield


# Pod network


@plant("forwarding-off")
def no_forwarding(lab: Lab) -> Iterator[None]:
    host = worker(lab)
    host.run(["sysctl", "-w", "net.ipv4.ip_forward=0"])
    yield
    host.run(["sysctl", "-w", "net.ipv4.ip_forward=1"])


@plant("cni-config-missing")
def no_cni_configuration(lab: Lab) -> Iterator[None]:
    """Written anew afterwards, not moved back: containerd 1.6 does not notice that a file was moved there."""
    host, path = worker(lab), "/etc/cni/net.d/10-flannel.conflist"
    kept = host.read(path)
    host.run(["rm", path])
    yield
    host.run(["sh", "-c", 'cat > "$1"', "write", path], stdin=kept)


@plant("cni-not-loaded")
def a_cni_configuration_that_was_not_read(lab: Lab) -> Iterator[None]:
    """As when somebody moves the file away and back."""
    host, path = worker(lab), "/etc/cni/net.d/10-flannel.conflist"
    with moved(host, path):
        until(lambda: any("cni plugin not initialized" in node_problem(node) for node in lab.kube.nodes()),
              what="the node is not Ready", timeout=60, every=1)  # fmt: skip
    yield
    kept = host.read(path)
    host.run(["sh", "-c", 'cat > "$1"', "write", path], stdin=kept)


@plant("cni-plugin-missing")
def no_cni_plugin(lab: Lab) -> Iterator[None]:
    with moved(worker(lab), "/opt/cni/bin/bridge"):
        yield


@plant("subnet-env-missing")
def no_lease(lab: Lab) -> Iterator[None]:
    with moved(worker(lab), "/run/flannel/subnet.env"):
        yield


def _flannel_anew(lab: Lab) -> None:
    lab.kube.kubectl("-n", "kube-flannel", "delete", "pods", "-l", "app=flannel", "--grace-period=1", timeout=90)
    lab.kube.wait_rollout("kube-flannel", "daemonset/kube-flannel-ds", timeout=90)


@plant("flannel-missing")
def no_flannel(lab: Lab) -> Iterator[None]:
    saved = lab.kube.json("-n", "kube-flannel", "get", "daemonset", "kube-flannel-ds")
    lab.kube.kubectl("-n", "kube-flannel", "delete", "daemonset", "kube-flannel-ds", "--wait=true", timeout=90)
    yield
    clean = {"apiVersion": "apps/v1", "kind": "DaemonSet", "spec": saved["spec"],
             "metadata": {k: saved["metadata"][k] for k in ("name", "namespace", "labels")}}  # fmt: skip
    lab.kube.kubectl("create", "-f", "-", stdin=json.dumps(clean))
    lab.kube.wait_rollout("kube-flannel", "daemonset/kube-flannel-ds", timeout=120)


@plant("vxlan-down")
def the_vxlan_device_is_down(lab: Lab) -> Iterator[None]:
    host = worker(lab)
    host.run(["ip", "link", "set", "flannel.1", "down"])
    yield
    host.run(["ip", "link", "set", "flannel.1", "up"])
    _flannel_anew(lab)


@plant("vxlan-entry")
def a_forwarding_entry_is_gone(lab: Lab) -> Iterator[None]:
    host, far = lab.control_plane, worker(lab)
    links = json.loads(far.run(["ip", "-j", "link", "show", "flannel.1"]).stdout)
    entry = [links[0]["address"], "dev", "flannel.1", "dst", lab.profile.nodes[1].address]
    host.run(["bridge", "fdb", "del", *entry])
    yield
    host.run(["bridge", "fdb", "add", *entry, "self", "permanent"])


@plant("packet-filter")
def a_rule_against_vxlan(lab: Lab) -> Iterator[None]:
    with rule(worker(lab), "PREROUTING", "-p", "udp", "--dport", "8472", "-j", "DROP", table="raw"):
        yield


@plant("kube-proxy-missing")
def no_kube_proxy(lab: Lab) -> Iterator[None]:
    patch = '{"spec":{"template":{"spec":{"nodeSelector":{"planted":%s}}}}}'
    lab.kube.kubectl("-n", "kube-system", "patch", "daemonset", "kube-proxy", "-p", patch % '"yes"')
    yield
    lab.kube.kubectl("-n", "kube-system", "patch", "daemonset", "kube-proxy", "-p", patch % "null")
    lab.kube.wait_rollout("kube-system", "daemonset/kube-proxy", timeout=90)


# DNS


@plant("dns-scaled")
def no_coredns(lab: Lab) -> Iterator[None]:
    yield from scaled(lab, "kube-system", "coredns", 0, 2)


@plant("dns-corefile")
def a_broken_corefile(lab: Lab) -> Iterator[None]:
    config = lab.kube.json("-n", "kube-system", "get", "configmap", "coredns")
    good = config["data"]["Corefile"]

    def put(text: str) -> None:
        lab.kube.kubectl("-n", "kube-system", "patch", "configmap", "coredns", "--type=merge", "-p",
                         json.dumps({"data": {"Corefile": text}}))  # fmt: skip
        lab.kube.kubectl(
            "-n", "kube-system", "delete", "pods", "-l", "k8s-app=kube-dns", "--grace-period=1", timeout=90
        )

    put(good.replace("kubernetes cluster.local", "kubernetess cluster.local"))
    yield
    put(good)
    lab.kube.wait_rollout("kube-system", "deployment/coredns", timeout=120)


# Storage and workloads


def meta(name: str, namespace: str = SPACE, **labels: str) -> dict[str, Any]:
    return {"name": name, "namespace": namespace, "labels": labels}


def space() -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}}


def pod(lab: Lab, script: str = "exec sleep 1000", **more: Any) -> dict[str, Any]:
    spec = {k: more.pop(k) for k in ("volumes", "nodeSelector") if k in more}
    container = {"name": "main", "image": lab.images.reference("tools"), "imagePullPolicy": "Never", "command": ["sh", "-c", script],
                 **more}  # fmt: skip
    return {"terminationGracePeriodSeconds": 1, "containers": [container], **spec}


def workload(lab: Lab, name: str, script: str = "exec sleep 1000", **more: Any) -> dict[str, Any]:
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": pod(lab, script, **more)}}  # fmt: skip
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta(name), "spec": spec}


def _workload(lab: Lab, *args: Any, **more: Any) -> Iterator[None]:
    with applied(lab, space(), workload(lab, *args, **more)):
        yield


@plant("claim-pending")
def a_claim_without_a_class(lab: Lab) -> Iterator[None]:
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta("data"),
             "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}  # fmt: skip
    with applied(lab, space(), claim):
        yield


@plant("image-missing")
def an_image_that_cannot_be_had(lab: Lab) -> Iterator[None]:
    yield from _workload(lab, "noimage", image="192.168.97.2:9/nothing:1", imagePullPolicy="IfNotPresent")


@plant("crash-loop")
def a_program_that_ends(lab: Lab) -> Iterator[None]:
    yield from _workload(lab, "crash", "echo no configuration here; exit 3")


@plant("out-of-memory")
def a_program_that_needs_more_memory(lab: Lab) -> Iterator[None]:
    yield from _workload(lab, "hungry", "sleep 1; exec tail /dev/zero", resources={"limits": {"memory": "16Mi"}})


@plant("probe-failing")
def a_probe_that_fails(lab: Lab) -> Iterator[None]:
    probe = {"httpGet": {"path": "/", "port": 9}, "periodSeconds": 1, "failureThreshold": 2}
    yield from _workload(lab, "probed", "trap 'exit 0' TERM; while :; do sleep 0.2; done", livenessProbe=probe)


@plant("container-config")
def a_configuration_that_is_not_there(lab: Lab) -> Iterator[None]:
    yield from _workload(lab, "unset", envFrom=[{"configMapRef": {"name": "nowhere"}}])


@plant("mount-missing")
def a_volume_that_is_not_there(lab: Lab) -> Iterator[None]:
    volume = {"name": "v", "configMap": {"name": "nowhere"}}
    yield from _workload(lab, "unmounted", volumes=[volume], volumeMounts=[{"name": "v", "mountPath": "/v"}])


@plant("pod-unscheduled")
def a_pod_that_fits_nowhere(lab: Lab) -> Iterator[None]:
    yield from _workload(lab, "huge", resources={"requests": {"cpu": "64"}})


@plant("service-selector")
def a_service_that_matches_nothing(lab: Lab) -> Iterator[None]:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": meta("nobody"),
               "spec": {"selector": {"app": "nobody"}, "ports": [{"port": 80}]}}  # fmt: skip
    with applied(lab, space(), service):
        yield


@plant("quota-exceeded")
def a_quota(lab: Lab) -> Iterator[None]:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta("few"), "spec": {"hard": {"pods": "0"}}}
    with applied(lab, space(), quota):
        until(lambda: lab.kube.json("-n", SPACE, "get", "resourcequota", "few").get("status", {}).get("hard"),
              what="the quota counts", timeout=30)  # fmt: skip
        with applied(lab, workload(lab, "many")):
            yield


@plant("node-cordoned")
def a_cordoned_node(lab: Lab) -> Iterator[None]:
    lab.kube.kubectl("cordon", WORKER)
    yield
    lab.kube.kubectl("uncordon", WORKER)


@plant("node-tainted")
def a_tainted_node(lab: Lab) -> Iterator[None]:
    lab.kube.kubectl("taint", "node", WORKER, "planted=yes:NoSchedule")
    with applied(lab, space(), workload(lab, "waits")):
        yield
    lab.kube.kubectl("taint", "node", WORKER, "planted:NoSchedule-")


# Mesh


@plant("istiod-scaled")
def no_istiod(lab: Lab) -> Iterator[None]:
    yield from scaled(lab, "istio-system", "istiod", 0, 1)


def webhook(service: str, namespace: str, bundle: str) -> dict[str, Any]:
    hook = {
        "name": "planted.stackbook.test", "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Fail",
        "clientConfig": {"service": {"name": service, "namespace": namespace, "path": "/inject"}, "caBundle": bundle},
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": SPACE}}, "timeoutSeconds": 3,
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
    }  # fmt: skip
    return {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": "planted"}, "webhooks": [hook]}  # fmt: skip


def _other_ca(lab: Lab) -> str:
    """A CA's certificate that is not the mesh's: the cluster's own."""
    return sh(lab.control_plane, "base64 -w0 /etc/kubernetes/pki/ca.crt").strip()


@plant("webhook-service")
def a_webhook_that_leads_nowhere(lab: Lab) -> Iterator[None]:
    with applied(lab, space(), webhook("nowhere", SPACE, _other_ca(lab)), workload(lab, "hooked")):
        yield


@plant("webhook-ca")
def a_webhook_with_another_ca(lab: Lab) -> Iterator[None]:
    with applied(lab, space(), webhook("istiod", "istio-system", _other_ca(lab)), workload(lab, "hooked")):
        yield


@plant("injection-off")
def a_namespace_without_injection(lab: Lab) -> Iterator[None]:
    lab.kube.kubectl("label", "namespace", "default", "istio-injection-")
    yield
    lab.kube.kubectl("label", "namespace", "default", "istio-injection=enabled", "--overwrite")


def route(name: str, destination: dict[str, str], **more: Any) -> dict[str, Any]:
    spec = {"hosts": [f"{name}.test"], "http": [{"route": [{"destination": destination}]}], **more}
    return {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": meta(name), "spec": spec}


@plant("route-subset")
def a_route_to_a_subset_that_is_not_there(lab: Lab) -> Iterator[None]:
    with applied(lab, space(), route("sub", {"host": "reviews.default.svc.cluster.local", "subset": "v9"})):
        yield


@plant("route-host")
def a_route_to_a_host_that_is_not_there(lab: Lab) -> Iterator[None]:
    with applied(lab, space(), route("lost", {"host": "reviewz.default.svc.cluster.local"})):
        yield


@plant("gateway-selector")
def a_gateway_that_nobody_is(lab: Lab) -> Iterator[None]:
    spec = {"selector": {"istio": "nobody"}, "servers": [{"port": {"number": 80, "name": "http", "protocol": "HTTP"},
                                                          "hosts": ["*"]}]}  # fmt: skip
    gateway = {"apiVersion": "networking.istio.io/v1", "kind": "Gateway", "metadata": meta("closed"), "spec": spec}
    with applied(lab, space(), gateway):
        yield


@plant("config-refused")
def configuration_that_proxies_refuse(lab: Lab) -> Iterator[None]:
    value = {"name": "planted", "typed_config": {"@type": "type.googleapis.com/udpa.type.v1.TypedStruct",
                                                 "type_url": "type.googleapis.com/planted.NoSuchFilter"}}  # fmt: skip
    match = {"context": "SIDECAR_INBOUND", "listener": {"filterChain": {"filter": {
        "name": "envoy.filters.network.http_connection_manager"}}}}  # fmt: skip
    patch = {"applyTo": "HTTP_FILTER", "match": match, "patch": {"operation": "INSERT_BEFORE", "value": value}}
    spec = {"workloadSelector": {"labels": {"app": "details"}}, "configPatches": [patch]}
    item = {"apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter", "metadata": meta("planted", "default"),
            "spec": spec}  # fmt: skip
    with applied(lab, item):
        yield


# Machines that do not run: last, as what was on them comes back slowly


def _podman(lab: Lab, *words: str) -> None:
    subprocess.run([*Embedded(lab.profile).podman, *words], check=True, capture_output=True, timeout=120)


@plant("machine-paused")
def a_machine_that_is_paused(lab: Lab) -> Iterator[None]:
    name = Embedded(lab.profile).container(WORKER)
    _podman(lab, "pause", name)
    yield
    _podman(lab, "unpause", name)


@plant("machine-paused")
def a_control_plane_that_is_paused(lab: Lab) -> Iterator[None]:
    name = Embedded(lab.profile).container(lab.profile.control_plane.name)
    _podman(lab, "pause", name)
    yield
    _podman(lab, "unpause", name)


@plant("machine-stopped")
def a_machine_that_is_stopped(lab: Lab) -> Iterator[None]:
    provider = Embedded(lab.profile)
    _podman(lab, "stop", "-t", "10", provider.container(WORKER))
    yield
    lab.provider.provision(say=lambda _: None)


def standing(lab: Lab) -> bool:
    """Whether the API server answers: what is put back there takes its time."""
    try:
        return lab.kube.ready()
    except StackbookError:
        return False
