"""The checks of chapters 13 to 15, each seen to fail when what it is about is broken. Those of releases need a mesh, the others only
the lab's components.
"""

from __future__ import annotations

import re
from pathlib import Path

import mutate
import pytest
from labtools import sample
from nbclient.exceptions import CellExecutionError
from stackbook.lessons.delivery import drone

pytestmark = pytest.mark.live

GITEA = ("gitea-compose", "first-start", "gitea")
NPM = (*GITEA, "application", "random", "comma", "dependencies")
DRONE = (*NPM, "drone-yml", "push", "drone")
RELEASE = (*GITEA, "release-access", "release-run")
# Chapter, the steps that are run, what is changed in them, and what must not hold then.
BROKEN = {
    "redirect on Gitea's host": (
        "13-delivery", (*GITEA, "application"),
        {'redirect = f"{host[\'DRONE_SERVER_PROTO\']}://{host[\'DRONE_SERVER_HOST\']}/login"': 'redirect = f"{server.url}/login"'},
        "a redirect to .* was not refused",
    ),
    "an address without its port": (
        "13-delivery", (*GITEA, "application", "random", "drone-compose"),
        {"env |= {**host,": 'env |= {**host, "DRONE_SERVER_HOST": "127.0.0.1",'}, "the redirect URI is the one that Gitea knows",
    ),
    "the comma taken away": (
        "13-delivery", (*GITEA, "comma"),
        {'("npm config set cache ./.npm-cache --global、",': '("npm config set cache ./.npm-cache --global",'},
        "the comma makes npm write the user's file",
    ),
    "no unknown flag": (
        "13-delivery", (*GITEA, "comma", "dependencies"),
        {"./demo-cli-1.0.0.tgz --dependencies": "./demo-cli-1.0.0.tgz"}, "npm warns of --dependencies",
    ),
    "pages without the files that they load": (
        "13-delivery", (*GITEA, "pages"),
        {"parts = gitea.Parts.of(lab.artifacts)":
         'parts = gitea.Parts(*(lab.artifacts.path(f"gitea{part}") for part in ("", "-templates", "-options", "-options")))'},
        "/user/login needs /assets/.*, and the server answers 404",
    ),
    "another secret in the webhook": (
        "13-delivery", (*NPM, "push"),
        {'shop.hook(f"{drone.url}/hook", hook_secret)': 'shop.hook(f"{drone.url}/hook", rpc_secret)'},
        "the signature fits the webhook's secret",
    ),
    "another repository's cache for the second build": (
        "13-delivery", (*NPM, "drone-yml", "push", "build"),
        {"repository=shop.path": 'repository=shop.path if build == "one" else "trainer/other"'}, "the second build restores the cache",
    ),
    "the package is not exchanged": (
        "13-delivery", (*NPM, "push", "actions"), {'re.sub(rb"sha512-.{8}", b"sha512-AAAAAAAA", lock)': 'lock + b"\\n"'},
        "the second run stops where npm compares checksums",
    ),
    "a secret that is printed in another form": (
        "13-delivery", (*NPM, "push", "actions"),
        {"actions.workflow(), ": 'actions.workflow().replace("with $DOCKER_PASS", "with ${DOCKER_PASS%?} .")' + ", "},
        "the log has stars in the place of the secrets",
    ),
    "a repository that is trusted too soon": (
        "13-delivery", (*DRONE, "untrusted"), {"held.mkdir()": "held.mkdir(); project.trust()"}, "the linter refuses a host volume",
    ),
    "secrets that Drone does not get": (
        "13-delivery", (*DRONE, "untrusted", "drone-builds"), {"project.secret(name, value)": "pass"},
        "build 3 ended with failure: its step docker failed",
    ),
    "a canary that nobody judges": (
        "13-delivery", RELEASE,
        {"front.push(release.version(number),": "front.push({**release.version(number), release.WORKFLOW: release.tree()[release.WORKFLOW]"
         '.replace("python -m stackbook.lessons.delivery.release.verdict", "echo")},'},
        "two versions are promoted, the third is taken back",
    ),
    "a third version that is as good": (
        "13-delivery", RELEASE, {"release.version(number)": "{**release.version(min(number, 2)), 'README.md': str(number)}"},
        "two versions are promoted, the third is taken back",
    ),
    "a pipeline that may read secrets": (
        "13-delivery", RELEASE[:-1],
        {"asked = [": "lab.kube.apply([{**access.objects()[1], 'rules': [{'apiGroups': [''], 'resources': ['secrets'], 'verbs': ['get']},"
         "                               *access.objects()[1]['rules']]}])\n        asked = ["},
        "the account may change Deployments in one namespace",
    ),
    "a pod that takes four jobs at once": (
        "13-delivery", (*RELEASE, "release-runners"),
        {"runners, shared = runner_pods.deploy(": "own = actions.settings\n        actions.settings = lambda *given: "
         "(found := own(*given), found['runner'].update(capacity=4))[0]\n        runners, shared = runner_pods.deploy("},
        "one pod runs one job at a time",
    ),
    "no slip for GitLab": (
        "13-delivery", ("gitlab",), {'"expires_in")': '"expire_in")'}, "the schema finds a slip",
    ),
    "a newer description": (
        "14-ecosystem", ("generate",),
        {"openapi.generate(swagger)": '{**openapi.generate(swagger), "swagger": "3.0"}'}, "`swagger: 2.0`",
    ),
    "nobody killed": ("15-design", ("calls", "outages"), {"other.kill(name)": "pass"}, "each outage removes only its own part"),
    "a call that is not counted": (
        "15-design", ("calls",), {'"/api/v1/products/0/ratings"': '"/api/v1/products"'}, "counted and written calls agree",
    ),
    "a submodule that is not fetched": (
        "15-design", ("calls", "add", "surprises"),
        {'git.git("clone", "submodule", "--quiet", "update", "--init", files=True)': "pass"},
        "`git submodule update --init` fills the folder",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sample(BROKEN, "a canary that nobody judges", "a call that is not counted"))
def test_what_is_broken_is_noticed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chapter, steps, changes, words = BROKEN[name]
    if "drone" in steps and not drone.accepted():
        pytest.skip(f"Drone's licence is not accepted: {drone.VARIABLE}=true")
    monkeypatch.setenv("STACKBOOK_RUN", str(tmp_path / "run"))
    book = mutate.copy(chapter, *steps, changes=changes, leave="")
    with pytest.raises(CellExecutionError) as failed:
        mutate.run(book, tmp_path)
    assert failed.value.ename == "CheckFailed", failed.value.evalue  # the message would hold the cell's own text
    assert re.search(words, failed.value.evalue)
