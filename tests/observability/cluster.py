"""A cluster of processes on loopback for the tests in this folder: what `docker-compose.yml` has, without containers.

Three nodes of the control plane that keep the audit log too, one of the data plane, a tenant with a token. Everything is made
by the commands that an operator uses, in a folder of its own that goes with it.
"""

import contextlib
import itertools
import json
import os
import pathlib
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
# The longest wait for a condition, seconds: a busy machine with two cores and a binary that is not optimised.
LIMIT = 180
# Each process begins at another place of 12000 to 31999; Debian gives outgoing connections those from 32768.
PORTS = (12_000 + (os.getpid() * 211 + n) % 20_000 for n in itertools.count())
CONTROL = ["cp-1", "cp-2", "cp-3"]
# Names of the environment that would lead a node or the command line elsewhere.
FOREIGN = ("PROVOST_", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
# Requests of the tests themselves, never through a proxy.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Failed(Exception):
    """What was expected did not happen."""


class CommandFailed(Failed):
    """A command of ours ended badly: it may go well later."""


def expect(holds, said):
    if not holds:
        raise Failed(said)


def wait(condition, what, limit=LIMIT):
    """The first true value of a condition; what it asks may fail meanwhile."""
    end, last = time.monotonic() + limit, ""
    while True:
        try:
            if value := condition():
                return value
        except (CommandFailed, OSError, ValueError, KeyError, subprocess.SubprocessError) as cause:
            last = f"; {cause!r}"
        if time.monotonic() > end:
            raise Failed(f"not within {limit} s: {what}{last}")
        time.sleep(0.2)


def free_ports(count):
    """Ports that nobody has now, and that are not given again. Below the range of outgoing connections: one of that range may be
    somebody's when the process starts that is to have it."""
    found = []
    while len(found) < count:
        port = next(PORTS)
        with socket.socket() as tried, contextlib.suppress(OSError):
            tried.bind(("127.0.0.1", port))
            found.append(port)
    return found


def get(url, limit=10):
    """The body of an answer, as text; OSError for anything but success."""
    with OPENER.open(url, timeout=limit) as answer:
        return answer.read().decode()


def binary():
    """The program under test, or None: the one that is named, else the one that was built last."""
    if named := os.environ.get("PROVOST_BINARY"):
        return str(pathlib.Path(named).resolve()) if os.access(named, os.X_OK) else None
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    built = [path for profile in ("release", "debug") if os.access(path := target / profile / "provost", os.X_OK)]
    return str(max(built, key=lambda path: path.stat().st_mtime).resolve()) if built else None


class Processes:
    """What was started, with a log each, and ended in the opposite order."""

    def __init__(self, folder):
        self.folder, self.running = folder, {}

    def start(self, name, *command, env=None):
        clean = {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)}
        with open(self.folder / f"{name}.log", "ab") as log:
            self.running[name] = subprocess.Popen(
                [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**clean, **(env or {})}, cwd=self.folder,
            )

    def log(self, name):
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def check(self):
        """All of them still run."""
        for name, process in self.running.items():
            expect(process.poll() is None, f"{name} ended with {process.poll()}:\n{self.log(name)[-2000:]}")

    def end(self):
        for process in reversed(self.running.values()):
            process.send_signal(signal.SIGTERM)
        for process in self.running.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Cluster:
    """`settings`: lines of TOML for each kind of node, `control` and `data`; `models`: a folder of them."""

    def __init__(self, program, settings=None, models=None):
        self.program, self.settings, self.models = program, settings or {}, models
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="provost-observed-"))
        self.processes = Processes(self.folder)
        ports = iter(free_ports(16))
        self.ports = {node: {kind: next(ports) for kind in ("peer", "admin", "metrics", "http")} for node in [*CONTROL, "dp-1"]}
        self.admin_token = self.token = ""
        self.made = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.processes.end()
        if os.environ.get("KEEP"):
            print(f"data and logs stay in {self.folder}")
        else:
            shutil.rmtree(self.folder, ignore_errors=True)

    def configure(self, node, token=None):
        ports, control = self.ports[node], node in CONTROL
        others = [f"127.0.0.1:{self.ports[other]['peer']}" for other in CONTROL if other != node]
        roles = ["control-plane", "audit-log"] if control else ["data-plane"]
        lines = [
            f'node = "{node}"', f"roles = {json.dumps(roles)}", f'data_dir = "{self.folder / node}"',
            f'advertise = "127.0.0.1:{ports["peer"]}"', f"control_plane = {json.dumps(others)}",
            *([f'models = "{self.models}"'] if self.models and not control else []), "[listen]",
            *(f'{kind} = "127.0.0.1:{port}"' for kind, port in ports.items()),
            "[keys]", 'provider = "file"', f'path = "{self.folder / "secrets.key"}"',
            "[timings]", "promote_after_ms = 1000",
        ]
        if token:
            path = self.folder / f"{node}.token"
            path.write_text(token)
            path.chmod(0o600)
            lines += ["[join]", f'token_file = "{path}"']
        lines.append(self.settings.get("control" if control else "data", ""))
        (self.folder / f"{node}.toml").write_text("\n".join(lines) + "\n")

    def make(self):
        """The cluster on the disk of its first node."""
        self.configure("cp-1")
        joins = [f"--join={node}=control-plane,audit-log" for node in CONTROL[1:]] + ["--join=dp-1=data-plane"]
        done = self.command("cluster", "init", "--json", "--cluster", "observed", "--config", self.folder / "cp-1.toml", *joins)
        made = json.loads(done)
        self.admin_token = made["admin_token"]
        for node, token in made["join_tokens"].items():
            self.configure(node, token)
        self.made = True

    def start(self):
        """Waits until three vote, and the data-plane node serves the newest revision."""
        if not self.made:
            self.make()
        for node in self.ports:
            self.processes.start(node, self.program, "server", "--config", self.folder / f"{node}.toml")

        def whole():
            self.processes.check()
            status = json.loads(self.cli("cluster", "status", "--json"))
            voters = [member for member in status["members"] if member["membership"] == "voter"]
            return len(voters) == 3 and any(s["node"] == "dp-1" and s["lag"] == 0 for s in status["subscribers"])

        wait(whole, "three voters, and a data-plane node that is up to date")

    def command(self, *args, given=None, env=None):
        clean = {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)}
        done = subprocess.run([self.program, *map(str, args)], input=given, capture_output=True, text=True, check=False,
                              timeout=LIMIT, env={**clean, **(env or {})}, cwd=self.folder)
        if done.returncode != 0:
            raise CommandFailed(f"provost {' '.join(map(str, args[:3]))}: {done.stdout}{done.stderr}")
        return done.stdout

    def cli(self, *args, given=None):
        """As the administrator."""
        admins = ",".join(f"127.0.0.1:{self.ports[node]['admin']}" for node in CONTROL)
        return self.command(*args, given=given, env={"PROVOST_ADMIN": admins, "PROVOST_ADMIN_TOKEN": self.admin_token})

    def apply(self, documents):
        """Resources, and waits until the data-plane node runs them."""
        path = self.folder / f"{secrets.token_hex(4)}.yaml"
        path.write_text(documents)

        # The audit log may still be electing. Applied again, an equal document changes nothing.
        wait(lambda: self.cli("apply", "-f", path), "the resources are applied")

        def runs():
            status = json.loads(self.cli("cluster", "status", "--json"))
            return all(s["revision"] >= status["revision"] for s in status["subscribers"])

        wait(runs, "the data-plane node runs what was applied")

    def make_token(self, tenant, principal):
        made = wait(lambda: self.cli("token", "create", "--tenant", tenant, "--principal", principal), "a token is made")
        self.token = made.split()[0]

    @property
    def url(self):
        return f"http://127.0.0.1:{self.ports['dp-1']['http']}"

    def metrics(self, node):
        return f"127.0.0.1:{self.ports[node]['metrics']}"

    def call(self, name, arguments=None):
        """Status and answer of a call of a tool."""
        return post_tool(self.url + "/mcp", self.token, name, arguments)


def post(url, token, body, headers=None):
    """Status and JSON of an answer, whatever status it has."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {
        "authorization": f"Bearer {token}", "content-type": "application/json",
        "accept": "application/json, text/event-stream", **(headers or {})})
    try:
        with OPENER.open(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read() or "null")
    except urllib.error.HTTPError as answer:
        return answer.code, json.loads(answer.read() or "null")


def post_tool(url, token, name, arguments=None, headers=None, meta=None):
    """Status and answer of a call of a tool, in the era without sessions."""
    params = {"name": name, "arguments": arguments or {}, "_meta": {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "observability", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {}, **(meta or {})}}
    fixed = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": name}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    return post(url, token, body, {**fixed, **(headers or {})})
