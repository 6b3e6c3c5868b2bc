"""The learner of the live tests: he takes a script apart as bash would."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "live"))

from by_hand import Typed, commands

SCRIPT = """\
# 02-kubeadm: A control plane
# Recorded by the run x. Secrets are masked as ***: replace them with your own.

# init: kubeadm init builds the control plane
# on k8s-master
kubelet --version  # exit status 127
install -D -m 600 /dev/stdin /etc/a.yaml <<'EOF'
# on k8s-node1
a: 1
EOF
sh -c 'set -e
echo "two lines"'
# on this host: stackbook used the API; this is the kubectl command for it
kubectl get pods -o json

# join: each worker joins
kubectl get nodes
"""


def test_each_command_is_whole_and_has_its_place() -> None:
    assert list(commands(SCRIPT)) == [
        Typed("init", "k8s-master", "kubelet --version\n", True),
        Typed(
            "init", "k8s-master", "install -D -m 600 /dev/stdin /etc/a.yaml <<'EOF'\n# on k8s-node1\na: 1\nEOF\n", False
        ),
        Typed("init", "k8s-master", "sh -c 'set -e\necho \"two lines\"'\n", False),
        Typed("init", "this host", "kubectl get pods -o json\n", False),
        Typed("join", "this host", "kubectl get nodes\n", False),
    ]
