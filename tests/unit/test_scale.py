"""The benchmark of size: its arithmetic, its page, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from stackbook.app.scale import __main__ as command
from stackbook.app.scale import load, measuring, page, probes
from stackbook.config.profile import Profile
from stackbook.core import paths
from stackbook.core.errors import InputError, WaitTimeout


def row(across: str, n: int, **more: float) -> dict[str, Any]:
    return {across: n, "GiB": 0.5 * n, "free GiB": 20 - 0.5 * n, "API median ms": 3.0, "API p95 ms": 4.0, "API list ms": 9.0,
            "proxy configuration MiB": 0.5, **more}  # fmt: skip


DATA: dict[str, Any] = {
    "time": "20261128T100000Z",
    "machines": [row("machines", n, **{"seconds to 03": 50 * n, "seconds to 05": 80 * n}) for n in (2, 4, 8)],
    "pods": [row("pods", n, GiB=0.05 * n + 1, **{"seconds to Ready": n, "push s": 0.1 * n}) for n in (50, 100)],
    "ended": "",
    "host": {"processors": 2, "memory GiB": 23.5, "kernel": "6.1", "system": "Debian"},
}


@pytest.mark.parametrize("number", measuring.MACHINES)
def test_each_lab_is_a_valid_profile_of_its_own(number: int, tmp_path: Path) -> None:
    path = tmp_path / "scale.yaml"
    path.write_text(str(measuring.profile_of(number)).replace("'", '"'))
    profile = Profile.load(str(path))
    assert (profile.lab, len(profile.nodes)) == ("sbscale", number)


def test_a_group_is_a_deployment_behind_a_service_of_the_same_pods() -> None:
    deployment, service = load.manifest(3, image="stackbook.local/echo:1")
    template = deployment["spec"]["template"]
    assert (
        service["spec"]["selector"] == template["metadata"]["labels"] == deployment["spec"]["selector"]["matchLabels"]
    )
    assert deployment["spec"]["replicas"] == load.GROUP
    assert template["spec"]["containers"][0]["image"] == "stackbook.local/echo:1"
    assert load.manifest(4, image="x")[0]["metadata"]["name"] != deployment["metadata"]["name"]


def test_each_groups_proxies_have_a_user_of_their_own_and_the_lab_s_image() -> None:
    proxies = [load.manifest(group, image="x")[0]["spec"]["template"]["spec"]["containers"][1] for group in range(20)]
    assert len({proxy["securityContext"]["runAsUser"] for proxy in proxies}) == 20
    assert {(proxy["name"], proxy["imagePullPolicy"]) for proxy in proxies} == {("istio-proxy", "IfNotPresent")}


def test_a_pod_that_is_not_ready_is_named_with_its_cause() -> None:
    def pod(name: str, ready: str) -> dict[str, Any]:
        waiting = {"waiting": {"reason": "ErrImagePull", "message": "not found"}}
        status = {
            "conditions": [{"type": "Ready", "status": ready}],
            "initContainerStatuses": [{"name": "istio-proxy", "state": waiting}],
        }
        return {"metadata": {"name": name}, "status": status}

    pods = [pod("a", "True"), pod("b", "False")]
    lab: Any = type("Lab", (), {"kube": type("Kube", (), {"json": lambda self, *args: {"items": pods}})()})()
    assert measuring._cause(lab) == "b: istio-proxy ErrImagePull: not found"
    pods.pop()
    assert measuring._cause(lab) == "the others were not created"


def test_the_mean_of_pushes_is_of_those_between_two_looks() -> None:
    assert probes.push_seconds({"count": 10, "seconds": 5}, {"count": 14, "seconds": 6}) == 0.25
    assert probes.push_seconds({"count": 10, "seconds": 5}, {"count": 10, "seconds": 5}) == 0.0


def test_the_page_says_what_each_machine_and_pod_adds_and_where_one_host_ends() -> None:
    text = page.text(DATA)
    assert "Each machine adds 0.50 GiB" in text
    assert f"A pod adds {0.05 * 1024:.0f} MiB" in text
    assert "the last 50 pods took 100 s" in text
    assert "about 260 pods fit beside 8 machines" in text, re.findall("about .*", text)  # (16 - 2 - 1) / 0.05
    assert (
        "| machines | 2 | 4 | 8 | grows |" in text
        and "| s until the added pods are Ready | 50 | 100 | in proportion |" in text
    )


def test_an_early_end_is_said() -> None:
    assert "ended early: less than 2 GiB" in page.text({**DATA, "ended": "less than 2 GiB of memory are free"})


def test_the_pictures_are_the_same_for_the_same_figures(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        page.draw(DATA["machines"], "machines", ("GiB", "API p95 ms"), tmp_path / name)
    pictures = [re.sub(r'(id|href|url)[="(#]+[^")]+', "", (tmp_path / name).read_text()) for name in ("a.svg", "b.svg")]
    assert "<svg" in pictures[0] and pictures[0] == pictures[1]


@pytest.mark.parametrize("given", ["", "two", "4,2", "2,2", "1,2", "2,9", "2;4"])
def test_a_list_that_is_none_is_refused(given: str) -> None:
    with pytest.raises(InputError, match="--machines"):
        command.numbers(given, "machines", low=2, high=8)


def test_pods_come_in_groups() -> None:
    assert command.numbers("50,100", "pods", low=10, high=1000, step=10) == (50, 100)
    with pytest.raises(InputError, match="multiples of 10"):
        command.numbers("55", "pods", low=10, high=1000, step=10)


def test_pods_that_do_not_become_ready_end_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    class Kube:
        def kubectl(self, *args: str, **more: Any) -> None: ...
        def apply(self, manifest: Any) -> int:
            return 1

    class Images:
        def reference(self, name: str) -> str:
            return f"stackbook.local/{name}:1"

    lab: Any = type("Lab", (), {"kube": Kube(), "images": Images()})()
    monkeypatch.setattr(measuring.own_namespaces, "create", lambda kube, name: None)
    monkeypatch.setattr(probes, "pushes", lambda lab: {"count": 0, "seconds": 0})
    monkeypatch.setattr(probes, "memory", lambda: 8.0)
    monkeypatch.setattr(probes, "everything", lambda lab: {"free GiB": 8.0})
    monkeypatch.setattr(measuring, "_ready", lambda lab: 7)

    def timed_out(*args: Any, **more: Any) -> None:
        raise WaitTimeout("10 pods to be Ready", 900, last="7 are")

    monkeypatch.setattr(measuring, "until", timed_out)
    found, ended = measuring._with_pods(lab, 10, 12.0)
    assert found["pods"] == 7 and found["GiB"] == 4.0
    assert "7 are" in ended and "10 pods" in ended

    monkeypatch.setattr(measuring, "until", lambda *args, **more: None)
    monkeypatch.setattr(probes, "memory", lambda: 1.0)
    assert "less than 2 GiB" in measuring._with_pods(lab, 10, 12.0)[1]


def test_the_published_page_is_that_of_the_newest_measurement() -> None:
    root = paths.checkout()
    newest = max((root / "bench").glob("*-scale.json"))
    assert (root / "docs" / "scale.md").read_text(encoding="utf-8") == page.text(
        json.loads(newest.read_text(encoding="utf-8"))
    )
