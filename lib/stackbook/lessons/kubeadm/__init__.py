"""What chapter `kubeadm` shows."""
