#!/usr/bin/env bash
# Puts into the folder $1 what the image takes of Debian: the programs below with their libraries, the C++ runtime, name
# resolution, certificates of authorities, and the list of packages that scanners read. Runs in a stage of ../../Dockerfile.
set -euo pipefail
target=$1

# A shell and what the scripts in deploy/compose use. openssl makes the example upstream's certificate.
programs=(
  bash sh base64 basename cat chmod chown cp cut date dirname env false getent grep head hostname id ln ls mkdir
  mktemp mv od openssl printf pwd readlink rm rmdir sed sha256sum sleep sort stat sync tail tee test timeout touch tr true uname wc
)
# What the binary is linked with beside the C library.
libraries=(libstdc++.so.6 libgcc_s.so.1 libm.so.6)

# put PATH: the file, and what it links to, below the folders' real names (/lib is a link to /usr/lib).
put() {
  local path link
  path=$(realpath "$(dirname "$1")")/$(basename "$1")
  mkdir -p "$target$(dirname "$path")"
  cp --no-dereference --preserve=mode,links,timestamps "$path" "$target$path"
  if [[ -L $path ]]; then
    link=$(readlink "$path")
    [[ $link == /* ]] || link=$(dirname "$path")/$link
    put "$link"
  fi
}

put_with_libraries() {
  local path=$1 library
  put "$path"
  # `ldd` names the loader too.
  ldd "$(realpath "$path")" | grep -o '/[^ )]*' | while read -r library; do put "$library"; done
}

mkdir -p "$target"/{usr/bin,usr/lib,usr/lib64,usr/sbin,etc,proc,sys,dev,run,root,var/lib}
for dir in bin lib lib64 sbin; do ln -s "usr/$dir" "$target/$dir"; done

for program in "${programs[@]}"; do
  path=$(type -P "$program") || { echo "the base image has no $program" >&2; exit 1; }
  put_with_libraries "$path"
done
for library in "${libraries[@]}"; do
  put_with_libraries "$(ldconfig -p | sed -n "s/^\t$library (.*x86-64.*) => //p; s/^\t$library (.*AArch64.*) => //p" | head -n 1)"
done
for file in /etc/ssl/certs/ca-certificates.crt /etc/os-release /etc/debian_version /etc/nsswitch.conf /etc/ssl/openssl.cnf; do
  [[ -e $file ]] && put "$file"
done
# Debian's slim images have no nsswitch.conf; names come from /etc/hosts and then from the name server.
[[ -e $target/etc/nsswitch.conf ]] || echo 'hosts: files dns' > "$target/etc/nsswitch.conf"
printf 'root:x:0:0:root:/root:/usr/sbin/nologin\nprovost:x:10001:10001::/tmp:/usr/sbin/nologin\n' > "$target/etc/passwd"
printf 'root:x:0:\nprovost:x:10001:\n' > "$target/etc/group"

# The packages that the files are of, as dpkg would list them.
mkdir -p "$target/var/lib/dpkg/status.d"
find "$target" -type f -printf '/%P\n' | while read -r file; do dpkg -S "$file" "${file#/usr}" 2>/dev/null || true; done \
  | cut -d: -f1 | sort -u | while read -r package; do
    dpkg -s "$package" > "$target/var/lib/dpkg/status.d/$package" 2>/dev/null || rm -f "$target/var/lib/dpkg/status.d/$package"
  done
