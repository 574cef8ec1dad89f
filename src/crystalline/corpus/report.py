"""Corpus: the counts of what was found, kept and removed, which add up exactly."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from crystalline.corpus.files import Skipped
from crystalline.corpus.split import Split

MOST_NAMES = 50  # per reason; skipped.jsonl has them all


@dataclass
class Tally:
    """The counts while the sources are read. Bytes are of text as UTF-8."""

    files_read: int = 0
    encodings: Counter[str] = field(default_factory=Counter)
    skipped: Counter[tuple[bool, str]] = field(default_factory=Counter)  # (is a folder, reason)
    names: dict[tuple[bool, str], list[str]] = field(default_factory=dict)
    documents: int = 0
    bytes: int = 0
    empty: int = 0
    empty_bytes: int = 0
    cleaned_bytes: int = 0

    def file(self, encoding: str) -> None:
        """Count a file that was read."""
        self.files_read += 1
        self.encodings[encoding] += 1

    def skip(self, skipped: Skipped) -> None:
        """Count a file or folder that was passed over."""
        kind = (skipped.folder, skipped.reason)
        self.skipped[kind] += 1
        names = self.names.setdefault(kind, [])
        if len(names) < MOST_NAMES:
            names.append(skipped.source)

    def document(self, raw: int, clean: int) -> None:
        """Count a document of `raw` bytes in its file and `clean` bytes after cleaning."""
        self.documents += 1
        self.bytes += raw
        if clean == 0:
            self.empty += 1
            self.empty_bytes += raw
        else:
            self.cleaned_bytes += raw - clean

    def report(self, split: Split) -> dict[str, Any]:
        """The report. In `documents` and in `bytes`: in = kept + the sum of removed, exactly.

        removed.cleaning, in bytes, can be negative: a few characters are longer in their normal form.
        """
        files = {reason: found for (folder, reason), found in self._reasons() if not folder}
        folders = {reason: found for (folder, reason), found in self._reasons() if folder}
        return {
            "files": {
                "seen": self.files_read + sum(found["count"] for found in files.values()),
                "read": self.files_read,
                "encodings": dict(self.encodings.most_common()),
                "skipped": files,
            },
            "folders_skipped": folders,
            "documents": {
                "in": self.documents,
                "kept": split.documents,
                "train": split.documents - split.held_out,
                "held_out": split.held_out,
                "removed": {"duplicate": split.duplicates, "empty": self.empty},
            },
            "bytes": {
                "in": self.bytes,
                "kept": split.bytes,
                "train": split.bytes - split.held_out_bytes,
                "held_out": split.held_out_bytes,
                "removed": {
                    "duplicate": split.duplicate_bytes,
                    "empty": self.empty_bytes,
                    "cleaning": self.cleaned_bytes,
                },
            },
        }

    def why_so_little(self, duplicate_bytes: int) -> str:
        """The reasons why text is missing, with names, as a list for a person; "" when there are none."""
        lines = []
        for (folder, reason), found in self._reasons():
            what = "folder" if folder else "file"
            names = found["names"][:3] + (["..."] if found["count"] > 3 else [])
            plural = "s" if found["count"] > 1 else ""
            lines.append(f"\n    - {found['count']} {what}{plural} skipped ({reason}): {', '.join(names)}")
        if self.empty:
            lines.append(f"\n    - {self.empty} empty documents")
        if duplicate_bytes:
            lines.append(f"\n    - {duplicate_bytes:,} bytes were exact duplicates")
        return "".join(lines)

    def _reasons(self) -> list[tuple[tuple[bool, str], dict[str, Any]]]:
        return [(kind, {"count": n, "names": self.names[kind]}) for kind, n in self.skipped.most_common()]
