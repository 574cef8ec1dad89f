"""Better roots while training: taken only when held-out text agrees, and the same for every way to train."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_runs import prepared_run, stopping_at, train, trainer

from crystalline import events
from crystalline.errors import UserError
from crystalline.events import EventLog
from crystalline.model import checkpoints, scoring, store
from crystalline.run_folder import seal
from crystalline.tokens import discovery
from crystalline.tokens.codes import TokenCodes
from crystalline.tokens.discovery import Proposal
from crystalline.tokens.stream import TokenStream
from crystalline.tokens.tokenizer import Tokenizer
from crystalline.training.roots import RootFinder

WANTED = {"training__discover_roots": 2, "training__steps": 9}  # at steps 3 and 6


@pytest.fixture
def run(tmp_path):
    return prepared_run(tmp_path)


def moves(codes: TokenCodes, count: int) -> list[Proposal]:
    """The last `count` tokens become spaced forms of other roots that have none: valid, and of no use."""
    space = next(factor for factor in codes.all_factors if factor.kind == "space")
    taken, found = {codes.code(token) for token in range(codes.vocabulary_size)}, []
    tokens = iter(range(codes.vocabulary_size - 1, 0, -1))
    for root in (factor for factor in codes.all_factors if factor.kind == "root"):
        token = next(tokens)
        code = root.prime * space.prime
        if code not in taken and codes.root(token) != root and len(found) < count:
            found.append(Proposal(token, code, root, (), codes.root(token), 9.0, 1.0, 100))
    return found


@pytest.fixture
def proposing(monkeypatch):
    """Four changes the first time, none after."""

    def propose(vectors, codes, counts, **limits):
        assert vectors.shape[0] == codes.vocabulary_size
        return moves(codes, 4) if codes._rows is None else []

    monkeypatch.setattr(discovery, "propose", propose)


def finder(run, monkeypatch, better):
    """A root finder to which held-out text says, each time it is asked: the new roots are this much better."""
    made = trainer(run, **WANTED)
    assert isinstance(made.roots, RootFinder)
    answers = iter(better)

    def by_shared_parts(self, moved):
        old = np.full(len(self.held_out) - 1, 5.0)
        return old, old - next(answers)

    monkeypatch.setattr(RootFinder, "_by_shared_parts", by_shared_parts)
    monkeypatch.setattr(RootFinder, "_better_one_by_one", lambda self, wanted: wanted)
    return made.roots


def factors_of(roots: RootFinder, token: int) -> list[int]:
    embedding = roots.model.embedding
    return embedding.indices[embedding.offsets[token] : embedding.offsets[token + 1]].tolist()


def test_what_does_not_worsen_the_loss_is_taken(run, monkeypatch, proposing):
    roots = finder(run, monkeypatch, [0.0])
    facts = roots.look()
    assert [tried["changes"] for tried in facts["tried"]] == [4]
    assert len(facts["changes"]) == 4
    for change in facts["changes"]:
        assert roots.codes.code(change["token"]) == change["code"]
        assert set(change) == {"token", "text", "code", "from", "to", "reason"}
    expected, offsets = roots.codes.bags()
    token = facts["changes"][0]["token"]
    assert factors_of(roots, token) == expected[offsets[token] : offsets[token + 1]].tolist() != []
    assert roots.codes.factor_count == roots.first_codes.factor_count, "vectors stay what they are"


def test_who_moves_keeps_its_vector_and_nothing_is_predicted_worse(run, monkeypatch, proposing):
    roots = finder(run, monkeypatch, [0.0])
    with torch.no_grad():
        roots.model.embedding.factors.normal_()
    before, own = roots.model.folded_embedding(), roots.model.embedding.own.clone()
    facts = roots.look()
    assert torch.allclose(roots.model.folded_embedding(), before, atol=1e-6)
    changed = (roots.model.embedding.own != own).any(dim=1).nonzero().flatten().tolist()
    assert changed == sorted(change["token"] for change in facts["changes"])
    assert facts["after"] == pytest.approx(facts["before"], abs=1e-5)


def test_each_token_is_judged_where_it_stands(run, monkeypatch, proposing):
    """By its own places in the text, as input or as target; and by nothing when it is hardly there."""
    made = trainer(run, **WANTED)
    wanted = moves(made.roots.codes, 4)
    good, bad, rare, follower = [proposal.token_id for proposal in wanted]
    made.roots.held_out = np.array([good, 0] * 20 + [bad, 0] * 20 + [rare, 0] * 4 + [0, follower] * 20)
    inputs, targets = made.roots.held_out[:-1], made.roots.held_out[1:]
    gains = np.where(inputs == bad, -0.1, np.where((targets == bad) | (targets == 0), 0.0, 0.1))
    monkeypatch.setattr(RootFinder, "_by_shared_parts", lambda self, moved: (np.full(len(inputs), 3.0), 3.0 - gains))
    chosen = [proposal.token_id for proposal in made.roots._better_one_by_one(wanted)]
    assert chosen == [good, follower]


def test_what_worsens_it_is_not_and_the_better_half_is_tried(run, monkeypatch, proposing):
    roots = finder(run, monkeypatch, [-0.1, 0.1])
    facts = roots.look()
    assert [tried["changes"] for tried in facts["tried"]] == [4, 2]
    assert len(facts["changes"]) == 2


def test_nothing_good_changes_nothing(run, monkeypatch, proposing):
    roots = finder(run, monkeypatch, [-0.1, -0.1, -0.1])
    before = roots.model.embedding.indices.clone(), roots.model.embedding.offsets.clone()
    facts = roots.look()
    assert [tried["changes"] for tried in facts["tried"]] == [4, 2, 1]
    assert facts["changes"] == []
    assert roots.codes is roots.first_codes
    assert (roots.model.embedding.indices == before[0]).all()
    assert (roots.model.embedding.offsets == before[1]).all()


def test_the_same_bits_however_trained_and_the_checkpoint_knows(tmp_path, monkeypatch, proposing):
    monkeypatch.setattr(RootFinder, "_better_one_by_one", lambda self, wanted: wanted)
    monkeypatch.setattr(RootFinder, "_by_shared_parts", lambda self, moved: (np.ones(1), np.zeros(1)))
    whole, broken = prepared_run(tmp_path / "a"), prepared_run(tmp_path / "b")
    expected = train(whole, **WANTED)
    with stopping_at(5) as stop:
        train(broken, stop, checkpointing__every_steps=4, **WANTED)
    with EventLog(broken.events) as log:
        resumed = trainer(broken, **WANTED)
        assert resumed.step == 4
        assert resumed.roots is not None
        assert resumed.roots.codes._rows is not None, "found before the checkpoint"
        resumed.train(log, workers=2)
    assert resumed.parameters.hash() == expected.parameters.hash()
    plain = train(prepared_run(tmp_path / "c"), **{**WANTED, "training__discover_roots": 0})
    assert plain.parameters.hash() != expected.parameters.hash()

    written = list(events.read(whole.events, "training.roots"))
    assert [(event["step"], len(event["changes"])) for event in written] == [(3, 4), (6, 0)]
    folder = checkpoints.newest_whole(whole)
    assert folder is not None
    saved, first = TokenCodes.load(folder), TokenCodes.load(whole.tokenizer)
    changed = {change["token"] for change in written[0]["changes"]}
    assert {t for t in range(first.vocabulary_size) if saved.code(t) != first.code(t)} == changed

    # The model that others load is the one that was trained: its loss is that of the trainer's own weights.
    held_out = TokenStream(whole.shards, "held_out")
    tokens, lengths = held_out.read(0, len(held_out)), scoring.token_byte_lengths(expected.tokenizer)
    loaded = scoring.score(store.read_model(folder), tokens, lengths)
    assert loaded == scoring.score(expected.model, tokens, lengths)


def text_with_families(stems=60, lines=30_000):
    """(text, stems): each stem, in four forms, stands between nouns of its own."""
    source = random.Random(0)  # of which only random() is promised to stay the same
    syllables = [c + v for c in "bdfgklmnprt" for v in "aiou"]

    def one(of):
        return of[int(source.random() * len(of))]

    words = dict.fromkeys(one(syllables) + one(syllables) + one("lmnrt") for _ in range(3 * stems))
    verbs = list(words)[:stems]
    nouns = [[one(syllables) + one(syllables) + one(syllables) for _ in range(3)] for _ in verbs]
    text = []
    for _ in range(lines):
        number = int(source.random() * stems)
        text.append(f"{one(nouns[number])} {verbs[number]}{one(['', 's', 'ed', 'ing'])} {one(nouns[number])}.")
    return "\n".join(text), verbs


def test_planted_wrong_roots_are_found_and_taken(tmp_path):
    """Before training, the roots of eight tokens are exchanged; from learned vectors and text all come home."""
    text, verbs = text_with_families()
    settings = {"tokenizer__vocabulary_size": 1200, "corpus__held_out": 0.2, "corpus__section_bytes": 4096}
    settings |= {"model__width": 64, "model__context": 32, "training__micro_batch": 4}
    run = prepared_run(tmp_path, [text], **settings)
    codes, tokenizer = TokenCodes.load(run.tokenizer), Tokenizer.load(run.tokenizer)
    wrong = {}
    for a, b in zip(verbs[0:8:2], verbs[1:8:2], strict=True):
        (first,), (second,) = tokenizer.encode(f" {a}ing"), tokenizer.encode(f" {b}ing")
        wrong |= {first: codes.code(second), second: codes.code(first)}
    assert len(wrong) == 8
    codes.with_codes(wrong).save(run.tokenizer)
    seal(run.tokenizer)
    train(run, training__steps=150, training__discover_roots=1, **settings)
    (event,) = events.read(run.events, "training.roots")
    found = {change["token"]: change["to"] for change in event["changes"]}
    assert event["tried"][-1]["new"] < event["tried"][-1]["old"]
    assert event["after"] == pytest.approx(event["before"], abs=1e-5)
    repaired = {token for token, to in found.items() if token in wrong and to == codes.root(token).name}
    assert len(repaired) >= 6
    assert len(found) - len(repaired) <= 2


def test_a_move_to_the_place_of_one_that_stays_is_left_out(run):
    codes = TokenCodes.load(run.tokenizer)
    good, chained = moves(codes, 2)
    chained = replace(chained, code=codes.code(good.token_id))
    assert discovery.without_clashes(codes, [good, chained]) == [good, chained]
    assert discovery.without_clashes(codes, [chained]) == []


def test_real_proposals_need_no_help(run):
    """With nothing replaced: the whole way runs, and what it takes is no worse on held-out text."""
    trained = train(run, **WANTED)
    for event in events.read(run.events, "training.roots"):
        assert event["proposed"] >= len(event["changes"])
        if event["changes"]:
            assert event["tried"][-1]["new"] <= event["tried"][-1]["old"]
    assert trained.step == 9


def test_without_factors_it_is_refused(run):
    with pytest.raises(UserError, match="factor embeddings"):
        trainer(run, model__factor_scale=0.0, **WANTED)


def test_rows_survive_saving(tmp_path, run):
    codes = TokenCodes.load(run.tokenizer)
    changed = discovery.apply(codes, moves(codes, 3))
    changed.save(tmp_path)
    again = TokenCodes.load(tmp_path)
    assert all(np.array_equal(a, b) for a, b in zip(again.bags(), changed.bags(), strict=True))
    assert json.loads((tmp_path / "codes.json").read_text())["rows"] == list(codes._shared)
