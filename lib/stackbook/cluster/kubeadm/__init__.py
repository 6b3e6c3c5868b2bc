"""Install Kubernetes on machines with kubeadm: runtime, programs, init, join. Each phase is one module."""

from stackbook.cluster.kubeadm.configuration import PATCHES, SOCKET, Images, cluster_part, init_config, join_config
from stackbook.cluster.kubeadm.init import CONFIG, DNS_PATCH, DONE, initialised, kubeadm_init
from stackbook.cluster.kubeadm.join import JOIN, join_command, joined, kubeadm_join, parsed
from stackbook.cluster.kubeadm.programs import (
    BINARIES,
    KUBEADM_DROP_IN,
    KUBELET_UNIT,
    image_list,
    install,
    kubelet_service,
    version_of,
)
from stackbook.cluster.kubeadm.root_kubeconfig import KEEP_KUBECONFIG, RESTORE_KUBECONFIG
from stackbook.cluster.kubeadm.runtime import (
    MODULES,
    SYSCTLS,
    cni_plugins,
    containerd_config,
    runtime,
    sandbox_image,
)

__all__ = [
    "BINARIES",
    "CONFIG",
    "DNS_PATCH",
    "DONE",
    "JOIN",
    "KEEP_KUBECONFIG",
    "KUBEADM_DROP_IN",
    "KUBELET_UNIT",
    "MODULES",
    "PATCHES",
    "RESTORE_KUBECONFIG",
    "SOCKET",
    "SYSCTLS",
    "Images",
    "cluster_part",
    "cni_plugins",
    "containerd_config",
    "image_list",
    "init_config",
    "initialised",
    "install",
    "join_command",
    "join_config",
    "joined",
    "kubeadm_init",
    "kubeadm_join",
    "kubelet_service",
    "parsed",
    "runtime",
    "sandbox_image",
    "version_of",
]
