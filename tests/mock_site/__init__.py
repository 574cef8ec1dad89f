"""A website as hostile as the real ones, on loopback, in a process of its own; it remembers every request.

`site_pages.py` says what there is, `server.py` serves it, and `MockSite` is what tests hold in their hands.
"""

import json
import subprocess
import sys
from pathlib import Path

from crystalline.settings import Crawl
from mock_site import site_pages as site

DELAY = 0.01  # seconds between two requests


def quick(**more):
    """Settings of [crawl] with which the mock site does not take long."""
    usual = {
        "delay": DELAY, "timeout": 2.5, "retries": 1, "backoff": 0.05, "max_bytes": 1_000_000,
        "max_queries": site.QUERIES, "depth": site.DEPTH,
    }  # fmt: skip
    return Crawl(**{**usual, **more})


class MockSite:
    """A running server. Use it in a `with` block.

    folder: for its list of requests. latency: seconds before it answers.
    """

    def __init__(self, folder, latency=0.0):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "requests.jsonl").touch()
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "server.py"), str(folder), str(latency)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.port = int(self.process.stdout.readline())

    def url(self, host, path="/"):
        return f"http://{host}:{self.port}{path}"

    def requests(self, *hosts, since=0):
        """The requests to these hosts (all without), in the order in which they came; only from number `since` on."""
        lines = (self.folder / "requests.jsonl").read_text().splitlines()[since:]
        found = [json.loads(line) for line in lines]
        return [request for request in found if not hosts or request["host"] in hosts]

    def count(self):
        return len(self.requests())

    def change(self, **pages):
        """From now on serve other pages: {"host/path": new text, or None for a page that was deleted}."""
        file = self.folder / "control.json"
        file.with_suffix(".new").write_text(json.dumps(pages["pages"]))
        file.with_suffix(".new").replace(file)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
