"""What JupyterLab's terminals and kernels find: kubectl, istioctl, protoc, stackbook, a shell on each machine; and its menu *Lab*."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stackbook.cluster.kubeconfig import EXISTING, existing, write_kubeconfig
from stackbook.config.profile import Profile
from stackbook.core import paths

_PROGRAM = """\
#!/bin/sh
# {name} for the cluster of the lab {lab}, unless KUBECONFIG is set
export KUBECONFIG="${{KUBECONFIG:-{kubeconfig}}}"
if [ ! -s "${{KUBECONFIG%%:*}}" ]; then
  echo "there is no kubeconfig $KUBECONFIG: the lab has no cluster yet. Run chapters 00 to 02, or: stackbook run --to 02" >&2
  exit 1
fi
exec {command} "$@"
"""
_RC = """\
# Read by each terminal of JupyterLab.
[ -r ~/.bashrc ] && . ~/.bashrc
[ -r /usr/share/bash-completion/bash_completion ] && . /usr/share/bash-completion/bash_completion
export PATH={bin}:"$PATH" KUBECONFIG={kubeconfig}
{nodes}
if [ -s "$KUBECONFIG" ]; then
{completions}
  port=$(kubectl get svc istio-ingressgateway -n {gateways} --request-timeout=2s \\
    -o 'jsonpath={{.spec.ports[?(@.name=="http2")].nodePort}}' 2>/dev/null)
  [ -n "$port" ] && export INGRESS="http://{machine}:$port"
  unset port
fi
cat <<'END'
The lab {lab}: kubectl and istioctl use its cluster; TAB completes their arguments.
{machines}Addresses: {variables}.
END
[ -n "$INGRESS" ] && echo "The mesh's ingress: INGRESS=$INGRESS (curl -s $INGRESS/productpage)"
case "$PWD" in
{rooms}/*) # the menu Lab opened this terminal for a machine; after its shell ends, this one is there
  machine="${{PWD##*/}}"
  cd
  "$machine"
  unset machine
  ;;
esac
"""
# On an existing cluster the profile names no machine, so the cluster is asked for one.
_A_NODE = """$(kubectl get nodes --request-timeout=2s -o \\
    'jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}')"""
_MENU = "@jupyterlab/mainmenu-extension:plugin"
_TERMINAL = "terminal:create-new"


@dataclass(frozen=True)
class Terminals:
    """What JupyterLab gets at its start.

    Attributes:
        path: the folder of the programs, which comes first in PATH.
        argument: the option that makes a terminal's bash read our file.
        settings: the folder with JupyterLab's menu.
    """

    path: Path
    argument: str
    settings: Path

    def environment(self, before: Mapping[str, str]) -> dict[str, str]:
        """An environment with the programs first in PATH, and our settings of JupyterLab before others."""
        known = before.get("JUPYTER_CONFIG_PATH")
        return {
            **before,
            "PATH": os.pathsep.join([str(self.path), before.get("PATH", os.defpath)]),
            "JUPYTER_CONFIG_PATH": os.pathsep.join([str(self.settings), *([known] if known else [])]),
        }


def prepare(profile: Profile, file: Path, folder: Path, programs: Mapping[str, Path], *, root: Path) -> Terminals:
    """Write the programs, the file that a terminal reads, and the menu.

    Args:
        profile: the lab's profile.
        file: the profile's file.
        folder: the folder to write to; it exists as long as JupyterLab.
        programs: the paths of kubectl and istioctl if they are in the cache; a missing one is fetched at its first call.
        root: the folder that JupyterLab serves.
    """
    from stackbook.artifacts import protoc

    own = folder / "bin"
    own.mkdir(parents=True, exist_ok=True)
    ours = [sys.executable, "-m", "stackbook"]
    of_profile = ["--profile", str(file)]
    kubeconfig = _kubeconfig(profile)
    _write(own / "stackbook", f'#!/bin/sh\nexec {shlex.join(ours)} "$@"\n')
    for name in ("kubectl", "istioctl"):
        command = [str(programs[name])] if name in programs else [*ours, name, *of_profile]
        text = _PROGRAM.format(name=name, lab=profile.lab, kubeconfig=kubeconfig, command=shlex.join(command))
        _write(own / name, text)
    _write(own / "protoc", protoc.script())
    machines = [node.name for node in profile.nodes] if profile.target != "cluster" else []
    for name in machines:
        _write(own / name, f'#!/bin/sh\nexec {shlex.join([*ours, "shell", *of_profile, name])} "$@"\n')
    rooms = folder / "machines"
    for name in machines:
        (rooms / name).mkdir(parents=True, exist_ok=True)
    labconfig = folder / "settings" / "labconfig"
    labconfig.mkdir(parents=True, exist_ok=True)
    (labconfig / "default_setting_overrides.json").write_text(
        json.dumps({_MENU: menu(os.path.relpath(rooms.resolve(), root.resolve()), machines)}), encoding="utf-8"
    )
    addresses = {_variable(node.name): node.address for node in profile.nodes} if machines else {}
    rc = folder / "bashrc"
    rc.write_text(
        _RC.format(
            bin=shlex.quote(str(own)),
            kubeconfig=shlex.quote(str(kubeconfig)),
            completions="\n".join(f"  . <({name} completion bash)" for name in programs) or "  :",
            nodes="\n".join(f"export {name}={address}" for name, address in addresses.items()),
            gateways=profile.namespaces.gateways,
            machine=next(iter(addresses.values()), _A_NODE),
            lab=profile.lab,
            rooms=shlex.quote(str(rooms)),
            machines=f"A shell on a machine: {', '.join(machines)}.\n" if machines else "",
            variables=", ".join(f"{name}={address}" for name, address in addresses.items()) or "none",
        ),
        encoding="utf-8",
    )
    settings = json.dumps({"shell_command": ["bash", "--rcfile", str(rc)]})
    return Terminals(own, f"--ServerApp.terminado_settings={settings}", folder / "settings")


def menu(rooms: str, machines: Sequence[str]) -> dict[str, object]:
    """JupyterLab's menu *Lab*: a terminal on this host, and one on each machine.

    A command of JupyterLab can open a terminal in a folder, but cannot give it a program to run. So each machine has a folder, by which
    the file that every terminal reads knows the machine.

    Args:
        rooms: the folder with one folder for each machine, seen from the folder that JupyterLab serves: JupyterLab takes away the
            slash before an absolute path.
        machines: their names.
    """
    items: list[dict[str, object]] = [{"command": _TERMINAL, "rank": 0}]
    for rank, name in enumerate(machines, 1):
        opens = {"command": _TERMINAL, "args": {"cwd": f"{rooms}/{name}"}}
        inner = {"id": f"jp-mainmenu-stackbook-{rank}", "label": name, "items": [opens]}
        items.append({"type": "submenu", "submenu": inner, "rank": rank})
    return {"menus": [{"id": "jp-mainmenu-stackbook", "label": "Lab", "rank": 900, "items": items}]}


def cached(profile: Profile) -> dict[str, Path]:
    """The paths of kubectl and istioctl if they are in the cache; nothing is fetched."""
    from stackbook.artifacts.resolver import Resolver

    resolver = Resolver.open(source=profile.source, versions=profile.versions, strict=profile.strict)
    found = {name: resolver.maker.cached(resolver.catalogue.artifact(name)) for name in ("kubectl", "istioctl")}
    return {name: resolver.store.path(entry) for name, entry in found.items() if entry}


def _kubeconfig(profile: Profile) -> Path:
    if profile.target == "cluster":
        path = paths.state(profile.lab) / EXISTING
        write_kubeconfig(existing(profile.kubeconfig, profile.context).text, path)
        return path
    return paths.states() / profile.lab / "kubeconfig"


def _variable(name: str) -> str:
    """A machine's name as a shell variable.

    >>> _variable("k8s-node1")
    'K8S_NODE1'
    """
    return name.upper().replace("-", "_")


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
