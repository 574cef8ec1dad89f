"""The whole mock site, crawled once: exactly the right pages, nothing that is forbidden, never too fast."""

from collections import Counter
from itertools import pairwise

import pytest

from crystalline.corpus.crawl import engine, orders, store
from crystalline.corpus.crawl.frontier import Frontier
from mock_site import DELAY, MockSite, quick
from mock_site import site_pages as site

OTHERS = [host for host in site.site(1) if host not in (site.MAIN, site.SMALL)]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """(mock site, folder of the crawl, facts) of a crawl of the main host."""
    with MockSite(tmp_path_factory.mktemp("mock")) as mock:
        folder = tmp_path_factory.mktemp("main") / "crawl"
        facts = engine.crawl(folder, [mock.url(site.MAIN)], quick())
        yield mock, folder, facts


def test_it_stores_exactly_the_expected_pages(done):
    mock, folder, facts = done
    assert {page.url for page in store.pages(folder)} == site.stored(mock.port, site.MAIN)
    assert len(site.stored(mock.port, site.MAIN)) > 180
    assert facts["ended"] == facts["state"] == "finished"


def test_nothing_forbidden_is_asked_for(done):
    mock, _, _ = done
    asked = {(request["host"], request["path"]) for request in mock.requests()}
    assert {host for host, _ in asked} == {site.MAIN}  # not 127.0.0.1, not [::1], no other host
    forbidden = {path for _, path in asked if path.startswith("/private/") and path != "/private/allowed"}
    assert forbidden == set()
    for path in ("/only-there", "/rel-nofollow", "/image.png", "/login", "/secret", "/trap/x/x/x/", "/day/9"):
        assert (site.MAIN, path) not in asked
    assert f"/calendar?month={site.QUERIES + 1}" not in {path for _, path in asked}


def test_the_delay_holds_and_one_request_is_in_flight(done):
    mock, _, _ = done
    requests = mock.requests()
    assert min(b["came"] - a["came"] for a, b in pairwise(requests)) >= DELAY
    assert max(request["active"] for request in requests) == 1


def test_every_page_is_asked_for_once_and_failures_once_more(done):
    mock, _, _ = done
    asked = Counter(request["path"] for request in mock.requests())
    once_more = {"/flaky", "/busy", "/dropped-once", "/partial-once"}  # these came then
    in_vain = {"/dropped", "/partial", "/trickle", "/error", "/wrong-gzip"}  # crawl.retries is 1
    assert {path for path, n in asked.items() if n > 1} == once_more | in_vain
    assert max(asked.values()) == 2


def test_a_host_that_says_later_is_left_alone_until_then(done):
    mock, _, _ = done
    times = [request["came"] for request in mock.requests()]
    first, second = (request["came"] for request in mock.requests() if request["path"] == "/busy")
    after = min(time for time in times if time > first)
    assert after - first >= 1.0  # Retry-After: 1, for all pages of the host
    assert second > first


def test_we_say_who_we_are(done):
    mock, _, _ = done
    from crystalline import __version__

    assert {request["headers"]["user-agent"] for request in mock.requests()} == {f"crystalline/{__version__}"}
    assert not any("cookie" in request["headers"] or "referer" in request["headers"] for request in mock.requests())


def test_every_url_has_its_reason(done):
    mock, folder, facts = done
    frontier = Frontier(folder)
    rows = {row["url"].removeprefix(mock.url(site.MAIN, "")): row for row in orders.rows(frontier)}
    found = {path: (row["state"], row["reason"]) for path, row in rows.items()}
    expected = {
        "/endless": ("skipped", "too large"), "/bomb": ("skipped", "too large"), "/binary": ("skipped", "binary"),
        "/noise": ("skipped", "binary"), "/picture": ("skipped", "other type"),
        "/image.png": ("skipped", "other type"), "/trickle": ("failed", "no answer in time"),
        "/dropped": ("failed", "connection lost"), "/partial": ("failed", "answer cut off"),
        "/error": ("failed", "HTTP 500"), "/forbidden": ("failed", "HTTP 403"),
        "/self": ("failed", "redirect to itself"), "/broken-redirect": ("failed", "broken redirect"),
        "/wrong-gzip": ("failed", "broken answer"), "/empty": ("skipped", "empty"), "/missing": ("gone", ""),
        "/gone": ("gone", ""), "/loop/a": ("redirect", ""), "/loop/b": ("redirect", ""),
        "/chain/11": ("redirect", ""), "/chain/12": ("skipped", "many redirects"),
        "/noindex": ("skipped", "noindex"), "/header-noindex": ("skipped", "noindex"),
        "/only-there": ("skipped", "nofollow"), "/rel-nofollow": ("skipped", "nofollow"),
        "/private/page": ("skipped", "robots.txt"), "/trap/x/x/x/": ("skipped", "repeating path"),
        "/day/9": ("skipped", "too deep"), f"/calendar?month={site.QUERIES + 1}": ("skipped", "many queries"),
        f"http://127.0.0.1:{mock.port}/secret": ("skipped", "private address"),
        f"http://[::1]:{mock.port}/secret": ("skipped", "private address"),
        "http://169.254.169.254/latest/meta-data/": ("skipped", "private address"),
        "http://example.com/page": ("skipped", "other domain"),
    }  # fmt: skip
    assert {path: found[path] for path in expected} == expected
    assert facts["skipped"]["robots.txt"] == site.MANY_LINKS - 20 + 2
    states = [facts[name] for name in ("waiting", "fetching", "redirects", "gone")]
    maps, done_pages = (
        facts["sitemaps"],
        sum(row["state"] == "done" and row["kind"] == "page" for row in rows.values()),
    )
    skipped_maps = sum(row["state"] != "done" and row["kind"] == "map" for row in rows.values())
    other = sum(facts["skipped"].values()) + sum(facts["failed"].values())
    assert facts["found"] == sum(states) + other + done_pages + maps - skipped_maps == len(rows)


def test_encodings_that_are_not_what_is_said(done):
    mock, folder, _ = done
    pages = {page.url: page for page in store.pages(folder)}
    for path, encoding in (("header", "utf-8"), ("body", ""), ("none", "cp1252")):  # "": nothing that is said fits
        page = pages[mock.url(site.MAIN, f"/charset/{path}")]
        assert page.encoding == encoding
        assert site.GERMAN in page.data.decode(page.encoding or "cp1252")
    assert b"Came packed" in pages[mock.url(site.MAIN, "/gzip")].data


def test_pages_come_by_url_with_what_is_known_of_them(done):
    mock, folder, _ = done
    pages = list(store.pages(folder))
    assert [page.url for page in pages] == sorted(page.url for page in pages)
    same = next(page for page in pages if page.url.endswith("/dup/a"))
    assert same.metadata["also_at"] == [mock.url(site.MAIN, f"/dup/{name}") for name in "bcde"]
    assert same.metadata["main_text"] is True
    assert next(page for page in pages if page.url.endswith("/doc.pdf")).media_type == "application/pdf"
    assert len(store.fingerprint(folder)) == 64


def test_finished_is_finished(done):
    mock, folder, facts = done
    before = mock.count()
    again = engine.crawl(folder, [mock.url(site.MAIN)], quick())
    assert again["ended"] == "finished"
    assert again["pages"] == facts["pages"]
    assert mock.count() == before


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """The same of all the small hosts at once, whose robots.txt differ."""
    with MockSite(tmp_path_factory.mktemp("mock")) as mock:
        folder = tmp_path_factory.mktemp("others") / "crawl"
        starts = [mock.url(host) for host in OTHERS]
        facts = engine.crawl(folder, starts, quick(delay=0.05))
        yield mock, folder, facts


def test_robots_of_every_kind(others):
    """Empty, garbage, missing and moved ones allow what they allow; one that cannot be read forbids everything."""
    mock, folder, facts = others
    assert {page.url for page in store.pages(folder)} == site.stored(mock.port, *OTHERS)
    assert {r["path"] for r in mock.requests("broken.localhost")} == {"/robots.txt"}
    assert len(mock.requests("broken.localhost")) == 2  # crawl.retries is 1
    assert facts["failed"] == {"no robots.txt": 1}
    for host in ("recovers.localhost", "moved.localhost"):
        assert "/no/page" not in {request["path"] for request in mock.requests(host)}


def test_hosts_have_their_own_delays_and_are_asked_at_the_same_time(others):
    mock, _, _ = others
    for host in OTHERS:
        gaps = [b["came"] - a["came"] for a, b in pairwise(mock.requests(host))]
        assert min(gaps) >= (site.CRAWL_DELAY if host == "slow.localhost" else 0.05)
        assert max(request["active"] for request in mock.requests(host)) == 1
    hosts = [request["host"] for request in mock.requests()]
    assert any(len(set(hosts[n : n + 4])) == 4 for n in range(len(hosts)))


def test_a_date_to_come_back(others):
    mock, _, _ = others
    first, second = (request["came"] for request in mock.requests("dated.localhost") if request["path"] == "/one")
    assert second - first >= 1.0  # the date has whole seconds: between one and two from then


def test_names_that_are_not_ascii(others):
    mock, folder, _ = others
    assert mock.url("xn--bcher-kva.localhost", "/one") in {page.url for page in store.pages(folder)}
    assert engine.start_url(f"http://Bücher.localhost:{mock.port}") == mock.url("xn--bcher-kva.localhost")
