"""Corpus, step 6: the documents as token numbers, in files that training reads at any place.

The folder `shards` of a run:

    train-00000.bin, ...     tokens, little-endian, 2 or 4 bytes each; a document is bos, its tokens, eos
    train-documents.bin      little-endian int64: the token at which each document begins. Its n-th entry is
                             the n-th line of the corpus's train.jsonl, so each token leads to its file
    held_out-...             the same for the held-out documents
    counts.npy               int64: how often each token occurs in the training tokens
    index.json               files, sizes, dtype, and the tokenizer's fingerprint
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from crystalline.corpus.stage import iterate
from crystalline.run_folder import RunFolder, new_folder, reporting_os_errors, write_json
from crystalline.tokens.stream import SplitName
from crystalline.tokens.tokenizer import Tokenizer

SHARD_TOKENS = 64 << 20  # most tokens in one file
BATCH_BYTES = 1 << 20  # text given to the tokenizer at once; bounds the memory

SPLITS: tuple[SplitName, SplitName] = ("train", "held_out")


def build(
    run: RunFolder,
    tokenizer: Tokenizer,
    progress: Callable[[str], None] | None = None,
    shard_tokens: int = SHARD_TOKENS,
) -> dict[str, Any]:
    """Encode the corpus of `run` into `run.shards`, replacing what is there; returns the index.

    The same corpus and tokenizer give the same bytes. Raises UserError when the corpus is missing or damaged,
    or the disk is full.
    """
    say = progress or (lambda _: None)
    dtype = np.dtype("<u2" if tokenizer.vocabulary_size <= 65536 else "<u4")
    counts = np.zeros(tokenizer.vocabulary_size, np.int64)
    splits: dict[str, Any] = {}
    with reporting_os_errors(f"write the shards in {run.shards}"), new_folder(run.shards) as folder:
        for split in SPLITS:
            with _Writer(folder, split, dtype, shard_tokens) as writer:
                for texts in _batches(document.text for document in iterate(run, split)):
                    for text, tokens in zip(texts, tokenizer.encode_batch(texts), strict=True):
                        stream = np.array([tokenizer.bos, *tokens, tokenizer.eos], np.int64)
                        if stream.min() < 0 or stream.max() >= tokenizer.vocabulary_size:
                            raise ValueError("the tokenizer gave a token outside of its vocabulary")
                        writer.write(stream, len(text.encode("utf-8")))
                        if split == "train":
                            counts += np.bincount(stream, minlength=len(counts))
                    say(f"{split}: {writer.documents:,} documents, {writer.tokens:,} tokens")
            splits[split] = writer.entry()
        np.save(folder / "counts.npy", counts)
        index = {
            "dtype": "uint16" if dtype.itemsize == 2 else "uint32",
            "vocabulary_size": tokenizer.vocabulary_size,
            "tokenizer": tokenizer.fingerprint,
            "splits": splits,
        }
        write_json(folder / "index.json", index)
    return index


class _Writer:
    """Writes the token stream of one split, a document at a time."""

    def __init__(self, folder: Path, split: str, dtype: np.dtype[Any], shard_tokens: int) -> None:
        self.folder, self.split, self.dtype, self.shard_tokens = folder, split, dtype, shard_tokens
        self.tokens = self.bytes = self.documents = 0
        self._files: list[dict[str, Any]] = []
        self._table = open(folder / f"{split}-documents.bin", "wb")
        self._shard = self._next()

    def write(self, stream: NDArray[np.int64], text_bytes: int) -> None:
        """Append a document's tokens, going on to the next file when one is full."""
        self._table.write(np.array(self.tokens, "<i8").tobytes())
        self.tokens += len(stream)
        self.bytes += text_bytes
        self.documents += 1
        while len(stream):
            if self._files[-1]["tokens"] == self.shard_tokens:
                self._shard.close()
                self._shard = self._next()
            part = stream[: self.shard_tokens - self._files[-1]["tokens"]]
            self._shard.write(part.astype(self.dtype).tobytes())
            self._files[-1]["tokens"] += len(part)
            stream = stream[len(part) :]

    def entry(self) -> dict[str, Any]:
        """What the index says about this split."""
        sizes = {"tokens": self.tokens, "bytes": self.bytes, "documents": self.documents}
        return {"files": self._files, **sizes}

    def _next(self) -> BinaryIO:
        self._files.append({"name": f"{self.split}-{len(self._files):05}.bin", "tokens": 0})
        return open(self.folder / self._files[-1]["name"], "wb")

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._shard.close()
        self._table.close()


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
