"""Electronic books (EPUB 2 and 3): the chapters in reading order."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from urllib.parse import unquote

from crystalline.corpus.extract import html
from crystalline.corpus.extract.item import Item, Text, Unreadable
from crystalline.corpus.extract.parts import Parts, described, local
from crystalline.settings import Extract

_PAGES = ("application/xhtml+xml", "text/html")


def read(item: Item, settings: Extract) -> Text:
    """All chapters; the table of contents, and what is not part of the reading order, with `everything` only."""
    parts = Parts(item, settings.max_file_mb)
    container = parts.tree("META-INF/container.xml")
    package_name = next((file.get("full-path", "") for file in container.iter("{*}rootfile")), "")
    package = parts.tree(package_name)
    files = {}
    for entry in package.iter("{*}item"):
        path = posixpath.normpath(posixpath.join(posixpath.dirname(package_name), unquote(entry.get("href", ""))))
        is_contents = "nav" in entry.get("properties", "").split()
        if entry.get("media-type") in _PAGES and (settings.everything or not is_contents):
            files[entry.get("id")] = path
    names = [
        files[reference.get("idref")]
        for reference in package.iter("{*}itemref")
        if reference.get("idref") in files and (settings.everything or reference.get("linear") != "no")
    ]
    if locked := set(names) & _encrypted(parts):
        raise Unreadable("encrypted", f"{len(locked)} of {len(names)} chapters")
    if not names:
        raise Unreadable("no text")
    return Text("prose", _chapters(parts, [name for name in names if name in parts.names]), described(package))


def _chapters(parts: Parts, names: list[str]) -> Iterator[str]:
    begun = False
    for name in names:
        try:
            tree = html.parse(html.decode(parts.bytes(name)))
        except Unreadable:  # an empty page
            continue
        for line in html.lines_of(tree):
            if begun and not line.startswith("\n"):
                yield "\n\n"
            yield line
            begun = True
    yield "\n" * begun


def _encrypted(parts: Parts) -> set[str]:
    """The parts that only a certain program or device can open."""
    if "META-INF/encryption.xml" not in parts.names:
        return set()
    tree = parts.tree("META-INF/encryption.xml")
    return {unquote(element.get("URI", "")) for element in tree.iter() if local(element) == "CipherReference"}
