"""What a machine reached by SSH was like before the lab, kept on the machine itself, and given back by a reset.

A reset removes what the lab made in places that were empty before: files in root's home, kubeadm's empty folders, the lab's names in
the host table. Packages stay, because other programs may use them by now.
"""

from __future__ import annotations

from collections.abc import Mapping

from stackbook.machines.transports import Host

# What chapters 02 to 05 create for root, and the folders that `kubeadm reset` leaves empty.
PATHS = (
    "/root/istio", "/root/.kube/cache", "/root/.config/fish/completions/kubectl.fish", "/root/.config/fish",
    "/root/.local/share/fish",
)  # fmt: skip
FOLDERS = (
    "/etc/kubernetes/manifests", "/etc/kubernetes/pki", "/etc/kubernetes", "/root/.config", "/root/.kube",
    "/root/.local/share", "/root/.local",
)  # fmt: skip

# A machine may have no host table: the package netbase makes it, and it is not in every root filesystem.
_REMEMBER = r"""set -e
if [ -d "$1" ]; then exit; fi
part="$1.part"
rm -rf "$part"
install -d -m 700 "$part"
: >"$part/hosts"
: >"$part/absent"
if [ -e /etc/hosts ]; then cp /etc/hosts "$part/hosts"; fi
shift
for path; do [ -e "$path" ] || printf '%s\n' "$path" >>"$part/absent"; done
mv "$part" "${part%.part}"
"""
_REMOVE = r"""
folder=$1 && shift
absent() { grep -qxF "$1" "$folder/absent"; }
if absent /root/istio && ! absent /root/.config/fish && command -v fish >/dev/null; then
  HOME=/root fish -c 'set -U fish_user_paths (string match -v /root/istio/bin $fish_user_paths)'
fi
for path; do
  case $path in
    --*) path=${path#--}; if absent "$path" && [ -d "$path" ]; then rmdir --ignore-fail-on-non-empty "$path"; fi ;;
    *) if absent "$path"; then rm -rf "$path"; fi ;;
  esac
done
rm -rf "$folder"
rmdir --ignore-fail-on-non-empty "${folder%/*}"
"""


def _folder(lab: str) -> str:
    return f"/var/lib/stackbook/{lab}"


def remember(host: Host, lab: str) -> None:
    """Save the host table and which of the lab's paths do not exist; a second call keeps the first note."""
    host.run(["mkdir", "-p", "/var/lib/stackbook"])
    host.run(["sh", "-c", _REMEMBER, "remember", _folder(lab), *PATHS, *FOLDERS])


def give_back(host: Host, lab: str, names: Mapping[str, str]) -> None:
    """Undo what the lab did to the host table and to the paths that did not exist; without a note, nothing is changed.

    Args:
        host: the machine, after `kubeadm reset`.
        lab: the lab's name.
        names: node → address, as the lab wrote them into the host table.
    """
    before = host.run(["cat", f"{_folder(lab)}/hosts"], check=False)
    if not before.ok:
        return
    current = host.run(["cat", "/etc/hosts"]).stdout
    table = host_table(current, before.stdout, names)
    if table != current:
        host.run(["sh", "-c", "cat > /etc/hosts"], stdin=table)
    host.run(["sh", "-c", _REMOVE, "remove", _folder(lab), *PATHS, *(f"--{path}" for path in FOLDERS)], check=False)


def host_table(current: str, before: str, names: Mapping[str, str]) -> str:
    r"""The host table without the lab's names, and with the lines of the same names that were there before.

    Lines that somebody added meanwhile stay.

    >>> host_table("127.0.0.1 localhost\n10.0.0.3 one\n", "127.0.0.1 localhost\n", {"one": "10.0.0.3"})
    '127.0.0.1 localhost\n'
    """
    ours = {f"{address} {name}" for name, address in names.items()}
    old, now = before.splitlines(), current.splitlines()
    if not ours & set(now) - set(old):
        return current
    replaced = [line for line in old if set(line.split("#")[0].split()[1:]) & set(names)]
    rest = [line for line in now if line not in ours]
    if rest == [line for line in old if line not in replaced]:
        return before
    return "\n".join([*rest, *replaced]) + "\n"
