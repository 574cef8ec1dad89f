"""Every number of `cllm status` follows from the events, worked out by hand."""

import math

import pytest

from crystalline.errors import EXIT_OK, EXIT_USAGE
from crystalline.pipeline.status import Curve, Standing, busy_share, status


def started(run, **fields):
    run.add("training.started", step=0, steps=100, workers=2, peak_flops=1e9, flops_per_token=2e5, **fields)


def test_a_run_that_is_just_made_is_new_and_knows_nothing_else(made_up):
    found = status(made_up.root)
    known = {name: value for name, value in found.items() if value not in (None, [], 0, False)}
    assert known == {"run": str(made_up.root), "state": "new"}


def test_all_numbers_of_a_run_at_work(made_up):
    made_up.settle()
    started(made_up)
    began = made_up.now
    made_up.steps(1, 40)
    made_up.add("training.evaluation", step=40, bits_per_byte=1.5, cross_entropy=3.0, tokens=9, bytes=26)
    workers = [
        {"number": 0, "busy": 6.0, "update": 2.0, "idle": 1.5, "sync": 0.5, "positions": 250, "memory": 5e6},
        {"number": 1, "busy": 4.0, "update": 1.0, "positions": 230},
    ]
    made_up.add("training.spheres", step=40, spheres=workers, memory=123_000_000)
    with made_up.at_work():
        found = status(made_up.root)
    elapsed = made_up.now - began
    assert found["state"] == "training"
    assert (found["step"], found["steps"], found["tokens"]) == (40, 100, 40 * 384)
    assert (found["loss"], found["perplexity"]) == (4.6, math.exp(4.6))
    assert (found["bits_per_byte"], found["held_out_perplexity"], found["evaluated_step"]) == (1.5, math.exp(3), 40)
    assert (found["gradient_norm"], found["rate"], found["learning_rate"]) == (0.5, 0.25, 0.25 * 0.02)
    assert found["tokens_per_second"] == pytest.approx(384 / 0.5)
    assert found["peak_share"] == pytest.approx(768 * 2e5 / (1e9 * 2)), "of both workers' peak"
    assert found["seconds_left"] == pytest.approx(60 * 0.5)
    assert found["memory"] == 123_000_000
    assert [s["share"] for s in found["spheres"]] == [pytest.approx(0.8), pytest.approx(5.0 / elapsed)]
    assert (found["drops"], found["rollbacks"], found["best"], found["ended_early"]) == (0, 0, None, False)


def test_what_holds_only_at_work_is_not_told_of_a_run_at_rest(made_up):
    made_up.settle()
    started(made_up)
    made_up.steps(1, 40)
    made_up.add("training.spheres", step=40, spheres=[{"number": 0}], memory=1)
    found = status(made_up.root)
    assert (found["state"], found["step"], found["loss"]) == ("stopped", 40, 4.6)
    assert {found[n] for n in ("tokens_per_second", "peak_share", "memory", "seconds_left")} == {None}
    assert found["spheres"] == []
    made_up.steps(41, 100)
    assert status(made_up.root)["state"] == "done"


def test_the_speed_is_that_of_the_last_steps_of_this_start(made_up):
    made_up.settle()
    started(made_up)
    made_up.steps(1, 30, seconds=9.0)
    started(made_up)
    made_up.steps(31, 33, seconds=0.5)
    with made_up.at_work():
        assert status(made_up.root)["tokens_per_second"] == pytest.approx(768)
        made_up.steps(34, 70, seconds=0.25)
        assert status(made_up.root)["tokens_per_second"] == pytest.approx(1536)


def test_states(made_up):
    def state(at_work=True):
        if not at_work:
            return status(made_up.root)["state"]
        with made_up.at_work():
            return status(made_up.root)["state"]

    assert state() == "preparing"
    made_up.add("stage.started", stage="corpus")
    assert state(at_work=False) == "stopped"
    made_up.settle()
    started(made_up)
    assert state() == "preparing"
    made_up.steps(1, 3)
    assert state() == "training"
    made_up.add("training.order", step=3, order="pause")
    assert state() == "paused"
    made_up.add("training.order", step=3, order="resume")
    assert state() == "training"
    made_up.add("training.ended_early", step=3, steps=100)
    assert state(at_work=False) == "done"


def test_steps_that_are_done_again_after_a_kill_count_once(made_up):
    made_up.settle()
    started(made_up)
    made_up.steps(1, 20)
    made_up.add("training.step", step=21, loss=None, gradient_norm=None, rate=1.0, tokens=1, seconds=1.0)
    started(made_up)
    made_up.steps(11, 20)
    made_up.add("training.step", step=21, loss=None, gradient_norm=None, rate=1.0, tokens=1, seconds=1.0)
    found = status(made_up.root)
    assert found["step"] == 21
    assert found["loss"] is None
    assert found["drops"] == 1
    assert [x for x, _ in found["curve"]] == list(range(1, 21))


def test_rollbacks_give_steps_back(made_up):
    made_up.settle()
    started(made_up)
    made_up.steps(1, 20)
    for step in (18, 19, 20):
        made_up.add("training.dropped", step=step, reason="spike", loss=99.0, gradient_norm=1.0)
    made_up.add("training.rollback", step=20, to=10, skipped=1, rollbacks=1)
    found = status(made_up.root)
    assert (found["step"], found["drops"], found["rollbacks"]) == (10, 3, 1)
    assert [x for x, _ in found["curve"]] == list(range(1, 11))
    made_up.add("training.dropped", step=20, reason="spike", loss=99.0, gradient_norm=1.0)
    assert status(made_up.root)["drops"] == 4, "another step, though it has the same number"


def test_workers_that_come_and_go_change_what_the_peak_is(made_up):
    made_up.settle()
    started(made_up)
    made_up.steps(1, 10)
    made_up.add("training.spheres", step=10, spheres=[{"number": 0}, {"number": 1}, {"number": 2}, {"number": 3}])
    with made_up.at_work():
        assert status(made_up.root)["peak_share"] == pytest.approx(768 * 2e5 / (1e9 * 4))


def test_events_of_older_versions_are_enough(made_up):
    """As version 0.1.0 wrote them first: no peak, no memory, fewer facts of the workers."""
    made_up.settle()
    made_up.add("training.started", step=0, steps=100)
    made_up.steps(1, 5)
    sphere = {"pid": 7, "number": 0, "positions": 60, "steals": 0, "busy": 2.0, "update": 0.5, "memory": 9}
    made_up.add("training.spheres", step=5, spheres=[sphere])
    with made_up.at_work():
        found = status(made_up.root)
    assert (found["peak_share"], found["memory"]) == (None, None)
    assert found["spheres"] == [{**sphere, "share": 1.0}]


def test_following_gives_what_reading_at_once_gives(made_up):
    made_up.settle()
    standing = Standing(made_up.root)
    assert standing.catch_up() is False
    for first in range(1, 100, 9):
        made_up.steps(first, first + 8)
        assert standing.catch_up() is True
        assert standing.facts() == status(made_up.root)
    assert standing.catch_up() is False


@pytest.mark.parametrize(
    ("sphere", "elapsed", "share"),
    [
        ({}, 10.0, None),
        ({"busy": 4.0}, None, None),
        ({"busy": 4.0}, 0.0, None),
        ({"busy": 4.0, "update": 1.0}, 10.0, 0.5),
        ({"busy": 12.0}, 10.0, 1.0),
        ({"busy": 4.0, "update": 1.0, "idle": 15.0}, 10.0, 0.25),
        ({"busy": 0.0, "update": 0.0, "idle": 0.0, "sync": 0.0}, 10.0, None),
    ],
)
def test_busy_share(sphere, elapsed, share):
    assert busy_share(sphere, elapsed) == share


def test_a_long_curve_becomes_few_points_with_the_same_course():
    curve = Curve(most=64)
    for x in range(1, 10_001):
        curve.add(x, 2.0 * x)
    assert 32 <= len(curve.points) < 64
    assert all(y == pytest.approx(2 * x) for x, y in curve.points)
    assert curve.points == sorted(curve.points)
    assert curve.points[-1][0] > 9_500
    curve.forget_after(5_000)
    assert curve.points[-1][0] <= 5_000
    curve.add(5_001, None)
    assert curve.points[-1][0] <= 5_000


# --- what the command prints --------------------------------------------------------------------------------


def test_the_command_prints_every_number(made_up, cllm):
    made_up.settle()
    started(made_up)
    made_up.steps(1, 40)
    made_up.add("training.evaluation", step=40, bits_per_byte=1.5, cross_entropy=3.0, tokens=9, bytes=26)
    made_up.add("training.best", step=40, bits_per_byte=1.5)
    made_up.add("training.dropped", step=39, reason="spike")
    made_up.add("training.rollback", step=41, to=40)
    made_up.add("training.spheres", step=40, memory=123e6, spheres=[{"number": 0, "positions": 1234, "steals": 5,
                "busy": 6.0, "update": 2.0, "idle": 2.0, "memory": 5e6}, {"number": 1}])  # fmt: skip
    with made_up.at_work():
        code, out, err = cllm("status", made_up.root)
    assert (code, err) == (EXIT_OK, "")
    for words in (
        "made-up: training", "40 of 100", "15.4 k", "4.6000 nats per token, perplexity 99.48",
        "1.5000 bits per byte, perplexity 20.09, at step 40", "1.5000 bits per byte at step 40", "norm 0.5",
        "0.005, 25.0% of its peak", "768 tokens/s", "7.7% of the matrix", "123 MB", "30 s", "1 of the steps",
        "rollbacks     1",
        "sphere 0      1,234 positions (5 taken over), 80% busy, busy 8 s, memory 5 MB", "sphere 1",
    ):  # fmt: skip
        assert words in out, (words, out)


def test_watching_ends_with_the_run(made_up, cllm):
    """Into a pipe it prints a line now and then; of a run at rest one."""
    made_up.settle()
    made_up.steps(1, 100)
    code, out, _ = cllm("status", made_up.root, "--watch")
    assert code == EXIT_OK
    assert out.startswith("done  step 100 of 100  ")
    assert out.count("\n") == 1


def test_one_cannot_watch_as_json(made_up, cllm):
    code, _, err = cllm("status", made_up.root, "--watch", "--json")
    assert code == EXIT_USAGE
    assert "\n  fix: " in err
