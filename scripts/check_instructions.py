#!/usr/bin/env python3
"""Instruction counts of hot paths against bench/instructions.json: `check_instructions.py PROGRAM [--write]`.

PROGRAM is the bench crate's `instructions`, built for release (`make instructions` does both). Each path runs under callgrind with two
numbers of turns; the difference, divided, is what one turn costs. Other load on the machine does not change it, so a rise of a
few percent is a change of the code (or of the compiler). Exit code 1 where a path costs more than the bound allows, or is not in
the file. Counts depend on what the processor can do, since libraries choose their loops by it: with other abilities than those of
the file nothing is compared. Skips with one line where valgrind is missing.
"""

import json
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile

BASELINE = pathlib.Path(__file__).resolve().parent.parent / "bench" / "instructions.json"
# Turns of the two runs. The first ones fill caches and grow tables; both runs have them.
TURNS = (200, 1200)
# How much more a path may cost than the file says. The same program counted again differs by less than a tenth of it: seeds of
# hash tables and addresses are random.
BOUND_PERCENT = 2.0
# Of these abilities libraries choose among, and valgrind shows those of the machine.
ABILITIES = {"sse4_2", "avx", "avx2", "bmi2", "asimd"}


def abilities():
    found = set()
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("flags", "Features")):
            found |= ABILITIES & set(line.split(":", 1)[1].split())
    return [platform.machine(), *sorted(found)]


def count(program, path, turns):
    """All instructions of one run."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out", program, path, str(turns)],
            capture_output=True, text=True, check=False, cwd=folder,
        )
    if done.returncode != 0:
        sys.exit(f"{path}: valgrind ended with {done.returncode}:\n{done.stderr[-2000:]}")
    found = re.search(r"Collected : (\d+)", done.stderr)
    if not found:
        sys.exit(f"{path}: valgrind did not say what it collected:\n{done.stderr[-2000:]}")
    return int(found[1])


def measure(program):
    few, many = TURNS
    listed = subprocess.run([program], capture_output=True, text=True, check=True).stdout.split()
    return {path: round((count(program, path, many) - count(program, path, few)) / (many - few)) for path in listed}


def compare(measured, kept):
    """Lines to print, and whether all is well."""
    lines, well = [], True
    for path, now in measured.items():
        before = kept.get(path)
        if before is None:
            lines.append(f"not ok - {path}: {now} instructions a turn, and {BASELINE.name} does not have it (--write)")
            well = False
            continue
        change = (now - before) / before * 100
        verdict = "ok"
        if change > BOUND_PERCENT:
            verdict, well = "not ok", False
        note = "; better, write it down with --write" if change < -BOUND_PERCENT else ""
        lines.append(f"{verdict} - {path}: {now} instructions a turn, {change:+.1f} % of {before}{note}")
    for path in kept.keys() - measured.keys():
        lines.append(f"not ok - {path} is in {BASELINE.name} and is not there any more (--write)")
        well = False
    return lines, well


def main():
    arguments = [argument for argument in sys.argv[1:] if argument != "--write"]
    if len(arguments) != 1:
        sys.exit("usage: check_instructions.py PROGRAM [--write]")
    if shutil.which("valgrind") is None:
        print("instructions: SKIPPED, valgrind is not installed (apt-get install valgrind)")
        return 0
    program = str(pathlib.Path(arguments[0]).resolve())
    if "--write" in sys.argv:
        kept = {"abilities": abilities(), "instructions": measure(program)}
        BASELINE.write_text(json.dumps(kept, indent=2) + "\n")
        print(BASELINE.read_text(), end="")
        return 0
    if not BASELINE.exists():
        print(f"instructions: not compared, {BASELINE.name} has not been written yet (--write); now:")
        print(json.dumps(measure(program), indent=2))
        return 1
    kept = json.loads(BASELINE.read_text())
    if kept["abilities"] != abilities():
        print(f"instructions: SKIPPED, the file is of a machine with {kept['abilities']}, this one has {abilities()}")
        return 0
    lines, well = compare(measure(program), kept["instructions"])
    print("\n".join(lines))
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
