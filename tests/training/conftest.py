"""Runs whose text is prepared once; each test trains a copy of its own."""

import shutil

import pytest
import torch
from small_runs import prepared_run

from crystalline.run_folder import RunFolder


@pytest.fixture(autouse=True)
def _one_thread():
    """As everywhere in training: two threads add in an order of their own."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def _prepared(tmp_path_factory):
    return prepared_run(tmp_path_factory.mktemp("prepared"))


@pytest.fixture
def new_run(_prepared, tmp_path):
    """`new_run("name")`: a run folder of this name that is ready to be trained."""
    return lambda name: RunFolder(shutil.copytree(_prepared.root, tmp_path / name))
