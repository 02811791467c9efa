#!/usr/bin/env bash
# What Provost adds to a call: the same MCP server called directly and through Provost, in turn, on this machine.
#
#   scripts/bench_calls.sh [DIR]      DIR: where the data is kept; default: a new folder here
#
#   added    500 calls/s, open loop, through a node of three (control plane, audit log and data plane in each; a call is
#            recorded twice on a quorum before it goes on), each round another node: p50 and p99 added to the direct call
#   ratio    closed loop, 16 connections, one node (records synced to its own disk): calls/s through it over direct
#   pinned   the same with the server under test (the MCP server, or one node with one worker thread) on core 0, and the
#            generator and the MCP server behind the node on core 1; and the same through nginx with one worker, which
#            only forwards, where it is installed
#   loaded   500 calls/s through one node with little state, and through one with TOOLS tools, TENANTS tenants and
#            POLICIES policies: p50 over p50
#   idle     IDLE WebSockets and as many QUIC connections at once at one node: its memory
#
# Policy, quota and guard decide about every call. Each of the first four runs ROUNDS times, its sides in turn; medians.
# A table on stdout, and with JSON=FILE everything there. Exit code 1: something failed, or missed its bar with STRICT=1.
#
# Environment: ROUNDS (3), SECONDS_EACH (10), RATE (500), CONNECTIONS (16), PARTS ("added ratio pinned loaded idle"),
# TOOLS (10000), TENANTS (1000), POLICIES (5000), IDLE (10000), IDLE_SECONDS (20), PORT (24800, and the fifteen after
# it), PROVOST, EVERYTHING (programs), JSON, KEEP=1 (leave DIR and its logs), STRICT=1.
# It needs bash and python3, installs nothing, and ends only what it started.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

rounds=${ROUNDS:-3}
seconds=${SECONDS_EACH:-10}
rate=${RATE:-500}
connections=${CONNECTIONS:-16}
read -ra parts <<<"${PARTS:-added ratio pinned loaded idle}"
tools=${TOOLS:-10000}
tenants=${TENANTS:-1000}
policies=${POLICIES:-5000}
idle=${IDLE:-10000}
idle_seconds=${IDLE_SECONDS:-20}
port=${PORT:-24800}
target=${CARGO_TARGET_DIR:-target}/release
provost=${PROVOST:-$target/provost}
everything=${EVERYTHING:-$target/everything-rmcp}
# A plugin lists so many further tools; a plugin may list 4,096.
tools_each=1000
# Runs until the generator is in time.
max_tries=5
# Longer than any start on a busy machine, in tenths of a second.
start_limit=1200
# What the tool answers.
answer="This is a simple text response for testing."

fail() {
  echo "bench_calls: $*" >&2
  exit 1
}

command -v python3 >/dev/null || fail "python3 is missing"
for program in "$provost" "$everything"; do
  [[ -x $program ]] ||
    fail "$program is missing: cargo build --release -p provost -p provost-tests --bin provost --bin everything-rmcp"
done

dir=$(mktemp -d "${1:-$PWD}/bench-calls.XXXXXX")
[[ $(stat -f -c %T "$dir") != tmpfs ]] || echo "bench_calls: $dir is in memory: syncs cost nothing there" >&2
results=$dir/runs.jsonl
: >"$results"
# By process id; gone when it was waited for.
declare -A running

cleanup() {
  local status=$? pid
  trap - EXIT INT TERM
  for pid in "${!running[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
  for pid in "${!running[@]}"; do wait "$pid" 2>/dev/null || true; done
  if ((status == 0)) && [[ -z ${KEEP:-} ]]; then
    rm -rf "$dir"
  else
    echo "bench_calls: data and logs are in $dir" >&2
  fi
  exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# stop PID...: ends what was started here, and waits for it.
stop() {
  local pid
  kill -TERM "$@"
  for pid in "$@"; do
    wait "$pid" || true
    unset "running[$pid]"
  done
}

# until_true WHAT COMMAND...: waits until COMMAND succeeds.
until_true() {
  local what=$1 tries
  shift
  for ((tries = 0; tries < start_limit; tries++)); do
    ! "$@" >/dev/null 2>&1 || return 0
    sleep 0.1
  done
  fail "$what; see the logs in $dir"
}

# of FILE KEY...: a value of a JSON file.
of() { python3 -c '
import json, sys
value = json.load(open(sys.argv[1]))
for key in sys.argv[2:]:
    value = value[key]
print(value)' "$@"; }

wants() { [[ " ${parts[*]} " == *" $1 "* ]]; }

# What every node under test has: one tenant, one caller, and a policy, a quota and a guard that every call passes.
# resources NAME UPSTREAM_PORT
resources() {
  mkdir -p "$dir/$1-config"
  cat >"$dir/$1-config/base.yaml" <<YAML
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
    @id("not-everything")
    forbid (principal, action == Provost::Action::"CallTool", resource in Provost::Plugin::"up")
    when { context.args.hasTag("scope") && context.args.getTag("scope") == "everything" };
---
apiVersion: provost/v1
kind: Quota
metadata: { name: calls, tenant: acme }
spec: { limit: 1000000000, unit: calls, window: month, per: principal }
---
apiVersion: provost/v1
kind: Guard
metadata: { name: masked, tenant: acme }
spec:
  rules:
    - { kinds: [secrets, personal-data], action: mask }
---
apiVersion: provost/v1
kind: Plugin
metadata: { name: up, tenant: acme }
spec:
  source: { mcp-http: { url: "http://127.0.0.1:$2/mcp" } }
YAML
}

# Further tenants, each with a caller, a role and policies, and further plugins and policies of the first tenant.
more_resources() {
  mkdir -p "$dir/more"
  python3 - "$dir/more" "$((port + 1))" "$tenants" "$policies" "$((tools / tools_each))" <<'PY'
import json, sys

folder, port, tenants, policies, plugins = sys.argv[1], *map(int, sys.argv[2:])


documents = []


def write(kind, name, tenant, spec):
    metadata = {"name": name} if tenant is None else {"name": name, "tenant": tenant}
    documents.append({"apiVersion": "provost/v1", "kind": kind, "metadata": metadata, "spec": spec})


def cedar(plugin, n):
    tool = f'Provost::Tool::"{plugin}.more_{n % 1000:05}"'
    tag = f'context.args.hasTag("text") && context.args.getTag("text") == "word {n}"'
    return f'forbid (principal, action == Provost::Action::"CallTool", resource == {tool})\nwhen {{ {tag} }};\n'


own = policies // 5
source = {"mcp-http": {"url": f"http://127.0.0.1:{port}/mcp"}}
for n in range(1, plugins):
    write("Plugin", f"up{n}", "acme", {"source": source})
for n in range(own):
    write("Policy", f"rule-{n}", "acme", {"cedar": cedar(f"up{n % plugins or ''}", n)})
left, others = policies - own - 1, tenants - 1
for t in range(others):
    name = f"tenant-{t:04}"
    write("Tenant", name, None, {})
    write("Principal", "bob", name, {"type": "user"})
    write("Role", "caller", name, {"rules": [{"tools": ["*"]}]})
    write("RoleBinding", "caller", name, {"role": "caller", "principals": ["bob"]})
    write("Plugin", "up", name, {"source": source})
    for n in range(left * t // others, left * (t + 1) // others):
        write("Policy", f"rule-{n}", name, {"cedar": cedar("up", n)})
# A file holds at most 1,024 documents, and a change 10,000.
for n in range(0, len(documents), 1000):
    with open(f"{folder}/{n // 1000:03}.yaml", "w") as file:
        file.write("\n---\n".join(map(json.dumps, documents[n : n + 1000])) + "\n")
PY
}

# What starts a program where it is to run; nothing: anywhere.
on=()
core() { on=(taskset --cpu-list "$1"); }

# start_upstream NAME PORT FLAG...
start_upstream() {
  local name=$1 at=$2
  shift 2
  "${on[@]}" "$everything" --era modern --http "127.0.0.1:$at" "$@" >"$dir/$name.log" 2>&1 &
  running[$!]=1
  until_true "the MCP server does not start" test -s "$dir/$name.log"
}

# Ready, or over.
started() { [[ -s $dir/$1/dev.json ]] || ! kill -0 "${pid[$1]}"; }

# start_one NAME: one node with all roles; its records are synced to its own disk.
declare -A url token pid
start_one() {
  "${on[@]}" "$provost" dev --data-dir "$dir/$1" --http 127.0.0.1:0 --config "$dir/$1-config" >"$dir/$1.log" 2>&1 &
  running[$!]=1
  pid[$1]=$!
  until_true "the node $1 does not start" started "$1"
  test -s "$dir/$1/dev.json" || fail "the node $1 ended; see $dir/$1.log"
  url[$1]=$(of "$dir/$1/dev.json" mcp)
  token[$1]=$(of "$dir/$1/dev.json" token)
}

# start_nginx PORT UPSTREAM_PORT: forwards and does nothing else; one worker.
start_nginx() {
  mkdir -p "$dir/nginx"
  cat >"$dir/nginx/nginx.conf" <<NGINX
worker_processes 1;
pid $dir/nginx/pid;
error_log $dir/nginx/error.log;
events { worker_connections 1024; }
http {
  access_log off;
  client_body_temp_path $dir/nginx/body;
  proxy_temp_path $dir/nginx/proxy;
  fastcgi_temp_path $dir/nginx/fastcgi;
  uwsgi_temp_path $dir/nginx/uwsgi;
  scgi_temp_path $dir/nginx/scgi;
  keepalive_requests 1000000000;
  upstream behind { server 127.0.0.1:$2; keepalive 64; keepalive_requests 1000000000; }
  server {
    listen 127.0.0.1:$1;
    location / {
      proxy_pass http://behind;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host 127.0.0.1:$2;
      proxy_buffering off;
    }
  }
}
NGINX
  "${on[@]}" "$nginx" -p "$dir/nginx" -c "$dir/nginx/nginx.conf" -g 'daemon off;' >"$dir/nginx.log" 2>&1 &
  running[$!]=1
  url[nginx]=http://127.0.0.1:$1/mcp
  token[nginx]=
  until_true "nginx does not start" test -s "$dir/nginx/pid"
}

# start_three: three nodes, each with control plane, audit log and data plane, and with a third of the processors, as
# `provost dev --nodes 3` starts them.
start_three() {
  local n i peers made=$dir/cluster.json share=$(($(nproc) / 3))
  ((share > 0)) || share=1
  for n in 0 1 2; do
    mkdir -p "$dir/n$n/data"
    peers=
    for i in 0 1 2; do
      ((i == n)) || peers+="\"127.0.0.1:$((port + 3 + 4 * i))\", "
    done
    cat >"$dir/n$n/provost.toml" <<TOML
node = "n$n"
roles = ["control-plane", "audit-log", "data-plane"]
data_dir = "$dir/n$n/data"
control_plane = [${peers%, }]
[listen]
peer = "127.0.0.1:$((port + 3 + 4 * n))"
admin = "127.0.0.1:$((port + 4 + 4 * n))"
metrics = "127.0.0.1:$((port + 5 + 4 * n))"
http = "127.0.0.1:$((port + 6 + 4 * n))"
[keys]
path = "$dir/secrets.key"
[timings]
promote_after_ms = 500
TOML
    ((n == 0)) || printf '[join]\ntoken_file = "%s"\n' "$dir/n$n/token" >>"$dir/n$n/provost.toml"
    url[n$n]=http://127.0.0.1:$((port + 6 + 4 * n))/mcp
  done
  sed -i 's/^control_plane = .*/control_plane = []/' "$dir/n0/provost.toml"
  "$provost" cluster init --json --config "$dir/n0/provost.toml" --cluster bench \
    --join n1=control-plane,audit-log,data-plane --join n2=control-plane,audit-log,data-plane >"$made"
  for n in 1 2; do (umask 077 && of "$made" join_tokens "n$n" >"$dir/n$n/token"); done
  for n in 0 1 2; do
    PROVOST_THREADS=${PROVOST_THREADS:-$share} PROVOST_HUGE_PAGES=${PROVOST_HUGE_PAGES:-0} \
      "$provost" server --config "$dir/n$n/provost.toml" >"$dir/n$n.log" 2>&1 &
    running[$!]=1
    pid[n$n]=$!
    sleep 0.3
  done
  PROVOST_ADMIN=127.0.0.1:$((port + 4)) PROVOST_ADMIN_TOKEN=$(of "$made" admin_token)
  export PROVOST_ADMIN PROVOST_ADMIN_TOKEN
  until_true "the cluster takes no resources" "$provost" apply -f "$dir/three-config"
  "$provost" token create --tenant acme --principal ana --json >"$dir/token.json"
  for n in 0 1 2; do
    token[n$n]=$(of "$dir/token.json" token)
    until_true "three voters of both groups" all_vote "$((port + 5 + 4 * n))"
  done
  unset PROVOST_ADMIN PROVOST_ADMIN_TOKEN
}

# all_vote METRICS_PORT: what that node says of the audit log's group.
all_vote() { python3 -c '
import re, sys, urllib.request
text = urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/metrics", timeout=2).read().decode()
voters = re.search(r"^provost_audit_voters\S* (\d+)", text, re.M)
sys.exit(0 if voters and int(voters[1]) == 3 else 1)' "$1"; }

url[direct]=http://127.0.0.1:$port/mcp
token[direct]=

# load PART SIDE ROUND FLAG...: one run, its figures as a line of results. One in which the generator itself was late
# is made again.
load() {
  local part=$1 side=$2 round=$3 path='' watched=() tries
  shift 3
  case $side in direct | alone | nginx) ;; *) path=/up ;; esac
  [[ -z ${pid[$side]:-} ]] || watched=(--pid "${pid[$side]}")
  for ((tries = 1; ; tries++)); do
    ! PROVOST_TOKEN=${token[$side]} "${on[@]}" "$provost" bench --url "${url[$side]}$path" --tool test_simple_text \
      --expect "$answer" --connections "$connections" --duration "${seconds}s" --warmup 2s "${watched[@]}" \
      --json "$dir/run.json" "$@" >"$dir/run.log" 2>&1 || break
    grep -q PV-BENCH-LAG "$dir/run.log" && ((tries < max_tries)) || {
      cat "$dir/run.log" >&2
      fail "$part, $side, round $round"
    }
    echo "$part, $side, round $round: the generator was late, once more" >&2
  done
  python3 -c '
import json, sys
part, side, number, file, out = sys.argv[1:]
line = {"part": part, "side": side, "round": int(number), "run": json.load(open(file))}
open(out, "a").write(json.dumps(line) + "\n")
run, cost = line["run"], line["run"]["server"]
us = run["latency_us"]
cpu = "" if cost is None else ", %.0f CPU us/call" % cost["cpu_us_per_call"]
print("%s, %s, round %s: %.0f calls/s, p50 %.0f, p99 %.0f us%s"
      % (part, side, number, run["throughput_per_second"], us["p50"], us["p99"], cpu))
' "$part" "$side" "$round" "$dir/run.json" "$results" >&2
}

# settled NAME: calls go through, and what is done once is done.
settled() {
  until_true "no call goes through $1" env PROVOST_TOKEN="${token[$1]}" "$provost" bench --url "${url[$1]}/up" \
    --tool test_simple_text --connections 4 --rate 100 --duration 1s --warmup 1s
}

start_upstream upstream "$port"

if wants added; then
  echo "three nodes in $dir" >&2
  resources three "$port"
  start_three
  for n in 0 1 2; do settled "n$n"; done
  for ((round = 1; round <= rounds; round++)); do
    load added direct "$round" --rate "$rate"
    load added "n$((round % 3))" "$round" --rate "$rate"
  done
  stop "${pid[n0]}" "${pid[n1]}" "${pid[n2]}"
fi

if wants ratio || wants loaded || wants idle; then
  resources small "$port"
  start_one small
  settled small
fi

if wants ratio; then
  for ((round = 1; round <= rounds; round++)); do
    load ratio direct "$round" --saturate
    load ratio small "$round" --saturate
  done
fi

if wants pinned; then
  core 0
  start_upstream alone "$((port + 2))"
  url[alone]=http://127.0.0.1:$((port + 2))/mcp
  token[alone]=
  core 1
  start_upstream behind "$((port + 3))"
  core 0
  resources pinned "$((port + 3))"
  PROVOST_THREADS=1 start_one pinned
  nginx=$(PATH=$PATH:/usr/sbin command -v nginx || true)
  [[ -z $nginx ]] || start_nginx "$((port + 4))" "$((port + 3))"
  core 1
  settled pinned
  for ((round = 1; round <= rounds; round++)); do
    load pinned alone "$round" --saturate
    load pinned pinned "$round" --saturate
    [[ -z $nginx ]] || load pinned nginx "$round" --saturate
  done
  on=()
fi

if wants loaded; then
  start_upstream many "$((port + 1))" --more-tools "$tools_each"
  resources loaded "$((port + 1))"
  more_resources
  echo "a node with $tools tools, $tenants tenants and $policies policies" >&2
  start_one loaded
  began=$(date +%s%N)
  for file in "$dir"/more/*.yaml; do
    PROVOST_ADMIN=$(of "$dir/loaded/dev.json" admin) \
      PROVOST_ADMIN_TOKEN=$(of "$dir/loaded/dev.json" admin_token) "$provost" apply -f "$file" >"$dir/apply.log" 2>&1 || {
      cat "$dir/apply.log" >&2
      fail "$file is not taken"
    }
  done
  echo "applied in $((($(date +%s%N) - began) / 1000000)) ms" >&2
  settled loaded
  # Its merged list holds all tools: they are fetched and pinned before anything is measured.
  PROVOST_TOKEN=${token[loaded]} "$provost" tools --url "${url[loaded]}" --json >"$dir/tools.json" ||
    fail "the tools cannot be listed"
  python3 -c '
import json, sys
found = json.load(open(sys.argv[1]))
found = found["tools"] if isinstance(found, dict) else found
assert len(found) >= int(sys.argv[2]), f"{len(found)} tools are listed"' "$dir/tools.json" "$tools" ||
    fail "not all tools are there"
  for ((round = 1; round <= rounds; round++)); do
    load loaded small "$round" --rate "$rate"
    load loaded loaded "$round" --rate "$rate"
  done
fi

if wants idle; then
  for transport in ws quic; do
    PROVOST_TOKEN=${token[small]} "$provost" bench --data-dir "$dir/small" --transport "$transport" \
      --tool up.test_simple_text --idle "$idle" --duration "${idle_seconds}s" --pid "${pid[small]}" \
      --json "$dir/idle-$transport.json" >"$dir/idle-$transport.log" 2>&1 &
    eval "held_$transport=\$!"
  done
  for held in "$held_ws" "$held_quic"; do
    wait "$held" || { cat "$dir"/idle-*.log >&2; fail "idle connections"; }
  done
fi

python3 scripts/bench_calls_table.py "$dir" >"$dir/table.txt" || failed=1
cat "$dir/table.txt"
[[ -z ${JSON:-} ]] || cp "$dir/results.json" "$JSON"
[[ -z ${failed:-} || -z ${STRICT:-} ]] || fail "a bar was missed"
