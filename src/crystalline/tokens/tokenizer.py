"""Text to token ids and back: a byte-level byte-pair encoding, learned from the user's own text.

After the corpus, before the shards. Works on bytes, so every text and every file has tokens and
`decode(encode(text)) == text` holds without exception. Built on Hugging Face `tokenizers`; the saved file
is their standard one, which other programs can read.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from crystalline.errors import EXIT_DAMAGED, EXIT_USAGE, UserError
from crystalline.run_folder import read_json, write_json, write_text

FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"  # beside it, in an imported vocabulary only: which token means what
# Ids 0 to 7, in this order, in every vocabulary.
SPECIAL_TOKENS = (
    "<|pad|>", "<|unk|>", "<|bos|>", "<|eos|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>",
)  # fmt: skip
SMALLEST_VOCABULARY = len(SPECIAL_TOKENS) + 256

# No token crosses these borders. As in GPT-4 (cl100k): contractions, words with the one sign before them,
# digits in groups of up to three, punctuation, line ends, spaces. \p{M} besides \p{L} keeps accents and
# vowel signs written as combining marks with their letters.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    r"|[^\r\n\p{L}\p{M}\p{N}]?[\p{L}\p{M}]+"
    r"|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+"
    r"|\s+(?!\S)"
    r"|\s+"
)
# (below this many bytes of text, this many tokens): a token should be seen often enough to be learned.
VOCABULARY_SIZES = (
    (200_000, 512), (1_000_000, 1024), (8_000_000, 2048), (64_000_000, 4096), (512_000_000, 8192),
    (4_000_000_000, 16384),
)  # fmt: skip
LARGEST_CHOSEN = 32768


def choose_vocabulary_size(text_bytes: int) -> int:
    """How many tokens a text of this many bytes should have."""
    return next((size for limit, size in VOCABULARY_SIZES if text_bytes < limit), LARGEST_CHOSEN)


def _byte_symbols() -> dict[str, int]:
    """The character that stands for each byte in tokenizer files (Radford et al. 2019, `bytes_to_unicode`).

    Printable Latin-1 stands for itself, the other bytes for U+0100, U+0101, ... in order.
    """
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}


BYTE_OF_SYMBOL = _byte_symbols()


class Tokenizer:
    """A learned vocabulary and its rules.

    vocabulary_size: number of tokens V; ids are 0..V-1.
    special_tokens: id -> name of the tokens that are structure, not text.
    pad, bos, eos: special ids. An imported vocabulary may use one token for several of them.
    unk, system, user, assistant, end: those of crystalline's own vocabularies; None in an imported one.
    """

    def __init__(self, engine: tokenizers.Tokenizer, config: Mapping[str, Any] | None = None) -> None:
        """config: what tokenizer_config.json says; needed if the vocabulary is not crystalline's own."""
        self._engine = engine
        # Without this, "<|end|>" typed by a user would become the special token. Not kept in the file.
        engine.encode_special_tokens = True
        self.vocabulary_size: int = engine.get_vocab_size()
        vocabulary: dict[str, int] = engine.get_vocab()
        added: dict[int, tokenizers.AddedToken] = engine.get_added_tokens_decoder()
        self.special_tokens = {id_: token.content for id_, token in sorted(added.items()) if token.special}
        self.unk: int | None = None
        self.system: int | None = None
        self.user: int | None = None
        self.assistant: int | None = None
        self.end: int | None = None
        self._config: dict[str, Any] = {}
        if self.special_tokens == dict(enumerate(SPECIAL_TOKENS)):
            self.pad, self.unk, self.bos, self.eos, self.system, self.user, self.assistant, self.end = range(8)
        elif config is None:
            raise ValueError("it has not crystalline's special tokens and all 256 bytes")
        else:
            self._config = _roles(config)
            self.bos, self.eos, self.pad = self._special_ids(vocabulary)
        if not vocabulary.keys() >= BYTE_OF_SYMBOL.keys():
            raise ValueError("it has not all 256 bytes")
        if sorted(vocabulary.values()) != list(range(self.vocabulary_size)):
            raise ValueError("its ids are not the numbers from 0 up without a gap")
        self._id_of_byte = {byte: vocabulary[symbol] for symbol, byte in BYTE_OF_SYMBOL.items()}
        self._bytes = [b""] * self.vocabulary_size
        for symbols, id_ in vocabulary.items():
            if id_ in added:
                self._bytes[id_] = b"" if id_ in self.special_tokens else added[id_].content.encode()
            else:
                self._bytes[id_] = bytes(BYTE_OF_SYMBOL[symbol] for symbol in symbols)

    def _special_ids(self, vocabulary: dict[str, int]) -> tuple[int, int, int]:
        """bos, eos and pad of an imported vocabulary. Where it has no bos, its eos begins a text as well."""
        names = {role: self._config.get(f"{role}_token") for role in ("bos", "eos", "pad")}
        ids = {role: vocabulary[name] for role, name in names.items() if name in vocabulary}
        if ids.get("eos") not in self.special_tokens:
            raise ValueError("it has no special token for the end of a text (eos_token)")
        return ids.get("bos", ids["eos"]), ids["eos"], ids.get("pad", ids["eos"])

    @property
    def is_own(self) -> bool:
        """Whether it was made by crystalline, and not imported."""
        return not self._config

    @property
    def chat_template(self) -> str | None:
        """How an imported vocabulary writes a conversation down (Jinja, as in tokenizer_config.json)."""
        return self._config.get("chat_template")

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary_size: int, min_frequency: int = 2) -> Tokenizer:
        """Learn at most `vocabulary_size` tokens from `texts`, which are read once, as a stream.

        A pair of tokens becomes a token when it occurs at least `min_frequency` times, most frequent first,
        so a small text gives a smaller vocabulary. The same texts give the same tokenizer with any number
        of threads.
        """
        if vocabulary_size < SMALLEST_VOCABULARY:
            raise UserError(
                f"could not make a vocabulary of {vocabulary_size} tokens",
                f"the 256 bytes and {len(SPECIAL_TOKENS)} special tokens are always in it",
                f"set tokenizer.vocabulary_size to {SMALLEST_VOCABULARY} or more",
                EXIT_USAGE,
            )
        engine = tokenizers.Tokenizer(models.BPE())
        engine.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        engine.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary_size,
            min_frequency=min_frequency,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=list(BYTE_OF_SYMBOL),
            show_progress=False,
        )
        engine.train_from_iterator(_checked(texts), trainer)
        return cls(engine)

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """The tokenizer that `save` wrote to `folder`; or that in a file, of any name."""
        path = folder if folder.is_file() else folder / FILE
        if not path.exists():
            raise UserError(
                f"could not find a tokenizer in {folder}",
                f"there is no {FILE}",
                "make it first: cllm run RUN",
            )
        beside = path.parent / CONFIG_FILE
        config = read_json(beside) if beside.exists() else None
        try:
            # The library reports whatever is wrong with a file as a plain Exception.
            return cls(tokenizers.Tokenizer.from_file(str(path)), config)
        except Exception as error:
            raise UserError(
                f"could not read {path}",
                f"the file is damaged or not of crystalline: {error}",
                "restore it from a backup, or delete it and give the same command again",
                EXIT_DAMAGED,
            ) from error

    def save(self, folder: Path) -> None:
        """Write `folder`/tokenizer.json, a standard Hugging Face file; if imported, tokenizer_config.json too."""
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / FILE, self._engine.to_str(pretty=True))
        if not self.is_own:
            write_json(folder / CONFIG_FILE, self._config)

    def content(self) -> dict[str, Any]:
        """What stands in tokenizer.json: normalizer, pre_tokenizer, model with vocab and merges, ..."""
        value: dict[str, Any] = json.loads(self._engine.to_str())
        return value

    def encode(self, text: str) -> list[int]:
        """The ids of `text`. Names of special tokens in it are plain text like any other."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """The ids of each text; several threads share the work."""
        try:
            batch = self._engine.encode_batch_fast(texts, add_special_tokens=False)
        except TypeError:
            list(_checked(texts))  # a half surrogate is the likely cause; else the TypeError stands
            raise
        return [encoding.ids for encoding in batch]

    def encode_bytes(self, data: bytes) -> list[int]:
        """The ids of any bytes. UTF-8 gives the ids of `encode`; every stray byte is a token of its own."""
        ids: list[int] = []
        # surrogateescape turns a byte b that is not UTF-8 into the character U+DC00 + b, which UTF-8 itself
        # cannot give; splitting there leaves proper text at even places and runs of stray bytes at odd
        # ones.
        parts = re.split("([\udc80-\udcff]+)", data.decode("utf-8", errors="surrogateescape"))
        encoded = self.encode_batch(parts[::2])
        for i, part in enumerate(parts):
            ids += [self._id_of_byte[ord(c) - 0xDC00] for c in part] if i % 2 else encoded[i // 2]
        return ids

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of `ids`: exact inverse of `encode` and `encode_bytes`. Special tokens give nothing."""
        return b"".join(self.token_bytes(id_) for id_ in ids)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; bytes that are no UTF-8 show as U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def token_bytes(self, id_: int) -> bytes:
        """The bytes of one token; none for a special token."""
        if not 0 <= id_ < self.vocabulary_size:
            raise UserError(
                f"there is no token {id_}",
                f"the vocabulary has tokens 0 to {self.vocabulary_size - 1}",
                "give a number in this range",
            )
        return self._bytes[id_]

    def is_special(self, id_: int) -> bool:
        """Is this token structure, and not text?"""
        return id_ in self.special_tokens

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides which ids a text gets, the same for equal tokenizers."""
        content = self.content()
        model = content["model"]
        decisive = [content["normalizer"], content["pre_tokenizer"], model["vocab"], model["merges"]]
        if not self.is_own:
            decisive += [content["added_tokens"], self._config]
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def _roles(config: Mapping[str, Any]) -> dict[str, Any]:
    """What is needed of a tokenizer_config.json. A token stands there by its name, or as {"content": name, ...}."""
    found = {}
    for role in ("bos", "eos", "pad", "unk"):
        token = config.get(f"{role}_token")
        name = token.get("content") if isinstance(token, dict) else token
        if isinstance(name, str):
            found[f"{role}_token"] = name
    if isinstance(config.get("chat_template"), str):
        found["chat_template"] = config["chat_template"]
    return found


def _checked(texts: Iterable[str]) -> Iterator[str]:
    """The texts; a UserError at one that cannot be written as UTF-8."""
    for text in texts:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise UserError(
                "could not cut a text into tokens",
                f"it has half a surrogate pair at character {error.start}, which no UTF-8 text can have",
                "read the text with errors='replace', or use encode_bytes for raw bytes",
            ) from error
        yield text
