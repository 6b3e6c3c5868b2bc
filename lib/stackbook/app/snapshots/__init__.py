"""Snapshots of a lab: its machines' disks and what this host knows of it, as they were at one moment."""
