#!/usr/bin/env python3
"""Reads docker-compose.yml as Compose does, with all of its profiles, and checks the walls of every container, and which of
them start only where their profile is asked for.

Needs no Docker Engine. Says so and ends well where neither `docker compose` nor `docker-compose` is installed."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

try:
    import yaml
except ImportError:
    # Only the old program's answer is YAML; Debian installs this with it, for Debian's own Python.
    yaml = None

ROOT = pathlib.Path(__file__).resolve().parent.parent
FILE = "docker-compose.yml"
# Everything else starts with `docker compose up`.
PROFILES = {"cli": ["cli"], "gpu-2": ["gpu"], "prometheus": ["observability"], "grafana": ["observability"],
            "otel-collector": ["observability"]}
# Writes to its own image: its data folder is there.
WRITES = {"grafana"}


def compose():
    # Without the program there is no status to look at.
    docker = shutil.which("docker")
    if docker and subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode == 0:
        return ["docker", "compose"], ["--format", "json"]
    # 1.29 knows no profiles that are asked for here, and shows all services; it prints YAML alone.
    return (["docker-compose"], []) if yaml and shutil.which("docker-compose") else (None, None)


def read():
    """What Compose makes of the file; a dictionary."""
    command, form = compose()
    profiles = {"COMPOSE_PROFILES": ",".join(sorted({one for names in PROFILES.values() for one in names}))}
    done = subprocess.run([*command, "--file", FILE, "config", *form], capture_output=True, text=True, check=False, cwd=ROOT,
                          env={**os.environ, **profiles})
    if done.returncode != 0:
        sys.exit(f"Compose does not take {FILE}:\n{done.stderr}")
    if form:
        return json.loads(done.stdout)
    return yaml.safe_load(done.stdout)


def outside(port):
    """Whether a published port can be reached from other machines. Old and new Compose write it in two forms."""
    if isinstance(port, str):
        return not port.startswith("127.0.0.1:")
    return bool(port.get("published")) and port.get("host_ip") != "127.0.0.1"


def faults(name, service):
    if service.get("profiles", []) != PROFILES.get(name, []):
        yield f"is of the profiles {service.get('profiles', [])}, not {PROFILES.get(name, [])}"
    if service.get("cap_drop") != ["ALL"]:
        yield "keeps capabilities"
    if "no-new-privileges:true" not in service.get("security_opt", []):
        yield "may get more rights"
    if service.get("privileged") or service.get("network_mode") == "host" or service.get("pid") == "host":
        yield "shares the machine"
    if not service.get("read_only") and name not in WRITES:
        yield "writes to its image"
    if any(outside(port) for port in service.get("ports", [])):
        yield "publishes a port to other machines"
    for key, value in (service.get("environment") or {}).items():
        if value and any(word in key for word in ("PASSWORD", "SECRET", "TOKEN")):
            yield f"has a secret in {key}"
    for volume in service.get("volumes", []):
        source, read_only = (volume.split(":")[0], volume.endswith(":ro")) if isinstance(volume, str) else (
            volume.get("source", ""), volume.get("read_only", False))
        if source.startswith(("/", ".")):
            if not read_only:
                yield f"may write to {source}"
            if not pathlib.Path(ROOT, source).exists():
                yield f"takes {source}, which is not there"


def main():
    if compose()[0] is None:
        print("Compose is not installed, or PyYAML not with docker-compose: docker-compose.yml is not checked (apt-get install docker-compose)")
        return 0
    services = read()["services"]
    wrong = [f"{name} {fault}" for name, service in services.items() for fault in faults(name, service)]
    wrong += [f"{name} is missing" for name in PROFILES.keys() - services.keys()]
    for line in sorted(wrong):
        print(line, file=sys.stderr)
    if not wrong:
        print(f"{len(services)} services keep their walls")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
