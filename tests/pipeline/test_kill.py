"""kill -9 at any moment, and the same command again: the finished weights are those of a run that was left alone."""

import os
import random
import signal

import pytest

from commands import last_step, wait_for
from crystalline.errors import EXIT_OK
from crystalline.events import read
from crystalline.run_folder import damage


class DieAt:
    """Kills the command at the n-th call of a function of `os`, in it or in the scribe: just before data or a name
    reaches the disk."""

    def __init__(self, name, number):
        self.name, self.number = name, number

    def __call__(self):
        real, calls, command = getattr(os, self.name), 0, os.getpid()

        def count(*arguments):
            nonlocal calls
            calls += 1
            if calls == self.number:
                os.kill(command, signal.SIGKILL)
                signal.pause() if os.getpid() != command else None  # until it dies with the command
            return real(*arguments)

        setattr(os, self.name, count)


def in_order(run):
    """Folders with a final name are whole, and the history is numbered without a gap."""
    assert [event["seq"] for event in read(run / "events.jsonl")] == list(
        range(1, 1 + len((run / "events.jsonl").read_bytes().splitlines()))
    )
    for folder in [run / "corpus", run / "shards", *(run / "checkpoints").glob("step-*")]:
        assert not folder.exists() or damage(folder) == "", folder


def finish(run, start, cllm, expected):
    """The same command again, left alone."""
    with start("run", run, "--quiet") as command:
        result = command.wait()
    assert result.code == EXIT_OK, result.err
    in_order(run)
    leftovers = [path for folder in (run, run / "checkpoints") for path in folder.glob(".*")]
    assert leftovers == []
    assert cllm("hash", run)[1] == expected


@pytest.fixture(scope="session")
def expected(tiny_run):
    """The hash of a run that nobody killed."""
    from crystalline.model import checkpoints, store

    return store.weights_hash(store.read_weights(checkpoints.find(tiny_run))) + "\n"


def test_killed_between_stages_and_while_naming_their_results(new_run, start, cllm, expected):
    """Each start gets a little further: it dies at its third rename of a file or at its second of a folder."""
    deaths = 0
    for name, number in [("replace", 3), ("rename", 1), ("replace", 4), ("rename", 2), ("replace", 5)]:
        with start("run", new_run, "--quiet", before=DieAt(name, number)) as command:
            deaths += command.wait().code == -signal.SIGKILL
        in_order(new_run)
    assert deaths == 5
    finish(new_run, start, cllm, expected)


def test_killed_while_saving(new_run, start, cllm, expected):
    assert cllm("plan", new_run)[0] == EXIT_OK
    seen = set()
    for call in (2, 5, 9):  # in the first save of each start: the recipe, the weights, the sealed list
        with start("run", new_run, "--quiet", before=DieAt("fsync", call)) as command:
            assert command.wait().code == -signal.SIGKILL
        seen |= {path.name.split(".")[1] for path in (new_run / "checkpoints").glob(".step-*.partial")}
        in_order(new_run)
    assert seen, "no kill fell into a save"
    finish(new_run, start, cllm, expected)


def killed_at_random(new_run, start, cllm, expected, kills):
    """Kills come at a random time after a random step; a run that is done meanwhile is begun again from a copy."""
    chance = random.Random(kills)
    hits = 0
    for _ in range(kills):
        target = last_step(new_run) + chance.randint(0, 2)
        with start("run", new_run, "--quiet") as command:
            wait_for(lambda target=target, c=command: last_step(new_run) >= target or c.process.exitcode is not None)
            wait_a_moment(chance.random() * 0.03)
            command.kill(signal.SIGKILL)
            command.process.join()
            hits += command.process.exitcode == -signal.SIGKILL
        in_order(new_run)
    assert hits >= kills // 3, "the kills came too late"
    finish(new_run, start, cllm, expected)


def wait_a_moment(seconds):
    import time

    time.sleep(seconds)


def test_killed_three_times_during_training(new_run, start, cllm, expected):
    killed_at_random(new_run, start, cllm, expected, 3)


@pytest.mark.slow
def test_killed_twenty_times_during_a_longer_run(new_run, start, cllm, tmp_path):
    import shutil

    settings = new_run / "crystalline.toml"
    settings.write_text(
        settings.read_text().replace("steps = 6", "steps = 60").replace("every_steps = 2", "every_steps = 3")
    )
    alone = shutil.copytree(new_run, tmp_path / "alone")
    assert cllm("run", alone, "--quiet")[0] == EXIT_OK
    killed_at_random(new_run, start, cllm, cllm("hash", alone)[1], 20)
    assert last_step(new_run) == 60
