#!/usr/bin/env python3
"""Checks deploy/observability with promtool: configuration, rules, their tests, and that each query of a dashboard is PromQL.

Says so and ends well where promtool is not installed (Debian: apt-get install prometheus)."""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent.parent / "deploy" / "observability"
# What Grafana puts in the place of its variables.
VARIABLES = {"$__rate_interval": "1m", "$instance": ".*", "$tenant": ".*", "$log": ".*"}


def queries():
    """Title of dashboard and panel, and the query, of each panel."""
    for path in sorted((HERE / "grafana" / "dashboards").glob("*.json")):
        dashboard = json.loads(path.read_text())
        for panel in dashboard["panels"]:
            for target in panel.get("targets", []):
                yield f"{dashboard['title']}: {panel['title']}", target["expr"]


def as_rules():
    """The queries as recording rules, in JSON, which is YAML."""
    rules = []
    for number, (_, query) in enumerate(queries()):
        for variable, value in VARIABLES.items():
            query = query.replace(variable, value)
        rules.append({"record": f"q{number}", "expr": query})
    return json.dumps({"groups": [{"name": "dashboards", "rules": rules}]})


def main():
    if shutil.which("promtool") is None:
        print("promtool is not installed: rules and dashboards are not checked (apt-get install prometheus)")
        return 0
    prometheus = HERE / "prometheus"
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as written:
        written.write(as_rules())
        written.flush()
        for command in [
            ["check", "config", prometheus / "prometheus.yml"],
            ["check", "rules", written.name],
            ["test", "rules", prometheus / "rules_test.yml"],
        ]:
            done = subprocess.run(["promtool", *map(str, command)], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                print(f"promtool {command[0]} {command[1]}:\n{done.stdout}{done.stderr}", file=sys.stderr)
                return 1
    print(f"rules and {len(list(queries()))} queries of dashboards are good")
    return 0


if __name__ == "__main__":
    sys.exit(main())
