"""Documents, tables and slides of Microsoft Office (Office Open XML, ECMA-376): docx, xlsx, pptx."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from lxml import etree

from crystalline.corpus.extract.item import Item, Text, Unreadable
from crystalline.corpus.extract.parts import Parts, described, local
from crystalline.settings import Extract

MOST_COLUMNS = 16_384  # what Excel has

# What is in a document but not of its text: what was deleted, codes of fields, the same thing for older programs.
_NOT_TEXT = frozenset({"del", "moveFrom", "instrText", "delText", "Fallback", "pPr", "rPr", "sectPr", "tblPr"})
_DATES = {*range(14, 23), *range(27, 37), *range(45, 48), *range(50, 59)}  # number formats that come with Excel
_FRAME = {"sldNum", "ftr", "dt", "hdr"}  # of slides: number, footer, date, header


def read_docx(item: Item, settings: Extract) -> Text:
    """Paragraphs, lists and tables, then notes. With `everything` also page headers and footers, and comments."""
    parts = Parts(item, settings.max_file_mb)
    main = _main_part(parts)
    found = _word_blocks(parts.tree(main))
    for kind in ("footnotes", "endnotes", *(("header", "footer", "comments") if settings.everything else ())):
        for name in sorted(parts.by_type(main, kind)):
            found += _word_blocks(parts.tree(name))
    return Text("prose", _lines(found), _described(parts))


def read_xlsx(item: Item, settings: Extract) -> Text:
    """The rows of all sheets as they are shown, a tab between cells. Hidden sheets with `everything` only."""
    parts = Parts(item, settings.max_file_mb)
    main = _main_part(parts)
    book = parts.tree(main)
    names = parts.related(main)
    strings = [_shared(one) for name in parts.by_type(main, "sharedStrings") for one in parts.tree(name)]
    dates = [style for name in parts.by_type(main, "styles") for style in _date_styles(parts.tree(name))]
    epoch = datetime(1904, 1, 1) if _flag(book, "workbookPr", "date1904") else datetime(1899, 12, 30)
    sheets = []
    for sheet in _named(book, "sheet"):
        target = next((names[v][1] for k, v in sheet.attrib.items() if k.endswith("}id") and v in names), "")
        if target in parts.names and (settings.everything or sheet.get("state", "visible") == "visible"):
            sheets.append((sheet.get("name", ""), target))

    def rows() -> Iterator[str]:
        for number, (name, target) in enumerate(sheets):
            if len(sheets) > 1:
                yield f"{chr(10) if number else ''}{name}\n"
            for row in _named(parts.tree(target), "row"):
                if line := _row(row, strings, dates, epoch):
                    yield line + "\n"

    return Text("table", rows(), _described(parts) | {"sheets": len(sheets)})


def read_pptx(item: Item, settings: Extract) -> Text:
    """The text of the slides in their order, each followed by its notes."""
    parts = Parts(item, settings.max_file_mb)
    main = _main_part(parts)
    names = parts.related(main)
    found: list[tuple[str, int]] = []
    slides = 0
    for slide in _named(parts.tree(main), "sldId"):
        target = next((names[value][1] for value in slide.attrib.values() if value in names), "")
        if target in parts.names:
            tree = parts.tree(target)
            if tree.get("show") == "0" and not settings.everything:
                continue
            slides += 1
            found += _slide(tree, settings.everything)
            for notes in parts.by_type(target, "notesSlide"):
                found += _slide(parts.tree(notes), False)
    return Text("prose", _lines(found), _described(parts) | {"pages": slides})


def read_old(item: Item, settings: Extract) -> Text:
    """Never: a compound file is an Office document that is encrypted, or one from before 2007."""
    if "EncryptedPackage".encode("utf-16-le") in item.whole(settings.max_file_mb):
        raise Unreadable("encrypted", "opens with a password only")
    raise Unreadable("unknown format", "an Office or Outlook file of the kind before 2007; save it as a newer one")


def _main_part(parts: Parts) -> str:
    for name in parts.by_type("", "officeDocument"):
        return name
    raise Unreadable("broken", "has no main part")


def _described(parts: Parts) -> dict[str, Any]:
    for name in parts.by_type("", "core-properties"):
        try:
            return described(parts.tree(name))
        except etree.XMLSyntaxError:
            return {}
    return {}


def _lines(found: list[tuple[str, int]]) -> Iterator[str]:
    """Texts with the line ends that stand between them: (text, line ends before it)."""
    begun = False
    for text, breaks in found:
        if text.strip():
            yield "\n" * breaks * begun + text.strip("\n ")
            begun = True
    if begun:
        yield "\n"


def _named(tree: etree._Element, name: str) -> Iterator[etree._Element]:
    yield from tree.iter("{*}" + name)


def _flag(tree: etree._Element, name: str, attribute: str) -> bool:
    return any(element.get(attribute) in ("1", "true") for element in _named(tree, name))


# --- Word ------------------------------------------------------------------------------------------------------


def _word_blocks(tree: etree._Element) -> list[tuple[str, int]]:
    """(text, line ends before it) of paragraphs and of rows of tables."""
    found: list[tuple[str, int]] = []
    walk = etree.iterwalk(tree, events=("start",))
    was_item = was_row = False
    for _, element in walk:
        name = local(element)
        if name in _NOT_TEXT or element.get(f"{{{element.nsmap.get('w')}}}type") in (
            "separator", "continuationSeparator", "continuationNotice"
        ):  # fmt: skip
            walk.skip_subtree()
        elif name == "tr":
            cells = [" ".join(_run_text(cell).split()) for cell in element if local(cell) == "tc"]
            found.append(("\t".join(cells).rstrip(), 1 if was_row else 2))
            was_item, was_row = False, True
            walk.skip_subtree()
        elif name == "p":
            is_item = element.find("./{*}pPr/{*}numPr") is not None
            text = _run_text(element)
            # What is in a box beside the text is a paragraph of its own, and comes when the walk gets there.
            if text.strip():
                found.append((("- " if is_item else "") + text.strip(), 1 if is_item and was_item else 2))
                was_item, was_row = is_item, False
        elif name == "tbl":
            was_row = False
    return found


def _run_text(tree: etree._Element) -> str:
    """The text of a paragraph, without that of boxes which it holds, or of a cell with all in it."""
    text = []
    walk = etree.iterwalk(tree, events=("start", "end"))
    for event, element in walk:
        name = local(element)
        if event == "end":
            if name == "p" and element is not tree:
                text.append("\n")
        elif name in _NOT_TEXT or name == "txbxContent":
            walk.skip_subtree()
        elif name == "t":
            text.append(element.text or "")
        elif name == "tab":
            text.append("\t")
        elif name in ("br", "cr"):
            text.append("\n")
        elif name == "noBreakHyphen":
            text.append("-")
    return "".join(text)


# --- Excel -----------------------------------------------------------------------------------------------------


def _shared(element: etree._Element) -> str:
    """A text that cells share, without the pronunciation of Japanese."""
    return "".join(text.text or "" for text in _named(element, "t") if local(text.getparent()) != "rPh")


def _date_styles(styles: etree._Element) -> list[bool]:
    """Of each cell style whether its number is shown as a date."""
    own = {}
    for number in _named(styles, "numFmt"):
        code = re.sub(r'"[^"]*"|\[[^\]]*\]|\\.', "", number.get("formatCode", "")).lower()
        own[number.get("numFmtId")] = bool(re.search(r"[dyh]|mm|ss", code)) and "general" not in code
    formats = next(_named(styles, "cellXfs"), None)
    ids = [cell.get("numFmtId", "0") for cell in formats] if formats is not None else []
    return [own[id_] if id_ in own else id_.isdigit() and int(id_) in _DATES for id_ in ids]


def _row(row: etree._Element, strings: list[str], dates: list[bool], epoch: datetime) -> str:
    cells: list[str] = []
    for cell in row:
        if local(cell) != "c":
            continue
        column = _column(cell.get("r", ""))
        if column is not None and len(cells) <= column < MOST_COLUMNS:
            cells += [""] * (column - len(cells))
        cells.append(" ".join(_cell(cell, strings, dates, epoch).split()))
    return "\t".join(cells).rstrip()


def _column(reference: str) -> int | None:
    """The number from 0 of the column of "AB12"."""
    letters = re.match(r"[A-Z]{1,3}", reference)
    if not letters:
        return None
    number = 0
    for letter in letters.group():
        number = 26 * number + ord(letter) - 64
    return number - 1


def _cell(cell: etree._Element, strings: list[str], dates: list[bool], epoch: datetime) -> str:
    kind = cell.get("t", "n")
    if kind == "inlineStr":
        return _shared(cell)
    value = cell.findtext("{*}v") or ""
    if kind == "s":
        return strings[int(value)] if value.isdigit() and int(value) < len(strings) else ""
    if kind == "b":
        return {"1": "TRUE", "0": "FALSE"}.get(value, "")
    style = cell.get("s", "0")
    if kind == "n" and style.isdigit() and int(style) < len(dates) and dates[int(style)]:
        return _date(value, epoch)
    return _number(value) if kind == "n" else value


def _date(value: str, epoch: datetime) -> str:
    try:
        moment = epoch + timedelta(seconds=round(float(value) * 86_400))
    except (ValueError, OverflowError):
        return value
    if float(value) < 1:
        return moment.time().isoformat()
    return moment.date().isoformat() if moment.time() == datetime.min.time() else moment.isoformat(" ")


def _number(value: str) -> str:
    """A number without the noise of binary fractions: 0.30000000000000004 is 0.3."""
    try:
        return f"{float(value):.15g}" if "." in value or "E" in value.upper() else value
    except ValueError:
        return value


# --- PowerPoint ------------------------------------------------------------------------------------------------


def _slide(tree: etree._Element, everything: bool) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    walk = etree.iterwalk(tree, events=("start",))
    breaks = 2
    for _, element in walk:
        name = local(element)
        if name == "Fallback" or (name == "sp" and not everything and _placeholder(element) in _FRAME):
            walk.skip_subtree()
        elif name in ("sp", "graphicFrame"):
            breaks = 2
        elif name == "tr":
            cells = (" ".join(_slide_text(cell).split()) for cell in element if local(cell) == "tc")
            found.append(("\t".join(cells).rstrip(), breaks))
            breaks = 1
            walk.skip_subtree()
        elif name == "p" and element.getparent() is not None:
            text = _slide_text(element)
            if text.strip():
                found.append((text, breaks))
                breaks = 1
    return found


def _placeholder(shape: etree._Element) -> str:
    kind = shape.find(".//{*}nvPr/{*}ph")
    return kind.get("type", "") if kind is not None else ""


def _slide_text(tree: etree._Element) -> str:
    text = []
    for element in tree.iter():
        name = local(element)
        if name == "t":
            text.append(element.text or "")
        elif name == "br" or (name == "p" and text):
            text.append("\n")
    return "".join(text)
