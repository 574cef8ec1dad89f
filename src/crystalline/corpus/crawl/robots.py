"""Crawler: what a site allows. RFC 9309 for robots.txt; the robots of a page and of an answer's header."""

from __future__ import annotations

from collections.abc import Iterable

from protego import Protego

MOST_BYTES = 512_000  # of a robots.txt that are read; RFC 9309 section 2.5 asks for 500 KiB
SECONDS_VALID = 86_400.0  # RFC 9309 section 2.4: not longer than a day
MOST_REDIRECTS = 5  # RFC 9309 section 2.3.1.2
NOTHING_SAID = ""


class Robots:
    """The rules of one site for us.

    text: of its robots.txt. agent: our product token, the beginning of the user agent.
    """

    def __init__(self, text: str, agent: str) -> None:
        self._rules, self._agent = Protego.parse(text), agent

    def allowed(self, url: str) -> bool:
        """Whether a URL of the site may be fetched."""
        return bool(self._rules.can_fetch(url, self._agent))

    @property
    def delay(self) -> float:
        """Seconds between two requests that the site asks for; 0 when it does not."""
        rate = self._rules.request_rate(self._agent)
        asked = rate.seconds / rate.requests if rate and rate.requests else 0.0
        return max(self._rules.crawl_delay(self._agent) or 0.0, asked)

    @property
    def sitemaps(self) -> list[str]:
        return list(self._rules.sitemaps)


def text_of(body: bytes) -> str:
    """A robots.txt as text. What is none (a picture, a page about an error) has no rules in it."""
    return body[:MOST_BYTES].decode("utf-8-sig", errors="replace").replace("\0", "")


def product_token(user_agent: str) -> str:
    """ "crystalline" of "crystalline/0.1 (+https://example.org)"."""
    return user_agent.split("/")[0].split()[0].lower() if user_agent.strip() else "*"


def directives(values: Iterable[str], agent: str) -> set[str]:
    """The directives ("noindex", "nofollow") in values of X-Robots-Tag, or of <meta name="robots">.

    A value may be for one agent only: "otherbot: noindex". "none" is both.
    """
    found: set[str] = set()
    for value in values:
        for_us = True
        for part in value.lower().split(","):
            name, colon, rest = part.partition(":")
            if colon and " " not in name.strip() and name.strip() not in _WITH_VALUE:
                for_us = name.strip() in (agent, "*")  # and so are the parts after it
                part = rest
            if for_us:
                found.add(part.strip())
    return found | ({"noindex", "nofollow"} if "none" in found else set())


_WITH_VALUE = {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}
