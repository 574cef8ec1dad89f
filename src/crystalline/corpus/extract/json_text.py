"""JSON, JSON lines and notebooks: the texts in their fields.

A JSON file that holds texts (a data set, an export of messages) gives these texts; one that holds mostly names and
numbers (settings, a lock file) is kept as it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any

from crystalline.corpus.decoding import encoding_of, pieces
from crystalline.corpus.extract import plain
from crystalline.corpus.extract.item import Item, Text, Unreadable
from crystalline.settings import Extract

SAMPLE_RECORDS = 200
TEXT_SHARE = 0.5  # of a file's characters in texts, from which on only these are kept
_NO_TEXT = re.compile(r"\s*(?:[a-z][a-z0-9+.-]*://\S*|[\w+/=-]*)\s*", re.I)  # an address, a name, or base64
_WIDE = re.compile("[\u3040-\u30ff\u3400-\u9fff\u0e00-\u0e7f]{4}")  # written without spaces between words


def read_json(item: Item, settings: Extract) -> Text:
    """The texts of a JSON file, or all of it."""
    data = item.whole(settings.max_file_mb)
    written = "".join(pieces(data, encoding_of(data, item.encoding)))
    try:
        value = json.loads(written)
    except ValueError:
        lines = written.splitlines()
        if len(lines) > 1 and _value(lines[0]) is not None and _value(lines[1]) is not None:
            return stream(iter([written]), b"", item.source, settings)  # JSON lines under another name
        return Text("data", [written], {})  # with comments, or cut short: still text
    except RecursionError:
        raise Unreadable("broken", "nested too deeply") from None
    if settings.everything:
        return Text("data", [written], {})
    found = list(value) if isinstance(value, list) else [value]
    texts = ["\n".join(_texts(record)) for record in found]
    if sum(map(len, texts)) < TEXT_SHARE * len(written):
        return Text("data", [written], {})
    kept = [text for text in texts if text]
    return Text("prose", ["\n\n".join(kept) + "\n"], {"records": len(kept)})


def read_notebook(item: Item, settings: Extract) -> Text:
    """The cells of a Jupyter notebook: text and code; with `everything` what the code printed as well."""
    try:
        cells = json.loads(item.whole(settings.max_file_mb))["cells"]
        parts = [part for cell in cells for part in _cell(cell, settings.everything)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unreadable("broken", f"no notebook: {error}") from error
    return Text("code", ["\n\n".join(part.strip("\n") for part in parts if part.strip()) + "\n"], {})


def stream(text: Iterator[str], head: bytes, source: str, settings: Extract) -> Text:
    """The texts of JSON lines, with a blank line after each record. Memory: a few hundred records.

    A line that is no JSON comes as it is.
    """
    following = plain.lines(text)
    start = list(islice(following, SAMPLE_RECORDS))
    held = sum(len("\n".join(_texts(_value(line)))) for line in start)
    if settings.everything or held < TEXT_SHARE * sum(map(len, start)):
        return Text("data", chain(start, following), {})
    return Text("prose", _joined(chain(start, following)), {})


def _joined(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        value = _value(line)
        text = line.strip() if value is None else "\n".join(_texts(value))
        if text:
            yield text + "\n\n"


def _value(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _texts(value: Any) -> Iterator[str]:
    """All strings in a value that people may have written, in their order: with a space, or long without one."""
    pending = [value]
    while pending:
        one = pending.pop()
        if isinstance(one, str):
            if one.strip() and (not _NO_TEXT.fullmatch(one) or _WIDE.search(one)):
                yield one
        elif isinstance(one, dict):
            pending += reversed(one.values())
        elif isinstance(one, list):
            pending += reversed(one)


def _cell(cell: dict[str, Any], everything: bool) -> Iterator[str]:
    if cell.get("cell_type") in ("markdown", "code", "raw"):
        yield _lines(cell.get("source"))
    for output in cell.get("outputs") or [] if everything else []:
        yield _lines(output.get("text") or (output.get("data") or {}).get("text/plain"))


def _lines(value: Any) -> str:
    """A string of a notebook, which may be given as a list of lines."""
    return "".join(map(str, value)) if isinstance(value, list) else str(value or "")
