"""Installing Istio as chapter 05 does: try the guide's commands, install the profile, and the addons where possible."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from stackbook.config.namespaces import here
from stackbook.config.registries import full_name
from stackbook.core import yaml_text
from stackbook.core.errors import CommandFailed, WaitTimeout
from stackbook.mesh import bookinfo, envoy_admin, istio, learners_mesh

if TYPE_CHECKING:
    from stackbook.lab.lab import Lab
    from stackbook.lab.step import Step

DUTIES = {
    "istiod": "configures every proxy, validates configuration, signs certificates",
    "istio-ingressgateway": "lets requests in",
    "istio-egressgateway": "lets requests out, when they are routed to it",
}
DOWNLOAD: list[dict[str, str]] = [
    {"the guide": "curl -L https://istio.io/downloadIstio | sh -",
     "today": "curl -L https://istio.io/downloadIstio | ISTIO_VERSION=$ISTIO_VERSION TARGET_ARCH=x86_64 sh -"},
    {"the guide": "cd istio-1.7.0", "today": "cd istio-$ISTIO_VERSION"},
    {"the guide": "vim ~/.config/fish/config.fish: set -x PATH ~/Code/istio-1.7.0/bin $PATH",
     "today": "fish_add_path ~/istio-$ISTIO_VERSION/bin"},
]  # fmt: skip
ADDON_COMMANDS: list[dict[str, str]] = [
    {"the guide": "kubectl apply -f samples/addons", "today": "the same: Grafana, Jaeger, Kiali, Loki and Prometheus"},
    {"the guide": "while ! kubectl wait … deployment/kiali; do sleep 1; done",
     "today": "kubectl -n istio-system rollout status deploy/kiali --timeout=600s (the loop never ends if kiali does not start)"},
    {"the guide": "kubectl -n istio-system get svc kiali", "today": "ClusterIP, 20001 and 9090: istioctl dashboard kiali"},
    {"the guide": "kubectl -n istio-system get svc grafana", "today": "ClusterIP, 3000: istioctl dashboard grafana"},
    {"the guide": "kube get svc productpage", "today": "kubectl -n istio-system get svc tracing: istioctl dashboard jaeger"},
]  # fmt: skip


def commands(lab: Lab) -> list[dict[str, Any]]:
    """Try the guide's istioctl commands: which of them still exist."""
    wanted = f"{lab.artifacts.version('istio')}"
    version = lab.istioctl("version", "--remote=false", check=False)
    profiles = lab.istioctl("profile", "list", check=False)
    images = source(lab)
    flags = [f"profile={lab.profile.istio_profile}", f"hub={images.hub}", f"tag={images.tag}"]
    generated = lab.istioctl("manifest", "generate", *(part for f in flags for part in ("--set", f)), check=False)
    deployments = len(re.findall(r"^kind: Deployment$", generated.stdout, re.MULTILINE))
    manifest = lab.istioctl("manifest", "--help", check=False).stdout
    install = lab.istioctl("install", "--help", check=False)
    count = 3 if lab.profile.istio_profile == "demo" else 1
    return [
        {"istioctl …": "version --remote=false", "today": f"client version: {wanted}",
         "as expected": wanted in version.stdout},
        {"istioctl …": "profile list", "today": "no such command since 1.24",
         "as expected": not profiles.ok and "unknown command" in profiles.stderr + profiles.stdout},
        {"istioctl …": "manifest generate (for profile dump)", "today": f"{count} Deployments",
         "as expected": deployments >= count},
        {"istioctl …": "manifest apply", "today": "no such command since 1.7",
         "as expected": "generate" in manifest and not re.search(r"^\s+apply\b", manifest, re.MULTILINE)},
        {"istioctl …": "install", "today": "its successor", "as expected": install.ok},
    ]  # fmt: skip


def fish_path(lab: Lab) -> dict[str, bool]:
    """Put istioctl on fish's path on the control plane's machine, and look it up in a new shell (C37 to C39, F10)."""
    if lab.profile.target == "cluster":
        return {"fish finds it": True}
    host = lab.control_plane
    folder = "/root/istio/bin"
    if not host.run(["test", "-x", f"{folder}/istioctl"], check=False).ok:
        host.put(lab.artifacts.path("istioctl"), f"{folder}/istioctl", mode=0o755)
    environment = {"HOME": "/root"}
    host.run(["fish", "-c", f"fish_add_path {folder}"], env=environment, check=False)  # status 1 if it is there already
    found = host.run(["fish", "-c", "command -s istioctl"], env=environment, check=False)
    on_path = host.run(["fish", "-c", "contains (dirname (command -s istioctl)) $PATH"], env=environment, check=False)
    return {
        "fish finds it": found.stdout.strip() == f"{folder}/istioctl",
        "its folder is in $PATH of a new shell": on_path.ok,
    }


def source(lab: Lab) -> istio.ImageSource:
    """The registry and tag that Istio's images have in this lab."""
    name, _, tag = lab.images.reference("pilot").rpartition(":")
    return istio.ImageSource(hub=name.rpartition("/")[0], tag=tag, upstream_envoy=lab.images.upstream_envoy)


def install(lab: Lab, step: Step) -> int:
    """Run `istioctl install` unless this configuration is installed already; returns the number of changes.

    An existing cluster keeps its mesh. There, this checks the mesh, and starts the learner's own gateways.

    Raises:
        WaitTimeout: the pods did not become available; the error names the pod and the reason.
        CommandFailed: istioctl refused.
    """
    if lab.profile.target == "cluster":
        return learners_mesh.join(lab)
    text = istio.operator(lab.profile.istio_profile, source(lab))
    mark = bookinfo.fingerprint(text)
    wanted = istio.COMPONENTS if lab.profile.istio_profile == "demo" else istio.COMPONENTS[:1]
    if istio.installed(lab.kube, mark):
        istio.wait_installed(lab.kube, wanted, timeout=90)
        return 0
    path = lab.state / "istio-operator.yaml"
    lab.local.write(str(path), text)
    step.progress("istioctl install: usually 20 s if the images are loaded")
    answer = lab.istioctl("install", "-f", str(path), "-y", "--readiness-timeout=180s", check=False, timeout=240)
    if not answer.ok:
        cause = lab.kube.explain(istio.NAMESPACE) if "timed out" in answer.stderr else ""
        if cause:
            raise WaitTimeout("istioctl install", answer.seconds, last=answer.stderr.strip()[-200:], cause=cause)
        raise CommandFailed(answer)
    istio.wait_installed(lab.kube, wanted, timeout=120)
    istio.remember(lab.kube, mark)
    return 1


def flavour(lab: Lab) -> str:
    """Say in one sentence which build of Envoy the proxies run."""
    answer = envoy_admin.ask(
        lab.kube, "deploy/istio-ingressgateway", "server_info", namespace=here().gateways, container=""
    )
    version = re.search(r'"version":\s*"([^"]+)"', answer)
    number = version.group(1).split("/")[1] if version and version.group(1).count("/") > 1 else "?"
    if lab.images.upstream_envoy:
        return (
            f"The proxy is upstream Envoy {number}, a C++ program, without Istio's own filters: "
            "istio_requests_total does not exist here, and Envoy's own counters take its place."
        )
    return f"The proxy is Istio's own build of Envoy {number}, a C++ program: istio_requests_total exists."


def label(lab: Lab) -> int:
    """Label the namespace for injection (C44); returns the number of changes. An administrator has labelled a learner's."""
    if lab.profile.target == "cluster":
        learners_mesh.demand_injection(lab.kube)
        return 0
    answer = lab.kube.kubectl("label", "namespace", "default", "istio-injection=enabled", "--overwrite")
    return 0 if "not labeled" in answer.stdout else 1


def addons(lab: Lab, step: Step) -> list[dict[str, str]]:
    """Install the addons whose images can be pulled; returns for each what was done.

    Prometheus and Jaeger have their own chapters, which install them on every lab under the addons' names.
    """
    later = {
        "prometheus": "chapter 10 installs it under the same name",
        "jaeger": "chapter 11 installs it under the same name",
    }
    instead = {"kiali": "not installed: after chapter 10, stackbook open kiali shows it"}
    rows: list[dict[str, str]] = []
    if lab.profile.target == "cluster":
        return [
            {"addon": name, "here": "not installed: istio-system belongs to the administrator"} for name in istio.ADDONS
        ]
    folder = lab.artifacts.path("istio-addons") if lab.profile.images != "preload" else None
    for name in istio.ADDONS:
        if name in later:
            rows.append({"addon": name, "here": later[name]})
            continue
        text = (folder / f"{name}.yaml").read_text(encoding="utf-8") if folder else ""
        if why := _not_pulled(lab, text):
            step.note(**{f"{name}_not_installed": why})
            rows.append({"addon": name, "here": instead.get(name, "not installed: its image cannot be pulled here")})
            continue
        step.changed += lab.kube.apply(text)
        kind = "statefulset" if name == "loki" else "deployment"
        lab.kube.wait_rollout(istio.NAMESPACE, f"{kind}/{name}", timeout=600)
        rows.append({"addon": name, "here": f"istioctl dashboard {name}"})
    return rows


def addon_services(lab: Lab) -> dict[str, dict[str, Any]]:
    """The `spec` of the addons' Services with a page, as this cluster makes them: kiali, grafana and tracing.

    Grafana's exists while it is looked at, if it is not installed. The other two are tried by the API server only, because
    chapters 10 and 11 have Services with their names. None on a cluster of somebody else's.
    """
    if lab.profile.target == "cluster":
        return {}
    found = {}
    for file, name in (("kiali", "kiali"), ("grafana", "grafana"), ("jaeger", "tracing")):
        (service,) = (d for d in _documents(lab, file) if d["kind"] == "Service" and d["metadata"]["name"] == name)
        text = json.dumps(service)
        if name != "grafana":
            answer = lab.kube.kubectl("apply", "--dry-run=server", "-o", "json", "-f", "-", stdin=text)
            found[name] = json.loads(answer.stdout)["spec"]
            continue
        made = not lab.kube.kubectl("get", "service", name, "-n", istio.NAMESPACE, check=False).ok
        if made:
            lab.kube.apply(service)
        try:
            found[name] = lab.kube.json("get", "service", name, "-n", istio.NAMESPACE)["spec"]
        finally:
            if made:
                lab.kube.delete(service)
    return found


def addon_objects(lab: Lab) -> list[str]:
    """The objects of samples/addons, as kubectl names them after it has checked each by this cluster's schemas."""
    folder = lab.artifacts.path("istio-addons")
    answer = lab.kube.kubectl("create", "--dry-run=client", "--validate=strict", "-o", "name", "-f", str(folder))
    return answer.stdout.split()


def dashboards(lab: Lab) -> list[str]:
    """The titles of the dashboards in Grafana's manifest, sorted."""
    maps = [d for d in _documents(lab, "grafana") if d["kind"] == "ConfigMap"]
    texts = [text for d in maps for name, text in d["data"].items() if name.endswith("dashboard.json")]
    return sorted(str(json.loads(text)["title"]) for text in texts)


def _documents(lab: Lab, name: str) -> list[dict[str, Any]]:
    text = (lab.artifacts.path("istio-addons") / f"{name}.yaml").read_text(encoding="utf-8")
    return [document for document in yaml_text.load_all(text) if document]


def _not_pulled(lab: Lab, manifest: str) -> str:
    """Why an addon's images cannot be pulled; empty if they can be."""
    if not manifest:
        return "the profile does not let the lab pull images"
    images = dict.fromkeys(re.findall(r"^\s*-?\s*image:\s*\"?([^\s\"]+)", manifest, re.MULTILINE))
    reasons = (lab.images.registries.why_not(full_name(image)) for image in images)
    return next(filter(None, reasons), "") if images else "its manifest names no image"
