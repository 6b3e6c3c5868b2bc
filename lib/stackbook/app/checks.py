"""What each chapter leaves behind, as named checks on the live lab.

The same checks are a chapter's postconditions, later chapters' preconditions, and the runner's proof that a chapter
need not run again. A check returns its evidence, and raises an error if the claim does not hold.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

from stackbook.app import system_checks
from stackbook.app.claim import Check, require
from stackbook.cluster import addresses, flannel, kubeadm
from stackbook.cluster.problems import node_problem
from stackbook.config.namespaces import here
from stackbook.core.errors import CheckFailed, StackbookError, WaitTimeout
from stackbook.core.waiting import until
from stackbook.lessons.kubeadm.control_plane import components
from stackbook.machines import facts
from stackbook.mesh import bookinfo, istio

if TYPE_CHECKING:
    from stackbook.lab.lab import Lab


def of(chapter: str) -> tuple[Check, ...]:
    """The checks of a chapter; on an existing cluster, checks of machines pass without reading anything."""
    return _CHECKS.get(chapter, ())


# 00


def _host_fit(lab: Lab) -> str:
    from stackbook.app.preflight import unmet

    problems = unmet(lab.profile)
    require(not problems, "; ".join(f"{p.name}: {p.found}" for p in problems), fix="; ".join(p.fix for p in problems))
    return "every requirement is met"


# 01


def _machines_run(lab: Lab) -> str:
    if lab.profile.target == "cluster":
        return "an existing cluster: its machines are not the lab's"
    names = list(lab.machines)
    for name, host in lab.machines.items():
        require(facts.HOSTNAME.read(host) == name, f"the host name of {name} is {facts.HOSTNAME.read(host)}")
    return ", ".join(names)


def _machines_differ(lab: Lab) -> str:
    from stackbook.machines.identity import identities, twins

    found = twins(identities(lab.machines))
    require(not found, "; ".join(found))
    return "no two machines share a name, a MAC, a product_uuid or a machine-id"


def _machines_prepared(lab: Lab) -> str:
    from stackbook.machines import operations

    for name, host in lab.machines.items():
        swap = facts.SWAP.read(host) if not lab.contained else ()
        require(not swap, f"{name} has swap: {', '.join(swap)}", fix="run chapter 01")
        waiting = operations.pending(host, operations.sysctls(kubeadm.SYSCTLS))
        require(not waiting, f"{name}: not done yet: {waiting[0] if waiting else ''}", fix="run chapter 01")
        require(facts.unit_state("containerd").read(host)[0] == "active", f"containerd does not run on {name}")
    return "swap off, forwarding on, containerd runs"


# 02


def _answers(lab: Lab) -> bool:
    """Whether the API server is ready. On a virtual machine without KVM it may be too busy for a while, so it is asked again."""
    patience = 60.0 if lab.profile.target == "vm" else 0.0
    with contextlib.suppress(WaitTimeout):
        return until(lab.kube.ready, what="the API server to answer /readyz with ok", timeout=patience, every=1.0)
    return False


def _control_plane(lab: Lab) -> str:
    require(_answers(lab), "the API server does not answer /readyz with ok", fix="run chapter 02")
    if lab.profile.target == "cluster":
        return "readyz: ok"
    for row in components(lab):
        require(row["healthy"], f"{row['component']} does not report that it is healthy")
        require(
            row["started by"] == "the kubelet, from a file", f"{row['component']} was started by {row['started by']}"
        )
    return "readyz: ok; four static pods healthy"


def _registered(lab: Lab) -> str:
    names = {n["metadata"]["name"] for n in lab.kube.nodes()}
    wanted = {n.name for n in lab.profile.nodes} if lab.profile.target != "cluster" else names
    require(bool(names) and wanted <= names, f"not registered as nodes: {', '.join(sorted(wanted - names))}")
    return ", ".join(sorted(names))


# 03


def _nodes_ready(lab: Lab) -> str:
    nodes = lab.kube.nodes()
    problems = {n["metadata"]["name"]: node_problem(n) for n in nodes if node_problem(n)}
    require(
        bool(nodes) and not problems, "; ".join(f"{k}: {v}" for k, v in problems.items()) or "the cluster has no nodes"
    )
    return ", ".join(n["metadata"]["name"] for n in nodes)


def _dns_answers(lab: Lab) -> str:
    kube = lab.kube
    if lab.profile.target == "cluster":
        ready = addresses.endpoints(kube, "kube-system", "kube-dns", ready=True)
        require(bool(ready), "the service kube-dns has no endpoint that is ready")
        return f"{len(ready)} endpoints of kube-dns are ready"
    name = "kubernetes.default.svc.cluster.local"
    host = lab.machines[lab.profile.nodes[-1].name]
    answer = host.run(["busybox", "nslookup", name, lab.profile.dns_address], check=False, timeout=10)
    require(
        lab.profile.service_address in answer.stdout,
        f"{lab.profile.dns_address} does not resolve {name}: {(answer.stdout + answer.stderr).strip()[-200:]}",
    )
    return f"{name} → {lab.profile.service_address}"


def _backend(lab: Lab) -> str:
    if lab.profile.target == "cluster":
        return "the cluster's own pod network"
    backend = flannel.running_backend(lab.kube)
    require(
        backend == lab.profile.flannel_backend,
        f"flannel runs {backend or 'no backend'}, but the profile says {lab.profile.flannel_backend}",
        fix="run chapter 03",
    )
    found = {lease.node: lease.backend for lease in flannel.leases(lab.kube)}
    require(set(found.values()) == {backend}, f"the leases say {found}, but the configuration says {backend}")
    return backend


# 05


def _istio(lab: Lab) -> str:
    state = istio.components(lab.kube)
    if lab.profile.target == "cluster":  # the mesh is somebody else's; the gateways are the learner's
        state = {istio.ISTIOD: bool(state.get(istio.ISTIOD)), **istio.components(lab.kube, here().gateways)}
    whole = lab.profile.istio_profile == "demo" or lab.profile.target == "cluster"
    wanted = istio.COMPONENTS if whole else istio.COMPONENTS[:1]
    missing = [name for name in wanted if not state.get(name)]
    require(not missing, f"components of Istio are not available: {', '.join(missing)}", fix="run chapter 05")
    return ", ".join(sorted(state))


def _bookinfo(lab: Lab) -> str:
    pods = lab.kube.pods(here().workloads, bookinfo.SELECTOR)
    pairs = {(p["metadata"]["labels"]["app"], p["metadata"]["labels"]["version"]) for p in pods}
    wanted = {(name, version) for name, _, version in (w.rpartition("-") for w in bookinfo.WORKLOADS)}
    gone = ", ".join("-".join(pair) for pair in sorted(wanted - pairs))
    require(pairs >= wanted, f"there is no pod of {gone}", fix="run chapter 05")
    columns = {p["metadata"]["name"]: istio.ready_column(p) for p in pods}
    wrong = [f"{name} {column}" for name, column in columns.items() if column != "2/2"]
    require(set(columns.values()) == {"2/2"}, f"pods that are not 2/2: {', '.join(wrong)}")
    return "six pods, all 2/2"


def _page(lab: Lab) -> str:
    # Retried after a 503: see `istio.DRAIN`, which a mesh other than the lab's own may not have.
    patient = ["--retry", "2", "--retry-delay", "1"]
    answer = lab.local.run(
        ["curl", "-sS", "-m", "10", *patient, "-w", "\n%{http_code}", f"{lab.ingress}/productpage"],
        check=False,
    )
    body, _, status = answer.stdout.rpartition("\n")
    if status != "200":
        said = (answer.stderr or body).strip()[-200:]
        raise CheckFailed(f"the ingress answers {status or 'nothing'}: {said}{_refusals(lab)}")
    require("Simple Bookstore App" in body, "the ingress answers with a page, but it is not bookinfo's")
    return "200"


def _refusals(lab: Lab) -> str:
    """What the proxies on the way to the product page logged about their last failures, for an error's text."""
    names = ("start_time", "response_flags", "response_code_details", "upstream_host")
    found = []
    with contextlib.suppress(
        StackbookError, ValueError
    ):  # a log that cannot be read must not hide that the page does not open
        for workload, namespace in (
            ("istio-ingressgateway", here().gateways),
            ("productpage-v1", here().workloads),
        ):
            log = lab.kube.kubectl("logs", "-n", namespace, f"deploy/{workload}", "-c", "istio-proxy", "--since=30s")
            entries = [json.loads(line) for line in log.lines if line.startswith("{")]
            failed = [entry for entry in entries if entry.get("response_code", 0) >= 500]
            found += [f"; {workload} {' '.join(str(entry.get(name)) for name in names)}" for entry in failed[-3:]]
    return "".join(found)


# 06 and 07


def _rules(lab: Lab) -> str:
    from stackbook.traffic.sharing import given_back

    return given_back(lab)


# 99


def _host_clean(lab: Lab) -> str:
    from stackbook.app.reset import leftovers

    found = leftovers(lab.profile)
    require(not found, "; ".join(found))
    return "nothing of the lab is left"


_CHECKS: dict[str, tuple[Check, ...]] = {
    "00-preflight": (Check("host", "this host can carry the lab", _host_fit),),
    "01-machines": (
        Check("running", "every machine runs under its own name", _machines_run),
        Check("distinct", "no two machines share a name, a MAC, a product_uuid or a machine-id", _machines_differ),
        Check("prepared", "swap is off, packets are forwarded, containerd runs", _machines_prepared),
    ),
    "02-kubeadm": (
        Check("control-plane", "the control plane is healthy", _control_plane),
        Check("registered", "every machine is registered as a node", _registered),
    ),
    "03-flannel": (
        Check("ready", "every node is Ready", _nodes_ready),
        Check("backend", "the pod network runs the profile's backend", _backend),
        Check("dns", "the cluster's DNS answers", _dns_answers),
    ),
    "05-istio": (
        Check("istio", "Istio's components are available", _istio),
        Check("bookinfo", "six bookinfo pods are 2/2", _bookinfo),
        Check("page", "the product page opens through the ingress gateway", _page),
    ),
    "06-traffic": (Check("rules", "the traffic rules are restored", _rules),),
    "07-faults": (Check("rules", "the traffic rules are restored", _rules),),
    "10-metrics": (Check("scraped", "Prometheus scrapes every proxy, kubelet and istiod", system_checks.scraped),),
    "11-tracing": (
        Check("jaeger", "Jaeger answers under the names of Istio's addon", system_checks.jaeger),
        Check("traced", "every proxy of bookinfo sends its spans to Jaeger", system_checks.traced),
    ),
    "12-logs": (
        Check("guarded", "Elasticsearch asks for TLS and a password", system_checks.logs_guarded),
        Check("current", "a search finds the newest line of every machine", system_checks.logs_current),
        Check("kept", "old lines are deleted", system_checks.logs_kept),
    ),
    "14-ecosystem": (
        Check("kafka", "Kafka keeps a message that is written, and a group reads it", system_checks.kafka),
        Check("shop", "the bookshop takes an order, and a consumer hears of it", system_checks.shop),
    ),
    "16-incident": (Check("closed", "no incident is open, and bookinfo is healthy", system_checks.no_incident),),
    "99-reset": (Check("clean", "nothing of the lab is left on this host", _host_clean),),
}
