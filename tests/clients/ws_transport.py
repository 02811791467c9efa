"""A WebSocket as a transport of the official Python SDK, on the `websockets` library."""

from contextlib import asynccontextmanager

import anyio
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter
from websockets.asyncio.client import connect


@asynccontextmanager
async def websocket(url, headers):
    """Connects with the subprotocol `mcp`; yields the SDK's read and write streams."""
    from_server, read = anyio.create_memory_object_stream(0)
    write, to_server = anyio.create_memory_object_stream(0)

    async def receive(socket):
        async with from_server:
            async for text in socket:
                assert isinstance(text, str), "a binary frame"
                await from_server.send(SessionMessage(jsonrpc_message_adapter.validate_json(text, by_name=False)))

    async def send(socket):
        async with to_server:
            async for message in to_server:
                await socket.send(message.message.model_dump_json(by_alias=True, exclude_unset=True))

    async with connect(url, subprotocols=["mcp"], additional_headers=headers, proxy=None) as socket:
        assert socket.subprotocol == "mcp", socket.subprotocol
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive, socket)
            tasks.start_soon(send, socket)
            try:
                yield read, write
            finally:
                tasks.cancel_scope.cancel()
