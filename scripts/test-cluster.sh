#!/usr/bin/env bash
# Tests of docker-compose.yml, which need a Docker Engine and Compose. Skips with one clear line where there is none.
#
#   scripts/test-cluster.sh [SCENE…]     all scenes, or `start` and these (tests/compose/scenes.py)
#
# The image is made of the release binary (PROVOST_BINARY, else `cargo build --release`'s), or is PROVOST_IMAGE.
# PROVOST_OLD_BINARY or PROVOST_OLD_IMAGE names an earlier build: without one, rolling-upgrade is skipped.
# PROVOST_BASE_IMAGE and PROVOST_PYTHON_IMAGE name the base images, as for docker-compose.yml. clock-skew needs libfaketime
# of Debian, from the base image or by network, and is skipped without.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

skip() {
  echo "test-cluster: SKIPPED, $1"
  exit 0
}

docker info >/dev/null 2>&1 || skip "no Docker Engine answers here"
docker compose version >/dev/null 2>&1 || command -v docker-compose >/dev/null || skip "Docker Compose is not installed"
command -v python3 >/dev/null || skip "python3 is not installed"

# have IMAGE: here already, or to be had.
have() { docker image inspect "$1" >/dev/null 2>&1 || docker pull --quiet "$1" >/dev/null 2>&1; }
base=${PROVOST_BASE_IMAGE:-debian:bookworm-slim}
python=${PROVOST_PYTHON_IMAGE:-python:3.13-slim-bookworm}
have "$python" || skip "the image $python is not here and cannot be pulled"

# prebuilt TAG BINARY: the image of a binary.
prebuilt() {
  have "$base" || skip "the image $base is not here and cannot be pulled"
  mkdir -p out/image
  strip -o out/image/provost "$2"
  docker build --quiet --target prebuilt --build-arg BASE_IMAGE="$base" --tag "$1" . >/dev/null
}

old=${PROVOST_OLD_IMAGE:-}
if [[ -z $old && -n ${PROVOST_OLD_BINARY:-} ]]; then
  old=provost:test-old
  prebuilt "$old" "$PROVOST_OLD_BINARY"
fi
image=${PROVOST_IMAGE:-}
if [[ -z $image ]]; then
  binary=${PROVOST_BINARY:-${CARGO_TARGET_DIR:-target}/release/provost}
  if [[ -z ${PROVOST_BINARY:-} ]]; then
    scripts/setup.sh build
    ROCKSDB_LIB_DIR=$(scripts/rocksdb.sh) ROCKSDB_STATIC=1 cargo build --locked --release --package provost
  fi
  image=provost:test
  prebuilt "$image" "$binary"
fi
clock=
if [[ $# -eq 0 || " $* " == *" clock-skew "* ]] &&
  docker build --quiet --file tests/compose/clock.Dockerfile --build-arg BASE_IMAGE="$base" --build-arg IMAGE="$image" \
    --tag provost:test-clock . >/dev/null; then
  clock=provost:test-clock
fi
exec python3 -B tests/compose/run.py --old "$old" --clock "$clock" "$image" "$@"
