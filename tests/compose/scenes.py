"""What happens to a cluster, and what has to follow. Each scene begins and ends with a whole one."""

import time

from clock import clock_skew
from load import Load
from models import models
from observability import observability
from upgrade import rolling_upgrade
from world import LIMIT, SMALL_DISK, expect, run, wait

# From `docker compose up` to a cluster that is ready, seconds: on a machine that does other things too.
START_LIMIT = 120
# Changes while a disk is full, each of them larger than what is left there.
FULL_CHANGES = 12
FULL_TEXT = "x" * 20_000

# What a port of cp-1 answers to plain HTTP, and who certified it.
PLAIN_AND_TLS = """
# It hangs up at what is no TLS, while more of it is written.
trap '' PIPE
exec 3<>/dev/tcp/cp-1/$1
printf 'GET / HTTP/1.1\\r\\nhost: cp-1\\r\\n\\r\\n' >&3
timeout 3 head -c 200 <&3 | tr -dc '[:print:]'
printf '|'
openssl s_client -connect cp-1:$1 < /dev/null 2>&1 | grep '^ *i:'
"""


def by_tls(world, port):
    """What PLAIN_AND_TLS says, once it says anything of a certificate."""
    said = run("docker", "exec", world.container("dp-1"), "bash", "-c", PLAIN_AND_TLS, "-", port, limit=60).stdout
    return said if "i:" in said else None


def start(world):
    """A clone, one command: a cluster with its own keys, a token, and calls that are answered or denied."""
    began = time.monotonic()
    world.begin()
    ready = time.monotonic() - began
    world.whole()
    voting = time.monotonic() - began
    expect(ready < START_LIMIT, f"ready after {ready:.0f} s")
    for node in ("dp-1", "dp-2"):
        found = world.call(node, "desk.find", text="printer").stdout
        expect("on fire" in found, f"{node}: the upstream answers {found}")
        denied = world.call(node, "desk.note", check=False, id=1, text="my password is tea")
        expect("PV-POLICY-DENIED" in denied.stderr, f"{node}: what the policy forbids: {denied.stdout}{denied.stderr}")
    with Load("127.0.0.1", world.port, world.token) as load:
        wait(lambda: load.count > 20, "calls through the front")
    expect(not load.failures, f"through the front: {load.failures[:3]}")
    audit = run("docker", "exec", world.container("cp-2"), "provost", "audit", "query", "--dir", "/var/lib/provost/cp-2/audit",
                "--tenant", "acme", "--limit", "1000").stdout
    expect("desk.find" in audit and "denied" in audit, "cp-2's copy of the audit log has the calls")
    world.gpu_node_serves()
    for node in ("cp-1", "dp-1", "gpu-1"):
        root = world.inspect(node, "{{.HostConfig.ReadonlyRootfs}} {{.Config.User}}")
        expect(root == "true 10001:10001", f"{node} has a read-only root and a user of its own: {root}")
    # Who has taken over a GPU node finds no key there, and cannot change the models.
    given = world.inspect("gpu-1", "{{range .Mounts}}{{.Destination}}={{.RW}} {{end}}").split()
    expect("/srv/models=false" in given and not any("/keys=" in one for one in given), f"gpu-1 has {given}")
    for node in ("cp-1", "dp-1", "gpu-1", "registrar"):
        told = world.inspect(node, "{{json .Config}}")
        expect("pv_" not in told and "pva_" not in told, f"{node}: a token is in the container's settings")
    for service in ("setup", "registrar", "cp-1", "data-plane", "gpu-1"):
        logs = world.logs(service)
        expect("pv_" not in logs and "pva_" not in logs, f"{service}: a token is in the container's log")
    # Nodes and administrators are spoken to by TLS alone, with certificates of the cluster's CA.
    for port in ("8423", "8421"):
        said = wait(lambda port=port: by_tls(world, port), f"cp-1's port {port} answers")
        plain, _, issuer = said.partition("|")
        expect("HTTP/" not in plain and "compose-" in issuer, f"cp-1's port {port}: {said}")
    size = int(run("docker", "image", "inspect", "--format", "{{.Size}}", world.image).stdout) / 1e6
    return f"ready after {ready:.0f} s, three voters after {voting:.0f} s; the image has {size:.0f} MB"


def join(world):
    """--scale: new nodes join by themselves; those that come back keep their names and ids."""
    # Who has taken over a data-plane node shares a volume with the registrar, and leads it to no other file by that.
    key, token = "/srv/provost/keys/secrets.key", "/srv/provost/join-data/dp-3.token"
    digest = run("docker", "exec", world.container("registrar"), "sha256sum", key).stdout
    run("docker", "exec", world.container("dp-1"), "ln", "-s", key, f"{token}.new")
    world.up("--scale", "data-plane=4")
    world.whole(data_plane=4)
    now = run("docker", "exec", world.container("registrar"), "sha256sum", key).stdout
    expect(now == digest, "the registrar wrote over the wrapping key")
    before = world.members()
    world.up("--scale", "data-plane=2")
    wait(lambda: len(world.containers("data-plane")) == 2, "two containers")
    world.up("--scale", "data-plane=4")
    world.whole(data_plane=4)
    expect(world.members() == before, f"members were {before} and are {world.members()}")
    world.up("--scale", "data-plane=2")
    world.whole()
    return "two more data-plane nodes, away and back again under their ids"


def down_and_up(world):
    """Without its containers, and then with new ones, it is the same cluster with the same tokens."""
    before, cluster = world.members(), world.status()["cluster"]
    world.compose("down", "--timeout", "15")
    world.up()
    world.whole()
    expect((world.members(), world.status()["cluster"]) == (before, cluster), "another cluster")
    expect("nothing to do" in world.logs("setup"), "the setup was made anew")
    world.gpu_node_serves()
    return "the same cluster, members and tokens"


def loss_of_nodes(world):
    """Killed: calls elsewhere do not fail, and the container comes back without a hand."""
    told = []
    follower = next(n for n in ("cp-1", "cp-2", "cp-3") if n != world.leader())
    for victim in (world.leader(), follower, "dp-1", "upstream"):
        restarts = int(world.inspect(victim, "{{.RestartCount}}"))
        with Load(world.address("dp-2"), 8420, world.token) as load:
            wait(lambda: load.count > 5, "calls at dp-2")
            world.kill(victim)
            wait(lambda: int(world.inspect(victim, "{{.RestartCount}}")) > restarts, f"{victim} is started again")
            world.whole()
        expect(not load.failures, f"{victim} was killed, calls at dp-2: {load.failures[:3]}")
        told.append(f"{victim}: {load.summary()}")
    # A container that is gone, and not only dead, comes back with what its volume holds.
    before = world.members()
    run("docker", "rm", "--force", world.container("cp-2"))
    world.up()
    world.whole()
    expect(world.members() == before, "cp-2's new container is another member")
    return "; ".join(told)


def partition(world):
    """Cut off: the majority goes on; a node alone executes nothing that it cannot record."""
    alone = world.leader()
    with Load(world.address("dp-1"), 8420, world.token) as load:
        wait(lambda: load.count > 5, "calls at dp-1")
        world.disconnect(alone)
        wait(lambda: world.principal("written-by-the-majority"), "the majority takes a change")
        wait(lambda: world.leader() != alone, "another one leads")
        counted = load.count
        wait(lambda: load.count > counted + 20, "calls at dp-1 go on")
        world.connect(alone)
        world.whole()
    expect(not load.failures, f"{alone} was cut off, calls at dp-1: {load.failures[:3]}")

    world.disconnect("dp-2")
    refused = world.call("dp-2", check=False, limit=LIMIT)
    expect(refused.returncode != 0 and "PV-AUDIT-UNAVAILABLE" in refused.stderr,
           f"alone, dp-2 answers {refused.stdout}{refused.stderr}")
    expect(world.answers("dp-1"), "dp-1 does without it")
    world.connect("dp-2")
    world.whole()
    return f"leader {alone} cut off: {load.summary()}; dp-2 alone refused, and went on when it was back"


def rolling_restart(world):
    """One node after the other, each once the one before is ready: clients of the front notice nothing."""
    with Load("127.0.0.1", world.port, world.token, retries=1) as load:
        wait(lambda: load.count > 5, "calls through the front")
        for node in ("cp-1", "cp-2", "cp-3", "dp-1", "dp-2"):
            run("docker", "restart", "--time", "15", world.container(node))
            wait(lambda node=node: world.healthy(node), f"{node} is healthy")
            world.whole()
    expect(not load.failures, f"calls through the front: {load.failures[:3]}")
    return load.summary()


def replace_volume(world, node, files=()):
    """Everything that a control-plane node had is lost; a person removes it, and it joins anew."""
    before = world.members()[node]
    world.compose("rm", "--stop", "--force", node, files=files)
    world.compose("rm", "--stop", "--force", "holder", files=[SMALL_DISK], check=False)
    run("docker", "volume", "rm", f"{world.env['COMPOSE_PROJECT_NAME']}_{node}")
    world.up(node, *(["holder"] if files else []), files=files)
    wait(lambda: f"cluster remove {node}" in world.logs("registrar"), "the registrar says what to do")
    expect(world.members()[node] == before, "nobody was removed without being told to")
    world.cli("cluster", "remove", node)
    world.whole()
    expect(world.members()[node] > before, f"{node} has its old id")
    return before


def loss_of_a_volume(world):
    """A voter's disk is gone: it does not come back as who it was, and the cluster says what to do."""
    with Load(world.address("dp-1"), 8420, world.token) as load:
        wait(lambda: load.count > 5, "calls at dp-1")
        old = replace_volume(world, "cp-2")
    expect(not load.failures, f"calls at dp-1: {load.failures[:3]}")
    # What data-plane nodes keep, others have: they come back without a person.
    world.compose("rm", "--stop", "--force", "data-plane")
    run("docker", "volume", "rm", f"{world.env['COMPOSE_PROJECT_NAME']}_data-plane")
    world.up()
    world.whole()
    return f"cp-2 was {old} and is {world.members()['cp-2']}; {load.summary()}; data-plane nodes joined anew by themselves"


def full_disk(world):
    """A voter's disk is full: it acknowledges nothing, the others go on, and with room again it catches up."""
    replace_volume(world, "cp-3", files=[SMALL_DISK])
    holder = world.container("holder")
    with Load(world.address("dp-1"), 8420, world.token) as load:
        for number in range(FULL_CHANGES):
            run("docker", "exec", holder, "bash", "-c", "head -c 200M /dev/zero >> /var/lib/provost/filler || true")
            world.principal(f"while-full-{number}", FULL_TEXT)
        wait(lambda: "No space left on device" in world.logs("cp-3"), "cp-3 says that its disk is full")
        run("docker", "exec", holder, "rm", "/var/lib/provost/filler")
        world.whole()
    expect(not load.failures, f"calls at dp-1: {load.failures[:3]}")
    restarts = world.inspect("cp-3", "{{.RestartCount}}")
    replace_volume(world, "cp-3")
    return f"{FULL_CHANGES} changes went through, cp-3 was started again {restarts} times; {load.summary()}"


def backup_and_restore(world):
    """Everything is lost but a backup and the key: a new cluster has the resources, secrets and agents' tokens."""
    world.principal("in-the-backup")
    key = world.cli("secrets-key", given=b"").stdout
    backup = world.cli("backup", given=b"").stdout
    world.principal("after-the-backup")
    cluster = world.status()["cluster"]
    world.delete()
    run_setup = ("run", "--rm", "-T", "setup")
    early = world.compose(*run_setup, "restore", given=backup, check=False)
    expect(early.returncode != 0, "a backup was restored without its key")
    world.compose(*run_setup, "restore-key", given=key)
    damaged = world.compose(*run_setup, "restore", given=backup[: len(backup) // 2], check=False)
    expect(damaged.returncode != 0 and b"PV-BACKUP-DAMAGED" in damaged.stdout + damaged.stderr, "half a backup was restored")
    world.compose(*run_setup, "restore", given=backup)
    twice = world.compose(*run_setup, "restore", given=backup, check=False)
    expect(twice.returncode != 0, "a backup was restored over a cluster")
    world.up()
    world.whole()
    expect(world.status()["cluster"] != cluster, "the new cluster has the old one's name")
    people = world.cli("get", "Principal").stdout
    expect("in-the-backup" in people and "after-the-backup" not in people, f"the principals are {people}")
    found = wait(lambda: world.call("dp-1", "desk.find", text="printer").stdout, "the upstream takes the new token")
    expect("on fire" in found, f"the upstream answers {found}")
    world.gpu_node_serves()
    return f"{len(backup)} bytes; the old token is good in the new cluster"


ALL = [start, join, models, down_and_up, loss_of_nodes, partition, rolling_restart, clock_skew, loss_of_a_volume, full_disk,
       backup_and_restore, rolling_upgrade, observability]
