"""QUIC as a transport of the official Python SDK, on the `aioquic` library: written from docs/transports.md."""

import json
import math
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import anyio
from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import StreamDataReceived
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

CANCELLED = 0x1


class Streams(QuicConnectionProtocol):
    """One bidirectional stream for each message that the client begins."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.head = b""
        self.deliver = None
        self.unfinished = {}
        self.of_request = {}
        self.of_question = {}

    def quic_event_received(self, event):
        if not isinstance(event, StreamDataReceived):
            return
        *lines, rest = (self.unfinished.get(event.stream_id, b"") + event.data).split(b"\n")
        self.unfinished[event.stream_id] = rest
        for line in lines:
            self.receive(event.stream_id, line)
        if event.end_stream:
            assert not rest, f"half a line: {rest!r}"
            self.unfinished.pop(event.stream_id)

    def receive(self, stream, line):
        message = json.loads(line)
        if "method" in message and "id" in message:
            self.of_question[message["id"]] = stream
        elif "id" in message:
            self.of_request.pop(message["id"], None)
        self.deliver(SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False)))

    def send(self, text):
        message = json.loads(text)
        line = text.encode() + b"\n"
        if "method" not in message:
            self._quic.send_stream_data(self.of_question.pop(message["id"]), line)
        elif message["method"] == "notifications/cancelled":
            stream = self.of_request.pop(message["params"]["requestId"], None)
            if stream is not None:
                self._quic.reset_stream(stream, CANCELLED)
                self._quic.stop_stream(stream, CANCELLED)
        else:
            stream = self._quic.get_next_available_stream_id()
            self._quic.send_stream_data(stream, self.head + line)
            if "id" in message:
                self.of_request[message["id"]] = stream
        self.transmit()


@asynccontextmanager
async def quic(url, ca, token):
    """Connects to `quic://HOST:PORT/ENDPOINT`; yields the SDK's read and write streams."""
    parts = urlsplit(url)
    configuration = QuicConfiguration(is_client=True, alpn_protocols=["mcp/1"], cafile=ca)
    head = {"endpoint": parts.path}
    if token:
        head["authorization"] = f"Bearer {token}"
    # What comes in is taken without waiting.
    from_server, read = anyio.create_memory_object_stream(math.inf)
    write, to_server = anyio.create_memory_object_stream(0)

    async def send(streams):
        async with to_server:
            async for message in to_server:
                streams.send(message.message.model_dump_json(by_alias=True, exclude_unset=True))

    async with connect(parts.hostname, parts.port, configuration=configuration, create_protocol=Streams) as streams:
        streams.head = json.dumps(head).encode() + b"\n"
        streams.deliver = from_server.send_nowait
        async with anyio.create_task_group() as tasks, from_server:
            tasks.start_soon(send, streams)
            try:
                yield read, write
            finally:
                tasks.cancel_scope.cancel()
