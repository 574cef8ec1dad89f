"""Corpus, steps 1 and 2: everything that the sources of a run have, files and crawled pages, and the text in each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from crystalline.corpus.crawl import store
from crystalline.corpus.extract.extraction import Extracted, Raw, extract
from crystalline.corpus.files import File, Skipped, is_crawl, is_url, walk
from crystalline.settings import Corpus, Extract


@dataclass(frozen=True, slots=True)
class StoredPage:
    """A page of a crawl.

    source: its URL. folder: of the crawl. hash, size: of its bytes.
    """

    source: str
    folder: Path
    hash: str
    size: int


Found = File | StoredPage


def crawls(settings: Corpus, own: Path) -> list[Path]:
    """The folders of crawls whose pages are among the sources: those that are named, and the run's own, if any."""
    named = {Path(name).expanduser() for name in settings.source if not is_url(name)}
    return [folder for folder in [*sorted(named), own] if is_crawl(folder)]


def everything(settings: Corpus, own_crawl: Path) -> Iterator[Found | Skipped]:
    """All files below the sources, then all pages to use of its crawls.

    The order depends on their names only. Raises UserError as `walk` and `store.pages` do.
    """
    yield from walk(settings)
    for folder in crawls(settings, own_crawl):
        for url, digest, size in store.listing(folder):
            yield StoredPage(url, folder, digest, size)


def texts(found: Found, settings: Extract) -> Iterator[Extracted | Skipped]:
    """What a file or page has in it: its texts, or why it has none. Raises UserError as `extract` does."""
    if isinstance(found, File):
        yield from extract(Raw(found.source, found.path), settings)
        return
    page = store.page(found.folder, found.source)
    if not page.metadata["main_text"]:
        settings = settings.model_copy(update={"everything": True})
    known = {name: value for name, value in page.metadata.items() if name != "main_text"} | {"fetched": page.fetched}
    for text in extract(Raw(page.url, None, page.data, page.media_type, page.encoding), settings):
        yield text if isinstance(text, Skipped) else replace(text, metadata=known | text.metadata)
