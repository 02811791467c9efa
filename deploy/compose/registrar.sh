#!/usr/bin/env bash
# Lets the nodes of docker-compose.yml in, and applies the example once.
#
# Who can write to a mailbox (node.sh) can get a join token of that mailbox's kind and of no other: data-plane and GPU
# nodes cannot make themselves control-plane nodes. A name that is a member already is not given twice. A data-plane or GPU
# node that lost its folder is removed and let in anew, since the cluster loses nothing by it; a control-plane node is removed
# by a person.
set -euo pipefail
umask 077
. /etc/provost/common.sh

wait_for "$KEYS/ca.pem" "the container setup"
PROVOST_ADMIN_TOKEN=$(<"$ADMIN/admin-token")
export PROVOST_ADMIN_TOKEN

# Errors that come back are said once.
last_said=
say() {
  [[ $1 == "$last_said" ]] || echo "registrar: $1"
  last_said=$1
}

# answer FILE ROLES PATTERN REMOVES: the request of one node.
answer() {
  local request=$1 roles=$2 pattern=$3 removes=$4 name said token
  name=$(basename "$request" .request)
  if [[ ! $name =~ $pattern ]]; then
    say "$(printf %q "$name") is not a node of this kind, and is not let in"
    rm -rf "$request"
    return
  fi
  said=/tmp/said
  if token=$(provost cluster join-token --role "$roles" --node "$name" 2> "$said"); then
    if replace "${request%.request}.token" <<< "$token"; then
      say "$name is let in"
    else
      say "$name is not let in: its token cannot be put into the volume"
    fi
    rm -rf "$request"
  elif ! grep -q PV-JOIN-NAME "$said"; then
    say "$name has to wait: $(head -n 1 "$said")"
  elif [[ $removes == yes ]]; then
    # The next turn gives the token.
    provost cluster remove "$name" > "$said" 2>&1 || true
    say "$name comes without its folder; its old self: $(head -n 1 "$said")"
  else
    say "$name is a member and its volume is empty. If what it held is lost for good, remove it, and it joins anew:
    docker compose run --rm cli cluster remove $name"
  fi
}

# The example: one time, and again only where it did not get to its end.
apply_example() {
  local resources=/tmp/resources
  rm -rf "$resources"
  cp -r /etc/provost/resources "$resources"
  sed -i "s|@UPSTREAMS_SUBNET@|$PROVOST_UPSTREAMS_SUBNET|" "$resources"/*.yaml
  provost apply -f "$resources/tenant.yaml" > /dev/null &&
    provost secret set desk-token --tenant acme < "$UPSTREAM/token" > /dev/null &&
    provost apply -f "$resources" > /dev/null &&
    provost token create --tenant acme --principal ana > /tmp/agent-token 2> /dev/null &&
    replace "$ADMIN/agent-token" < /tmp/agent-token &&
    touch "$ADMIN/upstream-known" "$ADMIN/example-applied"
}

welcome() {
  echo
  echo "Provost is ready. Agents connect to http://127.0.0.1:$PROVOST_PORT/mcp"
  if [[ -s $ADMIN/agent-token ]]; then
    # Not the token itself: what is said here is in the container's log.
    echo "with the token of acme/ana: docker compose run --rm cli agent-token"
    echo
    echo "Try:"
    echo "  docker compose run --rm cli call desk.find --arg text=printer"
    echo "  docker compose run --rm cli call desk.note --arg id=1 --arg text='my password is tea'    # denied, by a policy"
    echo "  docker compose run --rm cli audit query --limit 4"
  fi
  echo "  docker compose run --rm cli cluster status"
  echo "The administrator's token: docker compose run --rm cli admin-token"
  echo
}

# What comes at the first start, and what has to wait until there is a data-plane node.
welcomed=no
first_things() {
  if [[ ! -e $ADMIN/example-applied ]]; then
    apply_example 2> /tmp/said || { say "the example is not applied yet: $(head -n 1 /tmp/said)"; return; }
  elif [[ ! -e $ADMIN/upstream-known ]]; then
    # Restored: the upstream's token is new.
    if provost secret set desk-token --tenant acme < "$UPSTREAM/token" > /tmp/said 2>&1; then
      touch "$ADMIN/upstream-known"
    else
      say "the example's upstream cannot be given its new token yet: $(head -n 1 /tmp/said)"
    fi
  fi
  if [[ $welcomed == no ]] && provost cluster status 2> /dev/null | grep -q '\bdata-plane\b'; then
    welcome
    welcomed=yes
  fi
}

# After a change of the CA administrators need the new one: while both are trusted, both are noted.
refresh_ca() {
  provost cluster ca > /tmp/ca.pem 2> /dev/null || return 0
  [[ ! -s /tmp/ca.pem || $(</tmp/ca.pem) == "$(<"$KEYS/ca.pem")" ]] || replace "$KEYS/ca.pem" < /tmp/ca.pem
}

trap 'exit 0' TERM INT
shopt -s nullglob
turn=0
while true; do
  for request in /srv/provost/join-control/*.request; do answer "$request" control-plane,audit-log '^cp-[1-3]$' no; done
  for request in /srv/provost/join-data/*.request; do answer "$request" data-plane '^dp-[0-9]+$' yes; done
  for request in /srv/provost/join-gpu/*.request; do answer "$request" gpu-node '^gpu-[0-9]+$' yes; done
  [[ $welcomed == yes ]] || first_things
  ((turn % 60)) || refresh_ca
  turn=$((turn + 1))
  # In the background, so that a signal ends it at once.
  sleep 1 &
  wait $!
done
