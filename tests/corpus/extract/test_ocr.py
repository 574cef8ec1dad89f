"""Recognition of text in pictures, with Tesseract's data for English and German (script/test installs it)."""

import io

import made_pdfs
import pytest
from made_files import only, results, zipped
from page_texts import DE, EN
from test_pdf import blocks, wanted

from crystalline.corpus.extract import ocr

LANGUAGES = {"languages": "eng+deu"}


def png(picture) -> bytes:
    data = io.BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()


@pytest.fixture(scope="module")
def pdf():
    return made_pdfs.document(blocks(EN, 4), header="A running title")


def test_a_clean_scan_at_most_five_percent_of_characters_wrong(pdf):
    found = only(made_pdfs.scanned(pdf), "scan.pdf", **LANGUAGES)
    assert found.metadata["recognised_pages"] == 1
    assert made_pdfs.error_rate(found.text, f"A running title {wanted(blocks(EN, 4))} 1") <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize(
    ("texts", "columns"), [(EN, 1), (EN, 2), (DE, 1), (DE, 2)], ids=lambda v: getattr(v, "code", v)
)
@pytest.mark.parametrize(("noise", "turn"), [(0, 0), (70, 0.5)])
def test_scans_with_columns_dust_and_a_slant(texts, columns, noise, turn):
    pages = made_pdfs.document(blocks(texts, times=2), columns, header=texts.titles[0])
    found = only(made_pdfs.scanned(pages, noise=noise, turn=turn), "scan.pdf", **LANGUAGES)
    assert found.metadata["recognised_pages"] == found.metadata["pages"] >= 2
    assert made_pdfs.error_rate(found.text, wanted(blocks(texts, times=2))) <= 0.05


def test_images_are_read_also_turned_and_small(pdf):
    picture = made_pdfs.pictures(pdf, dpi=150)[0]
    text = wanted(blocks(EN, 4))
    assert made_pdfs.error_rate(only(png(picture), "a.png", **LANGUAGES).text, f"A running title {text} 1") <= 0.05
    turned = png(picture.rotate(90, expand=True))
    assert made_pdfs.error_rate(only(turned, "a.png", **LANGUAGES).text, f"A running title {text} 1") <= 0.1


def test_photographs_icons_and_broken_images_are_passed_over():
    import random

    from PIL import Image

    noise = Image.frombytes("RGB", (300, 200), random.Random(1).randbytes(300 * 200 * 3))
    assert results(png(noise), "a.png") == [("a.png", "!no text")]
    assert results(png(Image.new("RGB", (16, 16))), "a.png") == [("a.png", "!no text")]
    assert results(b"\x89PNG\r\n\x1a\nbroken", "a.png") == [("a.png", "!broken")]
    assert results(png(noise)[:5000], "a.png")[0][1] == "!broken"
    assert results(png(noise), "a.png", ocr="never") == [("a.png", "!needs OCR")]


def test_an_image_of_too_many_dots_is_not_decoded():
    import struct
    import zlib

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10_000_000)))
    assert results(bomb, "a.png") == [("a.png", "!too large")]


def test_only_the_pages_that_need_it_are_recognised(pdf):
    import pypdfium2

    mixed = pypdfium2.PdfDocument(pdf)
    mixed.import_pages(pypdfium2.PdfDocument(made_pdfs.scanned(made_pdfs.by_hand(["Only a picture of words here."]))))
    data = io.BytesIO()
    mixed.save(data)
    found = only(data.getvalue(), **LANGUAGES)
    assert found.metadata["pages"] == len(mixed)
    assert found.metadata["recognised_pages"] == 1
    assert "Only a picture of words here." in found.text
    assert EN.paragraphs[0] in found.text
    never = only(data.getvalue(), ocr="never")
    assert "picture of words" not in never.text
    assert "recognised_pages" not in never.metadata
    always = only(data.getvalue(), ocr="always", pages="1", **LANGUAGES)
    assert always.metadata["recognised_pages"] == 1


def test_without_languages_what_needs_them_is_named(monkeypatch, tmp_path, cllm):
    from crystalline.corpus.extract import child

    monkeypatch.setenv("TESSDATA_PREFIX", str(tmp_path))
    child.close()  # the next one sees the variable
    try:
        scan = made_pdfs.scanned(made_pdfs.by_hand(["Words"]), dpi=72)
        assert results(scan, "a.pdf") == [("a.pdf", "!needs OCR")]
        (tmp_path / "a.pdf").write_bytes(scan)
        code, _, err = cllm("extract", tmp_path / "a.pdf", "--ocr", "always")
        assert code == 1
        assert "apt-get install tesseract-ocr" in err
    finally:
        child.close()


def test_a_page_that_takes_too_long_is_ended_inside_of_c_and_the_rest_goes_on(pdf):
    picture = png(made_pdfs.pictures(pdf, dpi=300)[0])
    archive = zipped({"a.txt": "first", "b.png": picture, "c.txt": "last"})
    found = results(archive, "a.zip", seconds=0.3, **LANGUAGES)
    assert found == [("a.zip!a.txt", "first"), ("a.zip!b.png", "!too slow"), ("a.zip!c.txt", "last")]


def test_languages(monkeypatch):
    monkeypatch.setattr(ocr, "installed", lambda: ["eng", "deu", "fra"])
    assert ocr.languages(None) == "eng+deu+fra"
    assert ocr.languages("deu,eng") == "deu+eng"
    with pytest.raises(ocr.Missing, match="install tesseract-ocr-chi-sim; there are: eng, deu, fra"):
        ocr.languages("chi_sim+eng")
    monkeypatch.setattr(ocr, "installed", lambda: ["eng", *"abcdef"])
    assert ocr.languages(None) == "eng"
    monkeypatch.setattr(ocr, "installed", list)
    with pytest.raises(ocr.Missing, match="apt-get install tesseract-ocr"):
        ocr.languages(None)
