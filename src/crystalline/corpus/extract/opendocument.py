"""OpenDocument (ISO/IEC 26300): texts, tables and slides of LibreOffice and others: odt, ods, odp."""

from __future__ import annotations

from collections.abc import Iterator

from lxml import etree

from crystalline.corpus.extract.item import Item, Text, Unreadable
from crystalline.corpus.extract.parts import Parts, described, local
from crystalline.settings import Extract

MOST_REPEATED = 1000  # of a cell that is given once with a number of times

_NOT_TEXT = frozenset(
    {"tracked-changes", "annotation", "annotation-end", "forms", "sequence-decls", "variable-decls"}
)
_FRAME = frozenset({"date-time", "footer", "header", "page-number"})


def read(item: Item, settings: Extract) -> Text:
    """Headings, paragraphs, lists, tables, slides and notes in their order."""
    parts = Parts(item, settings.max_file_mb)
    if "META-INF/manifest.xml" in parts.names:
        manifest = parts.tree("META-INF/manifest.xml")
        if any(local(element) == "encryption-data" for element in manifest.iter()):
            raise Unreadable("encrypted")
    body = next(parts.tree("content.xml").iter("{*}body"), None)
    if body is None:
        raise Unreadable("broken", "has no body")
    metadata = described(parts.tree("meta.xml")) if "meta.xml" in parts.names else {}
    return Text("table" if item.format == "ods" else "prose", _lines(body), metadata)


def _lines(body: etree._Element) -> Iterator[str]:
    breaks, begun = 2, False
    walk = etree.iterwalk(body, events=("start", "end"))
    in_item = 0
    for event, element in walk:
        name = local(element)
        if event == "end":
            if name == "list-item":
                in_item -= 1
            elif name in ("table", "list", "page"):
                breaks = 2
            continue
        text = ""
        if name in _NOT_TEXT:
            walk.skip_subtree()
        elif name == "table-row":
            text = _row(element)
            walk.skip_subtree()
        elif name in ("p", "h"):
            text = ("- " if in_item else "") + _text(element).strip()
            text = "" if text == "- " else text
            walk.skip_subtree()
        elif name == "list-item":
            in_item += 1
        elif name == "table":
            breaks = 2
        if text:
            yield "\n" * breaks * begun + text
            begun = True
            breaks = 1 if name == "table-row" or in_item else 2
    if begun:
        yield "\n"


def _row(row: etree._Element) -> str:
    cells: list[str] = []
    for cell in row:
        if local(cell) in ("table-cell", "covered-table-cell"):
            text = " ".join(" ".join(_text(part) for part in cell).split())
            times = next(
                (value for key, value in cell.attrib.items() if key.endswith("}number-columns-repeated")), "1"
            )
            cells += [text] * min(int(times) if times.isdigit() else 1, MOST_REPEATED)
    return "\t".join(cells).rstrip()


def _text(tree: etree._Element) -> str:
    """The text of a paragraph; a note stands in brackets where it belongs."""
    text = []
    walk = etree.iterwalk(tree, events=("start", "end"))
    for event, element in walk:
        name = local(element)
        if event == "start":
            if name in _NOT_TEXT or name in _FRAME or name == "note-citation":
                walk.skip_subtree()
                continue
            if name == "s":
                times = next((value for key, value in element.attrib.items() if key.endswith("}c")), "1")
                text.append(" " * min(int(times) if times.isdigit() else 1, MOST_REPEATED))
            elif name in ("tab", "line-break"):
                text.append("\t" if name == "tab" else "\n")
            elif name == "note":
                text.append(" [")
            elif name == "p" and element is not tree and text and text[-1] != " [":
                text.append(" ")
            if element.text:
                text.append(element.text)
        else:
            if name == "note":
                text.append("]")
            if element is not tree and element.tail:
                text.append(element.tail)
    return "".join(text)
