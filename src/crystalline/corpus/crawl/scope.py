"""Crawler: which URLs belong to a crawl, and the rules (by exact URL, domain, prefix or pattern) that say so."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import get_args

from crystalline.corpus.crawl import urls
from crystalline.corpus.crawl.addresses import is_loopback_name, is_public, permitted
from crystalline.errors import EXIT_USAGE, UserError, suggest
from crystalline.settings import Crawl, PageType

KINDS = ("exact", "domain", "prefix", "pattern")

# Why a URL was not fetched, where a change of settings can change it.
OFF_DOMAIN, NOT_ALLOWED, DENIED, OTHER_TYPE, TOO_DEEP = (
    "other domain",
    "not allowed",
    "denied",
    "other type",
    "too deep",
)
PRIVATE, NO_FOLLOW, ROBOTS, BLOCKED, TOO_MANY_QUERIES = (
    "private address", "nofollow", "robots.txt", "blocked", "many queries",
)  # fmt: skip

# Type -> its media types, and the endings of its URLs. "*" at the end of a media type stands for anything.
TYPES: dict[PageType, tuple[str, str]] = {
    "html": ("text/html application/xhtml+xml", "html htm xhtml shtml php php5 asp aspx jsp jspx cgi do pl cfm"),
    "text": ("text/plain text/markdown text/x-rst text/org", "txt text md markdown rst org adoc tex"),
    "code": (
        "text/x-* text/javascript application/javascript application/x-javascript text/css application/x-sh",
        "py c h cc cpp hpp java js mjs ts css rs go rb sh sql lua swift kt scala hs ml r jl",
    ),
    "pdf": ("application/pdf application/x-pdf", "pdf"),
    "office": (
        "application/msword application/rtf text/rtf application/vnd.openxmlformats-officedocument.* "
        "application/vnd.oasis.opendocument.* application/vnd.ms-excel application/vnd.ms-powerpoint",
        "doc docx rtf odt xls xlsx ods ppt pptx odp",
    ),
    "epub": ("application/epub+zip", "epub"),
    "csv": ("text/csv text/tab-separated-values", "csv tsv"),
    "json": ("application/json application/x-ndjson application/ld+json", "json jsonl ndjson"),
    "xml": ("application/xml text/xml", "xml"),
    "mail": ("message/rfc822 application/mbox", "eml mbox"),
    "image": ("image/png image/jpeg image/tiff image/webp image/bmp image/gif", "png jpg jpeg tif tiff webp bmp gif"),
    "archive": (
        "application/zip application/x-tar application/gzip application/x-gzip application/x-bzip2 application/x-xz",
        "zip tar gz tgz bz2 xz",
    ),
}
assert set(TYPES) == set(get_args(PageType))
# Endings of what never holds text for training; other unknown endings are looked at.
_OTHER = frozenset(
    {
        "ico",
        "svg",
        "psd",
        "heic",
        "avif",
        "mp3",
        "mp4",
        "m4a",
        "m4v",
        "wav",
        "flac",
        "ogg",
        "opus",
        "aac",
        "avi",
        "mov",
    }
    | {"mkv", "webm", "wmv", "woff", "woff2", "ttf", "otf", "eot", "swf", "map", "exe", "msi", "dmg", "iso", "apk"}
    | {"deb", "rpm", "jar", "whl", "bin", "so", "dll", "wasm", "7z", "rar", "zst", "sqlite", "db", "parquet", "npy"}
)
_OF_ENDING: dict[str, PageType] = {ending: name for name, (_, endings) in TYPES.items() for ending in endings.split()}


def type_of(media_type: str) -> PageType | None:
    """The type that a media type ("text/html") belongs to."""
    for name, (patterns, _) in TYPES.items():
        for pattern in patterns.split():
            if media_type == pattern or (pattern.endswith("*") and media_type.startswith(pattern[:-1])):
                return name
    return None


def type_of_ending(url: str) -> PageType | None:
    """The type that the ending of a URL speaks for."""
    return _OF_ENDING.get(urls.extension(url))


def is_text(media_type: str) -> bool:
    """Whether bytes of a media type are characters in some encoding."""
    return type_of(media_type) in ("html", "text", "code", "csv", "json", "xml")


@dataclass(frozen=True)
class Rule:
    """A set of URLs: one (exact), those of a domain and below it, those that begin with, or match, a text.

    In a pattern `*` stands for anything; after "re:" it is a regular expression, found anywhere. Both, and prefixes,
    may leave out "https://".
    """

    kind: str
    text: str

    @classmethod
    def parse(cls, text: str, kind: str = "") -> Rule:
        """The rule that a person means. Without a kind: a pattern if there is a `*`, a domain if there is no `/`."""
        if not kind:
            if text.startswith("re:") or "*" in text:
                kind = "pattern"
            else:
                kind = "exact" if "/" in text else "domain"
        if kind not in KINDS:
            raise UserError("could not read the rule", f"'{kind}' is no kind", suggest(kind, KINDS), EXIT_USAGE)
        try:
            if kind == "exact":
                text = urls.normal(text if "://" in text else f"https://{text}")
            elif kind == "domain":
                text = urls.host(urls.normal(f"https://{text.removeprefix('*.')}"))
            rule = cls(kind, text)
            rule._expression  # noqa: B018
        except (urls.Unusable, re.error) as error:
            raise UserError(
                f"could not read the rule '{text}'", f"as {kind}: {error}",
                "give a URL, a domain (example.org), or a pattern with * or re: in front", EXIT_USAGE,
            ) from error  # fmt: skip
        return rule

    def matches(self, url: str) -> bool:
        """Whether a URL (in normal form) is in the set."""
        if self.kind == "domain":
            return permitted(urls.host(url), [self.text])
        if self.kind == "prefix":
            return url.startswith(self.text) or urls.bare(url).startswith(self.text)
        if self.kind == "exact":
            return urls.bare(url) == urls.bare(self.text)
        expression = self._expression
        if self.text.startswith("re:"):
            return expression.search(url) is not None
        return expression.fullmatch(url) is not None or expression.fullmatch(urls.bare(url)) is not None

    @cached_property
    def _expression(self) -> re.Pattern[str]:
        if self.text.startswith("re:"):
            return re.compile(self.text[3:])
        return re.compile(".*".join(re.escape(part) for part in self.text.split("*")), re.DOTALL)


def any_of(rules: Iterable[Rule], url: str) -> bool:
    """Whether one of the rules matches."""
    return any(rule.matches(url) for rule in rules)


@dataclass
class Scope:
    """What belongs to a crawl.

    hosts: those of the start URLs. local: those of them that are this machine's or its network's own.
    blocked: rules that the user gave with `cllm crawl urls block`.
    """

    settings: Crawl
    hosts: Sequence[str]
    local: Sequence[str] = ()
    blocked: list[Rule] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._allow = [Rule.parse(text, "" if _special(text) else "prefix") for text in self.settings.allow]
        self._deny = [Rule.parse(text, "" if _special(text) else "prefix") for text in self.settings.deny]
        self._hosts = {name for host in self.hosts for name in (host, _other_www(host))}
        self._domains = [
            urls.host(urls.normal(f"http://{name.removeprefix('*.')}")) for name in self.settings.domains
        ]
        # Who starts on the own network means the own network by the domains, too.
        named_local = self._domains if self.local and set(self.hosts) <= set(self.local) else []
        self.may_be_private = [*self.local, *named_local]

    def refuses(self, url: str, depth: int) -> str:
        """Why a URL (in normal form) is not fetched; "" when it is. depth: 0 for a start URL."""
        host = urls.host(url)
        if any_of(self.blocked, url):
            return BLOCKED
        if not permitted(host, self.may_be_private) and (is_loopback_name(host) or _private_number(host)):
            return PRIVATE
        if depth == 0:
            return ""
        if not (permitted(host, self._domains) if self._domains else host in self._hosts):
            return OFF_DOMAIN
        if found := urls.trap(url):
            return found
        if any_of(self._deny, url):
            return DENIED
        if self._allow and not any_of(self._allow, url):
            return NOT_ALLOWED
        of = type_of_ending(url)
        # A web page that is not wanted leads to what is.
        if urls.extension(url) in _OTHER or (of and of != "html" and of not in self.settings.types):
            return OTHER_TYPE
        return TOO_DEEP if depth > self.settings.depth else ""


def _special(text: str) -> bool:
    return text.startswith("re:") or "*" in text or "/" not in text


def _other_www(host: str) -> str:
    return host[4:] if host.startswith("www.") else f"www.{host}"


def _private_number(host: str) -> bool:
    return (":" in host or host.replace(".", "").isdigit()) and not is_public(host)
