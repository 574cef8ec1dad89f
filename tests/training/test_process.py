"""Work in a child process, and what several processes of a machine share."""

import multiprocessing
import os
import signal

import pytest

from crystalline.training.process import in_child, share


class Odd(Exception):
    """Cannot be made again from what it says of itself."""

    def __init__(self, one, two):
        super().__init__(f"{one} {two}")


def test_the_answer_of_a_child_comes_back_and_nothing_else():
    before = dict(os.environ)

    def work(number):
        os.environ["LEFT_BEHIND"] = "1"
        return os.getpid(), number + 1

    pid, number = in_child(work, 4)
    assert number == 5
    assert pid != os.getpid()
    assert dict(os.environ) == before
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(("error", "kind"), [(KeyError("no"), KeyError), (Odd("n", "o"), RuntimeError)])
def test_its_error_is_raised_here(error, kind):
    def fail():
        raise error

    with pytest.raises(kind, match=r"n ?o") as caught:
        in_child(fail)
    if kind is KeyError:
        assert "in fail" in "".join(caught.value.__notes__)


def test_its_death_is_told():
    with pytest.raises(ChildProcessError, match="-9"):
        in_child(lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("things", "of", "expected"),
    [
        ("abcd", 2, ["ab", "cd"]),
        ("abc", 2, ["a", "bc"]),
        ("abcd", 1, ["abcd"]),
        ("ab", 3, ["a", "a", "b"]),
        ("", 2, ["", ""]),
    ],
)
def test_shares_are_even_and_never_empty(things, of, expected):
    assert ["".join(share(things, number, of)) for number in range(of)] == expected
