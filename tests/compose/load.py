"""Calls that go on while something happens to the cluster, and how they went."""

import http.client
import json
import threading
import time

# Between two calls, seconds.
PAUSE = 0.05
# A call that takes longer has failed, seconds.
CALL_LIMIT = 30


class Load:
    """Calls of `echo.echo` at HOST:PORT, one after the other, each on a connection of its own.

    `retries`: how often a call that no node took (no connection, or an end before the first byte of an answer) is made
    again, as Provost's own clients do.
    """

    def __init__(self, host, port, token, retries=0):
        self.place, self.retries = (host, port), retries
        # Nodes know themselves by the names of loopback.
        self.headers = {"host": "localhost", "authorization": f"Bearer {token}", "content-type": "application/json",
                        "accept": "application/json, text/event-stream"}
        self.count, self.failures, self.slowest, self.again = 0, [], 0.0, 0
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.go_on, daemon=True)

    def __enter__(self):
        self.begin()
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join(CALL_LIMIT * 2)

    def post(self, message):
        connection = http.client.HTTPConnection(*self.place, timeout=CALL_LIMIT)
        try:
            connection.request("POST", "/mcp", json.dumps(message), self.headers)
            answer = connection.getresponse()
            return answer.status, answer.getheader("mcp-session-id"), answer.read().decode()
        finally:
            connection.close()

    def begin(self):
        about = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "load", "version": "1"}}
        _, session, _ = self.post({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": about})
        if session:
            self.headers["mcp-session-id"] = session
        self.headers["mcp-protocol-version"] = "2025-06-18"
        self.post({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def go_on(self):
        while not self.stop.is_set():
            self.count += 1
            began = time.monotonic()
            self.one(f"call {self.count}")
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.stop.wait(PAUSE)

    def one(self, text):
        params = {"name": "echo.echo", "arguments": {"text": text}}
        for attempt in range(self.retries + 1):
            try:
                status, _, body = self.post({"jsonrpc": "2.0", "id": self.count, "method": "tools/call", "params": params})
                if status == 200 and text in body and '"error"' not in body:
                    return
                said = f"{status} {body[:300]}"
                break
            except (OSError, http.client.HTTPException) as cause:
                said = repr(cause)
                self.again += attempt < self.retries
        self.failures.append(f"{text}: {said}")

    def summary(self):
        again = f", {self.again} made again" if self.again else ""
        return f"{self.count} calls, {len(self.failures)} failed{again}, slowest {self.slowest:.1f} s"
