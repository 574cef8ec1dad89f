import pytest

from crystalline.corpus.crawl import robots
from crystalline.corpus.crawl.robots import Robots, directives

TEXT = """
User-agent: otherbot
Disallow: /

User-agent: Crystalline
Disallow: /no
Allow: /no/but
Crawl-delay: 2.5

User-agent: *
Disallow: /everybody
Sitemap: http://h/map.xml
"""


def test_the_group_for_us_counts():
    found = Robots(TEXT, "crystalline")
    assert [found.allowed(f"http://h{path}") for path in ("/", "/no/x", "/no/but", "/everybody")] == [
        True,
        False,
        True,
        True,
    ]
    assert found.delay == 2.5
    assert found.sitemaps == ["http://h/map.xml"]
    assert not Robots(TEXT, "another").allowed("http://h/everybody")
    assert not Robots(TEXT, "otherbot").allowed("http://h/")


@pytest.mark.parametrize(
    ("rules", "path", "allowed"),
    [
        ("Disallow:", "/a", True),
        ("Disallow: /", "/a", False),
        ("Disallow: /*.php$", "/a.php", False),
        ("Disallow: /*.php$", "/a.php?x", True),
        ("Disallow: /a\nAllow: /a/b", "/a/b/c", True),  # the longest match counts
        ("Disallow: /%7ejoe", "/~joe", False),
        ("disallow : /x", "/x", False),
        ("Disallow: /", "/robots.txt", True),
    ],
)
def test_rules_of_rfc_9309(rules, path, allowed):
    assert Robots(f"User-agent: *\n{rules}", "crystalline").allowed(f"http://h{path}") == allowed


@pytest.mark.parametrize("delay", ["x", "-1", "inf", "nan", "", "1e400"])
def test_delays_that_are_none(delay):
    assert Robots(f"User-agent: *\nCrawl-delay: {delay}", "crystalline").delay == 0


def test_a_request_rate_is_a_delay():
    assert Robots("User-agent: *\nRequest-rate: 1/5", "crystalline").delay == 5


@pytest.mark.parametrize(
    "body", [b"", b"\x00\xff\xfe" * 1000, b"<html><body>Not found</body></html>", b"\xef\xbb\xbf"]
)
def test_garbage_has_no_rules(body):
    assert Robots(robots.text_of(body), "crystalline").allowed("http://h/x")


def test_only_the_beginning_of_a_long_one_is_read():
    body = b"User-agent: *\nDisallow: /first\n" + b"# nothing\n" * 100_000 + b"Disallow: /last\n"
    found = Robots(robots.text_of(body), "crystalline")
    assert (found.allowed("http://h/first"), found.allowed("http://h/last")) == (False, True)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (["noindex"], {"noindex"}),
        (["NoIndex, NoFollow"], {"noindex", "nofollow"}),
        (["none"], {"none", "noindex", "nofollow"}),
        (["otherbot: noindex"], set()),
        (["crystalline: noindex, nofollow"], {"noindex", "nofollow"}),
        (["otherbot: noindex", "nofollow"], {"nofollow"}),
        (["unavailable_after: 2030-01-01, noindex"], {"unavailable_after: 2030-01-01", "noindex"}),
        ([], set()),
    ],
)
def test_directives(values, found):
    assert directives(values, "crystalline") == found


@pytest.mark.parametrize(
    ("agent", "token"),
    [("crystalline/0.1 (+https://example.org)", "crystalline"), ("My Bot", "my"), ("Bot", "bot"), (" ", "*")],
)
def test_product_tokens(agent, token):
    assert robots.product_token(agent) == token
