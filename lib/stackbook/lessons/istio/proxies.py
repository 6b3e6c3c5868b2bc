"""Chapter 05's proofs about the mesh's proxies."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from stackbook.config.namespaces import here
from stackbook.core.errors import CheckFailed
from stackbook.core.waiting import until
from stackbook.mesh import bookinfo, istio, rules

if TYPE_CHECKING:
    from stackbook.lab.lab import Lab

_IN_STEP = ("SYNCED", "NOT_SENT", "UNKNOWN", "–")


def without_injection(lab: Lab) -> list[dict[str, Any]]:
    """Each workload's application image in its Deployment and in its injected pod (K73)."""
    deployments = lab.kube.json("get", "deployments", "-n", here().workloads)["items"]
    asked = {d["metadata"]["name"]: d["spec"]["template"]["spec"]["containers"] for d in deployments}
    rows = []
    for pod in lab.kube.pods(here().workloads):
        labels = pod["metadata"]["labels"]
        name = f"{labels.get('app', '')}-{labels.get('version', '')}"
        if name not in asked:
            continue
        own = next(c for c in pod["spec"]["containers"] if c["name"] != "istio-proxy")
        rows.append({"workload": name, "containers in the Deployment": len(asked[name]),
                     "same application image": own["image"] == asked[name][0]["image"]})  # fmt: skip
    return sorted(rows, key=lambda r: str(r["workload"]))


def redirections(lab: Lab, app: str = "productpage") -> list[dict[str, str]]:
    """The rules in a pod's network namespace that redirect its traffic to Envoy (K83), read from its node."""
    from stackbook.lessons.flannel.packet_path import container_pid

    pod = lab.kube.pods(here().workloads, f"app={app}")[0]
    host = lab.machines[pod["spec"]["nodeName"]]
    pid = container_pid(host, pod)
    text = host.run(["nsenter", "-t", str(pid), "-n", "iptables-save", "-t", "nat"]).stdout
    rows = []
    for port, meaning in (("15001", "outbound: everything the application sends"),
                          ("15006", "inbound: everything sent to the application")):  # fmt: skip
        found = re.search(rf"^-A (\S+) -p tcp -j REDIRECT --to-ports {port}$", text, re.MULTILINE)
        rows.append({"chain": found.group(1) if found else "", "to port": port, "what": meaning})
    own = re.search(r"^-A \S+ -m owner --uid-owner 1337 .*-j RETURN$", text, re.MULTILINE)
    rows.append({"chain": "ISTIO_OUTPUT", "to port": "–", "what": "not redirected: what Envoy itself (user 1337) sends"
                 if own else ""})  # fmt: skip
    return rows


def proxy_status(lab: Lab) -> list[dict[str, Any]]:
    """Each proxy's configuration according to istiod: synced or not, by kind (K78).

    On an existing cluster it asks istiod's debug interface, because `istioctl proxy-status` needs tokens of istio-system.
    """
    if lab.profile.target == "cluster":
        return [_from_istiod(id, proxy) for id, proxy in sorted(rules.proxies(lab.kube).items())]
    data = json.loads(lab.istioctl("proxy-status", "-o", "json", timeout=60).stdout)
    rows = []
    for proxy in data["resources"] if isinstance(data, dict) else data:
        states = _sync_states(proxy)
        name = _proxy_name(proxy)
        rows.append({"proxy": _without_suffix(name), **states})
    return sorted(rows, key=lambda r: str(r["proxy"]))


def _from_istiod(id: str, proxy: rules.Proxy) -> dict[str, Any]:
    kinds = {"Cluster": "CDS", "Listener": "LDS", "ClusterLoadAssignment": "EDS", "RouteConfiguration": "RDS"}
    states = {short: "STALE" if proxy.rejected or kind in proxy.pending else "SYNCED" for kind, short in kinds.items()}
    return {"proxy": _without_suffix(id), **states}


def _without_suffix(name: str) -> str:
    return re.sub(r"-[0-9a-z]{6,10}-[a-z0-9]{5}\b", "", name)


def _proxy_name(proxy: dict[str, Any]) -> str:
    node = proxy.get("node") or {}
    identifier = str(node.get("id") or proxy.get("proxy") or "")
    parts = identifier.split("~")
    return parts[2] if len(parts) > 2 else identifier


def _sync_states(proxy: dict[str, Any]) -> dict[str, str]:
    kinds = {"Cluster": "CDS", "Listener": "LDS", "ClusterLoadAssignment": "EDS", "RouteConfiguration": "RDS"}
    found = dict.fromkeys(kinds.values(), "–")
    for entry in proxy.get("genericXdsConfigs", []):
        kind = str(entry.get("typeUrl", "")).rpartition(".")[2]
        if kind in kinds:
            found[kinds[kind]] = str(entry.get("configStatus", ""))
    return found


def identity(lab: Lab, target: str = "deploy/productpage-v1") -> list[dict[str, Any]]:
    """The certificates of a proxy: name, state, and SPIFFE identity (K80)."""
    data = json.loads(lab.istioctl("proxy-config", "secret", target, "-o", "json", timeout=60).stdout)
    rows = []
    for secret in data.get("dynamicActiveSecrets", []):
        chain = secret.get("secret", {}).get("tlsCertificate", {}).get("certificateChain", {}).get("inlineBytes", "")
        rows.append({"secret": secret["name"], "state": "ACTIVE", "identity": _spiffe(lab, chain)})
    return sorted(rows, key=lambda r: str(r["secret"]))


def _spiffe(lab: Lab, chain: str) -> str:
    import base64

    if not chain:
        return ""
    pem = base64.b64decode(chain).decode()
    text = lab.local.run(["openssl", "x509", "-noout", "-ext", "subjectAltName"], stdin=pem).stdout
    found = re.search(r"URI:(\S+)", text)
    return found.group(1) if found else ""


def rejected(lab: Lab) -> str:
    """The answer of istiod's validating webhook to a VirtualService without hosts (K79).

    Raises:
        CheckFailed: it was accepted.
    """
    bad = (
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: bad}\nspec: {http: [{route: []}]}\n"
    )
    answer = lab.kube.kubectl("apply", "--dry-run=server", "-f", "-", stdin=bad, check=False)
    if answer.ok:
        raise CheckFailed("a VirtualService without hosts was accepted")
    found = re.search(r"(validation\.istio\.io.*?denied the request: .*)", answer.stderr)
    return found.group(1) if found else answer.stderr.strip()


@contextmanager
def applied(lab: Lab, *objects: dict[str, Any]) -> Iterator[None]:
    """Apply objects while the block runs."""
    try:
        lab.kube.apply(list(objects))
        yield
    finally:
        lab.kube.delete(list(objects))


def clusters(lab: Lab, target: str = "deploy/productpage-v1") -> set[str]:
    """The names of a proxy's clusters: one for each destination that it knows."""
    data = json.loads(lab.istioctl("proxy-config", "cluster", target, "-o", "json", timeout=60).stdout)
    return {str(entry["name"]) for entry in data}


def _object(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": {"name": name, "namespace": here().workloads},
            "spec": spec}  # fmt: skip


def kinds_at_work(lab: Lab) -> list[dict[str, Any]]:
    """Apply five kinds of objects, find each in a proxy's configuration, and delete it again (K85 to K90)."""
    rows = []

    def see(kind: str, what: str, look: Any, *objects: dict[str, Any]) -> None:
        before = bool(look())
        with applied(lab, *objects):
            until(look, what=f"the effect of the {kind} in the proxy: {what}", timeout=30, every=0.1)
            meanwhile = bool(look())
        until(lambda: not look(), what=f"the effect of the {kind} to end: {what}", timeout=30, every=0.1)
        seen = {"before": before, "with it": meanwhile, "after": bool(look())}
        rows.append({"kind": kind, "what appears in the proxy": what, **seen})

    subsets = [{"name": v, "labels": {"version": v}} for v in ("v1", "v2", "v3")]
    rule = _object("DestinationRule", "trial-reviews", host="reviews", subsets=subsets)
    see("DestinationRule", "a cluster for each subset",
        lambda: {f"outbound|9080|{v}|{here().host('reviews')}" for v in ("v1", "v2", "v3")} <= clusters(lab), rule)  # fmt: skip
    weights = [{"destination": {"host": "reviews", "subset": v}, "weight": w} for v, w in (("v1", 35), ("v3", 65))]
    see("VirtualService", "the weights 35 and 65", lambda: _weights(lab) == {35, 65}, rule,
        _object("VirtualService", "trial-reviews", hosts=["reviews"], http=[{"route": weights}]))  # fmt: skip
    see("Gateway", "a listener on port 8099 of the ingress gateway", lambda: 8099 in _gateway_ports(lab),
        _object("Gateway", "trial", selector={"istio": here().gateway_label("ingressgateway")},
                servers=[{"port": {"number": 8099, "name": "http", "protocol": "HTTP"}, "hosts": ["trial.example"]}]),
        _object("VirtualService", "trial-gateway", hosts=["trial.example"], gateways=["trial"],
                http=[{"route": [{"destination": {"host": "productpage", "port": {"number": 9080}}}]}]))  # fmt: skip
    see("ServiceEntry", "a cluster for a host outside the mesh", lambda: "outbound|80||outside.example" in clusters(lab),
        _object("ServiceEntry", "trial-outside", hosts=["outside.example"], resolution="STATIC", location="MESH_EXTERNAL",
                ports=[{"number": 80, "name": "http", "protocol": "HTTP"}],
                endpoints=[{"address": lab.profile.gateway}]))  # fmt: skip
    see("Sidecar", "no cluster of kube-system any more",
        lambda: not any(".kube-system." in name for name in clusters(lab)),
        _object("Sidecar", "default", egress=[{"hosts": ["./*", "istio-system/*"]}]))  # fmt: skip
    return rows


def _weights(lab: Lab) -> set[int]:
    data = json.loads(lab.istioctl("proxy-config", "routes", "deploy/productpage-v1", "--name", "9080", "-o", "json",
                                   timeout=60).stdout)  # fmt: skip
    return {
        int(c["weight"])
        for config in data
        for host in config.get("virtualHosts", [])
        if host["name"].startswith("reviews.")
        for route in host.get("routes", [])
        for c in route.get("route", {}).get("weightedClusters", {}).get("clusters", [])
    }


def _gateway_ports(lab: Lab) -> set[int]:
    data = json.loads(lab.istioctl("proxy-config", "listeners", f"deploy/istio-ingressgateway.{here().gateways}", "-o",
                                   "json", timeout=60).stdout)  # fmt: skip
    return {int(x.get("address", {}).get("socketAddress", {}).get("portValue", 0)) for x in data}


def retry_policy(lab: Lab) -> int:
    """The number of retries in a proxy's default route to reviews (K74)."""
    data = json.loads(lab.istioctl("proxy-config", "routes", "deploy/productpage-v1", "--name", "9080", "-o", "json",
                                   timeout=60).stdout)  # fmt: skip
    for config in data:
        for host in config.get("virtualHosts", []):
            if host["name"].startswith("reviews."):
                policy = host["routes"][0]["route"].get("retryPolicy", {})
                return int(policy.get("numRetries", 0))
    raise CheckFailed("the proxy of productpage has no route to reviews")


def from_another_namespace(lab: Lab, namespace: str) -> str:
    """The HTTP status that productpage returns to a pod of another namespace without a sidecar (K35)."""
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "stranger", "namespace": namespace},
           "spec": {"terminationGracePeriodSeconds": 1, "containers": [
               {"name": "tools", "image": lab.images.reference("tools"), "imagePullPolicy": "IfNotPresent",
                "command": ["sleep", "600"]}]}}  # fmt: skip
    lab.kube.apply(pod)
    until(lambda: lab.kube.pods(namespace)[0]["status"].get("phase") == "Running", what="the pod stranger to run",
          timeout=60,
          cause=lambda: lab.kube.explain(namespace))  # fmt: skip
    answer = lab.kube.exec(
        namespace, "stranger", "curl", "-s", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}",
        f"http://productpage.{here().workloads}:9080/productpage", check=False, timeout=30,
    )  # fmt: skip
    return answer.stdout or answer.stderr.strip()[-100:]


def upstream_of_page(lab: Lab) -> tuple[str, int]:
    """The address to which the ingress gateway's Envoy sent the request for one page, from its access log (K67).

    Raises:
        WaitTimeout: the request's line did not appear.
    """
    import uuid

    mark = uuid.uuid4().hex  # in the path, because a gateway gives requests from outside a new id
    asked = f"{lab.ingress}/productpage?mark={mark}"
    lab.local.run(["curl", "--noproxy", "*", "-sSf", "-m", "10", "-o", "/dev/null", asked])

    def line() -> str:
        text = lab.kube.kubectl("logs", "-n", here().gateways, "deploy/istio-ingressgateway", "--tail=200").stdout
        return next((x for x in text.splitlines() if mark in x), "")

    entry = json.loads(until(line, what="the request in the gateway's access log", timeout=15, every=0.3))
    host, _, port = str(entry["upstream_host"]).rpartition(":")
    return host, int(port)


def synced(lab: Lab) -> list[dict[str, Any]]:
    """`proxy_status` of bookinfo's and the gateways' proxies, once all are connected and up to date.

    During a replacement, a pod and its successor can both be connected; each workload has one row.

    Raises:
        WaitTimeout: a proxy does not have what istiod sent, or is not connected; the error names it.
    """
    wanted = {f"{name}.{here().workloads}" for name in bookinfo.WORKLOADS}
    wanted |= {f"{name}.{here().gateways}" for name in istio.COMPONENTS if name != "istiod"}
    rows: dict[str, dict[str, Any]] = {}

    def behind() -> list[str]:
        found = [row for row in proxy_status(lab) if row["proxy"] in wanted]
        rows.clear()
        rows.update((str(row["proxy"]), row) for row in found)
        late = {str(r["proxy"]) for r in found for k in ("CDS", "LDS", "EDS", "RDS") if r[k] not in _IN_STEP}
        return sorted(late | (wanted - set(rows)))

    until(lambda: not behind(), what="every proxy to have its configuration", timeout=30, every=0.5,
          last=lambda: ", ".join(behind()))  # fmt: skip
    return list(rows.values())
