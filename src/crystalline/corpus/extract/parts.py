"""XML inside of zip files, which is what office documents and books are; read so that it can do no harm.

No entity is expanded, no document type and nothing from outside is loaded, and libxml2's own limits to depth and
length stay on.
"""

from __future__ import annotations

import posixpath
import zipfile
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from lxml import etree

from crystalline.corpus.extract.item import Item, Unreadable

_RELATION = "{http://schemas.openxmlformats.org/package/2006/relationships}Relationship"
_DUBLIN = "{http://purl.org/dc/elements/1.1/}"


class Parts:
    """The parts of a document. limit: megabytes of one part, unpacked."""

    def __init__(self, item: Item, limit: int) -> None:
        item.within(limit)
        self.archive = zipfile.ZipFile(item.file)
        self.names = set(self.archive.namelist())
        self.limit = limit

    def bytes(self, name: str) -> bytes:
        """A part. Raises Unreadable when it is missing, encrypted or too large."""
        if name not in self.names:
            raise Unreadable("broken", f"has no part {name}")
        info = self.archive.getinfo(name)
        if info.flag_bits & 1:
            raise Unreadable("encrypted")
        most = self.limit * 1_000_000
        with self.archive.open(info) as file:
            data = file.read(most + 1)
        if len(data) > most:
            raise Unreadable("too large", f"{name} is over {self.limit:,} MB unpacked (extract.max_file_mb)")
        return data

    def tree(self, name: str) -> etree._Element:
        """A part that is XML."""
        return xml(self.bytes(name))

    def related(self, name: str) -> dict[str, tuple[str, str]]:
        """{id: (last word of the type, name of the part)} of the parts that an Office part ("": the whole) names."""
        folder, base = posixpath.split(name)
        relations = posixpath.join(folder, "_rels", f"{base}.rels")
        found = {}
        for relation in self.tree(relations).iter(_RELATION) if relations in self.names else ():
            target = relation.get("Target", "")
            if relation.get("TargetMode") != "External":
                path = target.lstrip("/") if target.startswith("/") else posixpath.join(folder, target)
                kind = relation.get("Type", "").rsplit("/", 1)[-1]
                found[relation.get("Id", "")] = (kind, posixpath.normpath(unquote(path)))
        return found

    def by_type(self, name: str, kind: str) -> Iterator[str]:
        """The names of the parts of a type that a part names."""
        yield from (target for found, target in self.related(name).values() if found == kind and target in self.names)


def xml(data: bytes) -> etree._Element:
    """The root of an XML document."""
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False, huge_tree=False,
        remove_comments=True, remove_pis=True,
    )  # fmt: skip
    return etree.fromstring(data, parser)


def described(root: etree._Element) -> dict[str, Any]:
    """Title, author, date and language of a document, where its description says them."""
    found = {}
    for name, tag in (("title", "title"), ("author", "creator"), ("language", "language"), ("date", "date")):
        texts = [(element.text or "").strip() for element in root.iter(_DUBLIN + tag)]
        if text := ", ".join(text for text in texts if text):
            found[name] = text[:10] if name == "date" else text
    if "date" not in found:
        created = root.find(".//{http://purl.org/dc/terms/}created")
        if created is not None and created.text:
            found["date"] = created.text[:10]
    return found


def local(element: etree._Element) -> str:
    """The name of an element without its namespace."""
    return etree.QName(element).localname if isinstance(element.tag, str) else ""
