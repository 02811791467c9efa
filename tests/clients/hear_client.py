"""The official Python SDK as a legacy client that is told when the tools of a Provost node change.

Reads URL (Streamable HTTP) and TOKEN from the environment. Prints one line of JSON, with the version of the protocol and
the names of all tools, when it is connected and its stream for what concerns no call is open, and one after each
`notifications/tools/list_changed`. Ends when stdin does.
"""

import json
import math
import os
import sys

import anyio
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp_types import ToolListChangedNotification

HEADERS = {"Authorization": f"Bearer {os.environ['TOKEN']}"}


async def say(client):
    tools = (await client.list_tools()).tools
    said = {"version": client.protocol_version, "tools": sorted(tool.name for tool in tools)}
    print(json.dumps(said), flush=True)


async def main():
    opened = anyio.Event()
    told, changes = anyio.create_memory_object_stream(math.inf)

    async def on_response(response):
        if response.request.method == "GET" and response.status_code == 200:
            opened.set()

    async def on_message(message):
        if isinstance(message, ToolListChangedNotification):
            told.send_nowait(message)

    async with create_mcp_http_client(headers=HEADERS) as http:
        http.event_hooks = {"response": [on_response]}
        transport = streamable_http_client(os.environ["URL"], http_client=http)
        async with Client(transport, mode="legacy", message_handler=on_message) as client:
            async with anyio.create_task_group() as group:

                async def until_stdin_ends():
                    await anyio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
                    group.cancel_scope.cancel()

                group.start_soon(until_stdin_ends)
                await opened.wait()
                await say(client)
                async for _ in changes:
                    await say(client)


if __name__ == "__main__":
    sys.exit(anyio.run(main))
