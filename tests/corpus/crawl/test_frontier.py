"""The memory of a crawl, without a network: what is fetched next, and what the user's orders do."""

import math
import random
import time

import pytest

from crystalline.corpus.crawl import orders, store, urls
from crystalline.corpus.crawl import scope as scopes
from crystalline.corpus.crawl.frontier import HOST_GIVES_UP, Frontier
from crystalline.corpus.crawl.outcomes import Failure, Gone, Map, Redirect, Rules, Skip, Stored, Unchanged, Wait
from crystalline.corpus.crawl.scope import Rule
from crystalline.errors import UserError
from crystalline.settings import Crawl

HOST = "http://1.1.1.1"  # a public number: nothing is looked up, and nothing is fetched


class World:
    """A frontier and a clock, and a web of pages {path: links} to fetch by hand."""

    def __init__(self, folder, *starts, **settings):
        folder.mkdir(exist_ok=True)
        self.frontier, self.now = Frontier(folder, create=True, slot=1), time.time()
        self.settings = Crawl(**{"delay": 1.0, "backoff": 1.0, "sitemaps": False, **settings})
        self.begin(*(starts or [f"{HOST}/"]))

    def begin(self, *starts, again=False, retry=False, **settings):
        self.settings = self.settings.model_copy(update=settings)
        self.frontier.begin(starts, self.settings, "crystalline", again, retry)

    def claim(self):
        """The next URL, waiting as long as it takes; None when there is none."""
        for _ in range(100):
            found = self.frontier.claim(self.now)
            if not isinstance(found, Wait):
                return found
            if found.seconds is None:
                return None
            self.now += found.seconds + 1e-6
        raise AssertionError("it waits without end")

    def finish(self, claim, outcome):
        self.frontier.finish(claim, outcome, self.now)

    def crawl(self, web, **special):
        """Fetch everything; returns the paths in the order of fetching, without robots.txt."""
        order = []
        while claim := self.claim():
            path = claim.url.removeprefix(HOST)
            if claim.kind == "robots":
                self.finish(claim, special.get("robots", Rules("")))
                continue
            order.append(path)
            answer = web.get(path, Gone(404))
            if isinstance(answer, list):
                links = [urls.normal(link, claim.url) for link in answer]
                answer = Stored(f"text of {path}".encode(), "text/html", "utf-8", follow=links)
            self.finish(claim, answer)
        return order

    def states(self):
        return {row["url"].removeprefix(HOST): (row["state"], row["reason"]) for row in orders.rows(self.frontier)}


@pytest.fixture
def world(tmp_path):
    return lambda *starts, **settings: World(tmp_path / "crawl", *starts, **settings)


def test_shallow_paths_first_and_ties_by_a_fixed_hash(world, tmp_path):
    paths = [f"/{x}/{y}" for x in "abc" for y in "def"] + ["/x", "/y", "/z"]
    order = world().crawl({"/": paths} | {path: [] for path in paths})
    assert order == ["/", *sorted(paths, key=lambda p: (urls.segments(HOST + p), urls.tie(HOST + p)))]


def test_domains_with_fewer_pages_first(world, tmp_path):
    made = world("http://1.1.1.1/", "http://8.8.8.8/", delay=0.0)
    hosts = []
    orders.add(made.frontier, [f"http://1.1.1.1/{n}" for n in range(9)] + ["http://8.8.8.8/1"])
    while claim := made.claim():
        if claim.kind == "page":
            hosts.append(urls.host(claim.url))
        made.finish(claim, Rules("") if claim.kind == "robots" else Stored(claim.url.encode(), "text/plain", "utf-8"))
    assert hosts.count("8.8.8.8") == 2
    assert (
        max(n for n, host in enumerate(hosts) if host == "8.8.8.8") <= 3
    )  # as often as the other, as long as it can


def test_the_longest_not_looked_at_comes_first_when_looking_again(world, tmp_path):
    made = world()
    made.crawl({"/": ["/a", "/b", "/c"], "/a": [], "/b": [], "/c": []})
    made.frontier.put("ended", "finished")

    now = time.time()
    for path, days in (("/", 1), ("/a", 1), ("/b", 4), ("/c", 2)):
        made.frontier.db.execute("UPDATE urls SET checked = ? WHERE url = ?", (now - days * 86_400, HOST + path))
    made.begin(again=True)
    scores = {row["url"].removeprefix(HOST): row["score"] for row in orders.rows(made.frontier)}
    for path, days, depth in (("/", 1, 0), ("/a", 1, 1), ("/b", 4, 1), ("/c", 2, 1)):
        assert scores[path] == pytest.approx(50 * (1 - math.exp(-0.5 * days)) - 5 * depth, abs=1e-3)
    made.now = now
    order = []
    while claim := made.claim():
        if claim.kind == "page":
            order.append(claim.url.removeprefix(HOST))
        made.finish(claim, Rules("") if claim.kind == "robots" else Unchanged())
    assert order == ["/b", "/c", "/", "/a"]


def test_robots_come_first_and_say_what_may_be_fetched(world, tmp_path):
    made = world()
    assert made.claim().url == f"{HOST}/robots.txt"
    assert made.frontier.claim(made.now + 100) == Wait(None)  # the page has to wait for it
    made.frontier.release([row["id"] for row in made.frontier.db.execute("SELECT id FROM urls")])
    order = made.crawl({"/": ["/no/1", "/yes"], "/yes": ["/no/2"]}, robots=Rules("User-agent: *\nDisallow: /no"))
    assert order == ["/", "/yes"]
    assert made.states()["/no/1"] == ("skipped", "robots.txt")
    # After a day it is read again, and may say something else.
    made.now += 90_000
    orders.add(made.frontier, [f"{HOST}/later"])
    claim = made.claim()
    assert claim.kind == "robots"
    made.finish(claim, Rules(""))
    assert made.crawl({"/no/1": [], "/no/2": [], "/later": []}) != []
    assert made.states()["/no/1"] == ("done", "")


def test_a_delay_between_requests(world, tmp_path):
    made = world(delay=2.0)
    made.finish(made.claim(), Rules("User-agent: *\nCrawl-delay: 7"))
    found = made.frontier.claim(made.now + 6.9)
    assert found == Wait(pytest.approx(0.1, abs=1e-6))
    made.now += 7
    claim = made.claim()
    orders.add(made.frontier, [f"{HOST}/x"])
    assert made.frontier.claim(made.now + 100) == Wait(None)  # one at a time
    made.frontier.finish(claim, Stored(b"x", "text/plain", "utf-8"), made.now + 20, seconds=20.0)
    assert made.frontier.claim(made.now + 30) == Wait(pytest.approx(10))  # as long as it took to answer


def test_back_off_doubles_and_retry_after_counts(world, tmp_path):
    made = world(delay=0.0, retries=5)
    made.finish(made.claim(), Rules(""))
    for wait in (1.0, 2.0, 4.0):
        claim = made.claim()
        made.finish(claim, Failure("HTTP 503", 503, again=True, busy=True))
        assert made.frontier.claim(made.now) == Wait(pytest.approx(wait))
    made.finish(made.claim(), Failure("HTTP 429", 429, again=True, busy=True, after=100.0))
    assert made.frontier.claim(made.now) == Wait(pytest.approx(100.0))


def test_a_dead_host_is_given_up(world, tmp_path):
    made = world(delay=0.0, backoff=0.0, retries=1)
    made.finish(made.claim(), Rules(""))
    orders.add(made.frontier, [f"{HOST}/{n}" for n in range(100)])
    asked = 0
    while claim := made.claim():
        asked += 1
        made.finish(claim, Failure("no answer in time", again=True, dead=True))
    assert asked == HOST_GIVES_UP
    assert {state for state, _ in made.states().values()} == {"failed"}


def test_depths_do_not_depend_on_the_order(world, tmp_path):
    """A page that is found on a long way first, and on a short one later, leads as far as the other way round."""
    # /far/... is fetched late, since its path is long; it is what leads to /b on the short way.
    web = {
        "/": ["/a", "/far/and/deep"], "/a": ["/b"], "/b": ["/c"], "/c": ["/d"], "/d": ["/e"],
        "/far/and/deep": ["/d"], "/e": [],
    }  # fmt: skip
    made = world(depth=3)
    order = made.crawl(web)
    assert set(order) == {"/", "/a", "/b", "/c", "/far/and/deep", "/d", "/e"}
    depths = {row["url"].removeprefix(HOST): row["depth"] for row in orders.rows(made.frontier)}
    assert (depths["/d"], depths["/e"]) == (2, 3)


def test_random_webs_are_found_whole_in_any_order(tmp_path):
    for seed in range(5):
        draw = random.Random(seed)
        names = [f"/{'x/y/z/'[: 2 * draw.randrange(4)]}{n}" for n in range(40)]
        web = {name: draw.sample(names, 2) for name in names} | {"/": draw.sample(names, 3)}
        depth, expected, edge = 4, {"/"}, ["/"]
        for _ in range(depth):
            edge = [link for path in edge for link in web[path] if link not in expected]
            expected |= set(edge)
        made = World(tmp_path / str(seed), depth=depth)
        # Pages are stored as HTML whose links can be read again from what is stored.
        order = []
        while claim := made.claim():
            path = claim.url.removeprefix(HOST)
            if claim.kind == "robots":
                made.finish(claim, Rules(""))
                continue
            order.append(path)
            html = "".join(f'<a href="{link}">' for link in web[path]).encode()
            made.finish(claim, Stored(html, "text/html", "utf-8", follow=[HOST + link for link in web[path]]))
        assert set(order) == expected
        assert len(order) == len(expected)


def test_redirects(world, tmp_path):
    made = world(redirects=2)
    web = {
        "/": Redirect("http://8.8.8.8/", 301), "/a": [], "/r1": Redirect(f"{HOST}/r2", 302),
        "/r2": Redirect(f"{HOST}/r1", 302), "/c1": Redirect(f"{HOST}/c2", 302), "/c2": Redirect(f"{HOST}/c3", 302),
        "/c3": Redirect(f"{HOST}/c4", 302), "/c4": [],
        "http://8.8.8.8/": [f"{HOST}/r1", f"{HOST}/c1", f"{HOST}/out", "/own"],
        "/out": Redirect("http://9.9.9.9/", 302), "/in": Redirect("http://10.0.0.1/secret", 302),
        "http://8.8.8.8/own": [f"{HOST}/in"],
    }  # fmt: skip
    made.crawl(web)
    states = made.states()
    assert states["http://8.8.8.8/own"] == ("done", "")  # where the start URL leads is a start, too
    assert states["/c4"] == ("skipped", "many redirects")
    assert states["/r1"] == states["/r2"] == ("redirect", "")
    assert states["http://9.9.9.9/"] == ("skipped", "other domain")
    assert states["http://10.0.0.1/secret"] == ("skipped", "private address")


def test_a_redirect_does_not_leave_the_domains_that_were_named(world, tmp_path):
    made = world(domains=["1.1.1.1"])
    made.crawl({"/": Redirect("http://8.8.8.8/", 301)})
    assert made.states()["http://8.8.8.8/"] == ("skipped", "other domain")


def test_orders_of_the_user(world, tmp_path):
    made, folder = world(), tmp_path / "crawl"
    web = {
        "/": ["/ads/1", "/ads/2", "/a", "/b"],
        "/ads/1": ["/ads/3"],
        "/ads/2": [],
        "/ads/3": [],
        "/a": [],
        "/b": [],
    }
    made.crawl(web)
    frontier, rules = made.frontier, [Rule.parse("*/ads/*")]
    assert len(list(store.pages(folder))) == 6
    known = store.fingerprint(folder)
    assert orders.block(frontier, rules) == 3
    assert orders.block(frontier, rules) == 0
    assert [page.url for page in store.pages(folder)] == [f"{HOST}/", f"{HOST}/a", f"{HOST}/b"]
    assert store.fingerprint(folder) != known
    orders.add(frontier, [f"{HOST}/ads/4"], 1)
    assert made.states()["/ads/4"] == ("skipped", scopes.BLOCKED)
    with pytest.raises(UserError, match="no such domain rule"):
        orders.unblock(frontier, [Rule.parse("ads.example")])
    assert orders.unblock(frontier, rules) == 4
    orders.remove(frontier, [Rule.parse(f"{HOST}/ads/4")])
    assert store.fingerprint(folder) == known
    assert made.crawl(web) == []  # what was stored is there still

    assert orders.remove(frontier, [Rule.parse(f"{HOST}/a"), Rule.parse("1.1.1.1/b")]) == 2
    assert len(list(store.pages(folder))) == 4
    orders.add(frontier, [f"{HOST}/p/{n}" for n in range(5)])
    assert orders.prioritise(frontier, [Rule.parse("*/p/3")], 10) == 1
    orders.add(frontier, [f"{HOST}/p/33"])
    orders.prioritise(frontier, [Rule.parse("*/p/1")], -10)
    order = made.crawl({f"/p/{n}": [] for n in (0, 1, 2, 3, 4, 33)})
    assert (order[0], order[-1]) == ("/p/3", "/p/1")
    assert orders.prioritise(frontier, [Rule.parse("*/p/3")], 0) == 0
    assert [tuple(row) for row in frontier.db.execute("SELECT action, text, amount FROM rules")] == [
        ("priority", "*/p/1", -10)
    ]


def test_settings_that_change_bring_urls_in_and_out(world, tmp_path):
    made = world(deny=["*/no/*"], depth=1)
    web = {"/": ["/no/1", "/yes", "/a.png"], "/yes": ["/more"], "/no/1": [], "/more": [], "/a.png": []}
    assert set(made.crawl(web)) == {"/", "/yes"}
    made.begin(deny=[], depth=5)
    assert set(made.crawl(web)) == {"/no/1", "/more"}
    made.begin(types=["html", "image"])
    assert made.crawl(web) == ["/a.png"]


def test_limits_that_are_raised_go_on(world, tmp_path):
    made = world(max_queries=3)
    web = {"/": ["/list?page=1", "/big", "/scan"], "/big": Skip("too large"), "/scan": Skip(scopes.OTHER_TYPE)}
    web |= {f"/list?page={n}": [f"/list?page={n + 1}"] for n in range(1, 10)}
    assert len(made.crawl(web)) == 3 + 3
    assert made.states()["/list?page=4"] == ("skipped", "many queries")
    made.begin(max_queries=5)
    assert made.crawl(web) == ["/list?page=4", "/list?page=5"]
    made.begin(max_bytes=made.settings.max_bytes * 2)
    assert made.crawl(web) == ["/big"]
    made.begin(types=["html", "image"])
    assert made.crawl(web) == ["/scan"]
    made.begin()
    assert made.crawl(web) == []


def test_a_skipped_page_still_leads_on(world, tmp_path):
    made = world()
    order = made.crawl({"/": Skip("noindex", 200, [f"{HOST}/a"], [f"{HOST}/b"]), "/a": [], "/b": []})
    assert order == ["/", "/a"]
    assert made.states()["/b"] == ("skipped", "nofollow")
    orders.add(made.frontier, [f"{HOST}/b"])  # found where it may be followed
    assert made.crawl({"/b": []}) == ["/b"]


def test_an_answer_is_all_or_nothing(world, tmp_path, monkeypatch):
    made = world()
    made.finish(made.claim(), Rules(""))
    claim = made.claim()
    dump = list(made.frontier.db.iterdump())

    def fail(*_, **__):
        raise OSError("no space")

    monkeypatch.setattr(made.frontier, "_maps", fail)  # the last step of storing a page
    with pytest.raises(OSError, match="no space"):
        made.finish(claim, Stored(b"text", "text/html", "utf-8", follow=[f"{HOST}/a"]))
    assert list(made.frontier.db.iterdump()) == dump


def test_an_answer_for_what_was_blocked_meanwhile_is_dropped(world, tmp_path):
    made = world()
    made.finish(made.claim(), Rules(""))
    claim = made.claim()
    other = Frontier(tmp_path / "crawl")
    orders.block(other, [Rule.parse("1.1.1.1")])
    made.finish(claim, Stored(b"text", "text/html", "utf-8", follow=[f"{HOST}/a"]))
    assert made.states() == {"/": ("skipped", "blocked")}
    assert list(store.pages(tmp_path / "crawl")) == []


def test_fingerprints_are_of_the_pages_only(world, tmp_path):
    made = world()
    web = {"/": ["/a"], "/a": []}
    made.crawl(web)
    before = store.fingerprint(tmp_path / "crawl")
    orders.add(made.frontier, [f"{HOST}/missing"])
    made.crawl(web)
    assert store.fingerprint(tmp_path / "crawl") == before
    made.begin(main_text=False)
    assert store.fingerprint(tmp_path / "crawl") != before


@pytest.mark.parametrize("answer", [Gone(404), Skip("no sitemap"), Failure("HTTP 403", 403)])
def test_a_sitemap_is_looked_for_where_none_is_named(world, answer):
    made = world(sitemaps=True)
    made.finish(made.claim(), Rules("", 404))
    asked = made.claim()
    assert (asked.url, asked.kind) == (f"{HOST}/sitemap.xml", "map")
    made.finish(asked, answer)
    assert made.states() == {"/": ("waiting", "")}, "what was only guessed leaves no trace"
    made.finish(made.claim(), Stored(b"x", "text/html", "utf-8"))
    made.frontier.db.execute("UPDATE urls SET checked = 1")
    made.begin(f"{HOST}/", again=True)
    made.finish(made.claim(), Rules("", 404))
    assert made.claim().url == f"{HOST}/", "it is asked for once"


def test_a_sitemap_that_is_named_is_not_guessed(world):
    made = world(sitemaps=True)
    made.finish(made.claim(), Rules(f"Sitemap: {HOST}/a/sitemap.xml"))
    asked = made.claim()
    assert (asked.url, asked.kind) == (f"{HOST}/a/sitemap.xml", "map")
    made.finish(asked, Gone(404))
    assert made.states() == {"/": ("waiting", ""), "/a/sitemap.xml": ("gone", "")}


def test_the_pages_of_a_guessed_sitemap_are_taken(world):
    made = world(sitemaps=True)
    made.finish(made.claim(), Rules("", 404))
    made.finish(made.claim(), Map([f"{HOST}/only-there"], []))
    assert made.states()["/only-there"] == ("waiting", "")
