"""Many texts at once with one model: continuous batching.

A thread owns the decoder. Each turn of it admits waiting jobs to free slots, reads a piece of the prompts, and lets
all texts that are being written grow by one token together. A text's tokens depend on its prompt, settings and seed
alone (see `Decoder`), so it is the same alone and in any company.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from crystalline.model.generation import LanguageModel, advance
from crystalline.model.pieces import Pieces
from crystalline.model.sampling import Sampling, log_probabilities, most_likely
from crystalline.serving.metrics import ModelMeter

log = logging.getLogger("crystalline.serving")
PIECE = 64  # tokens of a prompt that are read while the texts that are being written wait


class Full(Exception):
    """There is no room for more texts now."""


class Expired(Exception):
    """The time of a job was over before its turn came."""


@dataclass(frozen=True)
class TokenFacts:
    """What the network said of a token that came.

    offset: characters of the text before it, the prompt's too where that is part of it. log_probability: natural
    logarithm. alternatives: the most likely tokens with theirs, best first.
    """

    token: int
    offset: int
    log_probability: float
    alternatives: Sequence[tuple[int, float]]


@dataclass(frozen=True)
class Piece:
    """More of one text of a job.

    index: which. facts: of the tokens whose text begins in this piece or before, not given yet. tokens: how many the
    text has so far. reason: "" while it goes on, else "stop" (its end or a stop string) or "length".
    """

    index: int
    text: str
    facts: tuple[TokenFacts, ...] = ()
    tokens: int = 0
    reason: str = ""


@dataclass(eq=False)
class Job:
    """A prompt to be continued in `n` texts, with the seeds how.seed, how.seed + 1, ...

    deliver: is called in the engine's thread with each piece, or with what went wrong. deadline: by time.monotonic();
    texts end then. in_parts: pieces come as soon as they are certain, else one at the end. echo: texts begin with the
    prompt. alternatives: how many to tell with each token; None: nothing about tokens. presence, frequency: are
    subtracted from the logits of tokens that came, once and for each time. bias: added to the logits of tokens.
    """

    prompt: Sequence[int]
    how: Sampling
    max_tokens: int
    deliver: Callable[[Piece | Exception], None]
    n: int = 1
    stop: Sequence[str] = ()
    in_parts: bool = True
    echo: bool = False
    alternatives: int | None = None
    presence: float = 0.0
    frequency: float = 0.0
    bias: Mapping[int, float] = field(default_factory=dict)
    deadline: float = float("inf")
    cancelled: bool = False  # whoever does not want it any more sets this


class _Text:
    """One text of a job, in a slot."""

    def __init__(self, job: Job, index: int, model: LanguageModel, began: float) -> None:
        self.job, self.index = job, index
        how = replace(job.how, seed=(job.how.seed + index) % 2**64)
        self.continuation = model.continuation(job.prompt, how)
        self.pieces = Pieces(model.tokenizer, job.stop)
        self.prompt = Pieces(model.tokenizer)  # tells where the prompt's tokens begin
        self.read = 0  # of the pending tokens
        self.tokens = 0
        self.start = self.shown = 0  # characters: before the first token, and all that were given
        self.unsent = ""  # what was not given yet, and the facts of its tokens
        self.facts: list[TokenFacts] = []
        self.counts: Counter[int] = Counter()
        self.last = began  # when its last token came
        self.followers: list[int] = []  # slots of the same prompt's other texts, which wait until it is read

    def adjust(self, logits: np.ndarray) -> None:
        """Apply the penalties for what came, and the bias."""
        job = self.job
        if (job.presence or job.frequency) and self.counts:
            ids = np.fromiter(self.counts, np.int64)
            times = np.fromiter(self.counts.values(), np.float32)
            logits[ids] -= np.float32(job.presence) + np.float32(job.frequency) * times
        for token, bias in job.bias.items():
            logits[token] += np.float32(bias)


class Engine:
    """Continues the texts of jobs with `model`, at most `slots` at once; as many as `queue` more wait.

    `submit` may be called from any thread. `retire` lets what was submitted come to its end, `close` does not.
    """

    def __init__(self, model: LanguageModel, slots: int, queue: int, meter: ModelMeter) -> None:
        self.model, self.slots, self.queue = model, slots, queue
        self._meter = meter
        self._decoder = model.decoder.fresh(slots)
        self._free = list(range(slots))
        self._texts: dict[int, _Text] = {}  # by slot
        self._waiting: deque[tuple[Job, float]] = deque()  # and when it came
        self._retired = self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def running(self) -> int:
        """Texts in slots."""
        return self.slots - len(self._free)

    @property
    def waiting(self) -> int:
        """Texts that wait for one."""
        with self._changed:
            return sum(job.n for job, _ in self._waiting)

    def submit(self, jobs: Sequence[Job]) -> None:
        """Take all of the jobs, or raise Full. Each has at most as many texts as there are slots."""
        if max(job.n for job in jobs) > self.slots:
            raise ValueError(f"a job has at most {self.slots} texts")
        now = time.monotonic()
        with self._changed:
            if self._retired or self._closed:
                raise RuntimeError("the engine takes no more jobs")
            known = self.running + sum(job.n for job, _ in self._waiting)
            if known + sum(job.n for job in jobs) > self.slots + self.queue:
                raise Full
            self._waiting += [(job, now) for job in jobs]
            self._changed.notify()

    def retire(self) -> None:
        """Take nothing more, and end when all texts have."""
        with self._changed:
            self._retired = True
            self._changed.notify()

    def close(self) -> None:
        """End after this turn; what was not finished is not told."""
        with self._changed:
            self._retired = self._closed = True
            self._changed.notify()

    def join(self, seconds: float | None = None) -> bool:
        """Wait until it has ended; False: it has not in that time."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    # --- in the thread ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._texts or self._waiting or self._retired):
                    self._changed.wait()
                if self._closed or not (self._texts or self._waiting):
                    return
                self._drop_unwanted()
                self._admit()
            try:
                self._turn()
            except Exception as error:  # whatever it is, those who wait must hear of it, and others be served
                log.exception("a turn of the model failed")
                for slot, text in list(self._texts.items()):
                    self._end(slot)
                    self._tell(text.job, error)

    def _drop_unwanted(self) -> None:
        now = time.monotonic()
        for slot, text in list(self._texts.items()):
            if text.job.cancelled:
                self._end(slot)
            elif now > text.job.deadline:
                self._finish(slot, text, "length")
        wanted = [(job, came) for job, came in self._waiting if not job.cancelled]
        self._waiting = deque((job, came) for job, came in wanted if now <= job.deadline)
        for job, _ in wanted:
            if now > job.deadline:
                self._tell(job, Expired())

    def _admit(self) -> None:
        """In the order in which they came: a job with many texts is not overtaken for ever by small ones."""
        while self._waiting and len(self._free) >= self._waiting[0][0].n:
            job, came = self._waiting.popleft()
            first, *others = slots = [self._free.pop(0) for _ in range(job.n)]
            for index, slot in enumerate(slots):
                self._texts[slot] = _Text(job, index, self.model, came)
            self._texts[first].followers = others

    def _turn(self) -> None:
        """A piece of one prompt, and one token for each text that is being written."""
        following = {slot for text in self._texts.values() for slot in text.followers}
        texts = {slot: text for slot, text in self._texts.items() if slot not in following}
        long = [slot for slot, text in texts.items() if len(text.continuation.pending) > 1]
        short = {slot: text.continuation for slot, text in texts.items() if len(text.continuation.pending) == 1}
        for slot, logits in advance(self._decoder, short).items():
            self._went_on(slot, texts[slot], logits)
        left = PIECE
        for slot in long:
            left -= self._read_piece(slot, texts[slot], left)
            if not left:
                break

    def _read_piece(self, slot: int, text: _Text, limit: int) -> int:
        """Read at most so many of the tokens that are pending, and go on when that was all; how many were read."""
        pending = text.continuation.pending
        if text.read == 0 and text.continuation.starts:
            self._decoder.cut(slot, 0)
        part = pending[text.read : text.read + limit]
        text.read += len(part)
        if text.job.echo and text.job.alternatives is not None and text.tokens == 0:
            rows = self._decoder.read(slot, part, every=True)
            for row, token in zip(rows, pending[text.read - len(part) + 1 : text.read + 1], strict=False):
                self._note(text, token, row, text.prompt.characters)
                text.prompt.add(token)
            logits = rows[-1]
        else:
            logits = self._decoder.read(slot, part)
        if text.read == len(pending):
            text.read = 0
            self._went_on(slot, text, logits)
        return len(part)

    def _went_on(self, slot: int, text: _Text, logits: np.ndarray) -> None:
        """What is pending has been read. Another token for the text, and the first one for those that follow it."""
        if text.tokens == 0:
            self._meter.prompt_read(len(text.job.prompt))
        followers, text.followers = text.followers, []
        for other in followers:
            self._decoder.copy(slot, other)
            follower = self._texts[other]
            follower.facts = list(text.facts)  # the same prompt: what was said of its tokens holds for all
            self._choose(other, follower, logits.copy())
        self._choose(slot, text, logits)

    def _choose(self, slot: int, text: _Text, logits: np.ndarray) -> None:
        job = text.job
        if job.echo and text.tokens == 0:
            prompt = self.model.tokenizer.decode(job.prompt)
            text.start = len(prompt)
            self._give(text, prompt)
        if text.tokens == job.max_tokens:  # none at all were asked for
            self._finish(slot, text, "length")
            return
        said = logits.copy() if job.alternatives is not None else logits
        text.adjust(logits)
        token = text.continuation.choose(logits)
        if token is None:
            self._finish(slot, text, "stop")
            return
        now = time.monotonic()
        (self._meter.next_token if text.tokens else self._meter.first_token)(now - text.last)
        text.last = now
        text.tokens += 1
        text.counts[token] += 1
        self._note(text, token, said, text.start + text.pieces.characters)
        piece = text.pieces.add(token)
        if text.pieces.stopped or text.tokens == job.max_tokens:
            self._finish(slot, text, "stop" if text.pieces.stopped else "length", piece)
        elif piece:
            self._give(text, piece)

    def _note(self, text: _Text, token: int, logits: np.ndarray, offset: int) -> None:
        """Keep what the network said of a token, if that was asked for."""
        if text.job.alternatives is not None:
            said = log_probabilities(logits)
            best = most_likely(said, text.job.alternatives)
            text.facts.append(TokenFacts(token, offset, float(said[token]), best))

    def _finish(self, slot: int, text: _Text, reason: str, piece: str = "") -> None:
        self._end(slot)
        self._give(text, piece + text.pieces.rest(ended=reason == "stop"), reason)

    def _give(self, text: _Text, piece: str, reason: str = "") -> None:
        text.unsent += piece
        if not (text.job.in_parts or reason):
            return
        piece, text.unsent = text.unsent, ""
        text.shown += len(piece)
        # What a stop string cut away is not told of.
        facts = tuple(fact for fact in text.facts if fact.offset < text.shown or reason == "length")
        text.facts = text.facts[len(facts) :]
        if not self._tell(text.job, Piece(text.index, piece, facts, text.tokens, reason)):
            text.job.cancelled = True

    def _tell(self, job: Job, what: Piece | Exception) -> bool:
        try:
            job.deliver(what)
        except RuntimeError:  # the event loop that wanted it is gone
            return False
        return True

    def _end(self, slot: int) -> None:
        del self._texts[slot]
        self._free.append(slot)
