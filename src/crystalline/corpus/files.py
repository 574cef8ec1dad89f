"""Corpus, step 1: from the sources a user names to the files below them, in an order that is always the same.

Nothing is left out silently: every file or folder that is passed over comes out too, with its reason.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from crystalline.corpus.crawl.database import FILE as CRAWL_FILE
from crystalline.errors import UserError
from crystalline.settings import Corpus

# Raised when reading, cleaning or dividing changes, so that corpora made the old way are made again.
VERSION = 2

# Folders that hold other people's packages, or what programs write for themselves.
SKIPPED_FOLDERS = frozenset({"__pycache__", "node_modules", "site-packages", "dist-packages"})

# Known to hold no text, or none that is read, without a look inside. Everything else is judged by its content.
BINARY_FORMATS = frozenset(
    {"ico", "psd", "heic", "avif"}
    | {"mp3", "mp4", "m4a", "m4v", "wav", "flac", "ogg", "opus", "aac", "avi", "mov", "mkv", "webm", "wmv"}
    | {"zst", "lz4", "7z", "rar", "jar", "whl", "egg", "deb", "rpm"}
    | {"wasm", "iso", "dmg", "apk", "exe", "dll", "so", "dylib", "o", "a", "obj", "lib", "class", "pyc"}
    | {"pyd", "pyo", "swp"}
    | {"sqlite", "sqlite3", "npy", "npz", "pt", "pth", "ckpt", "safetensors", "gguf", "onnx", "h5", "parquet"}
    | {"arrow", "feather", "pickle", "pkl", "ttf", "otf", "woff", "woff2", "eot"}
)


@dataclass(frozen=True, slots=True)
class File:
    """A file that may hold text.

    path: where it is.
    source: the same as the user would write it: the source as named, joined with the path below it.
    size, modified_ns: bytes, and nanoseconds since 1970.
    """

    path: Path
    source: str
    size: int
    modified_ns: int


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file or folder that is passed over.

    reason: one of a few short phrases, for counting. detail: more about this one, or "".
    """

    source: str
    reason: str
    folder: bool = False
    detail: str = ""


def walk(settings: Corpus) -> Iterator[File | Skipped]:
    """The files below `settings.source`, sorted by path whatever the order of the sources. Crawls and URLs have none.

    Memory: the names in the folders on the current path. Symbolic links below a source are not followed,
    since they lead in circles, out of the source, or to a file that is found anyway.
    Raises UserError when no source is set or one does not exist.
    """
    if not settings.source:
        raise UserError(
            "there is no text to train on",
            "no source is set",
            'name files, folders or websites with text: source = ["FOLDER"] under [corpus]',
        )
    roots = sorted({Path(name).expanduser() for name in settings.source if not is_url(name)})
    missing = [str(root) for root in roots if not os.path.exists(root)]
    if missing:
        raise UserError(
            "could not read the text",
            f"{', '.join(missing)}: no such file or folder",
            "correct corpus.source, or put the files back",
        )
    for root in roots:
        if is_crawl(root):
            continue  # it has pages, which are not files
        if root.is_dir():
            yield from _below(str(root), settings.exclude)
        else:
            yield _named_file(root, settings.exclude)


def is_url(source: str) -> bool:
    """Whether a source is a website, not a file or folder."""
    return source.startswith(("http://", "https://"))


def is_crawl(path: str | Path) -> bool:
    """Whether a folder is that of a crawl (`cllm crawl --into FOLDER`)."""
    return os.path.exists(os.path.join(path, CRAWL_FILE))


def source_fingerprint(settings: Corpus) -> str:
    """SHA-256 that changes when a file below the sources, or a setting of this section, changes.

    It covers path, size and time of change of every file, not its content, and so takes well under a second
    for 10,000 files. Raises UserError as `walk` does.
    """
    digest = hashlib.sha256()
    choices = [VERSION, sorted(set(settings.source)), sorted(set(settings.exclude))]
    choices += [settings.held_out, settings.section_bytes]
    digest.update(json.dumps(choices).encode())
    for found in walk(settings):
        entry = [found.source, found.size, found.modified_ns] if isinstance(found, File) else [found.source]
        digest.update(json.dumps(entry).encode() + b"\n")
    return digest.hexdigest()


def shown(path: str) -> str:
    """`path` as text that can be written as UTF-8: bytes that are none become \\xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _below(root: str, exclude: list[str]) -> Iterator[File | Skipped]:
    """All of folder `root`, depth first, each folder sorted by name."""
    try:
        pending = _entries(root)  # the next one last
    except OSError as error:
        yield Skipped(shown(root), "unreadable", True, error.strerror or "")
        return
    if _is_run_folder(root):
        yield Skipped(shown(root), "run folder", True)
        return
    while pending:
        entry = pending.pop()
        try:
            found = _judge(entry, entry.path[len(root) :].lstrip(os.sep), exclude)
            if found is None:
                pending += _entries(entry.path)
            else:
                yield found
        except OSError as error:
            yield Skipped(shown(entry.path), "unreadable", entry.is_dir(), error.strerror or "")


def _entries(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as scan:
        return sorted(scan, key=lambda entry: entry.name, reverse=True)


def _judge(entry: os.DirEntry[str], relative: str, exclude: list[str]) -> File | Skipped | None:
    """What to do with something in a folder; None means: go into this folder."""
    source, folder = shown(entry.path), entry.is_dir(follow_symlinks=False)
    if entry.is_symlink():
        return Skipped(source, "link")
    if _excluded(entry.name, relative, exclude):
        return Skipped(source, "excluded", folder)
    if folder:
        if entry.name in SKIPPED_FOLDERS or entry.name.startswith("."):
            return Skipped(source, "not entered", folder)
        if _is_run_folder(entry.path):
            return Skipped(source, "run folder", folder)
        if is_crawl(entry.path):
            return Skipped(source, "crawl, no source by itself", folder)
        return None
    if entry.name.startswith("."):  # settings and secrets of programs, such as .env
        return Skipped(source, "hidden")
    if extension(entry.name) in BINARY_FORMATS:
        return Skipped(source, "binary")
    return _file(entry.path, entry.stat())


def _named_file(path: Path, exclude: list[str]) -> File | Skipped:
    """A file that the user named: no extension of a binary format keeps us from looking inside."""
    if _excluded(path.name, path.name, exclude):
        return Skipped(shown(str(path)), "excluded")
    return _file(str(path), path.stat())


def _file(path: str, status: os.stat_result) -> File | Skipped:
    if not stat.S_ISREG(status.st_mode):  # reading a pipe, socket or device may wait forever
        return Skipped(shown(path), "special file")
    return File(Path(path), shown(path), status.st_size, status.st_mtime_ns)


def _is_run_folder(path: str) -> bool:
    # A run inside its own source would feed on itself.
    return all(os.path.exists(os.path.join(path, name)) for name in ("crystalline.toml", "manifest.json"))


def _excluded(name: str, relative: str, exclude: list[str]) -> bool:
    return any(fnmatchcase(name, pattern) or fnmatchcase(relative, pattern) for pattern in exclude)


def extension(path: str) -> str:
    """The ending of a name, in lower case and without the dot."""
    return os.path.splitext(path)[1][1:].lower()
