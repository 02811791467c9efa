"""Each panel of each dashboard shows data while a cluster works, and each alert looks at series that there are.

Prometheus (Debian's) scrapes a cluster of processes under load with the rules that we ship. Then every query of the dashboards is
asked, with what Grafana puts in the place of its variables, and where there is a Chromium each dashboard is drawn (`pictures.py`).
"""

import contextlib
import json
import math
import os
import pathlib
import re
import shutil
import sys
import tempfile
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pictures
from cluster import CONTROL, ROOT, Cluster, Failed, binary, expect, free_ports, get, post, wait
from pages import Browser, browser_here, keep
from upstream import Upstream

SHIPPED = ROOT / "deploy" / "observability"
# How long rates look back: a few rounds of calls on the slowest machine.
RATE = "1m"
# The longest wait for all panels, seconds.
PANELS_LIMIT = 300
# Between two rounds of calls, seconds: a load that a busy machine bears.
PAUSE = 0.2
MODELS = pathlib.Path(os.environ.get("PROVOST_TEST_MODELS", pathlib.Path.home() / ".cache" / "provost" / "models"))
MODEL = "all-minilm-l6-v2"
# Panels that need a model. It is 90 MB from elsewhere (scripts/fetch_minilm.py), which not every machine has.
OF_MODELS = {"Waits for models, p50 and p95", "Model tokens a second by tenant"}

RESOURCES = """
apiVersion: provost/v1
kind: Principal
metadata: { name: agent, tenant: acme }
spec: { type: agent }
---
apiVersion: provost/v1
kind: Role
metadata: { name: most, tenant: acme }
spec: { rules: [{ tools: ["up.*", "echo.*", "proc.*", "ai.*"], models: ["*"] }] }
---
apiVersion: provost/v1
kind: RoleBinding
metadata: { name: most, tenant: acme }
spec: { role: most, principals: [agent] }
---
apiVersion: provost/v1
kind: Guard
metadata: { name: emails, tenant: acme }
spec: { rules: [{ kinds: [email], action: mask }] }
---
apiVersion: provost/v1
kind: Quota
metadata: { name: few, tenant: acme }
spec: { limit: 5, unit: calls, window: month, tools: ["echo.*"] }
---
apiVersion: provost/v1
kind: Price
metadata: { name: calls, tenant: acme }
spec: { currency: EUR, tools: ["up.*"], perCallMicro: 1500 }
---
apiVersion: provost/v1
kind: Plugin
metadata: { name: echo, tenant: acme }
spec: { source: { builtin: { name: echo } } }
---
apiVersion: provost/v1
kind: Plugin
metadata: { name: time, tenant: acme }
spec: { source: { builtin: { name: time } } }
---
apiVersion: provost/v1
kind: Plugin
metadata: { name: ai, tenant: acme }
spec: { source: { builtin: { name: inference } } }
---
apiVersion: provost/v1
kind: Plugin
metadata: { name: proc, tenant: acme }
spec:
  source:
    mcp-stdio:
      command: /usr/bin/python3
      args: ["%s"]
      isolation: { required: false, network: host }
---
apiVersion: provost/v1
kind: Plugin
metadata: { name: up, tenant: acme }
spec: { source: { mcp-http: { url: "%s", moreUrls: ["%s"] } } }
"""


class Receiver(BaseHTTPRequestHandler):
    """Takes what nodes send on, traces and records, and forgets it."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def receiver():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_address[1]}"


class Load:
    """Calls of every kind, one after the other, until it is told to stop."""

    def __init__(self, cluster, models):
        self.cluster, self.models, self.rounds, self.stop = cluster, models, 0, threading.Event()
        self.thread = threading.Thread(target=self.go_on, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join(120)

    def go_on(self):
        while not self.stop.is_set():
            # What becomes of a call is not looked at here: the panels show it.
            with contextlib.suppress(OSError, ValueError):
                for tool in ("up.t", "up.slow", "up.fail", "proc.t", "echo.echo", "time.now"):
                    self.cluster.call(tool, {"text": "write to ann@example.org"})
                if self.models:
                    body = {"model": MODEL, "input": "a text"}
                    post(f"{self.cluster.url}/v1/embeddings", self.cluster.token, body)
                self.rounds += 1
            self.stop.wait(PAUSE)


class Prometheus:
    """Debian's, on a port of its own, with the rules that we ship."""

    def __init__(self, cluster):
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        targets = [{"targets": [cluster.metrics(node)], "labels": {"service": node if node in CONTROL else "data-plane"}}
                   for node in cluster.ports]
        config = cluster.folder / "prometheus.yml"
        # JSON is YAML. The job has the name of the shipped one, which rules and dashboards ask for.
        config.write_text(json.dumps({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(SHIPPED / "prometheus" / "rules.yml")],
            "scrape_configs": [{"job_name": "provost", "static_configs": targets}],
        }))
        cluster.processes.start("prometheus", "prometheus", f"--config.file={config}", f"--web.listen-address=127.0.0.1:{port}",
                                f"--storage.tsdb.path={cluster.folder / 'tsdb'}")
        wait(lambda: get(f"{self.url}/-/ready"), "Prometheus is ready")

    def ask(self, path, **given):
        answer = json.loads(get(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(given)}"))
        expect(answer["status"] == "success", f"{path} {given}: {answer}")
        return answer["data"]

    def values(self, query):
        """The finite values of a query now."""
        values = [float(series["value"][1]) for series in self.ask("query", query=query)["result"]]
        return [value for value in values if math.isfinite(value)]


def dashboards():
    return [json.loads(path.read_text()) for path in sorted((SHIPPED / "grafana" / "dashboards").glob("*.json"))]


def variables(prometheus):
    """What Grafana puts for each variable: all values of the label that the variable asks for."""
    found = {"$__rate_interval": RATE}
    for dashboard in dashboards():
        for variable in dashboard["templating"]["list"]:
            metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"]).groups()
            names = prometheus.ask(f"label/{label}/values", **{"match[]": metric})
            expect(names, f"{dashboard['title']}: the variable {variable['name']} has no value")
            found[f"${variable['name']}"] = "(" + "|".join(re.escape(name) for name in names).replace("\\", "\\\\") + ")"
    return found


def panels():
    """Dashboard, panel and query of everything that is drawn."""
    for dashboard in dashboards():
        for panel in dashboard["panels"]:
            for target in panel.get("targets", []):
                yield dashboard["title"], panel["title"], target["expr"]


def check_panels(prometheus, load, models):
    """Until every query has a finite value: how many they are, and what was chosen for variables."""
    # More than the quota has: a slow machine needs a while for them.
    wait(lambda: load.rounds >= 8, "calls were made", PANELS_LIMIT)
    # Variables are filled when a dashboard is opened: by then the cluster was called.
    chosen = wait(lambda: attempt(variables, prometheus), "each variable has values", PANELS_LIMIT)
    missing = [(d, p, fill(q, chosen)) for d, p, q in panels() if models or p not in OF_MODELS]
    count, end = len(missing), time.monotonic() + PANELS_LIMIT
    while missing:
        # One that has shown data is not asked again: what is counted may stand still later.
        missing = [(dashboard, panel, query) for dashboard, panel, query in missing if not prometheus.values(query)]
        if missing and time.monotonic() > end:
            raise Failed("no data in:\n" + "\n".join(f"  {d}: {p}: {q}" for d, p, q in missing))
        time.sleep(1)
    return count, chosen


def fill(query, chosen):
    for name, value in chosen.items():
        query = query.replace(name, value)
    return query


def attempt(function, *given):
    """None where it fails for now."""
    try:
        return function(*given)
    except Failed:
        return None


def check_pictures(prometheus, chosen, since, models):
    """Each panel is seen to show something."""
    program = browser_here()
    if program is None:
        print("dashboards: not drawn, Chromium is not installed (apt-get install chromium)")
        return
    with tempfile.TemporaryDirectory(prefix="provost-dashboards-") as folder:
        browser = Browser(program, pathlib.Path(folder))
        for dashboard in dashboards():
            count = pictures.check(dashboard, prometheus, browser, lambda query: fill(query, chosen), since,
                                   set() if models else OF_MODELS)
            print(f"ok - {dashboard['title']}: data is seen in {count} panels")
        keep(browser.folder)


def check_alerts(prometheus):
    """Prometheus evaluates each rule, and each names series that there are: one that names none would never fire."""
    rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    wrong = [f"{rule['name']}: {rule.get('lastError')}" for rule in rules if rule["health"] != "ok"]
    for rule in rules:
        for selector in re.findall(r"(?:provost_\w+|up)(?:\{[^}]*\})?(?=[\[\s)]|$)", rule["query"]):
            if not prometheus.ask("query", query=selector)["result"]:
                wrong.append(f"{rule['name']}: there is no series {selector}")
    expect(not wrong, "\n".join(wrong))
    return len(rules)


def check_node_down(prometheus, cluster):
    """A node that ends is one alert, of that node."""
    cluster.processes.running.pop("cp-3").terminate()
    instance = cluster.metrics("cp-3")

    def alerted():
        alerts = [a["labels"]["instance"] for a in prometheus.ask("alerts")["alerts"] if a["labels"]["alertname"] == "ProvostNodeDown"]
        expect(set(alerts) <= {instance}, f"nodes that are well are said to be down: {alerts}")
        return alerts

    wait(alerted, "Prometheus notices the node that ended")


def play(program, models):
    base = receiver()
    one, two = Upstream(), Upstream()
    settings = {
        "control": f'[[audit.forward]]\nname = "siem"\nkind = "otlp"\nurl = "{base}/v1/logs"',
        "data": f'[telemetry]\notlp = "{base}"',
    }
    with Cluster(program, settings, MODELS if models else None) as cluster:
        # The witness's key is in the nodes' configuration, so it comes first; which log it cosigns is known later.
        (port,) = free_ports(1)
        state, policy = cluster.folder / "witness", cluster.folder / "policy"
        key = cluster.command("audit", "witness", "key", "--state", state, "--name", "witness.example/w").strip()
        settings["control"] += f'\n[[audit.witnesses]]\nkey = "{key}"\nurl = "http://127.0.0.1:{port}"'
        cluster.start()
        cluster.apply("apiVersion: provost/v1\nkind: Tenant\nmetadata: { name: acme }\nspec: {}\n")
        cluster.apply(RESOURCES % (ROOT / "tests" / "observability" / "upstream.py", one.url, two.url))
        cluster.make_token("acme", "agent")
        log = wait((cluster.folder / "cp-1" / "audit" / "cluster" / "audit.pub").read_text, "the cluster's log has a key").strip()
        policy.write_text(f"log {log}\nwitness w {key}\nquorum w\n")
        cluster.processes.start("witness", program, "audit", "witness", "serve", "--listen", f"127.0.0.1:{port}", "--state", state,
                                "--policy", policy)
        prometheus, since = Prometheus(cluster), time.time()
        with Load(cluster, models) as load:
            count, chosen = check_panels(prometheus, load, models)
            print(f"ok - {count} queries of {len(dashboards())} dashboards have data after {load.rounds} rounds of calls")
            check_pictures(prometheus, chosen, since, models)
            print(f"ok - {check_alerts(prometheus)} alerts are evaluated, and look at series that there are")
        cluster.processes.check()
        check_node_down(prometheus, cluster)
        print("ok - a node that ends is one alert")


def main():
    program = binary()
    if program is None:
        print("dashboards: SKIPPED, there is no provost (PROVOST_BINARY, or build one)")
        return 0
    if shutil.which("prometheus") is None:
        print("dashboards: SKIPPED, Prometheus is not installed (apt-get install prometheus)")
        return 0
    models = (MODELS / MODEL / "model.safetensors").exists()
    if not models:
        print(f"dashboards: {len(OF_MODELS)} panels of models are not looked at, {MODELS / MODEL} is missing (scripts/fetch_minilm.py)")
    try:
        play(program, models)
    except Failed as cause:
        print(f"not ok - {cause}", file=sys.stderr)
        return 1
    print("dashboards: passed. What Grafana would ask was asked at Prometheus; Grafana itself was not here")
    return 0


if __name__ == "__main__":
    sys.exit(main())
