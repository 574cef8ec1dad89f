import pytest

from crystalline.corpus.crawl import scope
from crystalline.corpus.crawl.scope import Rule, Scope
from crystalline.errors import EXIT_USAGE, UserError
from crystalline.settings import Crawl


def scoped(hosts=("example.org",), local=(), **settings):
    return Scope(Crawl(**settings), hosts, local)


@pytest.mark.parametrize(
    ("text", "kind", "found"),
    [
        ("example.org", "domain", Rule("domain", "example.org")),
        ("*.Example.org", "", Rule("pattern", "*.Example.org")),
        ("bücher.example", "domain", Rule("domain", "xn--bcher-kva.example")),
        ("https://example.org/A#x", "", Rule("exact", "https://example.org/A")),
        ("example.org/a", "", Rule("exact", "https://example.org/a")),
        ("*/login*", "", Rule("pattern", "*/login*")),
        ("re:/[0-9]{4}/", "", Rule("pattern", "re:/[0-9]{4}/")),
        ("https://example.org/docs", "prefix", Rule("prefix", "https://example.org/docs")),
    ],
)
def test_rules_as_people_write_them(text, kind, found):
    assert Rule.parse(text, kind) == found


@pytest.mark.parametrize(("text", "kind"), [("re:(", ""), ("x", "kind"), ("http://[x/", "exact"), ("a b", "domain")])
def test_rules_that_cannot_be_read(text, kind):
    with pytest.raises(UserError, match="could not read the rule") as caught:
        Rule.parse(text, kind)
    assert caught.value.exit_code == EXIT_USAGE


@pytest.mark.parametrize(
    ("rule", "yes", "no"),
    [
        (
            "example.org",
            ["http://example.org/", "https://a.b.example.org/x"],
            ["http://notexample.org/", "http://org/"],
        ),
        ("example.org/a", ["http://example.org/a", "https://example.org/a"], ["http://example.org/a/b"]),
        ("*/tag/*", ["http://x.org/tag/", "https://x.org/a/tag/b?c"], ["http://x.org/tags/b"]),
        ("example.org/a.b?c=*", ["http://example.org/a.b?c=1"], ["http://example.org/aXb?c=1"]),
        ("re:[?&]page=[0-9]+$", ["http://x.org/?page=3"], ["http://x.org/?page=x"]),
    ],
)
def test_what_rules_match(rule, yes, no):
    found = Rule.parse(rule)
    assert [url for url in yes + no if found.matches(url)] == yes


def test_prefixes_with_and_without_scheme():
    for text in ("https://example.org/docs", "example.org/docs"):
        assert Rule.parse(text, "prefix").matches("https://example.org/docs/x")
    assert not Rule.parse("example.org/docs", "prefix").matches("https://a.example.org/docs")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://example.org/", ""), ("https://www.example.org/", ""), ("http://a.example.org/", scope.OFF_DOMAIN),
        ("http://example.com/", scope.OFF_DOMAIN), ("http://example.org/a.pdf", ""),
        ("http://example.org/a.PNG", scope.OTHER_TYPE), ("http://example.org/a.css", scope.OTHER_TYPE),
        ("http://example.org/a.php?x=1.png", ""), ("http://example.org/v1.2", ""),
        ("http://example.org/a/a/a", "repeating path"),
    ],
)  # fmt: skip
def test_by_default_it_stays_on_the_host(url, why):
    assert scoped().refuses(url, 1) == why


def test_filters():
    filtered = scoped(domains=["example.org", "other.example"], allow=["https://example.org/docs/", "re:/news/"],
                      deny=["*/old/*"], depth=3)  # fmt: skip
    assert filtered.refuses("https://a.example.org/news/1", 3) == ""
    assert filtered.refuses("https://other.example/news/1", 3) == ""
    assert filtered.refuses("https://example.org/docs/1", 4) == scope.TOO_DEEP
    assert filtered.refuses("https://example.org/else", 1) == scope.NOT_ALLOWED
    assert filtered.refuses("https://example.org/docs/old/1", 1) == scope.DENIED
    assert filtered.refuses("https://third.example/news/", 1) == scope.OFF_DOMAIN
    assert filtered.refuses("https://third.example/start", 0) == ""  # a start URL is what the user wants
    filtered.blocked.append(Rule.parse("third.example"))
    assert filtered.refuses("https://third.example/start", 0) == scope.BLOCKED


def test_types():
    only_pdf = scoped(types=["pdf"])
    assert only_pdf.refuses("http://example.org/a.html", 1) == ""  # it may lead to one
    assert only_pdf.refuses("http://example.org/a.docx", 1) == scope.OTHER_TYPE
    assert scoped(types=["html", "image"]).refuses("http://example.org/a.png", 1) == ""
    assert scope.type_of("application/vnd.openxmlformats-officedocument.wordprocessingml.document") == "office"
    assert scope.type_of("text/x-python") == "code"
    assert scope.type_of("audio/mpeg") is None


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/", "http://10.0.0.1/", "http://192.168.1.1:8080/x", "http://172.16.0.1/", "http://0.0.0.0/",
        "http://169.254.169.254/latest/meta-data/", "http://[::1]/", "http://[fe80::1]/", "http://[fd00::1]/",
        "http://[::ffff:127.0.0.1]/", "http://localhost/", "http://a.localhost/", "http://100.64.0.1/", "http://224.0.0.1/",
    ],
)  # fmt: skip
def test_private_addresses_need_a_local_start(url):
    everywhere = scoped(allow=["re:."])
    assert everywhere.refuses(url, 0) == scope.PRIVATE
    assert everywhere.refuses(url, 1) == scope.PRIVATE


def test_a_local_start_opens_itself_only():
    local = scoped(["127.0.0.1", "wiki.localhost"], ["127.0.0.1", "wiki.localhost"])
    assert local.refuses("http://127.0.0.1:8000/x", 1) == ""
    assert local.refuses("http://127.0.0.2:8000/x", 1) == scope.PRIVATE
    assert local.refuses("http://169.254.169.254/", 1) == scope.PRIVATE
    assert (
        scoped(["wiki.localhost"], ["wiki.localhost"], domains=["localhost"]).refuses("http://a.localhost/", 1) == ""
    )
    # A public start does not get at the own network by naming it in the domains.
    assert scoped(["example.org"], domains=["localhost"]).refuses("http://a.localhost/", 1) == scope.PRIVATE
