"""A client of Streamable HTTP over HTTP/3, on the `aioquic` library.

Reads URL (`https://…/mcp/up`), CA and TOKEN from the environment and expects the tools of the everything-server. Prints
`ok NAME` for each check; the first failure ends it with a non-zero exit status.
"""

import asyncio
import json
import os
import sys
from urllib.parse import urlsplit

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, ErrorCode, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration

URL = urlsplit(os.environ["URL"])
TOKEN = os.environ["TOKEN"]
VERSION = "2026-07-28"
# Whole run. A busy machine is slow, a hung one is a failure.
LIMIT_S = 120


class Http3(QuicConnectionProtocol):
    """Requests on one connection; each has a queue of what comes for it."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = H3Connection(self._quic)
        self.queues = {}

    def quic_event_received(self, event):
        for said in self.http.handle_event(event):
            if isinstance(said, HeadersReceived | DataReceived) and said.stream_id in self.queues:
                self.queues[said.stream_id].put_nowait(said)

    def request(self, method, path, headers, body=b""):
        stream = self._quic.get_next_available_stream_id()
        self.queues[stream] = asyncio.Queue()
        pseudo = [(":method", method), (":scheme", "https"), (":authority", URL.netloc), (":path", path)]
        all_headers = [(n.encode(), v.encode()) for n, v in pseudo + headers]
        self.http.send_headers(stream, all_headers, end_stream=not body)
        if body:
            self.http.send_data(stream, body, end_stream=True)
        self.transmit()
        return stream

    async def response(self, stream):
        """Status and whole body."""
        status, body = 0, b""
        while True:
            said = await self.queues[stream].get()
            if isinstance(said, HeadersReceived):
                status = int(dict(said.headers)[b":status"])
            else:
                body += said.data
            if said.stream_ended:
                return status, body.decode()

    def call(self, method, params):
        meta = {
            "io.modelcontextprotocol/protocolVersion": VERSION,
            "io.modelcontextprotocol/clientInfo": {"name": "aioquic", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        params = {**params, "_meta": {**params.get("_meta", {}), **meta}}
        headers = [
            ("authorization", f"Bearer {TOKEN}"),
            ("content-type", "application/json"),
            ("accept", "application/json, text/event-stream"),
            ("mcp-protocol-version", VERSION),
            ("mcp-method", method),
        ]
        if "name" in params:
            headers.append(("mcp-name", params["name"]))
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        return self.request("POST", URL.path, headers, json.dumps(message).encode())

    async def answer(self, method, params):
        """Every message that answers, whichever form it has."""
        status, body = await self.response(self.call(method, params))
        assert status == 200, (status, body)
        if body.startswith("{"):
            return [json.loads(body)]
        return [json.loads(line[6:]) for line in body.splitlines() if line.startswith("data: ")]


async def lists(client):
    [listed] = await client.answer("tools/list", {})
    assert "test_simple_text" in {tool["name"] for tool in listed["result"]["tools"]}, listed


async def calls(client):
    said = await client.answer("tools/call", {"name": "test_simple_text", "arguments": {}})
    assert "This is a simple text response" in said[-1]["result"]["content"][0]["text"], said


async def progress(client):
    params = {"name": "test_tool_with_progress", "arguments": {}, "_meta": {"progressToken": "p"}}
    said = await client.answer("tools/call", params)
    seen = [m["params"]["progress"] for m in said if m.get("method") == "notifications/progress"]
    assert seen == [0, 50, 100], said


async def cancels(client):
    async def cancelled():
        said = await client.answer("tools/call", {"name": "count_cancelled", "arguments": {}})
        return int(said[-1]["result"]["content"][0]["text"])

    before = await cancelled()
    stream = client.call("tools/call", {"name": "slow", "arguments": {"ms": 60_000}})
    await asyncio.sleep(1)
    client._quic.stop_stream(stream, ErrorCode.H3_REQUEST_CANCELLED)
    client.transmit()
    while await cancelled() <= before:
        await asyncio.sleep(0.1)


async def other_paths(client):
    bearer = [("authorization", f"Bearer {TOKEN}")]
    for method, path, headers, expect in [
        ("GET", "/healthz", [], 200),
        ("GET", "/v1/models", bearer, 200),
        ("GET", "/v1/models", [], 401),
        ("GET", "/.well-known/oauth-protected-resource/mcp", [], 200),
        ("GET", "/nothing", [], 404),
        ("POST", "/mcp", [("origin", "https://evil.example.com")], 403),
    ]:
        status, body = await client.response(client.request(method, path, headers))
        assert status == expect, (method, path, status, body)


async def main():
    configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, cafile=os.environ["CA"])
    async with asyncio.timeout(LIMIT_S):
        async with connect(
            URL.hostname, URL.port, configuration=configuration, create_protocol=Http3
        ) as client:
            for check in [lists, calls, progress, cancels, other_paths]:
                await check(client)
                print(f"ok {check.__name__} (h3)", flush=True)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
