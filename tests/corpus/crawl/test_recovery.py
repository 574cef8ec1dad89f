"""Killed, stopped, resumed, shared, and crawled again: nothing is lost, nothing comes twice."""

import http.server
import json
import os
import random
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from commands import wait_for
from crystalline.corpus.crawl import engine, orders, store
from crystalline.corpus.crawl.frontier import Frontier
from crystalline.corpus.crawl.slots import Slot, in_use
from crystalline.corpus.crawl.worker import Order
from crystalline.errors import EXIT_BUSY, EXIT_SYSTEM, UserError
from mock_site import MockSite, quick
from mock_site import site_pages as site

ROBOTS = "/robots.txt"


class Worker:
    """The process that fetches, by itself, so that it can be killed."""

    def __init__(self, folder, starts, join=False, program=("-m", "crystalline.corpus.crawl.worker"), **more):
        settings = quick(**more).model_dump(exclude_defaults=True)
        self.process = subprocess.Popen([sys.executable, *program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        order = asdict(Order(str(folder), starts, settings, join=join))
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        self.process.stdin.flush()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def wait(self):
        return json.loads(self.process.stdout.read())  # its standard input stays open: else it would end at once

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
        self.process.stdin.close()
        self.process.stdout.close()


def kill_and_finish(mock, folder, host, kills, seed, most_seconds):
    """Crawl with `kills` kills at random moments; then to the end."""
    draw = random.Random(seed)
    for _ in range(kills):
        before = mock.count()
        with Worker(folder, [mock.url(host)]) as worker:
            wait_for(lambda before=before: mock.count() > before or worker.process.poll() is not None)
            time.sleep(draw.uniform(0, most_seconds))
    return engine.crawl(folder, [mock.url(host)], quick())


def check_nothing_lost_or_twice(mock, folder, host, kills):
    pages = list(store.pages(folder))
    assert {page.url for page in pages} == site.stored(mock.port, host)
    assert len(pages) == len({page.url for page in pages})
    frontier = Frontier(folder)
    bodies = frontier.db.execute("SELECT count(*) FROM bodies").fetchone()[0]
    assert bodies == frontier.db.execute("SELECT count(DISTINCT hash) FROM urls WHERE hash IS NOT NULL").fetchone()[0]
    # Each page came into being once, however often it was asked for.
    assert (
        frontier.db.execute("SELECT max(n) FROM (SELECT count(*) AS n FROM history GROUP BY url)").fetchone()[0] == 1
    )
    assert frontier.db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    counted = frontier.db.execute("SELECT host, kind, state, reason, stored, n FROM counts WHERE n > 0").fetchall()
    real = frontier.db.execute(
        "SELECT host, kind, state, reason, hash IS NOT NULL, count(*) FROM urls GROUP BY 1, 2, 3, 4, 5"
    ).fetchall()
    assert sorted(map(tuple, counted)) == sorted(map(tuple, real))
    return kills


@pytest.fixture
def lazy(tmp_path):
    """A mock site that takes its time, so that a kill mostly hits a request that is under way."""
    with MockSite(tmp_path / "lazy", latency=0.03) as found:
        yield found


def test_killed_three_times(lazy, tmp_path):
    """The quick one of proof 22: one request is in flight, so each kill costs at most one page twice."""
    mock, folder = lazy, tmp_path / "crawl"
    facts = kill_and_finish(mock, folder, site.SMALL, 3, seed=1, most_seconds=0.5)
    assert facts["ended"] == "finished"
    check_nothing_lost_or_twice(mock, folder, site.SMALL, 3)
    asked = Counter(request["path"] for request in mock.requests())
    assert sum(n - 1 for n in asked.values()) <= 3


@pytest.mark.slow
def test_killed_twenty_times(lazy, tmp_path):
    mock, folder = lazy, tmp_path / "crawl"
    kill_and_finish(mock, folder, site.MAIN, 20, seed=2, most_seconds=1.2)
    check_nothing_lost_or_twice(mock, folder, site.MAIN, 20)
    good = Counter(
        request["path"]
        for request in mock.requests()
        if site.site(mock.port)[site.MAIN].get(request["path"], site.Reply()).stored
    )
    first_fails = 4  # pages whose first answer is a failure
    assert sum(n - 1 for n in good.values()) <= 20 + first_fails
    requests = mock.requests()
    assert min(b["came"] - a["came"] for a, b in pairwise(requests)) >= 0.01


def test_the_delay_holds_over_a_kill(mock, tmp_path):
    folder = tmp_path / "crawl"
    for _ in range(2):
        before = mock.count()
        with Worker(folder, [mock.url(site.SMALL)], delay=2.5) as worker:
            wait_for(lambda before=before: mock.count() > before or worker.process.poll() is not None)
    first, second = mock.requests()
    assert second["came"] - first["came"] >= 2.5


def test_ctrl_c_saves_and_the_same_command_goes_on(mock, start, tmp_path):
    words = ("crawl", mock.url(site.SMALL), "--into", tmp_path / "docs", "--delay", "0.02", "--set=crawl.retries=1")
    with start(*words) as command:
        wait_for(lambda: mock.count() > 10)
        command.kill(signal.SIGINT)
        result = command.wait()
    assert result.code == 130
    assert "the same command goes on" in result.err
    assert not in_use(tmp_path / "docs")
    assert Frontier(tmp_path / "docs").db.execute("SELECT 1 FROM urls WHERE state = 'fetching'").fetchone() is None
    with start(*words, "--json") as command:
        facts = command.wait().json()
    assert facts["state"] == "finished"
    check_nothing_lost_or_twice(mock, tmp_path / "docs", site.SMALL, 0)


def test_when_the_command_is_killed_its_worker_ends_too(mock, start, tmp_path):
    folder = tmp_path / "docs"
    with start("crawl", mock.url(site.SMALL), "--into", folder, "--delay", "0.2") as command:
        wait_for(lambda: mock.count() > 3)
        command.kill(signal.SIGKILL)
        command.process.join()
    wait_for(lambda: not in_use(folder), seconds=10)
    with start("crawl", "--into", folder, "--delay", "0.01", "-q") as command:  # with the URLs that it knows
        assert command.wait().code == 0
    check_nothing_lost_or_twice(mock, folder, site.SMALL, 1)


def test_a_second_command_is_told_of_the_first(mock, tmp_path, monkeypatch):
    folder = tmp_path / "crawl"
    held = Slot.take(folder, [1])
    with pytest.raises(UserError, match="another process crawls") as caught:
        Slot.take(folder, [1])
    assert caught.value.exit_code == EXIT_BUSY
    held.release()
    Slot.take(folder, [1]).release()


def test_two_workers_on_one_frontier(mock, tmp_path):
    """Two processes share the work: every page once, each host still in one hand at a time."""
    folder = tmp_path / "crawl"
    hosts = [site.SMALL, "empty.localhost", "none.localhost", "slow.localhost"]
    with Worker(folder, [mock.url(host) for host in hosts], delay=0.05) as first:
        wait_for(lambda: mock.count() > 0)
        with Worker(folder, [], join=True) as second:
            wait_for(lambda: len(in_use(folder)) == 2)
            assert second.wait()["ended"] == "finished"
        assert first.wait()["ended"] == "finished"
    assert {page.url for page in store.pages(folder)} == site.stored(mock.port, *hosts)
    asked = Counter((request["host"], request["path"]) for request in mock.requests())
    assert set(asked.values()) == {1}
    for host in hosts:
        times = [request["came"] for request in mock.requests(host)]
        assert min(b - a for a, b in pairwise(times)) >= 0.05
        assert max(request["active"] for request in mock.requests(host)) == 1


def test_the_other_worker_takes_over_from_a_dead_one(mock, tmp_path):
    folder = tmp_path / "crawl"
    with Worker(folder, [mock.url(site.SMALL)], delay=0.05) as first:
        wait_for(lambda: mock.count() > 0)
        with Worker(folder, [], join=True) as second:
            wait_for(lambda: len(in_use(folder)) == 2)
            first.kill()
            assert second.wait()["ended"] == "finished"
    check_nothing_lost_or_twice(mock, folder, site.SMALL, 1)


def test_again_fetches_only_what_changed(mock, crawl):
    """Proof 23: no body where the server offers 304, one new document for one changed page, tombstones."""
    crawl(site.SMALL)
    before, known = mock.count(), store.fingerprint(crawl.folder)
    facts = crawl(site.SMALL, again=True)
    asked = mock.requests()[before:]
    pages = [request for request in asked if request["path"] != ROBOTS]
    assert len({request["path"] for request in pages}) == len(pages) == facts["pages"]
    offered = [request for request in pages if len(request["path"]) % 3]  # of the others the server says nothing
    assert offered
    assert all(request["status"] == 304 and request["bytes"] == 0 for request in offered)
    assert store.fingerprint(crawl.folder) == known

    before, old = mock.count(), {page.url: page.data for page in store.pages(crawl.folder)}
    mock.change(pages={f"{site.SMALL}/page/7": "Something new", f"{site.SMALL}/page/39": None})
    facts = crawl(site.SMALL, again=True)
    new = {page.url: page.data for page in store.pages(crawl.folder)}
    changed = {url for url in old if url in new and new[url] != old[url]}
    assert changed == {mock.url(site.SMALL, "/page/7")}
    assert set(old) - set(new) == {mock.url(site.SMALL, "/page/39")}
    assert facts["gone"] == 1
    assert store.fingerprint(crawl.folder) != known
    frontier = Frontier(crawl.folder)
    row = frontier.db.execute("SELECT * FROM urls WHERE url LIKE '%/page/39'").fetchone()
    assert (row["state"], row["hash"], row["status"]) == ("gone", None, 404)
    history = frontier.db.execute(
        "SELECT status, hash FROM history WHERE url = ? ORDER BY time", (row["id"],)
    ).fetchall()
    assert [(entry["status"], entry["hash"] is None) for entry in history] == [(200, False), (404, True)]


def test_again_goes_on_where_it_was_killed(mock, crawl, tmp_path):
    crawl(site.SMALL)
    before = mock.count()
    with Worker(crawl.folder, [mock.url(site.SMALL)]) as nothing_to_do:
        assert nothing_to_do.wait()["ended"] == "finished"
    assert mock.count() == before
    frontier = Frontier(crawl.folder)
    frontier.begin([], quick(), "crystalline", again=True, retry=False)
    waiting = frontier.db.execute("SELECT count(*) FROM urls WHERE state = 'waiting'").fetchone()[0]
    frontier.db.execute("UPDATE urls SET state = 'done', checked = ? WHERE url LIKE '%/page/1%'", (time.time(),))
    frontier.close()
    crawl(site.SMALL, again=True)  # the same command: the round that is under way, not a new one
    asked = {request["path"] for request in mock.requests()[before:]}
    assert not any(path.startswith("/page/1") for path in asked)
    assert 0 < len(asked) < waiting


def test_old_pages_are_looked_at_again(mock, crawl):
    crawl(site.SMALL)
    before = mock.count()
    frontier = Frontier(crawl.folder)
    frontier.db.execute("UPDATE urls SET checked = checked - 3 * 86400 WHERE url LIKE '%/page/3'")
    frontier.close()
    crawl(site.SMALL, again_after=2.0)
    assert [request["path"] for request in mock.requests()[before:]] == [ROBOTS, "/page/3"]


def test_more_depth_and_more_pages_go_on(mock, crawl):
    assert crawl(site.SMALL, depth=1)["pages"] == len({"/", "/page/1", "/page/2", "/page/0", "/same/a", "/same/b"})
    facts = crawl(site.SMALL, max_pages=12)
    assert (facts["pages"], facts["ended"]) == (12, "full")
    assert crawl(site.SMALL, max_pages=12)["pages"] == 12
    assert crawl(site.SMALL)["ended"] == "finished"
    assert {page.url for page in store.pages(crawl.folder)} == site.stored(mock.port, site.SMALL)
    asked = Counter(request["path"] for request in mock.requests())
    del asked[ROBOTS]
    assert set(asked.values()) == {1}


def test_failures_are_tried_again_when_asked(mock, crawl):
    mock.change(pages={f"{site.SMALL}/page/5": None})
    crawl("broken.localhost", site.SMALL)
    before = mock.count()
    crawl("broken.localhost", site.SMALL)
    assert mock.count() == before
    crawl("broken.localhost", site.SMALL, retry=True)
    assert {(r["host"], r["path"]) for r in mock.requests()[before:]} == {("broken.localhost", ROBOTS)}


def test_a_long_wait_is_put_off(mock, crawl):
    """A host that wants a longer wait than we have patience for: the crawl ends, unfinished, and goes on later."""
    facts = crawl("dated.localhost", patience=0.1, backoff=0.01)
    assert facts["ended"] == "put off"
    assert 0 < facts["wait"] <= 2
    assert facts["state"] == "interrupted"
    time.sleep(2)
    assert crawl("dated.localhost", patience=10)["ended"] == "finished"


REBINDING = """
import socket
real, asked = socket.getaddrinfo, []
def lookup(host, *more, **options):
    if host in ("evil.example", b"evil.example"):
        asked.append(host)
        host = "93.184.216.34" if len(asked) == 1 else "127.0.0.1"
    return real(host, *more, **options)
socket.getaddrinfo = lookup
from crystalline.corpus.crawl.worker import main
main()
"""


def test_a_name_that_turns_private_is_not_connected_to(mock, tmp_path):
    """DNS rebinding, through the real resolver: public when the start URL is judged, loopback when it is fetched."""
    folder = tmp_path / "crawl"
    with Worker(folder, [mock.url("evil.example")], program=["-c", REBINDING], retries=0) as worker:
        assert worker.wait()["ended"] == "finished"
    assert mock.count() == 0
    frontier = Frontier(folder)
    assert [(row["state"], row["reason"]) for row in orders.rows(frontier)] == [("failed", "private address")]


def test_certificates_are_checked(tmp_path):
    certificate, port = tmp_path / "certificate.pem", 0
    certificate.write_bytes(_self_signed())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Plain)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    port = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        start = [f"https://secure.localhost:{port}/"]
        facts = engine.crawl(tmp_path / "strict", start, quick())
        assert (facts["pages"], facts["failed"]) == (0, {"certificate": 1})
        facts = engine.crawl(tmp_path / "trusting", start, quick(verify_certificates=False))
        assert facts["pages"] == 1
    finally:
        server.shutdown()
        server.server_close()


class _Plain(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(404 if self.path == ROBOTS else 200)
        self.send_header("Content-Type", "text/plain")
        self.end_headers()
        self.wfile.write(b"text")

    def log_message(self, *_):
        pass


def _self_signed():
    """A key and a certificate that nobody vouches for, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "secure.localhost")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName("secure.localhost")]), critical=False)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


SMALL_DISK = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
from crystalline.corpus.crawl.worker import main
main()
"""


def test_a_full_disk_loses_nothing(mock, tmp_path):
    folder = tmp_path / "crawl"
    with Worker(folder, [mock.url(site.SMALL)], program=["-c", SMALL_DISK]) as worker:
        what, _, fix, code = worker.wait()["error"]
    assert what == f"could not write the crawl in {folder}"
    assert "it goes on" in fix
    assert code == EXIT_SYSTEM
    assert 0 < len(list(store.pages(folder))) < site.SMALL_PAGES
    assert engine.crawl(folder, [mock.url(site.SMALL)], quick())["ended"] == "finished"
    check_nothing_lost_or_twice(mock, folder, site.SMALL, 0)


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "crawl").mkdir()
    (tmp_path / "crawl" / "crawl.sqlite").write_bytes(os.urandom(5000))
    with pytest.raises(UserError, match=r"crawl\.sqlite is damaged"):
        list(store.pages(tmp_path / "crawl"))
    with pytest.raises(UserError, match="there is no crawl"):
        list(store.pages(tmp_path / "nothing"))
