"""The history of a run: nothing half-written is shown, numbering goes on, whatever happened before."""

import json
import os
import resource
import signal
import threading
import time

import pytest

from crystalline.errors import EXIT_SYSTEM, UserError
from crystalline.events import EventLog, Reader, read


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "events.jsonl"


def write(path, *numbers):
    with EventLog(path, clock=lambda: 1.23456) as events:
        for number in numbers:
            events.write("training.step", step=number)


def test_what_is_written_is_read_in_order(path):
    write(path, 1, 2)
    with EventLog(path) as events:
        events.write("corpus.note", text="größe 字 \u2028 \x85 end")
    assert [event["seq"] for event in read(path)] == [1, 2, 3]
    assert next(read(path)) == {"v": 1, "seq": 1, "time": 1.235, "kind": "training.step", "step": 1}
    assert [event["text"] for event in read(path, "corpus")] == ["größe 字 \u2028 \x85 end"]
    assert "größe 字" in path.read_text("utf-8")  # a person can read the file


def test_a_missing_file_has_no_events(path):
    assert list(read(path)) == []


def test_numbers_go_on_in_the_next_process(path):
    for number in range(5):
        write(path, number)
    assert [(event["seq"], event["step"]) for event in read(path)] == [(n + 1, n) for n in range(5)]


@pytest.mark.parametrize("cut", [1, 5, 20, -1])
def test_a_half_written_line_is_hidden_and_then_cut_off(path, cut):
    write(path, 1, 2)
    whole = path.read_bytes()
    line = whole.splitlines()[1]
    path.write_bytes(whole + line[:cut])
    assert [event["step"] for event in read(path)] == [1, 2]
    write(path, 3)
    assert [(event["seq"], event["step"]) for event in read(path)] == [(1, 1), (2, 2), (3, 3)]
    assert all(json.loads(line) for line in path.read_bytes().splitlines())


@pytest.mark.parametrize("junk", [b"\0\0\0\n", b"{}\n", b"[1]\n", b'{"seq": "x", "kind": 3}\n', b"\xff\xfe\n", b"\n"])
def test_a_damaged_line_costs_only_itself(path, junk):
    write(path, 1)
    path.write_bytes(path.read_bytes() + junk)
    write(path, 2)
    path.write_bytes(junk + path.read_bytes())
    assert [(event["seq"], event["step"]) for event in read(path)] == [(1, 1), (2, 2)]


def test_a_reader_follows_while_it_is_written(path):
    """A reader that looks again and again sees whole events only, each once more than before or as often."""
    path.parent.mkdir()
    seen = [0]
    done = threading.Event()

    def follow():
        while not done.is_set():
            seen.append(sum(event["text"] == "é" * 3000 for event in read(path)))

    reader = threading.Thread(target=follow)
    reader.start()
    with EventLog(path) as events:
        for number in range(300):
            events.write("note", text="é" * 3000)
            if number % 50 == 0:
                time.sleep(0.01)  # let the reader have a core
    done.set()
    reader.join()
    assert seen == sorted(seen)
    assert len(set(seen)) > 1, "the reader never met the writer at work"
    assert [event["seq"] for event in read(path)] == list(range(1, 301))


def test_a_full_disk_is_told_and_the_next_writer_continues(path):
    """The limit on file size cuts a write in the middle, as a disk that becomes full does."""
    write(path, 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(path) + 10, before[1]))
    try:
        with pytest.raises(UserError) as caught:
            write(path, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old)
    assert caught.value.exit_code == EXIT_SYSTEM
    assert str(path) in str(caught.value)
    write(path, 3)
    assert [(event["seq"], event["step"]) for event in read(path)] == [(1, 1), (2, 3)]


def test_followers_are_told_of_each_event_once_it_is_written(path):
    told = []
    with EventLog(path, clock=lambda: 5.0) as events:
        events.followers.append(lambda event: told.append((event, list(read(path))[-1])))
        events.write("training.step", step=1)
        events.write("training.step", step=2)
    assert [event["step"] for event, _ in told] == [1, 2]
    assert all(event == in_file for event, in_file in told)


def test_a_reader_gives_only_what_is_new(path):
    reader = Reader(path)
    assert list(reader.new()) == []
    write(path, 1, 2)
    assert [event["step"] for event in reader.new()] == [1, 2]
    assert list(reader.new()) == []
    with open(path, "ab") as file:
        file.write(b'{"v": 1, "seq": 3, "time": 0, "kind": "training.step", "st')
        file.flush()
        assert list(reader.new()) == []
        file.write(b'ep": 3}\n')
    assert [event["step"] for event in reader.new()] == [3]


def test_a_reader_meets_the_writer_after_a_kill(path):
    """Half a line, which the next writer cuts off."""
    reader = Reader(path)
    write(path, 1)
    with open(path, "ab") as file:
        file.write(b'{"v": 1, "se')
    assert [event["step"] for event in reader.new()] == [1]
    write(path, 2)
    assert [event["step"] for event in reader.new()] == [2]
