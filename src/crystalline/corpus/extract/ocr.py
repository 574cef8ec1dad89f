"""Text in pictures by Tesseract: images, and the pages of scanned PDF files.

The library comes with tesserocr; what it knows of languages comes from packages of the system.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from crystalline.corpus.extract import layout, worker
from crystalline.corpus.extract.item import Item, Text, Unreadable
from crystalline.settings import Extract

if TYPE_CHECKING:
    from PIL.Image import Image

FIX = "install Tesseract's languages: apt-get install tesseract-ocr (and tesseract-ocr-deu, ... for more)"
MOST_DOTS = 100_000_000  # of a picture
LEAST_WIDTH, LEAST_HEIGHT = 40, 12  # dots; nothing smaller holds a word
SMALL = 2_000_000  # dots; a picture with fewer, such as a screenshot, is enlarged, since its letters are small
LARGE = 9_000_000  # dots; one with more is made smaller, which is faster: A4 at 300 dpi has so many
MOST_LANGUAGES = 4  # that are used by themselves
CERTAIN_LINE, CERTAIN_PAGE = 40, 55  # percent of confidence; below it, it was a photograph and no text
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")
PLACES = ("/usr/share/tesseract-ocr/*/tessdata", "/usr/share/tessdata", "/usr/local/share/tessdata")


class Missing(Exception):
    """Tesseract's data, or that of a language, is not there. fix: what to install."""

    def __init__(self, fix: str = FIX) -> None:
        super().__init__(fix)
        self.fix = fix


def read(item: Item, settings: Extract) -> Text:
    """The text in an image; of a TIFF with several pages, of all. Raises Unreadable."""
    from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError

    item.within(settings.max_file_mb)
    if settings.ocr == "never":
        raise Unreadable("needs OCR", "extract.ocr is never")
    Image.MAX_IMAGE_PIXELS = None  # our own limit comes before anything is decoded
    item.file.seek(0)
    pages = []
    try:
        opened = Image.open(item.file, formats=FORMATS)
    except UnidentifiedImageError:
        raise Unreadable("broken", "no picture that can be decoded") from None
    with opened as image:
        frames = ImageSequence.Iterator(image) if image.format == "TIFF" else [image]
        for frame in frames:
            if frame.width * frame.height > MOST_DOTS:
                raise Unreadable("too large", f"{frame.width} x {frame.height} dots")
            worker.beat()
            grey = _grey(ImageOps.exif_transpose(frame))
            if grey.width < LEAST_WIDTH or grey.height < LEAST_HEIGHT:
                continue
            dots = grey.width * grey.height
            scale = 2.0 if dots < SMALL else min(1.0, (LARGE / dots) ** 0.5)
            if scale != 1:
                size = (round(scale * grey.width), round(scale * grey.height))
                grey = grey.resize(size, Image.Resampling.BICUBIC)
            try:
                pages.append(layout.Page(segments(grey, settings, 1 / scale), grey.height / scale))
            except Missing as missing:
                raise Unreadable("needs OCR", missing.fix) from missing
    return Text("prose", layout.paragraphs(pages, everything=True), {"recognised_pages": len(pages)})


def segments(picture: Image, settings: Extract, scale: float) -> list[layout.Segment]:
    """The lines that are recognised in a grey picture, with their places; y upwards, each dot counted as `scale`.

    Raises Missing.
    """
    try:
        import tesserocr
    except ImportError as error:  # there are systems that it has not been built for
        raise Missing("install tesserocr: pip install tesserocr") from error
    api = _tesseract(languages(settings.languages))
    api.SetImage(picture)
    api.SetSourceResolution(settings.dpi)
    api.Recognize()
    api.ClearAdaptiveClassifier()  # or a page would depend on those before it
    if not api.MeanTextConf() >= CERTAIN_PAGE:
        return []
    found = []
    level = tesserocr.RIL.TEXTLINE
    for line in tesserocr.iterate_level(api.GetIterator(), level):
        box, baseline = line.BoundingBox(level), line.Baseline(level)
        if box and line.Confidence(level) >= CERTAIN_LINE:
            y = max(point[1] for point in baseline) if baseline else box[3]
            found.append((line.GetUTF8Text(level).strip(), box, y))
    if not found:
        return []
    # The height of a line depends on its letters; only a heading's is really larger.
    usual = median(box[3] - box[1] for _, box, _ in found)
    result = []
    for text, (left, top, right, bottom), y in found:
        size = bottom - top if bottom - top > 1.45 * usual else usual
        low, high = picture.height - y - 0.2 * size, picture.height - y + 0.8 * size
        result.append(layout.Segment(text, scale * left, scale * low, scale * right, scale * high, scale * size))
    return result


def languages(wanted: str | None) -> str:
    """The languages to recognise, as Tesseract names them: "eng+deu". wanted: None for those that are installed.

    Raises Missing.
    """
    there = installed()
    if not there:
        raise Missing
    if wanted is None:
        if len(there) <= MOST_LANGUAGES or "eng" not in there:
            return "+".join(there[:MOST_LANGUAGES])
        return "eng"
    names = wanted.replace(",", "+").split("+")
    if absent := [name for name in names if name not in there]:
        packages = " ".join("tesseract-ocr-" + name.replace("_", "-").lower() for name in absent)
        raise Missing(f"install {packages}; there are: {', '.join(there)}")
    return "+".join(names)


def installed() -> list[str]:
    """The languages that Tesseract has data for, English first; [] when it has none."""
    folder = _data()
    if folder is None:
        return []
    names = {path.stem for path in folder.glob("*.traineddata")} - {"osd", "equ"}
    return sorted(names, key=lambda name: (name != "eng", name))


def _data() -> Path | None:
    """The folder with Tesseract's data."""
    if prefix := os.environ.get("TESSDATA_PREFIX"):
        return Path(prefix)
    found = [folder for place in PLACES for folder in sorted(Path("/").glob(place[1:]), reverse=True)]
    return next((folder for folder in found if any(folder.glob("*.traineddata"))), None)


@cache
def _tesseract(names: str) -> Any:
    import tesserocr

    folder = _data()
    assert folder is not None
    mode = tesserocr.PSM.AUTO_OSD if (folder / "osd.traineddata").exists() else tesserocr.PSM.AUTO
    return tesserocr.PyTessBaseAPI(path=f"{folder}/", lang=names, psm=mode, oem=tesserocr.OEM.LSTM_ONLY)


def _grey(image: Image) -> Image:
    """An image in grey; what is transparent becomes white."""
    from PIL import Image as images

    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = images.alpha_composite(images.new("RGBA", image.size, "white"), image)
    return image.convert("L")
