# Part of test_packages.sh: a clean Debian root, booted. Sets `leader`, its first process.

# Made once for each release of Debian, and kept. What the package depends on is there, so that the booted root needs no
# network; the repository of the test is all that apt knows there.
kept=${XDG_CACHE_HOME:-$HOME/.cache}/provost/debian-$suite-root.tar
if [[ ! -e $kept ]]; then
  debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,adduser,libstdc++6,libgcc-s1,ca-certificates \
    "$suite" "$work/made" >"$work/debootstrap.log" 2>&1 || { tail "$work/debootstrap.log"; skip "debootstrap could not make a root"; }
  rm -rf "$work/made/var/cache/apt/archives"/*.deb "$work/made/var/lib/apt/lists"/*
  mkdir -p "$(dirname "$kept")"
  tar -C "$work/made" --numeric-owner -cf "$kept.new" . && mv "$kept.new" "$kept"
  rm -rf --one-file-system "$work/made"
fi
root=$work/root
mkdir "$root" && tar -C "$root" --numeric-owner -xf "$kept"
rm -rf "$root/etc/apt/sources.list" "$root/etc/apt/sources.list.d"/*
mkdir -p "$root/etc/apt/keyrings" "$root/srv/apt" "$root/var/log/journal"
source_line() { echo "deb [signed-by=/etc/apt/keyrings/provost.gpg] file:/srv/$1 stable main"; }
source_line apt >"$root/etc/apt/sources.list.d/provost.list"
install -m 0644 "$work/srv/apt/provost.gpg" "$root/etc/apt/keyrings/provost.gpg"
install -m 0755 scripts/packages/stdio_server.pl "$root/usr/local/bin/stdio-server"
install -m 0644 scripts/packages/first.yaml "$root/srv/first.yaml"

# Without the masks that containers get over /proc: an ordinary machine has none, and walls of plugins need a whole one.
SYSTEMD_NSPAWN_API_VFS_WRITABLE=1 systemd-nspawn --quiet --directory="$root" --boot --register=no --keep-unit \
  --private-network --link-journal=no --resolv-conf=off --machine="provost-test-$$" --bind-ro="$work/srv:/srv/repositories" \
  --console=read-only >"$work/console" 2>&1 </dev/null &
container=$!
first_process() { leader=$(pgrep -P "$container" | head -n 1) && [[ -n $leader ]]; }
for _ in {1..100}; do
  if first_process && inside systemctl is-active --quiet multi-user.target 2>/dev/null; then break; fi
  kill -0 "$container" 2>/dev/null || { cat "$work/console"; skip "systemd-nspawn cannot boot a root here"; }
  sleep 0.3
done
inside systemctl is-active --quiet multi-user.target || fail "the root does not come up"
inside rmdir /srv/apt
inside ln -s /srv/repositories/apt /srv/apt
ok "a clean root of $suite runs: systemd $(inside systemctl --version | awk 'NR == 1 { print $2 }')"
