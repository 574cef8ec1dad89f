"""Plain text, tables, JSON, notebooks and mails."""

import json

import pytest
from made_files import DE, PARAGRAPHS, docx, eml, only, results, zipped

from crystalline.corpus.extract import child
from crystalline.corpus.extract.extraction import Raw, extract
from crystalline.settings import Extract


def test_plain_text_comes_as_it_is_and_needs_no_child():
    child.close()
    text = "\r\n\t".join(DE.paragraphs)
    found = only(text.encode("cp1252"), "a.txt")
    assert (found.text, found.kind, found.metadata["format"]) == (text, "prose", "text")
    assert only(b"def f(): pass", "a.py").kind == "code"
    assert only(b"a: 1", "a.yaml").kind == "data"
    assert results(bytes(100), "a.txt") == [("a.txt", "!binary")]
    assert results(b"\xff\xfe\x00\xd8\x41\x00", "a.txt") == [("a.txt", "!undecodable")]
    assert results("größer".encode("latin-1"), "a.txt", encoding="iso-8859-1") == [("a.txt", "größer")]
    assert only(b"").text == ""
    assert child._idle == []


def test_a_few_bytes_of_a_picture_are_no_text_in_an_old_encoding():
    for name, data in (("a.png", b"\x89PNG"), ("b.docx", b"PK\xfe\xff\xe0"), ("c.jpg", b"\xff\xd8")):
        assert results(data, name) == [(name, "!broken")]
        assert results(zipped({name: data}), "z.zip") == [(f"z.zip!{name}", "!broken")]
    assert results(b"only a text", "a.png") == [("a.png", "only a text")]


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    assert [found.reason for found in extract(Raw("x", path=tmp_path / "gone"), Extract())] == ["unreadable"]


@pytest.mark.parametrize(
    ("table", "rows"),
    [
        ("a,b\n1,2\n", "a\tb\n1\t2\n"),
        ('a;b\n1,5;"x; y"\n2,5;z\n', "a\tb\n1,5\tx; y\n2,5\tz\n"),
        ("a\tb\n1\t2\n", "a\tb\n1\t2\n"),
        ('a,b\n"two\nlines","quote ""here"""\n', 'a\tb\ntwo lines\tquote "here"\n'),
        ("one\ntwo\n", "one\ntwo\n"),
        ("a,b,,\n,,,\n1,2,,\n", "a\tb\n1\t2\n"),
        ('a,b\n"never closed, ' + "x\n" * 50, None),
    ],
)
def test_tables(table, rows):
    found = only(table.encode(), "a.csv")
    assert found.kind == "table"
    assert found.text == rows if rows is not None else "never closed" in found.text


def test_json_gives_its_texts():
    records = [
        {"id": n, "url": "https://example.org/a", "text": text, "tags": ["a1", "b2"]}
        for n, text in enumerate(PARAGRAPHS)
    ]
    expected = "\n\n".join(PARAGRAPHS)
    found = only(json.dumps(records).encode(), "a.json")
    assert (found.text, found.kind, found.metadata["records"]) == (expected + "\n", "prose", 3)
    lines = "\n".join(json.dumps(record, ensure_ascii=False) for record in records) + "\nnot json\n"
    found = only(lines.encode(), "a.jsonl")
    assert (found.text, found.kind) == (f"{expected}\n\nnot json\n\n", "prose")
    assert only("\n".join(map(json.dumps, records)).encode(), "a.json").text == expected + "\n\n"
    assert only(lines.encode(), "a.jsonl", everything=True).text == lines


def test_json_of_names_and_numbers_stays_as_it_is():
    settings = json.dumps({"name": "x", "version": "1.0", "scripts": {"build": "make all", "n": [1, 2, 3]}}, indent=1)
    for written in (settings, "// comment\n" + settings, settings[:-5], "[" * 50):
        found = only(written.encode(), "a.json")
        assert (found.text, found.kind) == (written, "data")
    assert results(b"[" * 1_000_000, "a.json")[0][1] in ("!broken", "[" * 1_000_000)
    words = "灯台守の二度目の冬" * 9
    assert only(json.dumps({"text": words}, ensure_ascii=False).encode(), "a.json").text == words + "\n"


def test_a_notebook_gives_text_and_code():
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "text"]},
        {"cell_type": "code", "source": "print(1)", "outputs": [{"text": ["1\n"]}, {"data": {"text/plain": "2"}}]},
    ]
    notebook = json.dumps({"cells": cells, "metadata": {"x": 1}}).encode()
    assert only(notebook, "a.ipynb").text == "# Title\ntext\n\nprint(1)\n"
    assert only(notebook, "a.ipynb").kind == "code"
    assert only(notebook, "a.ipynb", everything=True).text == "# Title\ntext\n\nprint(1)\n\n1\n\n2\n"
    assert results(b'{"cells": 3}', "a.ipynb") == [("a.ipynb", "!broken")]


def test_a_mail_with_its_attachments():
    found = results(eml(), "a.eml")
    assert [source for source, _ in found] == ["a.eml", "a.eml!Brief.docx", "a.eml!part 4"]
    assert found[0][1] == (
        "From: Märta Laine <marta@example.org>\nTo: b@example.org\nDate: Fri, 17 May 2024 09:30:00 +0200\n"
        f"Subject: Über die Fähre\n\n{PARAGRAPHS[0]}\n"
    )
    assert DE.titles[0] in found[1][1]
    assert found[2][1].endswith(f"Subject: Weitergeleitet\n\n{PARAGRAPHS[1]}\n")
    (mail, *_) = extract(Raw("a.eml", data=eml()), Extract())
    told = {"title": "Über die Fähre", "date": "2024-05-17", "author": "Märta Laine <marta@example.org>"}
    assert told.items() <= mail.metadata.items()


def test_a_mail_in_html_only():
    page = "<html><style>x</style><body><p>Hello <b>there</b></p><p>second</p></body></html>"
    mail = f"From: a@example.org\nSubject: s\nMIME-Version: 1.0\nContent-Type: text/html\n\n{page}".encode()
    assert only(mail, "a.eml").text == "From: a@example.org\nSubject: s\n\nHello there\n\nsecond\n"


def test_a_mailbox():
    box = b"".join(
        b"From a@example.org Fri May 17 09:30:0%d 2024\nFrom: a@example.org\nSubject: s%d\n\nbody %d\n>From the start\n\n"
        % (n, n, n)
        for n in range(3)
    )
    expected = [
        (f"box!{n + 1}", f"From: a@example.org\nSubject: s{n}\n\nbody {n}\nFrom the start\n") for n in range(3)
    ]
    assert results(box, "box") == expected
    assert results(zipped({"box": box}), "a.zip") == [(f"a.zip!{source}", text) for source, text in expected]


@pytest.mark.parametrize(
    "mail",
    [
        b"From: \xff\xfe\nSubject: =?utf-8?B?broken?=\nDate: never\nMIME-Version: 1.0\n\nbody",
        b"From: a\nSubject: b\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n--x\nbody without end",
        b"From: a\nSubject: b\nMIME-Version: 1.0\nContent-Type: text/plain; charset=nothing-known\n\nbody",
        b"From: a\nSubject: b\nMIME-Version: 1.0\nContent-Transfer-Encoding: base64\nContent-Type: text/plain\n\n!!!body",
        b"From: a\nSubject: b\nMIME-Version: 1.0\nContent-Type: message/rfc822\n\n",
        b"From: a\nSubject: b\nMIME-Version: 1.0\n" + b"Content-Type: multipart/mixed; boundary=x\n\n--x\n" * 200,
    ],
)
def test_broken_mails_do_not_hurt(mail):
    for source, text in results(mail, "a.eml"):
        assert source.startswith("a.eml")
        assert text


def test_attachments_of_attachments_have_the_names_they_lie_under():
    found = results(zipped({"mails/a.eml": eml(), "b.docx": docx()}), "x.zip")
    assert [source for source, _ in found] == [
        "x.zip!mails/a.eml", "x.zip!mails/a.eml!Brief.docx", "x.zip!mails/a.eml!part 4", "x.zip!b.docx"
    ]  # fmt: skip
