#!/usr/bin/env bash
# Builds the shim, .local/shim/libshim.so, if what it is made of has changed. gcc must be there, or root or `sudo -n` to
# install it with; the PKCS#11 header comes from Debian's libp11-kit-dev, and needs no rights.
#
#   softhsm/shim/build.sh [OUTPUT [GCC-OPTION ...]]        another one, say with -fsanitize=address,undefined
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
readonly root here="$root/softhsm/shim" home="$root/.local/shim" topic=shim
# shellcheck source=softhsm/compile.sh
source "$root/softhsm/compile.sh"
output="${1:-$home/libshim.so}"

if [[ $# -le 1 && $output -nt $here/shim.c && $output -nt $here/build.sh ]]; then exit 0; fi

include="$(require_compiler "$home")"
mkdir -p "$home"
work="$(mktemp -d "$home/build.XXXXXX")"
trap 'rm -rf "$work"' EXIT
# Every CKR_ that the header defines, for the shim to know it by its name.
sed -n 's/^#define[[:space:]]*\(CKR_[A-Z_0-9]*\)[[:space:]].*/CKR(\1)/p' "$include/p11-kit/pkcs11.h" >"$work/ckr.inc"
# Never unloaded, since a thread of it serves the socket; and its own list of functions names its own functions.
gcc -std=gnu2x -O2 -g -Wall -Wextra ${CI:+-Werror} -fPIC -shared -Wl,-z,nodelete,-z,defs,-Bsymbolic "${@:2}" \
  -I"$include" -I"$work" -o "$work/libshim.so" "$here/shim.c" -lm
mv "$work/libshim.so" "$output"
say "built $output"
