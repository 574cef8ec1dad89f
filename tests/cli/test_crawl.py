"""`cllm crawl` as a person types it."""

import json
import shutil
from pathlib import Path

import pytest

from crystalline.cli import crawl, crawl_status
from crystalline.cli.main import main
from crystalline.corpus.crawl import orders
from crystalline.corpus.crawl.frontier import Frontier
from crystalline.corpus.crawl.slots import Slot
from crystalline.errors import EXIT_BUSY, EXIT_FAILED, EXIT_OK, EXIT_USAGE
from mock_site import MockSite
from mock_site import site_pages as site

QUICK = ("--delay", "0.01", "--set=crawl.backoff=0.01", "--set=crawl.retries=1")


@pytest.fixture(scope="module")
def mock(tmp_path_factory):
    with MockSite(tmp_path_factory.mktemp("mock")) as found:
        yield found


@pytest.fixture(scope="module")
def finished(mock, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "docs"
    assert main(["crawl", mock.url(site.SMALL), "--into", str(folder), *QUICK, "-q"]) == EXIT_OK
    return folder


@pytest.fixture
def docs(finished, tmp_path):
    """A finished crawl of the small site."""
    return Path(shutil.copytree(finished, tmp_path / "docs"))


def test_a_crawl_tells_what_it_did_and_goes_on_by_its_folder(cllm, mock, docs):
    before = mock.count()
    code, out, _ = cllm("crawl", "--into", docs)
    assert code == EXIT_OK
    assert mock.count() == before
    pages = len(site.stored(1, site.SMALL)) + 1  # and the page that is there twice
    assert out.startswith(f"{docs}: finished\n")
    assert f"{pages} pages" in out
    assert f"{site.SMALL_PAGES} robots.txt" in out
    assert "delay = 0.01" in (docs / "crystalline.toml").read_text()  # flags are kept

    code, out, _ = cllm("crawl", "status", docs, "--json")
    facts = json.loads(out)
    assert (facts["state"], facts["pages"], facts["skipped"]) == ("finished", pages, {"robots.txt": site.SMALL_PAGES})
    assert cllm("crawl", "status", docs)[1].startswith(f"{docs}: finished")
    assert cllm("crawl", "status", docs, "--watch")[0] == EXIT_OK


def test_the_folder_is_named_after_the_host(cllm, mock, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cllm("crawl", mock.url(site.SMALL), "--max-pages", 1, *QUICK, "-q")[0] == EXIT_OK
    assert [path.name for path in tmp_path.iterdir() if "localhost" in path.name] == [f"small.localhost_{mock.port}"]


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://example.org/a/../..", "example.org"), ("http://example.org:81/", "example.org_81"),
        ("http://[::1]/", "1"), ("http://xn--bcher-kva.de/", "xn--bcher-kva.de"),
    ],
)  # fmt: skip
def test_folder_names_are_no_paths(url, name):
    found = crawl._folder_name(url)
    assert found == name
    assert Path(found).name == found


def test_a_run_holds_its_crawl_and_its_settings(cllm, mock, new_run):
    with open(new_run / "crystalline.toml", "a") as file:
        file.write("\n[crawl]\ndelay = 0.01\nmax_pages = 3\n")
    before = (new_run / "crystalline.toml").read_text()
    code, out, _ = cllm("crawl", mock.url(site.SMALL), "--into", new_run, "--json")
    assert code == EXIT_OK
    assert json.loads(out)["ended"] == "full"
    assert (new_run / "crawl" / "crawl.sqlite").exists()
    assert (new_run / "crystalline.toml").read_text() == before
    assert "as many pages as crawl.max_pages allows" in cllm("crawl", "status", new_run)[1]


def test_orders_about_urls(cllm, mock, docs, tmp_path):
    def urls(*words):
        code, out, err = cllm("crawl", "urls", *words)
        assert code == EXIT_OK, err
        return out

    lines = urls("list", docs, "*/page/1*", "--state", "done").splitlines()
    expected = sorted(mock.url(site.SMALL, f"/page/{n}") for n in (1, *range(10, 20)))
    assert lines == [f"done      {url}" for url in expected]
    assert len(urls("list", docs, "--limit", 3).splitlines()) == 3
    assert json.loads(urls("list", docs, mock.url(site.SMALL, "/no/1"), "--json"))[0]["reason"] == "robots.txt"
    assert urls("block", docs, "*/same/*").startswith("2 known URLs are blocked")
    assert urls("priority", docs, mock.url(site.SMALL, "/page"), "--as", "prefix", "--by", 5).startswith("0 waiting")
    assert urls("rules", docs).splitlines() == [
        "block     pattern  */same/*",
        f"priority  prefix   {mock.url(site.SMALL, '/page')}  +5",
    ]
    assert urls("add", docs, mock.url(site.SMALL, "/hidden"), "http://127.0.0.1/").splitlines() == [
        "2 URLs are new, 0 were known", "http://127.0.0.1/ is skipped: private address",
    ]  # fmt: skip
    assert cllm("crawl", "status", docs)[1].startswith(f"{docs}: not finished")
    assert urls("remove", docs, "127.0.0.1") == "1 URLs are forgotten\n"
    assert urls("domains", docs).splitlines()[1].split()[:2] == ["small.localhost", str(site.SMALL_PAGES + 1)]
    assert json.loads(urls("domains", docs, "--json"))[0]["waiting"] == 1
    assert urls("unblock", docs, "*/same/*").startswith("2 URLs are not blocked")

    file = tmp_path / "urls.jsonl"
    urls("export", docs, file)
    assert urls("export", docs, "-") == file.read_text()
    other = tmp_path / "other"
    assert cllm("crawl", mock.url("none.localhost"), "--into", other, *QUICK, "-q")[0] == EXIT_OK
    found = len(file.read_text().splitlines()) - 1
    assert urls("import", other, file) == f"{found} of {found} URLs are new, and 1 rules were read\n"
    rows = {row["url"]: row["reason"] for row in orders.rows(Frontier(other))}
    assert rows[mock.url(site.SMALL, "/page/1")] == "private address"  # still judged by where this crawl may go
    plain = tmp_path / "plain.txt"
    plain.write_text(f"# mine\n{mock.url('none.localhost', '/x')}\n\n{mock.url('none.localhost', '/one')}\n")
    assert urls("import", other, plain) == "1 of 2 URLs are new, and 0 rules were read\n"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["crawl"], EXIT_USAGE, "no URL is given"),
        (["crawl", "--into", "nothing"], EXIT_FAILED, "there is no crawl"),
        (["crawl", "ftp://example.org"], EXIT_USAGE, "not a web address"),
        (["crawl", "http://a:b@example.org"], EXIT_USAGE, "a login"),
        (["crawl", "http://127.0.0.1:1", "--into", "x", "--types", "htm"], EXIT_USAGE, "crawl.types"),
        (["crawl", "http://127.0.0.1:1", "--into", "x", "--rate", "0"], EXIT_USAGE, "not above 0"),
        (["crawl", "http://127.0.0.1:1", "--into", "x", "--deny", "re:("], EXIT_USAGE, "could not read the rule"),
        (["crawl", "http://127.0.0.1:1", "--into", "x", "--rate=1", "--delay=1"], EXIT_USAGE, "not allowed with"),
        (["crawl", "http://127.0.0.1:1", "--into", "full"], EXIT_FAILED, "not an empty folder"),
        (["crawl", "http://127.0.0.1:1", "--into", "x", *QUICK], EXIT_FAILED, "1 connection refused"),
        (["crawl", "status", "nothing"], EXIT_FAILED, "there is no crawl"),
        (["crawl", "urls"], EXIT_USAGE, "no action was given"),
        (["crawl", "urls", "block", "nothing", "x"], EXIT_FAILED, "there is no crawl"),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_told(cllm, tmp_path, monkeypatch, words, code, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    found, _, err = cllm(*words)
    assert found == code
    assert said in err
    assert "fix:" in err


def test_a_busy_folder(cllm, mock, docs, monkeypatch):
    from crystalline.corpus.crawl import worker

    held = Slot.take(docs, [1])
    monkeypatch.setattr(worker, "LOCK_PATIENCE", 0.0)
    monkeypatch.setenv("CLLM_CRAWL_DELAY", "0.01")
    code, _, err = cllm("crawl", "--into", docs)
    held.release()
    assert code == EXIT_BUSY
    assert "--join" in err


def test_lists_that_cannot_be_imported(cllm, docs, tmp_path):
    file = tmp_path / "bad.jsonl"
    file.write_text('http://example.org/\n{"rule": "block"}\n')
    code, _, err = cllm("crawl", "urls", "import", docs, file)
    assert code == EXIT_FAILED
    assert "line 2" in err
    assert Frontier(docs).db.execute("SELECT 1 FROM urls WHERE url LIKE '%example.org%'").fetchone() is None
    code, _, err = cllm("crawl", "urls", "list", docs, "--state", "don")
    assert code == EXIT_USAGE
    assert "did you mean 'done'" in err


@pytest.mark.parametrize("words", [("crawl", "status"), ("crawl", "urls"), ("crawl", "urls", "block")])
def test_the_verbs_of_the_verb_are_explained(cllm, words):
    code, out, err = cllm(*words, "--help")
    assert (code, err) == (EXIT_OK, "")
    assert out.startswith(f"usage: cllm {' '.join(words)}")


def test_the_live_view():
    facts = {
        "folder": "docs", "state": "crawling", "found": 1234, "pages": 250, "bytes": 2_000_000, "waiting": 740,
        "fetching": 10, "redirects": 3, "gone": 1, "sitemaps": 0, "skipped": {"other domain": 200, "robots.txt": 30},
        "failed": {"HTTP 500": 1}, "hosts": 2, "max_pages": 500, "per_second": 2.5, "seconds_left": 104.0,
    }  # fmt: skip
    drawn = ["".join(text for text, _ in line) for line in crawl_status.lines(facts, 80)]
    assert drawn[0].startswith("docs  crawling")
    assert drawn[0].endswith("1 min 44 s left")
    assert drawn[1].endswith("page 250 of 500 known")
    assert drawn[2:] == [
        "found      1,234 URLs on 2 hosts",
        "fetched    250 pages, 2 MB",
        "waiting    740, 10 being fetched",
        "skipped    200 other domain, 30 robots.txt",
        "failed     1 HTTP 500 (--retry tries again)",
        "also       3 redirects, 1 not there (any more)",
        "speed      2.5 answers a second",
        "time left  1 min 44 s for what is known now",
    ]
    assert crawl_status.one_line(facts) == (
        "250 pages (2 MB)  740 waiting  230 skipped  1 failed  2.5 a second  1 min 44 s left"
    )
