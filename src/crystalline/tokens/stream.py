"""The training and held-out text as one long sequence of token numbers, read at any place.

The files are written by corpus/shards.py, which describes them. Every later stage reads them through this class.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from crystalline.errors import EXIT_DAMAGED, UserError
from crystalline.run_folder import read_json

SplitName = Literal["train", "held_out"]


class TokenStream:
    """The tokens of one side as one long sequence; memory-mapped, so that opening it reads nothing.

    bytes: UTF-8 bytes of the text it encodes. documents: how many.
    Raises UserError (exit code 4) when a file is missing or has not the size in the index.
    """

    def __init__(self, folder: Path, split: SplitName) -> None:
        index = _read_index(folder)
        entry = index["splits"][split]
        self.bytes: int = entry["bytes"]
        self.documents: int = entry["documents"]
        dtype = np.dtype(index["dtype"]).newbyteorder("<")
        self._files = [_map(folder / file["name"], dtype, file["tokens"]) for file in entry["files"]]
        # Token at which each file begins, and at last the number of all tokens.
        self._starts = np.cumsum([0, *(file["tokens"] for file in entry["files"])])
        self._documents = _map(folder / f"{split}-documents.bin", np.dtype("<i8"), self.documents)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, start: int, count: int) -> NDArray[np.unsignedinteger[Any]]:
        """`count` tokens from `start` on: (count,), uint16 or uint32, a copy. Raises IndexError outside."""
        if start < 0 or count < 0 or start + count > len(self):
            raise IndexError(f"tokens {start} to {start + count} of {len(self)}")
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        parts = []
        while count > 0:
            offset = start - int(self._starts[first])
            part = self._files[first][offset : offset + count]
            parts.append(part)
            start, count, first = start + len(part), count - len(part), first + 1
        return np.concatenate([*parts, self._files[0][:0]])

    def document_at(self, token: int) -> int:
        """The number of the document (from 0: its line in the corpus) in which a token lies."""
        if not 0 <= token < len(self):
            raise IndexError(f"token {token} of {len(self)}")
        return int(np.searchsorted(self._documents, token, side="right")) - 1

    def document_starts(self) -> NDArray[np.int64]:
        """The token at which each document begins: (documents,), memory-mapped."""
        return self._documents


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / "index.json"
    if not path.exists():
        raise _damaged(path, "the file is missing")
    index: dict[str, Any] = read_json(path)
    return index


def _map(path: Path, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    size = path.stat().st_size if path.exists() else None
    if size != count * dtype.itemsize:
        found = "is missing" if size is None else f"has {size:,} bytes"
        raise _damaged(path, f"it {found}, where the index says {count * dtype.itemsize:,}")
    return np.asarray(np.memmap(path, dtype, "r", shape=(count,)))


def _damaged(path: Path, why: str) -> UserError:
    return UserError(
        f"could not read {path}",
        why,
        f"delete the folder {path.parent} and give the same command again: it is made anew",
        EXIT_DAMAGED,
    )
