"""Crawler: what is in an answer. What it really is, its encoding, and the links of a page, sitemap or feed.

Headers are hints: a picture may come as text/html, and a page in another encoding than it says.
"""

from __future__ import annotations

import codecs
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from lxml import etree

from crystalline.corpus.crawl import robots, urls

HTML = ("text/html", "application/xhtml+xml")
MAP = "map"  # what `media_type` says of sitemaps and feeds
BINARY = "application/octet-stream"
_MAGIC = (
    (b"%PDF-", "application/pdf"), (b"\x89PNG\r\n", "image/png"), (b"GIF8", "image/gif"),
    (b"\xff\xd8\xff", "image/jpeg"), (b"II*\0", "image/tiff"), (b"MM\0*", "image/tiff"),
    (b"\x1f\x8b", "application/gzip"), (b"{\\rtf", "application/rtf"),
    (b"BZh", "application/x-bzip2"), (b"\xfd7zXZ", "application/x-xz"), (b"\x7fELF", BINARY), (b"MZ", BINARY),
    (b"OggS", "audio/ogg"), (b"ID3", "audio/mpeg"), (b"\0asm", BINARY), (b"RIFF", BINARY), (b"wOF", "font/woff"),
    (b"\xd0\xcf\x11\xe0", "application/msword"), (b"SQLite format 3\0", BINARY),
)  # fmt: skip
_ZIPPED = re.compile(r"application/(zip|epub|.*zip|vnd\.)|.*opendocument.*")
_MAP_ROOT = re.compile(
    rb"\s*(<\?xml[^>]*>|<!--.*?-->|<!DOCTYPE[^>]*>|\s)*<(\w+:)?(rss|feed|urlset|sitemapindex|RDF)\b", re.S
)
_HTML_START = re.compile(
    rb"\s*(<\?xml[^>]*>|<!--.*?-->|\s)*<(!doctype html|html|head|body|title|meta|p|h1|div)\b", re.S | re.I
)
_META_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w.:-]+)""", re.I)
_REFRESH = re.compile(r"^\s*[\d.]*\s*[;,]\s*(?:url\s*=\s*)?[\"']?([^\"']+)", re.I)
_LOOKED_AT = 4_096
_NO_FOLLOW = {"nofollow", "ugc", "sponsored"}


@dataclass
class Links:
    """What a page says of itself and of others. URLs are in normal form."""

    follow: list[str] = field(default_factory=list)  # in the order of the page, each once
    nofollow: list[str] = field(default_factory=list)
    maps: list[str] = field(default_factory=list)  # feeds
    canonical: str = ""
    noindex: bool = False


def media_type(data: bytes, declared: str, url_type: str = "") -> str:
    """The media type that bytes really have; `MAP` for sitemaps and feeds.

    declared: of the Content-Type header, without parameters. url_type: one that the ending of the URL speaks for.
    """
    for magic, found in _MAGIC:
        if data.startswith(magic):
            # Old Office files, and others that begin alike, are what they say they are.
            return (
                declared
                if found in ("application/msword", BINARY) and declared.startswith("application/vnd.")
                else found
            )
    if data.startswith(b"PK\x03\x04"):
        return declared if _ZIPPED.match(declared) else url_type or "application/zip"
    if _is_binary(data):
        return declared if declared.startswith(("image/", "audio/", "video/", "font/")) else BINARY
    start = data[:_LOOKED_AT]
    if _MAP_ROOT.match(start.removeprefix(codecs.BOM_UTF8)):
        return MAP
    if declared in ("", BINARY, "application/x-unknown", "unknown/unknown"):
        return "text/html" if _HTML_START.match(start) else url_type or "text/plain"
    return declared


def encoding(data: bytes, declared: str, html: bool) -> str:
    """The name of a text's encoding, as Python has it; "" when nothing fits.

    A mark at the beginning counts first; then what is valid UTF-8 is UTF-8, since other text hardly ever is by
    chance; then what the header says, then what the page says, if the bytes can be read so.
    """
    for mark, name in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if data.startswith(mark):
            return name
    found = _META_CHARSET.search(data[:_LOOKED_AT]) if html else None
    said = [declared, found[1].decode("ascii", "replace") if found else ""]
    if b"\x1b" in data or declared.lower().startswith(("utf-16", "utf-32")):
        said.append("utf-8")  # ISO-2022-JP and its like are ASCII to the eye
    else:
        said.insert(0, "utf-8")
    for name in said:
        try:
            name = codecs.lookup(name.strip("\"' ")).name
            data.decode(name)
        except (LookupError, ValueError):
            continue
        # Browsers read Latin-1 as its extension by Microsoft.
        return "cp1252" if name in ("iso8859-1", "ascii") and _reads(data, "cp1252") else name
    return ""


def links_of_page(data: bytes, encoding: str, url: str, agent: str, header: list[str]) -> Links:
    """The links of an HTML page.

    url: its own. agent: our product token. header: values of X-Robots-Tag.
    """
    found = Links()
    said = robots.directives(header, agent)
    text = data.decode(encoding or "utf-8", "replace").replace("\0", " ")
    base = url
    pairs: list[tuple[str, bool]] = []
    tree = _html(text)
    for node in [] if tree is None else tree.iter("base", "a", "area", "link", "meta", "iframe", "frame"):
        rel = set(node.get("rel", "").lower().split())
        if node.tag == "base" and base == url and node.get("href"):
            base = _normal(node.get("href"), url) or url
        elif node.tag == "meta":
            name = node.get("name", "").strip().lower()
            if name in ("robots", agent):
                said |= robots.directives([node.get("content", "")], agent)
            refresh = node.get("http-equiv", "").strip().lower() == "refresh"
            if refresh and (target := _REFRESH.match(node.get("content", ""))):
                pairs.append((target[1], False))
        elif node.tag == "link" and node.get("href"):
            kind = node.get("type", "").strip().lower()
            if "canonical" in rel:
                found.canonical = found.canonical or _normal(node.get("href"), base)
            elif "alternate" in rel and kind in ("application/rss+xml", "application/atom+xml"):
                found.maps.append(_normal(node.get("href"), base))
            elif rel & {"next", "prev", "alternate"}:
                pairs.append((node.get("href"), False))
        elif target_of := node.get("src" if node.tag in ("iframe", "frame") else "href"):
            pairs.append((target_of, bool(rel & _NO_FOLLOW)))
    seen: dict[str, bool] = {}
    for target_text, nofollow in pairs:
        if normal := _normal(target_text, base):
            seen[normal] = seen.get(normal, True) and nofollow
    everything = "nofollow" in said
    found.follow = [target for target, nofollow in seen.items() if not (nofollow or everything)]
    found.nofollow = [target for target, nofollow in seen.items() if nofollow or everything]
    found.maps = [] if everything else [feed for feed in found.maps if feed]
    found.noindex = "noindex" in said
    return found


def links_of_map(data: bytes, url: str, most_bytes: int) -> tuple[list[str], list[str]]:
    """(pages, further sitemaps) in a sitemap (XML, text, either in gzip), an RSS or an Atom feed."""
    if data.startswith(b"\x1f\x8b"):
        try:
            data = zlib.decompressobj(31).decompress(data, most_bytes)
        except zlib.error:
            return [], []
    parser = etree.XMLParser(resolve_entities=False, no_network=True, recover=True, huge_tree=False)
    try:
        root = etree.fromstring(data.strip(), parser)
    except (etree.XMLSyntaxError, ValueError):
        root = None
    if root is None or not isinstance(root.tag, str):
        lines = data.decode("utf-8", "replace").split()
        return _all_normal((line for line in lines if line.startswith(("http://", "https://"))), url), []
    name = _local(root)
    if name == "sitemapindex":
        return [], _all_normal(_texts(root, "loc"), url)
    if name == "urlset":
        return _all_normal(_texts(root, "loc"), url), []
    entries = [node for node in root.iter() if isinstance(node.tag, str) and _local(node) in ("item", "entry")]
    found = []
    for entry in entries:
        for link in (node for node in entry if isinstance(node.tag, str) and _local(node) == "link"):
            if link.get("rel", "alternate") == "alternate":
                found.append(link.get("href") or link.text or "")
    return _all_normal(found, url), []


def _html(text: str) -> etree._Element | None:
    parser = etree.HTMLParser(encoding="utf-8", recover=True, no_network=True, remove_comments=True)
    try:
        return etree.fromstring(text.encode("utf-8", "replace"), parser)
    except (etree.XMLSyntaxError, ValueError):
        return None


def _normal(text: str, base: str) -> str:
    try:
        return urls.normal(text, base)
    except urls.Unusable:
        return ""


def _all_normal(texts: Iterator[str] | list[str], base: str) -> list[str]:
    return list(dict.fromkeys(found for text in texts if (found := _normal(text, base))))


def _local(node: etree._Element) -> str:
    return str(etree.QName(node).localname)


def _texts(root: etree._Element, name: str) -> list[str]:
    return [node.text or "" for node in root.iter() if isinstance(node.tag, str) and _local(node) == name]


def _reads(data: bytes, name: str) -> bool:
    try:
        data.decode(name)
    except ValueError:
        return False
    return True


def _is_binary(data: bytes) -> bool:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF8)):
        return False
    start = data[:_LOOKED_AT]
    zeros = start.count(0)
    if zeros > len(start) // 4 and (not any(start[::2]) or not any(start[1::2])):
        return False  # UTF-16 of plain English
    controls = sum(1 for byte in start if byte < 32 and byte not in b"\t\n\r\f\x1b\x1a")
    return controls > len(start) // 50
