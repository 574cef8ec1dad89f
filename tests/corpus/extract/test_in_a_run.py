"""A run whose folder holds more than plain text."""

from corpus_texts import prose, settings_for
from made_files import PARAGRAPHS, docx, zipped
from made_pdfs import document

from crystalline.corpus import stage
from crystalline.settings import Extract


def test_a_pdf_a_letter_and_a_page_in_an_archive_become_documents(texts, run):
    (texts / "paper.pdf").write_bytes(document([(False, prose(3000, 200).replace("\n", " "))]))
    (texts / "letter.docx").write_bytes(docx())
    (texts / "pages.zip").write_bytes(zipped({"a/page.html": f"<html><body><p>{prose(3000, 201)}</p></body></html>"}))
    report = stage.build(settings_for(texts), run)
    found = {one.source: one.text for side in ("train", "held_out") for one in stage.iterate(run, side)}
    assert PARAGRAPHS[0] in found[str(texts / "letter.docx")]
    assert "naïve" in found[str(texts / "paper.pdf")]
    assert "naïve" in found[f"{texts / 'pages.zip'}!a/page.html"]
    assert {"pdf": 1, "docx": 1, "html": 1}.items() <= report["files"]["formats"].items()


def test_other_settings_of_extraction_make_another_corpus(texts, run):
    settings = settings_for(texts)
    first = stage.fingerprint(settings, run)
    assert first == stage.fingerprint(settings_for(texts), run)
    settings.extract = Extract(everything=True)
    assert first != stage.fingerprint(settings, run)
