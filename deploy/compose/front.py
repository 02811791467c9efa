"""One address in front of the data-plane nodes of docker-compose.yml: each connection goes to a node that takes it, and
waits for one while there is none: all of them may be made anew at once.

It stands for the balancer that an organisation has, which would take TLS off too. Any node serves any client, so it knows
nothing of MCP: it asks the engine's name server who is there, and tries them in turn.
"""

import asyncio
import random
import signal
import socket
import sys
import time

LISTEN = ("0.0.0.0", 8420)
NODES = ("data-plane", 8420)
# A node that does not take a connection within so long is not the one, seconds.
CONNECT_LIMIT = 2
# So long a connection waits for a node, and between two tries, seconds.
NODE_LIMIT = 25
NODE_PAUSE = 0.2
CHUNK = 64 << 10


async def connect():
    """A connection to some node, or None."""
    end = time.monotonic() + NODE_LIMIT
    while (node := await try_each()) is None and time.monotonic() < end:
        await asyncio.sleep(NODE_PAUSE)
    return node


async def try_each():
    """A connection to the first node that takes one, or None."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(*NODES, type=socket.SOCK_STREAM)
    except socket.gaierror:
        return None
    addresses = sorted({entry[4] for entry in found})
    for address in random.sample(addresses, len(addresses)):
        try:
            return await asyncio.wait_for(asyncio.open_connection(*address[:2]), CONNECT_LIMIT)
        except (OSError, asyncio.TimeoutError):
            continue
    return None


async def pump(reader, writer):
    """Bytes as they come, and the end when it comes."""
    try:
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.transport.abort()


async def serve(reader, writer):
    node = await connect()
    if node is None:
        print("front: no data-plane node takes a connection", file=sys.stderr, flush=True)
        return writer.transport.abort()
    try:
        await asyncio.gather(pump(reader, node[1]), pump(node[0], writer))
    finally:
        node[1].close()
        writer.close()


async def main():
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await asyncio.start_server(serve, *LISTEN)
    print("front: port 8420 leads to the data-plane nodes", flush=True)
    await stop.wait()


if __name__ == "__main__":
    asyncio.run(main())
