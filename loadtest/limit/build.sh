#!/usr/bin/env bash
# Builds .local/limit/limit if what it is made of has changed; see softhsm/compile.sh for what that takes.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
readonly root here="$root/loadtest/limit" home="$root/.local/limit" topic=limit
# shellcheck source=softhsm/compile.sh
source "$root/softhsm/compile.sh"
output="$home/limit"

if [[ $output -nt $here/limit.c && $output -nt $here/build.sh ]]; then exit 0; fi

# Where the shim's build has unpacked the header, if it had to.
include="$(require_compiler "$root/.local/shim")"
mkdir -p "$home"
work="$(mktemp -d "$home/build.XXXXXX")"
trap 'rm -rf "$work"' EXIT
gcc -std=gnu2x -O2 -g -Wall -Wextra ${CI:+-Werror} -I"$include" -o "$work/limit" "$here/limit.c" -pthread
mv "$work/limit" "$output"
say "built $output"
