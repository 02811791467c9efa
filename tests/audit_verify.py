#!/usr/bin/env python3
"""An independent verifier of Provost audit directories: `audit_verify.py DIR [--against FILE]`.

Written from docs/audit-format.md alone; shares no code with the product. Needs Python 3.9 and
libzstd (present on every Debian). Prints one JSON object and ends with the exit code of the format:
0 proven, 1 tampered, 2 consistent but unanchored, 4 incomplete input, 5 usage. The place of a
failure is the one that the format defines: index, file, offset.
"""
import base64
import ctypes
import ctypes.util
import functools
import hashlib
import itertools
import json
import os
import re
import stat
import struct
import sys
from pathlib import Path

BLOCK, SEGMENT, MAX_LEAF, MAX_RAW, U64 = 256, 65536, 65535, 256 * (4 + 65535), 1 << 64
MAX_BODY = (256 << 10) + 65535
MAX_KEY, MAX_KEYS, MAX_NOTE, MIN_NOTE, MAX_SCRAPS = 4096, 1 << 20, 16384, 64, 1000
GARBAGE = "no note\n\nno signature\n"
NAME = "(?=.{1,63}$)[a-z0-9]([a-z0-9._-]*[a-z0-9])?"
CLOCK_TOLERANCE_NS = 15 * 60 * 10**9
P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P


class Fault(Exception):
    """The exit code that a log gets, and the place."""

    def __init__(self, code, index, file, offset, what):
        super().__init__(what)
        self.broken, self.anchor = False, 0  # whether records differ; what the anchor covers
        self.result = {"exit": code, "index": index, "file": str(file), "offset": offset, "what": what}


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
    x = P - x if x & 1 != sign else x
    return x, y, 1, x * y % P


BASE = point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


@functools.lru_cache(maxsize=None)
def signed_by(key, message, signature):
    if len(signature) != 64 or int.from_bytes(signature[32:], "little") >= L:
        return False
    try:
        a, r, s = point(key), point(signature[:32]), int.from_bytes(signature[32:], "little")
    except ValueError:
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % L
    left, right = times(s, BASE), add(r, times(k, a))
    return not ((left[0] * right[2] - right[0] * left[2]) % P or (left[1] * right[2] - right[1] * left[2]) % P)


@functools.lru_cache(maxsize=None)
def zstd():
    lib = ctypes.CDLL(ctypes.util.find_library("zstd") or "libzstd.so.1")
    lib.ZSTD_decompress.restype = lib.ZSTD_isError.restype = lib.ZSTD_compressBound.restype = ctypes.c_size_t
    lib.ZSTD_decompress.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t]
    lib.ZSTD_isError.argtypes = lib.ZSTD_compressBound.argtypes = [ctypes.c_size_t]
    return lib


def decompress(data, size):
    """Exactly `size` bytes, or nothing. Without zstd's checksum: a flag, and the last four bytes."""
    if data[:4] == b"\x28\xb5\x2f\xfd" and len(data) > 4 and data[4] & 4:
        data = data[:4] + bytes([data[4] & ~4]) + data[5:-4]
    out = ctypes.create_string_buffer(max(size, 1))
    got = zstd().ZSTD_decompress(out, size, data, len(data))
    return out.raw[:size] if not zstd().ZSTD_isError(got) and got == size else None


def unbase64(text):
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError("not canonical base64")
    return data


def content(path, index=0, most=None):
    """The bytes of a regular file: a pipe would be waited for, and a device has no end. `most`: how many it may have."""
    try:
        if not path.is_file():
            raise Fault(4, index, path, 0, "no regular file")
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise Fault(4, index, path, 0, "no regular file")
            data = file.read() if most is None else file.read(most + 1)
    except OSError as error:
        raise Fault(4, index, path, 0, str(error))
    if most is not None and len(data) > most:
        raise Fault(1, index, path, 0, f"longer than {most} bytes")
    return data


def vkey(path):
    if not path.exists():
        raise Fault(4, 0, path, 0, "the key is missing")
    try:
        name, key_id, key = content(path, most=MAX_KEY).decode().rstrip().split("+", 2)
        key = unbase64(key)
        if len(key) == 33 and key[0] == 1 and sha(name.encode() + b"\n" + key)[:4].hex() == key_id:
            return name, key
    except ValueError:
        pass
    raise Fault(1, 0, path, 0, "not a verifier key")


def notes(path):
    """Notes of a file as (offset, text): text, blank line, signature lines, blank line, next text. The last is GARBAGE
    where the file goes on as no file of notes: one that is too long, or too many that are too short."""
    found, data, at, scraps = [], content(path) if path.exists() else b"", 0, 0
    while at < len(data):
        body = data.find(b"\n\n", at)
        end = data.find(b"\n\n", body + 2) if body >= 0 else -1
        end = len(data) if end < 0 else end + 1
        scraps += end - at < MIN_NOTE
        if end - at > MAX_NOTE or scraps > MAX_SCRAPS:
            return found + [(at, GARBAGE)]
        found.append((at, data[at:end].decode(errors="replace")))
        at = end + 1
    return found


def is_cut(note):
    """Whether a crash may have cut it: no whole signature line."""
    signatures = note.partition("\n\n")[2]
    return not signatures.endswith("\n")


def listed_keys(top, key):
    """The keys of the directory, oldest first, if they lead to `key` (docs/audit-format.md, Keys)."""
    folder, keys, named = top / "cluster", [], {}
    lines = content(folder / "keys", most=MAX_KEYS).decode(errors="replace").splitlines() if (folder / "keys").exists() else []
    if len(lines) > 1:
        named = {index: record["event.objects"][0] for index, record in cluster_events(top, "audit.key")}
    try:
        both = [note for _, note in notes(folder / "checkpoints") if note.count("\n\u2014 ") > 1] if lines else []
    except Fault:
        both = []  # the cluster's own verdict says so
    for line in lines:
        record, _, text = line.partition(" ")
        try:
            name, key_id, encoded = text.split("+", 2)
            one = unbase64(encoded)
            if len(one) != 33 or one[0] != 1 or sha(name.encode() + b"\n" + one)[:4].hex() != key_id:
                break
        except ValueError:
            break
        if keys and not (record.isdigit() and named.get(int(record)) == text and switched(both, name, keys[-1], one, int(record))):
            break
        keys.append(one)
    return keys if key in keys else [key]


def switched(both, name, before, one, record):
    """Whether both keys signed one checkpoint that covers the record."""
    for note in both:
        try:
            head, signers = checkpoint(note, name, [before, one])
            if signers == (0, 1) and head[0] > record:
                return True
        except ValueError:
            pass
    return False


def cluster_events(top, name):
    """Index and record of each event of this name in the cluster's log, as far as it can be read."""
    if not (top / "cluster").is_dir():
        return
    try:
        for kind, _, _, index, content in parts(top / "cluster", [top, 0]):
            leaves, body = [content[0]] if kind == "record" else [], content[3] if kind == "block" else None
            if body:
                raw, at = decompress(body[0], body[1]) or b"", 0
                while at + 4 <= len(raw):
                    (length,) = struct.unpack_from("<I", raw, at)
                    leaves.append(raw[at + 4 : at + 4 + length])
                    at += 4 + length
            for number, leaf in enumerate(leaves, index):
                if b'"event":"' + name.encode() + b'"' in leaf:
                    record = read_record(leaf)
                    objects = record.get("event.objects")
                    if record["phase"] == "event" and record.get("event") == name and isinstance(objects, list):
                        yield number, record
    except (Fault, ValueError, KeyError, AttributeError, RecursionError):
        return  # the cluster's own verdict says so


def tenant_heads(top):
    """By origin: index, size and root of every record of the cluster's log that notes a checkpoint."""
    heads = {}
    for index, record in cluster_events(top, "checkpoint"):
        detail = record.get("event.detail")
        form = isinstance(detail, str) and re.fullmatch("([0-9]+) ([0-9a-f]{64})", detail)
        if form and int(form[1]) < U64:
            heads.setdefault(record["event.objects"][0], []).append((index, int(form[1]), bytes.fromhex(form[2])))
    return heads


def checkpoint(note, origin, keys):
    """((size, root, chain, time), first and last signer) of a note that one of the keys signed, or ValueError."""
    text, blank, signatures = note.partition("\n\n")
    lines, good = signatures.split("\n"), set()
    if not blank or lines.pop() != "" or not 1 <= len(lines) <= 64 or len(note.encode()) > 16384:
        raise ValueError("not a signed note")
    for line in lines:
        dash, name, blob = line.split(" ")
        blob = unbase64(blob)
        if dash != "\u2014" or not name or "+" in name or len(blob) < 5:
            raise ValueError("a signature line is malformed")
        for n, key in enumerate(keys):
            if name == origin and blob[:4] == sha(origin.encode() + b"\n" + key)[:4]:
                if not signed_by(key[1:], text.encode() + b"\n", blob[4:]):
                    raise ValueError("a signature does not hold")
                good.add(n)
    number, value = "(0|[1-9][0-9]*)", "([A-Za-z0-9+/]{43}=)"
    form = re.match(f"([^\n]+)\n{number}\n{value}\nchain {value}\ntime {number}(\n|$)", text)
    if not good or not form or form[1] != origin or int(form[2]) >= U64 or int(form[5]) >= U64:
        raise ValueError("not a checkpoint that the log's key signed")
    return (int(form[2]), unbase64(form[3]), unbase64(form[4]), int(form[5])), (min(good), max(good))


def read_record(leaf):
    """The canonical record, or ValueError."""
    record = json.loads(leaf.decode())
    if json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() != leaf:
        raise ValueError("not canonical")
    for key, value in record.items():
        plain = key.isascii() and key.isprintable() and not set(key) & set('"\\')
        texts = isinstance(value, list) and value and all(isinstance(item, str) for item in value)
        if not plain or not (isinstance(value, str) or texts or (type(value) is int and 0 <= value < U64)):
            raise ValueError(f"the value of {key}")
    forms = {"call_id": "[0-9a-f]{32}", "phase": "intent|outcome|denied|event", "time_ns": "0|[1-9][0-9]*",
             "writer_id": "(?s:.*)", "writer_prev": "[0-9a-f]{64}"}
    well = all(re.fullmatch(form, str(record[key])) and isinstance(record[key], str) for key, form in forms.items())
    well = well and all(isinstance(record.get(key, ""), str) for key in ("status", "tenant", "event", "body.key"))
    well = well and re.fullmatch("[0-9a-f]{64}", str(record.get("body.sealed", "0" * 64)))
    if not well or record["v"] != 1 or int(record["time_ns"]) >= U64 or not all(type(record[k]) is int for k in ("epoch", "seq", "v")):
        raise ValueError("a field is missing or of another kind")
    return record


def pruned(folder, origin):
    """Whole segments that went from the front: (records, their roots, chain after them, record that says so)."""
    kept, roots, record, chain = 0, [], 0, sha(b"provost audit chain 1\n" + origin.encode())
    for path in sorted((folder / "segments").glob("*.pruned")):
        first = int(path.stem)
        if first != kept:
            raise Fault(4, kept, folder / "segments" / f"{kept:020}.pruned", 0, "neither segment nor what stays of it")
        data = content(path, first, 208)
        header, footer = data[8:88], data[88:168]
        well = len(data) == 208 and data[:8] == b"PVPRUNE\1" and sha(data[:176]) == data[176:]
        well = well and header[:8] == b"PVSEG\0\0\1" and struct.unpack_from("<Q", header, 8)[0] == first
        well = well and footer[:4] == b"PVF1" and struct.unpack_from("<IQ", footer, 4) == (SEGMENT, first)
        if not well or struct.unpack_from("<Q", data, 168)[0] < first:
            raise Fault(1, first, path, 0, "the form of what stays of a segment")
        if header[16:48] != sha(origin.encode()) or header[48:80] != chain:
            raise Fault(1, first, path, 8, "what stays of a segment does not belong here")
        roots.append(footer[16:48])
        chain, kept, record = footer[48:80], kept + SEGMENT, struct.unpack_from("<Q", data, 168)[0]
    return kept, roots, chain, record


def parts(folder, end, start=0):
    """Yields the parts of a log in order; `end` is kept at the place of the next one."""
    index, first = start, start
    segments = sorted(int(path.stem) for path in (folder / "segments").glob("*.seg"))
    while (path := folder / "segments" / f"{first:020}.seg").exists() and len(data := content(path, index)) >= 80:
        try:
            leaves = content(path.with_suffix(".leaf"))
        except Fault:
            leaves = b""  # records are checked without them
        if data[:8] != b"PVSEG\0\0\1" or struct.unpack_from("<Q", data, 8)[0] != first:
            raise Fault(1, index, path, 0, "segment header")
        at, end[:] = 80, (path, 80)
        yield "segment", path, 0, first, (data[16:48], data[48:80])
        while index < first + SEGMENT and at + 104 <= len(data):
            magic, count, start, raw_len, stored, low, high = struct.unpack_from("<4sIQIIQQ", data, at)
            bounded = BLOCK * 4 <= raw_len <= MAX_RAW and stored <= zstd().ZSTD_compressBound(raw_len)
            if magic != b"PVB1" or count != BLOCK or not bounded or start != index:
                raise Fault(1, index, path, at, "block header")
            if at + 104 + stored > len(data):
                break
            hashes = [leaves[o : o + 32] for o in range((index - first) * 32, (index - first + BLOCK) * 32, 32)]
            body = data[at + 104 : at + 104 + stored], raw_len, hashes
            end[1] = at + 104 + stored
            yield "block", path, at, index, (data[at + 40 : at + 72], data[at + 72 : at + 104], (low, high), body)
            at, index = end[1], index + BLOCK
        if index < first + SEGMENT:
            break
        footer = data[at : at + 80]
        if len(footer) == 80:
            if footer[:4] != b"PVF1" or struct.unpack_from("<IQ", footer, 4) != (SEGMENT, first):
                raise Fault(1, first, path, at, "segment footer")
            end[1] = at + 80
            yield "footer", path, at, first, (footer[16:48], footer[48:80])
            if len(data) > end[1]:
                raise Fault(1, first, path, end[1], "bytes stand behind the footer")
        elif (folder / "segments" / f"{first + SEGMENT:020}.seg").exists():
            raise Fault(1, first, path, at, "the footer is missing")
        first += SEGMENT
    if not path.exists() and segments and segments[-1] > first:
        raise Fault(4, index, path, 0, "the segment is missing")
    tails = sorted(int(path.name[5:-4]) for path in folder.glob("tail-*.raw"))
    tail = max((start for start in tails if start <= index), default=None)
    if tail is None and tails:
        raise Fault(4, index, folder / f"tail-{tails[0]:020}.raw", 0, "records before the tail are missing")
    if tail is None:
        return
    path = folder / f"tail-{tail:020}.raw"
    data, at, end[:] = content(path, index), 48, (path, 0)
    if len(data) < 48:
        return
    if data[:8] != b"PVTAIL\0\1" or struct.unpack_from("<Q", data, 8)[0] != tail or tail % BLOCK:
        raise Fault(1, index, path, 0, "tail header")
    end[1] = 48
    for number in itertools.count(tail):
        if number == index:
            yield "tail", path, 0, tail, data[16:48]
        if at + 36 > len(data):
            return
        (size,) = struct.unpack_from("<I", data, at)
        if size > MAX_LEAF:
            raise Fault(1, max(number, index), path, at, "tail frame")
        if at + 36 + size > len(data):
            return
        start, at, end[1] = at, at + 36 + size, at + 36 + size
        if number >= index:
            yield "record", path, start, number, (data[start + 36 : at], data[start + 4 : start + 36])


class Bodies:
    """The sealed bodies of one log, read in the order of the records that name them."""

    def __init__(self, folder, origin):
        self.folder, self.origin, self.first, self.missing = folder, sha(origin.encode()), None, 0
        self.kept, self.erased = {}, set()

    def fault(self, index, what):
        raise Fault(1, index, self.path, self.at, what)

    def advance(self, index, at):
        """The frame at `at`: index and length, or None."""
        self.at, self.next = at, None
        if at + 12 <= len(self.data):
            self.next = struct.unpack_from("<QI", self.data, at)
            if self.next[1] > MAX_BODY:
                self.fault(index, "a body is longer than one may be")

    def begin(self, index):
        self.first, self.at, self.next = index - index % SEGMENT, 0, None
        self.path = self.folder / "segments" / f"{self.first:020}.body"
        self.data = content(self.path, index) if self.path.exists() else b""
        if len(self.data) >= 48:
            if self.data[:48] != b"PVBODY\0\1" + struct.pack("<Q", self.first) + self.origin:
                self.fault(index, "the header of the bodies")
            self.advance(index, 48)

    def observe(self, index, record):
        if record["phase"] == "event" and record.get("event") == "audit.erase":
            objects = record.get("event.objects")
            self.erased |= {name[4:] for name in objects if name.startswith("key:")} if isinstance(objects, list) else set()
        if self.first != index - index % SEGMENT:
            self.begin(index)
        named, here = record.get("body.sealed"), self.next and self.next[0] <= index
        if here and (self.next[0] < index or not named):
            self.fault(index, "a body that its record does not name")
        if not named:
            return
        end = self.at + 12 + self.next[1] if here else 0
        if not here or end > len(self.data):
            self.missing += 1
            self.next = None if here else self.next
        elif sha(self.data[self.at + 12 : end]).hex() != named:
            self.fault(index, "not the body that the record names")
        else:
            self.kept[record.get("body.key")] = self.kept.get(record.get("body.key"), 0) + 1
            self.advance(index, end)


def check_log(folder, log, top, anchor, heads, cluster_anchor):
    origin, key = vkey(folder / "audit.pub")
    keys = listed_keys(top, key)
    if origin.rsplit("/", 1)[-1] != (log or "_cluster"):
        raise Fault(1, 0, folder / "audit.pub", 0, "the key is of another log")
    history = notes(folder / "checkpoints")
    if history and is_cut(history[-1][1]):
        history.pop()
    own = [(folder / "checkpoints", note) for note in history]
    own += [(folder / name, note) for name in ("checkpoint", "checkpoint.cosigned") for note in notes(folder / name)]
    matching = lambda path: [(path, note) for note in notes(path) if note[1] is GARBAGE or note[1].split("\n", 1)[0] == origin]
    own += matching(top / "checkpoint")
    outside = matching(anchor) if anchor else []
    known, refused = [], None
    for outer, file, (offset, note) in [(0, *n) for n in own] + [(1, *n) for n in outside]:
        try:
            head, signers = checkpoint(note, origin, keys)
            known.append((head, -outer, file, offset, signers))
        except ValueError as error:
            refused = refused or (file, offset, str(error))
    known.sort(key=lambda k: (k[0][0], k[4]))
    wanted, current = {}, None
    for head, outer, file, offset, (first, last) in known:
        if current is not None and (last < current or first > current):
            refused = refused or (file, offset, "its key was replaced before, or did not take over from the one before it")
        else:
            current = last
    noted, roots = heads.get(origin, []), {}
    for head, outer, file, offset, _ in sorted(known, key=lambda k: (k[0][0], k[1])):
        if wanted.setdefault(head[0], (head, outer, file, offset))[0][1:3] != head[1:3]:
            refused = refused or (file, offset, "two checkpoints of one size differ")

    kept, gone, chain, prune_record = pruned(folder, origin)
    stack, size, good, anchored, prunes = [], kept, 0, 0, {}
    for number, root in enumerate(gone):
        push(stack, root, number)
    noted = sorted((note for note in noted if note[1] >= kept), key=lambda note: note[1])
    sizes, roots[kept] = {note[1] for note in noted}, join(stack) if kept else sha(b"")
    prune = [f"to:{kept}", f"root:{join(stack).hex()}", f"chain:{chain.hex()}"] if kept else None
    signed_ns = max((head[3] for head, *_ in wanted.values() if head[0] <= kept), default=0)
    writers, intents, problems, suspicions, starts, segment, end = {}, {}, [], [], {kept: chain}, [], [folder, 0]
    bodies = Bodies(folder, origin)

    def take(leaf, stored, file, offset):
        """One record: hash, form, chain, tree, rules, checkpoint."""
        nonlocal chain, size, good, anchored, signed_ns
        node = sha(b"\0" + leaf)
        if len(stored) == 32 and stored != node:
            raise Fault(1, size, file, offset, "the record is not what its stored hash says")
        try:
            record = read_record(leaf)
        except (ValueError, KeyError, AttributeError, RecursionError) as error:
            raise Fault(1, size, file, offset, f"not a record: {error}")
        rules(record, node, file, offset)
        bodies.observe(size, record)
        chain, size, count = sha(b"\2" + chain + node), size + 1, size
        push(stack, node, count)
        push(segment, node, count % SEGMENT)
        if size in sizes:
            roots[size] = join(stack)
        if size in wanted:
            (_, root, signed_chain, time), outer, note_file, note_offset = wanted[size]
            if (root, signed_chain) != (join(stack), chain):
                raise Fault(1, good, note_file, note_offset, f"not the {size} records that were signed")
            good, anchored, signed_ns = size, size if outer else anchored, max(signed_ns, time)
        return int(record["time_ns"])

    def rules(record, node, file, offset):
        place, writer, call = (size, file, offset), record["writer_id"], record["call_id"]
        if record.get("tenant", "") != log:
            problems.append(place)
        epoch, seq, last = writers.get(writer, (record["epoch"], 0, "0" * 64))
        follows = (record["epoch"], record["seq"]) == (epoch, seq + 1) or (record["epoch"] > epoch and record["seq"] == 1)
        # Of a log that was pruned, the first record of a writer here may follow one that is gone.
        if (not kept or writer in writers) and (not follows or record["writer_prev"] != last):
            problems.append(place)
        writers[writer] = (record["epoch"], record["seq"], node.hex())
        if record["phase"] == "intent":
            if call in intents:
                problems.append(place)
            intents[call] = (writer, record["epoch"], place)
        elif record["phase"] == "outcome" and intents.pop(call, None) is None and not kept:
            problems.append(place)
        if record.get("event") == "log.prune":
            objects = record.get("event.objects")
            prunes[size] = objects[:3] if isinstance(objects, list) else None
        if int(record["time_ns"]) + CLOCK_TOLERANCE_NS < signed_ns:
            suspicions.append(place)

    fault = None
    try:
        for kind, file, offset, index, content in parts(folder, end, kept):
            if kind == "segment" and content != (sha(origin.encode()), chain):
                raise Fault(1, index, file, 0, "the segment does not belong here")
            elif kind == "block":
                chain_in, chain_out, time_range, (body, raw_len, hashes) = content
                raw, leaves, at = decompress(body, raw_len) if chain_in == chain else None, [], 0
                starts[index] = chain
                while raw is not None and at + 4 <= len(raw):
                    (length,) = struct.unpack_from("<I", raw, at)
                    leaves.append(raw[at + 4 : at + 4 + length])
                    at += 4 + length
                if raw is None or at != len(raw) or len(leaves) != BLOCK or max(map(len, leaves)) > MAX_LEAF:
                    raise Fault(1, index, file, offset, "the block does not continue the chain, or its body is damaged")
                seen = [take(leaf, stored, file, offset) for leaf, stored in zip(leaves, hashes)]
                if (chain_out, time_range) != (chain, (min(seen), max(seen))):
                    raise Fault(1, index, file, offset, "the block's header is not its records'")
            elif kind == "footer":
                if content != (join(segment), chain):
                    raise Fault(1, index, file, offset, "the footer is not its segment's")
                segment.clear()
            elif kind == "tail" and starts.get(index, chain if index == size else content) != content:
                raise Fault(1, index, file, 0, "the tail does not continue the chain")
            elif kind == "record":
                take(*content, file, offset)
        if wanted and max(wanted) > size:
            raise Fault(1, size, *end, f"{size} records are left of {max(wanted)}")
    except Fault as stop:
        fault = stop
        fault.broken = fault.result["exit"] == 1
    if refused and (fault is None or fault.result["exit"] == 4):
        fault = Fault(1, good, *refused)
    if fault is None and prune and (prunes.get(prune_record) != prune or prune_record >= good):
        place = folder / "segments" / f"{kept - SEGMENT:020}.pruned", 168
        fault = Fault(1, kept, *place, "records are gone and no signed record says that they were to go")
    broken = next((note for note in noted if roots.get(note[1]) != note[2]), None)
    if fault is None and broken:
        at = size if broken[1] > size else good if good < broken[1] else 0
        fault = Fault(1, at, folder, 0, f"record {broken[0]} of the cluster's log notes other records")
    if fault is None:
        anchored = max([anchored] + [note[1] for note in noted if note[0] < cluster_anchor])
    if fault is None:
        lost = [place for writer, epoch, place in intents.values() if writers[writer][0] > epoch]
        problems += sorted(lost, key=lambda place: place[0])
        if problems:
            fault = Fault(1, *problems[0], f"{len(problems)} breaches of completeness")
    if fault:
        fault.anchor = anchored
        raise fault
    erased = sum(count for key, count in bodies.kept.items() if key in bodies.erased)
    exit = 4 if bodies.missing else 0 if anchored else 2
    result = {"exit": exit, "origin": origin, "records": size, "signed": good, "back_dated": len(suspicions),
            "bodies": sum(bodies.kept.values()), "erased": erased, "missing": bodies.missing}
    return result, anchored


def push(stack, node, count):
    """Appends a leaf hash to the subtree roots of `count` leaves (RFC 6962)."""
    stack.append(node)
    while count & 1:
        right, left, count = stack.pop(), stack.pop(), count >> 1
        stack.append(sha(b"\1" + left + right))


def join(stack):
    root = stack[-1]
    for left in reversed(stack[:-1]):
        root = sha(b"\1" + left + root)
    return root


def main(args):
    if not args or len(args) not in (1, 3) or (len(args) == 3 and args[1] != "--against"):
        print(__doc__, file=sys.stderr)
        return 5
    top, anchor = Path(args[0]), Path(args[2]) if len(args) == 3 else None
    folders = {"": top / "cluster"} if (top / "cluster").is_dir() else {}
    below = sorted((top / "tenants").glob("*"))
    folders.update((path.name, path) for path in below if re.fullmatch(NAME, path.name))
    foreign = [path for path in below if path.name not in folders and path.is_dir()]
    try:
        kept = [note for _, note in notes(anchor)] if anchor else []
    except Fault:
        return 5
    if GARBAGE in kept:
        return 5
    known = {note.split("\n", 1)[0].rsplit("/", 1)[-1].replace("_cluster", "") for note in kept}
    if not folders and not known and not foreign:
        return 5
    heads, results, code, cluster_anchor = tenant_heads(top), [], 0, 0

    def gone():  # asked for after the cluster's log was checked
        noted = {origin.rsplit("/", 1)[1] for origin in heads if "/" in origin}
        yield from sorted((known | {name for name in noted if re.fullmatch(NAME, name)}) - set(folders))

    for log in itertools.chain(sorted(folders), gone()):
        try:
            if log not in folders:
                place = top / "tenants" / log if log else top / "cluster"
                raise Fault(1, 0, place, 0, "the anchor or the cluster's log knows this log and it is gone")
            result, anchored = check_log(folders[log], log, top, anchor, heads if log else {}, cluster_anchor)
        except Fault as fault:
            result, anchored = fault.result, fault.anchor
            if not log and fault.broken:
                heads = {}  # a changed cluster log says nothing about others
        cluster_anchor = cluster_anchor if log else anchored
        results.append({"log": log, **result})
        code = max(code, result["exit"], key=[0, 2, 3, 4, 1].index)
    for path in foreign:
        fault = Fault(4, 0, path, 0, "no name of a tenant: nothing in this folder was verified")
        results.append({"log": path.name, **fault.result})
        code = max(code, 4, key=[0, 2, 3, 4, 1].index)
    print(json.dumps({"exit": code, "logs": results}))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
