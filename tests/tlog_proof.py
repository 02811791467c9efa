#!/usr/bin/env python3
"""Checks proof files without a line of the product: C2SP tlog-proof, and consistency alike.

tlog_proof.py FILE VKEY LEAF_HASH_HEX          is this record in the signed log?
tlog_proof.py FILE VKEY OLD_SIZE OLD_ROOT_HEX  does the signed log extend the one that I kept?

Written from docs/audit-format.md, RFC 9162 and c2sp.org/tlog-proof. Exit code 0: it holds.
"""
import base64
import hashlib
import sys
from pathlib import Path

from audit_verify import sha, signed_by


def node(left, right):
    return sha(b"\1" + left + right)


def inclusion(leaf, index, size, path):
    """RFC 9162, section 2.1.3.2."""
    if index >= size:
        return None
    fn, sn, root = index, size - 1, leaf
    for sibling in path:
        if sn == 0:
            return None
        if fn & 1 or fn == sn:
            root = node(sibling, root)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            root = node(root, sibling)
        fn, sn = fn >> 1, sn >> 1
    return root if sn == 0 else None


def consistency(old, old_root, new, path):
    """RFC 9162, section 2.1.4.2: the newer root, if the path leads from the older one to it."""
    if old == new:
        return old_root if not path else None
    if not 0 < old < new:
        return None
    path = ([old_root] if old & (old - 1) == 0 else []) + path
    fn, sn = old - 1, new - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    if not path:
        return None
    fr = sr = path[0]
    for sibling in path[1:]:
        if sn == 0:
            return None
        if fn & 1 or fn == sn:
            fr, sr = node(sibling, fr), node(sibling, sr)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = node(sr, sibling)
        fn, sn = fn >> 1, sn >> 1
    return sr if sn == 0 and fr == old_root else None


def head(note, vkey):
    """Size and root of a checkpoint that the key signed."""
    name, key_id, encoded = vkey.split("+", 2)
    key = base64.b64decode(encoded)
    assert key[0] == 1 and hashlib.sha256(name.encode() + b"\n" + key).digest()[:4].hex() == key_id, "key"
    text, _, signatures = note.rpartition("\n\n")
    text, good = text + "\n", False
    for line in signatures.splitlines():
        _, signer, blob = line.split(" ")
        blob = base64.b64decode(blob, validate=True)
        if signer == name and blob[:4].hex() == key_id:
            good = signed_by(key[1:], text.encode(), blob[4:])
            if not good:
                break
    lines = text.split("\n")
    return (int(lines[1]), base64.b64decode(lines[2])) if good and lines[0] == name else (0, None)


def main(path, vkey, *rest):
    proof, _, note = Path(path).read_text().partition("\n\n")
    mark, *lines = proof.split("\n")
    size, root = head(note, vkey)
    if root is None:
        return 1
    if mark == "c2sp.org/tlog-proof@v1" and len(rest) == 1:
        lines = [line for line in lines if not line.startswith("extra ")]
        hashes = [base64.b64decode(line) for line in lines[1:]]
        return int(inclusion(bytes.fromhex(rest[0]), int(lines[0][6:]), size, hashes) != root)
    if mark == "provost/tlog-consistency@v1" and len(rest) == 2:
        hashes = [base64.b64decode(line) for line in lines[2:]]
        same = int(lines[0][4:]) == int(rest[0])
        return int(not same or consistency(int(rest[0]), bytes.fromhex(rest[1]), size, hashes) != root)
    print(__doc__, file=sys.stderr)
    return 5


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
