"""Work divided among processes: all of it is done, whoever dies, and nobody is left behind."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from crystalline.corpus.parallel import MOST_DEATHS, each
from crystalline.errors import UserError


@pytest.mark.parametrize("workers", [1, 2, 5, None])
@pytest.mark.parametrize("count", [0, 1, 3, 20])
def test_every_task_is_done_once(tmp_path, workers, count):
    def work(task):
        with open(tmp_path / str(task), "a") as file:
            file.write("x")

    assert sorted(each(work, range(count), workers)) == list(range(count))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {str(task): "x" for task in range(count)}


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize(
    "error", [UserError("what", "why", "fix", 5), OSError(28, "No space left", "file"), KeyError("x")]
)
def test_an_error_comes_out_as_it_is(workers, error):
    def work(task):
        if task == 4:
            raise error

    with pytest.raises(type(error)) as caught:
        list(each(work, range(9), workers))
    assert str(caught.value) == str(error)
    assert getattr(caught.value, "exit_code", None) == getattr(error, "exit_code", None)


def test_a_process_that_dies_is_replaced(tmp_path):
    def work(task):
        if task % 3 == 0 and not (tmp_path / f"died{task}").exists():
            (tmp_path / f"died{task}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        (tmp_path / f"done{task}").touch()

    assert sorted(each(work, range(10), 2)) == list(range(10))
    assert len(list(tmp_path.glob("done*"))) == 10
    assert len(list(tmp_path.glob("died*"))) == 4


def test_a_task_that_kills_again_and_again_is_an_error(tmp_path):
    def work(task):
        if task == 2:
            with open(tmp_path / "deaths", "a") as file:
                file.write("x")
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(UserError, match=r"clean\.workers = 1"):
        list(each(work, range(5), 2))
    assert len((tmp_path / "deaths").read_text()) == MOST_DEATHS


def alive(pids):
    return [pid for pid in pids if Path(f"/proc/{pid}").exists() and "Z" not in state(pid)]


def state(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_no_process_outlives_its_parent(tmp_path, how):
    code = """
        import os, sys, time
        from pathlib import Path
        from crystalline.corpus.parallel import each
        def work(task):
            Path(sys.argv[1], str(os.getpid())).touch()
            time.sleep(600)
        list(each(work, range(4), 3))
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), tmp_path], stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 3 and time.monotonic() < end:
        time.sleep(0.02)
    pids = [int(path.name) for path in tmp_path.iterdir()]
    assert len(pids) == 3
    parent.send_signal(how)
    parent.wait(60)
    while alive(pids) and time.monotonic() < end:
        time.sleep(0.02)
    assert alive(pids) == []


def test_who_stops_listening_stops_the_work(tmp_path):
    def work(task):
        (tmp_path / str(task)).touch()
        time.sleep(0.05)

    results = each(work, range(100), 2)
    next(results)
    results.close()
    count = len(list(tmp_path.iterdir()))
    time.sleep(0.3)
    assert len(list(tmp_path.iterdir())) == count < 100
