# Of the scripts in this folder: where the volumes are, and what each of them does.
KEYS=/srv/provost/keys
ADMIN=/srv/provost/admin
UPSTREAM=/srv/provost/upstream

# 32 hexadecimal digits that nobody guesses.
random() { od -An -N16 -tx1 /dev/urandom | tr -d ' \n'; }

# replace FILE: stdin becomes its content, whole or not at all. Whoever else can write to the folder cannot lead it to another
# file by a link: what is there under either name is replaced, and neither followed nor written to.
replace() (
  set -o noclobber
  rm -f "$1.new" && cat > "$1.new" && sync "$1.new" && mv -fT "$1.new" "$1"
)

# wait_for FILE WHAT: until it is there.
wait_for() {
  local waited=0
  until [[ -s $1 ]]; do
    ((waited % 15)) || echo "waiting for $2"
    sleep 1
    waited=$((waited + 1))
  done
}
