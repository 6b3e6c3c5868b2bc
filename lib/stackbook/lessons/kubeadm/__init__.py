"""The code of chapter `kubeadm`."""
