"""How long a run is: what was asked last counts, and nothing that was done is taken back."""

import logging

import pytest

from crystalline.errors import UserError
from crystalline.pipeline import runner
from crystalline.run_folder import RunFolder, read_json


def steps_of(run) -> int:
    return read_json(RunFolder(run).recipe)["settings"]["training"]["steps"]


def test_a_flag_makes_a_run_longer_and_the_file_does_not_take_it_back(run, tiny_settings):
    before = tiny_settings["training.steps"]
    assert runner.run(run, {"training.steps": before + 2}).step == before + 2
    assert steps_of(run) == before + 2
    assert runner.run(run).step == before + 2, "the same command again continues, or says that it is done"


def test_a_changed_file_makes_a_run_longer(run, tiny_settings):
    before = tiny_settings["training.steps"]
    file = RunFolder(run).settings
    file.write_text(file.read_text().replace(f"steps = {before}", f"steps = {before + 1}", 1))
    assert runner.run(run).step == before + 1


def test_a_run_cannot_become_shorter_than_it_is(run, tiny_settings):
    with pytest.raises(UserError, match="is at step"):
        runner.run(run, {"training.steps": tiny_settings["training.steps"] - 1})
    assert steps_of(run) == tiny_settings["training.steps"]


def test_when_to_save_and_look_follows_the_present_command(run, tiny_settings):
    """Settings that change no weights are not frozen with the recipe, and not ignored in silence."""
    steps = tiny_settings["training.steps"] + 4
    trainer = runner.run(run, {"training.steps": steps, "checkpointing.every_steps": 1, "checkpointing.keep": 4})
    assert len(list(RunFolder(run).checkpoints.iterdir())) == 4
    assert trainer.recipe.settings.checkpointing.keep == 4


def test_another_tokenizer_needs_another_run(run):
    with pytest.raises(UserError, match=r"tokenizer.vocabulary_size was 400, now 900"):
        runner.run(run, {"tokenizer.vocabulary_size": 900})


def test_another_machine_is_named(run, caplog, monkeypatch):
    monkeypatch.setattr(runner, "machine", lambda kind: {"torch": "1.0"})
    monkeypatch.setattr(logging.getLogger("crystalline"), "propagate", True)
    runner.run(run)
    assert "is 1.0" in caplog.text
