"""Stopping a run from outside: Ctrl-C, SIGTERM, a full disk, a second process. Nothing is lost by any of them."""

import os
import resource
import shutil
import signal
import time

import pytest

from commands import last_step, wait_for
from crystalline.errors import EXIT_BUSY, EXIT_INTERRUPTED, EXIT_OK, EXIT_SYSTEM
from crystalline.run_folder import damage

STEPS = ("--steps", "60", "--set", "checkpointing.every_steps=1000", "--quiet")


@pytest.fixture(scope="module")
def uninterrupted(tiny_new, tmp_path_factory):
    """The hash of the weights after 60 steps in one go."""
    from commands import Command

    root = shutil.copytree(tiny_new, tmp_path_factory.mktemp("whole") / "run")
    with Command("run", root, *STEPS, folder=root.parent) as command:
        assert command.wait().code == EXIT_OK
    with Command("hash", root, folder=root.parent) as command:
        return command.wait().out


def whole(run):
    """Every checkpoint that has its name is whole, and nothing half-written lies about."""
    return all(damage(folder) == "" for folder in (run / "checkpoints").iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_stopped_run_is_saved_and_continues_to_the_same_weights(new_run, start, cllm, uninterrupted, number):
    with start("run", new_run, *STEPS) as command:
        wait_for(lambda: last_step(new_run) >= 5)
        began = time.monotonic()
        command.kill(number)
        result = command.wait()
    assert time.monotonic() - began < 5
    assert result.code == EXIT_INTERRUPTED
    assert result.err.splitlines()[-1].endswith("is saved; the same command continues")
    step = last_step(new_run)
    assert 5 <= step < 60
    assert [folder.name for folder in (new_run / "checkpoints").iterdir()] == [f"step-{step:08}"]
    assert whole(new_run)
    assert cllm("run", new_run, *STEPS)[0] == EXIT_OK
    assert last_step(new_run) == 60
    assert cllm("hash", new_run)[1] == uninterrupted


def test_a_second_ctrl_c_ends_at_once(new_run, start, cllm, uninterrupted):
    with start("run", new_run, *STEPS, before=slow_save) as command:
        wait_for(lambda: last_step(new_run) >= 5)
        command.kill(signal.SIGINT)
        wait_for(lambda: list(new_run.glob("checkpoints/.step-*.partial")))  # it is saving, slowly
        began = time.monotonic()
        command.kill(signal.SIGINT)
        assert command.wait().code == EXIT_INTERRUPTED
    assert time.monotonic() - began < 1
    assert list((new_run / "checkpoints").glob("step-*")) == []
    assert cllm("run", new_run, *STEPS)[0] == EXIT_OK
    assert cllm("hash", new_run)[1] == uninterrupted
    assert whole(new_run)


def slow_save():
    """A disk that takes its time."""
    from crystalline.training import checkpoint

    checkpoint.write_json = lambda *_: time.sleep(60)


def test_ctrl_c_while_reading_text_leaves_nothing_half_made(new_run, start, cllm):
    with start("run", new_run, "--quiet", before=slow_reading) as command:
        wait_for(lambda: list(new_run.glob(".corpus.*.partial")))
        command.kill(signal.SIGINT)
        result = command.wait()
    assert result.code == EXIT_INTERRUPTED
    assert "Traceback" not in result.err
    assert list(new_run.glob(".corpus.*.partial")) == []
    assert not (new_run / "corpus").exists()
    assert cllm("run", new_run)[0] == EXIT_OK


def slow_reading():
    from crystalline.corpus import stage

    stage.documents = lambda *_: time.sleep(60)


def test_a_second_process_is_refused_and_harms_nothing(new_run, start, cllm):
    with start("run", new_run, *STEPS) as command:
        wait_for(lambda: last_step(new_run) >= 1)
        for verb in ("run", "train", "plan"):
            code, out, err = cllm(verb, new_run)
            assert (code, out) == (EXIT_BUSY, "")
            assert f"pid {command.pid}" in err
            assert "\n  fix: " in err
        command.kill(signal.SIGKILL)
        command.wait()
    assert cllm("run", new_run, "--steps", last_step(new_run) + 1)[0] == EXIT_OK


# --- no disk space ----------------------------------------------------------------------------------------


def small_files():
    """No file can grow beyond 100 kB, which is less than the weights: a write fails in the middle."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))


def full_disk():
    """Everything written from the first checkpoint on is refused as a full disk refuses it."""
    import errno

    from crystalline.training import checkpoint

    real = checkpoint.new_folder

    def refuse(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    def new_folder(path):
        os.fsync = refuse
        return real(path)

    checkpoint.new_folder = new_folder


@pytest.mark.parametrize("trouble", [small_files, full_disk])
def test_without_disk_space_the_last_checkpoint_stays_and_the_same_command_continues(run, start, cllm, trouble):
    good = cllm("hash", run)[1]
    for step in (4, 6):
        shutil.rmtree(run / "checkpoints" / f"step-{step:08}")
    before = {path.name: path.read_bytes() for path in (run / "checkpoints" / "step-00000002").iterdir()}
    for _ in range(2):
        with start("run", run, before=trouble) as command:
            result = command.wait()
        assert result.code == EXIT_SYSTEM, result.err
        assert "step-00000004" in result.err
        assert all(part in result.err for part in ("\n  why: ", "\n  fix: ", "give the same command again"))
        assert "Traceback" not in result.err
        assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000002"]
        after = {path.name: path.read_bytes() for path in (run / "checkpoints" / "step-00000002").iterdir()}
        assert after == before
    assert cllm("run", run)[0] == EXIT_OK
    assert cllm("hash", run)[1] == good


def no_room():
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, resource.RLIM_INFINITY))


def test_without_disk_space_for_the_text_the_same_command_continues(new_run, start, cllm):
    with start("run", new_run, before=no_room) as command:
        result = command.wait()
    assert result.code == EXIT_SYSTEM
    assert all(part in result.err for part in ("cllm: could not ", "\n  why: ", "\n  fix: "))
    assert "Traceback" not in result.err
    assert [path.name for path in new_run.glob(".*")] == []
    assert cllm("run", new_run)[0] == EXIT_OK


# --- other machines ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("present", "expected"), [(False, "fp32"), (True, "bf16")])
def test_the_precision_is_the_best_that_the_processor_has(new_run, cllm, monkeypatch, present, expected):
    from crystalline.model import checkpoints
    from crystalline.run_folder import RunFolder
    from crystalline.training import recipe

    monkeypatch.setattr(recipe, "has_bf16", lambda: present)
    code, _, err = cllm("run", new_run, "--set", "training.precision=auto", "--steps", "2")
    assert code == EXIT_OK
    assert f", {expected}, seed 0" in err
    newest = checkpoints.newest_whole(RunFolder(new_run))
    assert checkpoints.read_recipe(newest)["settings"]["training"]["precision"] == expected
    assert cllm("eval", new_run)[0] == EXIT_OK


def test_memory_that_is_not_there_is_told(new_run, start):
    with start("run", new_run, "--set", "model.width=16384", "--set", "model.layers=200", before=little_memory) as c:
        result = c.wait()
    assert result.code == EXIT_SYSTEM, result.err
    assert "not enough memory" in result.err
    assert "Traceback" not in result.err


def little_memory():
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, resource.RLIM_INFINITY))
