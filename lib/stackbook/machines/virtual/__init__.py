"""Virtual machines under QEMU: their disks, their network, their processes, and commands without a network."""
