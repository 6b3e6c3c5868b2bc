"""Chapter 05: pods without a sidecar, a Gateway that no proxy serves, a proxy that knows too little."""

from __future__ import annotations

from collections.abc import Sequence

from stackbook.lab.attempt import Attempt
from stackbook.lab.challenge import Challenge, Claim, Typed, require
from stackbook.lessons.challenges import workloads
from stackbook.mesh import istio, rules
from stackbook.mesh.rules.builders import NETWORKING

_CHAPTER, _NEEDS = "05-istio", ("05-istio/istio",)


# 05-a


def _no_label(attempt: Attempt) -> None:
    how = attempt.draw("how", ["none", "disabled"])
    space = attempt.space()
    if how == "disabled":
        attempt.lab.kube.kubectl("label", "namespace", space, "istio-injection=disabled")
    attempt.apply(workloads.echo(attempt, sidecar=True), workloads.service())
    workloads.wait(attempt, 1)


def _label_claims(attempt: Attempt) -> Sequence[Claim]:
    kube = attempt.lab.kube

    def labelled() -> str:
        labels = kube.json("get", "namespace", attempt.namespace)["metadata"].get("labels", {})
        value = labels.get("istio-injection", "") or ("enabled" if "istio.io/rev" in labels else "missing")
        require(value == "enabled", f"istio-injection is {value}")
        return "istio-injection=enabled"

    def injected() -> str:
        found = workloads.pods(attempt, "app=shop")
        columns = [istio.ready_column(pod) for pod in found]
        require(found and set(columns) == {"2/2"}, f"READY is {', '.join(columns)}" if found else "shop has no pods")
        return "2/2"

    def connected() -> str:
        known = rules.proxies(kube)
        pods = {f"{pod['metadata']['name']}.{attempt.namespace}" for pod in workloads.pods(attempt, "app=shop")}
        missing = pods - set(known)
        require(pods and not missing, f"istiod knows no proxy of {', '.join(sorted(missing))}")
        return "connected"

    return [
        Claim("the namespace has injection enabled", labelled),
        Claim("every pod of shop is 2/2: the application and its proxy", injected),
        Claim("istiod knows the proxies", connected),
    ]


def _label_solution(attempt: Attempt) -> Sequence[Typed]:
    space = attempt.namespace
    return [
        Typed("kubectl get namespaces -L istio-injection"),
        Typed(f"kubectl label namespace {space} istio-injection=enabled --overwrite"),
        Typed(f"kubectl -n {space} rollout restart deployment/shop-v1"),
        Typed(f"kubectl -n {space} rollout status deployment/shop-v1 --timeout=90s"),
    ]


# 05-b


def _closed(attempt: Attempt) -> None:
    wrong = attempt.draw("selector", ["ingress", "ingressgateways", "gateway"])
    attempt.space()
    host = "shop.challenge.example"
    server = {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": [host]}
    gateway = {"apiVersion": NETWORKING, "kind": "Gateway", "metadata": {"name": "shop"},
               "spec": {"selector": {"istio": wrong}, "servers": [server]}}  # fmt: skip
    attempt.apply(
        workloads.echo(attempt),
        workloads.service(),
        gateway,
        rules.virtual_service("shop", rules.route(rules.to("shop", port=80)), hosts=[host], gateways=["shop"]),
    )
    workloads.wait(attempt, 1)


def _open_claims(attempt: Attempt) -> Sequence[Claim]:
    def selected() -> str:
        selector = workloads.there(attempt, "gateways.networking.istio.io", "shop")["spec"].get("selector", {})
        text = ",".join(f"{name}={value}" for name, value in selector.items())
        found = attempt.lab.kube.pods(istio.NAMESPACE, text) if text else []
        require(found, f"no pod has the labels {text or '(none)'}")
        return workloads.names(found)

    def page(host: str) -> str:
        argv = ["curl", "-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", "-H", f"Host: {host}"]
        return attempt.lab.local.run([*argv, f"{attempt.lab.ingress}/hostname.html"], check=False).stdout

    def opened() -> str:
        status = page("shop.challenge.example")
        require(status == "200", f"the ingress gateway answers {status}")
        return "200"

    def only() -> str:
        status = page("other.challenge.example")
        require(status != "200", "another host name gets the shop, too")
        return f"another host name gets {status}"

    return [
        Claim("the Gateway selects a pod of the mesh's ingress gateway", selected),
        Claim("a request for shop.challenge.example gets 200 from outside", opened),
        Claim("a request for another host name does not get 200", only),
    ]


def _open_solution(attempt: Attempt) -> Sequence[Typed]:
    space = attempt.namespace
    patch = '{"spec": {"selector": {"istio": "ingressgateway"}}}'
    return [
        Typed(f"istioctl analyze -n {space} || true"),
        Typed("kubectl -n istio-system get pods -L istio"),
        Typed(f"kubectl -n {space} patch gateways.networking.istio.io shop --type=merge -p '{patch}'"),
    ]


# 05-c


def _told_too_little(attempt: Attempt) -> None:
    hosts = attempt.draw("hosts", [["istio-system/*"], ["default/*"], ["istio-system/*", "default/*"]])
    attempt.space(mesh=True)
    sidecar = rules.sidecar("default", egress=hosts, registered_only=True)
    attempt.apply(workloads.echo(attempt), workloads.service(), sidecar, workloads.client(attempt))
    workloads.wait(attempt, 2)


def _told_claims(attempt: Attempt) -> Sequence[Claim]:
    space = attempt.namespace

    def known() -> str:
        done = attempt.lab.istioctl(
            "proxy-config", "cluster", "deploy/client-v1", "-n", space, "--fqdn", f"shop.{space}.svc.cluster.local",
            check=False, timeout=30,
        )  # fmt: skip
        require("shop" in done.stdout, "the client's proxy has no cluster for shop")
        return "it has a cluster for shop"

    def answered() -> str:
        found = workloads.ask(attempt, "http://shop/hostname.html", 10)
        require(found.share() == 1, str(found))
        return str(found)

    def strict() -> str:
        spec = workloads.there(attempt, "sidecars.networking.istio.io", "default")["spec"]
        mode = spec.get("outboundTrafficPolicy", {}).get("mode")
        require(mode == "REGISTRY_ONLY", f"the mode of outboundTrafficPolicy is {mode}, not REGISTRY_ONLY")
        return "REGISTRY_ONLY"

    def narrow() -> str:
        hosts = {h for e in workloads.there(attempt, "sidecars.networking.istio.io", "default")["spec"].get("egress", [])
                 for h in e.get("hosts", [])}  # fmt: skip
        wide = hosts & {"*/*", "~/*"}
        require(hosts and not wide, "the proxy knows the whole mesh")
        return ", ".join(sorted(hosts))

    return [
        Claim("the client's proxy knows the service shop", known),
        Claim("the client gets 200 from shop", answered),
        Claim("hosts that are not registered are still refused", strict),
        Claim("the proxy still knows only a part of the mesh", narrow),
    ]


def _told_solution(attempt: Attempt) -> Sequence[Typed]:
    space = attempt.namespace
    patch = '{"spec": {"egress": [{"hosts": ["./*", "istio-system/*"]}]}}'
    return [
        Typed(f"istioctl -n {space} proxy-config cluster deploy/client-v1 | head -20"),
        Typed(f"kubectl -n {space} get sidecars.networking.istio.io -o yaml"),
        Typed(f"kubectl -n {space} patch sidecars.networking.istio.io default --type=merge -p '{patch}'"),
    ]


CHALLENGES = (
    Challenge(
        id="05-a",
        chapter=_CHAPTER,
        title="A pod that the mesh does not know",
        situation="In the namespace challenge-05-a shop runs with one container in its pod. The mesh does not see its traffic.",
        goal="Every pod of shop has a proxy, and istiod knows it.",
        hints=(
            "When does a pod get its sidecar, and who decides that? Look at the namespace.",
            "Injection needs the label istio-injection=enabled on the namespace when a pod is created.",
            "Label the namespace, then run `kubectl -n challenge-05-a rollout restart deployment/shop-v1`.",
        ),
        begin=_no_label,
        claims=_label_claims,
        solution=_label_solution,
        needs=_NEEDS,
    ),
    Challenge(
        id="05-b",
        chapter=_CHAPTER,
        title="A Gateway that no proxy serves",
        situation="A Gateway in the namespace challenge-05-b should let in requests for shop.challenge.example. From outside, they "
        "get 404.",
        goal="A request with that host name gets 200 through the ingress gateway, and no other host name does.",
        hints=(
            "`istioctl analyze -n challenge-05-b` compares the objects with the pods and services that exist.",
            "A Gateway configures the pods that its selector chooses. Which labels does the ingress gateway's pod have?",
            "Set spec.selector to istio: ingressgateway, with `kubectl edit gateways.networking.istio.io shop`.",
        ),
        begin=_closed,
        claims=_open_claims,
        solution=_open_solution,
        needs=_NEEDS,
    ),
    Challenge(
        id="05-c",
        chapter=_CHAPTER,
        title="A proxy that knows too little",
        situation="In the namespace challenge-05-c the client gets no page from shop, although shop is Ready. No request reaches shop.",
        goal="The client reaches shop. Its proxy still refuses hosts that are not registered, and knows only a part of the mesh.",
        hints=(
            "`istioctl -n challenge-05-c proxy-config cluster deploy/client-v1`: which services does the client's proxy know?",
            "A Sidecar object limits what a proxy knows. Which hosts does the one in this namespace name?",
            'Add "./*", the proxy\'s own namespace, to the hosts, with `kubectl edit sidecars.networking.istio.io default`.',
        ),
        begin=_told_too_little,
        claims=_told_claims,
        solution=_told_solution,
        needs=_NEEDS,
    ),
)
