"""A reset takes the rules of Kubernetes and of the pod network off machines that are somebody's, and no other rule."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from stackbook.app.reset import REMOVE_RULES

OURS = """\
:KUBE-SERVICES - [0:0]
:FLANNEL-FWD - [0:0]
:CNI-HOSTPORT-DNAT - [0:0]
[7:420] -A INPUT -m comment --comment "kubernetes health check" -j KUBE-NODEPORTS
[0:0] -A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
[0:0] -A KUBE-SERVICES -d 10.0.0.1/32 -p tcp -g KUBE-MARK
[0:0] -A CNI-HOSTPORT-DNAT -p tcp --dport 80 -j CNI-DN-1
"""
THEIRS = """\
*filter
:INPUT ACCEPT [9:900]
:DOCKER - [0:0]
[3:180] -A INPUT -p tcp --dport 22 -m comment --comment "ours since KUBECON" -j ACCEPT
[0:0] -A FORWARD -o docker0 -j DOCKER
COMMIT
"""


def test_only_their_rules_stay_with_their_counters(tmp_path: Path) -> None:
    lines = THEIRS.splitlines(keepends=True)
    (tmp_path / "rules").write_text("".join([*lines[:3], OURS, *lines[3:]]))
    for program, script in (
        ("iptables-save", '[ "$*" = -c ] && cat "$(dirname "$0")/rules"'),
        ("iptables-restore", '[ "$*" = -c ] && cat > "$(dirname "$0")/restored"'),
    ):
        (tmp_path / program).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / program).chmod(0o755)
    for name in ("cat", "dirname", "grep", "sh"):  # and no ip6tables of this host
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    subprocess.run(["/bin/sh", "-c", REMOVE_RULES], env={"PATH": str(tmp_path)}, check=True, timeout=10)
    assert (tmp_path / "restored").read_text() == THEIRS
