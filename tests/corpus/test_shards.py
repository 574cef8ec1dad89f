import os

import numpy as np
import pytest
from corpus_texts import settings_for

from crystalline.corpus import shards, stage
from crystalline.errors import EXIT_DAMAGED, UserError
from crystalline.run_folder import RunFolder, damage
from crystalline.tokens.stream import TokenStream
from crystalline.tokens.tokenizer import Tokenizer


@pytest.fixture
def corpus(texts, run):
    stage.build(settings_for(texts, section_bytes=2048, held_out=0.2), run)
    return run


@pytest.fixture
def tokenizer(corpus):
    return Tokenizer.train((d.text for d in stage.iterate(corpus, "train")), 400)


class Bytes:
    """A tokenizer whose tokens are the bytes."""

    bos, eos, vocabulary_size, fingerprint = 256, 257, 70_000, "bytes"

    def encode_batch(self, texts):
        return [list(text.encode()) for text in texts]


def expected(corpus, split, tokenizer):
    """(the tokens, the start of each document) made the plain way"""
    tokens, starts = [], []
    for document in stage.iterate(corpus, split):
        starts.append(len(tokens))
        tokens += [tokenizer.bos, *tokenizer.encode_batch([document.text])[0], tokenizer.eos]
    return np.array(tokens), np.array(starts)


@pytest.mark.parametrize("shard_tokens", [1, 997, shards.SHARD_TOKENS])
@pytest.mark.parametrize("split", ["train", "held_out"])
def test_tokens_are_those_of_the_documents_in_order(corpus, tokenizer, shard_tokens, split):
    if shard_tokens == 1:  # a file per token: few documents only
        lines = (corpus.corpus / f"{split}.jsonl").read_bytes().splitlines(keepends=True)
        for name in ("train", "held_out"):
            (corpus.corpus / f"{name}.jsonl").write_bytes(lines[0])
    index = shards.build(corpus, tokenizer, shard_tokens=shard_tokens)
    assert damage(corpus.shards) == ""
    tokens, starts = expected(corpus, split, tokenizer)
    stream = TokenStream(corpus.shards, split)
    entry = index["splits"][split]
    assert [file["tokens"] for file in entry["files"][:-1]] == [shard_tokens] * (len(entry["files"]) - 1)
    assert len(entry["files"]) == -(-len(tokens) // shard_tokens)
    assert len(stream) == entry["tokens"] == len(tokens)
    assert np.array_equal(stream.read(0, len(stream)), tokens)
    assert np.array_equal(stream.document_starts(), starts)
    documents = list(stage.iterate(corpus, split))
    assert stream.documents == entry["documents"] == len(documents)
    assert stream.bytes == entry["bytes"] == sum(len(d.text.encode()) for d in documents)
    for number, document in enumerate(documents):  # each token leads back to its document
        end = starts[number + 1] if number + 1 < len(starts) else len(tokens)
        assert stream.document_at(int(starts[number])) == stream.document_at(int(end) - 1) == number
        inside = stream.read(int(starts[number]) + 1, int(end - starts[number]) - 2)
        assert tokenizer.decode(inside.tolist()) == document.text


def test_reading_any_part_across_files(corpus, tokenizer):
    shards.build(corpus, tokenizer, shard_tokens=100)
    stream = TokenStream(corpus.shards, "held_out")
    everything = stream.read(0, len(stream))
    source = np.random.default_rng(1)
    for _ in range(300):
        start = int(source.integers(0, len(stream) + 1))
        count = int(source.integers(0, min(350, len(stream) - start) + 1))
        part = stream.read(start, count)
        assert part.dtype == np.uint16
        assert np.array_equal(part, everything[start : start + count])
    for start, count in ((-1, 2), (0, len(stream) + 1), (len(stream), 1), (3, -1)):
        with pytest.raises(IndexError, match=f"of {len(stream)}"):
            stream.read(start, count)
    for token in (-1, len(stream)):
        with pytest.raises(IndexError):
            stream.document_at(token)


def test_a_part_is_a_copy(corpus, tokenizer):
    shards.build(corpus, tokenizer)
    stream = TokenStream(corpus.shards, "train")
    part = stream.read(0, 5)
    part[:] = 0
    assert stream.read(0, 1)[0] == tokenizer.bos


def test_counts_are_of_the_training_tokens_only(corpus, tokenizer):
    shards.build(corpus, tokenizer)
    tokens, starts = expected(corpus, "train", tokenizer)
    counts = np.load(corpus.shards / "counts.npy")
    assert counts.dtype == np.int64
    assert np.array_equal(counts, np.bincount(tokens, minlength=tokenizer.vocabulary_size))
    assert counts[tokenizer.bos] == len(starts)


def test_a_large_vocabulary_takes_four_bytes(corpus):
    index = shards.build(corpus, Bytes())
    assert (index["dtype"], index["tokenizer"]) == ("uint32", "bytes")
    stream = TokenStream(corpus.shards, "train")
    assert stream.read(0, 1).dtype == np.uint32
    assert np.array_equal(stream.read(0, len(stream)), expected(corpus, "train", Bytes())[0])


@pytest.mark.parametrize(("size", "dtype"), [(65536, "uint16"), (65537, "uint32")])
def test_the_width_changes_where_it_must(corpus, size, dtype):
    class Wide(Bytes):
        vocabulary_size, eos = size, size - 1

    assert shards.build(corpus, Wide())["dtype"] == dtype
    stream = TokenStream(corpus.shards, "train")
    assert stream.read(len(stream) - 1, 1)[0] == size - 1


@pytest.mark.parametrize("token", [-1, 70_000])
def test_a_token_outside_of_the_vocabulary_is_not_written(corpus, token):
    class Wrong(Bytes):
        def encode_batch(self, texts):
            return [[token] for _ in texts]

    with pytest.raises(ValueError, match="outside of its vocabulary"):
        shards.build(corpus, Wrong())
    assert not corpus.shards.exists()
    assert not list(corpus.root.glob(".shards*"))


def test_the_same_corpus_gives_the_same_bytes(tmp_path, corpus, tokenizer, monkeypatch):
    shards.build(corpus, tokenizer)
    other = RunFolder(tmp_path / "other")
    os.mkdir(other.root)
    os.symlink(corpus.corpus, other.corpus)
    monkeypatch.setattr(shards, "BATCH_BYTES", 3000)  # how texts are batched does not matter
    shards.build(other, tokenizer)
    assert (corpus.shards / "SHA256SUMS").read_bytes() == (other.shards / "SHA256SUMS").read_bytes()


@pytest.mark.parametrize("name", ["train-00001.bin", "train-documents.bin", "index.json"])
@pytest.mark.parametrize("harm", ["truncate", "delete"])
def test_damage_names_the_file(corpus, tokenizer, name, harm):
    shards.build(corpus, tokenizer, shard_tokens=1000)
    path = corpus.shards / name
    if harm == "truncate":
        os.truncate(path, path.stat().st_size - 1 if name != "index.json" else 30)
    else:
        path.unlink()
    with pytest.raises(UserError) as caught:
        TokenStream(corpus.shards, "train")
    assert caught.value.exit_code == EXIT_DAMAGED
    assert str(path) in str(caught.value)


def test_progress_is_told(corpus, tokenizer):
    said = []
    shards.build(corpus, tokenizer, said.append)
    assert any(line.startswith("train:") for line in said)
    assert any(line.startswith("held_out:") for line in said)
