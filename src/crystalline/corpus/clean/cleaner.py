"""What is done to one document, in order, and what each step took away, in bytes that add up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from crystalline.corpus.clean.boilerplate import Gutenberg, without_lines
from crystalline.corpus.clean.language import UNKNOWN, language
from crystalline.corpus.clean.mending import mended, normal
from crystalline.corpus.clean.personal import IN_CODE, find_places, masked
from crystalline.corpus.clean.quality import FILES, WEB, faults
from crystalline.settings import Clean

MOST_EXAMPLES = 5  # of each reason, and of this length in characters
EXAMPLE = 160


@dataclass(slots=True)
class Cleaned:
    """A document while and after it is cleaned.

    text, data: what is left of it, as text and in UTF-8; both empty when it was removed.
    reason: why all of it went, or "".
    language: ISO 639, of prose, or "".
    taken: reason -> bytes by which the document became shorter (a few grow: then it is negative). The bytes that came
    in are those of `data` and all of these.
    excerpt: the beginning of what was removed.
    """

    text: str
    data: bytes
    reason: str = ""
    language: str = ""
    taken: dict[str, int] = field(default_factory=dict)
    excerpt: str = ""

    def take(self, reason: str, text: str) -> None:
        """Go on with `text`, what a step has left; `reason` says which."""
        if text is not self.text:
            data = text.encode("utf-8")
            if len(data) != len(self.data):
                self.taken[reason] = self.taken.get(reason, 0) + len(self.data) - len(data)
            self.text, self.data = text, data

    def remove(self, reason: str) -> None:
        """All of it goes for this reason."""
        self.reason, self.excerpt = reason, self.text[:EXAMPLE]
        self.taken[reason] = self.taken.get(reason, 0) + len(self.data)
        self.text, self.data = "", b""


class Cleaner:
    """Cleans the documents of one source, one after the other in the order of the text.

    source: a file, or a URL: the rules for web pages are for what came from the web.
    kind: "prose", or anything else ("code", "table", ...), which no rule for prose is applied to.
    masked: how many of each kind of personal data were masked. lines: examples of boilerplate that was removed.

    Three steps, of which the one in the middle is taken for many documents at once: `begin`, `judge`, `finish`.
    """

    def __init__(self, settings: Clean, source: str, kind: str) -> None:
        self.settings, self.prose = settings, kind == "prose"
        self.web = settings.quality == "web" or (settings.quality != "files" and is_web(source))
        self.rules = (WEB if self.web else FILES) if self.prose and settings.quality != "off" else None
        self.masked: Counter[str] = Counter()
        self.lines: list[str] = []
        self._gutenberg = Gutenberg()
        self.kinds = [name for name in settings.mask if self.prose or name in IN_CODE]

    def begin(self, section: bytes) -> Cleaned:
        """Repair, normalise, and take out what does not belong to the text of the next document."""
        raw = section.decode("utf-8")
        done = Cleaned(raw, section)
        # Before anything else: mojibake has control characters in it, and they are needed to undo it.
        text = mended(raw) if self.settings.repair and self.prose else raw
        text = normal(text, section if text is raw else b"")
        if not text:
            done.remove("empty")
            return done
        done.take("cleaning", text)
        if self.prose and self.settings.boilerplate:
            text = self._gutenberg.body(text)
            if self.web:
                text = without_lines(text, done.data if text is done.text else text.encode(), self._line)
            if text is not done.text:
                text = text.rstrip()
                if not text:
                    done.remove("boilerplate")
                    return done
                done.take("boilerplate", text)
        return done

    def _line(self, line: str) -> None:
        if len(self.lines) < MOST_EXAMPLES:
            self.lines.append(line[:EXAMPLE])


def judge(documents: Sequence[tuple[Cleaner, Cleaned]]) -> None:
    """Find the languages of these documents, and remove those that are not wanted or that their cleaners' rules are
    against."""
    for cleaner, done in documents:  # one after the other, with the model in the processor's cache
        if cleaner.prose and done.text:
            done.language = language(done.text)
            wanted = cleaner.settings.languages
            if wanted and done.language != UNKNOWN and done.language not in wanted:
                done.remove("language")
    judged = [(done, cleaner.rules) for cleaner, done in documents if done.text and cleaner.rules is not None]
    reasons = faults(
        [done.text for done, _ in judged],
        [done.data for done, _ in judged],
        [rules for _, rules in judged],
        [done.language for done, _ in judged],
    )
    for (done, _), reason in zip(judged, reasons, strict=True):
        if reason:
            done.remove(reason)


def finish(documents: Sequence[tuple[Cleaner, Cleaned]]) -> None:
    """Mask personal data in those of these documents that were kept."""
    kept = [(cleaner, done) for cleaner, done in documents if done.text and cleaner.kinds]
    places = find_places([done.text for _, done in kept])
    for (cleaner, done), found in zip(kept, places, strict=True):
        done.take("masking", masked(done.text, cleaner.kinds, cleaner.masked, found))


def is_web(source: str) -> bool:
    """Whether a source is a page of a website."""
    return source.startswith(("http://", "https://"))
