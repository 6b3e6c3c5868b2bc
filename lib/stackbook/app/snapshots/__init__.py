"""Snapshots of a lab: its machines' disks and its state on this host, at one moment."""
