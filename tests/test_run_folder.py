"""The rules for writing to a run folder: whole or not at all, checked, and by one process at a time."""

import errno
import os
import shutil
import signal
import subprocess
import sys

import pytest

from crystalline import run_folder
from crystalline.errors import EXIT_BUSY, EXIT_DAMAGED, EXIT_SYSTEM, UserError
from crystalline.run_folder import (
    SEAL,
    RunFolder,
    damage,
    new_folder,
    read_json,
    reporting_os_errors,
    seal,
    write_bytes,
    write_json,
)


def python(code, *arguments):
    """Runs code in a process of its own."""
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# --- making and opening -----------------------------------------------------------------------------------


def test_a_new_run_is_found_again(tmp_path):
    made = RunFolder.create(tmp_path / "a" / "run", "[training]\nseed = 7\n")
    assert RunFolder.open(made.root).settings.read_text() == "[training]\nseed = 7\n"
    assert names(made.root) == ["crystalline.toml", "manifest.json"]


def test_a_taken_folder_is_refused(tmp_path):
    RunFolder.create(tmp_path / "run", "")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name, why in (("run", "a run in this folder already"), ("other", "not an empty folder"), ("file", "not an")):
        with pytest.raises(UserError, match=why):
            RunFolder.create(tmp_path / name, "")
    assert (tmp_path / "other" / "letter.txt").read_text() == (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("manifest", "why"),
    [
        (None, "does not exist"),
        ("{", "damaged"),
        ("[]", "format None"),
        ('{"format": 99}', "format 99"),
    ],
)
def test_what_is_no_run_is_refused(tmp_path, manifest, why):
    if manifest is not None:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "manifest.json").write_text(manifest)
    with pytest.raises(UserError, match=why):
        RunFolder.open(tmp_path / "run")


# --- atomic writes ----------------------------------------------------------------------------------------


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "file"
    write_bytes(file, b"old")

    def refuse(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(UserError) as caught, reporting_os_errors("keep it"):
        write_bytes(file, b"new")
    assert caught.value.exit_code == EXIT_SYSTEM
    assert file.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_killed_write_leaves_the_old_file(tmp_path, call):
    file = tmp_path / "file"
    write_bytes(file, b"old")
    died = python(
        f"import os, sys; from crystalline import run_folder\n"
        f"os.{call} = lambda *_: os.kill(os.getpid(), 9)\n"
        "from pathlib import Path; run_folder.write_bytes(Path(sys.argv[1]), b'new' * 100)",
        file,
    )
    assert died.returncode == -signal.SIGKILL
    assert file.read_bytes() == b"old"


def test_a_written_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, name=name, real=real: (calls.append(name), real(*a))[1])
    write_bytes(tmp_path / "file", b"data")
    assert calls == ["fsync", "replace", "fsync"]  # the file, its name, the folder that holds the name


FILL = """
import os, sys
from pathlib import Path
from crystalline import run_folder
with run_folder.new_folder(Path(sys.argv[1])) as part:
    (part / "half").write_text("half a model")
    if sys.argv[2] == "filling": os.kill(os.getpid(), 9)
    os.rename = lambda *_: os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("moment", ["filling", "naming"])
def test_a_killed_folder_never_has_its_name_and_is_cleaned_up(tmp_path, moment):
    target = tmp_path / "step-1"
    assert python(FILL, target, moment).returncode == -signal.SIGKILL
    assert not target.exists()
    assert len(names(tmp_path)) == 1
    with new_folder(target) as part:
        (part / "whole").write_text("a model")
    assert names(tmp_path) == ["step-1"]
    assert names(target) == [SEAL, "whole"]


def test_what_was_killed_under_another_name_is_removed_by_the_next_holder_of_the_lock(tmp_path):
    run = RunFolder.create(tmp_path / "run", "")
    run.checkpoints.mkdir()
    for target in (run.corpus, run.checkpoints / "step-1"):
        assert python(FILL, target, "filling").returncode == -signal.SIGKILL
    (run.root / ".notes.partial").write_text("a person's own")
    with run.lock():
        assert names(run.checkpoints) == []
        assert names(run.root) == [".notes.partial", "checkpoints", "crystalline.toml", "lock", "manifest.json"]


def test_a_failure_leaves_no_folder_and_keeps_the_old_one(tmp_path):
    with new_folder(tmp_path / "a") as part:
        (part / "file").write_text("old")

    def fail():
        with new_folder(tmp_path / "a") as part:
            (part / "file").write_text("new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a" / "file").read_text() == "old"
    with new_folder(tmp_path / "a") as part:
        (part / "other").write_text("new")
    assert names(tmp_path) == ["a"]
    assert names(tmp_path / "a") == [SEAL, "other"]


@pytest.mark.parametrize("content", [b'{"a": ', b"\xff", b""])
def test_damaged_json_is_named(tmp_path, content):
    (tmp_path / "state.json").write_bytes(content)
    with pytest.raises(UserError, match=r"state\.json") as caught:
        read_json(tmp_path / "state.json")
    assert caught.value.exit_code == EXIT_DAMAGED


def test_missing_json_is_named(tmp_path):
    with pytest.raises(UserError, match="missing") as caught:
        read_json(tmp_path / "state.json")
    assert caught.value.exit_code == EXIT_DAMAGED


def test_json_round_trip(tmp_path):
    value = {"é字": [1, 2.5, None, "\n"]}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == value


# --- checksums --------------------------------------------------------------------------------------------


@pytest.fixture
def sealed(tmp_path):
    folder = tmp_path / "sealed"
    with new_folder(folder) as part:
        (part / "weights.bin").write_bytes(bytes(range(256)) * 4)
        (part / "state.json").write_bytes(b'{"step": 4}')
        (part / "below").mkdir()
        (part / "below" / "größe.txt").write_bytes(b"text")
    assert damage(folder) == ""
    return folder


FILES = ["weights.bin", "state.json", "below/größe.txt", SEAL]


@pytest.mark.parametrize("name", FILES)
def test_every_flipped_bit_is_found_and_named(sealed, name):
    file = sealed / name
    data = file.read_bytes()
    for place in range(0, len(data), max(1, len(data) // 100)):
        for bit in range(8):
            file.write_bytes(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
            # A bit of the list itself may look like a fault of the file whose line it is in.
            assert (name if name != SEAL else str(sealed)) in damage(sealed), (place, bit)
    file.write_bytes(data)
    assert damage(sealed) == ""


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_truncation_is_found_and_named(sealed, name, share):
    file = sealed / name
    os.truncate(file, int(file.stat().st_size * share))
    assert str(file) in damage(sealed)


def test_files_can_be_read_by_whoever_may_read_the_folder(sealed):
    (sealed / "private").write_text("x")
    (sealed / "private").chmod(0o600)
    sealed.chmod(0o755)
    seal(sealed)
    assert {path.stat().st_mode & 0o777 for path in sealed.rglob("*") if path.name != SEAL and path.is_file()} == {
        0o644
    }


def test_a_list_cut_off_between_two_lines_is_found(sealed):
    lines = (sealed / SEAL).read_bytes().splitlines(keepends=True)
    for kept in range(len(lines)):
        (sealed / SEAL).write_bytes(b"".join(lines[:kept]))
        assert str(sealed / SEAL) in damage(sealed)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_found_and_named(sealed, name):
    (sealed / name).unlink()
    assert damage(sealed) == f"{sealed / name} is missing"


def test_a_file_of_somebody_else_is_no_damage(sealed):
    (sealed / ".DS_Store").write_bytes(b"\0")
    assert damage(sealed) == ""


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum here")
def test_the_sha256sum_program_agrees(sealed):
    check = ["sha256sum", "--check", "--strict", SEAL]
    assert subprocess.run(check, cwd=sealed, capture_output=True).returncode == 0
    (sealed / "state.json").write_bytes(b'{"step": 5}')
    assert subprocess.run(check, cwd=sealed, capture_output=True).returncode == 1


# --- the lock ---------------------------------------------------------------------------------------------

HOLD = """
import sys, time
from crystalline.run_folder import RunFolder
with RunFolder(sys.argv[1]).lock():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_until_the_first_ends_however_it_ends(tmp_path):
    run = RunFolder.create(tmp_path / "run", "")
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(run.root)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError) as caught, run.lock():
            pass
        assert caught.value.exit_code == EXIT_BUSY
        assert f"pid {holder.pid})" in caught.value.why
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    with run.lock():
        assert run.lock_file.read_text() == f"{os.getpid()}\n"


def test_the_lock_is_free_after_an_error(tmp_path):
    run = RunFolder.create(tmp_path / "run", "")
    with pytest.raises(RuntimeError), run.lock():
        raise RuntimeError
    with run.lock():
        pass


def test_a_folder_that_cannot_be_locked_is_told(tmp_path):
    with pytest.raises(UserError) as caught, run_folder.RunFolder(tmp_path / "nowhere").lock():
        pass
    assert caught.value.exit_code == EXIT_SYSTEM
