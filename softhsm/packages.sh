# shellcheck shell=bash
# Gets Debian packages, for the scripts here that source it; they say in `topic` who speaks.

say() { printf '%s: %s\n' "${topic:?}" "$*" >&2; }

die() {
  say "$@"
  exit 1
}

# For the whole machine, as root or by `sudo -n`; fails where there is neither. A fresh machine has no package lists, an
# old one has stale ones: they are updated in any case. An update that fails in part is no reason to give up; whether
# the packages can be had decides.
install_for_all() {
  local -a apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120)
  if [[ $(id -u) != 0 ]]; then
    sudo -n true 2>/dev/null || return 1
    apt=(sudo -n "${apt[@]}")
  fi
  say "installing Debian's $*"
  "${apt[@]}" update >&2 || true
  "${apt[@]}" install -y --no-install-recommends "$@" >&2
}

# unpack PACKAGE DIRECTORY: into DIRECTORY/root, which needs no rights.
unpack() (
  say "unpacking Debian's $1 into $2/root: there is neither root nor sudo to install it with"
  mkdir -p "$2"
  work="$(mktemp -d "$2/unpack.XXXXXX")"
  trap 'rm -rf "$work"' EXIT
  mkdir -p "$work"/{lists,cache/archives}/partial "$work/root"
  cd "$work" || exit
  apt=(apt-get -qq -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work/cache")
  # Told only if it fails: an update also does things for the whole machine that nobody here may do, or needs.
  if ! { "${apt[@]}" update || true; "${apt[@]}" download "$1" && dpkg -x "$1"_*.deb root; } >log 2>&1; then
    cat log >&2
    exit 1
  fi
  rm -rf "$2/root"
  mv root "$2/root"
)

# install_or_unpack PACKAGE DIRECTORY
install_or_unpack() { install_for_all "$1" || { [[ $(id -u) != 0 ]] && unpack "$1" "$2"; }; }
