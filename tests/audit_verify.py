#!/usr/bin/env python3
"""An independent verifier of Provost audit directories: `audit_verify.py DIR [--against FILE]`.

Written from docs/audit-format.md alone; shares no code with the product. Needs Python 3.9 and
libzstd (present on every Debian). Prints one JSON object and ends with the exit code of the format:
0 proven, 1 tampered, 2 consistent but unanchored, 4 incomplete input, 5 usage.
"""
import base64
import ctypes
import ctypes.util
import hashlib
import json
import struct
import sys
from pathlib import Path

BLOCK, SEGMENT, MAX_RAW = 256, 65536, 256 * (4 + 65535)
P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P


class Tampered(Exception):
    pass


class Incomplete(Exception):
    pass


def sha(data):
    return hashlib.sha256(data).digest()


def add(a, b):
    """Addition of Edwards points in extended coordinates (RFC 8032, section 5.1.4)."""
    w = (a[1] - a[0]) * (b[1] - b[0]) % P
    x = (a[1] + a[0]) * (b[1] + b[0]) % P
    y, z = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    e, f, g, h = x - w, z - y, z + y, x + w
    return e * f % P, g * h % P, f * g % P, e * h % P


def times(n, point):
    result = (0, 1, 1, 0)
    while n:
        if n & 1:
            result = add(result, point)
        point, n = add(point, point), n >> 1
    return result


def point(data):
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & (1 << 255) - 1
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    if y >= P or (x * x - square) % P or (x == 0 and sign):
        raise ValueError("not a point")
    return (P - x if x & 1 != sign else x), y, 1, (P - x if x & 1 != sign else x) * y % P


BASE = point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def signed_by(key, message, signature):
    try:
        a, r, s = point(key), point(signature[:32]), int.from_bytes(signature[32:], "little")
    except ValueError:
        return False
    if s >= L:
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % L
    left, right = times(s, BASE), add(r, times(k, a))
    return not ((left[0] * right[2] - right[0] * left[2]) % P or (left[1] * right[2] - right[1] * left[2]) % P)


def zstd_library():
    lib = ctypes.CDLL(ctypes.util.find_library("zstd") or "libzstd.so.1")
    lib.ZSTD_decompress.restype = lib.ZSTD_isError.restype = ctypes.c_size_t
    lib.ZSTD_decompress.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t]
    lib.ZSTD_isError.argtypes = [ctypes.c_size_t]
    return lib


def decompress(data, size, library=[]):
    if not library:
        library.append(zstd_library())
    out = ctypes.create_string_buffer(max(size, 1))
    got = library[0].ZSTD_decompress(out, size, data, len(data))
    if library[0].ZSTD_isError(got) or got != size:
        raise Tampered("a block does not decompress")
    return out.raw[:size]


def vkey(path):
    try:
        name, key_id, key = path.read_text().strip().split("+", 2)
    except (OSError, ValueError) as error:
        raise Incomplete(f"{path}: {error}")
    key = base64.b64decode(key)
    if len(key) != 33 or key[0] != 1 or sha(name.encode() + b"\n" + key)[:4].hex() != key_id:
        raise Incomplete(f"{path}: not a verifier key")
    return name, key


def notes(path, whole=True):
    """Checkpoint notes of a file: text, blank line, signature lines, blank line, next text."""
    found, rest = [], path.read_text(errors="replace") if path.exists() else ""
    while rest:
        body = rest.find("\n\n")
        end = rest.find("\n\n", body + 2) if body >= 0 else -1
        piece, rest = (rest, "") if end < 0 else (rest[: end + 1], rest[end + 2 :])
        if piece.endswith("\n") or whole:
            found.append(piece)
    return found


def key_list(top, key):
    """The keys of the directory, oldest first, if they lead to `key` (docs/audit-format.md, Keys)."""
    folder, keys = top / "cluster", []
    listed = (folder / "keys").read_text().splitlines() if (folder / "keys").exists() else []
    named = {}
    if len(listed) > 1:
        index = 0
        for records, *_ in blocks(folder):
            for leaf in records:
                record = json.loads(leaf)
                if record.get("event") == "audit.key":
                    named[index] = record["event.objects"][0]
                index += 1
    both = [note for note in notes(folder / "checkpoints") if note.count("\n\u2014 ") > 1] if listed else []
    for line in listed:
        record, _, text = line.partition(" ")
        name, _, encoded = text.split("+", 2)
        one = base64.b64decode(encoded)
        if keys and not (record.isdigit() and named.get(int(record)) == text):
            break
        if keys and not any(int(note.split("\n")[1]) > int(record) and signers(note, name, [keys[-1], one]) == [0, 1] for note in both):
            break
        keys.append(one)
    return keys if key in keys else [key]


def signers(note, origin, keys):
    """Which of the keys signed the note; a line of a known key that does not verify is a forgery."""
    text, _, signatures = note.partition("\n\n")
    found = set()
    for line in signatures.splitlines():
        try:
            dash, name, blob = line.split(" ")
            blob = base64.b64decode(blob, validate=True)
        except ValueError:
            raise Tampered("a signature line is malformed")
        for n, key in enumerate(keys):
            if name == origin and blob[:4] == sha(origin.encode() + b"\n" + key)[:4]:
                if not signed_by(key[1:], text.encode() + b"\n", blob[4:]):
                    raise Tampered("a signature of the log's key does not verify")
                found.add(n)
    return sorted(found)


def tenant_heads(top):
    """By origin: index, size and root of every record of the cluster's log that notes a checkpoint."""
    heads, index = {}, 0
    for records, *_ in blocks(top / "cluster") if (top / "cluster").is_dir() else []:
        for leaf in records:
            record = json.loads(leaf)
            if record.get("event") == "checkpoint" and record["phase"] == "event":
                size, _, root = record["event.detail"].partition(" ")
                heads.setdefault(record["event.objects"][0], []).append((index, int(size), bytes.fromhex(root)))
            index += 1
    return heads


def checkpoint(note, origin, keys):
    text, _, signatures = note.partition("\n\n")
    good = signers(note, origin, keys)
    lines = text.split("\n")
    if not good or len(lines) < 5 or lines[0] != origin:
        raise Tampered("a checkpoint is not signed by the log's key")
    return int(lines[1]), good, base64.b64decode(lines[2]), base64.b64decode(lines[3][6:])


def blocks(folder):
    """Yields (records, stored hashes, chain_in or None, chain_out or None) in order."""
    index, first = 0, 0
    segments = sorted((folder / "segments").glob("*.seg"))
    while True:
        path = folder / "segments" / f"{first:020}.seg"
        if not path.exists():
            if segments and int(segments[-1].stem) > first:
                raise Incomplete(f"{path} is missing")
            break
        data = path.read_bytes()
        leaf_file = path.with_suffix(".leaf")
        leaves = leaf_file.read_bytes() if leaf_file.exists() else b""
        if len(data) >= 80 and (data[:8] != b"PVSEG\0\0\1" or struct.unpack_from("<Q", data, 8)[0] != first):
            raise Tampered(f"{path}: header")
        chain_in, at, origin = data[48:80], 80, data[16:48]
        while index < first + SEGMENT and at + 104 <= len(data):
            magic, count, start, raw_len, stored, low, high = struct.unpack_from("<4sIQIIQQ", data, at)
            if magic != b"PVB1" or count != BLOCK or start != index or raw_len > MAX_RAW:
                raise Tampered(f"{path}: block header at {at}")
            block_in, block_out = data[at + 40 : at + 72], data[at + 72 : at + 104]
            if at + 104 + stored > len(data):
                break
            raw, records, pos = decompress(data[at + 104 : at + 104 + stored], raw_len), [], 0
            while pos < len(raw):
                (size,) = struct.unpack_from("<I", raw.ljust(pos + 4, b"\0"), pos)
                records.append(raw[pos + 4 : pos + 4 + size])
                pos += 4 + size
            if pos != len(raw) or len(records) != BLOCK:
                raise Tampered(f"{path}: block at {at}")
            offset = (index - first) * 32
            hashes = [leaves[o : o + 32] for o in range(offset, offset + BLOCK * 32, 32)]
            at, index = at + 104 + stored, index + BLOCK
            footer = data[at : at + 80] if index == first + SEGMENT else b""
            if footer and (footer[:4] != b"PVF1" or footer[48:80] != block_out):
                raise Tampered(f"{path}: footer")
            yield records, hashes, block_in, block_out, (low, high), (origin, chain_in, footer)
        if index < first + SEGMENT:
            break
        first += SEGMENT
    tails = [int(path.name[5:-4]) for path in folder.glob("tail-*.raw")]
    tail = max((start for start in tails if start <= index), default=None)
    if tail is None:
        if tails:
            raise Incomplete("records between segments and tail are missing")
        return
    data, at, skip = (folder / f"tail-{tail:020}.raw").read_bytes(), 48, index - tail
    if len(data) >= 48 and (data[:8] != b"PVTAIL\0\1" or struct.unpack_from("<Q", data, 8)[0] != tail):
        raise Tampered("tail header")
    while at + 36 <= len(data):
        (size,) = struct.unpack_from("<I", data, at)
        if size > 65535:
            raise Tampered("tail frame")
        if at + 36 + size > len(data):
            return
        if skip <= 0:
            yield [data[at + 36 : at + 36 + size]], [data[at + 4 : at + 36]], None, None, (tail, data[16:48]), None
        at, skip = at + 36 + size, skip - 1


def check_log(folder, log, top, anchor, heads, cluster_anchor):
    origin, key = vkey(folder / "audit.pub")
    keys = key_list(top, key)
    if origin.rsplit("/", 1)[-1] != (log or "_cluster"):
        raise Tampered("the key is of another log")
    own = notes(folder / "checkpoints", whole=False) + notes(folder / "checkpoint")
    own += notes(folder / "checkpoint.cosigned")
    own += [note for note in notes(top / "checkpoint") if note.split("\n", 1)[0] == origin]
    outside = [note for note in (notes(anchor) if anchor else []) if note.split("\n", 1)[0] == origin]
    wanted, current = {}, None
    for size, good, root, chain in sorted(checkpoint(note, origin, keys) for note in own + outside):
        if current is not None and good[-1] < current:
            raise Tampered(f"a checkpoint of {size} records is signed by a key that was replaced before")
        if current is not None and good[0] > current:
            raise Tampered(f"the key of the checkpoint of {size} records did not take over")
        current = good[-1]
        if wanted.setdefault(size, (root, chain)) != (root, chain):
            raise Tampered("two checkpoints of one size differ")
    stack, size, chain = [], 0, sha(b"provost audit chain 1\n" + origin.encode())
    own_heads = heads.get(origin, [])
    below = [head for head in own_heads if head[0] < cluster_anchor]
    noted = {size: root for _, size, root in own_heads[-1:] + below[-1:]}
    writers, intents, problems, starts = {}, {}, 0, {0: chain}
    for records, hashes, chain_in, chain_out, times_, segment in blocks(folder):
        if segment and size % SEGMENT == 0 and (segment[0] != sha(origin.encode()) or segment[1] != chain):
            raise Tampered(f"segment header at record {size}")
        if chain_in is not None and chain_in != chain:
            raise Tampered(f"chain before record {size}")
        starts[size] = chain if size % BLOCK == 0 else starts.get(size)
        if segment is None and starts.get(times_[0]) != times_[1]:
            raise Tampered("the tail does not continue the chain")
        seen = []
        for leaf, stored in zip(records, hashes):
            node = sha(b"\0" + leaf)
            if stored and stored != node:
                raise Tampered(f"record {size}")
            record = json.loads(leaf)
            if json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() != leaf:
                raise Tampered(f"record {size} is not canonical")
            seen.append(int(record["time_ns"]))
            chain, size, count = sha(b"\2" + chain + node), size + 1, size
            stack.append(node)
            while count & 1:
                right, left, count = stack.pop(), stack.pop(), count >> 1
                stack.append(sha(b"\1" + left + right))
            epoch, seq, last = writers.get(record["writer_id"], (record["epoch"], 0, "0" * 64))
            follows = (record["epoch"], record["seq"]) == (epoch, seq + 1) or (record["epoch"] > epoch and record["seq"] == 1)
            problems += (not follows) + (record["writer_prev"] != last) + (record.get("tenant", "") != log)
            writers[record["writer_id"]] = (record["epoch"], record["seq"], sha(b"\0" + leaf).hex())
            if record["phase"] == "intent":
                problems += record["call_id"] in intents
                intents[record["call_id"]] = (record["writer_id"], record["epoch"])
            elif record["phase"] == "outcome":
                problems += intents.pop(record["call_id"], None) is None
            if size in wanted or size in noted:
                root = stack[-1]
                for left in reversed(stack[:-1]):
                    root = sha(b"\1" + left + root)
                if wanted.get(size, (root, chain)) != (root, chain):
                    raise Tampered(f"checkpoint of {size} records")
                if noted.get(size, root) != root:
                    raise Tampered(f"the cluster's log notes another root for {size} records")
        if chain_out is not None and (chain_out != chain or times_ != (min(seen), max(seen))):
            raise Tampered(f"block before record {size}")
        if segment and segment[2] and (len(segment[2]) < 80 or segment[2][16:48] != stack[-1] and size == SEGMENT):
            raise Tampered("segment footer")
    if max(noted, default=0) > size:
        raise Tampered(f"{size} records are left of {max(noted)} that the cluster's log notes")
    if wanted and max(wanted) > size:
        raise Tampered(f"{size} records are left of {max(wanted)}")
    problems += sum(writers[writer][0] > epoch for writer, epoch in intents.values())
    if problems:
        raise Tampered(f"{problems} breaches of completeness")
    return {"origin": origin, "records": size, "signed": max(wanted, default=0), "anchored": bool(outside or below),
            "anchor": max((int(note.split("\n")[1]) for note in outside), default=0)}


def main(args):
    if not args or len(args) not in (1, 3) or (len(args) == 3 and args[1] != "--against"):
        print(__doc__, file=sys.stderr)
        return 5
    top, anchor = Path(args[0]), Path(args[2]) if len(args) == 3 else None
    folders = {"": top / "cluster"} if (top / "cluster").is_dir() else {}
    folders.update((path.name, path) for path in sorted((top / "tenants").glob("*")))
    known = {note.split("\n", 1)[0].rsplit("/", 1)[-1].replace("_cluster", "") for note in (notes(anchor) if anchor else [])}
    if not folders and not known:
        return 5
    results, code, cluster_anchor = [], 0, 0
    try:
        heads = tenant_heads(top)
    except (Tampered, Incomplete, ValueError, KeyError, TypeError, AttributeError, struct.error):
        heads = {}  # the cluster's own verdict says so
    known |= {origin.rsplit("/", 1)[-1] for origin in heads}
    for log in sorted(set(folders) | known):
        try:
            if log not in folders:
                raise Tampered("the anchor or the cluster's log knows this log and it is gone")
            result = check_log(folders[log], log, top, anchor, heads, cluster_anchor)
            cluster_anchor = cluster_anchor if log else result["anchor"]
            exit_code = 0 if result["anchored"] else 2
        except Incomplete as error:
            result, exit_code = {"log": log, "incomplete": str(error)}, 4
        except (Tampered, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
            result, exit_code = {"log": log, "tampered": str(error)}, 1
        results.append(result)
        code = max(code, exit_code, key=[0, 2, 3, 4, 1].index)
    print(json.dumps({"exit": code, "logs": results}))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
