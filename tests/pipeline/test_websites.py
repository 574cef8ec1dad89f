"""A website as the source of a run: one command from URL to model; killed, stopped, changed and forgotten."""

import random
import signal

import pytest

from commands import Command, wait_for
from crystalline.corpus import stage
from crystalline.corpus.crawl import store
from crystalline.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK
from crystalline.events import read
from crystalline.run_folder import RunFolder, read_json
from mock_site import DELAY, MockSite
from mock_site import site_pages as site

PAGES = 14
WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "that",
    "was",
    "his",
    "it",
    "with",
    "as",
    "had",
    "her",
    "for",
    "on",
    "at",
    "by",
]
WORDS += [
    "not",
    "they",
    "were",
    "is",
    "have",
    "this",
    "one",
    "said",
    "would",
    "all",
    "when",
    "there",
    "been",
    "their",
]
WORDS += ["more", "no", "who", "out", "so", "up", "into", "them", "like", "then", "but", "which", "from", "she", "he"]


def sentences(size, seed):
    """Prose of at least so many characters."""
    source, text = random.Random(seed), ""
    while len(text) < size:
        words = [WORDS[int(source.random() * len(WORDS))] for _ in range(6 + int(source.random() * 9))]
        text += " ".join(words).capitalize() + ". "
    return text.strip()


def article(number, words="The quick brown fox"):
    """A page with a menu, a main text and a footer."""
    text = "".join(f"<p>{sentences(1200, seed=100 * number + part)}</p>" for part in range(3))
    menu = "".join(f'<li><a href="/page/{n}">Page {n}</a></li>' for n in range(1, PAGES))
    return (
        f"<html lang=en><head><title>Article {number}</title></head><body><nav><ul>{menu}</ul></nav>"
        f"<main><article><h1>{words} {number}</h1>{text}</article></main><footer>Imprint</footer></body></html>"
    )


@pytest.fixture
def mock(tmp_path):
    with MockSite(tmp_path / "mock") as found:
        pages = {f"{site.SMALL}/page/{n}": article(n) for n in range(1, PAGES)}
        found.change(pages={f"{site.SMALL}/": article(0), **pages})
        yield found


@pytest.fixture
def run(mock, tmp_path, tiny_settings, cllm):
    choices = {**tiny_settings, "crawl.delay": DELAY, "corpus.held_out": 0.2, "tokenizer.vocabulary_size": 320}
    flags = [word for name, value in choices.items() for word in ("--set", f"{name}={value}")]
    code, _, err = cllm("new", tmp_path / "run", "--from", mock.url(site.SMALL), *flags)
    assert code == EXIT_OK, err
    return tmp_path / "run"


def corpus(run):
    """{source: text} of both sides."""
    found = {}
    for side in ("train", "held_out"):
        for document in stage.iterate(RunFolder(run), side):
            found[document.source] = found.get(document.source, "") + document.text
    return found


def test_one_command_from_url_to_model(run, mock, cllm):
    code, _, err = cllm("run", run)
    assert code == EXIT_OK, err
    texts = corpus(run)
    urls = {mock.url(site.SMALL, "/")} | {mock.url(site.SMALL, f"/page/{n}") for n in range(1, PAGES)}
    assert set(texts) == urls
    one = texts[mock.url(site.SMALL, "/page/7")]
    assert sentences(1200, seed=700)[:200] in one
    assert "Imprint" not in one
    assert "Page 12" not in one  # the menu
    stages = [event["stage"] for event in read(run / "events.jsonl", "stage.finished")]
    assert stages == ["crawl", "corpus", "tokenizer", "shards", "codes"]
    known = {entry["source"]: entry for entry in stage.records(RunFolder(run), "sources")}
    assert known[mock.url(site.SMALL, "/page/7")]["title"] == "The quick brown fox 7"
    assert known[mock.url(site.SMALL, "/page/7")]["fetched"]
    report = read_json(run / "corpus" / "report.json")["documents"]
    assert report["in"] == report["kept"] + sum(report["removed"].values())
    code, out, _ = cllm("trace", run, sentences(1200, seed=700)[100:180])
    assert code == EXIT_OK
    assert "/page/7" in out
    assert cllm("generate", run, "-p", "the", "-n", "5")[0] == EXIT_OK

    asked = mock.count()
    code, out, _ = cllm("run", run)
    assert code == EXIT_OK
    assert "done already" in out
    assert mock.count() == asked


def test_all_in_one(mock, cllm, tmp_path, tiny_settings):
    """`cllm run --from URL` makes the run; again it is the same run; for another source it is refused."""
    flags = [f"--set={name}={value}" for name, value in {**tiny_settings, "crawl.delay": DELAY}.items()]
    words = ["run", tmp_path / "all", "--from", mock.url(site.SMALL)]
    code, out, err = cllm(*words, *flags, "--set=corpus.held_out=0.2", "--set=tokenizer.vocabulary_size=320")
    assert code == EXIT_OK, err
    assert "is trained to step 6" in out
    code, out, err = cllm(*words)
    assert (code, err) == (EXIT_OK, "")
    assert "done already" in out
    code, _, err = cllm("run", tmp_path / "all", "--from", tmp_path)
    assert code == EXIT_FAILED
    assert mock.url(site.SMALL) in err
    assert "fix: " in err


def test_a_page_that_is_forgotten_is_not_in_the_next_text(run, mock, cllm):
    assert cllm("clean", run)[0] == EXIT_OK
    page = mock.url(site.SMALL, "/page/3")
    assert page in corpus(run)
    assert cllm("forget", run, page)[0] == EXIT_OK
    asked = mock.count()
    assert cllm("clean", run)[0] == EXIT_OK
    assert set(corpus(run)).isdisjoint({page})
    assert mock.count() == asked, "what is fetched already is not fetched again"


def test_a_crawl_by_itself_is_a_source(run, mock, cllm, tmp_path, tiny_settings):
    crawled, other = tmp_path / "site", tmp_path / "other"
    assert cllm("crawl", mock.url(site.SMALL), "--into", crawled, "--delay", DELAY)[0] == EXIT_OK
    assert cllm("clean", run)[0] == EXIT_OK
    flags = ["--set", "corpus.held_out=0.2"]
    assert cllm("new", other, "--from", crawled, *flags)[0] == EXIT_OK
    assert cllm("clean", other)[0] == EXIT_OK
    assert corpus(other) == corpus(run)
    # Into a run that has no website among its sources: its text and the pages.
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text(sentences(9000, seed=7))
    third = tmp_path / "third"
    assert cllm("new", third, "--from", tmp_path / "notes", "--set", f"crawl.delay={DELAY}")[0] == EXIT_OK
    assert cllm("crawl", mock.url(site.SMALL), "--into", third)[0] == EXIT_OK
    assert cllm("clean", third)[0] == EXIT_OK
    assert {*corpus(run), str(tmp_path / "notes" / "a.txt")} == set(corpus(third))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_ended_while_it_crawls_it_goes_on_and_has_the_same_text(run, mock, cllm, tmp_path, how):
    """Killed, or stopped by Ctrl-C, when some pages are there: the text is that of an undisturbed crawl."""
    undisturbed = tmp_path / "undisturbed"
    crawl = undisturbed / "crawl"
    RunFolder.create(undisturbed, (run / "crystalline.toml").read_text())
    assert cllm("clean", undisturbed)[0] == EXIT_OK
    before = mock.count()
    with Command("run", run, "--quiet", "--set", "crawl.delay=0.1", folder=tmp_path) as command:
        wait_for(lambda: mock.count() >= before + 5)
        command.kill(how)
        assert command.wait().code == (-signal.SIGKILL if how == signal.SIGKILL else EXIT_INTERRUPTED)
    assert not (run / "corpus").exists()
    assert cllm("clean", run)[0] == EXIT_OK
    assert corpus(run) == corpus(undisturbed)
    assert [page.url for page in store.pages(run / "crawl")] == [page.url for page in store.pages(crawl)]
    assert mock.count() - before <= len(corpus(run)) + 4 + 2, "a page, robots.txt and the sitemap twice at most"


def test_a_site_without_a_page_is_told_with_reasons(mock, tmp_path, cllm):
    code, _, _ = cllm("new", tmp_path / "run", "--from", mock.url(site.SMALL, "/no/1"))
    assert code == EXIT_OK
    code, _, err = cllm("run", tmp_path / "run")
    assert code == EXIT_FAILED
    assert "no page could be fetched" in err
    assert "robots" in err
    assert "fix: " in err


def test_urls_that_are_none(tmp_path, cllm):
    for wrong in ("https://", "http://exa mple.org", "https://[bad"):
        code, _, err = cllm("new", tmp_path / "run", "--from", wrong)
        assert code != EXIT_OK
        assert wrong in err
        assert not (tmp_path / "run").exists()
