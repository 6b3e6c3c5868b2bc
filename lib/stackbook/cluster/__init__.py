"""Kubernetes: its client, kubeadm, flannel, images on machines, manifests."""
