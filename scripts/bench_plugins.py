#!/usr/bin/env python3
"""Plugins that are components, under load: what a reload, a hostile neighbour and a thousand of them cost.

    scripts/bench_plugins.py [reload] [neighbours] [thousand]      default: all three

reload      500 calls/s, open loop, while twenty versions are applied one after the other: no call may fail, the audit log
            must have as many calls as were sent (none lost, none twice), each with one intent and one good outcome, and
            name each version
neighbours  200 calls/s of one plugin, in turn alone, beside one that behaves, and beside a hostile one that loops,
            allocates, traps, floods the log, asks for a forbidden host and answers with 100 MB: p50 and p99. Both
            neighbours are called as often, by `provost call`, whose own processor time everybody else lacks. The p99
            beside the hostile one may be 1.5 times that beside the other
thousand    a node with one plugin and with COUNT: memory, from its start until it is ready and until it has answered a
            call of the last one (under five seconds), from `apply` until that; as a table

Environment: PROVOST (the program; default: target/release/provost), RATE (500), VERSIONS (20), ROUNDS (3), COUNT (1000),
JSON=FILE (the figures). It needs Python 3.11 alone, and ends what it started. Exit code 1: something failed.
"""

import hashlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
PROVOST = os.environ.get("PROVOST", str(TARGET / "release/provost"))
RATE = int(os.environ.get("RATE", "500"))
VERSIONS = int(os.environ.get("VERSIONS", "20"))
ROUNDS = int(os.environ.get("ROUNDS", "3"))
COUNT = int(os.environ.get("COUNT", "1000"))
TEXT = (ROOT / "examples/plugins/rust-text/text.wasm").read_bytes()
HOSTILE = (ROOT / "data-plane/wasm/tests/guests/hostile.wasm").read_bytes()
# Longer than anything takes on a busy machine, in seconds.
LIMIT = 120
# Medians of p99 on a machine that does other things differ by so much by themselves.
NOISE = 1.5
BASE = [
    {"apiVersion": "provost/v1", "kind": "Tenant", "metadata": {"name": "acme"}, "spec": {}},
    ("Principal", "ana", {"type": "user"}),
    ("Role", "caller", {"rules": [{"tools": ["*"]}]}),
    ("RoleBinding", "caller", {"role": "caller", "principals": ["ana"]}),
]


def document(kind, name, spec):
    return {"apiVersion": "provost/v1", "kind": kind, "metadata": {"name": name, "tenant": "acme"}, "spec": spec}


def text_of(documents):
    made = [d if isinstance(d, dict) else document(*d) for d in documents]
    return "\n---\n".join(map(json.dumps, made)) + "\n"


def version(n):
    """The same component as another file: a custom section follows it (WebAssembly core 1.0, 5.5.3)."""
    return TEXT + bytes([0, 3, 1, ord("v"), n])


class Node:
    """A `provost dev` in a folder of its own."""

    def __init__(self, folder):
        self.folder, self.data = folder, folder / "data"
        (self.data / "plugins").mkdir(parents=True, exist_ok=True)
        (folder / "config").mkdir(exist_ok=True)
        (folder / "config/base.yaml").write_text(text_of(BASE))

    def start(self):
        """Seconds until it is ready."""
        ready = self.data / "dev.json"
        ready.unlink(missing_ok=True)
        began = time.monotonic()
        log = open(self.folder / "node.log", "ab")
        command = [PROVOST, "dev", "--data-dir", str(self.data), "--http", "127.0.0.1:0"]
        self.process = subprocess.Popen([*command, "--config", str(self.folder / "config")], stdout=log, stderr=log)
        while not (ready.exists() and ready.stat().st_size):
            if self.process.poll() is not None or time.monotonic() - began > LIMIT:
                raise SystemExit(f"the node does not start; see {log.name}")
            time.sleep(0.01)
        took = time.monotonic() - began
        facts = json.loads(ready.read_text())
        self.url = facts["mcp"]
        self.environment = os.environ | {
            "PROVOST_ADMIN": facts["admin"], "PROVOST_ADMIN_TOKEN": facts["admin_token"],
            "PROVOST_TOKEN": facts["token"],
        }
        return took

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(LIMIT)

    def put(self, name, component):
        """The source of a plugin that runs this."""
        (self.data / "plugins" / name).write_bytes(component)
        return {"wasm": {"file": name, "digest": "sha256:" + hashlib.sha256(component).hexdigest()}}

    def run(self, *arguments, **more):
        command = [PROVOST, *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, **more)

    def apply(self, *documents):
        file = self.folder / "apply.yaml"
        file.write_text(text_of(documents))
        done = self.run("apply", "-f", str(file))
        if done.returncode:
            raise SystemExit(f"apply: {done.stderr}")

    def call(self, tool, arguments):
        return self.run("call", tool, "--url", self.url, "--json", json.dumps(arguments))

    def until_answered(self, tool):
        """Seconds until a call of it is answered."""
        began = time.monotonic()
        while self.call(tool, {"text": "Any Node"}).stdout.strip() != "any-node":
            if time.monotonic() - began > LIMIT:
                raise SystemExit(f"{tool} does not answer; see {self.folder}/node.log")
            time.sleep(0.02)
        return time.monotonic() - began

    def records(self, tool):
        """What the audit log has of calls of a tool."""
        query = self.run("audit", "query", "--data-dir", str(self.data), "--json", "--tool", tool, "--limit", "1000000")
        if query.returncode:
            raise SystemExit(f"audit query: {query.stderr}")
        return [json.loads(line)["record"] for line in query.stdout.splitlines()]

    def load(self, rate, seconds, name, warmup=1):
        """Offers calls of `text.slug`; the figures."""
        out = self.folder / f"{name}.json"
        done = self.run(
            "bench", "--url", self.url, "--tool", "text.slug", "--json-args", '{"text": "Any Node"}',
            "--expect", "any-node", "--rate", str(rate), "--duration", f"{seconds}s", "--warmup", f"{warmup}s",
            "--pid", str(self.process.pid), "--json", str(out),
        )
        if done.returncode and "PV-BENCH-LAG" not in done.stderr:
            raise SystemExit(f"bench: {done.stdout}{done.stderr}")
        return json.loads(out.read_text())

    def memory(self):
        """Resident, in MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024


def reload(folder):
    node = Node(folder)
    node.start()
    try:
        node.apply(("Plugin", "text", {"source": node.put("v0.wasm", version(0))}))
        node.until_answered("text.slug")
        before = {r["call_id"] for r in node.records("text.slug")}
        seconds, applied = VERSIONS * 3 // 2, []
        result = {}
        # Without a warm-up, which is not counted: each call that is sent is one of the records.
        loading = threading.Thread(target=lambda: result.update(node.load(RATE, seconds, "reload", warmup=0)))
        loading.start()
        time.sleep(2)
        for n in range(1, VERSIONS + 1):
            began = time.monotonic()
            node.apply(("Plugin", "text", {"source": node.put(f"v{n}.wasm", version(n))}))
            applied.append(time.monotonic() - began)
            time.sleep(max(0, 1.25 - applied[-1]))
        loading.join()
        if not result:
            raise SystemExit("the load ended with an error")
        records = [r for r in node.records("text.slug") if r["call_id"] not in before]
        intents = [r for r in records if r["phase"] == "intent"]
        outcomes = [r for r in records if r["phase"] == "outcome"]
        calls = {r["call_id"] for r in outcomes}
        # The version that served before the load has calls of it too.
        digests = {r["plugin.digest"] for r in intents if "plugin.digest" in r}
        good = [r for r in outcomes if r["status"] == "ok"]
        errors = sum(result["errors"].values())
        # `bench` calls once before the load, to see that it can.
        sent = 1 + result["answered"] + errors
        figures = {
            "calls_per_second": result["throughput_per_second"], "sent": sent,
            "answered": result["answered"], "errors": errors, "unsent": result["unsent"],
            "latency_us": result["latency_us"], "intents": len(intents), "outcomes": len(outcomes), "calls": len(calls),
            "asked_again": sum(r.get("attempt", 1) > 1 for r in outcomes), "versions": len(digests),
            "apply_s": {"p50": statistics.median(applied), "max": max(applied)},
        }
        same = {sent, len(intents), len(outcomes), len(calls), len(good)}
        failed = errors or result["unsent"] or len(same) > 1 or figures["asked_again"]
        return figures, bool(failed) or len(digests) <= VERSIONS
    finally:
        node.stop()


def keep_calling(node, calls, ends):
    """One call after the other, at most one in each half second, until that is over."""
    while calls and not ends.is_set():
        for tool, arguments in calls:
            began = time.monotonic()
            if not ends.is_set():
                node.call(f"hostile.{tool}", arguments)
            ends.wait(max(0, 0.5 - (time.monotonic() - began)))


def neighbours(folder):
    node = Node(folder)
    node.start()
    try:
        egress = {"egress": {"allowHosts": ["allowed.example"]}}
        hostile = node.put("hostile.wasm", HOSTILE)["wasm"] | egress
        node.apply(
            ("Plugin", "text", {"source": node.put("text.wasm", TEXT)}),
            ("Plugin", "hostile", {"timeoutMs": 2000, "source": {"wasm": hostile}}),
        )
        node.until_answered("text.slug")
        while node.call("hostile.flood", {"n": 0}).returncode:
            time.sleep(0.1)
        attacks = [
            ("loop", {}), ("alloc", {}), ("trap", {"text": "x"}), ("large", {"n": 100 << 20}),
            ("flood", {"n": 20000, "text": "x" * 100}), ("fetch", {"text": "https://forbidden.example/"}),
        ]
        neighbour = {"alone": [], "behaved": [("flood", {"n": 0})], "hostile": attacks}
        runs = {side: [] for side in neighbour}
        for number in range(ROUNDS):
            for side, calls in neighbour.items():
                ends = threading.Event()
                calling = threading.Thread(target=keep_calling, args=(node, calls, ends))
                calling.start()
                runs[side].append(node.load(200, 6, f"{side}-{number}")["latency_us"])
                ends.set()
                calling.join()
        median = lambda of, key: statistics.median(run[key] for run in of)
        figures = {
            side: {key: median(of, key) for key in ("p50", "p99")} | {"runs": of} for side, of in runs.items()
        }
        figures["p99_hostile_over_behaved"] = figures["hostile"]["p99"] / figures["behaved"]["p99"]
        return figures, figures["p99_hostile_over_behaved"] > NOISE
    finally:
        node.stop()


def thousand(folder):
    figures = {}
    for count in (1, COUNT):
        node = Node(folder / str(count))
        node.start()
        try:
            source = node.put("text.wasm", TEXT)
            began = time.monotonic()
            node.apply(*(("Plugin", f"text{n}", {"source": source}) for n in range(count)))
            node.until_answered(f"text{count - 1}.slug")
            applied = time.monotonic() - began
            node.stop()
            ready = node.start()
            answered = ready + node.until_answered(f"text{count - 1}.slug")
            figures[count] = {
                "applied_s": applied, "ready_s": ready, "answered_s": answered, "memory_mib": node.memory()
            }
        finally:
            node.stop()
    print("| plugins | `apply` until a call of the last is answered | start until then | memory |\n|---|---|---|---|")
    for count, of in figures.items():
        print(f"| {count:,} | {of['applied_s']:.2f} s | {of['answered_s']:.2f} s | {of['memory_mib']:.0f} MiB |")
    return figures, figures[COUNT]["answered_s"] > 5


def main():
    parts = {"reload": reload, "neighbours": neighbours, "thousand": thousand}
    wanted = sys.argv[1:] or list(parts)
    if not set(wanted) <= set(parts) or not os.access(PROVOST, os.X_OK):
        raise SystemExit(__doc__ if os.access(PROVOST, os.X_OK) else f"{PROVOST} is missing: cargo build --release")
    figures, failed = {}, False
    with tempfile.TemporaryDirectory(prefix="bench-plugins.", dir=os.environ.get("DIR", ".")) as folder:
        for part in wanted:
            (Path(folder) / part).mkdir()
            figures[part], missed = parts[part](Path(folder).resolve() / part)
            failed |= missed
            print(f"{part}{': MISSED' if missed else ''}")
            print(json.dumps(figures[part], indent=2))
    if "JSON" in os.environ:
        Path(os.environ["JSON"]).write_text(json.dumps(figures, indent=2))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
