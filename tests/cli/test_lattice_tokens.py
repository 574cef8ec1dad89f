"""`cllm lattice nearest, similar, map`, positions, and what each says to input it cannot use."""

import json
import re
import shutil
import xml.etree.ElementTree as ElementTree

import pytest

from crystalline.errors import EXIT_DAMAGED, EXIT_FAILED, EXIT_OK, EXIT_USAGE
from crystalline.model import generation
from crystalline.run_folder import RunFolder, new_folder
from crystalline.tokens.codes import TokenCodes
from crystalline.tokens.positions import Positions
from crystalline.tokens.similarity import Similarity
from crystalline.tokens.tokenizer import Tokenizer

TEXT = "\nrun run runs Running running RUN é walks <b> & \x07" * 50


@pytest.fixture
def words(tmp_path, monkeypatch):
    """A run with a vocabulary and no model, in the folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    run = RunFolder.create("my-model", "")
    tokenizer = Tokenizer.train([TEXT], 400)
    with new_folder(run.tokenizer) as folder:
        tokenizer.save(folder)
        TokenCodes.build(tokenizer).save(folder)
    return tokenizer, TokenCodes.load(run.tokenizer)


def test_nearest_in_words_and_as_json(words, cllm):
    code, out, err = cllm("lattice", "nearest", " run", "-k", 3)
    assert (code, err) == (EXIT_OK, "")
    assert len(re.findall(r"similarity 0\.\d{3}  = closeness", out)) == 3
    _, out, _ = cllm("lattice", "nearest", " run", "-k", 3, "--json")
    told = json.loads(out)
    tokenizer, codes = words
    (id_,) = tokenizer.encode(" run")
    expected = Similarity(codes).nearest(id_, 3)
    assert [(near["id"], near["similarity"]) for near in told["nearest"]] == expected
    assert told["token"]["text"] == " run"
    for near in told["nearest"]:
        parts = near["closeness"], near["shared"], near["relation"]
        assert near["similarity"] == pytest.approx(0.5 * parts[0] + 0.3 * parts[1] + 0.2 * parts[2])


def test_similar_in_words_and_as_json(words, cllm):
    code, out, err = cllm("lattice", "similar", " runs", " Running")
    assert (code, err) == (EXIT_OK, "")
    assert '" runs" and " Running": similarity 0.' in out
    assert 'root "run"' in out
    assert "space before" in out
    there = cllm("lattice", "similar", " runs", " Running", "--json")[1]
    back = cllm("lattice", "similar", " Running", " runs", "--json")[1]
    there, back = json.loads(there), json.loads(back)
    assert there["similarity"] == back["similarity"]
    assert {factor["kind"] for factor in there["shared_factors"]} == {"root", "space"}
    assert there["relation"] == 0.5
    same = json.loads(cllm("lattice", "similar", " runs", " runs", "--json")[1])
    assert [same[name] for name in ("similarity", "closeness", "shared", "relation")] == [1, 1, 1, 1]
    only = json.loads(cllm("lattice", "similar", " runs", " run", "--weights", 0, 0, 5, "--json")[1])
    assert only["similarity"] == only["relation"] == 0.75
    assert "They share no prime." in cllm("lattice", "similar", "x", "&")[1]


def test_position_of_a_token(words, cllm):
    tokenizer, codes = words
    (id_,) = tokenizer.encode(" Running")
    (token,) = json.loads(cllm("lattice", "token", " Running", "--json")[1])["tokens"]
    place = token["position"]
    positions = Positions(codes)
    x, y, *_ = positions.position(id_)
    assert (int(place["exact"]["x"]), int(place["exact"]["y"])) == (x, y)
    assert (place["x"], place["y"]) == pytest.approx((x / 2**256, y / 2**256))
    assert place["rank"] == positions.ranks[id_]
    assert place["operators"] == [factor.prime for factor in codes.factors(id_)[1:]]
    assert f"prime number {place['rank']}, at ({place['x']:.3f}" in cllm("lattice", "token", " Running")[1]


def test_special_tokens_have_their_names(words, cllm):
    assert "1 token" in cllm("lattice", "family", "<|end|>")[1]
    assert '"<|end|>" is token 7,' in cllm("lattice", "token", "<|end|>")[1]


def test_overview(words, cllm):
    tokenizer, codes = words
    code, out, _ = cllm("lattice", "map")
    assert code == EXIT_OK
    assert f"{tokenizer.vocabulary_size} tokens from " in out
    told = json.loads(cllm("lattice", "map", "--json")[1])
    assert told["tokens"] == tokenizer.vocabulary_size
    assert told["in_families"] == sum(len(codes.family(id_)) > 1 for id_ in range(told["tokens"]))
    assert {"kind": "space", "name": " ", "prime": 2} in [operator["factor"] for operator in told["operators"]]
    assert " Running" in next(f["members"] for f in told["largest"] if f["root"]["name"] == "run")


def test_nearest_by_what_was_learned(run, cllm):
    code, out, err = cllm("lattice", "nearest", "e", "-k", 4, "--learned", "--run", run, "--json")
    assert (code, err) == (EXIT_OK, "")
    told = json.loads(out)
    assert told["by"] == "cosine"
    vectors = generation.load(run).model.folded_embedding().double()
    vectors = vectors / vectors.norm(dim=1, keepdim=True)
    cosines = vectors @ vectors[told["token"]["id"]]
    cosines[told["token"]["id"]] = -2
    best = cosines.topk(4)
    assert [near["id"] for near in told["nearest"]] == best.indices.tolist()
    assert [near["cosine"] for near in told["nearest"]] == pytest.approx(best.values.tolist(), abs=1e-6)
    assert "cosine" in cllm("lattice", "nearest", "e", "--learned", "--run", run)[1]


def test_a_checkpoint_can_be_looked_at(run, cllm):
    checkpoint = run / "checkpoints" / "step-00000006"
    for words in (("token", "e"), ("nearest", "e"), ("nearest", "e", "--learned"), ("map",)):
        assert cllm("lattice", *words, "--run", checkpoint)[0] == EXIT_OK


def test_codes_that_training_has_changed_are_the_ones_shown(words, cllm):
    tokenizer, codes = words
    run = RunFolder("my-model")
    (id_,) = tokenizer.encode(" walks")
    spaced = next(factor.prime for factor in codes.all_factors if factor.kind == "space")
    taken = {codes.code(token) for token in range(codes.vocabulary_size)}
    roots = (factor.prime for factor in codes.all_factors if factor.kind == "root")
    other = next(prime for prime in roots if prime * spaced not in taken)
    with new_folder(run.checkpoints / "step-00000004") as folder:
        tokenizer.save(folder)
        codes.with_codes({id_: other * spaced}).save(folder)
    code, out, _ = cllm("lattice", "token", " walks", "--json")
    assert code == EXIT_OK
    assert json.loads(out)["tokens"][0]["code"] == other * spaced != codes.code(id_)


@pytest.mark.parametrize("learned", [[], ["--learned"]])
def test_the_map_is_a_picture_of_every_token(run, cllm, tmp_path, learned):
    code, out, err = cllm("lattice", "map", "--run", run, "--plot", tmp_path / "map.svg", *learned)
    assert (code, err) == (EXIT_OK, "")
    assert "400 tokens" in out
    text = (tmp_path / "map.svg").read_text("utf-8")
    circles = [e for e in ElementTree.fromstring(text).iter() if e.tag.endswith("}circle")]
    titled = [e for e in circles if list(e)]
    assert len(titled) == 400
    assert "href" not in text
    assert "prefers-color-scheme:dark" in text
    for circle in titled:
        assert 0 < float(circle.get("cx")) < 1000
        assert 0 < float(circle.get("cy")) < 1000


@pytest.mark.parametrize(
    ("arguments", "expected", "why"),
    [
        (["nearest", "unheard of"], EXIT_FAILED, "tokens of this vocabulary"),
        (["nearest", ""], EXIT_FAILED, "empty"),
        (["similar", "x", ""], EXIT_FAILED, "empty"),
        (["similar", "x", "what is this"], EXIT_FAILED, "tokens of this vocabulary"),
        (["family", "z" * 100_000], EXIT_FAILED, "100000 tokens"),
        (["nearest", "x", "-k", "0"], EXIT_USAGE, "from 1 up"),
        (["nearest", "x", "-k", "-2"], EXIT_USAGE, "from 1 up"),
        (["nearest", "x", "-k", "many"], EXIT_USAGE, "from 1 up"),
        (["similar", "x", "y", "--weights", "0", "0", "0"], EXIT_USAGE, "not all of them 0"),
        (["similar", "x", "y", "--weights", "nan", "1", "1"], EXIT_USAGE, "from 0 up"),
        (["nearest", "x", "--weights", "1", "1"], EXIT_USAGE, "--weights"),
        (["nearest", "x", "--learned", "--weights", "1", "1", "1"], EXIT_USAGE, "not allowed with"),
        (["nearest", "x", "--learned"], EXIT_FAILED, "not been trained"),
        (["map", "--learned"], EXIT_USAGE, "no file"),
        (["map", "--plot", "no-such-folder/map.svg"], 5, "no-such-folder"),
        (["nearest", "x", "--run", "nowhere"], EXIT_FAILED, "nowhere"),
    ],
)
def test_mistakes_are_told_with_their_fix(words, cllm, arguments, expected, why):
    code, out, err = cllm("lattice", *arguments)
    assert (code, out) == (expected, "")
    assert why in err
    assert "fix: " in err
    assert len(err) < 600


def test_runs_that_cannot_be_used(run, cllm):
    shutil.rmtree(run / "checkpoints")  # whose copies would be read
    codes = run / "tokenizer" / "codes.json"
    whole = codes.read_text()
    damaged = json.loads(whole)
    damaged["codes"][20] *= 4
    actions = (["token", "e"], ["family", "e"], ["nearest", "e"], ["similar", "e", "t"], ["map"])
    for content, exit_code, why in (
        (json.dumps(damaged), EXIT_DAMAGED, "damaged"),
        (whole[:100], EXIT_DAMAGED, "codes.json"),
        (None, EXIT_FAILED, "no codes.json"),
    ):
        codes.unlink() if content is None else codes.write_text(content)
        for action in actions:
            code, _, err = cllm("lattice", *action, "--run", run)
            assert code == exit_code
            assert why in err
            assert "fix: " in err
    shutil.rmtree(run / "tokenizer")
    code, _, err = cllm("lattice", "map", "--run", run)
    assert code == EXIT_FAILED
    assert "tokenizer" in err


def test_a_model_of_another_vocabulary_is_refused(run, words, cllm):
    checkpoint = run / "checkpoints" / "step-00000006"
    loose = run.parent / "loose"
    shutil.copytree(checkpoint, loose)
    words[1].save(loose)
    (loose / "SHA256SUMS").unlink()
    code, _, err = cllm("lattice", "nearest", "e", "--learned", "--run", loose)
    assert code == EXIT_DAMAGED
    assert "fix: " in err


@pytest.mark.parametrize("action", ["token", "family", "nearest", "similar", "map"])
def test_every_action_has_help_with_an_example(cllm, action):
    code, out, _ = cllm("lattice", action, "--help")
    assert code == EXIT_OK
    assert f"  cllm lattice {action}" in out.split("example", 1)[1]
    assert "--json" in out
