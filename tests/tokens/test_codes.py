"""Codes are unique, decode by factoring, and tell the truth about families."""

import json
import time
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystalline.errors import EXIT_DAMAGED, UserError
from crystalline.lattice.primes import factor, is_prime
from crystalline.tokens.codes import KINDS, TokenCodes
from crystalline.tokens.tokenizer import SPECIAL_TOKENS, Tokenizer

_WORDS = """
    run runs running Running RUN _run .run runner make makes making maker try tries tried the thing things
    string str use used uses user Use boxes box boxs “Run é café Café iPhone I i naïve nervous 's kindness kind
"""
WORDS = _WORDS.split()
_FORMS = """
    run Run RUN runs running make making maker s S ing K \u212a İ i̇ ß ẞ SS ſ Дом дом नमस्ते 中 ǅ ﬁ ﬁx 1 <|end|>
"""
PIECES = [mark + form for mark in ("", " ", "_", "'", "’", "\u0301", "  ") for form in _FORMS.split()]


@pytest.fixture(scope="module")
def small():
    """A tokenizer in which each of WORDS is a token, with and without a space before it."""
    text = "".join(f"\n{word} {word}" for word in WORDS)
    return Tokenizer.train([text * 40, "boxes" * 2], 2000)


def one(tokenizer, text):
    ids = tokenizer.encode(text)
    assert len(ids) == 1, f"{text!r} is not one token"
    return ids[0]


def test_every_code_decodes_to_its_token(tokenizer, codes):
    ids = range(tokenizer.vocabulary_size)
    assert codes.vocabulary_size == len(ids) == 4096
    assert [codes.token_of(codes.code(id_)) for id_ in ids] == list(ids)
    assert len({codes.code(id_) for id_ in ids}) == len(ids)


def test_codes_are_products_of_the_factors_primes(tokenizer, codes):
    meaning = {}
    for id_ in range(tokenizer.vocabulary_size):
        factors = codes.factors(id_)
        assert codes.code(id_) == prod(f.prime for f in factors)
        assert factor(codes.code(id_)) == [(f.prime, 1) for f in sorted(factors)]
        assert factors[0] == codes.root(id_)
        assert [f.kind == "root" for f in factors] == [True] + [False] * (len(factors) - 1)
        for f in factors:
            assert is_prime(f.prime)
            assert f.kind in KINDS
            assert meaning.setdefault(f.prime, f) == f


def test_operators_and_frequent_roots_have_small_primes(tokenizer, counts, codes):
    roots, operators, totals = {}, set(), {}
    for id_ in range(tokenizer.vocabulary_size):
        prime = codes.root(id_).prime
        roots[prime] = codes.root(id_)
        totals[prime] = totals.get(prime, 0) + counts[id_]
        operators |= {f.prime for f in codes.factors(id_)[1:]}
    assert max(operators) < min(roots)
    by_prime = [totals[prime] for prime in sorted(totals)]
    assert by_prime == sorted(by_prime, reverse=True)
    assert codes.factors(one(tokenizer, " self"))[1].prime == 2


def test_families(small):
    codes = TokenCodes.build(small)
    run = one(small, "run")
    names = {" run", "run", "runs", " runs", "running", " running", "Running", " Running", "RUN", " RUN", "_run",
             ".run", "“Run", "runner", " runner"}  # fmt: skip
    family = {small.decode([id_]) for id_ in codes.family(run)}
    assert names <= family
    assert {codes.root(one(small, text)) for text in names} == {codes.root(run)}
    assert codes.family(run)[0] == run
    sizes = [len(codes.factors(id_)) for id_ in codes.family(run)]
    assert sizes == sorted(sizes)
    running = {f.kind: f.name for f in codes.factors(one(small, " Running"))}
    assert running == {"root": "run", "space": " ", "title": "Title", "suffix": "ing"}


@pytest.mark.parametrize(
    ("text", "root"),
    [
        (" makes", "make"), (" making", "make"), (" maker", "make"), (" tried", "try"), (" used", "use"),
        (" things", "thing"), (" thing", "thing"), (" string", "string"), (" str", "str"), (" Café", "café"),
        (" iPhone", "iPhone"), (" I", "i"), (" nervous", "nervous"), ("'s", "'s"), (" kindness", "kind"),
    ],
)  # fmt: skip
def test_roots(small, text, root):
    assert TokenCodes.build(small).root(one(small, text)).name == root


def test_of_two_words_that_would_be_the_same_the_rarer_is_its_own_root(small):
    """ "boxs" and "boxes" are both box × s."""
    often, rare = one(small, "boxes"), one(small, "boxs")
    for winner, loser in ((often, rare), (rare, often)):
        counts = [1] * small.vocabulary_size
        counts[winner] = 50
        codes = TokenCodes.build(small, counts)
        assert codes.root(winner).name == "box"
        assert codes.root(loser).name == small.decode([loser])
        spaced = one(small, " " + small.decode([loser]))
        assert codes.root(spaced) == codes.root(loser)  # the loser's own forms stay with it


def test_tokens_that_are_no_words_are_roots(tokenizer, codes):
    for data in (b"\xe2", b"(", b"7", b"\n", b"    ", b"\x00", b"\xff"):
        (id_,) = tokenizer.encode_bytes(data)
        assert [f.kind for f in codes.factors(id_)] == ["root"]
    assert [f.kind for f in codes.factors(one(tokenizer, " ="))] == ["root", "space"]
    assert codes.root(one(tokenizer, " =")) == codes.root(one(tokenizer, "="))
    for id_ in range(8):
        assert codes.family(id_) == [id_]


def test_bags_hold_exactly_the_shared_factors(tokenizer, codes):
    indices, offsets = codes.bags()
    assert indices.dtype == offsets.dtype == np.int64
    assert offsets.shape == (tokenizer.vocabulary_size + 1,)
    assert offsets[0] == 0
    assert offsets[-1] == len(indices)
    assert (np.diff(offsets) >= 0).all()
    assert offsets[8] == 0  # nothing for the special tokens
    users = np.bincount(indices, minlength=codes.factor_count)
    assert len(users) == codes.factor_count
    assert users.min() >= 2
    prime_of_index = {}
    tokens_of_prime = {}
    for id_ in range(tokenizer.vocabulary_size):
        for f in codes.factors(id_):
            tokens_of_prime.setdefault(f.prime, []).append(id_)
    for id_ in range(tokenizer.vocabulary_size):
        shared = [f.prime for f in codes.factors(id_) if len(tokens_of_prime[f.prime]) > 1]
        bag = indices[offsets[id_] : offsets[id_ + 1]].tolist()
        assert len(bag) == len(shared)
        for index, prime in zip(bag, shared, strict=True):
            assert prime_of_index.setdefault(index, prime) == prime
    assert codes.factor_count > 500


def test_a_code_of_no_token_is_a_clear_error(codes):
    unknown = codes.code(100) * 1_000_003
    for code in (unknown, 1, 2 * 3, codes.code(100) ** 2, codes.code(100) * codes.code(200), 0, -5):
        with pytest.raises(UserError):
            codes.token_of(code)
    with pytest.raises(UserError, match="1000003"):
        codes.token_of(unknown)
    for code in (10**10_000, -(10**10_000), codes.code(100) * (10**40 + 121)):  # bounded time, and no endless message
        with pytest.raises(UserError, match="this number") as error:
            codes.token_of(code)
        assert len(str(error.value)) < 400
    for id_ in (-1, 4096):
        for look_up in (codes.code, codes.factors, codes.root, codes.family):
            with pytest.raises(UserError):
                look_up(id_)


def test_saved_and_loaded(tokenizer, codes, tmp_path):
    codes.save(tmp_path)
    loaded = TokenCodes.load(tmp_path)
    for id_ in range(tokenizer.vocabulary_size):
        assert loaded.factors(id_) == codes.factors(id_)
        assert loaded.family(id_) == codes.family(id_)
    for ours, theirs in zip(codes.bags(), loaded.bags(), strict=True):
        assert np.array_equal(ours, theirs)
    with pytest.raises(UserError, match=r"no codes\.json"):
        TokenCodes.load(tmp_path / "nowhere")


def test_the_same_tokenizer_gives_the_same_file(tokenizer, counts, codes, tmp_path):
    codes.save(tmp_path / "a")
    TokenCodes.build(tokenizer, np.array(counts)).save(tmp_path / "b")
    assert (tmp_path / "a/codes.json").read_bytes() == (tmp_path / "b/codes.json").read_bytes()


def spoil(stored, how):
    if how == "format":
        stored["format"] = 99
    elif how == "no codes":
        del stored["codes"]
    elif how == "twice":
        stored["codes"][9] = stored["codes"][10]
    elif how == "zero":
        stored["codes"][9] = 0
    elif how == "unknown prime":
        stored["codes"][9] *= 1_000_003
    elif how == "word":
        stored["codes"][9] = "nine"
    elif how == "huge":
        stored["codes"][9] = 10**4000
    elif how == "composite":
        stored["factors"]["root"]["1000001"] = stored["factors"]["root"].popitem()[1]  # 101 × 9901
    elif how == "two meanings":
        stored["factors"]["suffix"]["2"] = "ing"
    elif how == "square":
        stored["codes"][9] *= 4
    elif how == "list":
        stored["factors"]["root"] = []
    return json.dumps([] if how == "empty" else stored)[: -5 if how == "cut" else None]


@pytest.mark.parametrize(
    "how",
    [
        "format",
        "no codes",
        "twice",
        "zero",
        "unknown prime",
        "word",
        "huge",
        "composite",
        "two meanings",
        "square",
        "list",
        "empty",
        "cut",
    ],
)
def test_damaged_files_are_told(codes, tmp_path, how):
    codes.save(tmp_path)
    path = tmp_path / "codes.json"
    path.write_text(spoil(json.loads(path.read_text()), how))
    with pytest.raises(UserError) as error:
        TokenCodes.load(tmp_path)
    assert error.value.exit_code == EXIT_DAMAGED
    assert "codes.json" in error.value.what


class Invented:
    """A vocabulary of `size` tokens, without the minutes that learning one of that size would take."""

    def __init__(self, size):
        self.vocabulary_size = size
        self.special_tokens = dict(enumerate(SPECIAL_TOKENS))

    def token_bytes(self, id_):
        stem = "".join(chr(ord("a") + id_ // 4 // 26**place % 26) for place in range(3)) + "a"
        forms = (stem, f" {stem}", f" {stem.title()}", f" {stem}s")
        return b"" if id_ < 8 else forms[id_ % 4].encode()


def test_sixteen_thousand_tokens_take_less_than_two_seconds():
    start = time.process_time()
    codes = TokenCodes.build(Invented(16384))
    families = [codes.family(id_) for id_ in range(16384)]
    assert time.process_time() - start < 2
    assert sorted(map(len, families)) == [1] * 8 + [4] * (16384 - 8)
    assert [codes.token_of(codes.code(id_)) for id_ in range(16384)] == list(range(16384))


def test_thousands_of_special_tokens():
    """A vocabulary may reserve many names in advance; each is a root of its own, and it takes no longer."""

    class Reserved(Invented):
        def token_bytes(self, id_):
            return f"<|reserved {id_}|>".encode() if 8 <= id_ < 5008 else super().token_bytes(id_)

    start = time.process_time()
    codes = TokenCodes.build(Reserved(16384))
    assert time.process_time() - start < 2
    assert all(codes.family(id_) == [id_] for id_ in range(5008))
    assert [codes.token_of(codes.code(id_)) for id_ in range(16384)] == list(range(16384))


@given(
    st.lists(
        st.one_of(st.binary(min_size=1, max_size=5), st.sampled_from(PIECES).map(str.encode)),
        unique=True,
        max_size=60,
    )
)
def test_any_tokens_get_codes_that_lead_back(tokens):
    """Whatever the bytes: words in any case and script, signs, half characters."""

    class Any:
        vocabulary_size = 8 + len(tokens)

        @property
        def special_tokens(self):
            return dict(enumerate(SPECIAL_TOKENS))

        def token_bytes(self, id_):
            return b"" if id_ < 8 else tokens[id_ - 8]

    codes = TokenCodes.build(Any())
    assert [codes.token_of(codes.code(id_)) for id_ in range(8 + len(tokens))] == list(range(8 + len(tokens)))


def test_other_codes_for_some_tokens(codes):
    before = [codes.code(id_) for id_ in range(codes.vocabulary_size)]
    lonely = next(id_ for id_ in range(300, 4096) if codes.family(id_) == [id_])
    home = codes.root(one_of_a_family := next(i for i in range(300, 4096) if len(codes.family(i)) == 3))
    free = next(
        code for f in codes.all_factors if f.kind == "suffix" and (code := home.prime * f.prime) not in before
    )
    changed = codes.with_codes({lonely: free})
    assert changed.family(one_of_a_family) == sorted(
        [*codes.family(one_of_a_family), lonely], key=changed.family(lonely).index
    )
    assert changed.root(lonely) == home
    assert codes.root(lonely) not in changed.all_factors
    assert [changed.code(id_) for id_ in range(4096) if id_ != lonely] == before[:lonely] + before[lonely + 1 :]
    for wrong in (before[9], 2, 2 * 3, 4 * home.prime, 0):
        with pytest.raises(ValueError, match=r"same code|no code"):
            codes.with_codes({lonely: wrong})


def test_counts_must_fit_the_vocabulary(small):
    with pytest.raises(ValueError, match="3 counts"):
        TokenCodes.build(small, [1, 2, 3])
