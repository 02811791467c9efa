"""The official Python SDK as a client of a Provost node.

Reads URL (`http://…`, `ws://…` or, with CA, `quic://…`) and TOKEN from the environment; with BRIDGE, the `provost`
binary, it starts `provost bridge` and speaks to that over stdio (TRANSPORT says over what, where URL does not). It
expects the tools of the everything-server (see
tests/src/everything). Prints `ok NAME` for each check; the first failure ends it with a non-zero
exit status. MODES limits it to some of `modern legacy auto`, for servers that have one era only.
"""

import os
import sys

import anyio
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp_types import ElicitResult
from quic_transport import quic
from ws_transport import websocket

URL = os.environ["URL"]
TOKEN = os.environ.get("TOKEN", "")
BRIDGE = os.environ.get("BRIDGE")
TRANSPORT = os.environ.get("TRANSPORT")
MODES = os.environ.get("MODES", "modern legacy auto").split()
# Whole run. A busy machine is slow, a hung one is a failure.
LIMIT_S = 120
# How long the upstream may take to notice a cancelled call.
CANCEL_LIMIT_S = 15
FORM = {"username": "ada", "email": "ada@example.com"}


def first_text(result):
    return next(block.text for block in result.content if block.type == "text")


async def answer_form(_context, params):
    asked = set(params.requested_schema["properties"])
    assert asked == set(FORM), f"asked for {asked}"
    return ElicitResult(action="accept", content=FORM)


async def lists(client):
    names = {tool.name for tool in (await client.list_tools()).tools}
    missing = {"test_simple_text", "test_tool_with_progress", "test_elicitation", "slow"} - names
    assert not missing, f"tools/list lacks {missing}"
    assert (await client.list_prompts()).prompts, "no prompts"
    assert (await client.list_resources()).resources, "no resources"


async def calls(client):
    result = await client.call_tool("test_simple_text", {})
    assert not result.is_error, result
    assert first_text(result) == "This is a simple text response for testing.", result


async def tool_error(client):
    result = await client.call_tool("test_error_handling", {})
    assert result.is_error, "a failing tool must say isError"


async def progress(client):
    seen = []

    async def report(done, total, _message):
        seen.append((done, total))

    result = await client.call_tool("test_tool_with_progress", {}, progress_callback=report)
    assert not result.is_error, result
    assert seen == [(0, 100), (50, 100), (100, 100)], f"progress was {seen}"


async def cancels(client):
    async def cancelled():
        return int(first_text(await client.call_tool("count_cancelled", {})))

    before = await cancelled()
    with anyio.move_on_after(1) as scope:
        await client.call_tool("slow", {"ms": 60_000})
    assert scope.cancelled_caught, "the slow call ended before it was cancelled"
    with anyio.fail_after(CANCEL_LIMIT_S):
        while await cancelled() <= before:
            await anyio.sleep(0.1)


async def elicits(client):
    result = await client.call_tool("test_elicitation", {"message": "Who are you?"})
    text = first_text(result)
    assert "accept" in text and FORM["email"] in text, text


CHECKS = [lists, calls, tool_error, progress, cancels, elicits]


async def run(mode):
    """Runs every check over one connection in `mode`: a version, `legacy` or `auto`."""
    headers = {"Authorization": f"Bearer {TOKEN}"} if TOKEN else {}
    async with create_mcp_http_client(headers=headers) as http:
        if BRIDGE:
            # What a desktop client does with its configuration.
            env = {"PROVOST_URL": URL, "PROVOST_TOKEN": TOKEN, "PROVOST_CA": os.environ["CA"]}
            args = ["bridge", *(["--transport", TRANSPORT] if TRANSPORT else [])]
            transport = stdio_client(StdioServerParameters(command=BRIDGE, args=args, env=env))
        elif URL.startswith("ws"):
            transport = websocket(URL, headers)
        elif URL.startswith("quic"):
            transport = quic(URL, os.environ["CA"], TOKEN)
        else:
            transport = streamable_http_client(URL, http_client=http)
        async with Client(transport, mode=mode, elicitation_callback=answer_form) as client:
            for check in CHECKS:
                try:
                    await check(client)
                except BaseException:
                    print(f"FAILED {check.__name__} ({client.protocol_version})", flush=True)
                    raise
                print(f"ok {check.__name__} ({client.protocol_version})", flush=True)


async def main():
    with anyio.fail_after(LIMIT_S):
        for mode in MODES:
            await run("2026-07-28" if mode == "modern" else mode)


if __name__ == "__main__":
    sys.exit(anyio.run(main))
