"""What a page types is run, shown, and the same on every run."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from stackbook.cluster.kube import Kube
from stackbook.core.errors import CommandFailed
from stackbook.lab.typed_kubectl import kubectl, stable

NODES = """\
NAME         STATUS   ROLES           AGE     VERSION
k8s-master   Ready    control-plane   3m2s    v1.36.3
k8s-node1    Ready    <none>          2m40s   v1.36.3
"""
PODS = """\
NAME                         READY   STATUS    RESTARTS      AGE   IP           NODE
myapp-86677c4ccd-4nrll       1/1     Running   0             12s   10.244.1.7   k8s-node1
kube-flannel-ds-k99m4        1/1     Running   3 (10m ago)   18m   192.0.2.4    k8s-node1
etcd-k8s-master              1/1     Running   0             5d    <none>       k8s-master
"""

DESCRIPTION = """\
Name:               myapp
CreationTimestamp:  Sat, 28 Nov 2026 08:50:48 +0000
Labels:             app=myapp
Replicas:           2 desired | 2 updated
  Type:        RollingUpdate
IP:                 10.96.14.2
    Image:          stackbook.local/echo:0.1.0-744ae305
NewReplicaSet:      myapp-86677c4ccd (2/2 replicas created)
"""


def test_a_table_keeps_what_is_the_same_on_every_run() -> None:
    assert stable(NODES).splitlines() == [
        "NAME        STATUS  ROLES          AGE  VERSION",
        "k8s-master  Ready   control-plane  …    v1.36.3",
        "k8s-node1   Ready   <none>         …    v1.36.3",
    ]
    assert stable(PODS).splitlines() == [
        "NAME               READY  STATUS   RESTARTS  AGE  IP      NODE",
        "myapp-…            1/1    Running  …         …    …       k8s-node1",
        "kube-flannel-ds-…  1/1    Running  …         …    …       k8s-node1",
        "etcd-k8s-master    1/1    Running  …         …    <none>  k8s-master",
    ]
    assert stable(PODS.replace("4nrll", "x2x4z").replace("3 (10m ago)", "7          ")) == stable(PODS)
    assert stable("service/reviews created\n") == "service/reviews created\n"
    assert stable("") == ""


def test_a_description_keeps_what_is_the_same_on_every_run() -> None:
    assert stable(DESCRIPTION).splitlines() == [
        "Name:               myapp",
        "CreationTimestamp:  …",
        "Labels:             app=myapp",
        "Replicas:           2 desired | 2 updated",
        "  Type:        RollingUpdate",
        "IP:                 …",
        "    Image:          stackbook.local/echo:…",
        "NewReplicaSet:      myapp-… (2/2 replicas created)",
    ]


@pytest.fixture
def cluster(tmp_path: Path) -> Kube:
    """A kubectl that says what it was asked, or no."""
    program = tmp_path / "kubectl"
    program.write_text('#!/bin/sh\n[ "$1" != no ] || { echo "Error: no" >&2; exit 1; }\nprintf "<%s>\\n" "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return Kube(tmp_path / "kubeconfig", program)


def test_the_command_stands_above_its_output(cluster: Kube, capsys: pytest.CaptureFixture[str]) -> None:
    kubectl(cluster, "get pods -l 'app in (a,b)'")
    assert capsys.readouterr().out == "$ kubectl get pods -l 'app in (a,b)'\n<get>\n<pods>\n<-l>\n<app in (a,b)>\n"


def test_a_refusal_fails_the_cell(cluster: Kube, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CommandFailed, match="Error: no"):
        kubectl(cluster, "no")
    assert capsys.readouterr().out == "$ kubectl no\n"
