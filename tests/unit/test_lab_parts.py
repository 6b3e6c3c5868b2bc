"""The pure parts of the lab: configurations that are written, outputs that are read, and what is compared."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from fakes import FakeHost
from stackbook.app import checks, reset
from stackbook.cluster import flannel, image_import, kubeadm
from stackbook.config.profile import Profile
from stackbook.core.errors import CheckFailed, CommandFailed, CorruptArtifact, InputError, WaitTimeout
from stackbook.core.results import Result
from stackbook.lessons.kubernetes import service_routing
from stackbook.lessons.machines import guide_commands
from stackbook.machines import identity
from stackbook.machines.identity import Identity
from stackbook.mesh import istio

# kubeadm


def documents(**kwargs: bool) -> dict[str, dict]:
    images_ = kubeadm.Images(
        "example.test",
        preloaded=True,
        pause="example.test/pause:1",
        etcd="other.test/a/etcd:3.7",
        dns="example.test/coredns:v1",
    )
    text = kubeadm.init_config(Profile(), images_, **{"cgroup_v1": False, "contained": True, **kwargs})
    return {d["kind"]: d for d in yaml.safe_load_all(text)}


def test_init_configuration_has_the_guides_options() -> None:
    found = documents()
    cluster, init = found["ClusterConfiguration"], found["InitConfiguration"]
    assert cluster["networking"] == {"podSubnet": "10.244.0.0/16", "serviceSubnet": "10.0.0.0/12"}
    assert cluster["kubernetesVersion"] == "v1.36.3"
    assert cluster["imageRepository"] == "example.test"
    assert cluster["etcd"]["local"] == {"imageRepository": "other.test/a", "imageTag": "3.7"}
    assert cluster["dns"] == {"imageTag": "v1"}
    assert init["localAPIEndpoint"]["advertiseAddress"] == "192.168.98.3"
    assert init["nodeRegistration"]["imagePullPolicy"] == "Never"


def test_the_controller_manager_is_ready_before_a_machine_joins() -> None:
    given = {
        entry["name"]: entry["value"] for entry in documents()["ClusterConfiguration"]["controllerManager"]["extraArgs"]
    }
    assert int(given["kube-api-burst"]) >= 150  # about three requests for each of fifty controllers
    assert given["leader-elect-retry-period"] == "1s"  # its first request is always refused


def test_the_control_plane_runs_pods_only_where_there_is_no_worker() -> None:
    two = Profile()
    alone = two.model_copy(update={"nodes": two.nodes[:1]})
    for profile, taints in ((two, None), (alone, [])):
        text = kubeadm.init_config(profile, kubeadm.Images(), cgroup_v1=False, contained=True)
        init = next(d for d in yaml.safe_load_all(text) if d["kind"] == "InitConfiguration")
        assert init["nodeRegistration"].get("taints") == taints


def test_the_old_cgroup_hierarchy_is_accepted_only_where_it_is() -> None:
    old, new = documents(cgroup_v1=True), documents(cgroup_v1=False)
    assert old["KubeletConfiguration"]["failCgroupV1"] is False
    assert old["InitConfiguration"]["nodeRegistration"]["ignorePreflightErrors"] == ["SystemVerification"]
    assert "failCgroupV1" not in new["KubeletConfiguration"]
    assert new["InitConfiguration"]["nodeRegistration"]["ignorePreflightErrors"] == []


def test_a_machine_that_is_no_container_keeps_its_defaults() -> None:
    assert "conntrack" not in documents(contained=False)["KubeProxyConfiguration"]
    assert "failSwapOn" not in documents(contained=False)["KubeletConfiguration"]
    assert "disable_apparmor" not in kubeadm.containerd_config("p", contained=False)
    assert "SystemdCgroup = true" in kubeadm.containerd_config("p", contained=False)


def test_a_host_whose_disk_is_nearly_full_can_carry_the_lab() -> None:
    """By default, a kubelet evicts pods when less than 15 % of the disk is free, and removes images when less than 15 % is."""
    ours, own = documents(contained=True)["KubeletConfiguration"], documents(contained=False)["KubeletConfiguration"]
    assert not [value for name, value in ours["evictionHard"].items() if name.endswith(".available") and "%" in value]
    assert {"nodefs.available", "imagefs.available", "memory.available"} <= set(ours["evictionHard"])
    assert "evictionHard" not in own
    assert ours["imageGCHighThresholdPercent"] == own["imageGCHighThresholdPercent"] == 100


@pytest.mark.parametrize(("version", "known"), [("1.34.9", False), ("1.35.0", True), ("1.36.3", True)])
def test_a_killed_container_is_started_again_at_once_where_the_kubelet_can_be_told(version: str, known: bool) -> None:
    """Before 1.35 a kubelet refuses the field (feature gate KubeletCrashLoopBackOffMax)."""
    profile = Profile.load("embedded", overrides={"kubernetes_version": version})
    text = kubeadm.init_config(profile, kubeadm.Images(), cgroup_v1=False, contained=True)
    kubelet = {d["kind"]: d for d in yaml.safe_load_all(text)}["KubeletConfiguration"]
    assert kubelet.get("crashLoopBackOff") == ({"maxContainerRestartPeriod": "2s"} if known else None)


def test_the_join_token_goes_by_a_file_that_is_removed() -> None:
    token, digest = "abcdef.0123456789abcdef", "sha256:" + "a" * 64
    create = "kubeadm token create --ttl 30m --print-join-command"
    signed = "kubectl --kubeconfig=/etc/kubernetes/admin.conf -n kube-public get configmap cluster-info -o yaml"
    master = FakeHost({create: f"kubeadm join x --token {token} --discovery-token-ca-cert-hash {digest}\n",
                       signed: "data:\n  jws-kubeconfig-abcdef: x\n"})  # fmt: skip
    worker = FakeHost(
        {"test -s /etc/kubernetes/kubelet.conf": (1, "", ""), "test -e /etc/kubernetes/bootstrap-kubelet.conf": (1, "", ""),
         "kubeadm join --config /run/stackbook/join.yaml": "", "rm -f /run/stackbook/join.yaml": ""}, name="k8s-node1",
    )  # fmt: skip
    assert kubeadm.kubeadm_join(worker, master, Profile(), kubeadm.Images(), cgroup_v1=False) == 1
    assert token in worker.files["/run/stackbook/join.yaml"]
    assert worker.modes["/run/stackbook/join.yaml"] == 0o600
    assert worker.ran[-1] == "rm -f /run/stackbook/join.yaml"
    assert not any(token in command for command in worker.ran + master.ran)


def test_a_failing_init_says_what_the_kubelet_said() -> None:
    host = FakeHost(
        {"test -s /etc/kubernetes/admin.conf": (1, "", ""),
         "test -e /etc/kubernetes/manifests/kube-apiserver.yaml": (1, "", ""),
         "rm -f /etc/stackbook/kubeadm-init.done": "",
         "kubeadm init --config /etc/stackbook/kubeadm.yaml --skip-token-print": (1, "", "timed out"),
         "journalctl -m -u kubelet --no-pager -n 40 -o cat": "E1 failed to run: cgroup missing\nfine\n"}
    )  # fmt: skip
    with pytest.raises(CommandFailed, match="cgroup missing"):
        kubeadm.kubeadm_init(host, "config")
    assert host.modes["/etc/stackbook/kubeadm.yaml"] == 0o600
    assert kubeadm.DONE not in host.files


def test_a_cluster_that_does_not_answer_is_not_reset() -> None:
    """Its API server is down, or its certificate has expired: what is in it must not be lost."""
    there, marked = "test -s /etc/kubernetes/admin.conf", f"test -e {kubeadm.DONE}"
    host = FakeHost({there: "", marked: ""})
    assert kubeadm.kubeadm_init(host, "config") == 0
    assert host.ran == [there, marked, marked]


def test_an_older_lab_gets_its_marker() -> None:
    ask = "kubectl --kubeconfig=/etc/kubernetes/admin.conf -n kube-system get configmap kube-proxy"
    host = FakeHost({"test -s /etc/kubernetes/admin.conf": "", f"test -e {kubeadm.DONE}": (1, "", ""), ask: ""})
    assert kubeadm.kubeadm_init(host, "config") == 0
    assert host.files == {kubeadm.DONE: ""}


# flannel

MANIFEST = """
kind: ConfigMap
data: {cni-conf.json: '{"cniVersion": "1.0.0"}', net-conf.json: '{}'}
---
kind: DaemonSet
spec:
  template:
    spec:
      initContainers: [{name: install-cni-plugin, image: x/flannel-cni-plugin:1}, {name: install-cni, image: x/flannel:1}]
      containers:
      - {name: kube-flannel, image: x/flannel:1, readinessProbe: {}, volumeMounts: [], args: []}
      volumes: []
"""


def rendered(backend: str) -> tuple[dict, dict]:
    text = flannel.manifest(MANIFEST, network="10.244.0.0/16", backend=backend, preloaded=True, cni_version="0.4.0",
                            images={"flannel": "l/flannel:2", "flannel-cni-plugin": "l/plugin:2"})  # fmt: skip
    config, daemon = yaml.safe_load_all(text)
    return config, daemon["spec"]["template"]["spec"]


def test_manifest_for_the_lab() -> None:
    config, spec = rendered("vxlan")
    assert json.loads(config["data"]["net-conf.json"])["Network"] == "10.244.0.0/16"
    assert json.loads(config["data"]["cni-conf.json"])["cniVersion"] == "0.4.0"
    assert [c["image"] for c in spec["initContainers"]] == ["l/plugin:2", "l/flannel:2"]
    assert {c["imagePullPolicy"] for c in [*spec["initContainers"], *spec["containers"]]} == {"Never"}


def test_udp_gets_its_device_and_others_do_not() -> None:
    assert rendered("udp")[1]["containers"][0]["volumeMounts"] == [{"name": "tun", "mountPath": "/dev/net/tun"}]
    assert rendered("vxlan")[1]["volumes"] == []
    with pytest.raises(InputError, match="vxlan, host-gw, udp"):
        rendered("wireguard")


class _Cluster:
    """A cluster with two nodes, whose second one has a lease only when it is asked for the third time."""

    def __init__(self, late: int = 2) -> None:
        self.asked, self.late = 0, late
        self.deleted: list[str] = []

    def nodes(self) -> list[dict[str, Any]]:
        self.asked += 1
        lease = {"flannel.alpha.coreos.com/public-ip": "192.168.98.3"}
        return [{"metadata": {"name": name, "annotations": lease if name == "a" or self.asked > self.late else {}},
                 "spec": {}, "status": {"addresses": []}} for name in "ab"]  # fmt: skip

    def pods(self, namespace: str, selector: str) -> list[dict[str, Any]]:
        found = [("early", "a", ""), ("running", "b", "10.244.1.2"), ("pending", "", "")]
        return [
            {"metadata": {"name": name}, "spec": {"nodeName": node}, "status": {"podIP": address}}
            for name, node, address in found
        ]

    def kubectl(self, *words: str) -> None:
        self.deleted = [word for word in words[4:] if not word.startswith("-")]

    def explain(self, namespace: str) -> str:
        return f"the newest warning in {namespace}"


def test_a_pod_that_came_before_flannel_is_recreated() -> None:
    cluster, host = _Cluster(), FakeHost({"test -s /run/flannel/subnet.env": ""})
    assert flannel.release_early_pods(cluster, {"a": host, "b": host}, timeout=5) == 1  # type: ignore[arg-type]
    assert cluster.deleted == ["early"] and cluster.asked == 3 and len(host.ran) == 2


@pytest.mark.parametrize(
    ("cluster", "said"),
    [(_Cluster(late=99), "none yet for b"), (_Cluster(), r"subnet\.env on fake")],
    ids=["lease", "file"],
)
def test_a_flannel_that_does_not_run_is_named(cluster: _Cluster, said: str) -> None:
    host = FakeHost({"test -s /run/flannel/subnet.env": (1, "", "")})
    with pytest.raises(WaitTimeout, match=rf"{said}[^\n]*.*the newest warning in kube-flannel"):
        flannel.release_early_pods(cluster, {"a": host}, timeout=0.3)  # type: ignore[arg-type]
    assert not cluster.deleted


CAPTURE = """\
04:33:01.1 IP 192.168.98.3.51432 > 192.168.98.4.8472: OTV, flags [I] (0x08), overlay 0, instance 1
IP 10.244.0.5 > 10.244.1.7: ICMP echo request, id 1, seq 1, length 64
04:33:01.2 IP 192.168.98.4.43211 > 192.168.98.3.8472: OTV, flags [I] (0x08), overlay 0, instance 1
IP 10.244.1.7 > 10.244.0.5: ICMP echo reply, id 1, seq 1, length 64
"""


def test_captured_packets() -> None:
    there, back = flannel.parse_capture(CAPTURE)
    assert (there.outer_source, there.outer_target, there.outer_port, there.vni) == (
        "192.168.98.3",
        "192.168.98.4",
        8472,
        1,
    )
    assert (there.inner_source, there.inner_target, there.inner_protocol) == ("10.244.0.5", "10.244.1.7", "ICMP")
    assert back.inner_target == "10.244.0.5"
    assert flannel.parse_capture("nothing\n") == []


ROUTES = json.dumps([{"dst": "default", "gateway": "192.168.98.2", "dev": "eth0"},
                     {"dst": "10.244.1.0/24", "gateway": "10.244.1.0", "dev": "flannel.1"}])  # fmt: skip


def test_which_backend_carries_the_pod_network() -> None:
    host = FakeHost({"ip -j route": ROUTES})
    assert [b for b in flannel.BACKENDS if flannel.routed(host, b)] == ["vxlan"]
    direct = FakeHost({"ip -j route": ROUTES.replace("flannel.1", "eth0").replace('10.244.1.0"', '192.168.98.4"')})
    assert not flannel.routed(direct, "vxlan")


# services

NAT = """\
-A KUBE-SERVICES -d 10.0.0.9/32 -p tcp -m comment --comment "x" -m tcp --dport 80 -j KUBE-SVC-AAA
-A KUBE-SVC-AAA -m comment --comment "x -> 1" -m statistic --mode random --probability 0.33333333349 -j KUBE-SEP-1
-A KUBE-SVC-AAA -m comment --comment "x -> 2" -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-2
-A KUBE-SVC-AAA -m comment --comment "x -> 3" -j KUBE-SEP-3
-A KUBE-SEP-1 -p tcp -m tcp -j DNAT --to-destination 10.244.1.1:80
-A KUBE-SEP-2 -p tcp -m tcp -j DNAT --to-destination 10.244.1.2:80
-A KUBE-SEP-3 -p tcp -m tcp -j DNAT --to-destination 10.244.1.3:80
"""


def test_a_service_is_followed_to_its_endpoints_with_even_shares() -> None:
    hops = service_routing.chain_of(NAT, "10.0.0.9", 80)
    goals = [(h.target, round(h.share, 3)) for h in hops if h.match == "DNAT"]
    assert goals == [("10.244.1.1:80", 0.333), ("10.244.1.2:80", 0.333), ("10.244.1.3:80", 0.333)]
    with pytest.raises(CheckFailed, match="no rule"):
        service_routing.chain_of(NAT, "10.0.0.8", 80)
    with pytest.raises(CheckFailed, match="has no destination"):
        service_routing.chain_of(NAT.replace("10.244.1.2:80", ""), "10.0.0.9", 80)


# machines


def test_twins_are_named_and_empty_values_are_nobodys() -> None:
    a = Identity("a", "n", "m", "u", "i", "10.0.0.1/24")
    b = Identity("b", "n", "m", "u", "i", "10.0.0.2/24")
    assert len(identity.twins([a, b])) == 4
    none = Identity("c", "c", "mc", "", "", "")
    other = Identity("d", "d", "md", "", "", "")
    assert identity.twins([none, other]) == []


def test_own_identities_are_stable_and_distinct() -> None:
    names = [f"k8s-node{n}" for n in range(1, 9)]
    assert len({identity.own_uuid("lab", n) for n in names} | {identity.own_uuid("other", n) for n in names}) == 16
    assert identity.own_machine_id("lab", "x") == identity.own_machine_id("lab", "x")
    assert len(identity.own_machine_id("lab", "x")) == 32


def test_the_guides_fstab_keeps_its_root() -> None:
    host = FakeHost(
        {"findmnt --verify --tab-file /tmp/stackbook-fstab": (1, "0 parse errors, 0 errors, 1 warning\n", ""),
         "rm -f /tmp/stackbook-fstab": ""}
    )  # fmt: skip
    assert guide_commands.fstab(host) == {
        "swap lines left": 0, "root line kept": True, "parse errors by findmnt --verify": 0
    }  # fmt: skip


# images


def archive(path: Path, index: object) -> Path:
    data = json.dumps(index).encode()
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo("index.json")
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    return path


def test_contents_of_an_archive(tmp_path: Path) -> None:
    good = {"manifests": [{"annotations": {"io.containerd.image.name": "a:1"}, "digest": "sha256:1"}]}
    assert image_import.contents(archive(tmp_path / "good", good)) == {"a:1": "sha256:1"}
    for broken in (archive(tmp_path / "none", {}), tmp_path / "absent"):
        with pytest.raises(CorruptArtifact):
            image_import.contents(broken)
    (tmp_path / "text").write_text("no tar")
    with pytest.raises(CorruptArtifact):
        image_import.contents(tmp_path / "text")


def test_an_image_of_the_same_name_with_other_content_is_lacking() -> None:
    listing = "REF TYPE DIGEST SIZE\na:1 manifest sha256:1 4 MiB\n"
    host = FakeHost({"ctr -n k8s.io images ls": listing})
    assert image_import.lacks(host, {"a:1": "sha256:1"}) == []
    assert image_import.lacks(host, {"a:1": "sha256:2", "b:1": "sha256:3"}) == ["a:1", "b:1"]


# the host as it was


def test_differences_are_found_in_both_directions() -> None:
    before = {"mounts": ["/a ext4", "/b tmpfs", "/b tmpfs"], "rules": []}
    after = {"mounts": ["/a ext4", "/b tmpfs"], "rules": ["nat -A X"]}
    found = {str(d) for d in reset.compare(before, after)}
    assert found == {"mounts: missing: /b tmpfs", "rules: left over: nat -A X"}
    assert reset.compare(before, before) == []


def test_rules_without_counters_and_without_the_kernels_own_chains() -> None:
    text = "*filter\n:INPUT ACCEPT [10:20]\n:FORWARD DROP [0:0]\n:MINE - [0:0]\n[5:6] -A INPUT -j MINE\nCOMMIT\n"
    assert reset.parse_rules(text, "filter") == ["filter :FORWARD DROP", "filter :MINE -", "filter -A INPUT -j MINE"]


# istio


def test_operator_for_upstream_envoy_leaves_out_istios_own_filters() -> None:
    source = istio.ImageSource(hub="h", tag="t", upstream_envoy=True)
    spec = yaml.safe_load(istio.operator("demo", source))["spec"]
    assert (spec["hub"], spec["tag"], spec["values"]["telemetry"]["enabled"]) == ("h", "t", False)
    assert spec["values"]["pilot"]["env"]["PILOT_ENABLE_METADATA_EXCHANGE"] == "false"
    assert spec["meshConfig"]["defaultConfig"]["drainDuration"] == istio.DRAIN
    official = yaml.safe_load(istio.operator("demo", istio.ImageSource("h", "t")))["spec"]
    assert official["tag"] == "t" and "telemetry" not in official["values"]


@pytest.mark.parametrize(
    ("sidecar_ready", "expected"), [(True, "2/2"), (False, "1/2")]
)  # fmt: skip
def test_ready_column_counts_native_sidecars(sidecar_ready: bool, expected: str) -> None:
    pod = {
        "spec": {"containers": [{"name": "app"}],
                 "initContainers": [{"name": "istio-init"}, {"name": "istio-proxy", "restartPolicy": "Always"}]},
        "status": {"containerStatuses": [{"name": "app", "ready": True}],
                   "initContainerStatuses": [{"name": "istio-init", "ready": True},
                                             {"name": "istio-proxy", "ready": sidecar_ready}]},
    }  # fmt: skip
    assert istio.ready_column(pod) == expected


# the product page


def _asked(status: str, log: str) -> Any:
    """A lab whose ingress answers so, and whose proxies have this log."""
    entry = json.dumps(
        {"response_code": 503, "response_flags": "UC", "start_time": "T", "upstream_host": "10.0.0.1:9080"}
    )
    result = Result(("x",), 0, f"<h1>Simple Bookstore App</h1>\n{status}", "", 0.1)
    return SimpleNamespace(
        ingress="http://192.0.2.1",
        local=SimpleNamespace(run=lambda *args, **more: result),
        kube=SimpleNamespace(kubectl=lambda *args, **more: Result(args, 0, f"plain\n{entry if log else ''}", "", 0.1)),
    )


def test_a_page_that_does_not_open_is_told_with_what_the_proxies_noted() -> None:
    assert checks._page(_asked("200", "")) == "200"
    with pytest.raises(CheckFailed, match=r"the ingress answers 503: .*; productpage-v1 T UC None 10\.0\.0\.1:9080"):
        checks._page(_asked("503", "entry"))
    with pytest.raises(CheckFailed, match="the ingress answers 503: "):
        checks._page(_asked("503", ""))


def test_a_log_that_cannot_be_read_does_not_hide_that_the_page_does_not_open() -> None:
    lab = _asked("503", "")
    for answer in (lambda *args, **more: Result(args, 0, '{"cut in ', "", 0.1), _refused):
        lab.kube.kubectl = answer
        with pytest.raises(CheckFailed, match="the ingress answers 503: "):
            checks._page(lab)


def _refused(*args: str, **more: Any) -> Result:
    raise CommandFailed(Result(args, 1, "", "not found", 0.1))


@pytest.mark.parametrize(("target", "holds"), [("vm", True), ("embedded", False)])
def test_only_a_slow_virtual_machine_is_asked_again_whether_its_api_server_is_ready(target: str, holds: bool) -> None:
    answers = iter([False, True])
    lab = SimpleNamespace(profile=SimpleNamespace(target=target), kube=SimpleNamespace(ready=lambda: next(answers)))
    assert checks._answers(lab) is holds  # type: ignore[arg-type]
