"""Files of many formats with known text, and a short way to extract them."""

import io
import zipfile
from datetime import date, datetime

from page_texts import DE

from crystalline.corpus.extract.extraction import Extracted, Raw, extract
from crystalline.settings import Extract

PARAGRAPHS = DE.paragraphs[:3]


def results(data: bytes, name: str = "file", media_type: str = "", encoding: str = "", **settings):
    """[(source, text) or (source, reason)] in order; a reason begins with "!"."""
    raw = Raw(name, data=data, media_type=media_type, encoding=encoding)
    found = []
    for one in extract(raw, Extract(**settings)):
        found.append((one.source, "".join(one.text) if isinstance(one, Extracted) else f"!{one.reason}"))
    return found


def only(data: bytes, name: str = "file", **settings) -> Extracted:
    """The one text in a file, whole."""
    (found,) = extract(Raw(name, data=data), Extract(**settings))
    assert isinstance(found, Extracted), found
    return Extracted(found.source, "".join(found.text), found.kind, found.metadata)


def zipped(members: dict[str, bytes | str], compression=zipfile.ZIP_DEFLATED, path=None) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return data.getvalue()


def saved(document) -> bytes:
    data = io.BytesIO()
    document.save(data)
    return data.getvalue()


def docx() -> bytes:
    import docx

    document = docx.Document()
    document.core_properties.title, document.core_properties.author = DE.titles[0], "Maria Laine"
    document.add_heading(DE.titles[0], 1)
    document.add_paragraph(PARAGRAPHS[0])
    for item in DE.items:
        document.add_paragraph(item, style="List Bullet")
    table = document.add_table(2, 2)
    for number, cell in enumerate(["Name", "Zahl", "Biene", "12"]):
        table.cell(number // 2, number % 2).text = cell
    paragraph = document.add_paragraph("Zeile eins")
    paragraph.add_run().add_break()
    paragraph.add_run("Zeile zwei").bold = True
    document.add_paragraph(PARAGRAPHS[1])
    document.sections[0].header.paragraphs[0].text = "Kopf der Seite"
    document.sections[0].footer.paragraphs[0].text = "Fuß der Seite"
    return saved(document)


def xlsx() -> bytes:
    import openpyxl

    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Zählung"
    sheet.append(["Tag", "Bienen", "Anteil", "Bemerkung"])
    sheet.append([date(2024, 5, 17), 12, 0.1 + 0.2, "kühl, aber\nsonnig"])
    sheet.append([datetime(2024, 5, 18, 9, 30), 15, True])
    sheet["F5"] = "weit rechts"
    book.create_sheet("Zweites")["A1"] = "=1+1"
    hidden = book.create_sheet("Verborgen")
    hidden["A1"], hidden.sheet_state = "geheim", "hidden"
    return saved(book)


def pptx() -> bytes:
    import pptx

    show = pptx.Presentation()
    for title, text in zip(DE.headings, PARAGRAPHS, strict=False):
        slide = show.slides.add_slide(show.slide_layouts[1])
        slide.shapes.title.text = title
        slide.placeholders[1].text = text
    slide.notes_slide.notes_text_frame.text = "Nicht zu schnell sprechen."
    table = slide.shapes.add_table(2, 2, 0, 0, 10, 10).table
    for number, cell in enumerate("abcd"):
        table.cell(number // 2, number % 2).text = cell
    return saved(show)


OPEN = (
    'xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0" xmlns:text="urn:oasis:names:tc:opendocument:xmlns:'
    'text:1.0" xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0" xmlns:dc="http://purl.org/dc/elements/1.1/" '
    'xmlns:meta="urn:oasis:names:tc:opendocument:xmlns:meta:1.0" xmlns:draw="urn:oasis:names:tc:opendocument:xmlns:'
    'drawing:1.0"'
)


def opendocument(kind: str, body: str) -> bytes:
    return zipped({
        "mimetype": f"application/vnd.oasis.opendocument.{kind}",
        "content.xml": f"<office:document-content {OPEN}><office:body><office:{kind}>{body}</office:{kind}></office:body>"
        "</office:document-content>",
        "meta.xml": f"<office:document-meta {OPEN}><office:meta><dc:title>{DE.titles[0]}</dc:title><dc:language>de"
        "</dc:language></office:meta></office:document-meta>",
        "META-INF/manifest.xml": "<manifest/>",
    })  # fmt: skip


def odt() -> bytes:
    items = "".join(f"<text:list-item><text:p>{item}</text:p></text:list-item>" for item in DE.items)
    return opendocument(
        "text",
        f"<text:tracked-changes><text:p>gestrichen</text:p></text:tracked-changes><text:h>{DE.titles[0]}</text:h>"
        f"<text:p>{PARAGRAPHS[0]}<text:note><text:note-citation>1</text:note-citation><text:note-body><text:p>eine Fußnote"
        f'</text:p></text:note-body></text:note> und<text:s text:c="2"/>weiter</text:p><text:list>{items}</text:list>'
        "<table:table><table:table-row><table:table-cell><text:p>Name</text:p></table:table-cell><table:table-cell "
        'table:number-columns-repeated="2"><text:p>Zahl</text:p></table:table-cell></table:table-row></table:table>'
        f"<text:p>{PARAGRAPHS[1]}</text:p>",
    )


def epub(**more: str) -> bytes:
    chapters = "".join(
        f'<item id="c{n}" href="text/c%20{n}.xhtml" media-type="application/xhtml+xml"/>' for n in range(3)
    )
    order = "".join(f'<itemref idref="c{n}"/>' for n in (2, 0, 1))
    page = '<?xml version="1.0" encoding="utf-8"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title>x</title></head><body>'
    return zipped({
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles><rootfile '
        'full-path="OEBPS/book.opf"/></rootfiles></container>',
        "OEBPS/book.opf": '<package xmlns="http://www.idpf.org/2007/opf"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/">'
        f"<dc:title>{DE.titles[1]}</dc:title><dc:creator>Maria Laine</dc:creator><dc:language>de</dc:language></metadata>"
        f'<manifest>{chapters}<item id="nav" href="nav.xhtml" properties="nav" media-type="application/xhtml+xml"/></manifest>'
        f'<spine><itemref idref="nav"/>{order}</spine></package>',
        "OEBPS/nav.xhtml": f"{page}<nav><ol><li>Inhalt</li></ol></nav></body></html>",
        **{f"OEBPS/text/c {n}.xhtml": f"{page}<h1>{DE.headings[n]}</h1><p>{DE.paragraphs[n]}</p></body></html>" for n in range(3)},
        **more,
    })  # fmt: skip


def eml() -> bytes:
    from email.message import EmailMessage

    mail = EmailMessage()
    mail["From"], mail["To"] = "Märta Laine <marta@example.org>", "b@example.org"
    mail["Subject"], mail["Date"] = "Über die Fähre", "Fri, 17 May 2024 09:30:00 +0200"
    mail["Message-ID"], mail["X-Mailer"] = "<1@example.org>", "nobody reads this"
    mail.set_content(PARAGRAPHS[0])
    mail.add_alternative(f"<html><body><p>{PARAGRAPHS[0]}</p></body></html>", subtype="html")
    mail.add_attachment(docx(), maintype="application", subtype="octet-stream", filename="Brief.docx")
    inner = EmailMessage()
    inner["From"], inner["Subject"], inner["Message-ID"] = "c@example.org", "Weitergeleitet", "<2@example.org>"
    inner.set_content(PARAGRAPHS[1])
    mail.add_attachment(inner)
    return mail.as_bytes()


RTF = (
    rb"{\rtf1\ansi\ansicpg1252\deff0{\fonttbl{\f0 Arial;}}{\info{\title nicht im Text}}{\*\generator x;}\f0\fs24 "
    rb"Gr\'fc\'dfe aus {\b K\u246?ln}\par Zweiter Absatz \u-10179?\u-8704?\line neue Zeile\par{\header Kopf}"
    rb"\trowd\intbl a\cell b\cell\row\pard Ende\par}"
)
