"""The list of models tells how far each run is, and a broken one does not hide the others."""

import shutil

import pytest

from crystalline.errors import UserError
from crystalline.pipeline.catalogue import runs_below


@pytest.fixture
def shelf(tmp_path, tiny_run, tiny_new):
    """A folder with a finished and a new run, and things that are no runs."""
    shutil.copytree(tiny_run, tmp_path / "shelf" / "finished")
    shutil.copytree(tiny_new, tmp_path / "shelf" / "below" / "it" / "new")
    (tmp_path / "shelf" / "notes").mkdir()
    (tmp_path / "shelf" / "notes" / "manifest.json").write_text("{}")  # another program's
    return tmp_path / "shelf"


def test_every_run_is_listed_with_how_far_it_is(shelf):
    new, finished = runs_below(shelf)
    assert new == {
        "run": str(shelf / "below" / "it" / "new"),
        "parameters": None,
        "step": 0,
        "steps": None,
        "bits_per_byte": None,
        "problem": None,
    }
    assert finished["run"] == str(shelf / "finished")
    assert (finished["step"], finished["steps"], finished["problem"]) == (6, 6, None)
    assert 20_000 < finished["parameters"] < 100_000
    assert 3 < finished["bits_per_byte"] < 8


def test_the_run_itself_may_be_named(shelf):
    assert [entry["run"] for entry in runs_below(shelf / "finished")] == [str(shelf / "finished")]


@pytest.mark.parametrize("name", ["manifest.json", "checkpoints/step-00000006/recipe.json"])
@pytest.mark.parametrize("harm", ["missing", "damaged"])
def test_a_broken_run_says_so_and_the_others_are_listed(shelf, name, harm):
    file = shelf / "finished" / name
    if harm == "damaged":
        file.write_text("{")
    else:
        file.unlink()
    found = {entry["run"]: entry["problem"] for entry in runs_below(shelf)}
    assert found[str(shelf / "below" / "it" / "new")] is None
    if (name, harm) != ("manifest.json", "missing"):  # without it, it is no run
        assert harm in found[str(shelf / "finished")]


def test_what_is_no_folder_is_told(shelf):
    for path in (shelf / "gone", shelf / "notes" / "manifest.json"):
        with pytest.raises(UserError, match="not a folder"):
            runs_below(path)


def test_an_empty_folder_has_no_runs(tmp_path):
    assert runs_below(tmp_path) == []
