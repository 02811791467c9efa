#!/usr/bin/env bash
# Installs what a build or a test run needs and this machine lacks: `setup.sh build | cuda | test`.
#
# Looks before it installs: with everything present it runs no package manager and needs no root.
# Debian and its children through apt (as root, or by sudo without a question); elsewhere it says
# what to install and stops. Rust itself comes from rustup and is pinned by rust-toolchain.toml.
set -euo pipefail

purpose=${1:-build}
missing=()

# need PACKAGE COMMAND...: notes PACKAGE unless COMMAND succeeds.
need() {
  local package=$1
  shift
  "$@" >/dev/null 2>&1 || missing+=("$package")
}

has() { command -v "$1"; }

# bindgen loads libclang at build time to read RocksDB's C header, and needs clang's own headers beside it.
has_libclang() {
  [[ -n ${LIBCLANG_PATH:-} ]] && return 0
  ldconfig -p | grep -q 'libclang[-.0-9]*\.so' && return 0
  # Not libclang-cpp, which comes with LLVM's tools and does not serve.
  local dir
  for dir in /usr/lib/llvm-*/lib /usr/lib/x86_64-linux-gnu; do
    compgen -G "$dir/libclang.so*" || compgen -G "$dir/libclang-[0-9]*.so*" && return 0
  done
  return 1
}

has_venv() { python3 -c 'import venv, ensurepip'; }

if ! has cargo >/dev/null; then
  echo "setup: cargo is missing. Install Rust with rustup (https://rustup.rs), then run this again." >&2
  exit 1
fi

need build-essential has cc
need build-essential has c++
need build-essential has make
need libclang-dev has_libclang
need ca-certificates test -e /etc/ssl/certs/ca-certificates.crt
if [[ $purpose == cuda ]]; then
  # CUDA's toolchain comes from the Python package index.
  need python3 has python3
  need python3-pip python3 -m pip --version
fi
if [[ $purpose == test ]]; then
  need python3 has python3
  need python3-venv has_venv
  need python3-pip python3 -m pip --version
  need nodejs has node
  need npm has npx
  # Pages of the documentation use it, and their commands are run.
  need curl has curl
  # Go's checker of transparency logs reads ours: an implementation that is not ours.
  need golang-go has go
  need golang-golang-x-mod-dev test -d /usr/share/gocode/src/golang.org/x/mod/sumdb/tlog
fi

if ((${#missing[@]} == 0)); then
  exit 0
fi
mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)

if ! has apt-get >/dev/null; then
  echo "setup: please install what these Debian packages hold, then run this again: ${missing[*]}" >&2
  exit 1
fi
as_root=()
if [[ $(id -u) != 0 ]]; then
  if ! sudo -n true 2>/dev/null; then
    echo "setup: root is needed once. Run this, then start again:" >&2
    echo "  sudo apt-get update && sudo apt-get install -y --no-install-recommends ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo -n)
fi
echo "setup: installing ${missing[*]}"
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
