#!/usr/bin/env python3
"""How fast guards look at a text, on one core, beside the bars that they are held to.

  scripts/bench_guards.py [ROUNDS]      ROUNDS: how often everything is measured; default 3, medians count

All kinds of values at once, over 4 MiB of JSON rows: without any value, and with one in every hundredth row. The rows are
those of the corpus by which recall and precision are tested (docs/guards.md). A bench of criterion in one thread does it,
so a figure is that of one core; leave the others alone meanwhile. It needs cargo and writes nothing but its build.
Exit code 1: a bar was missed.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

# Rows, and the megabytes (of 10^6 bytes) a second that they are to reach.
BARS = {"clean": 400, "1% of rows": 150}


def rates(home):
    """Megabytes a second of each bench whose figures lie in a folder of criterion's."""
    found = {}
    for described in sorted(Path(home).rglob("new/benchmark.json")):
        what = json.loads(described.read_text())
        times = json.loads(described.with_name("estimates.json").read_text())
        found[what["function_id"]] = what["throughput"]["Bytes"] / times["median"]["point_estimate"] * 1_000
    return found


def measure():
    """One round."""
    with tempfile.TemporaryDirectory() as home:
        rows = "|".join(BARS)
        command = ["cargo", "bench", "--locked", "--package", "provost-data-guards", "--bench", "scan", "--"]
        # What it says of itself goes to stderr: stdout is the table's.
        subprocess.run([*command, f"^guard/({rows})$"], env={**os.environ, "CRITERION_HOME": home}, stdout=2, check=True)
        return rates(home)


def table(rounds):
    """The lines of the table, and whether every bar holds."""
    lines, holds = ["| rows | MB/s | bar | rounds |", "|---|---|---|---|"], True
    for rows, bar in BARS.items():
        figures = [found[rows] for found in rounds]
        median = statistics.median(figures)
        holds = holds and median >= bar
        lines.append(f"| {rows} | {median:.0f} | {bar} | {', '.join(f'{figure:.0f}' for figure in figures)} |")
    return lines, holds


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    os.chdir(Path(__file__).resolve().parent.parent)
    lines, holds = table([measure() for _ in range(count)])
    print("\n".join(lines))
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
