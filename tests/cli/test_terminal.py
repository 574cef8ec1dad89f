"""Lines drawn in place: what a person sees on a terminal, also with messages between, long names and a new width."""

import io
import logging
import os
import sys

import pytest
from screen import Screen

from crystalline.cli import terminal
from crystalline.cli.terminal import Live, bar, clip, columns_of, sparkline


class Terminal(io.StringIO):
    """A stream that says that it is a terminal and shows a screen."""

    encoding = "utf-8"

    def __init__(self, columns=40):
        super().__init__()
        self.screen = Screen(columns)

    def write(self, text):
        return self.screen.write(text)

    def isatty(self):
        return True


@pytest.fixture
def live(monkeypatch):
    stream = Terminal()
    made = Live(stream)
    monkeypatch.setattr(made, "size", lambda: (stream.screen.columns, 24))
    return made


def plain(*texts):
    return [[(text, "")] for text in texts]


def test_lines_are_replaced_in_place(live):
    live.draw(plain("one", "two", "three"))
    assert live.stream.screen.lines == ["one", "two", "three"]
    live.draw(plain("1", "two and more"))
    assert live.stream.screen.lines == ["1", "two and more"]
    live.draw(plain("a", "b", "c", "d"))
    assert live.stream.screen.lines == ["a", "b", "c", "d"]


def test_messages_appear_above_and_stay(live):
    live.draw(plain("progress 1"))
    live.write("a message\nof two lines that is longer than the progress\n")
    live.draw(plain("progress 2"))
    live.write("another\n")
    assert live.stream.screen.lines == [
        "a message", "of two lines that is longer than the pro", "gress", "another", "progress 2"
    ]  # fmt: skip


def test_half_a_message_waits_for_its_end(live):
    with live:
        live.draw(plain("progress"))
        live.write("half ")
        assert live.stream.screen.lines == ["progress"]
        live.write("whole\nlast")
        assert live.stream.screen.lines == ["half whole", "progress"]
    assert live.stream.screen.lines == ["half whole", "last", "progress"]


@pytest.mark.parametrize("columns", [39, 20, 7, 60])
def test_after_a_change_of_width_nothing_is_left_over(live, columns):
    live.write("above\n")
    live.draw(plain("x" * 38, "y" * 30, "z"))
    live.stream.screen.resize(columns)
    live.draw(plain("x" * 38, "y" * 30, "z"))
    assert live.stream.screen.lines == ["above", "x" * min(38, columns - 1), "y" * min(30, columns - 1), "z"]


def test_no_more_lines_than_the_terminal_has(live, monkeypatch):
    monkeypatch.setattr(live, "size", lambda: (40, 4))
    live.draw(plain(*"abcdefgh"))
    live.draw(plain(*"ABCDEFGH"))
    assert live.stream.screen.lines == ["A", "B", "C"]


def test_what_would_move_the_cursor_is_not_written(live):
    live.draw(plain("evil\x1b[2J\r\n\x07name\u202e"))
    assert len(live.stream.screen.lines) == 1
    assert "\x1b" not in live.stream.screen.lines[0]


def test_wide_characters_take_two_columns():
    assert [columns_of(text) for text in ("abc", "字", "é", "e\u0301", "🙂")] == [3, 2, 1, 1, 2]
    assert clip([("字字字", "")], 5) == [("字字", "")]
    assert clip([("ab", "bold"), ("cd", "")], 3) == [("ab", "bold"), ("c", "")]


def test_colours_are_left_out_when_asked(monkeypatch):
    written = []
    for value in ("", "1"):
        monkeypatch.setenv("NO_COLOR", value)
        stream = Terminal()
        stream.write = written.append
        Live(stream).draw([[("text", "bold")]])
    assert "\x1b[1mtext\x1b[0m" in written[0]
    assert "text" in written[1]
    assert "\x1b[1m" not in written[1]


def test_standard_error_and_logging_go_above_the_lines(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    logger = logging.getLogger("crystalline")
    handler = logging.StreamHandler(stream)
    monkeypatch.setattr(logger, "handlers", [handler])
    with Live(stream) as live:
        live.draw(plain("progress"))
        logger.warning("logged")
        print("printed", file=sys.stderr)
        assert sys.stderr.isatty()
        assert stream.screen.lines == ["logged", "printed", "progress"]
    assert (sys.stderr, handler.stream) == (stream, stream)
    print("afterwards", file=sys.stderr)
    assert stream.screen.lines == ["logged", "printed", "progress", "afterwards"]


def test_a_forked_process_leaves_the_lines_alone(live, monkeypatch):
    live.draw(plain("progress"))
    monkeypatch.setattr(os, "getpid", lambda: -1)
    live.write("from a worker\n")
    assert live.stream.screen.lines == ["progress", "from a worker"]


@pytest.mark.parametrize(
    ("tty", "term", "expected"), [(True, "xterm", True), (True, "dumb", False), (False, "xterm", False)]
)
def test_only_a_terminal_that_can_move_its_cursor_is_live(monkeypatch, tty, term, expected):
    monkeypatch.setenv("TERM", term)
    stream = Terminal()
    stream.isatty = lambda: tty
    assert terminal.is_live(stream) is expected


def test_bars_and_sparklines():
    assert bar(0.5, 10) == ("━━━━━", "─────")
    assert bar(-1, 4) == ("", "────")
    assert bar(2, 4, fine=False) == ("####", "")
    assert sparkline([8, 7, 6, 5, 4, 3, 2, 1], 8) == "█▇▆▅▄▃▂▁"
    assert sparkline([8, 8, 1, 1], 2) == "█▁"
    assert sparkline([3, 3, 3], 8) == "▁▁▁"
    assert sparkline([], 8) == sparkline([1.0], 0) == ""
    assert sparkline([1, 2], 5, fine=False) == ".@"
