"""Crawler: from a server's answer to what it means for a URL. Nothing here remembers anything."""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from crystalline.corpus.crawl import reading, robots, scope, urls
from crystalline.corpus.crawl.outcomes import (
    Claim,
    Failure,
    Gone,
    Map,
    Outcome,
    Redirect,
    Rules,
    Skip,
    Stored,
    Unchanged,
)
from crystalline.settings import Crawl

REDIRECTS = (301, 302, 303, 307, 308)
GONE = (404, 410)
BUSY = (429, 503)  # "not now", said of the whole host
PASSING = (408, 425, 500, 502, 504, *range(520, 531), *BUSY)  # another try may help


@dataclass(frozen=True)
class Answer:
    """What came over the network.

    headers: name in small letters -> its values. stopped: the body was not taken, since its type is not wanted.
    """

    status: int
    headers: Mapping[str, Sequence[str]]
    body: bytes = b""
    stopped: bool = False

    def header(self, name: str) -> str:
        """The last value of a header, or ""."""
        return ["", *self.headers.get(name, ())][-1].strip()


def meaning(claim: Claim, answer: Answer, settings: Crawl, agent: str) -> Outcome:
    """What an answer to `claim` comes to. agent: our product token."""
    status = answer.status
    if status in REDIRECTS and answer.header("location"):
        return _redirect(claim, answer)
    if status in PASSING:
        after = seconds_of(answer.header("retry-after")) if status in BUSY else None
        return Failure(f"HTTP {status}", status, again=True, busy=status in BUSY, after=after)
    if claim.kind == "robots":
        # RFC 9309 section 2.3.1: where there is none (4xx), everything is allowed.
        if status >= 500:
            return Failure(f"HTTP {status}", status, again=True)
        return Rules(robots.text_of(answer.body) if 200 <= status < 300 else "", status)
    if status == 304 and (claim.etag or claim.modified):
        return Unchanged()
    if status in GONE:
        return Gone(status)
    if status not in (200, 203):
        return Failure(f"HTTP {status}", status)
    return _page(claim, answer, settings, agent)


def seconds_of(text: str, now: datetime | None = None) -> float | None:
    """A Retry-After in seconds from now; RFC 9110 section 10.2.3: seconds, or a date. None when it is neither."""
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())


def media_type_of(header: str) -> tuple[str, str]:
    """(media type, charset) of a Content-Type header."""
    first, *parameters = header.split(";")
    charset = next((p.partition("=")[2] for p in parameters if p.strip().lower().startswith("charset=")), "")
    return first.strip().lower(), charset.strip(" \"'")


def wanted_by_header(header: str, settings: Crawl) -> bool:
    """Whether a Content-Type is worth the body: it is wanted, leads on, or says little."""
    media_type = media_type_of(header)[0]
    found = scope.type_of(media_type)
    if found is None:
        return not media_type.startswith(("image/", "audio/", "video/", "font/"))
    return found in (*settings.types, "html", "text", "xml")  # the last two may be sitemaps


def _redirect(claim: Claim, answer: Answer) -> Outcome:
    try:
        target = urls.normal(answer.header("location"), claim.address)
    except urls.Unusable:
        return Rules("", answer.status) if claim.kind == "robots" else Failure("broken redirect", answer.status)
    if claim.kind == "robots":
        return Redirect(target, answer.status) if claim.hops < robots.MOST_REDIRECTS else Rules("", answer.status)
    if target == claim.url:
        return Failure("redirect to itself", answer.status)
    return Redirect(target, answer.status)


def _page(claim: Claim, answer: Answer, settings: Crawl, agent: str) -> Outcome:
    declared, charset = media_type_of(answer.header("content-type"))
    if answer.stopped:
        return Skip(scope.OTHER_TYPE, answer.status)
    if not answer.body.strip():
        return Skip("empty", answer.status)
    by_ending = mimetypes.guess_type(urls.stem(claim.url))[0] or ""
    found = reading.media_type(answer.body, declared, by_ending)
    etag, modified = answer.header("etag"), answer.header("last-modified")
    if found == reading.MAP or (claim.kind == "map" and found in ("application/gzip", "text/plain")):
        if not settings.sitemaps:
            return Skip(scope.OTHER_TYPE, answer.status)
        pages, maps = reading.links_of_map(answer.body, claim.url, settings.max_bytes)
        return Map(pages, maps, etag, modified)
    if claim.kind == "map":
        return Skip("no sitemap", answer.status)
    html = found in reading.HTML
    encoding = reading.encoding(answer.body, charset, html) if scope.is_text(found) else ""
    said = answer.headers.get("x-robots-tag", ())
    links = reading.Links(noindex="noindex" in robots.directives(said, agent))
    if html:
        links = reading.links_of_page(answer.body, encoding, claim.url, agent, list(said))
    if links.noindex or scope.type_of(found) not in settings.types:
        binary = declared in reading.HTML and not html
        reason = "noindex" if links.noindex else "binary" if binary else scope.OTHER_TYPE
        return Skip(reason, answer.status, links.follow, links.nofollow, links.maps)
    return Stored(
        answer.body, found, encoding, answer.status, etag, modified, answer.header("content-language"),
        links.canonical, links.follow, links.nofollow, links.maps,
    )  # fmt: skip
