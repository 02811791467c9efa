# Part of test_packages.sh: two versions, a signed repository, and two that must not be believed.

first=$("$binary" --version | awk '{ print $2 }')
later=$first+next1
export PROVOST_DEB_COMPRESS=gzip
mapfile -t debs < <(
  scripts/package_deb.sh --binary "$binary" --version "$first" --out "$work/debs"
  scripts/package_deb.sh --binary "$next" --version "$later" --out "$work/debs"
)
((${#debs[@]} == 2)) || fail "the packages are not built"
dpkg --compare-versions "$first-1" lt "$later-1" || fail "$later is not after $first"

new_key() {
  mkdir -p -m 700 "$work/gnupg"
  export GNUPGHOME=$work/gnupg
  gpg --batch --quiet --passphrase '' --quick-generate-key "$1" ed25519 sign 1d 2>/dev/null
  gpg --batch --quiet --list-keys --with-colons "$1" 2>/dev/null | awk -F: '$1 == "fpr" { print $10; exit }'
}
key=$(new_key "Repository <repository@example.org>")
stranger=$(new_key "Stranger <stranger@example.org>")
export GNUPGHOME=$work/gnupg

mkdir -p "$work/srv"
scripts/apt_repo.sh --key "$key" --out "$work/srv/apt" --valid-days 7 "${debs[0]}" >/dev/null
grep -q '^Valid-Until: ' "$work/srv/apt/dists/stable/Release" || fail "the list does not end"
# The right key's list over altered contents, and a stranger's list.
cp -r "$work/srv/apt" "$work/srv/altered"
packages=$work/srv/altered/dists/stable/main/binary-$(dpkg --print-architecture)/Packages
sed -i 's/^Version: /Version: 9/' "$packages" && rm "$packages.gz"
for list in "${packages%/*}"/by-hash/*/*; do cp "$packages" "$list"; done
scripts/apt_repo.sh --key "$stranger" --out "$work/srv/stranger" "${debs[0]}" >/dev/null
# One version is one file for ever.
cp "${debs[0]}" "$work/other.deb" && printf '\n' >>"$work/other.deb"
refuses "is there already" scripts/apt_repo.sh --key "$key" --out "$work/srv/apt" "$work/other.deb"
# Of two at once, the second waits: neither loses what the other puts in.
scripts/apt_repo.sh --key "$key" --out "$work/srv/both" "${debs[0]}" >/dev/null &
one=$!
scripts/apt_repo.sh --key "$key" --out "$work/srv/both" "${debs[1]}" >/dev/null
wait "$one" || fail "of two repositories built at once, one failed"
listed=$(grep -c '^Package: ' "$work/srv/both/dists/stable/main/binary-$(dpkg --print-architecture)/Packages")
[[ $listed == 2 ]] || fail "of two packages put in at once, the list has $listed"
(
  exec 9>"$work/srv/both/.lock"
  flock 9
  PROVOST_APT_LOCK_SECONDS=1 refuses "another run" scripts/apt_repo.sh --key "$key" --out "$work/srv/both" "${debs[0]}"
) || exit 1
ok "two packages and a signed repository are built"
