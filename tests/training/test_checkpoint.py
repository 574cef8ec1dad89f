"""Checkpoints: whole or not there, every byte checked, and a failed save costs nothing that was saved before."""

import errno
import logging
import os
import resource
import shutil
from pathlib import Path

import pytest
import torch
from small_runs import checkpoint_names, train, trainer

from crystalline.errors import EXIT_DAMAGED, EXIT_SYSTEM, UserError
from crystalline.model import checkpoints, store
from crystalline.run_folder import SEAL, RunFolder, damage
from crystalline.training import checkpoint
from crystalline.training.checkpoint import Retention, prune

FILES = [
    "SHA256SUMS", "codes.json", "model.safetensors", "optimizer.safetensors", "recipe.json", "state.json",
    "tokenizer.json",
]  # fmt: skip


@pytest.fixture(scope="session")
def trained(_prepared, tmp_path_factory):
    """A run with whole checkpoints of steps 1, 2 and 3."""
    run = RunFolder(shutil.copytree(_prepared.root, tmp_path_factory.mktemp("trained") / "run"))
    train(run, training__steps=3, checkpointing__every_steps=1)
    return run


@pytest.fixture
def run(trained, tmp_path):
    return RunFolder(shutil.copytree(trained.root, tmp_path / "run"))


def contents(folder: Path):
    """Path -> bytes of everything in a folder."""
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def flip(bit):
    def change(data):
        data = bytearray(data)
        data[bit // 8 % len(data)] ^= 1 << bit % 8
        return bytes(data)

    return change


def cut(share):
    return lambda data: data[: int(len(data) * share)]


CHANGES = {f"bit {bit}": flip(bit) for bit in (0, 83, 4321, 99_991)} | {
    f"cut to {share:.0%}": cut(share) for share in (0, 0.5, 0.99)
}


# --- damage -------------------------------------------------------------------------------------------


def test_a_checkpoint_has_the_files_that_are_tested_here(run):
    assert sorted(path.name for path in checkpoints.newest_whole(run).iterdir()) == FILES


@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize("name", FILES)
def test_damage_is_seen_and_the_one_before_is_used(trained, caplog, name, how):
    """The message names the file; with a wrong checksum in the list, the one that it is the checksum of.

    The shared run is mended again: copying it for each case would be slow.
    """
    newest = checkpoints.checkpoint_folders(trained)[0]
    file = newest / name
    whole = file.read_bytes()
    changed = CHANGES[how](whole)
    assert changed != whole
    file.write_bytes(changed)
    try:
        with caplog.at_level(logging.WARNING):
            assert checkpoints.newest_whole(trained).name == "step-00000002"
        assert str(newest if name == SEAL else file) in caplog.text
        assert "step-00000003 is damaged" in caplog.text
    finally:
        file.write_bytes(whole)
    assert checkpoints.newest_whole(trained) == newest


def test_any_bit_of_the_list_of_checksums_counts(trained):
    file = checkpoints.checkpoint_folders(trained)[0] / SEAL
    whole = file.read_bytes()
    try:
        for bit in range(0, 8 * len(whole), 7):  # 7 and 8 have no common factor: all bits of a byte come
            file.write_bytes(flip(bit)(whole))
            assert damage(file.parent), f"bit {bit}"
    finally:
        file.write_bytes(whole)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_seen(run, caplog, name):
    newest = checkpoints.checkpoint_folders(run)[0]
    (newest / name).unlink()
    assert checkpoints.newest_whole(run).name == "step-00000002"
    assert f"{newest / name} is missing" in caplog.text


def test_when_all_are_damaged_each_is_named(run):
    for folder in checkpoints.checkpoint_folders(run):
        (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError) as caught:
        trainer(run)
    assert caught.value.exit_code == EXIT_DAMAGED
    for step in (1, 2, 3):
        assert f"step-0000000{step}/model.safetensors" in caught.value.why


def test_training_goes_on_from_the_last_whole_one(run, trained):
    """... and makes the damaged one anew, with the bits it had."""
    newest = checkpoints.checkpoint_folders(run)[0]
    newest.joinpath("optimizer.safetensors").write_bytes(b"")
    made = train(run, training__steps=3)
    assert made.parameters.hash() == store.weights_hash(store.read_weights(trained.checkpoints / newest.name))
    assert not damage(newest)


# --- saving and restoring -----------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["muon", "adamw", "sgd"])
def test_what_is_restored_equals_what_was_saved(new_run, optimizer):
    run = new_run(optimizer)
    saved = train(run, optimizer__name=optimizer, training__steps=2)
    fresh = trainer(new_run("other"), optimizer__name=optimizer, training__steps=2)
    assert fresh.parameters.hash() != saved.parameters.hash()
    state = checkpoint.restore(checkpoints.newest_whole(run), fresh.parameters, fresh.optimizers)
    assert torch.equal(fresh.parameters.values, saved.parameters.values)
    for mine, theirs in zip(fresh.optimizers, saved.optimizers, strict=True):
        assert mine.state.keys() == theirs.state.keys()
        for name, tensor in mine.state.items():
            assert tensor.any(), "there was something to restore"
            assert torch.equal(tensor, theirs.state[name])
    assert state["step"] == 2
    assert (state["tokens"], state["updates"]) == (saved.tokens_seen, 2)
    assert (state["guard"], state["evaluations"]) == (saved.guard.to_json(), saved.evaluations.to_json())


def test_a_checkpoint_can_be_used_without_its_run(run, tmp_path):
    alone = Path(shutil.copytree(checkpoints.newest_whole(run), tmp_path / "alone"))
    expected = store.read_weights(alone)
    shutil.rmtree(run.root)
    weights = store.read_model(alone).state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def save(made, step, keep=5):
    made.step = step
    recipe, state, retention = made.recipe.to_json(), {"tokens": 0}, Retention(keep)
    return checkpoint.save(made.run, step, made.parameters, made.optimizers, recipe, state, retention)


def test_a_half_checkpoint_never_has_its_final_name(run, monkeypatch):
    """Looked at before and after each file that is written, and before the sealing rename."""
    made, looks = trainer(run), []
    final = run.checkpoints / "step-00000009"

    def looking(real):
        def call(*arguments, **options):
            looks.append(final.exists())
            result = real(*arguments, **options)
            looks.append(final.exists())
            return result

        return call

    for where, name in (
        (checkpoint, "save_file"),
        (checkpoint, "write_json"),
        (checkpoint.shutil, "copy"),
        (os, "replace"),
        (os, "fsync"),
    ):
        monkeypatch.setattr(where, name, looking(getattr(where, name)))
    folder = save(made, 9)
    monkeypatch.undo()
    assert folder == final
    assert not damage(final)
    # Only the last look, at the fsync of the folder above, comes after the rename.
    assert len(looks) > 20
    assert looks == [False] * (len(looks) - 2) + [True] * 2


def fails_at(real, call, error):
    calls = 0

    def write(*arguments, **options):
        nonlocal calls
        calls += 1
        if calls == call:
            raise error
        return real(*arguments, **options)

    return write


# What a full disk looks like to each writer, and at which of its calls.
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
MOMENTS = [
    (checkpoint, "save_file", 1, FULL),
    (checkpoint, "save_file", 2, FULL),
    (checkpoint, "save_file", 2, checkpoint.SafetensorError("I/O error: No space left on device (os error 28)")),
    (checkpoint, "write_json", 1, FULL),
    (checkpoint, "write_json", 2, FULL),
    (checkpoint.shutil, "copy", 2, FULL),
    (os, "fsync", 3, FULL),
    (os, "replace", 3, FULL),
    (os, "rename", 1, FULL),
]


@pytest.mark.parametrize("moment", range(len(MOMENTS)))
def test_a_full_disk_costs_no_earlier_checkpoint(run, monkeypatch, moment):
    made, before = trainer(run), contents(run.checkpoints)
    where, name, call, error = MOMENTS[moment]
    monkeypatch.setattr(where, name, fails_at(getattr(where, name), call, error))
    with pytest.raises(UserError) as caught:
        save(made, 9)
    monkeypatch.undo()
    assert caught.value.exit_code == EXIT_SYSTEM
    assert "step-00000009" in caught.value.what
    assert "No space left" in caught.value.why
    assert "disk space" in caught.value.fix
    assert contents(run.checkpoints) == before
    assert checkpoint_names(run) == ["step-00000001", "step-00000002", "step-00000003"], "no rubbish is left"
    assert not damage(save(made, 9)), "the next save goes well"


def test_the_operating_system_refuses_to_write(run):
    """Not simulated: the process may write no file over 50 kB. The library wraps that in an error of its own."""
    made, before = trainer(run), contents(run.checkpoints)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(UserError, match="could not save the checkpoint") as caught:
            save(made, 9)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.exit_code == EXIT_SYSTEM
    assert contents(run.checkpoints) == before


def test_a_failed_save_ends_training_and_the_work_before_it_stays(new_run, monkeypatch):
    run = new_run("run")
    real = checkpoint.save_file

    def full(tensors, path):
        if "step-00000004" in str(path) and path.name == "optimizer.safetensors":
            raise FULL
        real(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(UserError) as caught:
        train(run, training__steps=6, checkpointing__every_steps=2)
    assert caught.value.exit_code == EXIT_SYSTEM
    assert checkpoint_names(run) == ["step-00000002"]
    monkeypatch.undo()
    whole = new_run("whole")
    assert train(run).parameters.hash() == train(whole).parameters.hash()


def test_keeping_the_last_ones(run):
    made = trainer(run)
    save(made, 4, keep=2)
    assert checkpoint_names(run) == ["step-00000003", "step-00000004"]


def test_saving_a_step_again_replaces_it(run):
    made = trainer(run)
    with torch.no_grad():
        made.parameters.values.add_(1.0)
    save(made, 3)
    assert checkpoint_names(run) == ["step-00000001", "step-00000002", "step-00000003"]
    assert store.weights_hash(store.read_weights(checkpoints.newest_whole(run))) == made.parameters.hash()


# --- what stays ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("retention", "staying"),
    [
        (Retention(3), {9, 8, 7}),
        (Retention(2, anchors=(4, 2)), {9, 4}),
        (Retention(3, anchors=(4, 2)), {9, 4, 2}),
        (Retention(4, anchors=(9, 5)), {9, 8, 7, 5}),
        (Retention(3, anchors=(0, 0)), {9, 8, 7}),
        (Retention(2, every=4), {9, 8, 4}),
        (Retention(2, best=frozenset({1, 77})), {9, 8, 1}),
    ],
)
def test_which_checkpoints_stay(retention, staying):
    assert retention.staying([9, 8, 7, 6, 5, 4, 3, 2, 1]) == staying
    assert retention.staying([]) == set()


def test_two_whole_ones_stay_even_when_those_that_should_are_damaged(run):
    made = trainer(run)
    for step in (4, 5):
        save(made, step)
    for step in (3, 4):
        (run.checkpoints / f"step-0000000{step}" / "model.safetensors").write_bytes(b"")
    prune(run, 5, Retention(3))
    assert checkpoint_names(run) == [f"step-0000000{step}" for step in (2, 3, 4, 5)]
    prune(run, 2, Retention(2))  # training went back to step 2: what is later is given up, but a spare one stays
    assert checkpoint_names(run) == ["step-00000002", "step-00000005"]


def test_a_kill_while_removing_leaves_no_half_checkpoint(run, monkeypatch):
    class Killed(BaseException):
        pass

    def die(path, **_):
        next(path.iterdir()).unlink()
        raise Killed

    monkeypatch.setattr(checkpoint.shutil, "rmtree", die)
    with pytest.raises(Killed):
        prune(run, 3, Retention(2))
    monkeypatch.undo()
    assert [name for name in checkpoint_names(run) if not name.startswith(".")] == ["step-00000002", "step-00000003"]
    with run.lock():  # the next command removes what is left
        assert checkpoint_names(run) == ["step-00000002", "step-00000003"]


def test_what_is_on_disk_is_no_more_than_the_plan_says(run, monkeypatch):
    """Proof 13: at most keep checkpoints and the one being written, with the default settings."""
    one = sum(path.stat().st_size for path in checkpoints.newest_whole(run).iterdir())
    real, largest = checkpoint.prune, []

    def look(*arguments):
        largest.append(sum(path.stat().st_size for path in run.checkpoints.rglob("*")))
        real(*arguments)

    monkeypatch.setattr(checkpoint, "prune", look)
    made = trainer(run)
    keep = made.recipe.settings.checkpointing.keep
    for step in range(4, 12):
        made.step = step
        save(made, step, keep)
    assert max(largest) <= (keep + 1) * one * 1.02
