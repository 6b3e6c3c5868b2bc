#!/bin/sh
# Installs everything that the lab needs on a fresh Debian 12, Debian 13 or Ubuntu 24.04 host: system packages, and .venv from the lock.
# It installs only what is missing; a second run changes nothing.
set -eu
cd "$(dirname "$0")/.."

PACKAGES="python3 python3-venv git podman runc iptables iproute2 curl openssl openssh-client gcc libc6-dev mmdebstrap debian-archive-keyring zstd"
# podman's network stack, under the package names of several releases; and command completion for terminals.
OPTIONAL="netavark aardvark-dns containernetworking-plugins bash-completion"
[ "${PROFILE:-}" = vm ] && PACKAGES="$PACKAGES qemu-system-x86 qemu-utils e2fsprogs"
[ "${STACKBOOK_BROWSER:-}" = 1 ] && OPTIONAL="$OPTIONAL chromium fonts-noto-cjk"

say() { printf '%s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 2; }

SUDO=
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || die "user $(id -un) is not root, and there is no sudo — run as root, or install sudo"
  SUDO=sudo
fi

installed() { dpkg-query -W -f='${Status}' "$1" 2>/dev/null | grep -q 'ok installed'; }

missing=
for package in $PACKAGES; do installed "$package" || missing="$missing $package"; done
if [ -n "$missing" ]; then
  command -v apt-get >/dev/null || die "this host has no apt-get — install these packages by hand:$missing"
  $SUDO apt-get update -qq || say "apt-get update had errors; continuing with the existing package lists"
fi
# Checked before anything is installed: podman 3 prints different JSON and has no netavark.
if installed podman; then podman=$(podman --version); else podman=$(apt-cache policy podman | sed -n 's/^ *Candidate: *//p'); fi
podman=$(printf '%s' "${podman##* }" | sed 's/^[0-9]*://; s/[+~-].*//')
case "$podman" in
  [0-3].*) die "podman $podman is too old, the lab needs 4 or newer — use Debian 12 or Ubuntu 24.04, or install a newer podman" ;;
esac
# From podman 5 on, its network stack runs nft.
case "$podman" in
  [5-9].*|[1-9][0-9]*.*) OPTIONAL="$OPTIONAL nftables" ;;
esac
for package in $OPTIONAL; do
  installed "$package" || ! apt-cache show "$package" >/dev/null 2>&1 || missing="$missing $package"
done
if [ -n "$missing" ]; then
  say "installing system packages:$missing"
  # shellcheck disable=SC2086
  $SUDO env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null \
    || die "apt-get could not install:$missing — run apt-get by hand to see its error"
fi

PYTHON="${PYTHON:-python3}"
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
  || die "$("$PYTHON" --version) is too old — install Python 3.10 or newer, or set PYTHON"

# The lock's own uv installs the rest, ten times as fast as pip. If it cannot (for example, only pip is configured for a registry), pip does.
install() {
  if .venv/bin/uv --version >/dev/null 2>&1; then
    VIRTUAL_ENV="$PWD/.venv" .venv/bin/uv pip install -q --compile-bytecode "$@" && return
    say "uv could not install them; trying again with pip"
  fi
  .venv/bin/python -m pip install -q --disable-pip-version-check "$@"
}

install_book() {
  if .venv/bin/uv --version >/dev/null 2>&1; then
    .venv/bin/uv pip install -q --python .venv-book/bin/python --require-hashes -r requirements-book.lock && return
    say "uv could not install them; trying again with pip"
  fi
  .venv-book/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-book.lock
}

if ! cmp -s requirements.lock .venv/requirements.installed 2>/dev/null; then
  say "creating .venv from requirements.lock (usually less than two minutes)"
  [ -x .venv/bin/python ] || "$PYTHON" -m venv .venv || die "$PYTHON -m venv failed — install python3-venv"
  awk '/^[^ #]/ { mine = /^uv==/ } mine && !/^ *#/' requirements.lock >.venv/uv.lock
  .venv/bin/python -m pip install -q --disable-pip-version-check --require-hashes --only-binary :all: -r .venv/uv.lock \
    || say "uv could not be installed on this host; pip takes a little longer"
  install --require-hashes --only-binary :all: -r requirements.lock
  install --no-deps --no-build-isolation --editable .
  cp requirements.lock .venv/requirements.installed
fi
# The tests' own registry and proxy, and the program that pushes images. They are unpacked, not installed: the packages would start
# services on this host.
unpacked() { # Debian package, program in it
  [ ! -x ".venv/test-tools/usr/bin/$2" ] || return 0
  say "unpacking $2 for the tests"
  work=$(mktemp -d)
  chmod 755 "$work"
  (cd "$work" && { apt-get download -qq "$1" || { $SUDO apt-get update -qq && apt-get download -qq "$1"; }; } 2>/dev/null) \
    || die "apt-get could not download $1, which the tests need"
  dpkg-deb -x "$work/$1"_*.deb .venv/test-tools
  rm -rf "$work"
}
if [ "${STACKBOOK_BROWSER:-}" = 1 ]; then
  unpacked docker-registry docker-registry
  unpacked tinyproxy-bin tinyproxy
  unpacked skopeo skopeo
fi
# The book's programs have their own environment, because the lab does not need them.
if [ "${STACKBOOK_BOOK:-}" = 1 ] && ! cmp -s requirements-book.lock .venv-book/requirements.installed 2>/dev/null; then
  say "creating .venv-book from requirements-book.lock"
  [ -x .venv-book/bin/python ] || "$PYTHON" -m venv .venv-book || die "$PYTHON -m venv failed — install python3-venv"
  install_book || die "the book's packages could not be installed: see the lines above"
  cp requirements-book.lock .venv-book/requirements.installed
fi
say "ready: .venv/bin/stackbook"
