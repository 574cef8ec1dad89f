"""The rules for prose: each removes what it is for, and leaves good text; the fast counting equals a plain loop."""

import random
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crystalline.corpus.clean.quality import FILES, WEB, Rules, faults

WORDS = [
    "harbour", "ship", "morning", "silence", "captain", "letter", "window", "garden", "winter",
    "river", "stone", "bread", "market", "teacher", "village", "road", "mountain", "story",
    "letter", "music", "evening", "paper", "history", "silver", "bridge", "forest", "weather",
    "friend", "summer", "island", "door", "kitchen",
]  # fmt: skip


def article(seed=0, sentences=25):
    source = random.Random(seed)
    lines = []
    for _ in range(sentences):
        words = [source.choice(WORDS) for _ in range(source.randrange(6, 14))]
        lines.append(f"The {' '.join(words[:4])} and the {' '.join(words[4:])} of {source.choice(WORDS)} {seed}.")
    return "\n".join(lines)


def fault(text, rules=WEB, language="en"):
    return faults([text], [text.encode()], [rules], [language])[0]


def test_an_article_is_good():
    assert [fault(article(seed)) for seed in range(20)] == [""] * 20


GERMAN = (
    "Der Hafen war an diesem Morgen still, und niemand hatte die Schiffe auslaufen sehen. Über die Gründe sprach "
    "man nicht. Erst am Abend, als der Wind sich gelegt hatte, kamen die ersten Fischer zurück; sie brachten "
    "nichts mit als Geschichten. Die Kinder liefen ihnen entgegen, fragten nach den Netzen und nach dem Bruder des "
    "Lehrers, der mit ihnen gefahren war, aber keiner antwortete."
)
CHINESE = "清晨的港口一片寂静，没有人看见船只离开，也没有人谈起这件事。" * 1 + (
    "直到傍晚风停了，第一批渔民才回来，他们带回来的只有故事。孩子们跑向他们，询问渔网和老师的兄弟，可是没有人回答。"
    "村里的老人说，大海从不归还它拿走的东西，但是母亲们仍然在窗前点着灯，一直等到天亮。"
)
FINNISH = (
    "Satamassa oli sinä aamuna hiljaista, eikä kukaan ollut nähnyt laivojen lähtevän. Syistä ei puhuttu. "
    "Vasta illalla, "
    "kun tuuli oli tyyntynyt, ensimmäiset kalastajat palasivat; he eivät tuoneet mukanaan muuta kuin "
    "tarinoita. Lapset "
    "juoksivat heitä vastaan ja kysyivät verkoista ja opettajan veljestä, joka oli lähtenyt heidän mukaansa, mutta "
    "kukaan ei vastannut heille mitään, ja niin kului ilta kylän rannassa ilman ainuttakaan sanaa merestä tai "
    "myrskystä."
)


@pytest.mark.parametrize(("text", "language"), [(GERMAN, "de"), (CHINESE, "zh"), (FINNISH, "fi")])
def test_other_languages_are_good_too(text, language):
    assert fault(text, language=language) == ""


BAD = {
    "too short": ["A short note.", "Ten words are not enough for a page of text."],
    "placeholder text": ["Lorem ipsum dolor sit amet, consectetur adipiscing elit. " * 3 + article()],
    "error page": [
        "404 Not Found\nThe requested URL was not found on this server.",
        "Oops! Page not found.\nGo to the home page.",
        "Error 503: service unavailable. Please try again later.", "Access denied\nYou do not have permission.",
        "Checking your browser before accessing the site. Verify you are human.", "Die Seite wurde nicht gefunden.",
        "Page introuvable. Retour à l'accueil.",
    ],
    "login page": [
        "Please sign in to continue. Username Password Remember me Forgot password?", "Log in to your account",
        "You must be logged in to view this page.", "Bitte melden Sie sich an. Passwort vergessen?",
    ],
    "symbols": [re.sub(" ", " # ", article(), count=60), "12 345 678 90 | 12,5 | 99 " * 30 + article(1, 4)],
    "strange words": ["xq zk vv bb " * 3 + article(2, 12).replace("e", "").replace("a", "").replace("o", ""),
                      " ".join("supercalifragilistic" + w for w in WORDS * 2)],
    "repeated lines": [article(3, 10) + "\nThis is the very same line again.\n" * 12],
    "only a list": ["\n".join(f"- {line}" for line in article(4).split("\n"))],
    "cut-off lines": ["\n".join(f"{line[:-1]}..." for line in article(5, 12).split("\n")) + "\n" + article(6, 13)],
    "no sentences": ["\n".join(line[:-3] for line in article(7).split("\n"))],
    "short lines": [article(8, 8) + "\n" + "\n".join(f"The {w} of {w}ing {i}." for i, w in enumerate(WORDS))],
    "repetition": [
        article(9, 10).replace("\n", " ") + " buy cheap silver now" * 40,
        " ".join(article(10, 12).split("\n") * 2),
    ],
}  # fmt: skip


@pytest.mark.parametrize(("reason", "text"), [(reason, text) for reason, texts in BAD.items() for text in texts])
def test_bad_pages_go_for_their_reason(reason, text):
    assert fault(text) == reason


@pytest.mark.parametrize("bullet", ["•", "‣", "▪", "●", "○", "■", "- ", "* ", "– ", "·"])
def test_lines_with_bullets_are_a_list(bullet):
    lines = article(11).split("\n")
    assert fault("\n".join(bullet + line for line in lines)) == "only a list"
    assert fault("\n".join(bullet.strip() + line if " " in bullet else line for line in lines)) == ""  # -so, *this*


@pytest.mark.parametrize("end", ".!?\"'”’»)…:。！？」』।؟۔")
def test_sentences_end_in_many_ways(end):
    ends = [end if number % 6 == 0 else "," for number in range(30)]  # more than 0.12 of the lines
    lines = [line[:-1] + end for line, end in zip(article(12, 30).split("\n"), ends, strict=True)]
    assert fault("\n".join(lines)) == ""
    assert fault("\n".join(line[:-1] + "," for line in lines)) == "no sentences"


KEPT_FILES = [
    "A note.", "milk, bread, 3 eggs", "12 345\n678 90\n11 22 33", "- one\n- two\n- three\n- four\n- five\n- six",
    "Login: see the other note. I forgot my password again.", "404 not found is the code of a missing page.",
    "\n".join(f"2024-01-{day:02} 7.5 h" for day in range(1, 31)), "# # # # # #", "the same line\n" * 8,
]  # fmt: skip


@pytest.mark.parametrize("text", KEPT_FILES)
def test_files_of_a_user_are_not_judged_as_pages(text):
    assert fault(text, FILES) == ""


def test_a_file_that_says_one_thing_all_over_goes():
    assert fault("all work and no play makes a dull boy\n" * 100, FILES) == "repetition"
    assert fault("Lorem ipsum dolor sit amet. " * 20, FILES) == "placeholder text"
    assert fault(article() + " Lorem ipsum is placeholder text. " + article(1, 300), FILES) == ""


def test_pages_about_errors_and_logins_stay():
    text = (
        article()
        + "\nThe server answers 404 not found when a page is missing, and asks users to sign in to continue."
    )
    assert fault(text + "\n" + article(1)) == ""


# --- the fast counting against a plain one --------------------------------------------------------------


def shares(text, n):
    """(most bytes that one run of n words takes, bytes of the words in runs that were there before)"""
    words = re.findall("[a-z0-9]+", text.lower())
    runs = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    counts = Counter(runs)
    frequent = max((count * sum(map(len, run)) for run, count in counts.items() if count > 1), default=0)
    seen, covered = set(), set()
    for place, run in enumerate(runs):
        if run in seen:
            covered.update(range(place, place + n))
        seen.add(run)
    return frequent, sum(len(words[place]) for place in covered), sum(map(len, words))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(["a", "bb", "ccc", "dd", "e"]), max_size=60).map(" ".join), max_size=5),
    st.integers(2, 10),
    st.floats(0.05, 0.95),
)
def test_repetition_is_counted_as_in_a_plain_loop(texts, n, limit):
    for kind in ("frequent", "repeated"):
        if (kind == "frequent") != (n < 5):
            continue
        rules = Rules(**{kind: ((n, limit),)})
        expected = []
        for text in texts:
            frequent, repeated, total = shares(text, n)
            expected.append("repetition" if (frequent if kind == "frequent" else repeated) > limit * total else "")
        assert faults(texts, [text.encode() for text in texts], [rules] * len(texts), [""] * len(texts)) == expected


def test_a_batch_gives_what_its_documents_give_alone():
    texts = [text for texts in BAD.values() for text in texts] + [article(seed) for seed in range(5)] + ["", GERMAN]
    order = list(range(len(texts)))
    random.Random(1).shuffle(order)
    rules = [WEB if i % 3 else FILES for i in order]
    together = faults([texts[i] for i in order], [texts[i].encode() for i in order], rules, ["en"] * len(order))
    assert together == [fault(texts[i], rule) for i, rule in zip(order, rules, strict=True)]
