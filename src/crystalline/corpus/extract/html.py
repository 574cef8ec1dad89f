"""Web pages: the main text by trafilatura with what it knows of title, author and date; or everything that shows.

Layout is told by line ends: a blank line between paragraphs, a line for each item of a list and row of a table
(a tab between cells), code as it is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from lxml import etree
from lxml.html import HtmlElement, HTMLParser, document_fromstring

from crystalline.corpus.decoding import MARKS, NotText, encoding_of, is_text_encoding
from crystalline.corpus.extract.item import Item, Text, Unreadable
from crystalline.settings import Extract

_DECLARED = re.compile(rb"""<(?:meta\b[^>]*?\bcharset|\?xml\b[^>]*?\bencoding)\s*=\s*["']?\s*([\w.:-]+)""", re.I)
DECLARATION_WITHIN = 4096  # bytes

# Classes that say how a page is divided, and nothing about what is in its parts.
_GRID = re.compile(
    r"(?:col|row|grid|container|wrapper|section|box|card|widget|block|inner|elementor|vc)(?![a-z])", re.I
)
SENTENCES = 120  # letters in paragraphs, from which on an element holds a text

SHORT = 250  # letters of main text; trafilatura takes pages with fewer as they are
_FRAME_TAGS = frozenset({"nav", "header", "footer", "aside", "form", "dialog"})
_FRAME_ROLES = frozenset({"navigation", "banner", "contentinfo", "search", "dialog", "alertdialog", "complementary"})
_FRAME_NAMES = re.compile(
    r"\b(?:nav(?:bar|igation)?|menu|footer|sidebar|cookies?|consent|breadcrumbs?|comments)\b", re.I
)

# Dates are judged by what a page says, never by today's, or the same page would give another result tomorrow.
_DATES = {"original_date": True, "extensive_search": False, "max_date": "2100-01-01"}


def read(item: Item, settings: Extract) -> Text:
    """The main text of a page, or with `everything` all that a reader sees. Raises Unreadable."""
    data = item.whole(settings.max_file_mb)
    tree = parse(decode(data, item.encoding))
    metadata = _metadata(tree, item.source)
    if settings.everything:
        return Text("prose", shown(tree), metadata)
    return Text("prose", main_text(tree), metadata)


def decode(data: bytes, declared: str = "") -> str:
    """The characters of a page: by a byte order mark; as UTF-8 when it is that, whatever it says; by what the server
    `declared`, by what the page says, or by a guess. Raises NotText when it is no text at all.
    """
    inside = _DECLARED.search(data[:DECLARATION_WITHIN])
    said = [declared, inside.group(1).decode() if inside else ""]
    said = [_web_name(name) for name in said if name and is_text_encoding(name)]
    if b"\0" in data and not data.startswith(tuple(mark for mark, _ in MARKS)):
        raise NotText("binary")
    guess = ""
    for name in said or [""]:
        try:
            guess = encoding_of(data, name)
        except NotText as reason:
            if reason.reason == "binary":
                raise
        if guess == name or guess.startswith("utf-"):
            return data.decode(guess)
    # A few broken bytes are no reason to take a page for one in another encoding, or to lose it.
    as_utf8 = data.decode("utf-8", "replace")
    broken = as_utf8.count("\ufffd")
    if sum(not character.isascii() for character in as_utf8) > 2 * broken:
        return as_utf8
    return data.decode(said[0] if said else guess or "utf-8", "replace")


def parse(text: str) -> HtmlElement:
    """The tree of a page. No part of it is fetched, no entity expanded. Raises Unreadable when it is empty."""
    parser = HTMLParser(encoding="utf-8", no_network=True, remove_comments=True, remove_pis=True, huge_tree=False)
    try:
        return document_fromstring(text.encode("utf-8", "replace"), parser=parser)
    except (etree.ParserError, ValueError) as error:  # nothing in it
        raise Unreadable("no text") from error


def main_text(tree: HtmlElement) -> Iterator[str]:
    """The text of an article or the like, without what surrounds it on every page of its site."""
    body = _main_part(tree)
    if body is None:
        return
    if len("".join(body.itertext())) < SHORT:
        # Of so short a page trafilatura gives all words in a row, also those of menus and footers.
        yield from lines_of(_without_frame(tree))
        return
    # Of a page of several posts or answers, one was found: those beside it that are made alike belong to it.
    bodies = [part for post in _alike(tree, body) if (part := _main_part(_page_of(post))) is not None]
    if sum(_words(part).total() for part in bodies) <= _words(body).total():
        bodies = [body]
    for number, part in enumerate(bodies):
        yield "\n\n" * (number > 0)
        yield from lines_of(part)


def _without_frame(tree: HtmlElement) -> HtmlElement:
    """A copy of a page without its menus, header, footer and dialogs, where they are called so."""
    page = deepcopy(tree)
    for element in list(page.iter(etree.Element)):
        told = f"{element.get('class') or ''} {element.get('id') or ''}"
        named = _FRAME_NAMES.search(told) and element.tag not in ("html", "body", "main", "article")
        if named or element.tag in _FRAME_TAGS or element.get("role") in _FRAME_ROLES:
            element.drop_tree()
    return page


def _main_part(tree: HtmlElement) -> etree._Element | None:
    from trafilatura import bare_extraction

    found = bare_extraction(tree, include_comments=False, include_tables=True, date_extraction_params=_DATES)
    return getattr(found, "body", None)


def _alike(tree: HtmlElement, body: etree._Element) -> list[HtmlElement]:
    """The elements with the tag and classes of the one that holds `body`, if they are texts as well; else []."""
    found = _words(body)
    holder, chain = tree, []
    while holder is not None:  # down to the innermost element that holds nearly all of it
        chain.append(holder)
        holder = next((child for child in holder if (_words(child) & found).total() >= 0.9 * found.total()), None)
    for element in chain:  # the outermost that holds little else
        name = element.get("class") or ""
        if _words(element).total() > 2 * found.total() or not (element.tag == "article" or name) or _GRID.match(name):
            continue
        same = [other for other in tree.iter(element.tag) if (other.get("class") or "") == name and _is_text(other)]
        if len(same) > 1 and not any(other in post.iterancestors() for post in same for other in same):
            return same
    return []


def _page_of(part: HtmlElement) -> HtmlElement:
    page = document_fromstring("<html><body></body></html>")
    page.body.append(deepcopy(part))
    return page


def _words(element: etree._Element) -> Counter[str]:
    return Counter(" ".join(element.itertext()).split()) if isinstance(element.tag, str) else Counter()


def _is_text(element: HtmlElement) -> bool:
    """Whether it holds sentences, and not mostly links."""
    words = _words(element).total()
    linked = sum(_words(link).total() for link in element.iter("a"))
    letters = sum(len("".join(part.itertext())) for part in element.iter("p", "pre", "blockquote"))
    return letters >= SENTENCES and linked < 0.3 * words


def shown(tree: HtmlElement) -> Iterator[str]:
    """All text that a reader sees, menus and all."""
    yield from lines_of(tree)


def _web_name(name: str) -> str:
    # What pages call by these names is in truth Windows-1252 (WHATWG Encoding standard).
    return "cp1252" if name.lower() in ("iso-8859-1", "latin-1", "latin1", "us-ascii", "ascii") else name


def _metadata(tree: HtmlElement, source: str) -> dict[str, Any]:
    from trafilatura.metadata import extract_metadata

    try:
        found = extract_metadata(tree, default_url=source if "://" in source else None, date_config=_DATES)
    except Exception:  # what is said about a page may be broken in any way; its text may still be good
        return {}
    language = (tree.get("lang") or tree.get("{http://www.w3.org/XML/1998/namespace}lang") or "").strip()
    told = {
        "title": found.title,
        "author": found.author,
        "date": found.date,
        "site": found.sitename,
        "description": found.description,
        "url": found.url,
        "license": found.license,
        "language": language[:35],
    }
    return {name: value for name, value in told.items() if value and isinstance(value, str)}


# --- from a tree to lines --------------------------------------------------------------------------------------


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Tags of HTML and of trafilatura's trees (head, list, item, row, cell, quote, lb).
_PARAGRAPHS = _set(
    """
    article aside blockquote caption details dialog dl fieldset figure figcaption footer form h1 h2 h3 h4 h5 h6
    head header hgroup hr list main menu nav ol p pre quote section table ul
    """
)
_LINES = _set(
    """
    address br center dd dir div dt item lb legend li option row summary tbody tfoot thead tr body html
    """
)
_LISTS, _ITEMS = frozenset({"ul", "ol", "list"}), frozenset({"li", "item"})
_ROWS, _CELLS = frozenset({"tr", "row"}), frozenset({"td", "th", "cell"})
_HIDDEN = _set(
    """
    script style template noscript title meta link svg math canvas iframe object embed select datalist button
    input textarea audio video map
    """
)
_NOT_DISPLAYED = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.I)
_SPACE = re.compile(r"[ \t\n\r\f\v\u00a0]+")
_ITEM = "- "
LONGEST_CELL = 300  # characters; a table with a longer one is there for the layout


def lines_of(tree: etree._Element) -> Iterator[str]:
    """The text of a tree of HTML or of trafilatura. Without recursion, so no depth is too deep."""
    page = _Page()
    walk = etree.iterwalk(tree, events=("start", "end"))
    rows: list[bool] = []  # of each open row, innermost last: whether its cells stand in one line
    for event, element in walk:
        tag = element.tag if isinstance(element.tag, str) else ""
        if event == "start":
            if _is_hidden(element, tag):
                walk.skip_subtree()
                continue
            page.space_before(tag)
            if tag in _ROWS:
                rows.append(_is_data(element))
            elif tag in _CELLS:
                _begin_cell(page, element, rows[-1] if rows else False)
            elif tag in _ITEMS and not page.in_row:
                page.begin_item()
            if tag == "pre" or (tag == "code" and _has_lines(element)):
                page.verbatim += 1
            page.add(element.text or "")
            continue
        if _is_hidden(element, tag):
            pass
        elif tag == "pre" or (tag == "code" and _has_lines(element)):
            page.verbatim -= 1
            page.end(2)
        elif tag in _ITEMS and not page.in_row:
            page.end_item()
        elif tag in _ROWS:
            rows.pop()
            page.in_row = False
            page.end(1)
        elif tag not in ("br", "lb"):
            page.space_before(tag)
        if element is not tree:
            page.add(element.tail or "")
        yield from page.take()
    page.end(1)
    yield from page.take()


class _Page:
    """Text being laid out in lines. in_row: within a row of a table, in which all breaks are spaces."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.line: list[str] = []
        self.breaks = 0  # line ends before the next text
        self.started = False
        self.verbatim = 0
        self.in_row = False
        self.items = 0  # of lists, that are open

    def begin_item(self) -> None:
        self.items += 1
        self.add(_ITEM)

    def end_item(self) -> None:
        self.items -= self.items > 0
        if self.line == [_ITEM]:  # an empty one
            self.line = []
        self.end(1)

    def add(self, text: str) -> None:
        if not self.verbatim:
            text = _SPACE.sub(" ", text)
            if not self.line or self.line[-1].endswith((" ", "\t", "\n")):
                text = text.lstrip(" ")
        if text:
            self.line.append(text)

    def space_before(self, tag: str) -> None:
        """What stands around a tag."""
        breaks = 2 if tag in _PARAGRAPHS else 1 if tag in _LINES else 0
        if self.items and tag in _LISTS:
            breaks = 1
        if breaks and self.in_row:
            self.add(" ")
        elif breaks:
            self.end(breaks)

    def end(self, breaks: int) -> None:
        """End the line; a line without text is none."""
        if self.line == [_ITEM]:  # its text is still to come
            return
        text = "".join(self.line)
        text = text.strip("\n").rstrip() if self.verbatim or "\n" in text else text.strip(" ")
        self.line = []
        if text.strip():
            self.done.append("\n" * self.breaks * self.started + text)
            self.started, self.breaks = True, 0
        self.breaks = max(self.breaks, breaks)

    def take(self) -> Iterator[str]:
        yield from self.done
        self.done.clear()


def _begin_cell(page: _Page, cell: etree._Element, in_line: bool) -> None:
    if not in_line:
        page.in_row = False
        page.end(1)
        return
    page.in_row = True
    previous = cell.getprevious()
    if previous is not None and previous.tag in _CELLS:
        page.line = ["".join(page.line).rstrip(" "), "\t"]


def _is_data(row: etree._Element) -> bool:
    """Whether a row of a table holds facts; else it was used to lay out a page."""
    for cell in row:
        if cell.tag in _CELLS:
            blocks = sum(1 for _ in cell.iter("p", "div", "table", "ul", "ol", "h1", "h2", "h3", "pre", "blockquote"))
            if blocks > 1 or len("".join(cell.itertext())) > LONGEST_CELL:
                return False
    return True


def _is_hidden(element: etree._Element, tag: str) -> bool:
    if not tag or tag in _HIDDEN:
        return True
    return element.get("hidden") is not None or bool(_NOT_DISPLAYED.search(element.get("style") or ""))


def _has_lines(element: etree._Element) -> bool:
    return "\n" in "".join(element.itertext())
