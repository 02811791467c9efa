#!/usr/bin/env bash
# One node at saturation: its memory must not grow.
#
#   scripts/soak.sh [DIR]      DIR: where the data is kept; default: a new folder here
#
# 16 clients call as fast as they are answered: over HTTP, and at the same time over WebSocket and QUIC, with policy,
# quota, guard and audit. After WARMUP seconds, in which caches and write buffers fill, the node's resident memory is
# read every second for SECONDS_SOAK seconds, and a line is fitted. Flat is: by that line it grows by no more than
# GROWTH_PERCENT of its mean (or 8 MiB, which a write buffer may hold at any moment) in the whole time, and no call
# failed. A leak of 100 bytes a call shows: at 3,000 calls a second it is 17 MiB in a minute.
#
# Environment: SECONDS_SOAK (60), WARMUP (30), GROWTH_PERCENT (5), CONNECTIONS (16), TRANSPORTS ("http ws quic"), PROVOST
# (program), KEEP=1 (leave DIR and its logs). It needs bash and python3, installs nothing, and ends only what it started.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

soak=${SECONDS_SOAK:-60}
warmup=${WARMUP:-30}
growth=${GROWTH_PERCENT:-5}
connections=${CONNECTIONS:-16}
read -ra transports <<<"${TRANSPORTS:-http ws quic}"
provost=${PROVOST:-${CARGO_TARGET_DIR:-target}/release/provost}
# Longer than any start on a busy machine, in tenths of a second.
start_limit=1200

fail() {
  echo "soak: $*" >&2
  exit 1
}

command -v python3 >/dev/null || fail "python3 is missing"
[[ -x $provost ]] || fail "$provost is missing: cargo build --release -p provost"

dir=$(mktemp -d "${1:-$PWD}/soak.XXXXXX")
node=
loads=()

cleanup() {
  local status=$? pid
  trap - EXIT INT TERM
  for pid in "${loads[@]}" $node; do kill -TERM "$pid" 2>/dev/null || true; done
  for pid in "${loads[@]}" $node; do wait "$pid" 2>/dev/null || true; done
  if ((status == 0)) && [[ -z ${KEEP:-} ]]; then
    rm -rf "$dir"
  else
    echo "soak: data and logs are in $dir" >&2
  fi
  exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

mkdir "$dir/config"
cat >"$dir/config/soak.yaml" <<'YAML'
apiVersion: provost/v1
kind: Tenant
metadata: { name: acme }
spec: {}
---
apiVersion: provost/v1
kind: Principal
metadata: { name: ana, tenant: acme }
spec: { type: user }
---
apiVersion: provost/v1
kind: Role
metadata: { name: caller, tenant: acme }
spec: { rules: [{ tools: ["*"] }] }
---
apiVersion: provost/v1
kind: RoleBinding
metadata: { name: caller, tenant: acme }
spec: { role: caller, principals: [ana] }
---
apiVersion: provost/v1
kind: Policy
metadata: { name: careful, tenant: acme }
spec:
  cedar: |
    forbid (principal, action == Provost::Action::"CallTool", resource in Provost::Plugin::"echo")
    when { context.args.hasTag("text") && context.args.getTag("text") == "everything" };
---
apiVersion: provost/v1
kind: Quota
metadata: { name: calls, tenant: acme }
spec: { limit: 1000000000, unit: calls, window: month, per: principal }
---
apiVersion: provost/v1
kind: Guard
metadata: { name: masked, tenant: acme }
spec: { rules: [{ kinds: [secrets, personal-data], action: mask }] }
---
apiVersion: provost/v1
kind: Plugin
metadata: { name: echo, tenant: acme }
spec: { source: { builtin: { name: echo } } }
YAML

"$provost" dev --data-dir "$dir/node" --http 127.0.0.1:0 --config "$dir/config" >"$dir/node.log" 2>&1 &
node=$!
for ((tries = 0; tries < start_limit; tries++)); do
  [[ ! -s $dir/node/dev.json ]] || break
  kill -0 "$node" 2>/dev/null || fail "the node does not start; see $dir/node.log"
  sleep 0.1
done
[[ -s $dir/node/dev.json ]] || fail "the node does not start; see $dir/node.log"

# The load runs a little longer than the memory is read.
for transport in "${transports[@]}"; do
  "$provost" bench --data-dir "$dir/node" --transport "$transport" --tool echo.echo --arg text=hello --expect hello \
    --connections "$((connections / ${#transports[@]} + 1))" --saturate --warmup 1s \
    --duration "$((warmup + soak + 2))s" >"$dir/load-$transport.log" 2>&1 &
  loads+=($!)
done

rss() { awk '/^VmRSS:/ { print $2 }' "/proc/$node/status"; }

sleep "$warmup"
for ((second = 0; second <= soak; second++)); do
  echo "$second $(rss)" >>"$dir/rss"
  for pid in "${loads[@]}"; do kill -0 "$pid" 2>/dev/null || fail "a load ended early; see $dir/load-*.log"; done
  sleep 1
done
for pid in "${loads[@]}"; do wait "$pid" || { cat "$dir"/load-*.log >&2; fail "calls failed"; }; done
loads=()
grep -h throughput "$dir"/load-*.log

python3 - "$dir/rss" "$growth" <<'PY'
import sys

SLACK_MIB = 8
points = [tuple(map(float, line.split())) for line in open(sys.argv[1])]
seconds, mib = [p[0] for p in points], [p[1] / 1024 for p in points]
middle, mean = sum(seconds) / len(seconds), sum(mib) / len(mib)
slope = sum((s - middle) * (m - mean) for s, m in zip(seconds, mib)) / sum((s - middle) ** 2 for s in seconds)
grown, most = slope * (seconds[-1] - seconds[0]), max(SLACK_MIB, mean * float(sys.argv[2]) / 100)
print(f"memory: {min(mib):.1f} to {max(mib):.1f} MiB, mean {mean:.1f}; by the fitted line {slope * 1024:+.1f} KiB/s, "
      f"{grown:+.1f} MiB in {seconds[-1]:.0f} s; at most {most:.1f}")
sys.exit(grown > most)
PY
