from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from stackbook.config.chapter_parameters import CHAPTER_PARAMETERS
from stackbook.config.profile import Profile, validate
from stackbook.core.errors import InputError
from stackbook.core.names import profile_names


def load(**overrides: Any) -> Profile:
    return Profile.load("embedded", overrides=overrides)


def test_every_published_profile_is_valid() -> None:
    for name in profile_names():
        if name != "cluster.example":
            assert Profile.load(name).nodes
    assert {"embedded", "document-2020", "vms.example", "cluster.example"} <= set(profile_names())


def test_the_file_of_the_default_profile_says_what_the_code_defaults_to() -> None:
    assert Profile.load("embedded") == Profile()


def test_addresses_of_services_come_from_the_range() -> None:
    assert (Profile().service_address, Profile().dns_address) == ("10.0.0.1", "10.0.0.10")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"pod_cidr": "10.1.0.0/12"}, "write 10.0.0.0/12"),
        ({"pod_cidr": "pods"}, "write it like 10.244.0.0/16"),
        ({"pod_cidr": "10.0.0.0/16"}, "overlap"),
        ({"subnet": "10.244.0.0/24"}, "overlap"),
        ({"service_cidr": "10.0.0.0/8"}, "overlap"),
        ({"service_cidr": "32.0.0.0/8"}, "at most a /12"),
        ({"pod_cidr": "10.244.0.0/24"}, "too small"),
        ({"kubernetes_version": 1.36}, "quote it"),
        ({"kubernetes_version": "newest"}, "is not a version"),
        ({"nods": []}, "did you mean 'nodes'"),
        ({"flannel_backend": "vlan"}, "vxlan"),
        ({"gateway": "10.9.9.9"}, "outside the subnet"),
        ({"gateway": "192.168.98.3"}, "the gateway's address"),
        ({"gateway": "192.168.98.0"}, "the network or broadcast address"),
        ({"nodes": []}, "1 to 8"),
        ({"lab": "My Lab"}, "is not a lab name"),
        ({"target": "cloud"}, "embedded"),
        ({"nodes": [{"name": "a", "address": "192.168.98.3", "mak": ""}]}, "did you mean 'mac'"),
        ({"nodes": [{"name": "A!", "address": "192.168.98.3"}]}, "is not a host name"),
        ({"nodes": [{"name": "a", "address": "192.168.98"}]}, "is not an IP address"),
        ({"nodes": [{"name": "a", "address": "192.168.97.3"}]}, "outside the subnet"),
        ({"nodes": [{"name": "a", "address": "192.168.98.3", "mac": "01:00:00:00:00:01"}]}, "multicast"),
        ({"nodes": [{"name": "a", "address": "192.168.98.3", "mac": "1:2"}]}, "is not a MAC address"),
        ({"nodes": [{"name": "a", "address": f"192.168.98.{n}"} for n in (3, 4)]}, "two nodes have the same name a"),
        ({"nodes": [{"name": n, "address": "192.168.98.3"} for n in "ab"]}, "two nodes have the same address"),
        ({"nodes": [{"name": f"n{n}", "address": f"192.168.98.{n + 3}"} for n in range(9)]}, "1 to 8"),
    ],
)
def test_what_is_wrong_is_refused_in_one_line(overrides: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        load(**overrides)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 2


def test_an_unknown_profile_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'embedded'"):
        Profile.load("embeded")


@pytest.mark.parametrize("text", ["[", "- a\n- b", "just text", "1: 2", "\x00", "target: [embedded"])
def test_a_file_that_is_no_profile_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        Profile.load(path)
    assert "\n" not in str(caught.value)


def broken_profiles(count: int, seed: int = 7) -> list[dict[str, Any]]:
    """Profiles with one thing broken, drawn at random: a wrong type, an unknown name, or nonsense in a known place."""
    draw = random.Random(seed)
    nonsense = [None, [], {}, 3.5, "", "…", -1, True, "10.0.0.0/33", ["x"], {"a": 1}, "\n", "a" * 300]
    fields = ["target", "lab", "nodes", "subnet", "gateway", "pod_cidr", "service_cidr", "kubernetes_version",
              "flannel_backend", "istio_profile", "source", "images"]  # fmt: skip
    found = []
    while len(found) < count:
        data = yaml.safe_load((Path(__file__).parents[2] / "parameters" / "embedded.yaml").read_text())
        kind = draw.random()
        if kind < 0.6:
            field = draw.choice(fields)
            data[field] = draw.choice(nonsense)
        elif kind < 0.8:
            field = draw.choice(fields)
            data[field + draw.choice("xyz_")] = data.pop(field, "x")
        else:
            node = draw.choice(data["nodes"])
            node[draw.choice(["name", "address", "mac", "colour"])] = draw.choice([v for v in nonsense if v != ""])
        found.append(data)
    return found


@pytest.mark.slow
def test_500_broken_profiles_are_each_refused_in_one_line(tmp_path: Path) -> None:
    for number, data in enumerate(broken_profiles(500)):
        path = tmp_path / f"p{number}.yaml"
        path.write_text(yaml.safe_dump(data, allow_unicode=True))
        with pytest.raises(InputError) as caught:
            Profile.load(path)
        assert "\n" not in str(caught.value), data
        assert caught.value.exit_status == 2


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("target: embedded\nlab: one\nlab: two\n")
    with pytest.raises(InputError, match=r"twice\.yaml: 'lab' is set twice, the second time in line 2"):
        Profile.load(path)
    path.write_text("nodes:\n  - {name: a, address: 192.168.98.3, name: b}\n")
    with pytest.raises(InputError, match="'name' is set twice"):
        Profile.load(path)


@pytest.mark.parametrize("word", [True, False])
def test_yes_is_no_number(word: bool) -> None:
    schema = CHAPTER_PARAMETERS["07-faults"]
    with pytest.raises(InputError, match="abort_percent is"):
        validate(schema, {"abort_percent": word}, where="chapter 07-faults")
    assert validate(schema, {"abort_percent": 50}, where="x").abort_percent == 50


@pytest.mark.parametrize(
    ("name", "value"), [("subnet", "fd00::/64"), ("pod_cidr", "fd01::/48"), ("gateway", "fd00::1")]
)
def test_ipv6_is_refused(name: str, value: str) -> None:
    with pytest.raises(InputError, match="IPv4 only"):
        Profile.load("embedded", overrides={name: value})


@pytest.mark.parametrize("more", [{"images": "pull"}, {"target": "cluster"}])
def test_strict_does_not_go_with_images_that_are_pulled_by_their_tags(more: dict[str, str]) -> None:
    with pytest.raises(InputError, match="strict: pulled images are not pinned by digest"):
        Profile.load("embedded", overrides={"strict": True, **more})
    assert Profile.load("embedded", overrides={"strict": True}).strict
