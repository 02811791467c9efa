"""An MCP server (2026-07-28) for the tests in this folder, with nothing but Python's standard library: over HTTP as a part of the
test, or as a process of its own on stdin and stdout.

`t` answers with what it is told; `fail` is an error of JSON-RPC; `slow` takes a tenth of a second. Each call is handed to `seen`,
with its headers and its message, before it is answered.
"""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOOLS = [{"name": name, "inputSchema": {"type": "object"}} for name in ("t", "fail", "slow")]


def result_of(message):
    method, params = message.get("method"), message.get("params") or {}
    if method == "server/discover":
        return {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "ttlMs": 0, "cacheScope": "private"}
    if method == "tools/list":
        return {"tools": TOOLS, "ttlMs": 60_000, "cacheScope": "private"}
    if method == "tools/call":
        if params.get("name") == "slow":
            time.sleep(0.1)
        text = json.dumps(params.get("arguments", {}))
        return {"content": [{"type": "text", "text": f"done {text}"}]}
    return {}


def answer_to(message):
    """The whole answer to a request."""
    answer = {"jsonrpc": "2.0", "id": message["id"]}
    if message.get("method") == "tools/call" and message["params"].get("name") == "fail":
        return {**answer, "error": {"code": -32000, "message": "it fails"}}
    return {**answer, "result": {"resultType": "complete", **result_of(message)}}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        message = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or "null")
        if not isinstance(message, dict) or "id" not in message:
            return self.reply(202, b"")
        if message.get("method") == "tools/call":
            self.server.seen(self.headers, message)
        return self.reply(200, json.dumps(answer_to(message)).encode())

    def do_GET(self):
        self.reply(405, b"")

    do_DELETE = do_GET

    def reply(self, status, body):
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Upstream(ThreadingHTTPServer):
    """Serves from its own threads until it is shut down."""

    daemon_threads = True

    def __init__(self, seen=lambda headers, message: None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen = seen
        self.url = f"http://127.0.0.1:{self.server_address[1]}/mcp"
        threading.Thread(target=self.serve_forever, daemon=True).start()


if __name__ == "__main__":
    for line in sys.stdin:
        asked = json.loads(line)
        if "id" in asked:
            print(json.dumps(answer_to(asked)), flush=True)
