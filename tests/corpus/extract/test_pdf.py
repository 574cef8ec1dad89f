import made_pdfs
import pytest
from made_files import only, results
from made_pdfs import document, error_rate
from page_texts import DE, EN, ES, FI, FR

from crystalline.corpus.extract.layout import joined
from crystalline.corpus.extract.pdf import selected


def blocks(texts, number=9, times=1):
    """Headings and paragraphs, as document() takes them."""
    found = []
    for time in range(times):
        for place, paragraph in enumerate(texts.paragraphs[:number]):
            if place % 2 == 0:
                found.append((True, f"{texts.headings[place // 2 % 4]} {'ABCD'[time]}"))
            found.append((False, paragraph))
    return found


def wanted(found):
    return "\n\n".join(text for _, text in found)


@pytest.mark.parametrize("texts", [EN, DE, FR, ES, FI], ids=lambda texts: texts.code)
@pytest.mark.parametrize("columns", [1, 2, 3])
def test_born_digital_at_most_one_percent_of_characters_wrong(texts, columns):
    parts = blocks(texts, times=3)
    found = only(document(parts, columns, header=texts.titles[0], title=texts.titles[0]), "a.pdf")
    assert found.metadata["pages"] >= 2
    assert error_rate(found.text, wanted(parts)) <= 0.01
    assert found.metadata["title"] == texts.titles[0]
    if columns < 3:  # in very narrow columns, gaps between words look like columns
        assert [" ".join(p.split()) for p in found.text.strip().split("\n\n")] == [text for _, text in parts]


def test_running_titles_and_page_numbers_stay_with_everything():
    pdf = document(blocks(EN, times=3), header="A running title")
    assert "A running title" not in only(pdf).text
    assert only(pdf, everything=True).text.count("A running title") >= 2


def test_titles_of_chapters_go_by_their_page_numbers_and_rows_of_tables_stay():
    from io import BytesIO

    from reportlab.pdfgen.canvas import Canvas

    data = BytesIO()
    canvas = Canvas(data, invariant=1)
    for page in range(12):
        canvas.setFont("Vera", 9)
        canvas.drawString(60, 800, f"Chapter {page // 2 + 1}: About {EN.headings[page // 3]}")
        canvas.drawString(500, 800, f"{page + 5}")
        canvas.setFont("Vera", 11)
        canvas.drawString(60, 760, f"{page * 7}")  # at the same place, but no page number
        canvas.drawString(160, 760, f"{page * 3}")
        for row in range(30):
            canvas.drawString(60, 740 - 14 * row, f"{EN.paragraphs[(page + row) % 9][:60]} {page}-{row}")
        canvas.showPage()
    canvas.save()
    text = only(data.getvalue()).text
    assert "Chapter" not in text
    for page in range(12):
        assert f"{page * 7} {page * 3}" in text.replace("\t", " ")
        assert f" {page}-29" in text


def test_divided_words_are_made_whole():
    lines = [
        "The light-", "house keeper wrote a well-", "known book about light-", "houses. It is a well-known book. In",
        "1990-", "1995 he lived on the Anglo-", "Saxon coast \u2010 so they say \u00ad and never moved.",
    ]  # fmt: skip
    text = only(made_pdfs.by_hand(lines)).text
    assert "The lighthouse keeper wrote a well-known book about lighthouses. It is a well-known book." in text
    assert "1990-1995 he lived on the Anglo-Saxon coast" in text


def test_joining():
    assert joined("das Wort", "und mehr", set()) == "das Wort und mehr"
    assert joined("灯台", "守の", set()) == "灯台守の"
    assert joined("Leucht-", "turm", set()) == "Leuchtturm"
    assert joined("soft\u00ad", "ware", {"soft-ware"}) == "software"
    assert joined("co-", "operate", {"co-operate"}) == "co-operate"
    assert joined("a -", "b", set()) == "a - b"


def test_ligatures_become_letters():
    text = only(made_pdfs.by_hand(["The \ufb01rst \ufb02oor of\ufb01ce"])).text
    assert text == "The first floor office\n"


def test_a_table_keeps_its_rows():
    from io import BytesIO

    from reportlab.platypus import SimpleDocTemplate, Table

    data = BytesIO()
    rows = [["Name", "Count", "Share"], ["bees", "12", "0.3"], ["bumblebees", "7", "0.2"], ["others", "3", "0.1"]]
    SimpleDocTemplate(data, invariant=1).build([Table(rows, colWidths=120)])
    assert only(data.getvalue()).text == "".join("\t".join(row) + "\n" for row in rows)


def test_headline_over_two_columns_comes_first():
    from io import BytesIO

    from reportlab.pdfgen.canvas import Canvas

    data = BytesIO()
    canvas = Canvas(data, invariant=1)
    canvas.setFont("Vera", 10)
    # Drawn row by row across both columns, as some programs do.
    for row in range(12):
        canvas.drawString(60, 600 - 13 * row, f"left column line {row} with some words")
        canvas.drawString(320, 600 - 13 * row, f"right column line {row} with more words")
    canvas.setFont("VeraBd", 20)
    canvas.drawString(60, 700, "A headline that goes over both of the columns")
    canvas.save()
    text = " ".join(only(data.getvalue()).text.split())
    expected = [
        "A headline",
        *(f"left column line {n}" for n in range(12)),
        *(f"right column line {n}" for n in range(12)),
    ]
    places = [text.index(part) for part in expected]
    assert places == sorted(places)


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_turned_pages_are_read(turn):
    from io import BytesIO

    import pypdfium2

    pdf = pypdfium2.PdfDocument(document(blocks(EN, 3), numbers=False))
    for page in pdf:
        page.set_rotation(turn)
    data = BytesIO()
    pdf.save(data)
    assert error_rate(only(data.getvalue()).text, wanted(blocks(EN, 3))) <= 0.01


def test_text_that_is_turned_on_the_page():
    from io import BytesIO

    from reportlab.pdfgen.canvas import Canvas

    data = BytesIO()
    canvas = Canvas(data, invariant=1)
    canvas.rotate(90)
    canvas.setFont("Vera", 11)
    for row in range(5):
        canvas.drawString(100, -100 - 14 * row, f"This is line {row} of a table in landscape,")
    canvas.save()
    text = only(data.getvalue()).text
    assert text == " ".join(f"This is line {row} of a table in landscape," for row in range(5)) + "\n"


def test_pages_are_selected():
    pdf = document(blocks(EN, times=4))
    whole = only(pdf).metadata["pages"]
    assert whole >= 3
    assert len(only(pdf, pages="2").text) < len(only(pdf, pages="1-2").text) < len(only(pdf, pages="1-").text)
    assert only(pdf, pages="1-99").text == only(pdf).text
    assert results(pdf, "a.pdf", pages="99") == [("a.pdf", "!no text")]
    assert selected("1-3,2,7-", 9) == [0, 1, 2, 6, 7, 8]
    assert selected("", 2) == [0, 1]
    assert selected("0,5-4", 9) == []


def test_encrypted_and_broken_files_are_named():
    from reportlab.lib.pdfencrypt import StandardEncryption

    locked = document(blocks(EN, 2), encrypt=StandardEncryption("user", "owner"))
    assert results(locked, "a.pdf") == [("a.pdf", "!encrypted")]
    open_to_all = document(blocks(EN, 2), numbers=False, encrypt=StandardEncryption("", "owner"))
    assert EN.paragraphs[0] in only(open_to_all).text
    assert results(b"%PDF-1.7\nnothing", "a.pdf") == [("a.pdf", "!broken")]
    assert results(document([(False, " ")], numbers=False), "a.pdf") == [("a.pdf", "!no text")]


def test_the_same_file_gives_the_same_text():
    pdf = document(blocks(FR, times=2), 2)
    assert only(pdf) == only(pdf)
