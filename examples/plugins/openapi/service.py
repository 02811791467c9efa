"""A small service of tickets, with nothing but Python's standard library.

It wants the key of the variable TICKETS_KEY in the header `x-api-key`, and says what it cannot do as RFC 9457 has it.
"""

import argparse
import json
import os
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from urllib.parse import parse_qs, urlsplit

PAGE = 5
KEY = os.environ.get("TICKETS_KEY", "")
LOCK = Lock()
TICKETS = {
    n: {"id": n, "title": title, "priority": "normal", "state": "open", "comments": []}
    for n, title in enumerate(
        ["Mice in the store", "Door 3 squeaks", "No coffee", "The map is old", "Lamp is dark", "Lift is slow", "Keys"], 1
    )
}


class Problem(Exception):
    def __init__(self, status, title, detail):
        super().__init__(title)
        self.status, self.title, self.detail = status, title, detail


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(self.get)

    def do_POST(self):
        self.answer(self.post)

    def do_PATCH(self):
        self.answer(self.patch)

    def do_DELETE(self):
        self.answer(self.delete)

    def answer(self, act):
        length = int(self.headers.get("content-length") or 0)
        self.sent = self.rfile.read(length)
        try:
            if not KEY or self.headers.get("x-api-key") != KEY:
                raise Problem(401, "Who are you?", "The header x-api-key is not the key.")
            url = urlsplit(self.path)
            with LOCK:
                status, body, headers = act(url.path, parse_qs(url.query))
            kind = "application/json"
        except Problem as problem:
            status, headers, kind = problem.status, {}, "application/problem+json"
            body = {"title": problem.title, "detail": problem.detail, "status": problem.status}
        text = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"content-type": kind, "content-length": str(len(text)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)

    def get(self, path, query):
        if path == "/tickets":
            wanted = query.get("state", [])
            found = [t for t in TICKETS.values() if not wanted or t["state"] in wanted]
            page = int(query.get("page", ["1"])[0])
            rest = found[page * PAGE:]
            states = "".join(f"&state={state}" for state in wanted)
            headers = {"link": f'</tickets?page={page + 1}{states}>; rel="next"'} if rest else {}
            return 200, found[(page - 1) * PAGE:page * PAGE], headers
        return 200, self.ticket(path, "")[0], {}

    def post(self, path, _):
        given = json.loads(self.sent)
        if path == "/tickets":
            number = max(TICKETS, default=0) + 1
            TICKETS[number] = {"id": number, "state": "open", "priority": "normal", "comments": [], **given}
            return 201, TICKETS[number], {}
        ticket, _ = self.ticket(path, "/comments")
        ticket["comments"].append({"text": given["text"]})
        return 201, ticket, {}

    def patch(self, path, _):
        ticket, _ = self.ticket(path, "")
        ticket.update(json.loads(self.sent))
        return 200, ticket, {}

    def delete(self, path, _):
        _, number = self.ticket(path, "")
        del TICKETS[number]
        return 204, None, {}

    def ticket(self, path, rest):
        match = re.fullmatch(rf"/tickets/(\d+){rest}", path)
        number = int(match[1]) if match else 0
        if number not in TICKETS:
            raise Problem(404, "No such ticket", f"There is nothing at {path}.")
        return TICKETS[number], number

    def log_message(self, *_):
        pass


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8190)
    server = ThreadingHTTPServer(("127.0.0.1", parser.parse_args().port), Handler)
    print(f"tickets at http://127.0.0.1:{server.server_address[1]}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
