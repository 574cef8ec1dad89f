"""A folder of texts, and a run to put its corpus in."""

import pytest
from corpus_texts import prose

from crystalline.run_folder import RunFolder


@pytest.fixture
def run(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.root.mkdir()
    return folder


@pytest.fixture
def texts(tmp_path):
    """A folder with 30 texts of 300 to 9000 characters in several folders."""
    root = tmp_path / "texts"
    for seed in range(30):
        path = root / f"part{seed % 4}" / f"text{seed}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(prose(300 + 300 * seed, seed), encoding="utf-8")
    return root
