"""Tests of docker-compose.yml: `make test-cluster`. Each scene does something to a cluster and says what has to follow.

    run.py IMAGE [SCENE…]      all of them, or these after `start`; --keep leaves the cluster there

One line a scene, PASS, FAIL, or SKIP where something is missing that it needs; exit code 1 where one failed.
"""

import argparse
import subprocess
import sys
import time
import traceback

import scenes
from world import PROJECT, Failed, Skipped, World


def play(scene, world):
    """Whether it went as it has to; None: it was not played."""
    name, began = scene.__name__.replace("_", "-"), time.monotonic()
    try:
        said = scene(world)
    except Skipped as cause:
        print(f"SKIP {name}: {cause}", flush=True)
        return None
    except (Failed, subprocess.SubprocessError, OSError, LookupError) as cause:
        detail = cause if isinstance(cause, Failed) else "".join(traceback.format_exception(cause)[-3:])
        print(f"FAIL {name}: {detail}{getattr(cause, 'stderr', '') or ''}", flush=True)
        return False
    print(f"PASS {name} ({time.monotonic() - began:.0f} s): {said}", flush=True)
    return True


def show(world):
    """What the containers said last."""
    for service in ("setup", "registrar", "cp-1", "cp-2", "cp-3", "data-plane", "gpu-1", "front", "upstream"):
        print("\n".join(world.logs(service).splitlines()[-25:]), file=sys.stderr)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("image")
    parser.add_argument("scenes", nargs="*")
    parser.add_argument("--old", metavar="IMAGE", help="of an earlier build: what is upgraded from")
    parser.add_argument("--clock", metavar="IMAGE", help="made of IMAGE by clock.Dockerfile")
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args()
    wanted = [s for s in scenes.ALL if not args.scenes or s is scenes.start or s.__name__.replace("_", "-") in args.scenes]
    world = World(args.image, args.old, args.clock)
    world.delete()
    passed = []
    try:
        for scene in wanted:
            passed.append(play(scene, world))
            # After a failure the next scene would begin with what this one left.
            if passed[-1] is False:
                show(world)
                break
    finally:
        if args.keep:
            print(f"the cluster stays: project {PROJECT}, http://127.0.0.1:{world.port}/mcp")
        else:
            world.delete()
    skipped = passed.count(None)
    print(f"test-cluster: {passed.count(True)} of {len(wanted)} scenes passed" + (f", {skipped} skipped" if skipped else ""))
    return 0 if False not in passed and len(passed) == len(wanted) else 1


if __name__ == "__main__":
    sys.exit(main())
