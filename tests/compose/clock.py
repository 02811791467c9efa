"""Clocks that are wrong: by minutes, by hours, and by more than certificates live."""

from load import Load
from world import LIMIT, Skipped, expect, run, wait

# What certificates are dated back by lets nodes differ by so much, seconds (five minutes, less what a test takes).
MINUTES = 240
# A data-plane node that starts with a clock before its last note of the time denies calls until its state is confirmed;
# up to a minute is nothing.
BACK = 45
HOURS = 7200
# Certificates of nodes live for one day.
DAYS = 3 * 86_400
# A clock is as it was set when it is this close, seconds: processes read it anew each second.
NEAR = 5


def clock_skew(world):
    """Wrong clocks stop nothing while certificates hold; then a node is alone until its clock is right again."""
    if not world.clock_image:
        raise Skipped("the image with clocks that can be set is not here")
    image = world.image
    recreate(world, world.clock_image)
    anchor = world.anchor("cp-2")
    told = [minutes(world), hours(world), days(world, "dp-1"), days(world, "cp-3")]
    # Times are what nodes say, and prove nothing: the log holds, and names what its order contradicts.
    logs = world.verify("cp-2", anchor)["logs"]
    back_dated = sum(log["back_dated"] for log in logs)
    expect(back_dated > 0, "the audit log names no record that is dated back")
    recreate(world, image)
    return f"{'; '.join(told)}; {back_dated} records named as dated back"


def recreate(world, image):
    """The same cluster in containers of another image."""
    world.use(image)
    world.up()
    world.whole()


def shown(world, node, ahead):
    wait(lambda: abs(world.clock(node) - ahead) < NEAR, f"{node}'s clock is {ahead} s ahead")


def restart(world, node, ahead):
    """With a clock that is so far ahead."""
    world.set_clock(node, ahead)
    run("docker", "restart", "--time", "15", world.container(node))
    shown(world, node, ahead)


def minutes(world):
    """Nothing is noticed, restarts and new certificates included."""
    leader = world.leader()
    follower = next(n for n in ("cp-1", "cp-2", "cp-3") if n != leader)
    clocks = {leader: MINUTES, follower: -MINUTES, "dp-1": MINUTES, "dp-2": -BACK}
    with Load("127.0.0.1", world.port, world.token, retries=1) as load:
        wait(lambda: load.count > 5, "calls through the front")
        for node, ahead in clocks.items():
            restart(world, node, ahead)
            wait(lambda node=node: world.healthy(node), f"{node} is healthy")
            world.whole()
        world.principal("minutes-apart")
        world.whole()
        for node in clocks:
            world.set_clock(node, 0)
        world.whole()
    expect(not load.failures, f"minutes apart, calls through the front: {load.failures[:3]}")
    return f"{2 * MINUTES} s apart and restarted: {load.summary()}"


def hours(world):
    """Processes that run go on: they measure by clocks that nobody can set."""
    leader = world.leader()
    with Load(world.address("dp-1"), 8420, world.token) as behind, Load(world.address("dp-2"), 8420, world.token) as load:
        wait(lambda: load.count > 5 and behind.count > 5, "calls at both nodes")
        world.set_clock(leader, HOURS)
        # That this one has it, the audit log shows in the end.
        world.set_clock("dp-1", -HOURS)
        shown(world, leader, HOURS)
        world.principal("hours-apart")
        world.whole()
        counted = load.count, behind.count
        wait(lambda: load.count > counted[0] + 20 and behind.count > counted[1] + 20, "calls go on at both nodes")
        world.set_clock(leader, 0)
        world.set_clock("dp-1", 0)
        world.whole()
    for node, calls in (("dp-1", behind), ("dp-2", load)):
        expect(not calls.failures, f"hours apart, calls at {node}: {calls.failures[:3]}")
    return f"{2 * HOURS} s apart: {behind.summary()} at dp-1"


def days(world, node):
    """A node that starts with such a clock is alone, and executes nothing; with the right one it is back by itself."""
    other = "dp-2" if node == "dp-1" else "dp-1"
    with Load(world.address(other), 8420, world.token) as load:
        wait(lambda: load.count > 5, f"calls at {other}")
        restart(world, node, DAYS)
        if node == "dp-1":
            refused = world.call(node, check=False, limit=LIMIT)
            why = ("PV-AUDIT-UNAVAILABLE", "PV-NODE-STALE")
            expect(refused.returncode != 0 and any(code in refused.stderr for code in why),
                   f"alone by its clock, dp-1 answers {refused.stdout}{refused.stderr}")
        world.principal(f"without-{node}")
        world.set_clock(node, 0)
        world.whole()
    expect(not load.failures, f"{node}'s clock was days ahead, calls at {other}: {load.failures[:3]}")
    return f"{node} {DAYS} s ahead was alone: {load.summary()} at {other}"
