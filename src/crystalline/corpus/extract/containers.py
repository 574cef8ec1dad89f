"""What lies inside of archives and mails, one file after the other, with limits; nothing is unpacked to disk.

Members are held in memory or, when they are large, in a temporary file without a name. Their names are used for
naming only, so none can lead anywhere.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BufferedReader, RawIOBase
from pathlib import PurePosixPath
from tempfile import SpooledTemporaryFile
from typing import IO, BinaryIO, cast

from crystalline.corpus.extract import mail
from crystalline.corpus.extract.item import HEAD, Item, Unreadable, why
from crystalline.corpus.extract.sniff import extension_of, format_of
from crystalline.corpus.files import BINARY_FORMATS, SKIPPED_FOLDERS
from crystalline.settings import Extract

# What is left out: source, reason, detail.
Left = tuple[str, str, str]

IN_MEMORY = 4 << 20  # bytes of a member
HARMLESS = 64 << 20  # bytes; unpacking so much is no attack, whatever the ratio
PIECE = 1 << 20

_SKIPPED = SKIPPED_FOLDERS | {"__MACOSX"}


class Budget:
    """What may still be unpacked from one file, with everything inside of it."""

    def __init__(self, settings: Extract, size: int) -> None:
        self.settings = settings
        self.expanded = self.members = 0
        self.most = settings.max_expanded_mb * 1_000_000
        self.suspicious = max(HARMLESS, settings.max_ratio * size)

    def expand(self, size: int) -> None:
        """Count bytes that were unpacked. Raises Unreadable."""
        self.expanded += size
        if self.expanded > self.most:
            raise Unreadable("too large", f"over {self.most / 1e6:,.0f} MB unpacked (extract.max_expanded_mb)")
        if self.expanded > self.suspicious:
            ratio = self.settings.max_ratio
            raise Unreadable("archive bomb", f"over {ratio} times larger unpacked (extract.max_ratio)")

    def member(self) -> None:
        """Count a member. Raises Unreadable."""
        self.members += 1
        if self.members > self.settings.max_members:
            raise Unreadable("too large", f"over {self.settings.max_members:,} members (extract.max_members)")


def files(item: Item, settings: Extract) -> Iterator[Item | Left]:
    """All files in an archive or mail and in those inside of it, in their order; an item that is none, itself."""
    item.file.seek(0, 2)
    yield from _files(item, Budget(settings, item.file.tell()), 0)


def _files(item: Item, budget: Budget, depth: int) -> Iterator[Item | Left]:
    try:
        format = item.format or format_of(item.head(), item.source, item.media_type)
        if format == "zip":
            format = _zip_format(item)
        expand = EXPANDERS.get(format)
        if expand is None:
            yield replace(item, format=format)
        elif depth >= budget.settings.max_depth:
            raise Unreadable("nested too deeply", f"over {depth} archives in each other (extract.max_depth)")
        else:
            for member in expand(item, budget):
                if isinstance(member, Item):
                    yield from _files(member, budget, depth + 1)
                else:
                    yield member
    except Exception as error:
        yield (item.source, *why(error))


def _zip_format(item: Item) -> str:
    """Of a file in zip format: docx, xlsx, pptx, odt, ods, odp, epub, or zip."""
    with zipfile.ZipFile(item.file) as archive:
        names = set(archive.namelist())
        if "[Content_Types].xml" in names:
            for folder, format in (("word/", "docx"), ("xl/", "xlsx"), ("ppt/", "pptx")):
                if any(name.startswith(folder) for name in names):
                    return format
            return "other Office format"
        if "mimetype" in names:
            with archive.open("mimetype") as file:
                kind = file.read(100).decode("ascii", "replace").strip()
            if kind == "application/epub+zip":
                return "epub"
            for part, format in ((".text", "odt"), (".spreadsheet", "ods"), (".presentation", "odp")):
                if kind.startswith("application/vnd.oasis.opendocument" + part):
                    return format
        return "epub" if "META-INF/container.xml" in names else "zip"


def _zip(item: Item, budget: Budget) -> Iterator[Item | Left]:
    with zipfile.ZipFile(item.file) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            budget.member()
            source = member_source(item.source, info.filename)
            if reason := _left_out(info.filename):
                yield source, reason, ""
            elif info.flag_bits & 1:
                yield source, "encrypted", ""
            else:
                try:
                    with archive.open(info) as stream:
                        member = _held(_Metered(stream, budget), source)
                except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, *_BROKEN) as error:
                    yield (source, *why(error))
                else:
                    yield member


def _tar(item: Item, budget: Budget) -> Iterator[Item | Left]:
    item.file.seek(0)
    yield from _tar_members(item.source, _Metered(item.file, budget), budget)


def _tar_members(source: str, stream: IO[bytes] | RawIOBase, budget: Budget) -> Iterator[Item | Left]:
    with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r|") as archive:
        for info in archive:
            if info.isdir():
                continue
            budget.member()
            name = member_source(source, info.name)
            file = archive.extractfile(info) if info.isreg() and not info.issparse() else None
            if reason := _left_out(info.name):
                yield name, reason, ""
            elif file is None:
                yield name, "link" if info.issym() or info.islnk() else "special file", ""
            else:
                yield _held(file, name)


def _packed(open_: Callable[[BinaryIO], IO[bytes]]) -> Callable[[Item, Budget], Iterator[Item | Left]]:
    """The expander of a format that packs a single file, often a tar."""

    def expand(item: Item, budget: Budget) -> Iterator[Item | Left]:
        item.file.seek(0)
        with open_(item.file) as unpacked:
            stream = BufferedReader(_Metered(unpacked, budget), 1 << 16)
            if format_of(stream.peek(HEAD)[:HEAD], "") == "tar":
                yield from _tar_members(item.source, stream, budget)
                return
            budget.member()
            base = re.split(r"[/!\\]", item.source)[-1]
            name = PurePosixPath(base).stem if extension_of(base) in ("gz", "bz2", "xz", "lzma") else base
            yield _held(stream, member_source(item.source, name))

    return expand


EXPANDERS: dict[str, Callable[[Item, Budget], Iterator[Item | Left]]] = {
    "zip": _zip,
    "tar": _tar,
    "gz": _packed(lambda file: cast(IO[bytes], gzip.open(file))),
    "bz2": _packed(lambda file: bz2.open(file)),
    "xz": _packed(lambda file: lzma.open(file)),
    "eml": lambda item, budget: mail.parts(item, budget.settings, budget.member),
    "mbox": lambda item, budget: mail.messages(item, budget.member),
}

_BROKEN = (lzma.LZMAError, zlib.error, RuntimeError, ValueError)


class _Metered(RawIOBase):
    """A stream whose bytes are counted."""

    def __init__(self, stream: IO[bytes], budget: Budget) -> None:
        self.stream, self.budget = stream, budget

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self.stream.read(min(size, PIECE) if size >= 0 else PIECE)
        self.budget.expand(len(data))
        return data

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _held(stream: IO[bytes] | RawIOBase, source: str) -> Item:
    """A member as a file that can be searched."""
    file = cast(BinaryIO, SpooledTemporaryFile(max_size=IN_MEMORY))
    while data := stream.read(PIECE):
        file.write(data)
    return Item(source, file)


def member_source(archive: str, name: str) -> str:
    """How a member is named: after a "!", without characters that could not be shown."""
    shown = name.encode("utf-8", "backslashreplace").decode()
    return f"{archive}!" + re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda found: f"\\x{ord(found.group()):02x}", shown)


def _left_out(name: str) -> str:
    """Why a member is not looked at, by the rules for folders; "" when it is."""
    *folders, base = PurePosixPath(name.replace("\\", "/")).parts or ("",)
    if any(folder in _SKIPPED or (folder.startswith(".") and folder not in (".", "..")) for folder in folders):
        return "not entered"
    if base.startswith("."):
        return "hidden"
    return "binary" if extension_of(base) in BINARY_FORMATS else ""
