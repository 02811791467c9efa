"""From an earlier build to this one, node by node, while calls and changes go on."""

from load import Load
from world import Skipped, expect, run, wait

# How an old build refuses what a later one has written. The second: those that speak version 4 or less.
REFUSALS = ("PV-CLUSTER-VERSION", "Column families not opened")


def image_of(world, node):
    return world.inspect(node, "{{.Image}}")


def rolling_upgrade(world):
    """An earlier build's cluster becomes this one's without a failed call; whether a node may go back, its version says."""
    if not world.old_image:
        raise Skipped("PROVOST_OLD_IMAGE or PROVOST_OLD_BINARY has to name an earlier build")
    new = world.image
    world.delete()
    world.use(world.old_image)
    world.begin()
    world.whole()
    world.principal("from-before")
    before, members, anchor = world.status(), world.members(), world.anchor()

    world.use(new)
    with Load("127.0.0.1", world.port, world.token, retries=1) as load:
        wait(lambda: load.count > 5, "calls through the front")
        for node in ("cp-1", "cp-2", "cp-3"):
            world.up("--no-deps", node)
            wait(lambda node=node: world.healthy(node), f"{node} is healthy")
            world.whole()
            world.principal(f"when-{node}-was-new")
        # A new data-plane node beside the old ones, which are replaced while it serves; then it goes.
        more = ("--no-deps", "--scale", "data-plane=3", "data-plane")
        world.up("--no-recreate", *more)
        world.whole(data_plane=3)
        world.up(*more)
        world.whole(data_plane=3)
        world.up("--no-deps", "--scale", "data-plane=2", "data-plane")
        world.up()
        world.whole()
    world.gpu_node_serves()
    expect(not load.failures, f"calls through the front: {load.summary()}, {load.failures[:3]}")
    image = run("docker", "inspect", "--format", "{{.Id}}", new).stdout.strip()
    for node in ("cp-1", "cp-2", "cp-3", "dp-1", "dp-2", "gpu-1", "registrar"):
        expect(image_of(world, node) == image, f"{node} runs the old image")
    now = world.members()
    expect({n: now.get(n) for n in members} == members, f"members were {members} and are {now}")
    expect(world.status()["cluster"] == before["cluster"], "another cluster")
    people = world.cli("get", "Principal").stdout
    expect(all(name in people for name in ("from-before", "when-cp-1-was-new", "when-cp-3-was-new")), f"principals: {people}")

    way_back = back(world, new, before["wire_version"])
    for node in ("cp-1", "cp-3"):
        world.verify(node, anchor)
    return f"{load.summary()}; {way_back}"


def back(world, new, old_wire):
    """One node is given the earlier build again."""
    wait(lambda: world.status()["wire_version"] >= old_wire, "the cluster's version")
    wire = world.status()["wire_version"]
    world.use(world.old_image)
    world.up("--no-deps", "cp-3")
    if wire > old_wire:
        wait(lambda: any(said in world.logs("cp-3") for said in REFUSALS), "the old build refuses to start")
        world.principal("when-cp-3-was-too-old")
        expect(world.answers("dp-1") and world.answers("dp-2"), "the others go on without cp-3")
        said = f"version {old_wire} became {wire}, and cp-3 with the old build refused to start"
    else:
        world.whole()
        world.principal("when-cp-3-was-old-again")
        said = f"version {wire} as before, and cp-3 could go back"
    world.use(new)
    world.up("--no-deps", "cp-3")
    world.whole()
    return said
