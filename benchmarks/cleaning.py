"""How fast cleaning is: megabytes of text a second on one core, in memory and from files, and where the time goes.

    python benchmarks/cleaning.py [--megabytes 20] [--rounds 5]

The text is English prose that is there wherever Python is (the help topics of pydoc), its sentences put together anew
into documents of about 4 kB as of pages. Prints the medians of several rounds; seconds are of the processor, so that
other programs disturb less. In memory: all that is done to a document, from bytes to bytes. From files: reading them
and writing the corpus too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from pydoc_data.topics import topics

from crystalline.corpus import stage
from crystalline.corpus.clean import boilerplate, language, likeness, mending, personal, quality
from crystalline.corpus.clean.cleaner import Cleaner, finish, judge
from crystalline.corpus.portions import BATCH_BYTES
from crystalline.run_folder import RunFolder
from crystalline.settings import Clean, Corpus, Settings


def documents(megabytes: float, seed: int = 1) -> list[bytes]:
    """Documents of 0.5 to 30 kB, half of them below 4 kB."""
    source = random.Random(seed)
    text = " ".join(re.sub(r"[*`_]+", "", topic) for topic in topics.values())
    sentences = [
        " ".join(s.split()) for s in re.split(r"(?<=[.!?])\s+", text) if 30 < len(s) < 300 and s[0].isalpha()
    ]
    found, size = [], 0
    while size < megabytes * 1e6:
        length = min(30_000, max(500, source.lognormvariate(8.3, 0.8)))
        parts, have = [], 0
        while have < length:
            sentence = source.choice(sentences)
            parts.append(sentence + source.choice([" ", " ", " ", "\n", "\n\n"]))
            have += len(sentence)
        found.append("".join(parts).strip().encode())
        size += len(found[-1])
    return found


def in_memory(found: list[bytes], web: bool, near: bool) -> float:
    """Seconds to clean them."""
    settings = Clean()
    began = time.process_time()
    batch, waiting, kept = [], 0, 0
    for number, data in enumerate([*found, b""]):
        if data:
            cleaner = Cleaner(settings, f"https://example.org/{number}" if web else f"{number}.txt", "prose")
            batch.append((cleaner, cleaner.begin(data)))
            waiting += len(data)
        if waiting >= BATCH_BYTES or not data:
            judge(batch)
            finish(batch)
            if near:
                likeness.signatures([done.data for _, done in batch if done.data])
            kept += sum(len(done.data) for _, done in batch)
            batch, waiting = [], 0
    seconds = time.process_time() - began
    assert kept > 0.9 * sum(map(len, found)), "this text is good"
    return seconds


def parts(found: list[bytes]) -> dict[str, float]:
    """Seconds of each part by itself."""
    seconds: dict[str, float] = {}
    texts = [data.decode() for data in found]
    for name, work in {
        "normalisation": lambda text: mending.normal(mending.mended(text)),
        "lines of the site": lambda text: boilerplate.without_lines(text, text.encode(), lambda line: None),
        "language": language.language,
        "masking": lambda text: personal.masked(text, personal.KINDS),
    }.items():
        began = time.process_time()
        for text in texts:
            work(text)
        seconds[name] = time.process_time() - began
    for name, many in {
        "rules": lambda t, d: quality.faults(t, d, [quality.WEB] * len(t), ["en"] * len(t)),
        "signatures": lambda t, d: likeness.signatures(d),
    }.items():
        began = time.process_time()
        for i in range(0, len(texts), 32):
            many(texts[i : i + 32], found[i : i + 32])
        seconds[name] = time.process_time() - began
    return seconds


def from_files(folder: Path, near: bool, workers: int = 1) -> float:
    """Seconds (of the processor with one process, else by the clock) from a folder to a corpus."""
    settings = Settings(
        corpus=Corpus(source=[str(folder)]),
        clean=Clean(near_duplicates=0.75 if near else 0, workers=workers, quality="web"),
    )
    with tempfile.TemporaryDirectory() as root:
        clock = time.process_time if workers == 1 else time.perf_counter
        began = clock()
        stage.build(settings, RunFolder(root))
        return clock() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    found = documents(args.megabytes)
    size = sum(map(len, found)) / 1e6
    for web in (True, False):  # load what is loaded once
        in_memory(found[:200], web, True)
    rates: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as name:
        for number, data in enumerate(found):
            (Path(name) / f"{number}.txt").write_bytes(data)
        for _ in range(args.rounds):
            rates["web pages, in memory"].append(size / in_memory(found, True, False))
            rates["web pages, in memory, with signatures"].append(size / in_memory(found, True, True))
            rates["files of a user, in memory"].append(size / in_memory(found, False, False))
            rates["from files to the corpus"].append(size / from_files(Path(name), False))
            rates["from files to the corpus, with near duplicates"].append(size / from_files(Path(name), True))
            for part, seconds in parts(found).items():
                rates[f"only {part}"].append(size / seconds)
    medians = {name: round(statistics.median(values), 1) for name, values in rates.items()}
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"{size:.1f} MB in {len(found)} documents; MB/s on one core, medians of {args.rounds} rounds")
    print(json.dumps(medians, indent=1))


if __name__ == "__main__":
    main()
