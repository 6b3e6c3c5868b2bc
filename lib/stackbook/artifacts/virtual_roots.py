"""What the root file system of virtual machines needs besides its packages: a kernel's first root, and a unit that reads the seed."""

from __future__ import annotations

# The seed is an archive on a disk of its own; see `stackbook.machines.virtual.disks`. Swap is on, as on a machine that somebody has
# installed: the guide switches it off.
SCRIPT = r"""set -eu
root=$1
mkdir -p "$root/opt/cni/bin" "$root/etc/cni/net.d"
for plugin in "$root"/usr/lib/cni/*; do ln "$plugin" "$root/opt/cni/bin/"; done
printf 'virtio_pci\nvirtio_blk\nvirtio_net\next4\n' > "$root/etc/initramfs-tools/modules"
printf 'MODULES=list\nCOMPRESS=gzip\n' > "$root/etc/initramfs-tools/conf.d/stackbook"
chroot "$root" update-initramfs -u
cat > "$root/etc/systemd/system/stackbook-seed.service" <<'UNIT'
[Unit]
Description=Take this machine's address and keys from its seed, and make its swap file, at the first start
DefaultDependencies=no
ConditionPathExists=!/etc/stackbook-seed
Wants=systemd-udev-trigger.service
After=systemd-remount-fs.service systemd-udev-trigger.service systemd-tmpfiles-setup.service
Before=networking.service ssh.service network-pre.target swapfile.swap sysinit.target
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/stackbook-seed

[Install]
WantedBy=sysinit.target
UNIT
cat > "$root/usr/local/sbin/stackbook-seed" <<'PROGRAM'
#!/bin/sh
set -eu
for attempt in $(seq 300); do [ ! -e /dev/disk/by-id/virtio-seed ] || break; sleep 0.1; done
tar -x -C / -f /dev/disk/by-id/virtio-seed
chmod 700 /root/.ssh
if [ ! -e /swapfile ]; then
  (umask 077; dd if=/dev/zero of=/swapfile bs=1M count=64 status=none)
  mkswap /swapfile
fi
touch /etc/stackbook-seed
PROGRAM
chmod 755 "$root/usr/local/sbin/stackbook-seed"
mkdir -p "$root/etc/systemd/system/sysinit.target.wants"
ln -sf ../stackbook-seed.service "$root/etc/systemd/system/sysinit.target.wants/stackbook-seed.service"
rm -f "$root"/etc/ssh/ssh_host_* "$root/etc/hostname" "$root/etc/resolv.conf" "$root/var/lib/dbus/machine-id"
rm -f "$root/etc/apt/apt.conf.d/99mmdebstrap" "$root/etc/apt/apt.conf.d/98stackbook"
: > "$root/etc/machine-id"
for unit in rsyslog iperf3; do rm -f "$root/etc/systemd/system/multi-user.target.wants/$unit.service"; done
rm -f "$root/etc/systemd/system/syslog.service"
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer; do
  ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
ln -sf multi-user.target "$root/lib/systemd/system/default.target"
rm -rf "$root"/usr/share/doc/* "$root"/usr/share/man/* "$root"/var/lib/apt/lists/* "$root"/var/cache/debconf/*-old
rm -rf "$root"/var/log/*.log "$root"/var/log/apt "$root"/var/cache/ldconfig/aux-cache "$root"/usr/share/fish/man
"""
