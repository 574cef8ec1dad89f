import gzip
from datetime import UTC, datetime

import pytest

from crystalline.corpus.crawl import scope
from crystalline.corpus.crawl.answers import Answer, meaning, seconds_of, wanted_by_header
from crystalline.corpus.crawl.outcomes import Claim, Failure, Gone, Map, Redirect, Rules, Skip, Stored, Unchanged
from crystalline.settings import Crawl

URL = "http://h/page"
HTML = {"content-type": ["text/html; charset=utf-8"]}


def means(status, headers=None, body=b"", kind="page", hops=0, etag="", stopped=False, **settings):
    claim = Claim(1, URL, URL, kind, 1, hops, 0, etag)
    return meaning(claim, Answer(status, headers or {}, body, stopped), Crawl(**settings), "crystalline")


def test_a_page():
    headers = {**HTML, "etag": ['"x"'], "last-modified": ["then"], "content-language": ["de"]}
    found = means(200, headers, b'<link rel=canonical href=/c><a href="/a">x</a>')
    assert isinstance(found, Stored)
    assert (found.media_type, found.encoding, found.etag, found.modified, found.language) == (
        "text/html", "utf-8", '"x"', "then", "de",
    )  # fmt: skip
    assert (found.canonical, found.follow) == ("http://h/c", ["http://h/a"])


@pytest.mark.parametrize(
    ("status", "headers", "found"),
    [
        (304, {}, Failure("HTTP 304", 304)),  # nobody asked
        (301, {"location": ["/a/../b#c"]}, Redirect("http://h/b", 301)),
        (308, {"location": ["//other/x"]}, Redirect("http://other/x", 308)),
        (302, {}, Failure("HTTP 302", 302)),
        (302, {"location": ["/page#x"]}, Failure("redirect to itself", 302)),
        (302, {"location": ["mailto:x@y"]}, Failure("broken redirect", 302)),
        (404, {}, Gone(404)),
        (410, {}, Gone(410)),
        (401, {}, Failure("HTTP 401", 401)),
        (451, {}, Failure("HTTP 451", 451)),
        (500, {"retry-after": ["9"]}, Failure("HTTP 500", 500, again=True)),
        (502, {}, Failure("HTTP 502", 502, again=True)),
        (503, {}, Failure("HTTP 503", 503, again=True, busy=True)),
        (429, {"retry-after": ["9"]}, Failure("HTTP 429", 429, again=True, busy=True, after=9.0)),
        (206, {}, Failure("HTTP 206", 206)),
        (200, HTML, Skip("empty")),
    ],
)
def test_other_answers(status, headers, found):
    assert means(status, headers) == found


def test_unchanged():
    assert means(304, etag='"x"') == Unchanged()


@pytest.mark.parametrize(
    ("headers", "body", "settings", "reason"),
    [
        (HTML, b"\x89PNG\r\n\x1a\n" + bytes(99), {}, "binary"),
        ({"content-type": ["image/png"]}, b"\x89PNG\r\n\x1a\n" + bytes(99), {}, scope.OTHER_TYPE),
        (HTML, b"<p>x", {"types": ["pdf"]}, scope.OTHER_TYPE),
        (HTML, b"<meta name=robots content=noindex>x", {}, "noindex"),
        ({**HTML, "x-robots-tag": ["none"]}, b"x", {}, "noindex"),
        ({"content-type": ["application/pdf"], "x-robots-tag": ["noindex"]}, b"%PDF-", {}, "noindex"),
        ({"content-type": ["application/rss+xml"]}, b"<rss>", {"sitemaps": False}, scope.OTHER_TYPE),
    ],
)
def test_what_is_not_kept(headers, body, settings, reason):
    found = means(200, headers, body, **settings)
    assert isinstance(found, Skip)
    assert found.reason == reason


def test_a_page_that_is_not_kept_leads_on():
    assert means(200, HTML, b"<a href=/a>", types=["pdf"]).follow == ["http://h/a"]
    assert means(200, {"content-type": ["image/png"]}, b"", stopped=True) == Skip(scope.OTHER_TYPE)


def test_maps():
    assert means(200, HTML, b"<urlset><loc>/a</loc></urlset>") == Map(["http://h/a"], [])
    zipped = gzip.compress(b"http://h/a")
    assert means(200, {"content-type": ["application/gzip"]}, zipped, kind="map") == Map(["http://h/a"], [])
    assert means(200, HTML, b"<p>not found", kind="map") == Skip("no sitemap")


def test_robots():
    assert means(200, {}, b"Disallow", kind="robots") == Rules("Disallow")
    for status in (401, 403, 404, 410, 304):
        assert means(status, HTML, b"<p>no", kind="robots") == Rules("", status)
    for status in (500, 501, 503, 507, 429):
        found = means(status, kind="robots")
        assert isinstance(found, Failure)
        assert found.again
    there = {"location": ["http://other/r"]}
    assert means(301, there, kind="robots", hops=4) == Redirect("http://other/r", 301)
    assert means(301, there, kind="robots", hops=5) == Rules("", 301)
    assert means(301, {"location": ["x:y"]}, kind="robots") == Rules("", 301)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0), ("120", 120.0), ("Sat, 21 Nov 2026 12:00:30 GMT", 30.0), ("Sat, 21 Nov 2026 11:00:00 GMT", 0.0),
        ("21 Nov 2026 12:01:00 -0000", 60.0), ("", None), ("soon", None), ("-5", None), ("1.5", None), ("٣", None),
        ("9" * 400, 999_999_999.0),
    ],
)  # fmt: skip
def test_retry_after(text, seconds):
    assert seconds_of(text, datetime(2026, 11, 21, 12, tzinfo=UTC)) == seconds


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("text/html; charset=x", True), ("", True), ("application/pdf", True), ("application/octet-stream", True),
        ("image/png", False), ("video/mp4", False), ("application/zip", False), ("font/woff2", False),
        ("text/xml", True),
    ],
)  # fmt: skip
def test_bodies_that_are_not_taken(header, wanted):
    assert wanted_by_header(header, Crawl()) == wanted
