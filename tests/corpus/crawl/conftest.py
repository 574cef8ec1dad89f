"""A mock site, and crawls of it."""

import pytest

from crystalline.corpus.crawl import engine
from mock_site import MockSite, quick


@pytest.fixture
def mock(tmp_path):
    """A mock site of one's own."""
    with MockSite(tmp_path / "mock") as found:
        yield found


@pytest.fixture
def crawl(mock, tmp_path):
    """Crawls hosts of the mock site: `crawl("small.localhost", depth=1)` gives the facts; into `crawl.folder`."""

    def call(*hosts, again=False, retry=False, join=False, **more):
        urls = [engine.start_url(mock.url(host)) for host in hosts]
        return engine.crawl(call.folder, urls, quick(**more), again=again, retry=retry, join=join)

    call.folder = tmp_path / "crawl"
    return call
