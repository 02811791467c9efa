#!/usr/bin/env python3
"""Sums up the runs of bench_calls.sh: a table on stdout, results.json beside the runs.

Sides of one round ran one after the other, so they are compared within the round; then the median of
the rounds counts. Exit code 1: a bar was missed.
"""

import json
import statistics
import sys
from pathlib import Path

ADDED_P50_US = 1_500
ADDED_P99_US = 8_000
LEAST_RATIO = 0.5
MOST_LOADED = 1.10
MOST_IDLE_BYTES = 10**9


def rounds(runs, part, nth=1):
    """Two sides of every round: the plain one, which is its first, and the `nth` after it."""
    numbers = sorted({r["round"] for r in runs if r["part"] == part})
    for number in numbers:
        sides = [r for r in runs if r["part"] == part and r["round"] == number]
        if len(sides) > nth:
            yield sides[0]["run"], sides[nth]["run"]


def us(key):
    return lambda run: run["latency_us"][key]


def rate(run):
    return run["throughput_per_second"]


def cpu(run):
    return run["server"]["cpu_us_per_call"] if run["server"] else 0.0


def row(name, runs, part, value, join, bar=None, form="{:,.0f}", nth=1):
    pairs = [(value(plain), value(measured)) for plain, measured in rounds(runs, part, nth)]
    if not pairs:
        return None
    joined = statistics.median(join(plain, measured) for plain, measured in pairs)
    passed = None if bar is None else bar(joined)
    return {
        "row": name,
        "plain": statistics.median(p for p, _ in pairs),
        "measured": statistics.median(m for _, m in pairs),
        "joined": joined,
        "rounds": pairs,
        "passed": passed,
        "form": form,
    }


def added(plain, measured):
    return measured - plain


def ratio(plain, measured):
    return measured / plain if plain else 0.0


def idle(folder):
    held = [json.loads(path.read_text()) for path in sorted(folder.glob("idle-*.json"))]
    if not held:
        return None
    least = min(h["rss_bytes_before"] for h in held)
    most = max(max(h["rss_bytes_open"], h["rss_bytes_after"]) for h in held)
    opened, lost = sum(h["opened"] for h in held), sum(h["lost"] for h in held)
    return {
        "row": f"{opened:,} idle WebSocket and QUIC connections, {lost} lost: memory, MB",
        "plain": least / 1e6,
        "measured": most / 1e6,
        "joined": (most - least) / max(opened, 1) / 1024,
        "rounds": held,
        "passed": most <= MOST_IDLE_BYTES and lost == 0,
        "form": "{:,.0f} KiB each",
    }


def main():
    folder = Path(sys.argv[1])
    runs = [json.loads(line) for line in (folder / "runs.jsonl").read_text().splitlines()]
    plus, times = "+{:,.0f}", "{:.2f} x"
    rows = [
        row("quorum of three, 500/s: p50, us", runs, "added", us("p50"), added, lambda v: v <= ADDED_P50_US, plus),
        row("quorum of three, 500/s: p99, us", runs, "added", us("p99"), added, lambda v: v <= ADDED_P99_US, plus),
        row("one node, saturated: calls/s", runs, "ratio", rate, ratio, lambda v: v >= LEAST_RATIO, times),
        row("one node, saturated: CPU of the node, us/call", runs, "ratio", cpu, added, None, plus),
        row("one worker on a core: calls/s", runs, "pinned", rate, ratio, lambda v: v >= LEAST_RATIO, times),
        row("one worker on a core: CPU of the node, us/call", runs, "pinned", cpu, added, None, plus),
        row("nginx, one worker on a core: calls/s", runs, "pinned", rate, ratio, None, times, nth=2),
        row("loaded over small, 500/s: p50, us", runs, "loaded", us("p50"), ratio, lambda v: v <= MOST_LOADED, times),
        row("loaded over small, 500/s: p99, us", runs, "loaded", us("p99"), ratio, None, times),
        row("loaded over small, 500/s: CPU, us/call", runs, "loaded", cpu, ratio, None, times),
        idle(folder),
    ]
    rows = [r for r in rows if r is not None]
    print(f"{'':<72}{'plain':>10}{'measured':>10}  {'':>14}")
    for r in rows:
        verdict = {None: "", True: "met", False: "missed"}[r["passed"]]
        joined = r["form"].format(r["joined"])
        print(f"{r['row']:<72}{r['plain']:>10,.0f}{r['measured']:>10,.0f}  {joined:>14}  {verdict}")
    (folder / "results.json").write_text(json.dumps(rows, indent=1))
    sys.exit(any(r["passed"] is False for r in rows))


main()
