"""PDF files with known text, made with reportlab."""

import random
from io import BytesIO
from pathlib import Path

import numpy as np
import pypdfium2
import reportlab
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import cm
from reportlab.lib.utils import ImageReader
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import BaseDocTemplate, Frame, PageTemplate, Paragraph

# A font that reportlab brings along.
FONTS = Path(reportlab.__file__).parent / "fonts"
for font, file in (("Vera", "Vera.ttf"), ("VeraBd", "VeraBd.ttf")):
    pdfmetrics.registerFont(TTFont(font, str(FONTS / file)))

BODY = ParagraphStyle("body", fontName="Vera", fontSize=10, leading=13, spaceAfter=7, alignment=4)
HEADING = ParagraphStyle("heading", fontName="VeraBd", fontSize=14, leading=18, spaceBefore=8, spaceAfter=6)


def document(blocks, columns=1, header="", numbers=True, style=BODY, title="", **options) -> bytes:
    """A PDF of (is a heading, text) blocks, broken into lines and pages."""
    data = BytesIO()
    width, height = A4
    gap = 0.8 * cm
    each = (width - 4 * cm - gap * (columns - 1)) / columns
    frames = [Frame(2 * cm + n * (each + gap), 2.5 * cm, each, height - 5 * cm, 0, 0, 0, 0) for n in range(columns)]

    def frame(canvas, _):
        canvas.setFont("Vera", 8)
        if header:
            canvas.drawString(2 * cm, height - 1.5 * cm, header)
        if numbers:
            canvas.drawCentredString(width / 2, 1.2 * cm, f"{canvas.getPageNumber()}")

    template = BaseDocTemplate(data, pagesize=A4, title=title, author="Maria Laine", invariant=1, **options)
    template.addPageTemplates(PageTemplate("page", frames, onPage=frame))
    template.build([Paragraph(text, HEADING if heading else style) for heading, text in blocks])
    return data.getvalue()


def by_hand(lines, font="Vera", size=11, leading=14, path=None) -> bytes:
    """A PDF of one page with the lines as they are given."""
    data = BytesIO()
    canvas = Canvas(data, pagesize=A4, invariant=1)
    canvas.setFont(font, size)
    for number, line in enumerate(lines):
        canvas.drawString(2 * cm, A4[1] - 3 * cm - number * leading, line)
    canvas.save()
    return data.getvalue()


def scanned(pdf: bytes, dpi=300, noise=0, turn=0.0) -> bytes:
    """The pages of a PDF as pictures in another one. noise: grey values to add at most; turn: degrees."""
    data = BytesIO()
    canvas = Canvas(data, pagesize=A4, invariant=1)
    for picture in pictures(pdf, dpi, noise, turn):
        canvas.drawImage(ImageReader(picture), 0, 0, *A4)
        canvas.showPage()
    canvas.save()
    return data.getvalue()


def pictures(pdf: bytes, dpi=300, noise=0, turn=0.0):
    """The pages of a PDF in grey."""
    from PIL import Image, ImageChops

    source = random.Random(5)
    found = []
    for page in pypdfium2.PdfDocument(pdf):
        picture = page.render(scale=dpi / 72, grayscale=True).to_pil()
        if turn:
            picture = picture.rotate(turn, fillcolor=255, resample=Image.Resampling.BICUBIC)
        if noise:
            dust = Image.frombytes("L", picture.size, source.randbytes(picture.width * picture.height))
            picture = ImageChops.subtract(picture, dust.point(lambda value: value * noise // 255))
        found.append(picture)
    return found


def error_rate(found: str, wanted: str) -> float:
    """Levenshtein distance of characters by the length of what is wanted, white space counted as single spaces."""
    found, wanted = " ".join(found.split()), " ".join(wanted.split())
    letters = np.array([ord(letter) for letter in wanted])
    places = np.arange(len(wanted) + 1)
    row = places.copy()
    for letter in found:
        following = row + 1
        following[1:] = np.minimum(following[1:], row[:-1] + (letters != ord(letter)))
        row = np.minimum.accumulate(following - places) + places
    return row[-1] / len(wanted)
