"""Office documents and books, made by other programs' libraries or by the letter of their standards."""

import zipfile

import pytest
from made_files import DE, PARAGRAPHS, RTF, docx, epub, odt, only, opendocument, pptx, results, xlsx, zipped

LIST = "\n".join(DE.items)


def test_docx():
    found = only(docx(), "a.docx")
    assert found.kind == "prose"
    assert {"format": "docx", "title": DE.titles[0], "author": "Maria Laine"}.items() <= found.metadata.items()
    expected = [
        DE.titles[0],
        PARAGRAPHS[0],
        *DE.items,
        "Name\tZahl\nBiene\t12",
        "Zeile eins\nZeile zwei",
        PARAGRAPHS[1],
    ]
    assert found.text == "\n\n".join(expected) + "\n"
    everything = only(docx(), "a.docx", everything=True).text
    assert "Kopf der Seite" in everything
    assert "Fuß der Seite" in everything


WORD = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def word(body: str, **parts: str) -> bytes:
    relation = 'Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/'
    others = "".join(f'<Relationship Id="r{n}" {relation}{n}" Target="{n}.xml"/>' for n in parts)
    head = '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    return zipped({
        "[Content_Types].xml": "<Types/>",
        "_rels/.rels": f'{head}<Relationship Id="r" {relation}officeDocument" Target="/word/document2.xml"/></Relationships>',
        "word/_rels/document2.xml.rels": f"{head}{others}</Relationships>",
        "word/document2.xml": f"<w:document {WORD}><w:body>{body}</w:body></w:document>",
        **{f"word/{name}.xml": f"<w:notes {WORD}>{text}</w:notes>" for name, text in parts.items()},
    })  # fmt: skip


def run(text: str) -> str:
    return f"<w:r><w:t>{text}</w:t></w:r>"


def test_what_was_deleted_in_a_docx_is_not_read_and_notes_are():
    body = (
        f"<w:p>{run('kept')}<w:del><w:r><w:delText>deleted</w:delText></w:r></w:del><w:ins>{run(' inserted')}</w:ins>"
        f"<w:r><w:instrText>PAGE</w:instrText></w:r></w:p><w:sdt><w:sdtContent><w:p><w:pPr><w:numPr/></w:pPr>{run('point')}"
        f"</w:p></w:sdtContent></w:sdt><w:p><w:hyperlink>{run('link')}</w:hyperlink><w:r><w:tab/><w:noBreakHyphen/></w:r></w:p>"
    )
    notes = f'<w:footnote w:type="separator"><w:p>{run("line")}</w:p></w:footnote><w:footnote><w:p>{run("note")}</w:p></w:footnote>'
    assert only(word(body, footnotes=notes)).text == "kept inserted\n\n- point\n\nlink\t-\n\nnote\n"


def test_xlsx():
    found = only(xlsx(), "a.xlsx")
    assert found.kind == "table"
    assert found.text == (
        "Zählung\nTag\tBienen\tAnteil\tBemerkung\n2024-05-17\t12\t0.3\tkühl, aber sonnig\n"
        "2024-05-18 09:30:00\t15\tTRUE\n\t\t\t\t\tweit rechts\n"
        "\nZweites\n"  # a formula that no program has computed yet has no value
    )
    assert "geheim" in only(xlsx(), "a.xlsx", everything=True).text


def test_pptx():
    found = only(pptx(), "a.pptx")
    assert found.metadata["pages"] == 3
    parts = [part for pair in zip(DE.headings, PARAGRAPHS, strict=False) for part in pair]
    assert found.text == "\n\n".join([*parts, "a\tb\nc\td", "Nicht zu schnell sprechen."]) + "\n"


def test_odt():
    found = only(odt(), "a.odt")
    assert {"format": "odt", "title": DE.titles[0], "language": "de"}.items() <= found.metadata.items()
    items = "\n".join(f"- {item}" for item in DE.items)
    assert found.text == (
        f"{DE.titles[0]}\n\n{PARAGRAPHS[0]} [eine Fußnote] und  weiter\n\n{items}\n\nName\tZahl\tZahl\n\n{PARAGRAPHS[1]}\n"
    )


def test_ods_and_odp():
    cells = '<table:table-cell table:number-columns-repeated="1000000000"/><table:table-cell><text:p>b</text:p></table:table-cell>'
    table = f"<table:table><table:table-row><table:table-cell><text:p>a</text:p></table:table-cell>{cells}</table:table-row></table:table>"
    found = only(opendocument("spreadsheet", table))
    assert (found.kind, found.text.split()) == ("table", ["a", "b"])
    slides = "".join(
        f"<draw:page><draw:text-box><text:p>{text}</text:p></draw:text-box></draw:page>" for text in PARAGRAPHS
    )
    assert only(opendocument("presentation", slides)).text == "\n\n".join(PARAGRAPHS) + "\n"


def test_epub_in_its_reading_order():
    found = only(epub(), "a.epub")
    assert {"title": DE.titles[1], "author": "Maria Laine", "language": "de"}.items() <= found.metadata.items()
    chapters = [f"{DE.headings[n]}\n\n{DE.paragraphs[n]}" for n in (2, 0, 1)]
    assert found.text == "\n\n".join(chapters) + "\n"
    assert "Inhalt" in only(epub(), "a.epub", everything=True).text


def test_rtf():
    assert only(RTF, "a.rtf").text == "Grüße aus Köln\n\nZweiter Absatz 😀\nneue Zeile\n\na\tb\nEnde\n"


def test_encrypted_files_are_named():
    locked = '<encryption><EncryptedData xmlns="http://www.w3.org/2001/04/xmlenc#"><CipherData><CipherReference URI="OEBPS/text/c%200.xhtml"/></CipherData></EncryptedData></encryption>'
    assert results(epub(**{"META-INF/encryption.xml": locked}), "a.epub") == [("a.epub", "!encrypted")]
    ole = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500)
    assert results(ole + "EncryptedPackage".encode("utf-16-le"), "a.docx") == [("a.docx", "!encrypted")]
    assert results(ole + "WordDocument".encode("utf-16-le"), "a.doc") == [("a.doc", "!unknown format")]
    manifest = "<manifest><file-entry><encryption-data/></file-entry></manifest>"
    archive = zipped({"mimetype": "application/vnd.oasis.opendocument.text", "META-INF/manifest.xml": manifest})
    assert results(archive, "a.odt") == [("a.odt", "!encrypted")]


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))


@pytest.mark.parametrize("inner", ["&l11;", "&file;", "&net;"])
def test_entities_are_not_expanded_and_nothing_is_fetched(tmp_path, inner):
    (tmp_path / "secret").write_text("a secret of this machine")
    document = (
        f'<!DOCTYPE d [<!ENTITY l0 "ha">{LAUGHS}<!ENTITY file SYSTEM "file://{tmp_path}/secret"><!ENTITY net SYSTEM '
        f'"http://127.0.0.1:9/x">]><w:document {WORD}><w:body><w:p><w:r><w:t>before{inner}after</w:t></w:r></w:p></w:body>'
        "</w:document>"
    )
    archive = word("")
    members = {}
    import io

    with zipfile.ZipFile(io.BytesIO(archive)) as old:
        members = {name: old.read(name) for name in old.namelist()}
    ((_, text),) = results(zipped({**members, "word/document2.xml": document}), "a.docx", memory_mb=512)
    assert "secret of" not in text
    assert len(text) < 1000


def test_a_part_that_unpacks_to_too_much_is_refused():
    body = f"<w:p>{run('x' * 3_000_000)}</w:p>"
    assert results(word(body), "a.docx", max_file_mb=2) == [("a.docx", "!too large")]


def test_deeply_nested_xml_ends():
    deep = "<w:sdt>" * 100_000 + "</w:sdt>" * 100_000
    assert results(word(deep), "a.docx") == [("a.docx", "!broken")]


@pytest.mark.parametrize("make", [docx, xlsx, pptx, odt, epub])
def test_missing_and_broken_parts(make):
    import io

    with zipfile.ZipFile(io.BytesIO(make())) as whole:
        members = {name: whole.read(name) for name in whole.namelist()}
    for name in members:
        for changed in (b"", b"<broken", b"<other/>"):
            for _, text in results(zipped({**members, name: changed}), "a"):
                assert isinstance(text, str)
        for source, text in results(zipped({other: members[other] for other in members if other != name}), "a"):
            assert source.startswith("a")
            assert text
