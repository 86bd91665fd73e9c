# shellcheck shell=bash
# What it takes to compile against PKCS#11, for the scripts here that source it: gcc must be there, or root or `sudo -n`
# to install it with; the header comes from Debian's libp11-kit-dev, and needs no rights.

# shellcheck source=softhsm/packages.sh
source "$(dirname "${BASH_SOURCE[0]}")/packages.sh"

# A compiler without a C library to compile for is no compiler.
compiles() { printf '#include <stdlib.h>\nint main(void) { return 0; }\n' | gcc -x c -o /dev/null - &>/dev/null; }

# find_header HOME
find_header() {
  local candidate
  for candidate in {,"$1/root"}/usr/include/p11-kit-1; do
    if [[ -f $candidate/p11-kit/pkcs11.h ]]; then echo "$candidate" && return; fi
  done
  return 1
}

# require_compiler HOME: what is unpacked goes there; prints where the header lies.
require_compiler() {
  compiles || install_for_all gcc libc6-dev || die "there is no gcc that works here, nor root or sudo to install it" \
    "with: have somebody run: apt-get install gcc libc6-dev"
  find_header "$1" >/dev/null || install_or_unpack libp11-kit-dev "$1" >&2 || true
  find_header "$1" || die "could not get the PKCS#11 header: install Debian's libp11-kit-dev"
}
