"""One trace from a client through a node to an upstream, in a collector that is not ours.

The collector is Rotel (an OpenTelemetry collector, of PyPI, Apache-2.0): it decodes what it gets and prints it. Client and
upstream make their spans with OpenTelemetry's own SDK and send them to the same collector, so that a context that Provost
passes on wrongly ends as two traces, or as a span under a parent that nobody sent.
"""

import contextlib
import json
import pathlib
import re
import sys
import tempfile

import rotel
from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from cluster import Failed, Processes, binary, expect, free_ports, get, post_tool, wait
from upstream import Upstream

# The stages of a call that ran, by the names of their spans (docs/observability.md).
STAGES = ["authenticate", "resolve", "authorise", "limit", "guard_in", "intent", "tools/call t", "guard_out", "outcome"]
RESOURCES = """
apiVersion: provost/v1
kind: Tenant
metadata: { name: acme }
spec: {}
---
apiVersion: provost/v1
kind: Principal
metadata: { name: agent, tenant: acme }
spec: { type: agent }
---
apiVersion: provost/v1
kind: Role
metadata: { name: all, tenant: acme }
spec: { rules: [{ tools: ["*"] }] }
---
apiVersion: provost/v1
kind: RoleBinding
metadata: { name: all, tenant: acme }
spec: { role: all, principals: [agent] }
---
apiVersion: provost/v1
kind: Plugin
metadata: { name: up, tenant: acme }
spec: { source: { mcp-http: { url: "%s" } } }
"""


def parse(log):
    """The spans that the collector printed, each with the name of its service."""
    spans, service, in_resource = [], None, False
    for line in log.splitlines():
        if line.startswith("ResourceSpans"):
            service, in_resource = None, True
        elif line.startswith("ScopeSpans"):
            in_resource = False
        elif in_resource and (found := re.search(r"-> service\.name: Str\((.*)\)", line)):
            service = found[1]
        elif line.startswith("Span #"):
            spans.append({"service": service, "attributes": {}})
        elif spans and (found := re.match(r"    (Trace ID|Parent ID|ID|Name|Kind)\s*:\s?(.*)", line)):
            spans[-1][found[1].lower().replace(" ", "_")] = found[2].strip()
        elif spans and not in_resource and (found := re.match(r"\s+-> ([\w.]+): \w+\((.*)\)", line)):
            spans[-1]["attributes"][found[1]] = found[2]
    return spans


def tracer(service, address):
    """Of OpenTelemetry's SDK, sending each span when it ends."""
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=f"{address}/v1/traces")))
    return provider.get_tracer("test")


def check(spans, client_span, way):
    """The spans of one call: whose parent is whose."""
    def only(found, what):
        expect(len(found) == 1, f"{way}: {len(found)} spans are {what}: {json.dumps(spans, indent=1)}")
        return found[0]

    client = only([s for s in spans if s["service"] == "client"], "the client's")
    expect(client["id"] == client_span and not client["parent_id"], f"{way}: the client's span is {client}")
    server = only([s for s in spans if s["name"] == "tools/call up.t"], "the node's for the whole call")
    expect(server["service"] == "provost" and server["kind"] == "SPAN_KIND_SERVER", f"{way}: {server}")
    expect(server["parent_id"] == client["id"], f"{way}: the node's span is not below the client's: {server}")
    expect(server["attributes"].get("mcp.method.name") == "tools/call", f"{way}: {server}")
    expect(server["attributes"].get("gen_ai.tool.name") == "up.t", f"{way}: {server}")
    below = [s["name"] for s in spans if s["parent_id"] == server["id"]]
    expect(sorted(below) == sorted(STAGES), f"{way}: below the call are {below}")
    execution = only([s for s in spans if s["name"] == "tools/call t" and s["service"] == "provost"], "the execution")
    upstream = only([s for s in spans if s["service"] == "upstream"], "the upstream's")
    expect(upstream["parent_id"] == execution["id"], f"{way}: the upstream's span is not below the execution: {upstream}")
    expect(len(spans) == len(STAGES) + 3, f"{way}: {len(spans)} spans")


def play(program, folder, stack):
    grpc, http = free_ports(2)
    collector = f"http://127.0.0.1:{http}"
    processes = Processes(folder)
    stack.callback(processes.end)
    agent = pathlib.Path(rotel.__file__).parent / "rotel-agent"
    processes.start("collector", agent, "start", "--exporter", "blackhole", "--debug-log", "traces", "--debug-log-verbosity",
                    "detailed", "--otlp-http-endpoint", f"127.0.0.1:{http}", "--otlp-grpc-endpoint", f"127.0.0.1:{grpc}")

    spans_of = tracer("upstream", collector)

    def seen(headers, message):
        context = propagate.extract({key.lower(): value for key, value in headers.items()})
        name = f"serve {message['params']['name']}"
        spans_of.start_span(name, context=context, kind=trace.SpanKind.SERVER).end()

    upstream = Upstream(seen)
    (folder / "resources.yaml").write_text(RESOURCES % upstream.url)
    processes.start("node", program, "dev", "--data-dir", folder / "node", "--http", "127.0.0.1:0", "--config",
                    folder / "resources.yaml", env={"PROVOST_OTLP": collector, "PROVOST_OTLP_RATIO": "0"})

    def started():
        processes.check()
        return json.loads((folder / "node" / "dev.json").read_text())

    dev = wait(started, "the node is ready")
    wait(lambda: get(dev["mcp"].replace("/mcp", "/readyz")) is not None, "the node says that it is ready")
    token = dev["token"]
    client = tracer("client", collector)
    for way in ("headers", "_meta"):
        with client.start_as_current_span("ask", kind=trace.SpanKind.CLIENT) as span:
            carrier = {}
            propagate.inject(carrier)
            given = {"headers": carrier} if way == "headers" else {"meta": carrier}
            status, answer = post_tool(dev["mcp"], token, "up.t", {"text": "hi"}, **given)
        expect(status == 200 and "done" in json.dumps(answer), f"{way}: {status} {answer}")
        context = span.get_span_context()
        number, span_id = f"{context.trace_id:032x}", f"{context.span_id:016x}"

        def arrived(number=number):
            spans = [s for s in parse(processes.log("collector")) if s.get("trace_id") == number and "kind" in s]
            return spans if len(spans) >= len(STAGES) + 3 else None

        try:
            spans = wait(arrived, f"the whole trace {number} is in the collector", 60)
        except Failed as cause:
            raise Failed(f"{way}: {cause}\n{processes.log('collector')[-6000:]}\n{processes.log('node')[-2000:]}") from None
        check(spans, span_id, way)
        print(f"ok - by {way}: one trace of {len(spans)} spans, from the client over {len(STAGES)} stages to the upstream")
    expect(token not in processes.log("collector"), "the token is in a trace")


def main():
    program = binary()
    if program is None:
        print("trace: SKIPPED, there is no provost (PROVOST_BINARY, or build one)")
        return 0
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="provost-trace-")))
        try:
            play(program, folder, stack)
        except Failed as cause:
            print(f"not ok - {cause}", file=sys.stderr)
            return 1
    print("trace: passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
