import pytest

from crystalline.corpus.extract.sniff import extension_of, format_of, kind_of

MAIL = b"Received: from a\r\n by b\r\nFrom: a@example.org\r\nSubject: x\r\n\r\nbody"


@pytest.mark.parametrize(
    ("head", "name", "media_type", "format"),
    [
        (b"%PDF-1.7\n", "photo.png", "", "pdf"),
        (b"\n\n%PDF-1.4\n", "a", "text/html", "pdf"),
        (b"\x89PNG\r\n\x1a\n\0", "page.html", "text/html", "image"),
        (b"\xff\xd8\xff\xe0", "a.txt", "", "image"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "a", "", "image"),
        (b"RIFF\x10\0\0\0WAVEfmt ", "a", "", "text"),
        (b"PK\x03\x04", "letter.docx", "", "zip"),
        (b"\x1f\x8b\x08", "a.txt", "", "gz"),
        (b"BZh91AY&SY", "a", "", "bz2"),
        (b"BZhe wrote", "a", "", "text"),
        (b"\xfd7zXZ\0", "a", "", "xz"),
        (b"a" * 257 + b"ustar\0", "a", "", "tar"),
        (b"{\\rtf1", "a.doc", "", "rtf"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a.doc", "", "ole"),
        (b"7z\xbc\xaf\x27\x1c", "a", "", "7-Zip archive"),
        (b"<!DOCTYPE html><p>", "a.txt", "", "html"),
        (b"\xef\xbb\xbf  <!-- x --> <HTML>", "a", "", "html"),
        (b'<?xml version="1.0"?><html xmlns="x">', "a.xml", "", "html"),
        (b"<?xml version='1.0'?><rss>", "a.xml", "", "text"),
        (b"<p>only a part", "a.htm", "", "html"),
        (b"<p>only a part", "https://example.org/a", "text/html; charset=utf-8", "html"),
        (b"no tag at all", "a.html", "text/html", "text"),
        (b"<!DOCTYPE html><?php echo 1 ?>", "index.php", "", "text"),
        (b"a,b\n1,2\n", "a.csv", "", "csv"),
        (b"a,b\n1,2\n", "a.txt", "", "text"),
        (b'{"a": 1}', "a.json", "", "json"),
        (b'{"a": 1}\n', "a.jsonl", "", "jsonl"),
        (b'[{"a": 1}]', "a.jsonl", "", "json"),
        (b'{"cells": []}', "a.ipynb", "", "ipynb"),
        (MAIL, "a.txt", "", "eml"),
        (MAIL, "a.eml", "", "eml"),
        (b"not a mail", "a.eml", "", "text"),
        (b"Title: x\nDate: y\n\nA note with headers", "a.md", "", "text"),
        (b"From a@b.c Fri May 17 09:30:00 2024\nReceived: x\n", "Inbox", "", "mbox"),
        (b"From the sea to the hills.\n", "a.txt", "", "text"),
        (b"", "a.pdf", "", "text"),
    ],
)
def test_content_wins_over_name_and_media_type(head, name, media_type, format):
    assert format_of(head, name, media_type) == format


@pytest.mark.parametrize(
    ("head", "name", "kind"),
    [
        (b"", "a/b.py", "code"), (b"", "a/b.md", "prose"), (b"", "b.txt", "prose"), (b"", "README", "prose"),
        (b"#!/bin/sh\n", "run", "code"), (b"", "Makefile", "code"), (b"", "x.zip!src/a.rs", "code"),
        (b"", "a.yaml", "data"), (b"<?xml ", "a", "data"), (b"", "a.PY", "code"),
    ],
)  # fmt: skip
def test_kind_by_name_and_shebang(head, name, kind):
    assert kind_of(head, name) == kind


def test_extension():
    names = [
        "a/b.PDF",
        "mail.zip!c.pdf",
        "https://example.org/d.pdf?e=f.g",
        "none",
        "a.b/none",
        "https://e.org/x#y.z",
    ]
    assert [extension_of(name) for name in names] == ["pdf", "pdf", "pdf", "", "", ""]
