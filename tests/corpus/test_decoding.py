import codecs

import pytest

from crystalline.corpus import decoding
from crystalline.corpus.decoding import NotText, encoding_of, pieces

GERMAN = "Der Käse ist größer als die Straße, sagte der Bäcker und schloß die Tür. " * 40
RUSSIAN = "В начале было слово, и слово было на русском языке, как и весь этот текст. " * 40


def text_of(path) -> str:
    return "".join(pieces(path, encoding_of(path)))


def reason(path) -> str:
    with pytest.raises(NotText) as caught:
        encoding_of(path)
    return caught.value.reason


@pytest.fixture
def file(tmp_path):
    return tmp_path / "file"


@pytest.mark.parametrize(
    "data",
    [
        GERMAN.encode(),
        codecs.BOM_UTF8 + GERMAN.encode(),
        codecs.BOM_UTF16_LE + GERMAN.encode("utf-16-le"),
        codecs.BOM_UTF16_BE + GERMAN.encode("utf-16-be"),
        codecs.BOM_UTF32_LE + GERMAN.encode("utf-32-le"),
        codecs.BOM_UTF32_BE + GERMAN.encode("utf-32-be"),
        GERMAN.encode("cp1252"),
    ],
    ids=["utf-8", "utf-8 mark", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be", "cp1252"],
)
@pytest.mark.parametrize("piece", [1 << 20, 7])
def test_text_is_decoded_whatever_the_piece_size(file, monkeypatch, data, piece):
    monkeypatch.setattr(decoding, "PIECE", piece)
    file.write_bytes(data)
    assert text_of(file) == GERMAN


def test_an_older_russian_encoding_is_recognised(file):
    file.write_bytes(RUSSIAN.encode("koi8-r"))
    assert text_of(file) == RUSSIAN


def test_the_first_odd_byte_may_come_late(file):
    # The sample must be taken there: the first megabyte alone looks like UTF-8.
    plain = "nothing but plain letters\n" * 60_000
    file.write_bytes((plain + GERMAN).encode("cp1252"))
    assert len(plain) > decoding.PIECE
    assert text_of(file) == plain + GERMAN


@pytest.mark.parametrize(
    "data",
    [b"text\0text", b"\x7fELF\1\2\3\4\5", b"x" * 100 + bytes(range(1, 8)), b"ok\n" * 500_000 + b"\0"],
    ids=["zero", "control", "7 in 100", "zero in the second piece"],
)
def test_binary(file, data):
    file.write_bytes(data)
    assert reason(file) == "binary"


def test_binary_behind_a_mark(file):
    file.write_bytes(codecs.BOM_UTF16_LE + b"\x01\x00\x02\x00\x00\x00")
    assert reason(file) == "binary"


def test_terminal_logs_and_form_feeds_are_text(file):
    log = "\x1b[31mred\x1b[0m\f\x1a\b\v\r\n"
    file.write_bytes(log.encode())
    assert text_of(file) == log


def test_a_mark_that_lies_is_undecodable(file):
    file.write_bytes(codecs.BOM_UTF16_LE + b"\x00\xd8\x41\x00")  # half of a surrogate pair
    assert reason(file) == "undecodable"


def test_a_character_cut_at_the_end_is_noticed(file):
    file.write_bytes(GERMAN.encode() + "ß".encode()[:1])
    assert decoding._first_bad_byte(file, decoding.UTF8) is not None


def test_what_fits_no_encoding_is_undecodable(file, monkeypatch):
    file.write_bytes(GERMAN.encode("cp1252"))
    monkeypatch.setattr(decoding, "_guess", lambda path, bad: None)
    assert reason(file) == "undecodable"
    monkeypatch.setattr(decoding, "_guess", lambda path, bad: "ascii")
    assert reason(file) == "undecodable"


def test_an_empty_file_is_empty_text(file):
    file.touch()
    assert text_of(file) == ""
