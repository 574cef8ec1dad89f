"""Where positions are computed: the choice of it, and workers that have a device of their own.

No GPU is needed: such a worker is given the processor as its device. All is then as with a GPU (a copy of the weights
there, a sum there, both brought in and out), and the weights must be those of workers that share memory. What only a
GPU can show is in `TestGpu`, which is skipped where there is none.
"""

import logging
import os
import signal
import time

import pytest
import torch
from gpus import A100, H100, T4, machine_with
from small_runs import recipe_of, steps_of, stopping_at, train
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from crystalline import events, processes
from crystalline.errors import EXIT_SYSTEM, EXIT_USAGE, UserError
from crystalline.model import library
from crystalline.pipeline import runner
from crystalline.training import device, node_zero, position, process, watch
from crystalline.training.loop import Trainer
from crystalline.training.optimizers import orthogonalize
from crystalline.training.parameters import WorkingCopy
from crystalline.training.recipe import machine, precision
from crystalline.training.roots import RootFinder

# --- the choice -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 4])
def test_gpus_are_used_when_asked_for(count):
    with machine_with(*[H100] * count):
        assert device.choose("cuda") == "cuda"
        assert device.choose("auto") == "cpu", "until it has run on a GPU"
        assert device.devices("cuda") == [torch.device("cuda", index) for index in range(count)]
        assert device.workers("cuda") == count
        assert device.choose("cpu") == "cpu"
        assert device.devices("cpu") == []
        assert device.workers("cpu") == processes.cores()


def test_without_one_training_is_on_the_processor():
    with machine_with():
        assert device.choose("auto") == "cpu"


@pytest.mark.parametrize("built", [True, False])
def test_a_gpu_that_is_not_there_is_told_with_its_fix(built, monkeypatch, new_run):
    with machine_with():
        monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: built)
        with pytest.raises(UserError, match="nvidia-smi" if built else "CUDA build") as error:
            runner.run(new_run("run").root, {"training.device": "cuda"})
    assert error.value.exit_code == EXIT_USAGE


def test_a_run_that_began_on_gpus_does_not_go_on_without(new_run):
    with machine_with(H100):
        recipe = recipe_of(new_run("run"), training__device="cuda")
    with machine_with(), pytest.raises(UserError, match="could not train on a GPU"):
        Trainer(new_run("other"), recipe)


def test_gpus_are_looked_at_in_another_process():
    """CUDA, once started, does not survive the fork of a worker."""
    here = os.getpid()

    def looking():
        assert os.getpid() != here

    with machine_with(A100, looking=looking):
        assert [gpu.name for gpu in device.gpus()] == ["A100"]


@pytest.mark.parametrize("harm", ["error", "death"])
def test_gpus_that_cannot_be_looked_at_are_told_and_not_used(harm, caplog):
    def looking():
        if harm == "death":
            os.kill(os.getpid(), signal.SIGKILL)
        raise RuntimeError("The NVIDIA driver on your system is too old\nand more")

    with machine_with(A100, looking=looking), caplog.at_level(logging.WARNING, "crystalline"):
        assert device.choose("auto") == "cpu"
    assert [record.getMessage().startswith("GPUs cannot be used: ") for record in caplog.records] == [True]


def test_gpus_of_another_kind_are_left_out(caplog):
    """The next position is for whoever is free: its bits must not depend on who that is."""
    with machine_with(H100, A100, H100), caplog.at_level(logging.WARNING, "crystalline"):
        assert [gpu.index for gpu in device.gpus()] == [0, 2]
    assert "1 GPUs of other kinds than H100 (9.0)" in caplog.text


@pytest.mark.parametrize(
    ("gpus", "rank", "of", "expected"), [(4, 0, 2, [0, 1]), (4, 1, 2, [2, 3]), (2, 1, 3, [0]), (2, 2, 3, [1])]
)
def test_ranks_of_a_machine_share_its_gpus(gpus, rank, of, expected, monkeypatch):
    names = {"RANK": rank + 7, "WORLD_SIZE": 20, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": of}
    for name, value in {"TORCHELASTIC_RUN_ID": "x", **names}.items():
        monkeypatch.setenv(name, str(value))
    with machine_with(*[H100] * gpus):
        assert [gpu.index for gpu in device.gpus()] == expected


@pytest.mark.parametrize(("kind", "expected"), [(T4, "fp16"), (A100, "bf16"), (H100, "bf16")])
def test_the_precision_is_what_the_gpu_multiplies(kind, expected):
    with machine_with(kind):
        assert precision("auto", "cuda") == expected
        assert [precision(asked, "cuda") for asked in ("bf16", "fp16", "fp32")] == ["bf16", "fp16", "fp32"]


def test_the_recipe_says_on_which_kind_of_gpu(new_run):
    run = new_run("run")
    with machine_with(H100, H100):
        settled = recipe_of(run, training__device="cuda").to_json()
        assert settled["settings"]["training"]["device"] == "cuda"
        assert settled["machine"] == {"gpu": "H100 (9.0)", **machine()}
        assert "gpu" not in recipe_of(run, training__device="cpu").to_json()["machine"]


def test_a_gpu_is_prepared_for_the_same_bits_each_time(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)

    def prepared():
        device.prepare(torch.device("cuda", 1))
        return (
            chosen,
            os.environ["CUBLAS_WORKSPACE_CONFIG"],
            torch.are_deterministic_algorithms_enabled()
            and not torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.backends.cuda.cudnn_sdp_enabled(),
            torch.get_float32_matmul_precision(),
        )

    assert process.in_child(prepared) == ([torch.device("cuda", 1)], ":4096:8", True, False, "highest")
    assert not torch.are_deterministic_algorithms_enabled(), "only the worker is changed"


class OnlyOn(TorchDispatchMode):
    """Every operation's tensors must be on this device, unless it copies."""

    def __init__(self, place):
        super().__init__()
        self.place, self.seen = place, 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        if function.overloadpacket == torch.ops.aten._local_scalar_dense:
            return 1  # the device has no numbers; how many factors all tokens have together is asked for
        if function.overloadpacket not in (torch.ops.aten._to_copy, torch.ops.aten.copy_):
            tensors = [x for x in tree_leaves((arguments, keywords)) if isinstance(x, torch.Tensor) and x.dim()]
            assert {x.device for x in tensors} <= {self.place}, f"{function} works on what was left behind"
            self.seen += 1
        return function(*arguments, **(keywords or {}))


# Everything that a network can have.
OPTIONS = {
    "model__phases": ["lattice", "golden", "clock"],
    "model__value_embeddings": True,
    "model__ngram_rows": 1000,
}


@pytest.mark.parametrize("options", [{}, OPTIONS], ids=["plain", "options"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("frugal", [False, True])
def test_everything_that_a_position_needs_is_on_its_device(precision, frugal, options, new_run):
    """PyTorch's device without numbers stands for a GPU."""
    run, meta = new_run("run"), torch.device("meta")
    trainer = Trainer(run, recipe_of(run, training__precision=precision, **options))
    copy = WorkingCopy(trainer.model, trainer.parameters, meta)
    tokens, targets = (torch.from_numpy(x).to(meta) for x in trainer.batches.micro_batch_at(0, 0, 0))
    with OnlyOn(meta) as watching:
        copy.refresh()
        copy.model.loss(tokens, targets, frugal).backward()
        orthogonalize(torch.ones(48, 32, device=meta), trainer.recipe.update_dtype)
        assert watching.seen > 100
        with pytest.raises(AssertionError, match="left behind"):
            _ = copy.model.cosine * trainer.model.cosine
    assert [gradient.device for _, gradient in copy.gradients()] == [meta] * len(trainer.parameters.slots)


@pytest.mark.parametrize("name", ["prefix", "roots", "kernel"])
def test_so_is_what_else_is_minimised(name, new_run):
    run, meta = new_run("run"), torch.device("meta")
    trainer = Trainer(run, recipe_of(run, objective__name=name))
    score = trainer.workspace.objective.at(0).score
    score.to(meta)
    logits = torch.zeros(20, trainer.recipe.shape.vocabulary, device=meta, requires_grad=True)
    with OnlyOn(meta) as watching:
        score(logits, torch.zeros(20, dtype=torch.int64, device=meta)).backward()
    assert watching.seen > 5


# --- workers with a device of their own -------------------------------------------------------------------


@pytest.fixture
def twins(monkeypatch):
    """`twins(2)`: two devices, each of which is the processor, with its own weights and sums."""

    def make(count):
        monkeypatch.setattr(device, "devices", lambda kind: [torch.device("cpu")] * count)

    return make


@pytest.fixture(scope="module")
def expected(_prepared, tmp_path_factory):
    """Hash and step facts of a run in shared memory."""
    return computed(_prepared, tmp_path_factory.mktemp("expected"))


def computed(prepared, folder, **changes):
    import shutil

    from crystalline.run_folder import RunFolder

    run = RunFolder(shutil.copytree(prepared.root, folder / "run"))
    return train(run, **changes).parameters.hash(), steps_of(run)


@pytest.mark.parametrize("workers", [0, 1, 2, 3, 5])
def test_the_weights_and_losses_are_those_of_shared_memory(workers, twins, new_run, expected):
    twins(3)
    run = new_run("run")
    assert train(run, training__workers=workers).parameters.hash() == expected[0]
    assert steps_of(run) == expected[1]


@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_so_it_is_in_16_bits_and_without_kernels(kernels, optimizer, twins, new_run, monkeypatch):
    """On a GPU nothing is done by kernels of the processor."""
    if not kernels:
        monkeypatch.setattr(library, "library", lambda: None)
    changes = {"training__precision": "bf16", "optimizer__name": optimizer, "training__steps": 3}
    shared = train(new_run("shared"), **changes).parameters.hash()
    twins(2)
    for workers in (1, 2):
        assert train(new_run(f"run{workers}"), training__workers=workers, **changes).parameters.hash() == shared


@pytest.mark.parametrize("name", ["prefix", "roots", "kernel"])
def test_so_it_is_with_everything_that_a_network_can_have(name, twins, new_run):
    changes = {**OPTIONS, "objective__name": name, "training__steps": 3}
    shared = train(new_run("shared"), **changes).parameters.hash()
    twins(2)
    assert train(new_run("twins"), training__workers=2, **changes).parameters.hash() == shared


def test_so_it_is_when_the_factors_of_tokens_change(twins, new_run, monkeypatch):
    """Whatever the reason: the second half of the tokens has no factors from then on."""

    def look(roots):
        indices, offsets = roots.codes.bags()
        half = len(offsets) // 2
        offsets[half:] = offsets[half]
        monkeypatch.setattr(roots.codes, "bags", lambda: (indices, offsets))
        roots.use(roots.codes)
        return {"proposed": 0, "changes": []}

    monkeypatch.setattr(RootFinder, "look", look)
    changes = {"training__discover_roots": 1}
    plain, shared = train(new_run("plain")), train(new_run("shared"), **changes)
    assert shared.parameters.hash() != plain.parameters.hash(), "nothing has changed: the test tests nothing"
    twins(2)
    assert train(new_run("twins"), training__workers=2, **changes).parameters.hash() == shared.parameters.hash()


def test_without_a_number_there_is_a_worker_for_each(twins, new_run):
    twins(3)
    run = new_run("run")
    trainer = Trainer(run, recipe_of(run))
    team = trainer.team("auto", lambda: False)
    assert len(team.team) == 3
    team.close()


def test_a_sum_leaves_its_device_once_a_step(twins, new_run, monkeypatch, tmp_path):
    original = node_zero.Sphere.deliver

    def deliver(sphere):
        original(sphere)
        with (tmp_path / "delivered").open("a") as file:
            file.write(f"{sphere.number}\n")

    monkeypatch.setattr(node_zero.Sphere, "deliver", deliver)
    twins(1)
    train(new_run("run"), training__workers=1)
    assert (tmp_path / "delivered").read_text() == "0\n" * 6


def test_another_number_of_workers_goes_on_to_the_same_bits(twins, new_run, expected):
    twins(2)
    run = new_run("run")
    with stopping_at(4) as stop:
        train(run, stop, training__workers=2, checkpointing__every_steps=2)
    assert train(run, training__workers=3).parameters.hash() == expected[0]
    assert steps_of(run) == expected[1]


def eventually(true, seconds):
    """Whether `true()` comes true within so many seconds."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.05)
    return true()


class TestDeath:
    """What was on the device of a worker that dies is gone, and is computed again."""

    def dying(self, monkeypatch, folder, name, moment, when="before"):
        """Make worker 1 die in its `moment`-th call of `name`, once."""
        parent, flag = os.getpid(), folder / "died"
        original, calls = getattr(node_zero.Sphere, name), []

        def die(sphere, *arguments):
            calls.append(1)
            mine = os.getpid() != parent and sphere.number == 1 and len(calls) == moment and not flag.exists()
            result = None if mine and when == "before" else original(sphere, *arguments)
            if mine:
                flag.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        monkeypatch.setattr(node_zero.Sphere, name, die)
        return flag

    @pytest.mark.parametrize("name", ["compute", "deliver", "reduce", "update"])
    @pytest.mark.parametrize(("moment", "when"), [(1, "before"), (2, "before"), (2, "after")])
    def test_in_each_part_of_a_step(self, name, moment, when, twins, new_run, expected, monkeypatch, tmp_path):
        twins(3)
        flag = self.dying(monkeypatch, tmp_path, name, moment, when)
        run = new_run("run")
        assert train(run, training__workers=3).parameters.hash() == expected[0]
        assert flag.exists(), "nobody died: the test tests nothing"
        assert steps_of(run) == expected[1]

    def test_after_its_sum_was_delivered(self, twins, new_run, expected, monkeypatch, tmp_path):
        """It has answered, and dies while another still delivers: its positions are computed and delivered again."""
        compute, deliver = node_zero.Sphere.compute, node_zero.Sphere.deliver
        flag, parent, at = tmp_path / "died", os.getpid(), []

        def slowly(sphere, step, *arguments):
            at[:] = [step]
            time.sleep(0.02)  # both get positions, however busy the machine is
            return compute(sphere, step, *arguments)

        def killing(sphere):
            deliver(sphere)
            if os.getpid() == parent or flag.exists():
                return
            one = tmp_path / f"delivered-{at[0]}"
            if sphere.number == 1:
                one.write_text(str(os.getpid()))
            elif eventually(one.exists, 5):
                time.sleep(0.5)  # until its answer has come
                flag.touch()
                os.kill(int(one.read_text()), signal.SIGKILL)
                time.sleep(0.5)  # until that is noticed

        monkeypatch.setattr(node_zero.Sphere, "compute", slowly)
        monkeypatch.setattr(node_zero.Sphere, "deliver", killing)
        twins(2)
        run = new_run("run")
        assert train(run, training__workers=2).parameters.hash() == expected[0]
        assert flag.exists()
        assert steps_of(run) == expected[1]
        assert [event["at"] for event in events.read(run.events, "training.worker_lost")] == [""]

    def test_hung_while_it_delivers(self, twins, new_run, expected, monkeypatch, tmp_path):
        monkeypatch.setattr(watch, "LEAST_SECONDS", 1.0)
        monkeypatch.setattr(watch, "TIMES", 1)
        original, flag, parent, calls = node_zero.Sphere.deliver, tmp_path / "stopped", os.getpid(), []

        def deliver(sphere):
            calls.append(1)
            if os.getpid() != parent and sphere.number == 1 and len(calls) == 2 and not flag.exists():
                flag.touch()
                os.kill(os.getpid(), signal.SIGSTOP)
            original(sphere)

        monkeypatch.setattr(node_zero.Sphere, "deliver", deliver)
        twins(2)
        assert train(new_run("run"), training__workers=2).parameters.hash() == expected[0]
        assert flag.exists()


class TestMemory:
    """A GPU's memory is its own: first positions with less, then advice."""

    def too_large(self, monkeypatch):
        original = position.compute

        def compute(copy, batches, step, number, targets, total, frugal, *more):
            if not frugal:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return original(copy, batches, step, number, targets, total, frugal, *more)

        monkeypatch.setattr(position, "compute", compute)

    @pytest.mark.parametrize("workers", [0, 1, 3])
    def test_all_workers_stay_and_compute_with_less(self, workers, twins, new_run, expected, monkeypatch):
        self.too_large(monkeypatch)
        twins(3)
        run = new_run("run")
        assert train(run, training__workers=workers).parameters.hash() == expected[0]
        assert len(list(events.read(run.events, "training.frugal"))) == (1 if workers else 0)
        assert list(events.read(run.events, "training.workers")) == [], "none is missing"

    def test_where_several_share_one_there_are_fewer_first(self, twins, new_run, expected, monkeypatch):
        self.too_large(monkeypatch)
        twins(1)
        run = new_run("run")
        assert train(run, training__workers=3).parameters.hash() == expected[0]
        changes = list(events.read(run.events, "training.workers"))
        assert [(e["before"], e["after"], e["why"]) for e in changes] == [(3, 2, "memory"), (2, 1, "memory")]

    @pytest.mark.parametrize("workers", [0, 2])
    def test_in_the_end_there_is_advice(self, workers, twins, new_run, monkeypatch):
        def compute(*_):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

        monkeypatch.setattr(position, "compute", compute)
        twins(2)
        with pytest.raises(UserError, match=r"half the training.micro_batch") as error:
            train(new_run("run"), training__workers=workers)
        assert error.value.exit_code == EXIT_SYSTEM

    def test_so_it_is_where_not_even_the_weights_have_room(self, twins, new_run, monkeypatch):
        def prepare(_):
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")

        monkeypatch.setattr(device, "prepare", prepare)
        twins(2)
        with pytest.raises(UserError, match=r"half the training.micro_batch"):
            train(new_run("run"), training__workers=2)


def test_a_device_that_does_not_start_ends_the_run_with_advice(twins, new_run, monkeypatch):
    def busy(_):
        raise RuntimeError("CUDA error: CUDA-capable device(s) is/are busy or unavailable\nCompile with ...")

    prepare = device.prepare
    monkeypatch.setattr(device, "prepare", lambda _: prepare(torch.device("cuda", 1)))
    monkeypatch.setattr(torch.cuda, "set_device", busy)
    twins(2)
    with pytest.raises(UserError, match=r"(?s)could not train on cuda:1.*busy or unavailable\n.*nvidia-smi"):
        train(new_run("run"), training__workers=2)


# --- fp16 -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_fp16_gives_the_same_bits_for_any_workers_and_learns(optimizer, twins, new_run):
    changes = {"training__precision": "fp16", "optimizer__name": optimizer}
    run = new_run("run")
    trained = train(run, **changes).parameters.hash()
    assert trained == train(new_run("two"), training__workers=2, **changes).parameters.hash()
    twins(2)
    assert trained == train(new_run("twins"), training__workers=2, **changes).parameters.hash()
    other = new_run("fp32")
    train(other, **{**changes, "training__precision": "fp32"})
    losses, exact = ([facts["loss"] for facts in steps_of(r).values()] for r in (run, other))
    assert losses == pytest.approx(exact, rel=2e-3)


# --- on a GPU ---------------------------------------------------------------------------------------------


@pytest.mark.skipif(not device.gpus(), reason="there is no GPU")
class TestGpu:
    """What the twin cannot show: that a GPU gives the same bits each time."""

    def trained(self, run, workers=1, on_step=lambda facts: None, **changes):
        return train(run, on_step, training__device="cuda", training__workers=workers, **changes).parameters.hash()

    @pytest.mark.parametrize("precision", ["auto", "fp16", "fp32"])
    @pytest.mark.parametrize("optimizer", ["muon", "adamw"])
    def test_the_same_bits_again_and_with_more_workers(self, precision, optimizer, new_run):
        changes = {"training__precision": precision, "optimizer__name": optimizer, "training__micro_batch": 2}
        hashes = {self.trained(new_run(f"run{n}-{again}"), n, **changes) for n in (1, 3) for again in "ab"}
        assert len(hashes) == 1

    def test_a_larger_network_too(self, new_run):
        """With heads and products as they are in earnest: other kernels than for tiny ones."""
        changes = {"model__width": 512, "model__heads": 8, "model__kv_heads": 4, "model__context": 256}
        changes |= {"training__micro_batch": 4, "training__steps": 3, "training__precision": "auto"}
        assert len({self.trained(new_run(f"run{again}"), **changes) for again in "abc"}) == 1

    def test_resuming_and_deaths_change_nothing(self, new_run, monkeypatch, tmp_path):
        expected = self.trained(new_run("expected"))
        run = new_run("run")
        with stopping_at(4) as stop:
            self.trained(run, 2, stop, checkpointing__every_steps=2)
        flag = TestDeath().dying(monkeypatch, tmp_path, "compute", 2)
        assert self.trained(run, 2) == expected
        assert flag.exists()

    def test_less_memory_gives_the_same_bits(self, new_run, monkeypatch):
        expected = self.trained(new_run("expected"))
        TestMemory().too_large(monkeypatch)
        assert self.trained(new_run("run")) == expected

    def test_the_losses_are_those_of_the_processor(self, new_run):
        losses = []
        for where in ("cpu", "cuda"):
            run = new_run(where)
            train(run, training__device=where, training__workers=1)
            losses.append([facts["loss"] for facts in steps_of(run).values()])
        assert losses[1] == pytest.approx(losses[0], rel=1e-4)

    def test_a_plan_is_measured_and_keeps_its_word(self, new_run):
        made = runner.plan(new_run("run").root, {"training.device": "cuda", "training.precision": "auto"})
        assert made.gpu_memory > 0
        assert made.step_seconds > 0
        assert not torch.cuda.is_initialized(), "workers could not be forked any more"
