"""The recipe: nothing left open, the same for the same wishes, and not changed unnoticed."""

import json

import pytest
import torch

from crystalline.errors import EXIT_USAGE, UserError
from crystalline.model.shape import SIZES
from crystalline.settings import Checkpointing, Model, Optimizer, Serving, Settings, Training
from crystalline.training import recipe as module
from crystalline.training.recipe import FIXED, Recipe, check_same, settle, steps_for

TEXT = {"tokenizer": "abc", "tokens": 1000, "bytes": 4000}
# What may be absent in a settled recipe: lengths that were made into steps, and wishes that stay open.
STAY_OPEN = {
    ("training", "minutes"),
    ("training", "epochs"),
    ("training", "tokens"),
    ("training", "sample_prompt"),
    ("training", "workers"),  # the weights do not depend on it
    ("checkpointing", "every_steps"),
    ("checkpointing", "keep_every"),
    ("generation", "precision"),  # that of the training, whatever it was
    ("tokenizer", "vocabulary_size"),  # the text decides; shape.vocabulary has it
}


def settled(size="1M", steps=50, **sections) -> Recipe:
    return settle(Settings(**sections), size, 1000, 20, dict(TEXT), steps)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("optimizer", ["muon", "adamw", "sgd"])
def test_nothing_is_left_to_choose(size, optimizer):
    recipe = settled(size, optimizer=Optimizer(name=optimizer))
    is_open = {
        (section, key)
        for section, table in recipe.settings.model_dump(
            exclude={"crawl", "extract", "clean"}
        ).items()  # over before training
        for key, value in table.items()
        if value is None or value == "auto"
    }
    assert is_open == STAY_OPEN
    assert recipe.steps == 50
    assert recipe.settings.training.micro_batch == SIZES[size][4]
    assert recipe.settings.model.size == size
    assert recipe.shape.vocabulary == 1000
    assert recipe.tokens_per_step == 12 * SIZES[size][4] * SIZES[size][3]


def test_what_was_asked_for_is_kept():
    asked = Settings(
        model=Model(layers=3, width=48, heads=2, head_width=16, hidden=64, context=40),
        training=Training(micro_batch=5, precision="fp32", evaluate_every=7, sample_every=9, minutes=3.0),
        optimizer=Optimizer(learning_rate=0.5, embedding_learning_rate=0.25),
    )
    before = asked.model_copy(deep=True)
    recipe = settle(asked, "4M", 1000, 20, dict(TEXT), 60)
    assert asked == before, "the wishes themselves are not changed"
    shape = recipe.shape
    assert (shape.layers, shape.width, shape.heads, shape.head_width, shape.hidden, shape.context) == (
        3, 48, 2, 16, 64, 40,
    )  # fmt: skip
    for section, key in (
        ("model", "layers"), ("model", "hidden"), ("training", "micro_batch"), ("training", "evaluate_every"),
        ("training", "sample_every"), ("optimizer", "learning_rate"), ("optimizer", "embedding_learning_rate"),
    ):  # fmt: skip
        assert getattr(getattr(recipe.settings, section), key) == getattr(getattr(asked, section), key)
    assert recipe.settings.training.minutes is None
    assert recipe.dtype == torch.float32


def test_it_looks_about_ten_times_and_shows_five():
    for steps in (2_000, 100_000):
        training = settled(steps=steps).settings.training
        assert training.evaluate_every == steps // 10
        assert training.sample_every == steps // 5


@pytest.mark.parametrize("steps", [1, 7, 100, 400, 2_000])
def test_evaluations_take_little_of_a_short_run(steps):
    """Predicting a token costs a third of training on it; all but the last evaluation, 3 % of the run."""
    recipe = settled(steps=steps)
    t = recipe.settings.training
    before_the_last = (steps - 1) // t.evaluate_every
    assert before_the_last * t.evaluate_tokens / 3 <= 0.03 * steps * recipe.tokens_per_step
    assert 1 <= t.evaluate_every <= max(1, steps)
    assert t.sample_every >= t.evaluate_every


def test_wider_networks_get_smaller_rates():
    """1 / width above 256 for AdamW's matrices; Muon's update does not depend on the width."""

    def rates(name, width):
        s = settled(model=Model(width=width, heads=4), optimizer=Optimizer(name=name)).settings.optimizer
        return s.learning_rate, s.embedding_learning_rate

    assert rates("adamw", 1024)[0] == pytest.approx(rates("adamw", 256)[0] / 4)
    assert rates("muon", 1024)[0] == rates("muon", 256)[0]
    assert rates("muon", 1024)[1] == pytest.approx(rates("muon", 256)[1] / 2)
    assert rates("adamw", 128) == rates("adamw", 256)


def test_the_same_wishes_give_the_same_recipe_and_json_keeps_it():
    a, b = settled(), settled()
    assert a == b
    assert a != settled(steps=51)
    assert a != settled(training=Training(seed=1))
    text = json.dumps(a.to_json())
    assert text == json.dumps(b.to_json())
    assert Recipe.from_json(json.loads(text)) == a


def test_the_json_says_on_what_machine():
    machine = settled().to_json()["machine"]
    assert machine["torch"] == torch.__version__
    assert machine["capability"] == torch.backends.cpu.get_cpu_capability()
    assert all(isinstance(value, str) for value in machine.values())


# --- going on with other settings ---------------------------------------------------------------------


def test_wishes_that_are_open_or_fulfilled_are_no_contradiction():
    recipe = settled(model=Model(width=64))
    check_same(recipe, Settings())
    check_same(recipe, recipe.settings)
    check_same(recipe, Settings(model=Model(width=64, layers=3), training=Training(micro_batch=4)))
    check_same(recipe, Settings(training=Training(steps=999, minutes=5.0, evaluate_every=3)))


def test_all_contradictions_are_listed():
    wanted = Settings(
        model=Model(width=96, factor_scale=0.0),
        training=Training(seed=5, micro_batch=9, accumulation=2, positions=144, steps=7),
        optimizer=Optimizer(name="sgd", learning_rate=3.0),
        scheduler={"name": "cosine"},
    )
    with pytest.raises(UserError) as caught:
        check_same(settled(), wanted)
    assert caught.value.exit_code == EXIT_USAGE
    listed = {line.split(" was ")[0]: line for line in caught.value.why.split("; ")}
    assert listed.keys() == {
        "model.width", "model.factor_scale", "training.seed", "training.micro_batch", "training.accumulation",
        "training.positions", "optimizer.name", "optimizer.learning_rate", "scheduler.name",
    }  # fmt: skip
    assert listed["training.micro_batch"] == "training.micro_batch was 4, now 9"


def test_every_setting_that_changes_the_weights_is_fixed():
    """Sections that only say when to look, save or speak are free; of the others all, or the free ones named here."""
    free_sections = {
        "corpus",
        "crawl",
        "extract",
        "clean",
        "generation",
        "serving",
    }  # all but the last two: `Recipe.text`
    free = {
        "steps", "tokens", "epochs", "minutes", "patience", "evaluate_every", "evaluate_tokens", "sample_every",
        "sample_prompt", "workers", "tensorboard",
    }  # fmt: skip
    assert set(Settings.model_fields) == free_sections | set(FIXED)
    assert set(Training.model_fields) == free | FIXED["training"]
    keeping = {"every_minutes", "every_steps", "keep", "keep_every", "keep_best"}
    assert set(Checkpointing.model_fields) == keeping | FIXED["checkpointing"]


def test_a_checkpoint_holds_no_keys_of_a_server():
    """It may be given away."""
    recipe = settled(serving=Serving(keys=["secret"]))
    assert "secret" not in str(recipe.to_json())
    assert Recipe.from_json(recipe.to_json()).to_json() == recipe.to_json()


def test_a_rollback_goes_back_a_number_of_steps_that_the_clock_has_no_part_in():
    def steps_between(step_seconds, **checkpointing):
        wanted = Settings(checkpointing=Checkpointing(**checkpointing))
        recipe = settle(wanted, "1M", 1000, 20, dict(TEXT), 500, step_seconds)
        return recipe.settings.checkpointing.rollback_every

    assert steps_between(0.25) == 240, "a minute, as checkpoints by default"
    assert steps_between(0.25, every_minutes=5.0) == 1200
    assert steps_between(1000.0) == 1
    assert steps_between(None) == 50
    assert steps_between(0.25, every_steps=7) == 7
    assert steps_between(0.25, every_steps=7, rollback_every=21) == 21


def test_lengths_are_steps():
    def steps(**training):
        return steps_for(Training(**training), tokens_per_step=1000, text_tokens=50_000)

    assert steps(steps=7, tokens=1, epochs=1.0) == 7
    assert steps(tokens=12_400, epochs=1.0) == 12
    assert steps(epochs=0.5) == 25
    assert steps(tokens=1) == steps(epochs=1e-9) == 1
    assert steps(minutes=3.0) is None


# --- precision ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "capability", "expected"),
    [
        ({"avx512f"}, "AVX512", "fp32"),
        ({"avx512f", "avx512_bf16"}, "AVX512", "bf16"),
        ({"amx_bf16"}, "AVX512", "bf16"),
        ({"asimd", "bf16"}, "SVE256", "bf16"),
        ({"bf16"}, "DEFAULT", "fp32"),
        (set(), "AVX2", "fp32"),
    ],
)
def test_bf16_is_chosen_where_the_processor_has_it(monkeypatch, flags, capability, expected):
    monkeypatch.setattr(module, "_cpu_flags", lambda: flags)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    recipe = settled()
    assert recipe.settings.training.precision == expected
    assert recipe.dtype == {"bf16": torch.bfloat16, "fp32": torch.float32}[expected]
    for asked in ("bf16", "fp32"):
        assert settled(training=Training(precision=asked)).settings.training.precision == asked
