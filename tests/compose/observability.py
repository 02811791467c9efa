"""The profile `observability`: Prometheus finds every node, Grafana has our dashboards and asks it, the collector gets traces."""

import json
import os
import re
import urllib.request

from load import Load
from world import ROOT, Skipped, expect, free_port, run, wait

PROFILE = ("--profile", "observability")
SERVICES = ("prometheus", "grafana", "otel-collector")
DASHBOARDS = ROOT / "deploy/observability/grafana/dashboards"
# Three control-plane nodes, two of the data plane, the GPU node.
NODES = 6
# The longest that Prometheus and Grafana take to start and to scrape, seconds.
START_LIMIT = 180
PULL_LIMIT = 900


def need_images():
    """Those that docker-compose.yml names, or the environment in their place."""
    named = re.findall(r"\$\{(PROVOST_(?:PROMETHEUS|GRAFANA|COLLECTOR)_IMAGE):-([^}]+)\}", (ROOT / "docker-compose.yml").read_text())
    expect(len(named) == len(SERVICES), f"docker-compose.yml names the images {named}")
    for variable, default in named:
        image = os.environ.get(variable) or default
        here = run("docker", "image", "inspect", image, check=False).returncode == 0
        if not here and run("docker", "pull", "--quiet", image, check=False, limit=PULL_LIMIT).returncode != 0:
            raise Skipped(f"the image {image} is not here and cannot be pulled")


def ask(port, path, body=None):
    """What a port of this machine answers, as JSON."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode() if body else None,
                                     {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def scraped(port):
    """How many nodes answer Prometheus."""
    found = ask(port, "/api/v1/query?query=sum(up)")["data"]["result"]
    return int(float(found[0]["value"][1])) if found else 0


def queries():
    """Those of all panels, with everything chosen that a reader may choose; what Grafana replaces by itself stays."""
    def of(panels):
        for panel in panels:
            yield from (target["expr"] for target in panel.get("targets", []) if "expr" in target)
            yield from of(panel.get("panels", []))
    return [re.sub(r"\$(?!__)\w+", ".*", expr) for file in sorted(DASHBOARDS.glob("*.json")) for expr in of(json.loads(file.read_text())["panels"])]


def shown(port, expr):
    """Whether Grafana, asked by who only looks, gets data from Prometheus for a panel's query; an OSError where it cannot ask."""
    query = {"refId": "A", "datasource": {"type": "prometheus", "uid": "provost-prometheus"}, "expr": expr, "instant": True,
             "intervalMs": 15_000, "maxDataPoints": 100}
    answer = ask(port, "/api/ds/query", {"queries": [query], "from": "now-5m", "to": "now"})["results"]["A"]
    frames = answer.get("frames") or []
    return any(value is not None for frame in frames for column in frame["data"]["values"][1:] for value in column)


def collected(world):
    """What the collector says: a line for each batch."""
    done = run("docker", "logs", world.container("otel-collector"))
    return done.stdout + done.stderr


def look(world, prometheus, grafana):
    wait(lambda: scraped(prometheus) == NODES, f"Prometheus scrapes {NODES} nodes", START_LIMIT)
    rules = ask(prometheus, "/api/v1/rules")["data"]["groups"]
    expect(sum(len(group["rules"]) for group in rules) > 0, "Prometheus has no rules")
    ours = {json.loads(file.read_text())["uid"] for file in DASHBOARDS.glob("*.json")}
    wait(lambda: ours <= {found["uid"] for found in ask(grafana, "/api/search?type=dash-db")}, "Grafana has the dashboards",
         START_LIMIT)
    with Load("127.0.0.1", world.port, world.token, retries=1) as load:
        wait(lambda: shown(grafana, "sum(rate(provost_calls_total[1m])) > 0"), "Grafana shows calls", START_LIMIT)
        asked = queries()
        # What has data under which load, tests/observability looks at; here each query has to be one that Grafana can ask.
        with_data = sum(shown(grafana, expr) for expr in asked)
        expect(asked and with_data > 0, f"of {len(asked)} queries of panels {with_data} have data")
        wait(lambda: '"spans"' in collected(world), "the collector gets traces")
    expect(not load.failures, f"through the front: {load.failures[:3]}")
    return (f"{NODES} nodes scraped, {len(ours)} dashboards, {with_data} of {len(asked)} queries of panels have data, traces collected; "
            f"{load.summary()}")


def observability(world):
    """Asked for with its profile, it sees the cluster; without it nothing of it runs."""
    need_images()
    expect(not any(world.containers(service) for service in SERVICES), "it runs although nobody asked for it")
    prometheus, grafana = free_port(), free_port()
    more = {"PROVOST_PROMETHEUS_PORT": str(prometheus), "PROVOST_GRAFANA_PORT": str(grafana),
            "PROVOST_OTLP": "http://otel-collector:4318"}
    world.env.update(more)
    try:
        world.compose(*PROFILE, "up", "--detach", "--no-build")
        world.whole()
        said = look(world, prometheus, grafana)
    finally:
        world.compose(*PROFILE, "rm", "--stop", "--force", *SERVICES, check=False)
        for volume in ("prometheus", "grafana"):
            run("docker", "volume", "rm", f"{world.env['COMPOSE_PROJECT_NAME']}_{volume}", check=False)
        for name in more:
            del world.env[name]
    world.up()
    world.whole()
    return said
