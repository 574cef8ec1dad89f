"""A document's way through cleaning: bytes add up at each step, and code is not treated as prose."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crystalline.corpus.clean.cleaner import Cleaner, finish, judge
from crystalline.corpus.clean.language import UNKNOWN, language
from crystalline.settings import Clean

SPEECH = {
    "en": "The harbour was silent that morning, and nobody had seen the ships leave or spoke about the reasons.",
    "de": "Der Hafen war an diesem Morgen still, und niemand hatte die Schiffe auslaufen sehen oder sprach darüber.",
    "fr": "Le port était silencieux ce matin-là, et personne n'avait vu partir les bateaux ni n'en parlait.",
    "es": "El puerto estaba en silencio aquella mañana y nadie había visto salir los barcos ni hablaba de ello.",
    "fi": "Satamassa oli sinä aamuna hiljaista, eikä kukaan ollut nähnyt laivojen lähtevän tai puhunut siitä.",
    "ru": "В то утро в гавани было тихо, и никто не видел, как ушли корабли, и никто не говорил об этом.",
    "ja": "その朝、港は静まり返っていて、船が出て行くのを見た者は誰もおらず、それについて話す者もいなかった。",
    "zh": "那天早晨港口一片寂静，没有人看见船只离开，也没有人谈起这件事的原因。",
}


def clean(text, source="notes.txt", kind="prose", **choices):
    cleaner = Cleaner(Clean(**choices), source, kind)
    done = cleaner.begin(text.encode())
    judge([(cleaner, done)])
    finish([(cleaner, done)])
    return done


@pytest.mark.parametrize("code", SPEECH)
def test_languages_are_told(code):
    assert language(SPEECH[code]) == code


@pytest.mark.parametrize("text", ["", "12 34", "a", "+++ --- ===", "ok", "x = y", "1,2,3\n" * 50])
def test_where_nothing_can_be_said_nothing_is(text):
    assert language(text) == UNKNOWN


def test_only_some_languages():
    assert [clean(text, languages=["de", "fi"]).reason for text in SPEECH.values()] == [
        "" if code in ("de", "fi") else "language" for code in SPEECH
    ]
    assert clean("12 34", languages=["de"]).reason == ""  # nobody knows
    assert clean(SPEECH["en"], kind="code", languages=["de"]).reason == ""  # programs are in no language


PIECES = [
    "für größere Bäume", "fÃ¼r Ã¤ltere", "Read more", "anna@web.de", "\r\n", "\n\n", "\x00\x0c", "e\u0301", "  ",
    "\ufeff",
    "*** START OF THE PROJECT GUTENBERG EBOOK X ***\n", "\n*** END OF THE PROJECT GUTENBERG EBOOK X ***\n",
    "404 not found",
    "+49 30 901820", "lorem ipsum", "the same words again and again ", "漢字かな", "# # #", "\U0001f600", "\u0958",
    SPEECH["en"], SPEECH["ru"],
]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(PIECES), max_size=12).map("".join), min_size=1, max_size=5),
    st.sampled_from(["notes.txt", "https://example.org/page"]),
    st.sampled_from(["prose", "code", "data"]),
    st.sampled_from([[], ["en"]]),
)
def test_bytes_in_are_bytes_kept_and_bytes_taken(sections, source, kind, languages):
    cleaner = Cleaner(Clean(languages=languages), source, kind)
    done = [(cleaner, cleaner.begin(section.encode())) for section in sections]
    judge(done)
    finish(done)
    for (_, document), section in zip(done, sections, strict=True):
        assert len(document.data) + sum(document.taken.values()) == len(section.encode())
        assert document.data == document.text.encode()
        assert bool(document.text) != bool(document.reason)
        assert document.reason == "" or document.reason in document.taken or not section


def test_programs_are_not_treated_as_prose():
    source = random.Random(1)
    code = "\n".join(
        f"    x{i} = values[{source.randrange(100)}] + '+49 30 901820'  # Read more" for i in range(40)
    ) + "\n" + "return 0\n" * 50 + "lorem ipsum 404 not found 192.0.2.1 4111 1111 1111 1111 fÃ¼r\n"  # fmt: skip
    done = clean(code, "https://example.org/main.c", "code")
    assert (done.text, done.reason) == (code.rstrip(), "")
    keyed = clean("key = 'AKIAIOSFODNN7EXAMPLE'  # anna@web.de", "x.py", "code")
    assert keyed.text == "key = '<key>'  # <email>"


def test_each_step_can_be_left_out():
    text = f"fÃ¼r alle\nRead more\n{SPEECH['en']}\nanna@web.de"
    page = "https://example.org/"
    assert clean(text, page, quality="off").text == f"für alle\n{SPEECH['en']}\n<email>"
    assert clean(text, page, quality="off", repair=False, boilerplate=False, mask=[]).text == text
    assert clean(text, page).reason == "too short"
    assert clean(text, page, quality="files").reason == ""
    assert clean(text, "notes.txt", quality="web").reason == "too short"
    assert clean(text, "notes.txt").text == f"für alle\nRead more\n{SPEECH['en']}\n<email>"


def test_what_was_taken_is_told_by_reason():
    done = clean(f"fÃ¼r \r\nRead more\n{SPEECH['en']} anna@web.de   ", "https://example.org/", quality="off")
    assert done.taken == {"cleaning": 6, "boilerplate": 10, "masking": 4}
    assert clean(" \n\t\x00 ").taken == {"empty": 5}
    whole = clean("Menu\nRead more\n", "https://example.org/")
    assert (whole.reason, whole.taken) == ("boilerplate", {"cleaning": 1, "boilerplate": 14})
