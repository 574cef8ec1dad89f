"""What the TensorBoard program reads from a run is what the events say; also after kills and rollbacks."""

import sys

import pytest

from crystalline import events
from crystalline.errors import EXIT_FAILED, EXIT_OK, UserError
from crystalline.events import EventLog
from crystalline.pipeline import tensorboard

pytest.importorskip("tensorboard", reason="the package 'tensorboard' is optional")


def accumulated(run):
    """The folder as the TensorBoard program reads it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0})
    found.Reload()
    return found


def scalars(run):
    """tag -> [(step, value)]."""
    found = accumulated(run)
    return {tag: [(s.step, s.value) for s in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def in_events(run, kind, name):
    latest = {e["step"]: e[name] for e in events.read(run / "events.jsonl", kind)}
    return [(step, pytest.approx(value)) for step, value in sorted(latest.items())]


def test_a_run_is_written_while_it_trains(new_run, cllm):
    assert cllm("run", new_run, "--tensorboard")[0] == EXIT_OK
    found = scalars(new_run)
    for tag, name in (("loss", "loss"), ("gradient_norm", "gradient_norm"), ("rate", "rate"), ("tokens", "tokens")):
        assert found[f"train/{tag}"] == in_events(new_run, "training.step", name)
    assert found["held_out/bits_per_byte"] == in_events(new_run, "training.evaluation", "bits_per_byte")
    assert found["machine/memory_bytes"][-1][1] > 1e7
    assert found["spheres/busy_0"][-1][1] > 0
    assert [step for step, _ in found["train/tokens_per_second"]] == [2, 3, 4, 5, 6]
    texts = accumulated(new_run)
    (sample, *_) = events.read(new_run / "events.jsonl", "training.sample")
    written = texts.Tensors("sample")[0]
    assert written.step == sample["step"]
    assert sample["text"].split("\n")[0] in written.tensor_proto.string_val[0].decode()
    assert "optimizer.name | muon" in texts.Tensors("recipe")[0].tensor_proto.string_val[0].decode()


def test_the_weights_do_not_depend_on_it(new_run, tiny_run, cllm):
    assert cllm("run", new_run, "--tensorboard")[0] == EXIT_OK
    assert cllm("hash", new_run) == cllm("hash", tiny_run)


def test_asked_for_later_it_holds_the_run_from_its_beginning_and_no_step_twice(run, cllm):
    assert not (run / "tensorboard").exists()
    assert cllm("run", run, "--steps", "8", "--set", "training.tensorboard=true")[0] == EXIT_OK
    assert cllm("run", run, "--steps", "10", "--tensorboard")[0] == EXIT_OK
    assert [step for step, _ in scalars(run)["train/loss"]] == list(range(1, 11))
    assert len(list((run / "tensorboard").iterdir())) == 1


def test_steps_that_are_done_again_replace_those_of_before(made_up):
    def written(first, last, loss):
        with EventLog(made_up.folder.events) as log:
            follower = tensorboard.Follower(made_up.folder)
            log.followers.append(follower.take)
            for step in range(first, last + 1):
                facts = {"loss": loss, "gradient_norm": None, "rate": 1.0, "tokens": step, "seconds": 1.0}
                log.write("training.step", step=step, **facts)
            if loss == 3.0:
                log.write("training.rollback", step=last, to=4)
            return follower  # killed: it is not closed

    written(1, 10, 1.0)
    written(6, 8, 2.0)
    expected = [(step, 1.0 if step < 6 else 2.0) for step in range(1, 9)]
    assert scalars(made_up.root)["train/loss"] == expected
    assert "train/gradient_norm" not in scalars(made_up.root), "what is no number is left out"
    written(9, 9, 3.0)
    assert scalars(made_up.root)["train/loss"] == expected[:4]
    written(5, 6, 4.0)
    assert scalars(made_up.root)["train/loss"] == [*expected[:4], (5, 4.0), (6, 4.0)]


def test_a_folder_that_cannot_be_written_does_not_hurt_the_run(new_run, tiny_run, cllm, monkeypatch):
    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tensorboard.summary.writer.record_writer.RecordWriter.write", full)
    code, _, err = cllm("run", new_run, "--tensorboard")
    assert code == EXIT_OK
    assert err.count("TensorBoard is not written any more") == 1
    assert cllm("hash", new_run) == cllm("hash", tiny_run)


def test_without_the_package_it_is_told_before_anything_is_done(new_run, cllm, monkeypatch):
    for name in list(sys.modules):
        if name.split(".")[0] == "tensorboard":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    code, out, err = cllm("run", new_run, "--tensorboard")
    assert (code, out) == (EXIT_FAILED, "")
    assert "pip install tensorboard" in err
    assert not (new_run / "corpus").exists()
    with pytest.raises(UserError):
        tensorboard.check()
