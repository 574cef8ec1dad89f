"""Text as Unicode wants it: one normal form, one kind of line end, no stray control characters, mojibake undone."""

from __future__ import annotations

import re
import unicodedata

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_CONTROL_BYTES = bytes([*range(9), *range(11, 32), 127])

# How UTF-8 looks that was read as Windows-1252, Latin-1, MacRoman or Windows-1250/1251: one of these letters, and
# after it one of these signs. ftfy looks closer at lines that have such a pair. It takes a second for a megabyte,
# so it is asked only there.
_FIRST = "ÂÃÄÅÐÑâïðĂĹÎÏØÙΓРСвГ√"
_PAIR = re.compile(f"[{_FIRST}][\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ°±²³´µ¶·¸¹º»¼½¾¿ЂѓєЃ¤©®§]")


def normal(text: str, data: bytes = b"") -> str:
    """Unicode form NFC, line ends as "\n", no other control characters but tab, no white space at the end.

    data: the text in UTF-8, where it is at hand: one can look faster in it. Normalising normal text changes nothing.
    """
    data = data or text.encode("utf-8", "surrogatepass")
    if b"\r" in data:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if b"\xc2" in data or len(data.translate(None, _CONTROL_BYTES)) < len(data):  # U+0080 to U+00BF begin with C2
        text = _CONTROL.sub("", text)
    return unicodedata.normalize("NFC", text.lstrip("\ufeff")).rstrip()


def mended(text: str) -> str:
    """The text without mojibake: "fÃ¼r" becomes "für". Lines that look well are left alone."""
    if text.isascii() or not any(letter in text for letter in _FIRST) or not _PAIR.search(text):
        return text
    import ftfy

    return "\n".join(
        ftfy.fix_encoding(line) if _PAIR.search(line) else line for line in text.split("\n")
    )  # by lines: often only one of them was pasted from elsewhere
