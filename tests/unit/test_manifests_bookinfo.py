from importlib.resources import files
from string import Template

import yaml

WORKLOADS = ["details-v1", "ratings-v1", "reviews-v1", "reviews-v2", "reviews-v3", "productpage-v1"]


def documents(name: str, **values: str) -> list[dict]:
    text = files("stackbook.cluster.manifests").joinpath(name).read_text()
    return list(yaml.safe_load_all(Template(text).substitute(values)))


def bookinfo() -> list[dict]:
    return documents("bookinfo.yaml", **{f"image_{w.replace('-', '_')}": f"lab/{w}:1" for w in WORKLOADS})


def test_bookinfo_has_the_samples_names_and_labels() -> None:
    by_kind: dict[str, list[dict]] = {}
    for document in bookinfo():
        by_kind.setdefault(document["kind"], []).append(document)
    assert [d["metadata"]["name"] for d in by_kind["Deployment"]] == WORKLOADS
    apps = ["details", "ratings", "reviews", "productpage"]
    assert [s["metadata"]["name"] for s in by_kind["Service"]] == apps
    assert [a["metadata"]["name"] for a in by_kind["ServiceAccount"]] == [f"bookinfo-{a}" for a in apps]
    assert all(s["spec"]["ports"] == [{"port": 9080, "name": "http"}] for s in by_kind["Service"])
    for deployment in by_kind["Deployment"]:
        app, version = deployment["metadata"]["name"].split("-")
        pod = deployment["spec"]["template"]
        labels = {"app": app, "version": version}
        assert deployment["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"] == labels
        assert pod["spec"]["serviceAccountName"] == f"bookinfo-{app}"
        (container,) = pod["spec"]["containers"]
        assert container["image"] == f"lab/{app}-{version}:1"
        env = {e["name"]: e["value"] for e in container["env"]}
        assert env["SERVICE"] == app
        assert env["SERVICE_VERSION"] == version
        assert pod["spec"]["terminationGracePeriodSeconds"] > int(env["DRAIN_SECONDS"])


def test_every_subset_selects_a_deployed_version() -> None:
    deployments = [d for d in bookinfo() if d["kind"] == "Deployment"]
    deployed = {tuple(sorted(d["spec"]["selector"]["matchLabels"].items())) for d in deployments}
    ruled = {
        tuple(sorted({"app": rule["spec"]["host"], **subset["labels"]}.items()))
        for rule in documents("destination-rule-all.yaml")
        for subset in rule["spec"]["subsets"]
    }
    assert ruled == deployed


def test_the_gateway_opens_the_guides_five_paths() -> None:
    gateway, service = documents("bookinfo-gateway.yaml")
    assert gateway["spec"]["servers"][0]["hosts"] == ["*"]
    uris = [next(iter(m["uri"].items())) for m in service["spec"]["http"][0]["match"]]
    assert uris == [
        ("exact", "/productpage"), ("prefix", "/static"), ("exact", "/login"), ("exact", "/logout"),
        ("prefix", "/api/v1/products"),
    ]  # fmt: skip


def test_myapp_runs_twice() -> None:
    deployment, service = documents("myapp.yaml", image_myapp="lab/echo:1")
    assert deployment["spec"]["replicas"] == 2
    assert service["spec"]["selector"].items() <= deployment["spec"]["template"]["metadata"]["labels"].items()


def test_greeter_has_two_versions_a_plain_and_a_headless_service_and_a_client() -> None:
    found = documents(
        "greeter.yaml",
        image_greeter_server="lab/s:1",
        image_greeter_client="lab/c:1",
        image_tools="lab/t:1",
        inject="true",
    )
    services = {d["metadata"]["name"]: d["spec"] for d in found if d["kind"] == "Service"}
    assert {name: s.get("clusterIP") for name, s in services.items()} == {"greeter": None, "greeter-headless": "None"}
    assert all(s["ports"] == [{"port": 50051, "name": "grpc", "appProtocol": "grpc"}] for s in services.values())
    deployments = {d["metadata"]["name"]: d["spec"] for d in found if d["kind"] == "Deployment"}
    assert list(deployments) == ["greeter-v1", "greeter-v2", "greeter-client"]
    accounts = {d["metadata"]["name"] for d in found if d["kind"] == "ServiceAccount"}
    for spec in deployments.values():
        labels = spec["template"]["metadata"]["labels"]
        assert spec["selector"]["matchLabels"].items() <= labels.items()
        assert labels["sidecar.istio.io/inject"] == "true"
        assert spec["template"]["spec"]["serviceAccountName"] in accounts
    server = deployments["greeter-v1"]["template"]["spec"]["containers"][0]
    assert server["readinessProbe"]["grpc"]["port"] == server["ports"][0]["containerPort"] == 50051
