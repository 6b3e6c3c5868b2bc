"""The guide's files beside today's: what the page shows, and that today's are what the lab really uses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from stackbook.analysis.file_diff import FileDiff
from stackbook.cluster import manifests
from stackbook.lab.lab import Lab
from stackbook.lessons.delivery import guide_files as delivery
from stackbook.lessons.grpc import guide as grpc
from stackbook.lessons.traffic import guide_files as traffic
from stackbook.mesh import bookinfo, rules


def test_each_line_is_there_once_with_its_side() -> None:
    shown = FileDiff("a.yaml", "kind: A\nname: <b> # 注释\nlast: 1\n", "kind: A\nname: <b>\nlast: 1\nmore: 2\n")
    assert shown.summary == "a.yaml: - 1 of the guide, + 2 of today"
    assert shown.lines == ["  kind: A", "- name: <b> # 注释", "+ name: <b>", "  last: 1", "+ more: 2"]
    page = shown._repr_html_()
    assert page.count("&lt;b&gt;") == 2 and "<b>" not in page
    assert page.index("summary>a.yaml") < page.index("- name")


def test_a_file_that_still_holds_is_shown_whole() -> None:
    assert repr(FileDiff("a", "x\ny\n", "x\ny\n")) == "a: still as the guide has it\n  x\n  y"


@pytest.mark.parametrize(("pairs", "letter"), [(delivery.pairs, "--global、"), (grpc.pairs, "// 定义服务")])
def test_the_guides_letters_stay_as_they_are(pairs: Any, letter: str) -> None:
    found = pairs()
    assert len(found) == 3 and all(guide and today for guide, today in found.values())
    assert [letter in guide for guide, _ in found.values()].count(True) == 1


def documents(text: str) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(text) if one]


def spec(rule: rules.Rule) -> Any:
    return rule["spec"]


def test_todays_rules_are_those_that_the_chapters_build() -> None:
    fault = rules.fault(abort_percent=30, abort_status=500, delay_percent=30, delay_seconds=5)
    built = rules.virtual_service(
        "reviews",
        rules.route(rules.to("reviews", "v1"), headers={"end-user": "jason"}, fault=fault),
        rules.route(*rules.split("reviews", {"v1": 50, "v3": 50})),
    )
    (written,) = documents(traffic.today("reviews"))
    assert (written["apiVersion"], spec(written)) == (built["apiVersion"], spec(built))
    (subsets,) = documents(traffic.today("reviews-subsets"))
    assert spec(subsets) == spec(rules.destination_rule("reviews", versions=["v1", "v2", "v3"], balance="RANDOM"))


def test_the_guides_rule_has_its_slip_and_todays_has_not() -> None:
    assert "host: ratings" in traffic.guide("reviews") and "host: ratings" not in traffic.today("reviews")


def test_todays_productpage_is_what_the_lab_deploys(tmp_path: Path) -> None:
    text = traffic.productpage(Lab.open("06-traffic"))
    kinds = [(one["kind"], one["metadata"]["name"]) for one in documents(text)]
    assert kinds == [
        ("Service", "productpage"),
        ("ServiceAccount", "bookinfo-productpage"),
        ("Deployment", "productpage-v1"),
    ]
    images = {f"image_{name.replace('-', '_')}": "an-image" for name in bookinfo.WORKLOADS}
    deployed = documents(manifests.render("bookinfo.yaml", **images))
    mine = documents(text)
    mine[2]["spec"]["template"]["spec"]["containers"][0]["image"] = "an-image"
    assert all(one in deployed for one in mine)
