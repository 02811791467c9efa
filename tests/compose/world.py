"""The cluster of docker-compose.yml under test: its containers, its commands, and what can be done to it.

Everything goes through `docker` and Compose, as for a person. Nothing sleeps for a fixed time where a condition can be
waited for; limits are those of a slow machine.
"""

import email.utils
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROJECT = "provost-test"
# The longest wait for a condition, seconds.
LIMIT = 120
SMALL_DISK = "tests/compose/small-disk.yml"
GPU_NODE = "gpu-1"
# What the GPU node gets as its folder of models: small ones, with random weights.
MODELS = ROOT / "gpu-node/infer/tests/fixtures"


class Failed(Exception):
    """What was expected did not happen."""


class Skipped(Exception):
    """Something that the scene needs is not here."""


def expect(holds, said):
    if not holds:
        raise Failed(said)


def wait(condition, what, limit=LIMIT):
    """The first true value of a condition; commands of it may fail meanwhile."""
    end, last = time.monotonic() + limit, ""
    while True:
        try:
            if value := condition():
                return value
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired, json.JSONDecodeError, OSError) as cause:
            last = f"; {cause} {getattr(cause, 'stderr', '') or ''}".rstrip()
        if time.monotonic() > end:
            raise Failed(f"not within {limit} s: {what}{last}")
        time.sleep(0.3)


def run(*command, check=True, given=None, env=None, limit=300):
    """A command's stdout, as text, or as bytes where bytes are given."""
    done = subprocess.run(
        command, input=given, capture_output=True, text=not isinstance(given, bytes), check=False, timeout=limit, cwd=ROOT,
        env={**os.environ, **(env or {})},
    )
    if check and done.returncode != 0:
        raise subprocess.CalledProcessError(done.returncode, command[:6], done.stdout, done.stderr)
    return done


def compose_command():
    """Compose as a plugin of the Engine's, or as a program of its own."""
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0:
        return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else None


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def up_to_date(status):
    """Names of the nodes that take the state from the control plane, and run the newest revision."""
    return {s["node"] for s in status["subscribers"] if s["lag"] == 0 and s["silent_ms"] < 15_000}


class World:
    """`old_image`: of an earlier build. `clock_image`: `image` with clocks that can be set (clock.Dockerfile)."""

    def __init__(self, image, old_image=None, clock_image=None):
        self.old_image, self.clock_image = old_image, clock_image
        self.port = free_port()
        self.env = {
            "PROVOST_PORT": str(self.port),
            # Beside a cluster that runs here.
            "PROVOST_UPSTREAMS_SUBNET": "172.16.85.0/24",
            "PROVOST_MODELS_DIR": str(MODELS),
            "COMPOSE_PROJECT_NAME": PROJECT,
        }
        self.token = ""
        self.use(image)

    # --- the project

    def use(self, image):
        """What containers are made of from now on."""
        self.image = self.env["PROVOST_IMAGE"] = image

    def compose(self, *args, files=(), **options):
        chosen = [part for file in ("docker-compose.yml", *files) for part in ("-f", file)]
        return run(*compose_command(), *chosen, *args, env=self.env, **options)

    def up(self, *args, **options):
        return self.compose("up", "--detach", "--no-build", *args, **options)

    def begin(self):
        """As in a new clone, until it says that it is ready."""
        self.up()
        wait(lambda: "Provost is ready" in self.logs("registrar"), "the registrar says that the cluster is ready")
        self.token = re.search(r"pv_\S+", self.cli("agent-token").stdout)[0]

    def delete(self):
        """Everything, volumes too."""
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "5", files=[SMALL_DISK], check=False)

    def logs(self, service):
        done = self.compose("logs", "--no-color", service, check=False)
        return done.stdout + done.stderr

    # --- containers

    def containers(self, service):
        """Ids of a service's containers that are there, by their numbers."""
        label = "label=com.docker.compose."
        form = '{{.ID}} {{.Label "com.docker.compose.container-number"}} {{.Label "com.docker.compose.oneoff"}}'
        listed = run("docker", "ps", "--all", "--filter", f"{label}project={PROJECT}", "--filter",
                     f"{label}service={service}", "--format", form).stdout.split("\n")
        rows = [row.split() for row in listed if row]
        return {int(number): one for one, number, once in rows if once == "False"}

    def container(self, node):
        """`cp-2` is a service, `dp-2` the second container of one."""
        if match := re.fullmatch(r"dp-(\d+)", node):
            return self.containers("data-plane")[int(match[1])]
        return next(iter(self.containers(node).values()))

    def inspect(self, node, path):
        return run("docker", "inspect", "--format", path, self.container(node)).stdout.strip()

    def healthy(self, node):
        return self.inspect(node, "{{.State.Health.Status}}") == "healthy"

    def address(self, node):
        return self.inspect(node, f'{{{{(index .NetworkSettings.Networks "{PROJECT}_cluster").IPAddress}}}}')

    def kill(self, node):
        """Its process dies, which the engine did not ask for: nobody has to start the container again."""
        pid = self.inspect(node, "{{.State.Pid}}")
        run("docker", "run", "--rm", "--network", "none", "--pid", "host", "--user", "0", "--cap-add", "KILL", "--entrypoint",
            "bash", self.image, "-c", f"kill -9 {int(pid)}")

    def set_clock(self, node, ahead):
        """So many seconds ahead of the machine's, in `clock_image` alone; 0: the machine's."""
        file = "/var/lib/provost/clock-$HOSTNAME"
        change = f"echo {ahead:+} > {file}.new && mv {file}.new {file}" if ahead else f"rm -f {file}"
        run("docker", "exec", self.container(node), "bash", "-c", change)

    def clock(self, node):
        """How many seconds a node's clock is ahead, by `date` in its answers: in a process's life that never goes back."""
        with urllib.request.urlopen(f"http://{self.address(node)}:8422/metrics", timeout=5) as answer:
            return round(email.utils.parsedate_to_datetime(answer.headers["date"]).timestamp() - time.time())

    def disconnect(self, node):
        run("docker", "network", "disconnect", f"{PROJECT}_cluster", self.container(node))

    def connect(self, node):
        alias = "data-plane" if node.startswith("dp-") else node
        run("docker", "network", "connect", "--alias", alias, f"{PROJECT}_cluster", self.container(node))

    # --- the cluster

    def cli(self, *args, **options):
        """As `docker compose run --rm cli`, without the second that a container takes."""
        registrar = self.container("registrar")
        return run("docker", "exec", "--interactive", registrar, "bash", "/etc/provost/cli.sh", *args, **options)

    def status(self):
        return json.loads(self.cli("cluster", "status", "--json").stdout)

    def members(self):
        """Name to id."""
        return {m["name"]: m["id"] for m in self.status()["members"]}

    def leader(self):
        status = self.status()
        return next(m["name"] for m in status["members"] if m["id"] == status["leader_id"])

    def principal(self, name, text="a"):
        """A change of the cluster's state."""
        return self.apply("apiVersion: provost/v1\nkind: Principal\n"
                          f"metadata: {{ name: {name}, tenant: acme }}\nspec: {{ type: agent, displayName: {text} }}\n")

    def apply(self, document):
        """Resources, as a file would have them."""
        registrar = self.container("registrar")
        command = "cat > /tmp/change.yaml && bash /etc/provost/cli.sh apply -f /tmp/change.yaml"
        return run("docker", "exec", "--interactive", registrar, "bash", "-c", command, given=document)

    def call(self, node, tool="echo.echo", check=True, limit=60, **arguments):
        """A call at one data-plane node, made by the binary there."""
        given = [part for key, value in (arguments or {"text": "hi"}).items() for part in ("--arg", f"{key}={value}")]
        return run("docker", "exec", "--env", "PROVOST_TOKEN", self.container(node), "provost", "call", tool, *given,
                   "--url", "http://127.0.0.1:8420/mcp", env={"PROVOST_TOKEN": self.token}, check=check, limit=limit)

    def answers(self, node):
        return self.call(node, text=f"I am {node}").stdout.strip() == f"I am {node}"

    def audit(self, node):
        return f"/var/lib/provost/{node}/audit"

    def anchor(self, node="cp-1"):
        """The audit log's checkpoint as it is now: what is signed here has to be there later."""
        return run("docker", "exec", self.container(node), "cat", f"{self.audit(node)}/checkpoint").stdout

    def verify(self, node, anchor):
        """The report about a node's copy of the audit log, which has to be proven."""
        run("docker", "exec", "--interactive", self.container(node), "bash", "-c", "cat > /tmp/anchor", given=anchor)
        done = run("docker", "exec", self.container(node), "provost", "audit", "verify", self.audit(node), "--against",
                   "/tmp/anchor", "--json", check=False)
        expect(done.returncode == 0, f"{node}'s copy of the audit log: {done.stdout[:2000]}{done.stderr}")
        return json.loads(done.stdout)

    def whole(self, data_plane=2):
        """Three voters without lag, so many data-plane nodes that run the newest revision, all of them healthy."""
        def holds():
            status = self.status()
            voters = [m for m in status["members"] if m["membership"] == "voter"]
            run_it = up_to_date(status)
            return (len(voters) == 3 and all(m["applied"] and m["lag"] == 0 for m in voters)
                    and sum(node.startswith("dp-") for node in run_it) == data_plane
                    and all(self.healthy(m["name"]) for m in voters)
                    and all(self.answers(f"dp-{n}") for n in range(1, data_plane + 1)))
        wait(holds, f"three voters, {data_plane} data-plane nodes, all of them up to date")

    def metric(self, node, series):
        """A sample that a node shows, by name and labels as they are written there; 0: it shows none."""
        with urllib.request.urlopen(f"http://{self.address(node)}:8422/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{series} ")), 0.0)

    def gpu_node_serves(self):
        """The GPU node is a member that runs the newest revision, and each data-plane node hears it and sees its models."""
        def seen_by(node):
            models = sum(self.metric(node, f'provost_gpu_node_models{{node="{GPU_NODE}",state="{state}"}}')
                         for state in ("resident", "loading", "on_disk"))
            return models >= 1 and self.metric(node, f'provost_gpu_node_heard{{node="{GPU_NODE}"}}') == 1

        def holds():
            status = self.status()
            roles = {m["name"]: m["roles"] for m in status["members"]}
            return (roles.get(GPU_NODE) == ["gpu-node"] and GPU_NODE in up_to_date(status) and self.healthy(GPU_NODE)
                    and all(seen_by(f"dp-{number}") for number in self.containers("data-plane")))
        wait(holds, "the GPU node is a member and ready, and data-plane nodes hear it")
