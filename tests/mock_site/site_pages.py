"""What the mock site has: pages, traps, and which of them a crawl must have stored in the end.

Everything is a function of (host, path), so that the server and the tests say the same. Hosts are names below
`localhost`, all of them on one port of 127.0.0.1.
"""

from __future__ import annotations

import gzip
import random
from dataclasses import dataclass, field

MAIN = "site.localhost"
SMALL = "small.localhost"
ARTICLES, LISTS, SMALL_PAGES = 120, 12, 40
MANY_LINKS = 10_000
QUERIES = 5  # crawl.max_queries in the tests
DEPTH = 8  # crawl.depth in the tests
CRAWL_DELAY = 0.15  # that slow.localhost asks for
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20
PDF = b"%PDF-1.4\n1 0 obj << >> endobj\ntrailer << >>\n%%EOF\n"
GERMAN = "Zwölf große Kugeln berühren eine dreizehnte. " * 5


@dataclass
class Reply:
    """What a server sends. trick: how it misbehaves, see `server.py`. first: what it sends the first time instead."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    trick: str = ""
    first: Reply | None = None
    stored: bool = False


def page(text: str, *links: str, head: str = "", stored: bool = True, **headers: str) -> Reply:
    """An HTML page with links; by default one that must be stored."""
    anchors = "".join(link if link.startswith("<") else f'<a href="{link}">link</a>\n' for link in links)
    body = (
        f"<!doctype html><html><head><title>{text}</title>{head}</head><body><p>{text}</p>\n{anchors}</body></html>"
    )
    kind = {"Content-Type": "text/html; charset=utf-8"}
    return Reply(body.encode(), headers=kind | {k.replace("_", "-"): v for k, v in headers.items()}, stored=stored)


def to(target: str, status: int = 302) -> Reply:
    """A redirect."""
    return Reply(status=status, headers={"Location": target})


def robots(text: str) -> Reply:
    return Reply(text.encode(), headers={"Content-Type": "text/plain"})


def site(port: int) -> dict[str, dict[str, Reply]]:
    """host -> path (with query) -> reply."""
    return {MAIN: _main(port), SMALL: _small(), **_others(port)}


def stored(port: int, *hosts: str) -> set[str]:
    """The URLs that must be stored after a crawl of these hosts."""
    return {f"http://{host}:{port}{path}" for host in hosts for path, r in site(port)[host].items() if r.stored}


def _main(port: int) -> dict[str, Reply]:
    found: dict[str, Reply] = {}
    here = f"http://{MAIN}:{port}"
    sections = [f"/list/{n}" for n in range(1, LISTS + 1)]
    odd = [
        "/articles/1?utm_source=news&utm_medium=mail", "/articles/2#part", "/./lists/../articles/3", "/articles/%34",
        f"HTTP://SITE.LOCALHOST:{port}/articles/5", "articles/6", "//" + f"{MAIN}:{port}/articles/7",
        "javascript:alert(1)", "mailto:somebody@example.org", "tel:+123", "http://[broken", "#", "", "ftp://x.localhost/f",
        "http://user:secret@site.localhost/login",
    ]  # fmt: skip
    traps = [
        "/flaky", "/busy", "/dropped", "/dropped-once", "/partial", "/partial-once", "/endless", "/trickle",
        "/loop/a", "/chain/1", "/self", "/charset/header", "/charset/body", "/charset/none", "/bomb", "/gzip",
        "/many", "/calendar?month=1", "/day/1", "/trap/", "/dup/a", "/dup/b", "/dup/c", "/dup/d", "/dup/e",
        "/print?of=canon", "/noindex", "/header-noindex", "/for-otherbot", "/nofollow",
        '<a rel="nofollow" href="/rel-nofollow">x</a>', "/binary", "/noise", "/image.png", "/picture", "/doc.pdf",
        "/private/page", "/private/allowed", "/missing", "/gone", "/forbidden", "/error", "/empty", "/old-http",
        "/chunked", "/base", "/refresh", "/moved", "/to-private", f"http://127.0.0.1:{port}/secret",
        f"http://other.localhost:{port}/", "http://example.com/page", "http://169.254.169.254/latest/meta-data/",
        f"http://[::1]:{port}/secret", "/to-elsewhere", "/broken-redirect", "/robots.txt", "/upper%2fcase", "/%zz",
        "/huge-number?n=" + "9" * 3000, "/wrong-gzip",
    ]  # fmt: skip
    feed = '<link rel="alternate" type="application/rss+xml" href="/feed.xml">'
    found["/"] = page("The front page", *sections, *odd, *traps, head=feed)
    for n in range(1, LISTS + 1):
        found[f"/list/{n}"] = page(
            f"List {n}", *(f"/articles/{a}" for a in range(1, ARTICLES + 1) if a % LISTS == n % LISTS), "/"
        )
    for n in range(1, ARTICLES + 1):
        text = f"Article {n}. " + " ".join(random.Random(n).choices(GERMAN.split(), k=60))
        found[f"/articles/{n}"] = page(text, f"/articles/{n % ARTICLES + 1}", f"/list/{n % LISTS + 1}")
    found["/robots.txt"] = robots(
        "User-agent: *\nDisallow: /private/\nAllow: /private/allowed\n\nUser-agent: otherbot\nDisallow: /\n\n"
        f"Sitemap: {here}/sitemap.xml\n"
    )

    busy = Reply(b"later", 503)
    found["/flaky"] = page("Came the second time")
    found["/flaky"].first = busy
    found["/busy"] = page("Came after the wait it asked for")
    found["/busy"].first = Reply(b"slowly", 429, {"Retry-After": "1"})
    found["/error"] = Reply(b"always broken", 500)
    found["/dropped"] = Reply(trick="drop")
    found["/dropped-once"] = page("Came after a lost connection")
    found["/dropped-once"].first = Reply(trick="drop")
    found["/partial"] = Reply(b"x" * 100, trick="partial")
    found["/partial-once"] = page("Came whole the second time")
    found["/partial-once"].first = Reply(b"x" * 100, trick="partial")
    found["/endless"] = Reply(trick="endless", headers={"Content-Type": "text/html"})
    found["/trickle"] = Reply(trick="trickle", headers={"Content-Type": "text/html"})

    found["/loop/a"], found["/loop/b"], found["/self"] = to("/loop/b"), to("/loop/a"), to("/self", 301)
    for n in range(1, 21):
        found[f"/chain/{n}"] = to(f"/chain/{n + 1}", 307)
    found["/moved"], found["/moved-here"] = to("/moved-here", 301), page("Moved here")
    found["/to-elsewhere"] = to("http://example.com/other")
    found["/to-private"] = to(f"http://127.0.0.1:{port}/secret")
    found["/broken-redirect"] = to("http://[broken")

    found["/charset/header"] = Reply(
        GERMAN.encode(), headers={"Content-Type": "text/html; charset=iso-8859-1"}, stored=True
    )
    found["/charset/body"] = Reply(
        b"<p>" + (GERMAN * 2).encode("cp1252"), headers={"Content-Type": "text/html; charset=utf-8"}, stored=True
    )
    found["/charset/none"] = Reply(
        b'<meta charset="windows-1252"><p>' + (GERMAN * 3).encode("cp1252"),
        headers={"Content-Type": "text/html; charset=no-such"}, stored=True,
    )  # fmt: skip
    found["/bomb"] = Reply(
        gzip.compress(bytes(30_000_000)), headers={"Content-Type": "text/html", "Content-Encoding": "gzip"}
    )
    packed = page("Came packed")
    packed.body = gzip.compress(packed.body)
    packed.headers["Content-Encoding"] = "gzip"
    found["/gzip"] = packed
    found["/wrong-gzip"] = Reply(b"no gzip", headers={"Content-Type": "text/html", "Content-Encoding": "gzip"})
    found["/many"] = page(
        "Ten thousand links", *(f"/private/{n}" for n in range(MANY_LINKS - 20)), *(f"/many/{n}#x" for n in range(20))
    )
    for n in range(20):
        found[f"/many/{n}"] = page(f"One of many: {n}")
    for n in range(1, 200):
        # The start is one of the queries; each month leads to the next.
        found[f"/calendar?month={n}"] = page(f"Month {n}", f"/calendar?month={n + 1}", stored=n <= QUERIES)
        found[f"/day/{n}"] = page(f"Day {n}", f"/day/{n + 1}", stored=n <= DEPTH)
    for n, path in enumerate(["/trap/", "/trap/x/", "/trap/x/x/", "/trap/x/x/x/", "/trap/x/x/x/x/"]):
        found[path] = page(f"Trap {n}", "x/", stored=n <= 2)

    for name in "abcde":
        found[f"/dup/{name}"] = page("The same under five names", stored=name == "a")
    canon = '<link rel="canonical" href="/canon">'
    found["/canon"] = page("The text", head=canon)
    found["/print?of=canon"] = page("The text, for printing", head=canon, stored=False)
    found["/noindex"] = page("Hidden", "/behind-noindex", head='<meta name="robots" content="noindex">', stored=False)
    found["/behind-noindex"] = page("Behind what is hidden")
    found["/header-noindex"] = page("Hidden by a header", stored=False, X_Robots_Tag="noindex, nofollow")
    found["/for-otherbot"] = page("Hidden from somebody else", X_Robots_Tag="otherbot: noindex")
    found["/nofollow"] = page("Do not follow", "/only-there", head='<meta name="robots" content="nofollow">')
    found["/only-there"] = page("Only linked where nobody may follow", stored=False)
    found["/rel-nofollow"] = page("Only linked with rel=nofollow", stored=False)

    html = {"Content-Type": "text/html"}
    found["/binary"] = Reply(PNG, headers=html)
    found["/noise"] = Reply(random.Random(1).randbytes(5000), headers=html)
    found["/image.png"] = Reply(PNG, headers={"Content-Type": "image/png"})
    found["/picture"] = Reply(PNG * 100, headers={"Content-Type": "image/png"})
    found["/doc.pdf"] = Reply(PDF, headers={"Content-Type": "application/pdf"}, stored=True)
    found["/private/page"] = page("Not for robots", stored=False)
    found["/private/allowed"] = page("The exception")
    found["/gone"] = Reply(b"gone", 410)
    found["/forbidden"] = Reply(b"no", 403)
    found["/empty"] = Reply(b"", headers=html)
    found["/old-http"] = page("Ends when the connection does")
    found["/old-http"].trick = "close"
    found["/chunked"] = page("In pieces")
    found["/chunked"].trick = "chunked"
    found["/base"] = page("Has a base", "child", head='<base href="/based/">')
    found["/based/child"] = page("Relative to the base")
    found["/refresh"] = page("Refreshes", head='<meta http-equiv="refresh" content="0; url=/refreshed">')
    found["/refreshed"] = page("Refreshed")
    found["/upper%2Fcase"] = page("With a slash that is none")
    found["/%25zz"] = page("With a percent sign")

    xml = {"Content-Type": "application/xml"}
    spaces = 'xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"'
    found["/sitemap.xml"] = Reply(
        f'<?xml version="1.0"?><sitemapindex {spaces}><sitemap><loc>{here}/map-1.xml.gz</loc></sitemap>'
        f"<sitemap><loc>{here}/map-2.txt</loc></sitemap><sitemap><loc>{here}/sitemap.xml</loc></sitemap>"
        f"<sitemap><loc>http://127.0.0.1:{port}/secret.xml</loc></sitemap></sitemapindex>".encode(),
        headers=xml,
    )
    locations = "".join(f"<url><loc>{here}/mapped/{n}</loc></url>" for n in range(1, 4))
    found["/map-1.xml.gz"] = Reply(
        gzip.compress(f'<?xml version="1.0"?><urlset {spaces}>{locations}</urlset>'.encode()),
        headers={"Content-Type": "application/x-gzip"},
    )
    found["/map-2.txt"] = Reply(
        f"{here}/mapped/4\n{here}/private/mapped\n".encode(), headers={"Content-Type": "text/plain"}
    )
    for n in range(1, 5):
        found[f"/mapped/{n}"] = page(f"Only in a sitemap: {n}")
    items = "".join(f"<item><title>t</title><link>{here}/fed/{n}</link></item>" for n in range(1, 4))
    found["/feed.xml"] = Reply(
        f'<?xml version="1.0"?><rss version="2.0"><channel><link>{here}/</link>{items}</channel></rss>'.encode(),
        headers={"Content-Type": "application/rss+xml"},
    )
    for n in range(1, 4):
        found[f"/fed/{n}"] = page(f"Only in a feed: {n}")
    return found


def _small() -> dict[str, Reply]:
    """A quiet site in the form of a tree, for what takes many crawls."""
    found = {"/robots.txt": robots("User-agent: *\nDisallow: /no/\n")}
    for n in range(SMALL_PAGES):
        links = [f"/page/{m}" for m in (2 * n + 1, 2 * n + 2, n * n % SMALL_PAGES) if m < SMALL_PAGES]
        path = "/" if n == 0 else f"/page/{n}"
        found[path] = page(f"Page {n} of the small site", *links, f"/no/{n}", "/same/a", "/same/b")
    found["/page/0"] = page("Page 0, again under another name")
    for name in "ab":
        found[f"/same/{name}"] = page("The same twice", stored=name == "a")
    return found


def _others(port: int) -> dict[str, dict[str, Reply]]:
    """Small sites that differ in their robots.txt."""

    def pages(name: str, *more: str, stored: tuple[str, ...] = ("/", "/one", "/no/page")) -> dict[str, Reply]:
        found = {"/": page(f"Front of {name}", "/one", "/no/page", *more)}
        found |= {path: page(f"{path} of {name}") for path in ("/one", "/no/page", *more)}
        for path, reply in found.items():
            reply.stored = path in (*stored, *more)
        return found

    rules = "User-agent: *\nDisallow: /no\n"
    recovers = robots(rules)
    recovers.first = Reply(b"", 503)
    dated = pages("dated")
    dated["/one"].first = Reply(b"", 503, {"Retry-After": "in 2 seconds"})  # the server makes a date of it
    delay = robots(f"User-agent: *\nCrawl-delay: {CRAWL_DELAY}")
    return {
        "empty.localhost": pages("empty") | {"/robots.txt": robots("")},
        "garbage.localhost": pages("garbage") | {"/robots.txt": Reply(random.Random(2).randbytes(3000))},
        "none.localhost": pages("none"),
        "broken.localhost": pages("broken", stored=()) | {"/robots.txt": Reply(b"", 500)},
        "recovers.localhost": pages("recovers", stored=("/", "/one")) | {"/robots.txt": recovers},
        "moved.localhost": pages("moved", stored=("/", "/one"))
        | {"/robots.txt": to("/rules", 301), "/rules": robots(rules)},
        "slow.localhost": pages("slow", "/two", "/three") | {"/robots.txt": delay},
        "dated.localhost": dated,
        "xn--bcher-kva.localhost": pages("bücher"),
    }
