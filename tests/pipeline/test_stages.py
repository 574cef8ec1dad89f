"""The runner does what is missing and only that, and says so when it cannot follow a change."""

import shutil

import pytest

from commands import last_step, wait_for
from crystalline.errors import EXIT_DAMAGED, EXIT_OK, EXIT_USAGE
from crystalline.events import read
from crystalline.run_folder import damage


def snapshot(run):
    """What is in a run folder and when it was written, but for the lock."""
    return {
        path: (path.stat().st_mtime_ns, path.stat().st_size)
        for path in [run, *run.rglob("*")]
        if path.name != "lock"
    }  # fmt: skip


def stages_done(run):
    """The stages in the order in which they were done."""
    return [event["stage"] for event in read(run / "events.jsonl", "stage.finished")]


def harm(path):
    """Delete a folder, or flip one bit of a file."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 4
        path.write_bytes(data)


STAGES = ["corpus", "tokenizer", "shards", "codes"]


@pytest.fixture
def source(new_run, tmp_path, tiny_text):
    """The run's text as a folder of one's own."""
    folder = tmp_path / "my-text"
    shutil.copytree(tiny_text, folder)
    settings = new_run / "crystalline.toml"
    settings.write_text(settings.read_text().replace(str(tiny_text.resolve()), str(folder)))
    return folder


def test_everything_is_done_once_in_order(new_run, cllm):
    assert cllm("run", new_run)[0] == EXIT_OK
    kinds = [event["kind"] for event in read(new_run / "events.jsonl")]
    assert stages_done(new_run) == STAGES
    assert kinds.count("training.step") == 6
    assert kinds.count("training.checkpoint") == 3
    assert kinds[0] == "run.created"
    assert kinds[-1] == "training.finished"
    # Saved before it is measured, so that nothing in measuring can cost work.
    last = [event["kind"] for event in read(new_run / "events.jsonl") if event.get("step") == 6]
    assert last == [
        "training.step", "training.spheres", "training.checkpoint", "training.evaluation", "training.sample",
        "training.finished",
    ]  # fmt: skip


def test_what_training_starts_with_is_recorded_and_changes_no_weights(new_run, tiny_run, cllm, monkeypatch):
    from crystalline.model.shape import Shape
    from crystalline.run_folder import read_json
    from crystalline.training import hardware

    (started,) = read(tiny_run / "events.jsonl", "training.started")
    assert 1e8 < started["peak_flops"] < 1e15
    assert started["flops_per_token"] == Shape(**read_json(tiny_run / "recipe.json")["shape"]).flops_per_token
    assert started["workers"] == min(12, started["machine"]["cores"])
    assert started["machine"]["torch"]
    monkeypatch.setattr(hardware, "matrix_peak", lambda dtype, device: 1.0)
    assert cllm("run", new_run)[0] == EXIT_OK
    assert cllm("hash", new_run) == cllm("hash", tiny_run)
    assert cllm("hash", new_run, "--log") == cllm("hash", tiny_run, "--log")


def test_a_second_run_says_done_and_touches_nothing(run, cllm):
    before = snapshot(run)
    code, out, err = cllm("run", run)
    assert (code, err) == (EXIT_OK, "")
    assert f"{run} is done already: trained to step 6" in out
    assert snapshot(run) == before


def test_plan_prepares_the_text_and_run_does_not_do_it_again(new_run, cllm):
    assert cllm("plan", new_run)[0] == EXIT_OK
    assert stages_done(new_run) == STAGES
    assert cllm("run", new_run)[0] == EXIT_OK
    assert stages_done(new_run) == STAGES


def test_new_text_before_training_is_read(source, new_run, cllm):
    assert cllm("plan", new_run)[0] == EXIT_OK
    (source / "more.txt").write_text("".join(f"a quite new line of text number {n}\n" for n in range(500)))
    code, _, err = cllm("plan", new_run)
    assert code == EXIT_OK
    assert stages_done(new_run) == STAGES * 2
    assert "from 5 files" in err


def test_another_vocabulary_before_training_repeats_only_what_depends_on_it(new_run, cllm):
    assert cllm("plan", new_run)[0] == EXIT_OK
    assert cllm("plan", new_run, "--set", "tokenizer.vocabulary_size=350")[0] == EXIT_OK
    assert stages_done(new_run) == [*STAGES, "tokenizer", "shards", "codes"]


def test_new_text_after_training_began_is_told_and_the_model_kept(source, new_run, cllm):
    assert cllm("run", new_run)[0] == EXIT_OK
    weights = cllm("hash", new_run)[1]
    (source / "more.txt").write_text("new text " * 1000)
    before = snapshot(new_run)
    code, out, err = cllm("run", new_run)
    assert code == EXIT_OK
    assert "source folder has changed" in err
    assert "make a new run" in err
    assert "done already" in out
    assert snapshot(new_run) == before
    assert cllm("hash", new_run)[1] == weights


def test_a_source_that_is_gone_after_training_began_is_not_needed(source, new_run, cllm):
    assert cllm("run", new_run)[0] == EXIT_OK
    shutil.rmtree(source)
    code, _, err = cllm("run", new_run, "--steps", "8")
    assert code == EXIT_OK, err
    assert "its source cannot be looked at" in err


def test_other_settings_before_the_first_checkpoint_make_another_recipe(new_run, start, cllm):
    with start("run", new_run, "--set", "checkpointing.every_steps=1000", "--steps", "100000"):
        wait_for(lambda: last_step(new_run) >= 2)
    assert not (new_run / "checkpoints").exists()
    assert cllm("run", new_run, "--seed", "3", "--set", "optimizer.name=sgd")[0] == EXIT_OK
    planned = [event["recipe"]["settings"] for event in read(new_run / "events.jsonl", "training.planned")]
    assert [settings["optimizer"]["name"] for settings in planned] == ["muon", "sgd"]


def test_other_settings_after_it_are_refused_and_listed(run, cllm):
    before = snapshot(run)
    flags = ["--seed", "9", "--set", "model.layers=3", "--set", "optimizer.learning_rate=0.5"]
    code, _, err = cllm("run", run, *flags)
    assert code == EXIT_USAGE
    for words in ("training.seed was 0, now 9", "model.layers was 2, now 3", "optimizer.learning_rate was 0.02"):
        assert words in err
    assert "make a new run" in err
    assert snapshot(run) == before
    code, _, err = cllm("run", run, "--size", "8M")
    assert code == EXIT_USAGE
    assert "model.size was 2M, now 8M" in err


def test_settings_that_change_no_weights_may_change(run, cllm):
    flags = ["--set", "checkpointing.keep=5", "--set", "generation.temperature=0.1", "--set", "training.seed=0"]
    assert cllm("run", run, *flags)[0] == EXIT_OK


def test_more_steps_go_on_from_the_end(run, cllm):
    code, _, err = cllm("run", run, "--steps", "8")
    assert code == EXIT_OK
    assert "from 6 to 8 steps" in err
    assert [event["step"] for event in read(run / "events.jsonl", "training.step")] == list(range(1, 9))
    assert "is trained to step 8" in cllm("run", run, "--steps", "8")[1].replace("done already: ", "")


def test_no_more_checkpoints_are_kept_than_asked_for(new_run, cllm):
    assert cllm("run", new_run, "--set", "checkpointing.every_steps=1", "--set", "checkpointing.keep=2")[0] == EXIT_OK
    assert sorted(path.name[-1] for path in (new_run / "checkpoints").iterdir()) == ["5", "6"]


@pytest.mark.parametrize("name", ["corpus", "tokenizer", "shards"])
@pytest.mark.parametrize("deleted", [True, False], ids=["deleted", "damaged"])
def test_a_stage_whose_result_was_harmed_before_training_is_done_again(new_run, cllm, tiny_run, name, deleted):
    assert cllm("plan", new_run)[0] == EXIT_OK
    harm(new_run / name if deleted else max((new_run / name).iterdir(), key=lambda path: path.stat().st_size))
    code, _, err = cllm("run", new_run)
    assert code == EXIT_OK, err
    assert all(damage(new_run / folder) == "" for folder in ("corpus", "tokenizer", "shards"))
    assert cllm("hash", new_run)[1] == cllm("hash", tiny_run)[1]


@pytest.mark.parametrize("name", ["tokenizer/codes.json", "tokenizer", "shards/train-00000.bin", "shards"])
def test_what_was_harmed_after_training_began_is_mended(run, tmp_path, cllm, name):
    """From the checkpoint and the corpus, never from the source: the weights stay those of an undisturbed run."""
    whole = tmp_path / "whole"
    shutil.copytree(run, whole)
    harm(run / name)
    code, _, err = cllm("run", run, "--steps", "8")
    assert code == EXIT_OK
    assert name in err
    assert all(damage(run / folder) == "" for folder in ("tokenizer", "shards"))
    assert cllm("run", whole, "--steps", "8")[0] == EXIT_OK
    assert cllm("hash", run)[1] == cllm("hash", whole)[1]


def test_text_that_is_gone_for_good_after_training_began_is_told(run, cllm):
    harm(run / "shards" / "train-00000.bin")
    harm(run / "corpus" / "train.jsonl")
    code, _, err = cllm("run", run, "--steps", "8")
    assert code == EXIT_DAMAGED
    assert all(words in err for words in ("train-00000.bin", "train.jsonl", "\n  fix: restore"))


def test_python_does_the_same_as_the_command_line(tmp_path, tiny_text, tiny_settings, tiny_run, cllm):
    import crystalline

    made = crystalline.new(tmp_path / "run", [str(tiny_text)], **tiny_settings)
    plan = crystalline.plan(made.root)
    assert plan.recipe.steps == 6
    steps = []
    trainer = crystalline.run(made.root, on_step=lambda trainer, facts: steps.append(facts["step"]))
    assert (trainer.step, steps) == (6, [1, 2, 3, 4, 5, 6])
    assert trainer.parameters.hash() == cllm("hash", tiny_run)[1].strip() == cllm("hash", made.root)[1].strip()
    assert crystalline.evaluate(made.root)["step"] == 6
    model = crystalline.load(made.root)
    assert model.generate("def ", max_tokens=5) == model.generate("def ", max_tokens=5)
