"""The map shows every token where it belongs."""

import math
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from crystalline.pipeline.token_map import CLASSES, class_of, main_directions, overview, spiral_places, svg
from crystalline.tokens.codes import TokenCodes
from crystalline.tokens.positions import Positions
from crystalline.tokens.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["\nrun run runs Running RUN .run walks <b> & \x07 “x”" * 50], 350)


@pytest.fixture(scope="module")
def codes(tokenizer):
    return TokenCodes.build(tokenizer)


def test_forms_stand_around_their_root_and_apart(codes):
    places, positions = spiral_places(codes), Positions(codes)
    size = codes.vocabulary_size
    away = np.linalg.norm(places - positions.plane, axis=1)
    for id_ in range(size):
        assert away[id_] == 0 if len(codes.factors(id_)) == 1 else 0.3 < away[id_] < 0.8
    apart = np.linalg.norm(places[:, None] - places, axis=2) + 9 * np.eye(size)
    assert apart.min() > 0.02


def test_each_token_has_a_class(codes, tokenizer):
    def of(text):
        (id_,) = tokenizer.encode(text)
        return class_of(codes, id_)

    assert class_of(codes, 7) == "special"
    assert [of(" runs"), of(" run"), of("run")] == ["derived", "form", "root"]
    assert {class_of(codes, id_) for id_ in range(codes.vocabulary_size)} <= CLASSES.keys()
    for id_ in range(8, codes.vocabulary_size):
        assert (class_of(codes, id_) == "alone") == (len(codes.family(id_)) == 1)


def test_every_token_is_drawn_once_with_its_text(codes, tokenizer):
    root = ElementTree.fromstring(svg(codes, lambda id_: tokenizer.decode([id_]) or "special"))
    titles = [e[0].text for e in root.iter() if e.tag.endswith("}circle") and len(e)]
    told = sorted(int(title.rsplit(": ", 1)[1].split(",")[0].split(" ")[0]) for title in titles)
    assert told == sorted(codes.code(id_) for id_ in range(codes.vocabulary_size))
    assert any("<b" in title or "'&'" in title for title in titles)
    assert str(codes.vocabulary_size) in next(e.text for e in root.iter() if e.tag.endswith("}desc"))


def test_main_directions_are_the_principal_components():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(500, 2)) @ np.diag([5.0, 2.0]) @ np.array([[0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
    vectors += 0.01 * rng.normal(size=(500, 3)) + 7
    places, share = main_directions(vectors)
    assert places.shape == (500, 2)
    assert share > 0.999
    assert places.mean(axis=0) == pytest.approx([0, 0], abs=1e-9)
    assert abs(np.corrcoef(places[:, 0], vectors @ [0.6, 0.8, 0.0])[0, 1]) > 0.999
    assert places.std(axis=0) == pytest.approx([5, 2], rel=0.1)
    assert np.array_equal(places, main_directions(vectors)[0])
    for degenerate in (np.zeros((9, 4)), np.ones((9, 1))):
        places, share = main_directions(degenerate)
        assert np.isfinite(places).all()
        assert share == 0


def test_the_overview_counts(codes):
    told = overview(codes)
    assert told["tokens"] == codes.vocabulary_size
    assert told["roots"] == len({codes.root(id_) for id_ in range(told["tokens"])})
    assert sum(len(f["members"]) for f in told["largest"]) == told["in_families"] or len(told["largest"]) == 20
    for operator in told["operators"]:
        divisible = sum(codes.code(id_) % operator["factor"].prime == 0 for id_ in range(told["tokens"]))
        assert operator["tokens"] == divisible
    assert math.prod(o["factor"].prime for o in told["operators"]) > 1
