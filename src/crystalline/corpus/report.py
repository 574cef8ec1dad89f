"""Corpus: the counts of what was found, kept and removed, which add up exactly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from crystalline.corpus.clean.cleaner import MOST_EXAMPLES
from crystalline.corpus.files import Skipped

if TYPE_CHECKING:
    from crystalline.corpus.split import Split

MOST_NAMES = 50  # per reason; skipped.jsonl has them all


@dataclass
class Tally:
    """The counts of a portion, or of several. Bytes are of text as UTF-8.

    removed: reason -> documents of which nothing is left. taken: reason -> bytes, also of what is left.
    languages: of prose, in bytes. examples: reason -> the beginnings of a few documents, or lines.
    """

    files_read: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    encodings: Counter[str] = field(default_factory=Counter)  # of plain text
    kinds: Counter[str] = field(default_factory=Counter)
    skipped: Counter[tuple[bool, str]] = field(default_factory=Counter)  # (is a folder, reason)
    names: dict[tuple[bool, str], list[str]] = field(default_factory=dict)
    documents: int = 0
    bytes: int = 0
    removed: Counter[str] = field(default_factory=Counter)
    taken: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    masked: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def file(self, format: str, encoding: str, kind: str) -> None:
        """Count a text that was read: a file, a page, or a member of an archive."""
        self.files_read += 1
        self.formats[format] += 1
        if encoding:
            self.encodings[encoding] += 1
        self.kinds[kind] += 1

    def skip(self, skipped: Skipped) -> None:
        """Count a file or folder that was passed over."""
        kind = (skipped.folder, skipped.reason)
        self.skipped[kind] += 1
        self._some(self.names.setdefault(kind, []), [skipped.source], MOST_NAMES)

    def document(self, size: int, reason: str, taken: Mapping[str, int], language: str, excerpt: str) -> None:
        """Count a document of `size` bytes, of which cleaning took `taken`; reason: why all of it, or ""."""
        self.documents += 1
        self.bytes += size
        for name, amount in taken.items():
            self.taken[name] += amount
        if language:
            self.languages[language] += size
        if reason:
            self.remove(reason, excerpt)

    def remove(self, reason: str, excerpt: str, size: int = 0) -> None:
        """Count a document of which nothing is left; size: its bytes, where they are not counted as taken yet."""
        self.removed[reason] += 1
        self.taken[reason] += size
        if excerpt.strip():
            self._some(self.examples.setdefault(reason, []), [excerpt], MOST_EXAMPLES)

    def source(self, masked: Mapping[str, int], lines: Iterable[str]) -> None:
        """Count what was masked, and note lines that were taken out."""
        self.masked.update(masked)
        if lines := list(lines):
            self._some(self.examples.setdefault("boilerplate", []), lines, MOST_EXAMPLES)

    def add(self, other: Tally) -> None:
        """Count what a later portion has counted too."""
        self.files_read += other.files_read
        self.documents += other.documents
        self.bytes += other.bytes
        for name in ("formats", "encodings", "kinds", "skipped", "removed", "taken", "languages", "masked"):
            mine = getattr(self, name)
            for key, value in getattr(other, name).items():  # Counter.update is right too, but sums that are 0 vanish
                mine[key] += value
        for kind, names in other.names.items():
            self._some(self.names.setdefault(kind, []), names, MOST_NAMES)
        for reason, examples in other.examples.items():
            self._some(self.examples.setdefault(reason, []), examples, MOST_EXAMPLES)

    @staticmethod
    def _some(had: list[str], more: list[str], most: int) -> None:
        had += more[: max(0, most - len(had))]

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON."""
        plain = {name: value for name, value in vars(self).items() if name not in ("skipped", "names")}
        return plain | {"skipped": [[*kind, n, self.names[kind]] for kind, n in self.skipped.items()]}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Tally:
        """The tally that `to_json` gave."""
        tally = cls()
        for name, found in value.items():
            if name == "skipped":
                for folder, reason, count, names in found:
                    tally.skipped[folder, reason] = count
                    tally.names[folder, reason] = names
            else:
                setattr(tally, name, Counter(found) if isinstance(getattr(tally, name), Counter) else found)
        return tally

    def report(self, split: Split) -> dict[str, Any]:
        """The report. In `documents` and in `bytes`: in = kept + the sum of removed, exactly.

        In bytes some reasons, such as cleaning, can be negative: a few characters are longer in their normal form.
        """
        files = {reason: found for (folder, reason), found in self._reasons() if not folder}
        folders = {reason: found for (folder, reason), found in self._reasons() if folder}
        return {
            "files": {
                "seen": self.files_read + sum(found["count"] for found in files.values()),
                "read": self.files_read,
                "formats": dict(_ranked(self.formats)),
                "encodings": dict(_ranked(self.encodings)),
                "kinds": dict(_ranked(self.kinds)),
                "skipped": files,
            },
            "folders_skipped": folders,
            "documents": {
                "in": self.documents,
                "kept": split.documents,
                "train": split.documents - split.held_out,
                "held_out": split.held_out,
                "removed": dict(_ranked(self.removed)),
            },
            "bytes": {
                "in": self.bytes,
                "kept": split.bytes,
                "train": split.bytes - split.held_out_bytes,
                "held_out": split.held_out_bytes,
                "removed": dict(_ranked(self.taken)),
            },
            "languages": dict(_ranked(self.languages)),
            "masked": dict(_ranked(self.masked)),
            "examples": {reason: self.examples[reason] for reason in sorted(self.examples)},
        }

    def why_so_little(self) -> str:
        """The reasons why text is missing, with names, as a list for a person; "" when there are none."""
        lines = []
        for (folder, reason), found in self._reasons():
            what = "folder" if folder else "file"
            names = found["names"][:3] + (["..."] if found["count"] > 3 else [])
            plural = "s" if found["count"] > 1 else ""
            lines.append(f"\n    - {found['count']} {what}{plural} skipped ({reason}): {', '.join(names)}")
        for reason, count in _ranked(self.removed):
            amount = f", {self.taken[reason]:,} bytes" if reason != "empty" else ""
            lines.append(f"\n    - {count:,} document{'s' if count > 1 else ''} removed ({reason}{amount})")
        return "".join(lines)

    def _reasons(self) -> list[tuple[tuple[bool, str], dict[str, Any]]]:
        return [(kind, {"count": n, "names": self.names[kind]}) for kind, n in self.skipped.most_common()]


def _ranked(counts: Counter[Any]) -> list[tuple[Any, int]]:
    """The largest first, equal ones by name; none that is zero."""
    return sorted(((name, n) for name, n in counts.items() if n), key=lambda item: (-item[1], item[0]))
