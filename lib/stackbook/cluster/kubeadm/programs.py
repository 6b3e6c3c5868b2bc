"""kubeadm, kubelet and kubectl on a machine, and the kubelet's service.

Source: the packages' own unit files (https://github.com/kubernetes/release/tree/master/cmd/krel/templates/latest).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from stackbook.core.errors import StackbookError
from stackbook.machines import facts, operations
from stackbook.machines.operations import Command, Operation, command
from stackbook.machines.transports import Host

BINARIES = ("kubelet", "kubeadm", "kubectl")

KUBELET_UNIT = """\
[Unit]
Description=kubelet: The Kubernetes Node Agent
Documentation=https://kubernetes.io/docs/
Wants=network-online.target
After=network-online.target

[Service]
ExecStart=/usr/bin/kubelet
Restart=always
StartLimitInterval=0
RestartSec=1

[Install]
WantedBy=multi-user.target
"""

KUBEADM_DROP_IN = """\
# Read by kubeadm init and kubeadm join: they write the two files named here.
[Service]
Environment="KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf \
--kubeconfig=/etc/kubernetes/kubelet.conf"
Environment="KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml"
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
EnvironmentFile=-/etc/default/kubelet
ExecStart=
ExecStart=/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS
"""


def kubelet_service() -> Operation:
    """The kubelet's unit file, as the project's packages install it."""

    def operation(host: Host) -> Iterator[Command]:
        written = [
            *operations.file("/usr/lib/systemd/system/kubelet.service", KUBELET_UNIT)(host),
            *operations.file("/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf", KUBEADM_DROP_IN)(host),
        ]
        yield from written
        if written:
            yield command("systemctl", "daemon-reload")
        if facts.unit_state("kubelet").read(host)[1] != "enabled":
            yield command("systemctl", "enable", "kubelet")

    return operation


def version_of(host: Host, program: str) -> str:
    """The version of kubeadm, kubelet or kubectl on a machine, without the v; empty if it is not installed."""
    argv = {
        "kubeadm": ["kubeadm", "version", "-o", "short"],
        "kubelet": ["kubelet", "--version"],
        "kubectl": ["kubectl", "version", "--client", "-o", "json"],
    }[program]
    answer = host.run(argv, check=False)
    found = re.search(r"v(\d+\.\d+\.\d+)", answer.stdout)
    return found.group(1) if answer.ok and found else ""


def install(host: Host, binaries: Mapping[str, Path], version: str) -> list[str]:
    """Install the programs that a machine lacks or has in another version; returns those that were installed.

    Raises:
        CommandFailed: an installed program does not report the expected version.
    """
    done = []
    for name, local in binaries.items():
        if version_of(host, name) != version:
            host.put(local, f"/usr/bin/{name}", mode=0o755)
            done.append(name)
            if (seen := version_of(host, name)) != version:
                raise StackbookError(f"{name} on {host.name} says version {seen or 'nothing'}, not {version}")
    return done


def image_list(host: Host, version: str, repository: str) -> list[str]:
    """The images that `kubeadm init` would use, from `kubeadm config images list`."""
    return host.run(
        ["kubeadm", "config", "images", "list", "--kubernetes-version", f"v{version}", "--image-repository", repository]
    ).lines
