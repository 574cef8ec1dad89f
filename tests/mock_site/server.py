"""The mock site's server, in a process of its own: python server.py FOLDER LATENCY

It prints its port, and writes a line of JSON about each request to FOLDER/requests.jsonl: host, path, when it came,
how many requests to that host were being answered then, what was asked, the status, and how many bytes of body were
sent. FOLDER/control.json, {"host/path": "new text" or null}, changes pages or deletes them while it runs.
"""

import email.utils
import hashlib
import json
import socket
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import site_pages as site

MODIFIED = "Sat, 01 Aug 2026 10:00:00 GMT"
LONG = ("endless", "trickle")  # the client gives up, and the server does not see it at once


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    lock = threading.Lock()
    seen, active = Counter(), Counter()

    def do_GET(self):
        came = time.time()
        host = self.headers.get("Host", "").partition(":")[0]
        reply = self.server.site.get(host, {}).get(self.path) or site.Reply(b"nothing here", 404)
        reply = self.changed(host, reply)
        with self.lock:
            self.seen[host, self.path] += 1
            if reply.first and self.seen[host, self.path] == 1:
                reply = reply.first
            self.active[host] += reply.trick not in LONG
            active = self.active[host]
        entry = {
            "host": host, "path": self.path, "came": came, "active": active, "status": reply.status, "bytes": 0,
            "headers": {name.lower(): value for name, value in self.headers.items()},
        }  # fmt: skip
        try:
            self.answer(reply, entry)
        except OSError:
            self.close_connection = True
        finally:
            with self.lock:
                self.active[host] -= reply.trick not in LONG

    def changed(self, host, reply):
        control = self.server.folder / "control.json"
        orders = json.loads(control.read_text()) if control.exists() else {}
        key = host + self.path
        if key not in orders:
            return reply
        return site.Reply(b"deleted", 404) if orders[key] is None else site.page(orders[key])

    def answer(self, reply, entry):
        headers = dict(reply.headers)
        if headers.get("Retry-After") == "in 2 seconds":
            headers["Retry-After"] = email.utils.formatdate(time.time() + 2, usegmt=True)
        tag = '"' + hashlib.sha256(reply.body).hexdigest()[:16] + '"'
        body = reply.body
        if reply.status == 200 and not reply.trick and len(self.path) % 3:  # not every server offers it
            headers |= {"ETag": tag} if len(self.path) % 3 == 1 else {"Last-Modified": MODIFIED}
            asked = entry["headers"]
            if asked.get("if-none-match") == tag or (
                "ETag" not in headers and asked.get("if-modified-since") == MODIFIED and not self.path_changed()
            ):
                reply, body = site.Reply(status=304), b""
        entry["status"], entry["bytes"] = reply.status, len(body)
        self.server.log(entry)  # before the answer: then it is there when the client goes on
        time.sleep(self.server.latency)
        if reply.trick == "drop":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        self.send_response(reply.status)
        for name, value in headers.items():
            self.send_header(name, value)
        if reply.trick in ("close", *LONG):
            self.send_header("Connection", "close")
            self.close_connection = True
        elif reply.trick == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(body) * (10 if reply.trick == "partial" else 1)))
        self.end_headers()
        if reply.trick == "endless":
            while True:
                self.wfile.write(b"<p>and so on</p>" * 1000)
        if reply.trick == "trickle":
            while True:
                self.wfile.write(b".")
                time.sleep(0.1)
        if reply.trick == "chunked":
            for start in range(0, len(body), 50):
                piece = body[start : start + 50]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
            return
        if reply.status != 304:
            self.wfile.write(body)
        self.close_connection = self.close_connection or reply.trick == "partial"

    def path_changed(self):
        control = self.server.folder / "control.json"
        host = self.headers.get("Host", "").partition(":")[0]
        return control.exists() and host + self.path in json.loads(control.read_text())

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, folder, latency):
        self.latency = latency
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.site = folder, site.site(self.server_address[1])
        self.requests, self.writing = open(folder / "requests.jsonl", "a", buffering=1), threading.Lock()

    def log(self, entry):
        with self.writing:
            self.requests.write(json.dumps(entry) + "\n")

    def handle_error(self, *_):
        pass


if __name__ == "__main__":
    server = Server(Path(sys.argv[1]), float(sys.argv[2]))
    print(server.server_address[1], flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), server.shutdown()), daemon=True).start()
    server.serve_forever()
