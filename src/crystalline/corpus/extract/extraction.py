"""Corpus, step 2: from a file or page of any format to its text, or the reason why it has none.

Plain text is decoded here, in pieces, whatever its size. Every other format is read by libraries in C or by
parsers of some size, and its file may be broken or hostile: that is done in a process of its own, with limits to
its time and memory (child.py, worker.py).
"""

from __future__ import annotations

from collections.abc import Iterator

from crystalline.corpus.decoding import UTF8, Content, NotText, encoding_of, pieces
from crystalline.corpus.extract import child, formats, sniff
from crystalline.corpus.extract.item import HEAD, Extracted, Kind, Raw
from crystalline.corpus.files import Skipped
from crystalline.errors import UserError
from crystalline.settings import Extract

__all__ = ["Extracted", "Kind", "Raw", "extract"]


def extract(raw: Raw, settings: Extract) -> Iterator[Extracted | Skipped]:
    """The texts of a file, page, archive or mail, in the order in which they lie in it, and what was left out.

    The same bytes, hints and settings give the same results. A broken or hostile file is one Skipped with its
    reason. A text is judged as a whole before it comes out.
    Raises UserError when a file changes while it is being read, or the child process cannot be started.
    """
    try:
        head = raw.head()
        content = head if len(head) < HEAD else raw.content  # a small file is opened once only
        format = sniff.format_of(head, raw.source, raw.media_type)
        encoding = encoding_of(content, raw.encoding) if format in formats.STREAMS else ""
        if sniff.is_damaged(raw.source, encoding or UTF8):
            raise NotText("broken", "not of the format that it is called by")
    except NotText as reason:
        yield Skipped(raw.source, reason.reason, detail=reason.detail)
    except OSError as error:
        yield Skipped(raw.source, "unreadable", detail=error.strerror or "")
    else:
        if not encoding:
            yield from child.extract(raw, format, settings)
            return
        text = formats.STREAMS[format](_unchanged(raw.source, content, encoding), head, raw.source, settings)
        told = {"format": format, "encoding": "utf-8" if encoding == UTF8 else encoding}
        yield Extracted(raw.source, text.pieces, text.kind, told | text.metadata)


def _unchanged(source: str, content: Content, encoding: str) -> Iterator[str]:
    """The text of a file that could be read in whole a moment ago."""
    try:
        yield from pieces(content, encoding)
    except (UnicodeError, OSError) as error:
        raise UserError(
            "could not read the text",
            f"{source} changed while it was being read: {error}",
            "give the same command again when no program writes to it, or leave it out with corpus.exclude",
        ) from error
