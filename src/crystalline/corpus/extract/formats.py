"""The formats, and who reads each."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import replace

from crystalline.corpus.decoding import UTF8, encoding_of, pieces
from crystalline.corpus.extract import json_text, plain, sniff, table
from crystalline.corpus.extract.item import Item, Text, Unreadable
from crystalline.settings import Extract

Reader = Callable[[Item, Extract], Text]

# Formats that are plain text, and can be of any size: format -> (text, head, source, settings) -> Text.
Stream = Callable[[Iterator[str], bytes, str, Extract], Text]
STREAMS: dict[str, Stream] = {"text": plain.stream, "csv": table.stream, "jsonl": json_text.stream}

# All others: format -> module of this folder and function. A module is imported when its first file comes.
READERS = {
    "json": "json_text.read_json",
    "ipynb": "json_text.read_notebook",
    "html": "html.read",
    "pdf": "pdf.read",
    "image": "ocr.read",
    "docx": "office.read_docx",
    "xlsx": "office.read_xlsx",
    "pptx": "office.read_pptx",
    "odt": "opendocument.read",
    "ods": "opendocument.read",
    "odp": "opendocument.read",
    "epub": "epub.read",
    "ole": "office.read_old",
    "rtf": "rtf.read",
    "mail": "mail.read",
}


def read(item: Item, settings: Extract) -> Text:
    """The text of one file that contains no others.

    Raises Unreadable, NotText, and whatever broken files make parsers raise.
    """
    if stream := STREAMS.get(item.format):
        encoding = encoding_of(item.file, item.encoding)
        if sniff.is_damaged(item.source, encoding):
            raise Unreadable("broken", "not of the format that it is called by")
        text = stream(pieces(item.file, encoding), item.head(), item.source, settings)
        return replace(text, metadata={"encoding": "utf-8" if encoding == UTF8 else encoding, **text.metadata})
    if item.format not in READERS:
        raise Unreadable("unknown format", item.format)
    module, name = READERS[item.format].split(".")
    reader: Reader = getattr(importlib.import_module(f"crystalline.corpus.extract.{module}"), name)
    return reader(item, settings)
