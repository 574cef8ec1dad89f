import codecs
import gzip

import pytest

from crystalline.corpus.crawl import reading

URL = "http://h/dir/page"


def links(html, header=(), encoding="utf-8"):
    data = html if isinstance(html, bytes) else html.encode(encoding)
    return reading.links_of_page(data, encoding, URL, "crystalline", list(header))


@pytest.mark.parametrize(
    ("data", "declared", "by_ending", "found"),
    [
        (b"<!doctype html><p>x", "text/html", "", "text/html"),
        (b"<!DOCTYPE html><p>x", "", "", "text/html"),
        (b"plain words", "", "", "text/plain"),
        (b"# words", "", "text/markdown", "text/markdown"),
        (b"%PDF-1.7", "text/html", "", "application/pdf"),
        (b"\x89PNG\r\n\x1a\n\0\0", "text/html", "", "image/png"),
        (b"\0\1\2\3\4" * 50, "text/html", "", "application/octet-stream"),
        (b"PK\x03\x04xx", "application/vnd.oasis.opendocument.x", "", "application/vnd.oasis.opendocument.x"),
        (b"PK\x03\x04xx", "text/html", "application/epub+zip", "application/epub+zip"),
        (b"PK\x03\x04xx", "", "", "application/zip"),
        (b'<?xml version="1.0"?>\n<!-- c -->\n<urlset xmlns="x">', "text/xml", "", reading.MAP),
        (b"<rss version='2.0'>", "text/html", "", reading.MAP),
        (codecs.BOM_UTF8 + b"<feed>", "application/atom+xml", "", reading.MAP),
        (b"<?xml version='1.0'?><book/>", "application/xml", "", "application/xml"),
        ("zwölf Kugeln".encode("utf-16"), "text/plain", "", "text/plain"),
        ("zwölf Kugeln und mehr".encode("utf-16-le"), "text/plain", "", "text/plain"),
    ],
)  # fmt: skip
def test_what_it_really_is(data, declared, by_ending, found):
    assert reading.media_type(data, declared, by_ending) == found


@pytest.mark.parametrize(
    ("data", "declared", "html", "found"),
    [
        ("größer".encode(), "", True, "utf-8"),
        ("größer".encode(), "iso-8859-1", True, "utf-8"),
        ("größer".encode("latin-1"), "iso-8859-1", True, "cp1252"),
        ("größer €".encode("cp1252"), "latin-1", True, "cp1252"),
        ("größer".encode("cp1252"), "utf-8", True, ""),
        (b'<meta charset="koi8-r">' + "мир".encode("koi8-r"), "", True, "koi8-r"),
        (b'<META content="text/html; charset=gb18030">' + "中文".encode("gb18030"), "", True, "gb18030"),
        (b'<meta charset="koi8-r">' + "мир".encode("koi8-r"), "", False, ""),
        ("日本".encode("iso-2022-jp"), "iso-2022-jp", True, "iso2022_jp"),
        (codecs.BOM_UTF8 + b"x", "latin-1", True, "utf-8-sig"), ("ü".encode("utf-16"), "", True, "utf-16"),
        (b"ascii", "no-such-thing", True, "utf-8"),
    ],
)  # fmt: skip
def test_encodings(data, declared, html, found):
    name = reading.encoding(data, declared, html)
    assert name == found
    if name:
        data.decode(name)


def test_links_in_the_order_of_the_page_each_once():
    found = links(
        '<a href="b">1</a><a href="/a#x">2</a><a href="b#y">3</a><area href="c"><iframe src="d"></iframe>'
        '<link rel="next" href="e"><link rel="stylesheet" href="f.css"><img src="g.png"><a name="x">no</a>'
        '<a href="mailto:x@y">no</a><meta http-equiv="Refresh" content="5;URL=\'h\'">'
    )
    assert found.follow == [f"http://h/{path}" for path in ("dir/b", "a", "dir/c", "dir/d", "dir/e", "dir/h")]


def test_a_base_and_a_canonical_link():
    found = links('<base href="https://other/x/"><link rel=canonical href="y"><a href="z">z</a>')
    assert found.canonical == "https://other/x/y"
    assert found.follow == ["https://other/x/z"]


def test_nofollow_and_noindex():
    found = links(
        '<a href=a rel="nofollow">a</a><a href=b>b</a><a href=a rel=ugc>a</a>'
        "<a href=c rel=sponsored>c</a><a href=c>c</a>"
    )
    assert (found.follow, found.nofollow) == (["http://h/dir/b", "http://h/dir/c"], ["http://h/dir/a"])
    for html, header in (
        ('<meta name="Robots" content="NOINDEX, nofollow"><a href=a>', ()),
        ("<meta name=crystalline content=none><a href=a>", ()),
        ("<a href=a>", ["noindex, nofollow"]),
    ):
        found = links(html, header)
        assert (found.follow, found.nofollow, found.noindex) == ([], ["http://h/dir/a"], True)
    assert not links('<meta name="googlebot" content="noindex"><a href=a>').noindex


def test_feeds_that_a_page_names():
    found = links('<link rel=alternate type="application/rss+xml" href=/f><link rel=alternate hreflang=de href=/de>')
    assert (found.maps, found.follow) == (["http://h/f"], ["http://h/de"])


@pytest.mark.parametrize(
    "html",
    [
        "",
        "<",
        "\0\0",
        "<a href=" * 1000,
        "<div>" * 20_000 + "<a href=x>",
        "<a href='\ud800'>x".encode("utf-8", "surrogatepass"),
    ],
)
def test_no_page_breaks_it(html):
    links(html)


def test_links_in_other_encodings():
    assert links('<a href="/größe">x</a>', encoding="cp1252").follow == ["http://h/gr%C3%B6%C3%9Fe"]


def test_sitemaps_and_feeds():
    urlset = b"<urlset xmlns='http://www.sitemaps.org/schemas/sitemap/0.9'><url><loc> http://h/a </loc></url><url><loc>http://h/a</loc></url></urlset>"
    assert reading.links_of_map(urlset, URL, 10_000) == (["http://h/a"], [])
    assert reading.links_of_map(gzip.compress(urlset), URL, 10_000) == (["http://h/a"], [])
    assert reading.links_of_map(b"<sitemapindex><sitemap><loc>/m</loc></sitemap></sitemapindex>", URL, 10_000) == (
        [],
        ["http://h/m"],
    )
    assert reading.links_of_map(b"http://h/1\nno url\nhttps://h/2", URL, 10_000) == (
        ["http://h/1", "https://h/2"],
        [],
    )
    rss = b"<rss><channel><link>http://h/</link><item><link>http://h/1</link></item></channel></rss>"
    assert reading.links_of_map(rss, URL, 10_000)[0] == ["http://h/1"]
    atom = (
        b"<feed xmlns='http://www.w3.org/2005/Atom'><link href='/'/><entry><link href='/1'/>"
        b"<link rel='edit' href='/2'/></entry></feed>"
    )
    assert reading.links_of_map(atom, URL, 10_000)[0] == ["http://h/1"]


def test_maps_cannot_harm():
    laughs = b'<!DOCTYPE x [<!ENTITY a "ha">' + b"".join(
        b'<!ENTITY %c "%s">' % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(9)
    )
    assert reading.links_of_map(laughs + b"]><urlset><url><loc>http://h/&j;</loc></url></urlset>", URL, 10_000) in (
        ([], []), (["http://h/"], [])
    )  # fmt: skip
    outside = (
        b'<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]><urlset><url><loc>http://h/&f;</loc></url></urlset>'
    )
    assert "root" not in str(reading.links_of_map(outside, URL, 10_000))
    assert reading.links_of_map(gzip.compress(b"http://h/1 " * 1_000_000), URL, 10_000)[0] == ["http://h/1"]
    assert reading.links_of_map(b"\x1f\x8bnothing", URL, 10_000) == ([], [])
    assert reading.links_of_map(b"<urlset><url><loc>http://h/cut", URL, 10_000)[0] == ["http://h/cut"]
