"""The example upstream of docker-compose.yml: a small MCP server (2025-06-18) with nothing but Python's standard library.

It speaks HTTPS on port 8443 and wants the token of this installation. Tickets are in memory and begin anew with it.
"""

import hmac
import json
import pathlib
import ssl
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock

FOLDER = pathlib.Path("/srv/provost/upstream")
TOKEN = (FOLDER / "token").read_text().strip()
# A request is small; one that says it is not, is not read.
MAX_BYTES = 1 << 20
LOCK = Lock()
TICKETS = {n: {"id": n, "title": title, "state": "open", "notes": []}
           for n, title in enumerate(["The printer is on fire", "Door 3 squeaks", "No coffee"], 1)}


def tool(name, description, **properties):
    required = list(properties)
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return {"name": name, "description": description, "inputSchema": schema}


TEXT, NUMBER = {"type": "string"}, {"type": "integer"}
TOOLS = [
    tool("find", "Tickets whose title contains a text.", text=TEXT),
    tool("note", "Writes a note to a ticket.", id=NUMBER, text=TEXT),
    tool("close", "Closes a ticket.", id=NUMBER),
]


def call(name, given):
    """What a tool answers; KeyError where there is no such tool, ticket or argument."""
    with LOCK:
        if name == "find":
            return [t for t in TICKETS.values() if given["text"].lower() in t["title"].lower()]
        ticket = TICKETS[given["id"]]
        if name == "note":
            ticket["notes"].append(given["text"])
        elif name == "close":
            ticket["state"] = "closed"
        else:
            raise KeyError(name)
        return ticket


def respond(method, params):
    """A JSON-RPC result, or the error as (code, text)."""
    if method == "initialize":
        server = {"name": "desk", "version": "1"}
        return {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": server}
    if method == "ping":
        return {}
    if method == "tools/list":
        return {"tools": TOOLS}
    if method == "tools/call":
        try:
            text, failed = json.dumps(call(params["name"], params.get("arguments", {}))), False
        except KeyError as missing:
            text, failed = f"there is no {missing}", True
        return {"content": [{"type": "text", "text": text}], "isError": failed}
    return -32601, f"there is no method {method}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # A connection on which nothing comes for so long is closed, seconds.
    timeout = 120

    def do_POST(self):
        length = int(self.headers.get("content-length") or 0)
        if length > MAX_BYTES:
            self.close_connection = True
            return self.reply(413)
        sent = self.rfile.read(length)
        if not hmac.compare_digest(self.headers.get("authorization", ""), f"Bearer {TOKEN}"):
            return self.reply(401)
        try:
            message = json.loads(sent)
            method, number = message["method"], message.get("id")
        except (ValueError, KeyError, TypeError):
            return self.reply(400, {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "no request"}})
        if number is None:
            return self.reply(202)
        result = respond(method, message.get("params") or {})
        if isinstance(result, tuple):
            answer = {"error": {"code": result[0], "message": result[1]}}
        else:
            answer = {"result": result}
        return self.reply(200, {"jsonrpc": "2.0", "id": number, **answer})

    def do_GET(self):
        # No stream of events of its own.
        self.reply(405)

    do_DELETE = do_GET

    def reply(self, status, body=None):
        text = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        if body is not None:
            self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def get_request(self):
        """The handshake comes with the first read, in the connection's own thread: nobody waits for a slow one."""
        plain, address = self.socket.accept()
        plain.settimeout(Handler.timeout)
        return CONTEXT.wrap_socket(plain, server_side=True, do_handshake_on_connect=False), address

    def handle_error(self, request, client_address):
        """A client that goes away, or is none of TLS, is nothing to report."""


CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
CONTEXT.load_cert_chain(FOLDER / "cert.pem", FOLDER / "key.pem")

if __name__ == "__main__":
    print("upstream: https://upstream:8443/mcp", flush=True)
    Server(("0.0.0.0", 8443), Handler).serve_forever()
