"""Tests of docker-compose.yml: `make test-cluster`. Each scene does something to a cluster and says what has to follow.

    run.py IMAGE [SCENE…]      all of them, or these after `start`; --keep leaves the cluster there

One line a scene, PASS or FAIL; exit code 1 where one failed.
"""

import argparse
import subprocess
import sys
import time
import traceback

import scenes
from world import PROJECT, Failed, World


def play(scene, world):
    """Whether it went as it has to."""
    name, began = scene.__name__.replace("_", "-"), time.monotonic()
    try:
        said = scene(world)
    except (Failed, subprocess.SubprocessError, OSError, LookupError) as cause:
        detail = cause if isinstance(cause, Failed) else "".join(traceback.format_exception(cause)[-3:])
        print(f"FAIL {name}: {detail}{getattr(cause, 'stderr', '') or ''}", flush=True)
        return False
    print(f"PASS {name} ({time.monotonic() - began:.0f} s): {said}", flush=True)
    return True


def show(world):
    """What the containers said last."""
    for service in ("setup", "registrar", "cp-1", "cp-2", "cp-3", "data-plane", "front", "upstream"):
        print("\n".join(world.logs(service).splitlines()[-25:]), file=sys.stderr)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("image")
    parser.add_argument("scenes", nargs="*")
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args()
    wanted = [s for s in scenes.ALL if not args.scenes or s is scenes.start or s.__name__.replace("_", "-") in args.scenes]
    world = World(args.image)
    world.delete()
    passed = []
    try:
        for scene in wanted:
            passed.append(play(scene, world))
            # After a failure the next scene would begin with what this one left.
            if not passed[-1]:
                show(world)
                break
    finally:
        if args.keep:
            print(f"the cluster stays: project {PROJECT}, http://127.0.0.1:{world.port}/mcp")
        else:
            world.delete()
    print(f"test-cluster: {sum(passed)} of {len(wanted)} scenes passed")
    return 0 if all(passed) and len(passed) == len(wanted) else 1


if __name__ == "__main__":
    sys.exit(main())
