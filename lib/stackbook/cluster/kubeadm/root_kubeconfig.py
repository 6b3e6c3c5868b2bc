"""Root's own kubeconfig on the control plane: one that was there before is kept beside it, and a reset puts it back.

Which one is the lab's is told by its checksum, in a file beside it.
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
"""A shell script: takes the lab's kubeconfig away, and puts back the one from before. One that somebody has changed stays."""
