"""Root's kubeconfig on the control plane. An earlier one is kept beside it, and a reset restores it.

A file beside it has the checksum of the lab's kubeconfig, to recognize it.
"""

from __future__ import annotations

_OURS = """config="$HOME/.kube/config"
before="$config.before-stackbook"
mark="$config.stackbook-sha256"
ours() { [ -s "$mark" ] && [ -e "$config" ] && [ "$(sha256sum < "$config")" = "$(cat "$mark")" ]; }
"""
KEEP_KUBECONFIG = (
    "set -e\numask 077\n"
    + _OURS
    + """mkdir -p "$HOME/.kube"
if ! cmp -s /etc/kubernetes/admin.conf "$config"; then
  if [ -s "$config" ] && ! ours && [ ! -e "$before" ]; then cp -p "$config" "$before"; fi
  install -m 600 /etc/kubernetes/admin.conf "$config"
  echo changed
fi
sha256sum < "$config" > "$mark"
"""
)
"""A shell script: installs kubeadm's kubeconfig, and prints "changed" if it differed. It uses HOME."""
RESTORE_KUBECONFIG = (
    _OURS
    + """if ours; then
  rm -f "$config"
  if [ -e "$before" ]; then mv "$before" "$config"; fi
fi
rm -f "$mark"
"""
)
"""A shell script: removes the lab's kubeconfig and restores the earlier one. A kubeconfig that somebody has changed stays."""
