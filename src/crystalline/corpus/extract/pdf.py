"""PDF with pdfium: text with its places, which layout.py brings in order; pages that are pictures by OCR."""

from __future__ import annotations

import ctypes
import re
import unicodedata
from typing import Any

import pypdfium2
import pypdfium2.raw as raw

from crystalline.corpus.extract import layout, ocr, worker
from crystalline.corpus.extract.item import Item, Text, Unreadable
from crystalline.settings import Extract

GAP = 1.5  # font sizes of white space between two segments
FEW = 15  # characters; with fewer a page has no text
SOME, COVERED = 300, 0.6  # a page with fewer, and a picture over so much of it, is a scan with a stamp on it
GARBAGE = 0.3  # share of characters without a meaning from which on a page's text is useless
PATHS = 200  # lines and curves from which on a page without text may hold drawn letters

_DIVIDES = (0x02, 0xFFFE)  # how pdfium marks a hyphen at the end of a line
_LIGATURES = re.compile("[\ufb00-\ufb06]")
_RANGE = re.compile(r"(\d+)(?:(-)(\d*))?")


def read(item: Item, settings: Extract) -> Text:
    """The text of the selected pages. Raises Unreadable when it is encrypted, or all its text would need OCR."""
    item.within(settings.max_file_mb)
    item.file.seek(0)
    try:
        document = pypdfium2.PdfDocument(item.file)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise Unreadable("encrypted", "opens with a password only") from error
        raise
    with document:
        pages, recognised, unread = [], 0, 0
        for number in selected(settings.pages, len(document)):
            page = document[number]
            segments, characters, garbage = _segments(page)
            if settings.ocr != "never" and (settings.ocr == "always" or _is_scan(page, characters, garbage)):
                try:
                    worker.beat()
                    segments = ocr.segments(_picture(page, settings.dpi), settings, 72 / settings.dpi)
                    recognised += 1
                except ocr.Missing as missing:
                    unread += 1
                    if settings.ocr == "always":
                        raise Unreadable("needs OCR", missing.fix) from missing
                worker.beat()
            pages.append(layout.Page(segments, page.get_height()))
            page.close()
        if unread and not any(page.segments for page in pages):
            raise Unreadable("needs OCR", ocr.FIX)
        metadata = _metadata(document) | {"pages": len(document)}
    if recognised:
        metadata["recognised_pages"] = recognised
    if unread:
        metadata["unread_pages"] = unread
    return Text("prose", layout.paragraphs(pages, settings.everything), metadata)


def selected(pages: str, count: int) -> list[int]:
    """The numbers from 0 of the pages that are named, such as "1-5,8,20-", of `count`; "": all."""
    if not pages:
        return list(range(count))
    chosen: set[int] = set()
    for first, to, last in _RANGE.findall(pages):
        end = int(last) if last else count if to else int(first)
        chosen |= set(range(int(first) - 1, min(end, count)))
    return sorted(number for number in chosen if 0 <= number < count)


def _segments(page: pypdfium2.PdfPage) -> tuple[list[layout.Segment], int, float]:
    """(segments in the order of the file, characters that are no space, share of them without a meaning)."""
    textpage = page.get_textpage()
    count = textpage.count_chars()
    turn = _usual_turn(textpage, count)
    segments: list[layout.Segment] = []
    text: list[str] = []
    left = right = base = size = 0.0
    first = last = meaningless = counted = 0

    def end() -> None:
        whole = _LIGATURES.sub(lambda found: unicodedata.normalize("NFKC", found.group()), "".join(text)).strip()
        whole = whole[:-1].replace("\u00ad", "") + whole[-1:]
        if whole:
            own = _size(textpage, (first + last) // 2)  # the first character may be a bullet, or an initial
            segments.append(layout.Segment(whole, left, base - 0.2 * own, right, base + 0.8 * own, own))
        text.clear()

    for index in range(count):
        code = raw.FPDFText_GetUnicode(textpage.raw, index)
        character = "-" if code in _DIVIDES else chr(code)
        if character in "\r\n":
            end()
            continue
        if character.isspace() or code == 0:
            if text:
                text.append(" ")
            continue
        counted += 1
        if _has_no_meaning(character):
            meaningless += 1
            continue
        start, stop, y = _place(textpage, index, turn)
        if text and (
            start - right > GAP * size or left - stop > GAP * size or abs(y - base) > 0.6 * size
        ):  # fmt: skip
            end()
        if text:
            left, right = min(left, start), max(right, stop)
        else:
            left, right, base, size, first = start, stop, y, _size(textpage, index), index
        last = index
        text.append(character)
    end()
    textpage.close()
    return segments, counted, meaningless / counted if counted else 0.0


def _has_no_meaning(character: str) -> bool:
    return character == "\ufffd" or unicodedata.category(character) in ("Cn", "Co", "Cc", "Cs")


def _place(textpage: pypdfium2.PdfTextPage, index: int, turn: int) -> tuple[float, float, float]:
    """(left, right, height of the baseline) of a character, on the page turned so that its text is upright."""
    box, x, y = raw.FS_RECTF(), ctypes.c_double(), ctypes.c_double()
    raw.FPDFText_GetLooseCharBox(textpage.raw, index, ctypes.byref(box))
    raw.FPDFText_GetCharOrigin(textpage.raw, index, ctypes.byref(x), ctypes.byref(y))
    if turn == 0:
        return box.left, box.right, y.value
    if turn == 1:  # pdfium counts clockwise
        return -box.top, -box.bottom, x.value
    if turn == 2:
        return -box.right, -box.left, -y.value
    return box.bottom, box.top, -x.value


def _size(textpage: pypdfium2.PdfTextPage, index: int) -> float:
    """Of the font, in points."""
    matrix = raw.FS_MATRIX()
    scale = 1.0
    if raw.FPDFText_GetMatrix(textpage.raw, index, ctypes.byref(matrix)):
        scale = (matrix.c**2 + matrix.d**2) ** 0.5
    return max(float(raw.FPDFText_GetFontSize(textpage.raw, index)) * scale, 1.0)


def _usual_turn(textpage: pypdfium2.PdfTextPage, count: int) -> int:
    """By how many quarters most of a page's text is turned."""
    turns = [0, 0, 0, 0]
    for index in range(0, count, max(1, count // 50)):
        angle = raw.FPDFText_GetCharAngle(textpage.raw, index)  # radians; -1: not known
        if angle >= 0:
            turns[round(angle / 1.5707963) % 4] += 1
    return turns.index(max(turns))


def _is_scan(page: pypdfium2.PdfPage, characters: int, garbage: float) -> bool:
    """Whether a page is a picture of text."""
    if characters >= SOME and garbage < GARBAGE:
        return False
    covered, paths = 0.0, 0
    area = page.get_width() * page.get_height() or 1.0
    for thing in page.get_objects(max_depth=4):
        if thing.type == raw.FPDF_PAGEOBJ_IMAGE:
            left, bottom, right, top = thing.get_bounds()
            covered = max(covered, (right - left) * (top - bottom) / area)
        paths += thing.type == raw.FPDF_PAGEOBJ_PATH
    if garbage >= GARBAGE:
        return True
    return covered > COVERED or (characters < FEW and (covered > 0.1 or paths > PATHS))


def _picture(page: pypdfium2.PdfPage, dpi: int) -> Any:
    """The page in grey. A page so large that this would take over 100 million dots is made with fewer."""
    scale = dpi / 72
    dots = page.get_width() * page.get_height() * scale**2
    scale *= min(1.0, (ocr.MOST_DOTS / dots) ** 0.5)
    return page.render(scale=scale, grayscale=True).to_pil()


def _metadata(document: pypdfium2.PdfDocument) -> dict[str, Any]:
    told = document.get_metadata_dict(skip_empty=True)
    date = re.match(r"D?:?(\d{4})(\d{2})(\d{2})", told.get("CreationDate", ""))
    found = {
        "title": told.get("Title", "").strip(),
        "author": told.get("Author", "").strip(),
        "date": "-".join(date.groups()) if date else "",
    }
    return {name: value for name, value in found.items() if value}
