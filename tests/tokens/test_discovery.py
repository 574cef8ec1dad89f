"""A wrong root that is planted is found and put right; random vectors move nothing; codes stay codes."""

import numpy as np
import pytest
from test_codes import Invented

from crystalline.tokens.codes import TokenCodes
from crystalline.tokens.discovery import apply, propose

SIZE, WIDTH = 2008, 128  # 500 families of four: x, " x", " X", "xs"


@pytest.fixture(scope="module")
def codes():
    return TokenCodes.build(Invented(SIZE))


def learned(codes, rng, noise=0.7):
    """Vectors as the factor embedding would learn them: root + operators + what is the token's own."""
    parts = {factor.prime: rng.normal(size=WIDTH) for factor in codes.all_factors}
    vectors = [sum(parts[factor.prime] for factor in codes.factors(id_)) for id_ in range(codes.vocabulary_size)]
    return (np.array(vectors) + noise * rng.normal(size=(len(vectors), WIDTH))).astype(np.float32)


def swapped(codes, pairs):
    """The codes with the roots of these pairs of tokens exchanged."""
    return codes.with_codes({a: codes.code(b) for pair in pairs for a, b in (pair, pair[::-1])})


def roots(codes):
    return [codes.root(id_).prime for id_ in range(codes.vocabulary_size)]


def form(family, which):
    """The id of a family's x, " x", " X" or "xs"."""
    return 8 + 4 * int(family) + which


def test_a_planted_wrong_root_is_found_and_repaired(codes):
    vectors = learned(codes, np.random.default_rng(0))
    token, other = form(77, 3), form(201, 3)
    wrong = swapped(codes, [(token, other)])
    assert wrong.root(token) != codes.root(token)
    found = propose(vectors, wrong)
    assert {proposal.token_id for proposal in found} == {token, other}
    for proposal in found:
        assert proposal.old_root == wrong.root(proposal.token_id)
        assert proposal.fit > proposal.own_fit + 3
        assert codes.root(proposal.token_id).name in proposal.reason
    repaired = apply(wrong, found)
    assert [repaired.code(id_) for id_ in range(SIZE)] == [codes.code(id_) for id_ in range(SIZE)]
    assert propose(vectors, repaired) == []


def test_many_planted_errors(codes):
    """Of eighty tokens under a strange root nearly all come home, and nothing else moves."""
    rng = np.random.default_rng(1)
    vectors = learned(codes, rng)
    families = rng.permutation(500)[:80].reshape(40, 2)
    pairs = [(form(a, which), form(b, which)) for a, b in families for which in [int(rng.integers(1, 4))]]
    wrong = swapped(codes, pairs)
    strange = {id_ for pair in pairs for id_ in pair}
    proposals = propose(vectors, wrong)
    assert len(proposals) >= 76
    assert {proposal.token_id for proposal in proposals} <= strange
    assert all(proposal.root == codes.root(proposal.token_id) for proposal in proposals)
    repaired = apply(wrong, proposals)
    assert len({repaired.code(id_) for id_ in range(SIZE)}) == SIZE
    assert sum(a != b for a, b in zip(roots(repaired), roots(codes), strict=True)) <= 4
    assert len(propose(vectors, wrong, at_most=10)) <= 10


def test_a_lonely_token_joins_the_family_it_fits_as_the_form_it_fits():
    """ "went" has no letter of "go": what it was learned to be says that it is go + an ending."""

    class Irregular(Invented):
        def token_bytes(self, id_):
            return b"qwxz" if id_ == form(50, 3) else super().token_bytes(id_)

    regular, codes = TokenCodes.build(Invented(SIZE)), TokenCodes.build(Irregular(SIZE))
    token = form(50, 3)
    assert codes.family(token) == [token]
    vectors = learned(regular, np.random.default_rng(2))
    (proposal,) = propose(vectors, codes)
    assert (proposal.token_id, proposal.own_fit) == (token, None)
    assert proposal.root == codes.root(form(50, 0))
    assert [suffix.name for suffix in proposal.suffixes] == ["s"]
    joined = apply(codes, [proposal])
    assert set(joined.family(token)) == {form(50, which) for which in range(4)}
    assert codes.root(token) not in joined.all_factors  # nobody needs its old root any more


def test_random_vectors_move_nothing(codes):
    for seed in range(3):
        vectors = np.random.default_rng(seed).normal(size=(SIZE, WIDTH)).astype(np.float32)
        assert len(propose(vectors, codes)) <= 1
    assert propose(np.zeros((SIZE, WIDTH), dtype=np.float32), codes) == []


def test_rare_tokens_neither_move_nor_count(codes):
    vectors = learned(codes, np.random.default_rng(3))
    token, other = form(77, 3), form(201, 3)
    wrong = swapped(codes, [(token, other)])
    counts = np.full(SIZE, 100)
    counts[token] = 19
    assert [p.token_id for p in propose(vectors, wrong, counts)] == []  # the other's place is not free then
    counts[token] = 20
    assert {p.token_id for p in propose(vectors, wrong, counts)} == {token, other}
    assert all(p.count in (20, 100) for p in propose(vectors, wrong, counts))


def test_special_tokens_stay_alone(codes):
    vectors = learned(codes, np.random.default_rng(4))
    vectors[3] = vectors[form(9, 0)]
    assert propose(vectors, codes) == []


def test_what_does_not_fit_is_told(codes):
    vectors = learned(codes, np.random.default_rng(5))
    with pytest.raises(ValueError, match="7 vectors"):
        propose(vectors[:7], codes)
    with pytest.raises(ValueError, match="3 counts"):
        propose(vectors, codes, [1, 2, 3])
    vectors[9, 9] = np.nan
    with pytest.raises(ValueError, match="no numbers"):
        propose(vectors, codes)
    with pytest.raises(ValueError, match="same code"):
        codes.with_codes({9: codes.code(10)})
    with pytest.raises(ValueError, match="no code"):
        codes.with_codes({9: 4 * codes.code(10)})
