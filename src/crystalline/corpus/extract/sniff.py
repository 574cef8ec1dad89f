"""Which format a file has: by its first bytes; where these say only "text", by its name and media type.

A name is never believed against the content: a PDF called photo.png is a PDF, and a page called paper.pdf a page.
"""

from __future__ import annotations

import re

from crystalline.corpus.decoding import MARKS, UTF8
from crystalline.corpus.extract.item import Kind

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image"),
    (b"\xff\xd8\xff", "image"),
    (b"GIF87a", "image"),
    (b"GIF89a", "image"),
    (b"II*\0", "image"),
    (b"MM\0*", "image"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),  # an empty one
    (b"\x1f\x8b", "gz"),
    (b"\xfd7zXZ\0", "xz"),
    (b"{\\rtf", "rtf"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "ole"),
    # known, but not read
    (b"7z\xbc\xaf\x27\x1c", "7-Zip archive"),
    (b"Rar!\x1a\x07", "RAR archive"),
    (b"\x28\xb5\x2f\xfd", "Zstandard"),
    (b"%!PS", "PostScript"),
    (b"AT&TFORM", "DjVu"),
    (b"SQLite format 3\0", "SQLite database"),
)

_HTML = re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.I | re.S)
_HTML_TAG = re.compile(rb"<(?:p|div|a|span|h[1-6]|table|ul|br|title|meta|section|article)\b", re.I)
_HEADER = re.compile(rb"^(?:[A-Za-z][A-Za-z0-9-]*:[^\n]*\n(?:[ \t][^\n]*\n)*)+\r?\n", re.M)
_MAIL_NAMES = re.compile(rb"^(from|to|subject|date|message-id|received|mime-version|return-path):", re.I | re.M)
_ENVELOPE = re.compile(rb"From \S+.*\d{4}\r?\n(?:>?From |[A-Za-z][A-Za-z0-9-]*:)")

_BY_MEDIA_TYPE = {
    "text/html": "html",
    "application/xhtml+xml": "html",
    "text/csv": "csv",
    "text/tab-separated-values": "csv",
    "application/json": "json",
    "application/ld+json": "json",
    "application/x-ndjson": "jsonl",
    "application/jsonl": "jsonl",
    "message/rfc822": "eml",
    "application/mbox": "mbox",
    "application/x-ipynb+json": "ipynb",
}
_BY_EXTENSION = {
    "html": "html",
    "htm": "html",
    "xhtml": "html",
    "csv": "csv",
    "tsv": "csv",
    "json": "json",
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "ipynb": "ipynb",
    "eml": "eml",
    "mbox": "mbox",
}


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Extensions of files whose text is no prose. Whatever is not here, and has no shebang, is taken for prose.
_CODE = _set(
    """
    py pyi pyx pxd c h cc cpp cxx hh hpp hxx inl m mm cu cuh cs java kt kts scala groovy gradle clj cljs go rs
    swift d zig nim v vhd vhdl sv js mjs cjs jsx ts tsx vue svelte php phtml rb pl pm t raku lua r jl hs lhs ml
    mli fs fsi elm ex exs erl hrl lisp lsp cl el scm rkt sql sh bash zsh fish ps1 psm1 bat cmd awk sed tcl vb
    vbs bas pas pp f f77 f90 f95 f03 for ada adb ads asm s cob cbl pro dart sol wat glsl hlsl wgsl frag vert
    cmake mk mak make ninja nix bzl bazel dockerfile tf hcl css scss sass less styl jsp asp aspx erb ejs hbs j2
    jinja tex sty cls proto thrift graphql gql y yy lex l ll td diff patch m4 ac am in coffee pyw ipy gd
    """
)
_DATA = _set(
    """
    xml xsd xsl xslt svg rdf owl kml gpx plist yaml yml toml ini cfg conf properties env json5 geojson topojson
    po pot ts strings resx lock log rss atom opml tei dtd bib ris srt vtt sub tmx xliff dat list map desktop service
    """
)
_CODE_NAMES = frozenset(
    ["makefile", "dockerfile", "rakefile", "gemfile", "jenkinsfile", "vagrantfile", "cmakelists.txt"]
)


# Extensions of formats that are no text: what has one, and is neither that nor plainly text, is damaged.
_NO_TEXT = _set(
    """
    png jpg jpeg gif bmp webp tif tiff pdf doc docx xls xlsx ppt pptx odt ods odp epub zip gz tgz bz2 xz tar
    """
)


def is_damaged(name: str, encoding: str) -> bool:
    """Whether what looks like text in a guessed `encoding` is more likely a broken file of the format it names."""
    return extension_of(name) in _NO_TEXT and encoding not in (UTF8, *(told for _, told in MARKS))


def format_of(head: bytes, name: str, media_type: str = "") -> str:
    """The format that starts with `head` (its first 16 kB): a key of formats.READERS or containers.EXPANDERS,
    "text", or the name of a format that is not read.
    """
    if found := _by_magic(head):
        return found
    extension = extension_of(name)
    if _HTML.match(head.removeprefix(b"\xef\xbb\xbf")) and extension not in _CODE:
        return "html"
    declared = _BY_MEDIA_TYPE.get(media_type.partition(";")[0].strip().lower(), "")
    named = _BY_EXTENSION.get(extension, "")
    for guess in (declared, named):
        if guess == "html" and not _HTML_TAG.search(head):
            continue  # says so, but there is no tag
        if guess in ("eml", "mbox") and not _HEADER.match(head.lstrip()) and not _ENVELOPE.match(head):
            continue
        if guess:
            return "json" if guess == "jsonl" and head.lstrip()[:1] == b"[" else guess
    if _ENVELOPE.match(head):
        return "mbox"
    return "eml" if extension not in _CODE and _is_mail(head) else "text"


def kind_of(head: bytes, name: str) -> Kind:
    """Of a plain text: "code" or "data" by its name or shebang, else "prose"."""
    base = re.split(r"[/!\\]", name)[-1].lower()
    extension = extension_of(name)
    if extension in _CODE or base in _CODE_NAMES or head.startswith(b"#!"):
        return "code"
    return "data" if extension in _DATA or head.lstrip().startswith(b"<?xml") else "prose"


def extension_of(name: str) -> str:
    """ "pdf" of "a/b.PDF", of "mail.zip!c.pdf", and of "https://example.org/d.pdf?e=f"; "" when there is none."""
    if "://" in name:
        name = re.split(r"[?#]", name)[0]
    stem, _, ending = re.split(r"[/!\\]", name)[-1].rpartition(".")
    return ending.lower() if stem else ""  # ".profile" has none


def _by_magic(head: bytes) -> str:
    for magic, format in _MAGIC:
        if head.startswith(magic):
            return format
    if b"%PDF-" in head[:1024]:
        return "pdf"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image"
    if head[:3] == b"BZh" and head[4:10] in (b"1AY&SY", b"\x17rE8P\x90"):
        return "bz2"
    if head[:2] == b"BM" and head[6:10] == b"\0\0\0\0" and len(head) > 26:
        return "image"
    if head[257:262] == b"ustar":
        return "tar"
    return ""


def _is_mail(head: bytes) -> bool:
    """Whether it begins with the headers of a mail: at least three of the usual ones, one that only mails have."""
    if not (block := _HEADER.match(head)):
        return False
    names = {name.lower() for name in _MAIL_NAMES.findall(block.group())}
    return len(names) >= 3 and bool(names & {b"message-id", b"received", b"mime-version", b"return-path"})
