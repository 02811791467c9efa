#!/usr/bin/env bash
# Side by side: three etcd members and three Provost control-plane nodes, on this machine and one disk.
#
#   scripts/compare_etcd.sh [DIR]      DIR: where both keep their data; default: a new folder here
#
# Writes a second, p50 and p99 of closed-loop clients (1, 16, 64), each store in turn, ROUNDS times,
# medians; then the longest time without an acknowledged write while the leader is killed with SIGKILL.
# Both sync every write to disk on a majority before they acknowledge; etcd runs with its defaults. Both
# stand all the time, one of them is loaded.
#
# Environment: ROUNDS (3), SECONDS_EACH (10), CLIENTS ("1 16 64"), OUTAGE_SECONDS (15), PORT (23790, and
# the five after it), PROVOST, WRITE_LOAD, ETCD (programs), KEEP=1 (leave DIR and its logs), ETCD_PEER_TLS=1
# (etcd's members prove who they are to each other and encrypt, as Provost's always do; needs openssl).
# It installs nothing, and ends only what it started.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

rounds=${ROUNDS:-3}
seconds=${SECONDS_EACH:-10}
read -ra clients <<<"${CLIENTS:-1 16 64}"
outage_seconds=${OUTAGE_SECONDS:-15}
port=${PORT:-23790}
target=${CARGO_TARGET_DIR:-target}/release
provost=${PROVOST:-$target/provost}
write_load=${WRITE_LOAD:-$target/write_load}
etcd=${ETCD:-etcd}
# Longer than any start on a busy machine, in tenths of a second.
start_limit=600

fail() {
  echo "compare_etcd: $*" >&2
  exit 1
}

command -v "$etcd" >/dev/null || fail "etcd is missing. On Debian: apt-get install etcd-server"
command -v python3 >/dev/null || fail "python3 is missing"
for program in "$provost" "$write_load"; do
  [[ -x $program ]] ||
    fail "$program is missing: cargo build --release -p provost -p provost-bench --bin provost --bin write_load"
done
[[ $("$provost" dev --help) =~ --nodes.*values:\ [^]]*3 ]] || fail "this provost runs no three nodes"

dir=$(mktemp -d "${1:-$PWD}/compare-etcd.XXXXXX")
[[ $(stat -f -c %T "$dir") != tmpfs ]] || echo "compare_etcd: $dir is in memory: syncs cost nothing there" >&2
results=$dir/results.jsonl
: >"$results"

declare -A etcd_pid
provost_pid=

# Pids of Provost's nodes, or nothing.
provost_nodes() { python3 -c '
import json, sys
try:
    nodes = json.load(open(sys.argv[1])).get("nodes", [])
except (OSError, ValueError):
    nodes = []
print(*(str(n[sys.argv[2]]) for n in nodes), sep=sys.argv[3])' "$dir/provost/dev.json" "$1" "$2"; }

cleanup() {
  local status=$? pid nodes
  trap - EXIT INT TERM
  nodes=$(provost_nodes pid ' ')
  if [[ -n $provost_pid ]]; then
    kill -TERM "$provost_pid" 2>/dev/null || true
    wait "$provost_pid" 2>/dev/null || true
    # What a parent left behind; a pid that is another program's by now stays.
    for pid in $nodes; do
      [[ $(readlink "/proc/$pid/exe") != "$(readlink -f "$provost")" ]] || kill -KILL "$pid" 2>/dev/null || true
    done
  fi
  for pid in "${etcd_pid[@]}"; do
    kill -TERM "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  if ((status == 0)) && [[ -z ${KEEP:-} ]]; then
    rm -rf "$dir"
  else
    echo "compare_etcd: data and logs are in $dir" >&2
  fi
  exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# until_true WHAT COMMAND...: waits until COMMAND succeeds.
until_true() {
  local what=$1 tries
  shift
  for ((tries = 0; tries < start_limit; tries++)); do
    ! "$@" >/dev/null 2>&1 || return 0
    sleep 0.1
  done
  fail "$what; see the logs"
}

client_port() { echo $((port + 2 * $1)); }
peer_port() { echo $((port + 2 * $1 + 1)); }

scheme=http
peer_tls=()
# One authority and one certificate for all three members, made anew for this run.
make_peer_certificates() {
  command -v openssl >/dev/null || fail "openssl is missing. On Debian: apt-get install openssl"
  local tls=$dir/etcd-tls
  mkdir "$tls"
  {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=compare \
      -keyout "$tls/ca.key" -out "$tls/ca.pem"
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=member \
      -keyout "$tls/member.key" -out "$tls/member.csr"
    openssl x509 -req -in "$tls/member.csr" -CA "$tls/ca.pem" -CAkey "$tls/ca.key" -CAcreateserial -days 2 \
      -extfile <(echo "subjectAltName=IP:127.0.0.1") -out "$tls/member.pem"
  } 2>"$tls/openssl.log" || fail "openssl makes no certificates; see $tls/openssl.log"
  scheme=https
  peer_tls=(--peer-client-cert-auth --peer-trusted-ca-file "$tls/ca.pem"
    --peer-cert-file "$tls/member.pem" --peer-key-file "$tls/member.key")
}
[[ -z ${ETCD_PEER_TLS:-} ]] || make_peer_certificates

start_etcd_member() {
  local n=$1 cluster="" i
  for i in 0 1 2; do
    cluster+="${cluster:+,}m$i=$scheme://127.0.0.1:$(peer_port "$i")"
  done
  "$etcd" --name "m$n" --data-dir "$dir/etcd-$n" \
    --listen-client-urls "http://127.0.0.1:$(client_port "$n")" \
    --advertise-client-urls "http://127.0.0.1:$(client_port "$n")" \
    --listen-peer-urls "$scheme://127.0.0.1:$(peer_port "$n")" \
    --initial-advertise-peer-urls "$scheme://127.0.0.1:$(peer_port "$n")" \
    --initial-cluster "$cluster" --initial-cluster-token compare --initial-cluster-state new \
    "${peer_tls[@]}" \
    --logger zap --log-level warn >>"$dir/etcd-$n.log" 2>&1 &
  etcd_pid[$(client_port "$n")]=$!
}

etcd_endpoints="127.0.0.1:$(client_port 0),127.0.0.1:$(client_port 1),127.0.0.1:$(client_port 2)"

# on STORE ARGUMENT...: the generator against one of the two. Provost's nodes move when they restart.
on() {
  local store=$1 endpoints=$etcd_endpoints
  shift
  [[ $store == etcd ]] || endpoints=$(provost_nodes admin ,)
  "$write_load" --target "$store" --endpoints "$endpoints" "$@"
}

all_answer() {
  local store=$1 endpoints endpoint
  endpoints=$etcd_endpoints
  [[ $store == etcd ]] || endpoints=$(provost_nodes admin ,)
  for endpoint in ${endpoints//,/ }; do
    "$write_load" --target "$store" --endpoints "$endpoint" --seconds 1 --warmup-seconds 0 --prefix probe || return 1
  done
}

echo "starting three etcd members and three Provost nodes in $dir" >&2
for n in 0 1 2; do start_etcd_member "$n"; done
"$provost" dev --nodes 3 --http 127.0.0.1:0 --data-dir "$dir/provost" >"$dir/provost.log" 2>&1 &
provost_pid=$!
until_true "Provost does not start" test -s "$dir/provost/dev.json"
PROVOST_ADMIN_TOKEN=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["admin_token"])' \
  "$dir/provost/dev.json")
export PROVOST_ADMIN_TOKEN
for store in etcd provost; do until_true "$store takes no writes" all_answer "$store"; done

# record STORE ROUND JSON: one line a run.
record() { printf '{"store":"%s","round":%d,"result":%s}\n' "$1" "$2" "$3" >>"$results"; }

for ((round = 1; round <= rounds; round++)); do
  for count in "${clients[@]}"; do
    for store in etcd provost; do
      json=$(on "$store" --clients "$count" --seconds "$seconds") || fail "$store with $count clients: $json"
      record "$store" "$round" "$json"
      echo "round $round: $json" >&2
    done
  done
done

# kill_leader STORE: SIGKILL; Provost's parent restarts its node, an etcd member is restarted after the run.
kill_leader() {
  local store=$1 leader pid
  leader=$(on "$store" --leader)
  if [[ $store == etcd ]]; then
    killed=$(((${leader##*:} - port) / 2))
    pid=${etcd_pid[${leader##*:}]}
  else
    pid=$(paste <(provost_nodes admin $'\n') <(provost_nodes pid $'\n') | awk -v a="$leader" '$1 == a { print $2 }')
  fi
  [[ -n $pid ]] || fail "$store: no process leads at $leader"
  kill -KILL "$pid"
  # The shell would report it otherwise.
  [[ $store != etcd ]] || wait "$pid" 2>/dev/null || true
}

for ((round = 1; round <= rounds; round++)); do
  for store in etcd provost; do
    on "$store" --outage --seconds "$outage_seconds" >"$dir/outage.json" &
    load=$!
    sleep 4
    killed=
    kill_leader "$store"
    wait "$load" || fail "$store: the load failed while the leader was killed"
    json=$(<"$dir/outage.json")
    record "$store" "$round" "$json"
    echo "leader killed, round $round: $json" >&2
    [[ -z $killed ]] || start_etcd_member "$killed"
    until_true "$store is not whole again" all_answer "$store"
  done
done

"$etcd" --version | sed -n 1p
"$provost" --version
python3 - "$results" <<'PYTHON'
import json, statistics, sys

runs = [json.loads(line) for line in open(sys.argv[1])]


def median(store, field, **want):
    found = [r["result"][field] for r in runs
             if r["store"] == store and all(r["result"].get(k) == v for k, v in want.items())]
    return statistics.median(found)


def row(name, etcd, provost, digits):
    ratio = f"{provost / etcd:.2f}" if etcd else "-"
    print(f"| {name} | {etcd:,.{digits}f} | {provost:,.{digits}f} | {ratio} |")


print("| median | etcd | Provost | Provost : etcd |")
print("|---|---|---|---|")
counts = sorted({r["result"]["clients"] for r in runs if r["result"]["mode"] == "load"})
for count in counts:
    for field, name, digits in [("writes_per_second", "writes/s", 0), ("p50_ms", "p50 ms", 2), ("p99_ms", "p99 ms", 2),
                                ("max_ms", "max ms", 1)]:
        figures = [median(s, field, mode="load", clients=count) for s in ("etcd", "provost")]
        row(f"{count} clients, {name}", *figures, digits)
row("leader killed, ms without an acknowledged write",
    *[median(s, "outage_ms", mode="outage") for s in ("etcd", "provost")], 0)
errors = {s: sum(sum(r["result"]["errors"].values()) for r in runs if r["store"] == s and r["result"]["mode"] == "load")
          for s in ("etcd", "provost")}
print(f"\nerrors under load: etcd {errors['etcd']}, Provost {errors['provost']}")
PYTHON
