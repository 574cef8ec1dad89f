import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystalline.corpus.crawl import urls

BASE = "http://example.org/a/b?x=1"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("HTTP://Example.ORG:80/a#part", "http://example.org/a"),
        ("https://example.org:443", "https://example.org/"),
        ("https://example.org:8443/", "https://example.org:8443/"),
        ("http://example.org./", "http://example.org/"),
        ("http://example.org/a/./b/../c/", "http://example.org/a/c/"),
        ("http://example.org/a/..", "http://example.org/"),
        ("http://example.org/../../x", "http://example.org/x"),
        ("http://example.org/%7ejoe/%41%2f%e4", "http://example.org/~joe/A%2F%E4"),
        ("http://example.org/ä b", "http://example.org/%C3%A4%20b"),
        ("http://example.org/100%", "http://example.org/100%25"),
        ("http://example.org/?b=2&a=1&b=1&&utm_source=x&fbclid=y", "http://example.org/?a=1&b=2&b=1"),
        ("http://example.org/?", "http://example.org/"),
        ("http://example.org/?q=a/b?c", "http://example.org/?q=a/b?c"),
        ("http://example.org/x;jsessionid=1A2?a", "http://example.org/x?a"),
        (" \thttp://exam\nple.org/\r\n", "http://example.org/"),
        ("http:\\\\example.org\\a?b\\c", "http://example.org/a?b%5Cc"),
        ("http://bücher.example/", "http://xn--bcher-kva.example/"),
        ("http://BÜCHER.example/", "http://xn--bcher-kva.example/"),
        ("http://127.1/", "http://127.0.0.1/"),
        ("http://0x7f000001/", "http://127.0.0.1/"),
        ("http://2130706433/", "http://127.0.0.1/"),
        ("http://[0:0::1]:80/", "http://[::1]/"),
        ("../c", "http://example.org/c"),
        ("?y=2", "http://example.org/a/b?y=2"),
        ("//other.example/x", "http://other.example/x"),
        ("", "http://example.org/a/b?x=1"),
    ],
)
def test_one_form(text, expected):
    assert urls.normal(text, BASE) == expected


@pytest.mark.parametrize(
    "text",
    [
        "mailto:a@example.org", "javascript:void(0)", "ftp://example.org/", "file:///etc/passwd", "data:text/html,x",
        "http://", "http:///path", "http://user:pw@example.org/", "http://[broken/", "http://exa mple.org/",
        "http://example.org:99999/", "http://example.org:0/", "http://-.ü..example/", "http://1.2.3.4.5/", "http://a..b/",
        "http://%00/", "http://" + "a" * 64 + ".org/",
    ],
)  # fmt: skip
def test_what_is_no_page(text):
    with pytest.raises(urls.Unusable):
        urls.normal(text)


@given(st.text(max_size=80))
def test_the_form_is_one_and_nothing_breaks(text):
    try:
        once = urls.normal(text, "http://example.org/a/")
    except urls.Unusable:
        return
    assert urls.normal(once) == once
    assert once.isascii()
    assert "#" not in once


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://h/a/b/a/b/a/b", "repeating path"),
        ("http://h/x/x/x/", "repeating path"),
        ("http://h/a/b/a/b/", ""),
        ("http://h/2026/11/11/11-11", ""),
        ("http://h/" + "/".join("abcdefghijklmnopqrstuvwxyz"), "deep path"),
        ("http://h/?" + "q" * 2000, "long address"),
    ],
)
def test_traps(url, why):
    assert urls.trap(url) == why


def test_parts():
    url = "https://h.example:8080/a/b.tar.GZ?q=1"
    assert (urls.host(url), urls.origin(url)) == ("h.example", "https://h.example:8080")
    assert (urls.stem(url), urls.extension(url), urls.segments(url)) == ("https://h.example:8080/a/b.tar.GZ", "gz", 2)
    assert (urls.extension("http://h/.htaccess"), urls.extension("http://h/a.b/c"), urls.segments("http://h/")) == (
        "",
        "",
        0,
    )
    assert urls.host("http://[::1]:80/") == "::1"
    assert 0 <= urls.tie(url) < 2**63
    assert urls.tie(url) != urls.tie(url + "2")
