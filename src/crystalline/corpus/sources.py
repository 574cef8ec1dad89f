"""Corpus, step 2: from a file to the text in it, with its kind and what is known about it, or the reason why it has
none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from crystalline.corpus.decoding import UTF8, NotText, encoding_of, pieces
from crystalline.corpus.files import File, Skipped, extension
from crystalline.errors import UserError

# Source code, and what else is written for machines; to everything else the rules for prose apply.
CODE = frozenset(
    {
        "py",
        "pyi",
        "pyx",
        "ipynb",
        "c",
        "h",
        "cc",
        "cpp",
        "cxx",
        "hpp",
        "hh",
        "m",
        "mm",
        "java",
        "kt",
        "kts",
        "scala",
        "groovy",
    }
    | {
        "js",
        "mjs",
        "cjs",
        "jsx",
        "ts",
        "tsx",
        "vue",
        "svelte",
        "go",
        "rs",
        "rb",
        "php",
        "pl",
        "pm",
        "t",
        "lua",
        "r",
        "jl",
    }
    | {
        "swift",
        "cs",
        "fs",
        "vb",
        "dart",
        "ex",
        "exs",
        "erl",
        "hrl",
        "hs",
        "ml",
        "mli",
        "clj",
        "lisp",
        "el",
        "scm",
        "rkt",
    }
    | {
        "sh",
        "bash",
        "zsh",
        "fish",
        "ps1",
        "bat",
        "cmd",
        "sql",
        "asm",
        "s",
        "f",
        "f90",
        "f95",
        "for",
        "pas",
        "d",
        "nim",
        "zig",
    }
    | {
        "v",
        "sv",
        "vhd",
        "vhdl",
        "cu",
        "cl",
        "glsl",
        "wgsl",
        "proto",
        "thrift",
        "cmake",
        "mk",
        "make",
        "gradle",
        "tcl",
        "awk",
    }
    | {
        "css",
        "scss",
        "sass",
        "less",
        "html",
        "htm",
        "xhtml",
        "tex",
        "sty",
        "cls",
        "bib",
        "l",
        "y",
        "inc",
        "in",
        "am",
        "ac",
    }
)
DATA = frozenset(
    {
        "json",
        "jsonl",
        "ndjson",
        "yaml",
        "yml",
        "toml",
        "ini",
        "cfg",
        "conf",
        "xml",
        "xsd",
        "svg",
        "po",
        "pot",
        "csv",
        "tsv",
    }
    | {
        "log",
        "lock",
        "properties",
        "plist",
        "diff",
        "patch",
        "list",
        "dat",
        "map",
        "geojson",
        "env",
        "desktop",
        "service",
    }
)


@dataclass(frozen=True, slots=True)
class Extracted:
    """The text of a file.

    source: the file, as the user would name it. text: in pieces; not yet cleaned.
    kind: "prose", "code" or "data". metadata: encoding; title, author, date where known.
    """

    source: str
    text: Iterable[str]
    kind: str
    metadata: dict[str, Any] = field(default_factory=dict)


def texts(file: File) -> Iterator[Extracted | Skipped]:
    """What a file has in it: its text, or why it has none. Raises UserError when it changes meanwhile."""
    try:
        encoding = encoding_of(file.path)
    except NotText as reason:
        yield Skipped(file.source, reason.reason, detail=reason.detail)
    except OSError as error:
        yield Skipped(file.source, "unreadable", detail=error.strerror or "")
    else:
        told = {"encoding": "utf-8" if encoding == UTF8 else encoding}
        yield Extracted(file.source, _unchanged(file, encoding), kind_of(file.source), told)


def kind_of(source: str) -> str:
    """What a file's name says it is."""
    name = extension(source)
    return "code" if name in CODE or source.endswith("Makefile") else "data" if name in DATA else "prose"


def _unchanged(file: File, encoding: str) -> Iterator[str]:
    """The text of a file that could be read in whole a moment ago."""
    try:
        yield from pieces(file.path, encoding)
    except (UnicodeError, OSError) as error:
        raise UserError(
            "could not read the text",
            f"{file.source} changed while it was being read: {error}",
            "give the same command again when no program writes to it, or leave it out with corpus.exclude",
        ) from error
