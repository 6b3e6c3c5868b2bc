"""containerd on a machine: its configuration, its registries and proxies, the CNI plugins."""

from __future__ import annotations

import re
from collections.abc import Iterator

from stackbook.config.registries import CERTS, PROXY_FILE, Registries
from stackbook.machines import facts, operations
from stackbook.machines.operations import Command, Operation, command
from stackbook.machines.transports import Host

SYSCTLS = {
    "net.ipv4.ip_forward": "1",
    "net.bridge.bridge-nf-call-iptables": "1",
    "net.bridge.bridge-nf-call-ip6tables": "1",
}
MODULES = ("overlay", "br_netfilter")


def containerd_config(pause: str, *, contained: bool) -> str:
    """Containerd's configuration (format 2, which containerd 2.x still reads).

    Args:
        pause: reference of the sandbox image.
        contained: the machine is a container, so it may neither lower OOM scores nor load AppArmor profiles.
    """
    lines = ["version = 2", "", '[plugins."io.containerd.grpc.v1.cri"]', f'  sandbox_image = "{pause}"']
    if contained:
        lines += ["  restrict_oom_score_adj = true", "  disable_apparmor = true"]
    # containerd 2's defaults: a container without root may use port 80 and ping, in its own network namespace.
    lines += ["  enable_unprivileged_ports = true", "  enable_unprivileged_icmp = true"]
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    runc = f"{cri}.containerd.runtimes.runc"
    lines += ["", f"[{cri}.registry]", f'  config_path = "{CERTS}"']
    lines += ["", f"[{cri}.cni]", '  bin_dir = "/opt/cni/bin"', '  conf_dir = "/etc/cni/net.d"']
    lines += ["", f"[{runc}]", '  runtime_type = "io.containerd.runc.v2"']
    lines += ["", f"[{runc}.options]", "  SystemdCgroup = true", ""]
    return "\n".join(lines)


def runtime(
    pause: str, *, contained: bool, registries: Registries | None = None, proxies: str = ""
) -> Operation:  # fmt: skip
    """Run containerd with the systemd cgroup driver, the lab's sandbox image, the mirrors and the proxies.

    Args:
        pause: reference of the sandbox image.
        contained: see `containerd_config`.
        registries: the registries' mirrors; None for no mirrors.
        proxies: the environment file of the proxies (`registries.proxy_file`); empty for none. Only root may read it, as a
            proxy's address may hold a password.
    """
    files = dict((registries or Registries()).hosts_files())
    if proxies:
        files["/etc/systemd/system/containerd.service.d/proxy.conf"] = f"[Service]\nEnvironmentFile=-{PROXY_FILE}\n"

    def operation(host: Host) -> Iterator[Command]:
        text = containerd_config(pause, contained=contained)
        changed = facts.text_file("/etc/containerd/config.toml").read(host) != text
        if changed:
            yield Command(path="/etc/containerd/config.toml", text=text)
        for path, wanted in files.items():  # containerd reads hosts.toml at each pull
            yield from operations.file(path, wanted)(host)
        if facts.text_file(PROXY_FILE).read(host) != proxies:
            yield Command(path=PROXY_FILE, text=proxies, mode=0o600)
            yield command("systemctl", "daemon-reload")
            changed = True
        yield from cni_plugins()(host)
        state, at_boot = facts.unit_state("containerd").read(host)
        if at_boot != "enabled":
            yield command("systemctl", "enable", "containerd")
        if changed or state != "active":
            yield command("systemctl", "restart", "containerd")

    return operation


def cni_plugins() -> Operation:
    """Copy the CNI plugins to the folder where containerd looks for them; Debian's package installs them in another one."""

    def operation(host: Host) -> Iterator[Command]:
        if not host.run(["test", "-x", "/opt/cni/bin/bridge"], check=False).ok:
            yield command("sh", "-c", "mkdir -p /opt/cni/bin && cp /usr/lib/cni/* /opt/cni/bin/")

    return operation


def sandbox_image(host: Host) -> str:
    """The pause image that containerd starts for each pod, from its effective configuration."""
    dump = host.run(["containerd", "config", "dump"], timeout=30).stdout
    found = re.search(r"^\s*sandbox(?:_image)? = [\"'](.+?)[\"']", dump, re.MULTILINE)
    return found.group(1) if found else ""
