"""The live view, as a person sees it on a real terminal of the operating system."""

import functools
import itertools
import re
import signal
import sys
import time

import pytest
from screen import Screen, in_terminal

from commands import last_step, wait_for
from crystalline.cli import panel
from crystalline.errors import EXIT_INTERRUPTED, EXIT_OK

FACTS = {
    "run": "my-model", "state": "training", "step": 540, "steps": 1002, "loss": 4.781, "perplexity": 119.2,
    "curve": [(n, 9 - n / 100) for n in range(500)], "tokens": 6e6, "gradient_norm": 0.82, "rate": 0.75,
    "learning_rate": 0.015, "bits_per_byte": 1.512, "held_out_perplexity": 33.1, "evaluated_step": 500,
    "tokens_per_second": 42_900.0, "peak_share": 0.384, "memory": 612_000_000, "seconds_left": 272.0, "drops": 2,
    "rollbacks": 1, "best": None, "ended_early": False,
    "spheres": [{"number": n, "share": 0.9, "positions": 3240, "steals": 12, "memory": 3.1e8} for n in range(2)],
}  # fmt: skip


@pytest.fixture
def terminal(tmp_path, monkeypatch):
    """Runs a command in a terminal: `code, output = terminal("run", run, columns=100)`."""
    monkeypatch.setenv("TERM", "xterm")
    return functools.partial(in_terminal, folder=tmp_path)


def shown(columns=80, **changes):
    return ["".join(text for text, _ in line) for line in panel.lines({**FACTS, **changes}, columns)]


def test_every_measure_has_its_place():
    text = "\n".join(shown())
    for words in (
        "my-model  training", "4 min 32 s left", "step 540/1,002   54%", "4.781 nats  █", "1.512 bits per byte",
        "perplexity 33.1 · at step 500", "42.9 k tokens/s · 38% of the matrix peak · memory 612 MB",
        "norm 0.82 · rate 0.015, 75% of its peak", "2 steps dropped · 1 rollback", "sphere 1",
        "90% busy  3,240 positions · 12 taken over · 310 MB",
    ):  # fmt: skip
        assert words in text, (words, text)


@pytest.mark.parametrize("columns", [40, 60, 80, 120, 200])
def test_it_fits_the_usual_widths(columns):
    """From 80 columns on all of it; in fewer the state, the time left and the progress, and the rest is cut off."""
    lines = shown(columns)
    assert all(len(line) < columns for line in (lines if columns >= 80 else lines[:3]))
    assert "training" in lines[0]
    assert "4 min 32 s left" in lines[0]
    assert "step 540/1,002" in lines[1]
    assert "..." in shown(columns, run="/a/very/long" * 30 + "/name")[0]


def test_little_is_shown_of_what_is_not_known():
    nothing = dict.fromkeys(FACTS) | {"run": "r", "state": "preparing", "step": 0, "curve": [], "spheres": []}
    assert shown(**nothing)[0].split() == ["r", "preparing"]
    assert len(shown(**nothing)) == 2
    assert "sphere 3" in shown(spheres=[{"number": 3}])[-1]


def test_a_terminal_with_ascii_only_gets_ascii():
    text = "".join(part for line in panel.lines(FACTS, 80, fine=False) for part, _ in line)
    assert text.isascii()


def test_a_run_in_a_terminal_is_shown_live_and_ends_clean(new_run, terminal):
    code, output = terminal("run", new_run, "--steps", "40", columns=100)
    assert code == EXIT_OK, output
    assert output.count("\x1b[J") > 2, "it was drawn again and again"
    screen = Screen(100)
    screen.write(output)
    lines = screen.lines
    text = "\n".join(lines)
    assert "next: cllm chat" in text.split("step 40/40")[1], "results stand below what was live"
    assert "  done" in text
    assert len(re.findall("step 40/40  100%", text)) == 1, "drawn in place, not below each other"
    assert "training from step 0 to 40" in text
    assert "sample:" in text
    assert not re.search(r"^step \d+/40  loss .* left$", text, re.MULTILINE), "no lines for logs"


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_terminals_that_want_less(new_run, terminal, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    code, output = terminal("run", new_run)
    assert code == EXIT_OK
    assert not re.search(r"\x1b\[\d+m", output)
    if name == "TERM":
        assert "\x1b" not in output
        assert re.search(r"step 6/6  loss \S+  .* tokens/s  0 s left", output)


def test_quiet_is_quiet_in_a_terminal_too(new_run, terminal):
    assert terminal("run", new_run, "--quiet") == (EXIT_OK, "")


def test_ctrl_c_leaves_the_terminal_as_it_was(new_run, terminal):
    def press(command, output):
        wait_for(lambda: last_step(new_run) >= 5)
        command.kill(signal.SIGINT)

    code, output = terminal("run", new_run, "--steps", "100000", during=press)
    assert code == EXIT_INTERRUPTED
    for switched in ("\x1b[?", "\x1b7", "\x1b(0"):
        assert switched not in output, "nothing was switched on that would have to be switched off"
    screen = Screen()
    screen.write(output)
    assert "is saved; the same command continues" in screen.lines[-1]
    assert screen.x == 0, "the prompt of the shell stands at the beginning of a line"


def test_watching_from_another_terminal(new_run, start, terminal):
    with start("run", new_run, "--steps", "100000", "--quiet") as command:
        wait_for(lambda: last_step(new_run) >= 5)

        def stop(_, output):
            wait_for(lambda: len(re.findall(r"step [\d,]+/100,000", output())) > 3)
            command.kill(signal.SIGINT)

        code, output = terminal("status", new_run, "--watch", during=stop)
        command.wait()
    assert code == EXIT_OK
    screen = Screen()
    screen.write(output)
    assert len(re.findall("/100,000", "\n".join(screen.lines))) == 1
    assert "stopped" in screen.lines[0]
    assert "tokens/s" in output


def test_looking_away_from_a_run_does_not_stop_it(new_run, start, terminal):
    with start("run", new_run, "--steps", "100000", "--quiet") as command:
        wait_for(lambda: last_step(new_run) >= 5)

        def look_away(watcher, output):
            wait_for(lambda: "/100,000" in output())
            watcher.kill(signal.SIGINT)

        code, _ = terminal("status", new_run, "--watch", during=look_away)
        assert code == EXIT_OK
        step = last_step(new_run)
        wait_for(lambda: last_step(new_run) > step)
        command.kill(signal.SIGKILL)
        command.wait()


def test_a_view_that_cannot_be_drawn_does_not_end_the_training(made_up, monkeypatch):
    def gone(self, lines):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(panel.Live, "draw", gone)
    with panel.shown(str(made_up.root), sys.stderr) as on_event:
        on_event({"kind": "training.started"})
    made_up.folder.recipe.write_text("{")
    with panel.shown(str(made_up.root), sys.stderr) as on_event:
        on_event({"kind": "training.started"})


def test_it_is_drawn_five_times_a_second_at_most(made_up, monkeypatch):
    made_up.settle()
    drawn = []
    monkeypatch.setattr(panel.Live, "draw", lambda self, lines: drawn.append(time.monotonic()))
    with panel.shown(str(made_up.root), sys.stderr) as on_event:
        made_up.add("training.started", step=0, steps=100)
        began = time.monotonic()
        while time.monotonic() - began < 0.7:
            on_event({"kind": "training.started"})
    assert 3 <= len(drawn) <= 5
    assert all(b - a >= 0.19 for a, b in itertools.pairwise(drawn[:-1])), "but for the last, at the end"
