"""Which word a token is, and which word that one is derived from: the linguistics behind the token codes.

Between the tokenizer and the codes. Looks only at the vocabulary itself: a suffix is cut off when what
remains is itself a word of the vocabulary. Spacing and case work for every script. There are rules for the
suffixes of English, of which -s also serves French, Spanish and Portuguese; where they explain next to
nothing, the suffixes are those that recur in the vocabulary (`recurring_suffixes`).
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Container, Iterator, Sequence, Set
from dataclasses import dataclass

VOWELS = frozenset("aeiouyàáâãäåæèéêëìíîïòóôõöøùúûüýÿœ")
# What tokens are glued to a word by an apostrophe; "'s" is a form of no word "s".
CONTRACTIONS = frozenset({"s", "t", "d", "m", "re", "ve", "ll"})
APOSTROPHES = frozenset("'’")


@dataclass(frozen=True)
class Suffix:
    """An ending and when to believe in it.

    operator: several endings can be one operator ("es" is "s"). shortest: letters that a stem has at least.
    witnesses: endings of which the stem must show one too, where an ending alone says little: "reader" is
    of "read" because of "reading", but nothing makes "corner" one of "corn". base_ends: what must come
    before the ending.
    """

    ending: str
    operator: str
    shortest: int = 3
    witnesses: tuple[str, ...] = ()
    base_ends: tuple[str, ...] = ()


VERB = ("s", "ed", "ing")
# Tried from the top.
SUFFIXES = (
    Suffix("less", "less"),
    Suffix("ness", "ness", 4),
    Suffix("ment", "ment", 4, VERB),
    Suffix("able", "able", 3, VERB),
    Suffix("ful", "ful"),
    Suffix("ing", "ing"),
    Suffix("est", "est", 3, ("er", "ly")),
    Suffix("ation", "ion", 4, VERB),
    Suffix("ion", "ion", 3, VERB, ("t", "s")),
    Suffix("ed", "ed"),
    Suffix("or", "er", 3, VERB, ("t",)),
    Suffix("er", "er", 3, (*VERB, "ly", "est")),
    Suffix("ly", "ly", 4),
    Suffix("ies", "s"),
    Suffix("men", "s"),
    Suffix("s", "s"),
    Suffix("es", "s", 3, (), ("s", "x", "z", "ch", "sh", "o")),
)
# "en" and "n" are of irregular forms only: taken, isn't.
OPERATORS = (*dict.fromkeys(suffix.operator for suffix in SUFFIXES), "en", "n")
INFLECTIONS = frozenset({"s", "ed", "ing"})

# When to believe an ending that the vocabulary shows: see `recurring_suffixes`.
LONGEST_SUFFIX, SHORTEST_STEM, LEAST_STEMS = 5, 5, 5
LEAST_WORDS, RULED = 500, 0.03

# Verb, past, and participle where that is another form. Not those whose forms are as often words of their own, such
# as "left", "found" (to found), "thought", "bound", "rose", "lay", "bore".
_VERB_FORMS = """
    arise arose arisen; awake awoke; become became; begin began begun; behold beheld; bend bent; bite bit
    bitten; bleed bled; blow blew blown; break broke broken; bring brought; build built; burn burnt; buy bought;
    catch caught; choose chose chosen; cling clung; come came; creep crept; deal dealt; dig dug; do did done;
    draw drew drawn; dream dreamt; drink drank drunk; drive drove driven; eat ate eaten; fall fell fallen; feed
    fed; feel felt; fight fought; flee fled; fling flung; fly flew flown; forbid forbade forbidden; foresee
    foresaw foreseen; forget forgot forgotten; forgive forgave forgiven; freeze froze frozen; get got gotten;
    give gave given; go went gone; grow grew grown; hang hung; hear heard; hide hid hidden; hold held; keep
    kept; kneel knelt; know knew known; lead led; leap leapt; learn learnt; lend lent; lose lost; make made;
    mean meant; meet met; mistake mistook mistaken; pay paid; ride rode ridden; ring rang rung; run ran; say
    said; see saw seen; seek sought; sell sold; send sent; shake shook shaken; shine shone; shoot shot; show
    showed shown; shrink shrank shrunk; sing sang sung; sink sank sunk; sit sat; sleep slept; slide slid; speak
    spoke spoken; spend spent; spin spun; spring sprang sprung; stand stood; steal stole stolen; stick stuck;
    sting stung; strike struck; strive strove striven; swear swore sworn; sweep swept; swim swam swum; swing
    swung; take took taken; teach taught; tear tore torn; tell told; throw threw thrown; understand understood;
    undertake undertook undertaken; wake woke woken; wear wore worn; weave wove woven; weep wept; win won;
    withdraw withdrew withdrawn; write wrote written
"""
_VERBS = [line.split() for line in _VERB_FORMS.split(";")]

BEFORE_NOT = (
    "are", "is", "was", "were", "did", "does", "could", "would", "should", "had", "has", "need", "must", "might",
)  # fmt: skip
# What the rules above get wrong. First: derived forms of very short or irregular stems.
IRREGULAR = {
    "being": ("be", "ing"),
    "doing": ("do", "ing"),
    "going": ("go", "ing"),
    "does": ("do", "s"),
    "goes": ("go", "s"),
    "died": ("die", "ed"),
    "tied": ("tie", "ed"),
    "lied": ("lie", "ed"),
    "tying": ("tie", "ing"),
    "ids": ("id", "s"),
    "truly": ("true", "ly"),
    "dying": ("die", "ing"),
    "lying": ("lie", "ing"),
    "illness": ("ill", "ness"),
    "badly": ("bad", "ly"),
    "newly": ("new", "ly"),
    "dryly": ("dry", "ly"),
    "older": ("old", "er"),
    "longer": ("long", "er"),
    "larger": ("large", "er"),
    "smaller": ("small", "er"),
    "younger": ("young", "er"),
    "bigger": ("big", "er"),
    "sooner": ("soon", "er"),
    "thinner": ("thin", "er"),
    "men": ("man", "s"),
    "women": ("woman", "s"),
    "children": ("child", "s"),
    "feet": ("foot", "s"),
    "teeth": ("tooth", "s"),
    "geese": ("goose", "s"),
    "mice": ("mouse", "s"),
    "oxen": ("ox", "s"),
    "wives": ("wife", "s"),
    "lives": ("life", "s"),
    "knives": ("knife", "s"),
    "thieves": ("thief", "s"),
    "wolves": ("wolf", "s"),
    "halves": ("half", "s"),
    "selves": ("self", "s"),
    "shelves": ("shelf", "s"),
    "was": ("be", "ed"),
    "been": ("be", "en"),
    "is": ("be", "s"),
    "had": ("have", "ed"),
    "has": ("have", "s"),
    # What a contraction leaves of "not": the apostrophe and what follows are a token of their own.
    **{word + "n": (word, "n") for word in BEFORE_NOT},
    **{past: (verb, "ed") for verb, past, *_ in _VERBS},
    **{participle: (verb, "en") for verb, _, *more in _VERBS for participle in more},
}
# Then: words that only look derived.
_SIMPLE = """
    evening morning during nothing something anything everything ceiling wedding darling sterling
    sibling pudding hundred sacred kindred naked wicked letter counter former latter matter better
    butter bitter later number officer shower flower tower power corner master tender temper manner
    quarter porter powder order under enter offer other another together rather either whether never
    ever over however layer meter filter buffer register character interest request forest honest
    modest harvest mission passion station notion portion ration version million nation pension
    session fashion question section motion caution option ambition apartment department moment
    comment document element garment ornament table cable stable able early only reply apply supply
    family belly silly jolly ugly july italy assembly business witness harness governess news lens
    always perhaps series species besides thanks customs glasses spectacles
    summer dinner supper hammer pepper rubber copper ladder slipper banner gutter mutter litter chatter scatter
    shatter flutter clutter winter sister chapter barrier terrier courier priest holy
"""
SIMPLE = frozenset(_SIMPLE.split())
# Then: beginnings of words that are no words, though a vocabulary has them as tokens.
_BEGINNINGS = "con com per pre pro sub des dis mis int inter inv imp exp ent tran mar sen ver vers gen"
BEGINNINGS = frozenset(_BEGINNINGS.split())


@dataclass(frozen=True)
class Surface:
    """What can be seen on a token: its word in lower case, and (kind, name) of each sign around and on it."""

    word: str
    operators: tuple[tuple[str, str], ...]

    @property
    def starts_word(self) -> bool:
        """Does a word begin here? A space, a sign or a capital says so; else it may be a piece of a word."""
        return any(kind != "upper" for kind, _ in self.operators)


def surface(token: bytes) -> Surface | None:
    """The word in `token`; None for punctuation, digits, spaces, pieces of characters and mixed case."""
    try:
        text = token.decode("utf-8")
    except UnicodeDecodeError:
        return None
    operators: list[tuple[str, str]] = []
    if len(text) > 1 and not _is_letter(text[0]):
        mark, text = text[0], text[1:]
        if mark in APOSTROPHES and text.lower() in CONTRACTIONS:
            return None
        operators.append({" ": ("space", " "), "_": ("underscore", "_")}.get(mark, ("mark", mark)))
    if not text or not all(map(_is_letter, text)):
        return None
    word = text.lower()
    if text != word:
        # Both tests start from the word, so that no two tokens share word and case ("K" and the Kelvin sign).
        if text == word[0].upper() + word[1:]:
            operators.append(("title", "Title"))
        elif text == word.upper():
            operators.append(("upper", "UPPER"))
        else:
            return None
    return Surface(word, tuple(operators))


def _is_letter(character: str) -> bool:
    return character.isalpha() or unicodedata.category(character).startswith("M")


def recurring_suffixes(starts: Set[str]) -> tuple[Suffix, ...]:
    """Endings that the vocabulary itself shows to be suffixes, for a language that the rules do not know.

    None where the rules explain a share `RULED` of the words or more, or where there are too few words to tell. Else
    an ending is believed when what remains of the words that have it is a word of the vocabulary at least as often
    as with other endings of its length, and for `LEAST_STEMS` words or more. That is the idea of signatures
    (Goldsmith 2001, "Unsupervised learning of the morphology of a natural language", Computational Linguistics 27):
    a suffix is what recurs over many stems. Longest first. starts: as for `parent`.
    """
    explained = sum(parent(word, starts, ()) is not None for word in starts)
    if len(starts) < LEAST_WORDS or explained >= RULED * len(starts):
        return ()
    having: Counter[str] = Counter()
    derived: Counter[str] = Counter()
    for word in starts:
        for length in range(1, min(LONGEST_SUFFIX, len(word) - SHORTEST_STEM) + 1):
            having[word[-length:]] += 1
            derived[word[-length:]] += word[:-length] in starts
    all_having: Counter[int] = Counter()
    all_derived: Counter[int] = Counter()
    for ending, count in having.items():
        all_having[len(ending)] += count
        all_derived[len(ending)] += derived[ending]
    believed = [
        ending
        for ending, count in derived.items()
        if count >= LEAST_STEMS and count * all_having[len(ending)] >= having[ending] * all_derived[len(ending)]
    ]
    return tuple(Suffix(ending, ending, SHORTEST_STEM) for ending in sorted(believed, key=lambda e: (-len(e), e)))


def parent(
    word: str, starts: Container[str], pieces: Container[str], recurring: Sequence[Suffix] = ()
) -> tuple[str, str] | None:
    """(stem, suffix operator) when `word` is derived from another word of the vocabulary, else None.

    starts: the words that the vocabulary has with a space, a sign or a capital before them: whole words,
    mostly.
    pieces: those that it has only without, such as "ation". A whole word comes from a whole word; a piece
    from a piece, and only by one of `INFLECTIONS`. recurring: from `recurring_suffixes`; where there are any, they
    take the place of the rules.
    """
    whole = word in starts
    if recurring:
        for suffix in recurring if whole else ():
            stem = word.removesuffix(suffix.ending)
            if stem != word and len(stem) >= suffix.shortest and stem in starts:
                return stem, suffix.operator
        return None
    if whole and word in IRREGULAR and IRREGULAR[word][0] in starts:
        return IRREGULAR[word]
    if whole and word in SIMPLE:
        return None
    for suffix in SUFFIXES:
        base = word.removesuffix(suffix.ending)
        if base == word or not (whole or suffix.operator in INFLECTIONS):
            continue
        for stem in _stems(base, suffix):
            if stem in (starts if whole else pieces) and (
                not suffix.witnesses or _compares(stem, base) or _seen(stem, suffix, starts)
            ):
                return stem, suffix.operator
    return None


def _stems(base: str, suffix: Suffix) -> Iterator[str]:
    """The stems that could have become `base` before this suffix, likeliest first."""
    # Without a vowel the ending is part of the stem: string, bed. Except in flies, from fly.
    if not (VOWELS & set(base) or suffix.ending == "ies"):
        return
    if suffix.base_ends and not base.endswith(suffix.base_ends):
        return
    candidates = [base]
    if suffix.ending == "s":
        candidates = [] if base.endswith(("s", "u", "i")) else [base]
    elif suffix.ending == "men":
        candidates = [base + "man"]
    elif suffix.ending == "ies":
        candidates = [base + "y"]
    elif base.endswith("i") and suffix.ending != "ing":
        candidates = [base[:-1] + "y"]
    elif suffix.ending == "ly":
        # simply -> simple; but a word of "ho" + "ly" is none of "hole".
        candidates = [base] if base[-1:] in VOWELS else [base + "le", base]
    elif suffix.ending[0] in VOWELS and suffix.ending != "es":
        # making -> make before mak; star cannot become staring, nor rat rated (it would be starring, ratted).
        candidates = [base + "e"]
        # filled is not of fil; s, f and z are never doubled: caressing is not of cares.
        undoubled = base[-1] not in "sfz" and not (_doubles(base[:-1]) and base[-1] == "l")
        if base[-1:] == base[-2:-1] and _ends_short(base[:-1]) and undoubled:
            candidates.append(base[:-1])
        if not (_doubles(base) or (base.endswith("e") and suffix.ending[0] == "e")):
            candidates.append(base)
    for stem in candidates:
        if len(stem) >= suffix.shortest and stem not in BEGINNINGS:
            yield stem


def _ends_short(stem: str) -> bool:
    """Does it end in a single vowel and a single consonant? (run, begin; not rain, help)"""
    before, vowel, last = stem[-3:-2], stem[-2:-1], stem[-1:]
    single = before not in VOWELS - {"y"} or stem[-4:-2] == "qu"
    return vowel in VOWELS and last not in VOWELS | set("wx") and single


def _doubles(stem: str) -> bool:
    """Must the last letter double before a vowel, as in running? When it ends short and is one syllable."""
    return _ends_short(stem) and not VOWELS & set(stem[:-2].removesuffix("qu"))


def _compares(stem: str, base: str) -> bool:
    """Has the stem's y become i before -er and -est (happier)? Then no witness is needed."""
    return base.endswith("i") and stem.endswith("y") and len(stem) > 3


def _seen(stem: str, suffix: Suffix, starts: Container[str]) -> bool:
    """Does the vocabulary have one of the suffix's witnesses for this stem?"""
    short = stem[:-1] if stem.endswith("e") else stem + stem[-1] if _doubles(stem) else stem
    return any((short if ending[0] in VOWELS else stem) + ending in starts for ending in suffix.witnesses)
