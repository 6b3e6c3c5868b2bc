"""Providers: embedded machines, virtual machines, machines reached by SSH, an existing cluster."""

from __future__ import annotations

from stackbook.config.profile import Profile
from stackbook.machines.providers.base import Provider
from stackbook.machines.providers.podman import Embedded
from stackbook.machines.providers.ssh import SSH, Cluster
from stackbook.machines.providers.vm import VirtualMachines

__all__ = ["SSH", "Cluster", "Embedded", "Provider", "VirtualMachines", "for_profile"]


def for_profile(profile: Profile) -> Provider:
    """The provider that the profile's target names."""
    if profile.target == "embedded":
        return Embedded(profile)
    if profile.target == "vm":
        return VirtualMachines(profile)
    return SSH(profile) if profile.target == "ssh" else Cluster(profile)
