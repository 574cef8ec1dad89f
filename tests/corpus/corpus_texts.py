"""Texts to make corpora of, and settings that name them."""

import random
from pathlib import Path

from crystalline.settings import Clean, Corpus, Settings

WORDS = ["the", "cat", "sat", "naïve", "Bär", "Straße", "żółć", "漢字", "def", "return", "import", "42"]


def prose(size: int, seed: int) -> str:
    """About `size` characters of text in lines and paragraphs, different for each seed."""
    source = random.Random(seed)
    text = f"{seed}"
    while len(text) < size:
        text += source.choice([" ", " ", " ", " ", "\n", "\n\n"]) + source.choice(WORDS)
    return text + "\n"


def settings_for(*sources: Path, clean: dict | None = None, **choices) -> Settings:
    """Settings with these sources; `choices` are of [corpus]."""
    return Settings(
        corpus=Corpus(source=[str(source) for source in sources], **choices), clean=Clean(**(clean or {}))
    )
