#!/usr/bin/env bash
# Makes the installation of docker-compose.yml, once: the key that wraps secrets, the cluster in the folder of its first
# node, the administrator's token, and token and certificate of the example upstream. Started again it changes nothing.
#
#   setup.sh make               what `docker compose up` runs
#   setup.sh restore-key        takes the secrets.key of an earlier installation from stdin
#   setup.sh restore            takes a backup from stdin, and makes the cluster from it
#
# A crash anywhere leaves `unfinished` in the first node's volume: the next run begins anew. `ca.pem` among the keys comes
# last and says that there is an installation; every other container waits for it.
set -euo pipefail
umask 077
. /etc/provost/common.sh

data=/var/lib/provost
node=$data/cp-1

fail() {
  echo "setup: $1" >&2
  exit 1
}

refuse_where_there_is_something() {
  [[ ! -e $KEYS/ca.pem ]] || fail "there is an installation already; \`docker compose down --volumes\` deletes it for good"
  if [[ -d $node && ! -e $data/unfinished ]]; then
    fail "the volume cp-1 holds a cluster, but the volume keys does not belong to it. Put the volume keys back, or delete
       everything with \`docker compose down --volumes\` and restore a backup (docs/compose.md)"
  fi
}

# Everything of the example upstream. Its authority may certify this one name, and its key is not kept.
make_upstream() {
  local scratch
  [[ -e $UPSTREAM/ca.pem ]] && return
  scratch=$(mktemp -d)
  printf '%s\n' '[req]' 'distinguished_name=dn' 'prompt=no' '[dn]' 'CN=Example upstream' \
    '[ca]' 'basicConstraints=critical,CA:TRUE,pathlen:0' 'keyUsage=critical,keyCertSign' \
    'subjectKeyIdentifier=hash' 'nameConstraints=critical,permitted;DNS:upstream' \
    '[leaf]' 'subjectAltName=DNS:upstream' 'extendedKeyUsage=serverAuth' > "$scratch/config"
  (
    cd "$scratch"
    curve=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -config config)
    openssl req -x509 "${curve[@]}" -extensions ca -days 3650 -keyout ca.key -out ca.pem
    openssl req -new "${curve[@]}" -keyout key.pem -out request.pem
    openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -set_serial 1 -days 3650 -extfile config -extensions leaf \
      -out cert.pem
  ) 2> "$scratch/said" || fail "the example upstream's certificate cannot be made: $(<"$scratch/said")"
  random > "$UPSTREAM/token"
  cp "$scratch/cert.pem" "$scratch/key.pem" "$UPSTREAM/"
  replace "$KEYS/upstream-ca.pem" < "$scratch/ca.pem"
  replace "$UPSTREAM/ca.pem" < "$scratch/ca.pem"
  rm -r "$scratch"
}

# make_cluster NAME: in what is, or is not, restored there.
make_cluster() {
  local made
  export PROVOST_NODE=cp-1 PROVOST_ADVERTISE=cp-1:8423 PROVOST_DATA_DIR=$node PROVOST_CONFIG=/etc/provost/control-plane.toml
  made=$(provost cluster init --cluster "$1" --json)
  sed -n 's/.*"admin_token":"\([^"]*\)".*/\1/p' <<< "$made" | replace "$ADMIN/admin-token"
  [[ -s $ADMIN/admin-token ]] || fail "the new cluster has no administrator's token"
  make_upstream
  sync
  replace "$KEYS/ca.pem" < "$node/ca.pem"
  rm -f "$data/unfinished"
  echo "setup: cluster $1 is made"
}

case ${1:-make} in
  make)
    if [[ -e $KEYS/ca.pem ]]; then
      rm -f "$data/unfinished"
      echo "setup: the installation is there, nothing to do"
      exit 0
    fi
    refuse_where_there_is_something
    touch "$data/unfinished"
    rm -rf "$node"
    make_cluster "compose-$(random | head -c 6)"
    ;;
  restore-key)
    refuse_where_there_is_something
    [[ ! -e $KEYS/secrets.key ]] || fail "the volume keys holds a secrets.key already"
    replace "$KEYS/secrets.key"
    echo "setup: the key is in place; next: setup restore"
    ;;
  restore)
    refuse_where_there_is_something
    [[ -e $KEYS/secrets.key ]] || fail "the old installation's secrets.key comes first: setup restore-key"
    touch "$data/unfinished"
    rm -rf "$node"
    cat > "$data/restore.pvb"
    name=compose-$(random | head -c 6)
    if ! provost cluster restore "$data/restore.pvb" --data-dir "$node" --cluster "$name" --address cp-1:8423; then
      rm -rf "$node" "$data/restore.pvb" "$data/unfinished"
      fail "nothing was restored"
    fi
    rm "$data/restore.pvb"
    # The example stays what it was in the backup, or gone if it was.
    touch "$ADMIN/example-applied"
    make_cluster "$name"
    ;;
  *) fail "make, restore-key or restore" ;;
esac
