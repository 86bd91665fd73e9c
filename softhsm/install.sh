#!/usr/bin/env bash
# Finds SoftHSM2's PKCS#11 library, or installs Debian's: for the whole machine where root or `sudo -n` can, else
# unpacked into .local/softhsm/root, which needs no rights. softhsm/provision.py looks in the same places.
# SOFTHSM2_MODULE names a library that lies elsewhere; then nothing is installed.
set -euo pipefail

readonly package=libsofthsm2
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
readonly root home="$root/.local/softhsm" topic=softhsm
# shellcheck source=softhsm/packages.sh
source "$root/softhsm/packages.sh"

# A library counts only if everything it is linked with is there as well.
usable() { [[ -f $1 ]] && ! ldd "$1" 2>/dev/null | grep -q 'not found'; }

found() {
  local candidate
  for candidate in {/usr/lib,"$home/root/usr/lib"}/{softhsm,*-linux-gnu/softhsm}/libsofthsm2.so; do
    if usable "$candidate"; then return 0; fi
  done
  return 1
}

if [[ -n ${SOFTHSM2_MODULE:-} ]]; then
  usable "$SOFTHSM2_MODULE" || die "SOFTHSM2_MODULE names $SOFTHSM2_MODULE, which is absent or lacks a library"
  exit 0
fi
if found; then exit 0; fi

command -v apt-get >/dev/null || die "there is no apt-get here: install SoftHSM 2 and name its library in SOFTHSM2_MODULE"
install_or_unpack "$package" "$home" || true
found || die "could not get it: install Debian's $package (apt-get install $package), or name a library in SOFTHSM2_MODULE"
