"""Rich Text Format (RTF 1.9): the text of its paragraphs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from crystalline.corpus.decoding import is_text_encoding
from crystalline.corpus.extract.item import Item, Text
from crystalline.settings import Extract

_TOKEN = re.compile(
    rb"\\([a-zA-Z]+)(-?\d{1,10})?[ ]?|\\'([0-9a-fA-F]{2})|\\([^a-zA-Z])|([{}])|([^\\{}\r\n]+)|[\r\n]+|\\"
)

# Groups that hold no text of the document.
_NOT_TEXT = frozenset(
    b"fonttbl colortbl stylesheet info pict object header headerl headerr headerf footer footerl footerr footerf "
    b"listtable listoverridetable rsidtbl generator themedata colorschememapping latentstyles datastore xmlnstbl "
    b"fldinst filetbl revtbl mmathPr pgdsctbl bkmkstart bkmkend annotation atnid atnauthor atndate".split()
)
_SIGNS = {
    b"par": "\n\n", b"sect": "\n\n", b"page": "\n\n", b"line": "\n", b"tab": "\t", b"cell": "\t", b"row": "\n",
    b"emdash": "—", b"endash": "–", b"lquote": "‘", b"rquote": "’", b"ldblquote": "“", b"rdblquote": "”",
    b"bullet": "•", b"emspace": " ", b"enspace": " ",
}  # fmt: skip
_SYMBOLS = {b"~": "\u00a0", b"_": "-", b"\\": "\\", b"{": "{", b"}": "}", b"\n": "\n\n", b"\r": "\n\n"}
_CODE_PAGES = {b"mac": "mac_roman", b"pc": "cp437", b"pca": "cp850"}


def read(item: Item, settings: Extract) -> Text:
    """Paragraphs and rows of tables, without page headers, footers, pictures and comments."""
    text = "".join(_texts(item.whole(settings.max_file_mb)))
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # puts halves of characters together
    text = re.sub(r"[ ]*\n(?:[ ]*\n)+", "\n\n", text)
    return Text("prose", [text.replace("\t\n", "\n").strip("\n") + "\n"], {})


def _texts(data: bytes) -> Iterator[str]:
    encoding = "cp1252"
    groups: list[tuple[bool, int]] = []  # of the open groups around: whether silent, characters after \u to leave out
    silent, fallback = False, 1
    skip = 0  # characters still to leave out
    begins = False  # right after "{"
    letters = bytearray()  # in the document's code page; a character may take two
    for token in _TOKEN.finditer(data):
        word, number, code, symbol, brace, plain = token.groups()
        if code is not None:
            if skip:
                skip -= 1
            elif not silent:
                letters.append(int(code, 16))
            continue
        if letters:
            yield letters.decode(encoding, "replace")
            letters.clear()
        if brace == b"{":
            groups.append((silent, fallback))
            begins = True
            continue
        if brace == b"}":
            silent, fallback = groups.pop() if groups else (False, 1)
        elif word is not None:
            if begins and word in _NOT_TEXT:
                silent = True
            elif word == b"ansicpg" and number and is_text_encoding(f"cp{number.decode()}"):
                encoding = f"cp{number.decode()}"
            elif word in _CODE_PAGES:
                encoding = _CODE_PAGES[word]
            elif word == b"uc":
                fallback = int(number or 1)
            elif word == b"u" and not silent:
                yield _character(int(number or 0))
                skip = fallback
            elif word == b"bin":
                silent = True  # its bytes are no text
            elif word in _SIGNS and not silent:
                yield _SIGNS[word]
        elif symbol == b"*":
            silent = True
        elif symbol is not None and not silent:
            yield _SYMBOLS.get(symbol, "")
        elif plain is not None and not silent:
            kept = plain[skip:]
            skip = max(0, skip - len(plain))
            yield kept.decode(encoding, "replace")
        begins = False
    if letters:
        yield letters.decode(encoding, "replace")


def _character(number: int) -> str:
    """Of a 16-bit number with a sign. May be half of a pair."""
    return chr(number % 65536)
