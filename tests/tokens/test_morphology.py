"""Which words are taken for relatives, and which only look like it."""

import pytest

from crystalline.tokens.morphology import IRREGULAR, SIMPLE, Surface, parent, surface

NOTHING = frozenset()


def stem_of(word, *vocabulary):
    found = parent(word, {word, *vocabulary}, NOTHING)
    return found[0] if found else None


@pytest.mark.parametrize(
    ("token", "word", "operators"),
    [
        ("run", "run", []),
        (" run", "run", [("space", " ")]),
        (" Running", "running", [("space", " "), ("title", "Title")]),
        ("_RUN", "run", [("underscore", "_"), ("upper", "UPPER")]),
        ("(x", "x", [("mark", "(")]),
        ("A", "a", [("title", "Title")]),
        (" Émile", "émile", [("space", " "), ("title", "Title")]),
        ("नमस्ते", "नमस्ते", []),
        ("ЯБЛОКО", "яблоко", [("upper", "UPPER")]),
        ("’s", None, None),  # of no word "s"
        ("'LL", None, None),
        ("’clock", "clock", [("mark", "’")]),
        ("StreamReader", None, None),  # neither Title nor UPPER
        ("\u212a", None, None),  # the Kelvin sign must not pass for a K
        (" ", None, None),
        ("  ", None, None),
        ("(", None, None),
        ("123", None, None),
        ("", None, None),
    ],
)
def test_what_is_seen_on_a_token(token, word, operators):
    expected = None if word is None else Surface(word, tuple(operators))
    assert surface(token.encode()) == expected


def test_pieces_of_characters_are_no_words():
    assert surface(b"\xe2\x80") is None
    assert surface(b" \xc3") is None


@pytest.mark.parametrize(
    ("word", "stem", "operator"),
    [
        ("runs", "run", "s"), ("running", "run", "ing"), ("making", "make", "ing"), ("tried", "try", "ed"),
        ("tries", "try", "s"), ("boxes", "box", "s"), ("cases", "case", "s"), ("used", "use", "ed"),
        ("opened", "open", "ed"), ("added", "add", "ed"), ("seeing", "see", "ing"), ("agreed", "agree", "ed"),
        ("stopped", "stop", "ed"), ("equipped", "equip", "ed"),
        ("beginning", "begin", "ing"), ("controlled", "control", "ed"), ("showing", "show", "ing"),
        ("quickly", "quick", "ly"), ("happily", "happy", "ly"), ("simply", "simple", "ly"),
        ("kindness", "kind", "ness"), ("hopeless", "hope", "less"), ("careful", "care", "ful"),
        ("going", "go", "ing"), ("does", "do", "s"), ("larger", "large", "er"), ("classes", "class", "s"),
    ],
)  # fmt: skip
def test_forms_of_a_word(word, stem, operator):
    assert parent(word, {word, stem}, NOTHING) == (stem, operator)
    assert parent(word, {word}, NOTHING) is None  # only words of the vocabulary are stems


@pytest.mark.parametrize(
    ("word", "look_alikes"),
    [
        ("thing", ["th", "the"]), ("string", ["str"]), ("sing", ["s"]), ("bring", ["br", "bre"]),
        ("letter", ["let", "letting"]), ("number", ["numb"]), ("this", ["thi"]), ("class", ["clas"]),
        ("bed", ["be"]), ("shed", ["she"]), ("mission", ["miss", "missed"]), ("speed", ["spe"]),
        ("her", ["h"]), ("status", ["statu"]), ("analysis", ["analysi"]), ("king", ["ki"]),
        ("corner", ["corn"]), ("water", ["wat"]), ("forest", ["fore"]), ("cons", ["con"]), ("apply", ["app"]),
    ],
)  # fmt: skip
def test_look_alikes(word, look_alikes):
    assert stem_of(word, *look_alikes) is None


def test_one_spelling_wins_over_the_other():
    assert stem_of("hoping", "hop", "hope") == "hope"
    assert stem_of("hopping", "hop", "hope") == "hop"
    assert stem_of("rated", "rat", "rate") == "rate"
    assert stem_of("rated", "rat") is None
    assert stem_of("staring", "star") is None
    assert stem_of("filled", "fil") is None
    assert stem_of("calling", "cal", "call") == "call"


def test_some_suffixes_need_a_witness():
    assert stem_of("reader", "read") is None
    assert stem_of("reader", "read", "reading") == "read"
    assert stem_of("maker", "make", "making") == "make"
    assert stem_of("runner", "run", "running") == "run"
    assert stem_of("greatest", "great", "greatly") == "great"
    assert stem_of("harvest", "harv") is None


def test_pieces_come_only_from_pieces():
    assert parent("ations", NOTHING, {"ation", "ations"}) == ("ation", "s")
    assert parent("ther", {"the"}, {"ther"}) is None  # a piece of "mother", not a form of "the"
    assert parent("ared", {"are"}, {"ared"}) is None
    assert parent("words", {"words"}, {"word"}) is None
    assert parent("ersion", NOTHING, {"ers", "ersed", "ersion"}) is None  # pieces: inflections only


def test_the_lists_of_exceptions_are_sound():
    assert not SIMPLE & IRREGULAR.keys()
    for word, (stem, _) in IRREGULAR.items():
        assert word[:1] == stem[:1] or word in ("went", "was", "is", "ate")
        assert word != stem
