"""What a person is told when something goes wrong."""

import errno

import pytest

from crystalline.errors import EXIT_FAILED, EXIT_SYSTEM, UserError, from_os_error, suggest


def test_an_error_says_what_why_and_the_fix():
    error = UserError("could not do it", "it is broken", "mend it")
    assert str(error) == "could not do it\n  why: it is broken\n  fix: mend it"
    assert error.exit_code == EXIT_FAILED


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("trian", "did you mean 'train'?"),
        ("chart", "did you mean 'chat'?"),
        ("xyzzy", "use one of: chat, run, train"),
        ("", "use one of: chat, run, train"),
    ],
)
def test_the_nearest_name_is_suggested(name, expected):
    assert suggest(name, ["train", "chat", "run"]) == expected


@pytest.mark.parametrize(
    ("number", "fix"),
    [
        (errno.ENOSPC, "free some disk space"),
        (errno.EDQUOT, "quota"),
        (errno.EACCES, "permissions"),
        (errno.EPERM, "permissions"),
        (errno.EROFS, "a disk that can be written"),
        (errno.EIO, "check this path"),
    ],
)
def test_what_the_system_refuses_is_told_with_path_and_fix(number, fix):
    error = from_os_error(OSError(number, "the reason", "some/file"), "save the model")
    assert error.exit_code == EXIT_SYSTEM
    assert error.what == "could not save the model"
    assert error.why == "the reason (some/file)"
    assert fix in error.fix


def test_an_os_error_without_number_keeps_its_words():
    assert from_os_error(OSError("only words"), "do it").why == "only words"
