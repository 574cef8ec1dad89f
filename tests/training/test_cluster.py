"""Several processes and machines under torchrun: the weights and the loss log of a single process, to the bit."""

import contextlib
import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
import torch.distributed as dist
from small_runs import checkpoint_names, made_up_text, prepared_run, recipe_of, steps_of
from torchrun import Torchrun, at, children, free_port, kill

from commands import last_step, wait_for
from crystalline import __version__, events
from crystalline.cli.main import main
from crystalline.errors import EXIT_FAILED, EXIT_OK, EXIT_SYSTEM, UserError
from crystalline.pipeline.status import status
from crystalline.run_folder import RunFolder, damage
from crystalline.training import cluster, commands, link
from crystalline.training.link import Link, Lost, Ranks
from crystalline.training.memory import Field, SharedMemory
from crystalline.training.recipe import machine

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
STEPS = 60
FLAGS = ("--workers=1", "--set=checkpointing.every_steps=1000")


def hashes(cllm, run):
    """(of the weights, of the loss log)"""
    return cllm("hash", run.root)[1], cllm("hash", run.root, "--log")[1]


def single(run, *flags):
    assert main(["run", str(run.root), "-q", *FLAGS, *flags]) == EXIT_OK
    return run


def copy_for(factory, prepared, name):
    return RunFolder(shutil.copytree(prepared.root, factory.mktemp(name) / "run"))


@pytest.fixture(scope="module")
def short(_prepared, tmp_path_factory):
    """A single process's run of 6 steps."""
    return single(copy_for(tmp_path_factory, _prepared, "short"))


@pytest.fixture(scope="module")
def long(_prepared, tmp_path_factory):
    """A single process's run of STEPS steps."""
    return single(copy_for(tmp_path_factory, _prepared, "long"), f"--steps={STEPS}")


@pytest.fixture
def torchrun(tmp_path):
    """Starts torchrun in the test's folder."""
    with contextlib.ExitStack() as stack:
        yield lambda *words, **more: stack.enter_context(Torchrun(*words, **{"folder": tmp_path, **more}))


@pytest.fixture
def training(torchrun, new_run):
    """`run, command = training()`: two ranks in the middle of a run of STEPS steps."""

    def start(*flags, **more):
        run = new_run("run")
        command = torchrun("run", run.root, *FLAGS, f"--steps={STEPS}", *flags, **more)
        wait_for(lambda: last_step(run.root) >= 5 or command.process.poll() is not None, 300)
        assert command.process.poll() is None, command.wait()[1]
        command.look()
        return run, command

    return start


# --- the same bits ----------------------------------------------------------------------------------------


def test_two_ranks_give_the_weights_and_losses_of_one_process(torchrun, new_run, short, cllm):
    run = new_run("run")
    code, output = torchrun("run", run.root, *FLAGS).wait()
    assert code == EXIT_OK, output
    assert hashes(cllm, run) == hashes(cllm, short)
    assert steps_of(run) == steps_of(short)
    assert output.count("is trained to step 6") == output.count("training from step 0 to 6") == 1
    assert [file.name for file in run.root.iterdir() if file.name.startswith(".")] == []
    assert status(run.root)["state"] == "done"
    code, output = torchrun("run", run.root, *FLAGS).wait()  # and again: nothing to do, and all say so
    assert code == EXIT_OK, output
    assert output.count("is done already") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ranks", "flags"),
    [(3, ["--workers=1"]), (2, ["--workers=2"]), (2, ["--workers=0"]), (2, ["--set=training.precision=bf16"])],
)
def test_so_do_other_numbers_of_ranks_and_workers(ranks, flags, torchrun, new_run, cllm):
    alone, run = new_run("alone"), new_run("run")
    single(alone, *flags)
    code, output = torchrun("run", run.root, *FLAGS, *flags, ranks=ranks).wait()
    assert code == EXIT_OK, output
    assert hashes(cllm, run) == hashes(cllm, alone)


@pytest.mark.slow
def test_so_do_144_positions(torchrun, new_run, cllm):
    flags = ("--set=training.positions=144", "--steps=3")
    runs = [single(new_run("alone"), *flags)]
    for ranks in (2, 3):
        runs.append(new_run(f"run{ranks}"))
        code, output = torchrun("run", runs[-1].root, *FLAGS, *flags, ranks=ranks).wait()
        assert code == EXIT_OK, output
    assert len({hashes(cllm, run) for run in runs}) == 1


@pytest.mark.parametrize("workers", [[1], [1, 1], [1, 1, 1], [3, 1, 2], [1] * 12, [1] * 20, [8, 1, 96, 4]])
@pytest.mark.parametrize("positions", [12, 144])
def test_every_position_is_computed_by_one_rank(positions, workers):
    shares = [cluster.share(positions, workers, rank) for rank in range(len(workers))]
    assert [place for share in shares for place in share] == list(range(positions))
    for share, count in zip(shares, workers, strict=True):
        assert abs(len(share) - positions * count / sum(workers)) < 1


# --- several machines -------------------------------------------------------------------------------------


@pytest.fixture
def two_machines(tmp_path):
    """Two folders without a run in common, each with the documents and a run of its own that has read nothing."""

    def make(*texts):
        places = []
        for number, words in enumerate(texts):
            place = tmp_path / f"machine{number}"
            (place / "documents").mkdir(parents=True)
            for seed in range(12):
                (place / "documents" / f"{seed:02}.txt").write_text(made_up_text(words, seed=seed))
            run = prepared_run(place / "like")  # its settings
            RunFolder.create(
                place / "run", run.settings.read_text().replace(f"{place}/like/source", f"{place}/documents")
            )
            places.append(place)
        return places

    return make


def on_both(torchrun, places, *flags):
    port = free_port()
    return [
        torchrun("run", "run", *FLAGS, *flags, folder=place, options=at("127.0.0.1", port, node, 2), ranks=1)
        for node, place in enumerate(places)
    ]


def test_two_machines_with_folders_of_their_own(torchrun, two_machines, cllm):
    places = two_machines(250, 250)
    runs = [RunFolder(place / "run") for place in places]
    for command in on_both(torchrun, places):
        code, output = command.wait()
        assert code == EXIT_OK, output
    alone = RunFolder(shutil.copytree(places[0] / "run", places[0] / "alone"))
    shutil.rmtree(alone.checkpoints)
    alone.events.unlink()
    alone.recipe.unlink()
    assert hashes(cllm, runs[0]) == hashes(cllm, single(alone))
    assert damage(runs[1].shards) == ""
    assert not runs[1].checkpoints.exists()


@pytest.mark.slow
def test_the_machine_with_the_checkpoints_must_be_rank_0(torchrun, two_machines):
    """Another one must not begin again as if nothing had happened."""
    places = two_machines(250, 250)
    for command in on_both(torchrun, places):
        assert command.wait()[0] == EXIT_OK
    for command in on_both(torchrun, places[::-1], "--steps=8"):
        code, output = command.wait()
        assert code == EXIT_FAILED
        assert "rank 0 is at step 0, but rank 1 has a checkpoint of step 6" in output
    for command in on_both(torchrun, places, "--steps=8"):
        code, output = command.wait()
        assert code == EXIT_OK, output
    assert last_step(places[0] / "run") == 8


@pytest.mark.slow
def test_two_machines_with_other_texts_are_refused(torchrun, two_machines):
    places = two_machines(250, 251)
    for command in on_both(torchrun, places):
        code, output = command.wait()
        assert code == EXIT_FAILED
        assert "ranks 1 have prepared another text" in output
        assert "\n  fix: give all machines the same documents" in output
    assert last_step(places[0] / "run") == 0


class Everybody:
    """A link to another rank that says of itself what this one does, but for `other`."""

    ranks = Ranks(0, 2, 0, 1)

    def __init__(self, **other):
        self.other = other

    def say(self, words):
        return words

    def collect(self, words):
        return [words, words and {**words, **self.other}]


def test_another_text_is_refused(new_run):
    run = new_run("run")
    with pytest.raises(UserError, match="ranks 1 have prepared another text"):
        cluster.Meeting(run, Everybody(text="another")).agree(recipe_of(run))


def test_a_newer_checkpoint_elsewhere_is_refused(new_run):
    run = new_run("run")
    with pytest.raises(UserError, match="rank 0 is at step 3, but rank 1 has a checkpoint of step 4"):
        cluster.Meeting(run, Everybody(step=4)).agree(recipe_of(run), 3)
    assert cluster.Meeting(run, Everybody(step=3)).agree(recipe_of(run), 3)[1] == 3


def test_another_processor_is_told_of(new_run, caplog, propagating):
    """The bits may then be others, and nobody shall search for the reason."""
    run = new_run("run")
    other = {**machine(), "crystalline": __version__, "processor": "abacus"}
    assert cluster.Meeting(run, Everybody(machine=other)).agree(recipe_of(run), 3)[0].steps == 6
    assert "rank 1 differs from rank 0 (processor: abacus, not" in caplog.text
    assert "torch" not in caplog.text


@pytest.fixture
def propagating(monkeypatch):
    """The command line keeps log records for itself; here they go to caplog."""
    monkeypatch.setattr(logging.getLogger("crystalline"), "propagate", True)


@pytest.fixture
def namespaces():
    """Names of three network namespaces on a bridge: 10.77.N.1, .2 and .3 on their device `veth`."""
    if shutil.which("ip") is None:
        pytest.skip("there is no program 'ip' (Debian: iproute2)")
    mark = f"cl{os.getpid() % 100_000}"
    names = [f"{mark}n{i}" for i in range(3)]

    def ip(*words, check=True):
        return subprocess.run(["ip", *words], check=check, capture_output=True, text=True)

    if ip("netns", "add", names[0], check=False).returncode:
        pytest.skip("network namespaces are not allowed here (they need root)")
    try:
        ip("link", "add", mark, "type", "bridge")
        ip("link", "set", mark, "up")
        for i, name in enumerate(names):
            if i:
                ip("netns", "add", name)
            ip("link", "add", f"{mark}v{i}", "type", "veth", "peer", "name", "veth", "netns", name)
            ip("link", "set", f"{mark}v{i}", "master", mark, "up")
            for words in (["addr", "add", f"10.77.0.{i + 1}/24", "dev", "veth"], ["link", "set", "veth", "up"]):
                ip("-n", name, *words)
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            ip("netns", "del", name, check=False)
        ip("link", "del", mark, check=False)


@pytest.mark.slow
def test_three_machines_on_a_network(namespaces, torchrun, new_run, short, cllm):
    """Three network stacks that have nothing in common but a bridge."""
    run = new_run("run")
    commands = [
        torchrun(
            "run",
            run.root,
            *FLAGS,
            options=at("10.77.0.1", 29400, node, 3),
            ranks=1,
            prefix=("ip", "netns", "exec", name),
            environment={"GLOO_SOCKET_IFNAME": "veth"},
        )
        for node, name in enumerate(namespaces)
    ]
    for command in commands:
        code, output = command.wait()
        assert code == EXIT_OK, output
    assert hashes(cllm, run) == hashes(cllm, short)


# --- however it ends --------------------------------------------------------------------------------------


def continues(run, cllm, long, torchrun=None):
    """The same command goes on to the bits of a run that was left alone: a single process, or several."""
    if torchrun is None:
        single(run, f"--steps={STEPS}")
    else:
        code, output = torchrun("run", run.root, *FLAGS, f"--steps={STEPS}").wait()
        assert code == EXIT_OK, output
    assert hashes(cllm, run) == hashes(cllm, long)
    steps_of(run)


def test_ctrl_c_saves_and_ends_all_at_one_step(training, torchrun, long, cllm):
    run, command = training()
    command.process.send_signal(signal.SIGINT)
    _, output = command.wait()
    step = last_step(run.root)
    assert 5 <= step < STEPS
    assert checkpoint_names(run) == [f"step-{step:08}"]
    assert output.count(f"stopped: step {step} is saved; the same command continues") == 1
    assert "training stopped" not in output, "no rank may take it for a failure"
    continues(run, cllm, long, torchrun)


@pytest.mark.slow
@pytest.mark.parametrize("paused", [False, True])
def test_a_signal_to_any_rank_stops_all(paused, training, long, cllm):
    run, command = training()
    if paused:
        commands.send(run, "pause")
        wait_for(lambda: status(run.root)["state"] == "paused")
    kill(command.ranks()[1], signal.SIGTERM)
    code, output = command.wait()
    assert code == EXIT_OK, output  # else torchrun would start it again
    assert f"stopped: step {last_step(run.root)} is saved" in output
    continues(run, cllm, long)


@pytest.mark.slow
def test_orders_reach_all_ranks(training, long, cllm):
    run, command = training()
    workers = sum(len(children(rank)) for rank in command.ranks())
    commands.send(run, "workers", count=2)
    wait_for(lambda: sum(len(children(rank)) for rank in command.ranks()) == workers + 2)
    commands.send(run, "checkpoint")
    wait_for(lambda: checkpoint_names(run))
    command.look()
    commands.send(run, "stop")
    code, output = command.wait()
    assert code == EXIT_OK, output
    assert "is saved; the same command continues" in output
    continues(run, cllm, long)


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_killed_rank_ends_all_and_the_same_command_continues(rank, training, torchrun, long, cllm):
    run, command = training()
    kill(command.ranks()[rank], signal.SIGKILL)
    code, output = command.wait()
    assert code != EXIT_OK
    assert "training stopped: a process on this or another machine is gone" in output
    assert "crystalline/pipeline" not in output, "a traceback of ours, and not only torchrun's own"
    if rank == 1:  # rank 0 had everything, and has saved it
        assert checkpoint_names(run) == [f"step-{last_step(run.root):08}"]
    continues(run, cllm, long, torchrun if rank else None)


def test_a_killed_worker_is_replaced(training, long, cllm):
    run, command = training()
    _messenger, worker = children(command.ranks()[1])
    kill(worker, signal.SIGKILL)
    code, output = command.wait()
    assert code == EXIT_OK, output
    assert "worker 0 died" in output
    assert hashes(cllm, run) == hashes(cllm, long)


@pytest.mark.slow
def test_a_killed_messenger_ends_all(training, long, cllm):
    run, command = training()
    kill(children(command.ranks()[1])[0], signal.SIGKILL)
    code, output = command.wait()
    assert code != EXIT_OK
    assert "the process that speaks with the others was killed" in output
    continues(run, cllm, long)


@pytest.mark.slow
def test_killed_torchrun_leaves_nothing_behind(training, long, cllm):
    run, command = training()
    kill(command.process.pid, signal.SIGKILL)
    command.wait()
    assert checkpoint_names(run) == [f"step-{last_step(run.root):08}"]
    continues(run, cllm, long)


@pytest.mark.slow
def test_torchrun_starts_again_by_itself(training, long, cllm):
    run, command = training(options=("--standalone", "--max-restarts=1"))
    kill(command.ranks()[1], signal.SIGKILL)
    code, output = command.wait()
    assert code == EXIT_OK, output
    assert len(list(events.read(run.events, "training.started"))) == 2
    assert hashes(cllm, run) == hashes(cllm, long)


@pytest.mark.slow
def test_from_one_process_to_several_and_back(torchrun, new_run, cllm):
    alone, run = new_run("alone"), new_run("run")
    for steps, ranks in ((4, 1), (8, 2), (12, 3), (16, 1)):
        single(alone, f"--steps={steps}")
        if ranks == 1:
            single(run, f"--steps={steps}")
        else:
            code, output = torchrun("run", run.root, *FLAGS, f"--steps={steps}", ranks=ranks).wait()
            assert code == EXIT_OK, output
    assert hashes(cllm, run) == hashes(cllm, alone)


# --- the link ---------------------------------------------------------------------------------------------


def together(size, work, patience=20.0):
    """The results of `work(link, tensors)` in `size` processes; an exception is a result too."""
    context = multiprocessing.get_context("fork")
    port, results = free_port(), context.SimpleQueue()

    def host():
        store = dist.TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
        assert store
        time.sleep(600)

    def rank(number):
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        memory = SharedMemory([Field("numbers", (100_000,), torch.int64)])
        connection = Link(Ranks(number, size, number, size), {"numbers": memory["numbers"]}, patience=patience)
        try:
            results.put((number, work(connection, memory["numbers"])))
            connection.leave()
        except BaseException as error:
            results.put((number, error))
        finally:
            connection.close()

    processes = [context.Process(target=target, daemon=True) for target in [host]]
    processes += [context.Process(target=rank, args=(number,)) for number in range(size)]
    for process in processes:
        process.start()
    try:
        return [result for _, result in sorted((results.get() for _ in range(size)), key=lambda pair: pair[0])]
    finally:
        for process in processes:
            process.kill()
            process.join()


def test_words_and_numbers_go_round():
    def work(connection, numbers):
        rank = connection.ranks.rank
        numbers.fill_(2**62 + 3**rank)
        words = connection.say({"from": rank}), connection.collect("abc"[rank])
        connection.add_up("numbers")
        connection.send("numbers")
        return (*words, numbers.unique().tolist())

    total = 3 * 2**62 + 1 + 3 + 9 - 2**64  # integers wrap round; the sum of sound positions cannot
    assert together(3, work) == [({"from": 0}, ["a", "b", "c"], [total])] * 3


@pytest.mark.slow
def test_a_slow_rank_is_waited_for_but_a_silent_one_is_not():
    def work(connection, numbers):
        if connection.ranks.rank == 1:
            time.sleep(7)  # longer than the patience: its messenger still gives signs of life
        connection.collect("slow")
        if connection.ranks.rank == 1:
            os.kill(connection._messenger.pid, signal.SIGSTOP)  # as if its machine had vanished
            time.sleep(12)
            return "vanished"
        connection.collect("silent")

    waiting, vanished = together(2, work, patience=6)
    assert isinstance(waiting, Lost)
    assert waiting.exit_code == EXIT_SYSTEM
    assert vanished == "vanished"


def test_a_rank_that_ends_is_missed_at_once():
    def work(connection, numbers):
        connection.collect("both are there")
        return connection.collect("still there?") if connection.ranks.rank else connection.close()

    began = time.monotonic()
    assert isinstance(together(2, work, patience=60)[1], Lost)
    assert time.monotonic() - began < 30


def test_only_torchrun_makes_ranks(monkeypatch):
    names = {"RANK": "3", "WORLD_SIZE": "6", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    assert link.ranks() is None
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    assert link.ranks() == Ranks(3, 6, 1, 2)
    assert not link.ranks().leads
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert link.ranks() is None
