#!/usr/bin/env bash
# Finds SoftHSM2's PKCS#11 library, or installs Debian's: for the whole machine where root or `sudo -n` can, else
# unpacked into .local/softhsm/root, which needs no rights. softhsm/provision.py looks in the same places.
# SOFTHSM2_MODULE names a library that lies elsewhere; then nothing is installed.
set -euo pipefail

readonly package=libsofthsm2
home="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/.local/softhsm"
readonly home

say() { printf 'softhsm: %s\n' "$*" >&2; }

die() {
  say "$@"
  exit 1
}

# A library counts only if everything it is linked with is there as well.
usable() { [[ -f $1 ]] && ! ldd "$1" 2>/dev/null | grep -q 'not found'; }

found() {
  local candidate
  for candidate in {/usr/lib,"$home/root/usr/lib"}/{softhsm,*-linux-gnu/softhsm}/libsofthsm2.so; do
    if usable "$candidate"; then return 0; fi
  done
  return 1
}

# A fresh machine has no package lists, an old one has stale ones: they are updated in any case. An update that fails
# in part is no reason to give up; whether the package can be had decides.
install_for_all() {
  local -a apt=("$@" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120)
  say "installing Debian's $package"
  "${apt[@]}" update >&2 || true
  "${apt[@]}" install -y --no-install-recommends "$package" >&2
}

unpack_here() (
  say "unpacking Debian's $package into $home/root: there is neither root nor sudo to install it with"
  mkdir -p "$home"
  work="$(mktemp -d "$home/unpack.XXXXXX")"
  trap 'rm -rf "$work"' EXIT
  mkdir -p "$work"/{lists,cache/archives}/partial "$work/root"
  cd "$work"
  apt=(apt-get -qq -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work/cache")
  # Told only if it fails: an update also does things for the whole machine that nobody here may do, or needs.
  if ! { "${apt[@]}" update || true; "${apt[@]}" download "$package" && dpkg -x "$package"_*.deb root; } >log 2>&1; then
    cat log >&2
    exit 1
  fi
  rm -rf "$home/root"
  mv root "$home/root"
)

if [[ -n ${SOFTHSM2_MODULE:-} ]]; then
  usable "$SOFTHSM2_MODULE" || die "SOFTHSM2_MODULE names $SOFTHSM2_MODULE, which is absent or lacks a library"
  exit 0
fi
if found; then exit 0; fi

command -v apt-get >/dev/null || die "there is no apt-get here: install SoftHSM 2 and name its library in SOFTHSM2_MODULE"
if [[ $(id -u) == 0 ]]; then
  install_for_all || true
elif sudo -n true 2>/dev/null; then
  install_for_all sudo -n || unpack_here || true
else
  unpack_here || true
fi
found || die "could not get it: install Debian's $package (apt-get install $package), or name a library in SOFTHSM2_MODULE"
