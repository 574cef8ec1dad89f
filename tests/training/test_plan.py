"""The plan: lengths made into steps, and figures for memory and time that a real run confirms."""

import contextlib
import multiprocessing
import os
import shutil
import threading
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from gpus import H100, T4, machine_with
from small_runs import SMALL, made_up_text, prepared_run, recipe_of, steps_of, train

from crystalline import events
from crystalline.model.shape import SIZES, shape_of
from crystalline.run_folder import RunFolder
from crystalline.settings import Model, Settings, Training
from crystalline.training import plan as module
from crystalline.training.plan import OVERHEAD, TextFacts, Timing, make_plan

TEXT = TextFacts(tokens=2_000_000, bytes=6_000_000, vocabulary=1000, factors=20, identity={"tokens": 1})
TIMING = Timing(sequence_seconds=0.01, step_seconds=0.02)  # one step of 12 sequences: 0.14 s


@pytest.fixture
def planned(monkeypatch):
    """`planned(steps=5, ...)`: a plan for a machine on which a sequence takes 10 ms, whatever the network."""
    probed = []

    def probe(settings, shape, micro_batch, seconds=2.0):
        probed.append(shape)
        return TIMING

    monkeypatch.setattr(module, "probe", probe)

    def make(text=TEXT, size="1M", workers=1, **training):
        training["workers"] = workers
        return make_plan(Settings(model=Model(size=size), training=Training(**training)), text)

    make.probed = probed
    return make


# --- length -------------------------------------------------------------------------------------------


def test_steps_are_steps(planned):
    plan = planned(steps=7)
    assert plan.recipe.steps == 7
    assert plan.recipe.settings.training.micro_batch == SIZES["1M"][4], "the batch is not made smaller for them"


@pytest.mark.parametrize("epochs", [0.5, 3.0, 40.0])
def test_epochs_are_passes_over_the_text(planned, epochs):
    plan = planned(epochs=epochs)
    assert plan.epochs == pytest.approx(epochs, rel=0.01)
    assert plan.tokens == plan.recipe.steps * plan.recipe.tokens_per_step


@pytest.mark.parametrize("minutes", [2.0, 30.0])
def test_minutes_are_kept(planned, minutes):
    plan = planned(minutes=minutes)
    assert plan.seconds == pytest.approx(minutes * 60, rel=0.01)
    assert plan.step_seconds == pytest.approx(0.02 + 12 * plan.recipe.settings.training.micro_batch * 0.01)
    assert plan.seconds == pytest.approx(plan.recipe.steps * plan.step_seconds * OVERHEAD)


def test_what_was_set_comes_first(planned):
    """Steps before passes before minutes."""
    assert planned(steps=3, tokens=9, epochs=2.0, minutes=9.0).recipe.steps == 3
    assert planned(tokens=2_000_000, epochs=7.0, minutes=9.0).tokens == pytest.approx(2_000_000, rel=0.01)
    assert planned(epochs=2.0, minutes=9.0).recipe.steps == planned(epochs=2.0).recipe.steps


def test_without_a_wish_it_takes_five_minutes_or_ten_passes(planned):
    assert planned().seconds == pytest.approx(300, rel=0.01)
    small = planned(replace(TEXT, tokens=20_000))
    assert small.epochs == pytest.approx(10, rel=0.05)
    assert small.seconds < 60
    assert planned(replace(TEXT, tokens=20_000), minutes=5.0).seconds == pytest.approx(300, rel=0.01)


def test_short_runs_take_smaller_steps(planned):
    """A few large steps learn less than many small ones."""
    chosen = {minutes: planned(minutes=minutes) for minutes in (0.5, 2.0, 3.0, 20.0)}
    batches = {minutes: plan.recipe.settings.training.micro_batch for minutes, plan in chosen.items()}
    assert batches == {0.5: 1, 2.0: 2, 3.0: 2, 20.0: 4}
    for minutes, plan in chosen.items():
        assert plan.recipe.steps >= module.WANTED_STEPS or batches[minutes] == 1
        assert plan.seconds <= 60 * minutes
    assert planned(minutes=0.5, micro_batch=3).recipe.settings.training.micro_batch == 3, "asked for is asked for"
    assert planned(minutes=1e-6).recipe.steps == 1


def test_positions_and_accumulation_count(planned):
    coarse = planned(steps=10)
    for finer in (planned(steps=10, positions=144), planned(steps=10, accumulation=12)):
        assert finer.recipe.tokens_per_step == 12 * coarse.recipe.tokens_per_step
        assert finer.step_seconds - 0.02 == pytest.approx(12 * (coarse.step_seconds - 0.02))


# --- size and expectation -----------------------------------------------------------------------------


def test_longer_runs_get_larger_networks(monkeypatch):
    """On a machine that does a fixed number of operations a second."""

    def probe(settings, shape, micro_batch, seconds=2.0):
        return Timing(shape.context * shape.flops_per_token / 5e10, 0.02)

    monkeypatch.setattr(module, "probe", probe)
    text = replace(TEXT, tokens=500_000_000, bytes=2_000_000_000)
    chosen = [
        make_plan(Settings(training=Training(minutes=minutes)), text).recipe.shape.block_parameters
        for minutes in (0.1, 5, 60, 2000)
    ]
    assert chosen == sorted(chosen)
    assert chosen[0] < chosen[-1]
    one = make_plan(Settings(training=Training(steps=10)), text)
    assert one.recipe.settings.model.size == "2M", "steps say nothing of time"


def test_a_size_that_is_asked_for_is_probed_once(planned):
    plan = planned(size="8M")
    assert plan.recipe.settings.model.size == "8M"
    assert planned.probed == [plan.recipe.shape]


def test_the_curve_falls():
    """With more tokens, with a larger network; and passes over the same text are worth less than new text."""
    bits = module.curve
    assert bits(10**6, 10**7, 10**9) < bits(10**6, 10**6, 10**9)
    assert bits(10**7, 10**7, 10**9) < bits(10**6, 10**7, 10**9)
    assert bits(10**6, 10**7, 10**7) < bits(10**6, 10**7, 10**6) < bits(10**6, 10**6, 10**6)
    shape = shape_of(Model(), "1M", 1000)
    low, high = module.expected_bits_per_byte(shape, 10**6, TEXT)
    assert low < bits(shape.block_parameters, 10**6, TEXT.tokens) < high
    assert module.expected_bits_per_byte(shape, 99_999, TEXT) is None


# --- a real run confirms the figures ------------------------------------------------------------------


def bytes_of(process, name, file="status"):
    """A number of /proc. VmHWM is the most memory that a process ever had; unlike ru_maxrss it is not inherited."""
    lines = Path(f"/proc/{process}/{file}").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


def peak_of_team():
    """The peaks of this process and its children, what they share counted once (Pss does so)."""
    children = (path.read_text().split() for path in Path("/proc/self/task").glob("*/children"))
    total = 0
    for p in (os.getpid(), *(int(child) for pids in children for child in pids)):
        with contextlib.suppress(OSError, StopIteration):  # the scribe comes and goes
            total += bytes_of(p, "Pss:", "smaps_rollup") + bytes_of(p, "VmHWM") - bytes_of(p, "VmRSS")
    return total


@contextlib.contextmanager
def watching(peaks):
    """Look at the memory of all processes again and again."""
    done = threading.Event()

    def look():
        while not done.wait(0.01):
            peaks.append(peak_of_team())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def measured(root, changes):
    """(peak bytes, planned bytes, seconds of a step, planned seconds) of a run. In a process of its own."""
    run = RunFolder(root)
    peaks = []
    with watching(peaks):  # and not later: the plan's probe takes memory too
        made = train(run, **changes)
    peak = max(peaks)
    seconds = [event["seconds"] for event in events.read(run.events, "training.step")]
    settings = made.recipe.settings.model_copy(deep=True)
    text = TextFacts(1, 1, made.recipe.shape.vocabulary, made.recipe.shape.factors, {})
    plan = make_plan(settings, text)
    return peak, plan.memory, min(seconds), plan.step_seconds


@pytest.fixture(scope="session")
def many_words(tmp_path_factory):
    """A run with a vocabulary of 4,096 tokens, of the size that its settings ask for."""
    sizes = dict.fromkeys([name for name in SMALL if name.startswith("model.")], "auto")
    texts = [made_up_text(6000, vocabulary=3000, seed=seed) for seed in range(10)]
    asked = {**sizes, "tokenizer.vocabulary_size": 4096, "training.micro_batch": "auto"}
    return prepared_run(tmp_path_factory.mktemp("words"), texts, **asked)


def in_own_process(function, *arguments):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from Linux's /proc")
@pytest.mark.parametrize(
    ("size", "changes"),
    [
        ("1M", {}),
        ("2M", {"training__precision": "bf16"}),
        pytest.param("4M", {"training__micro_batch": 1, "optimizer__name": "adamw"}, marks=pytest.mark.slow),
        pytest.param("2M", {"training__workers": 2}, marks=pytest.mark.slow),
    ],
)
def test_memory_and_time_are_as_planned(many_words, tmp_path, size, changes):
    root = shutil.copytree(many_words.root, tmp_path / "run")
    # After two steps that nothing disturbs the scribe works beside the others: more memory is in use then.
    looking = {"training__evaluate_every": 2, "training__sample_every": 2, "checkpointing__every_steps": 2}
    asked = {"model__size": size, "training__steps": 4, "training__evaluate_tokens": 4096, **looking, **changes}
    peak, memory, seconds, step_seconds = in_own_process(measured, root, asked)
    assert memory == pytest.approx(peak, rel=0.2)
    # Loose: other programs on the machine may take half of it at any time.
    assert step_seconds / 2 < seconds < step_seconds * 2


def growth(root):
    """(bytes in use after 100 steps, after 2,000)."""
    sizes = {}

    def look(facts):
        sizes[facts["step"]] = bytes_of(os.getpid(), "VmRSS")

    train(RunFolder(root), look, training__steps=2000, training__evaluate_every=50, checkpointing__every_steps=100)
    return sizes[100], sizes[2000]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="read from Linux's /proc")
def test_a_long_run_does_not_grow(new_run):
    early, late = in_own_process(growth, new_run("run").root)
    assert late <= 1.05 * early


def test_a_plan_is_what_is_trained(new_run):
    run = new_run("run")
    recipe = recipe_of(run, training__steps=2)
    train(run, training__steps=2)
    places = 2 * recipe.tokens_per_step
    assert places * 0.98 < steps_of(run)[2]["tokens"] <= places


# --- on GPUs ------------------------------------------------------------------------------------------


def test_a_plan_for_gpus_has_a_worker_for_each_and_is_made_in_another_process(planned, monkeypatch):
    probe, here = module.probe, os.getpid()

    def elsewhere(*arguments, **more):
        assert os.getpid() != here, "CUDA, once started, does not survive the fork of a worker"
        return probe(*arguments, **more)

    with machine_with(*[H100] * 4):
        monkeypatch.setattr(module, "probe", elsewhere)
        four = planned(steps=10, workers=None, device="cuda")
        one = planned(steps=10, workers=1, device="cuda")
        assert four.recipe.device == "cuda"
        assert four.recipe.settings.training.precision == "bf16"
        assert four.step_seconds < one.step_seconds / 3
        assert four.gpu_memory == one.gpu_memory > 0
        assert planned(steps=10, workers=8, device="cuda").gpu_memory == 2 * four.gpu_memory, "two share each"
        monkeypatch.setattr(module, "probe", probe)
        plain = planned(steps=10)
        assert plain.gpu_memory is None
        assert one.memory < plain.memory, "what a GPU holds is not in the machine's memory"
    with machine_with(T4):
        assert planned(steps=10, device="cuda").recipe.settings.training.precision == "fp16"


def test_a_plan_for_gpus_says_that_their_memory_was_not_measured(planned):
    from crystalline.cli import common

    with machine_with(H100):
        text = common.plan_text(planned(steps=10, device="cuda"))
    assert "gpu         1 of H100 (9.0), 80 GB each, " in text
    assert "(counted, not yet measured)" in text
    assert "gpu" not in common.plan_text(planned(steps=10))
