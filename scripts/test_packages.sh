#!/usr/bin/env bash
# Packages as an operator meets them: `scripts/test_packages.sh [--binary FILE] [--next FILE]`.
#
# Builds two versions, puts them into a signed repository, boots a clean Debian root under systemd (systemd-nspawn, no network
# but its own loopback) and there: apt refuses what is not signed, install, first start and call, walls of a plugin under the
# unit, upgrade, downgrade, remove, purge. `--next` is the later version's binary; without it both versions hold the same one.
# PROVOST_DEBIAN_SUITE (default bookworm) chooses Debian's release. Skips with one line where root or a tool is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

binary=${CARGO_TARGET_DIR:-target}/release/provost
next=
while (($#)); do
  case $1 in
    --binary) binary=$2 ;;
    --next) next=$2 ;;
    *) echo "usage: $0 [--binary FILE] [--next FILE]" >&2 && exit 2 ;;
  esac
  shift 2
done
next=${next:-$binary}
suite=${PROVOST_DEBIAN_SUITE:-bookworm}

skip() { echo "test-packages: SKIPPED, $*"; exit 0; }
[[ $(uname -s) == Linux && $(id -u) == 0 ]] || skip "a Debian root is made and booted by root on Linux"
for need in debootstrap:debootstrap systemd-nspawn:systemd-container dpkg-shlibdeps:dpkg-dev apt-ftparchive:apt-utils \
  gpg:gnupg nsenter:util-linux pgrep:procps; do
  command -v "${need%%:*}" >/dev/null || skip "${need%%:*} is missing (apt-get install ${need##*:})"
done
[[ -x $binary && -x $next ]] || skip "$binary is not built (cargo build --locked --release)"

work=$(mktemp -d)
chmod 755 "$work"
container=
finish() {
  local status=$?
  if [[ -n $container ]]; then
    if ((status)); then
      inside journalctl --no-pager -n 40 -u provost 2>/dev/null || true
      tail -n 20 "$work/console" || true
    fi
    kill -TERM "$container" 2>/dev/null || true
    for _ in {1..100}; do
      kill -0 "$container" 2>/dev/null || break
      sleep 0.2
    done
    kill -KILL "$container" 2>/dev/null || true
  fi
  gpgconf --homedir "$work/gnupg" --kill all 2>/dev/null || true
  rm -rf --one-file-system "$work"
  ((status == 0)) || echo "test-packages: FAILED" >&2
}
trap finish EXIT
# Else a signal would end it as if all were well.
trap 'exit 1' TERM INT

fail() { echo "not ok - $*" >&2; exit 1; }
ok() { echo "ok - $*"; }
# wants TEXT COMMAND...: it succeeds and says TEXT.
wants() {
  local text=$1 said
  shift
  said=$("$@" 2>&1) || fail "$* ended with $?: $said"
  [[ $said == *"$text"* ]] || fail "$* does not say \`$text\`: $said"
}
# refuses TEXT COMMAND...: it fails and says TEXT.
refuses() {
  local text=$1 said
  shift
  if said=$("$@" 2>&1); then fail "$* is not refused: $said"; fi
  [[ $said == *"$text"* ]] || fail "$* is refused without \`$text\`: $said"
}
# eventually COMMAND...: within a minute.
eventually() {
  local last
  for _ in {1..120}; do
    last=$("$@" 2>&1) && return 0
    sleep 0.5
  done
  fail "$* does not come true within a minute: $last"
}
inside() {
  nsenter --target "$leader" --mount --uts --ipc --net --pid --cgroup -- \
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
    "PROVOST_ADMIN=127.0.0.1:8421" "PROVOST_ADMIN_TOKEN=${admin_token:-}" \
    "PROVOST_URL=http://127.0.0.1:8420/mcp" "PROVOST_TOKEN=${token:-}" "$@"
}
apt() { inside apt-get -qq -y -o Dpkg::Use-Pty=0 "$@"; }

source scripts/packages/build_repositories.sh
source scripts/packages/boot_root.sh
source scripts/packages/life_of_a_package.sh
echo "test-packages: passed on $suite"
