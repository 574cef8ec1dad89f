"""The run folder: everything of one project on disk, and the rules for writing to it.

Where things are (all stages find each other's output only through these paths), atomic writes, checksums,
the lock that keeps a second writer out, and the manifest that says what wrote the folder.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from crystalline.errors import EXIT_BUSY, EXIT_DAMAGED, UserError, from_os_error

FORMAT = 1  # of the folder as a whole; raised when an older cllm could not read it


# A forked worker must not keep the lock of a Node Zero that is gone.
_held_locks: set[TextIO] = set()


def _close_locks_in_child() -> None:
    while _held_locks:
        _held_locks.pop().close()


os.register_at_fork(after_in_child=_close_locks_in_child)


class RunFolder:
    """Paths of one run. Making the object touches nothing; `create` and `open` do.

    root: the folder, as the user named it.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.settings = self.root / "crystalline.toml"  # what the user asked for
        self.recipe = self.root / "recipe.json"  # every choice settled: what is being trained
        self.manifest = self.root / "manifest.json"
        self.events = self.root / "events.jsonl"
        self.lock_file = self.root / "lock"
        self.crawl = self.root / "crawl"  # pages of websites
        self.corpus = self.root / "corpus"
        self.corpus_work = self.root / "corpus-work"  # there only while the corpus is being made
        self.forgotten = self.root / "forgotten.json"  # sources to leave out
        self.start = self.root / "start"  # the model that training starts from, if it was imported
        self.tokenizer = self.root / "tokenizer"
        self.shards = self.root / "shards"
        self.checkpoints = self.root / "checkpoints"
        self.evaluation = self.root / "evaluation"
        self.chats = self.root / "chats"
        self.tensorboard = self.root / "tensorboard"  # written on request
        self.report = self.root / "report.html"
        self.commands = self.root / "commands"  # orders to the process that trains

    @classmethod
    def create(cls, root: str | Path, settings_text: str) -> RunFolder:
        """Make a new run folder holding `settings_text`; refuse one that has a run in it already."""
        run = cls(root)
        run.refuse_if_taken()
        run.write_first_files(settings_text)
        return run

    def refuse_if_taken(self) -> None:
        """Raise UserError where no new run can be made. What a kill left half-written is no obstacle."""
        if self.manifest.exists():
            raise UserError(
                f"could not make a new run in {self.root}",
                "there is a run in this folder already",
                f"go on with it (cllm run {self.root}), or choose another folder",
            )
        if self.root.exists() and (
            not self.root.is_dir() or not all(_is_temporary(path) for path in self.root.iterdir())
        ):
            raise UserError(
                f"could not make a new run in {self.root}",
                "it exists and is not an empty folder",
                "choose a new folder name",
            )

    def write_first_files(self, settings_text: str) -> None:
        """Make this folder a run: its settings, then its manifest."""
        from crystalline import __version__

        with reporting_os_errors(f"make the run folder {self.root}"):
            self.root.mkdir(parents=True, exist_ok=True)
            write_text(self.settings, settings_text)
            write_json(self.manifest, {"format": FORMAT, "crystalline": __version__})

    @classmethod
    def open(cls, root: str | Path) -> RunFolder:
        """An existing run folder, or a clear error."""
        run = cls(root)
        if not run.manifest.exists():
            raise UserError(
                f"there is no run in {run.root}",
                "it has no manifest.json" if run.root.exists() else "the folder does not exist",
                f"make one: cllm new {run.root} --from FOLDER_WITH_TEXT",
            )
        manifest = read_json(run.manifest)
        found = manifest.get("format") if isinstance(manifest, dict) else None
        if found != FORMAT:
            raise UserError(
                f"could not open {run.root}",
                f"it has format {found}, this version of cllm reads format {FORMAT}",
                "use the version of crystalline that wrote it (see manifest.json)",
            )
        return run

    def is_locked(self) -> bool:
        """Whether some process works in this folder now."""
        if not self.lock_file.exists():
            return False
        with reporting_os_errors(f"look at the lock of {self.root}"), open(self.lock_file) as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only writer. The kernel frees the lock when the process ends, however it ends.

        What a killed writer left half-written is removed: nobody else can be writing it.
        """
        with reporting_os_errors(f"lock the run folder {self.root}"):
            handle = open(self.lock_file, "a+")
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    raise from_os_error(error, f"lock the run folder {self.root}") from error
                handle.seek(0)
                raise UserError(
                    f"could not start in {self.root}",
                    f"another process (pid {handle.read().strip() or 'unknown'}) works in it",
                    "wait until it ends or stop it, then give the same command again",
                    EXIT_BUSY,
                ) from None
            handle.truncate(0)
            handle.write(f"{os.getpid()}\n")
            handle.flush()
            for folder in (self.root, self.checkpoints):
                _remove_partial(folder)
            _held_locks.add(handle)
            yield
        finally:
            _held_locks.discard(handle)
            handle.close()


@contextmanager
def reporting_os_errors(doing: str) -> Iterator[None]:
    """Inside this block an operating system error becomes a `UserError` about `doing`."""
    try:
        yield
    except OSError as error:
        raise from_os_error(error, doing) from error


# --- atomic writes: a file or folder has its final name only when it is whole and on the disk ---------


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")


def _is_temporary(path: Path) -> bool:
    return path.match(f".*.{'[0-9a-f]' * 8}.partial")


def _remove_partial(folder: Path, name: str = "*") -> None:
    """Remove what `_temporary` named in `folder`, for the pattern `name`, and a kill left there."""
    for path in folder.glob(f".{name}.{'[0-9a-f]' * 8}.partial"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def sync_folder(path: Path) -> None:
    """Make renames in folder `path` durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A file to write that becomes `path` at once when it is on the disk, or leaves nothing."""
    part = _temporary(path)
    try:
        yield part
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically and durably."""
    with _replacing(path) as part:
        part.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, atomically and durably."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as JSON that a person can read, atomically and durably."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The value in `path`; a damaged file is a `UserError` that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"could not read {path}",
            "the file is missing",
            "restore it from a backup, or make a new run",
            EXIT_DAMAGED,
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"could not read {path}",
            f"the file is damaged: {error}",
            "restore it from a backup, or delete it and give the same command again",
            EXIT_DAMAGED,
        ) from error


def remove_folder(path: Path) -> None:
    """Remove a folder, its name at once: a kill in the middle leaves a hidden `.NAME.*.partial`, no half of it."""
    part = _temporary(path)
    os.rename(path, part)
    shutil.rmtree(part, ignore_errors=True)


def replace_link(path: Path, target: str) -> None:
    """Let the symbolic link `path` lead to `target`, at once."""
    part = _temporary(path)
    os.symlink(target, part)
    os.replace(part, path)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Fill a temporary folder; on success it becomes `path` at once, sealed with checksums.

    An existing `path` is replaced. On failure nothing is left behind. A kill can leave a hidden
    `.NAME.*.partial` folder, which the next `new_folder` for the same path removes.
    """
    _remove_partial(path.parent, glob.escape(path.name))
    part = _temporary(path)
    part.mkdir(parents=True)
    try:
        yield part
        seal(part)
        if path.exists():
            old = _temporary(path)
            os.rename(path, old)
            os.rename(part, path)
            shutil.rmtree(old)
        else:
            os.rename(part, path)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    sync_folder(path.parent)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Write a temporary file; on success it becomes `path` at once. Else as `new_folder`."""
    _remove_partial(path.parent, glob.escape(path.name))
    with _replacing(path) as part:
        yield part


# --- checksums ------------------------------------------------------------------------------------------

SEAL = "SHA256SUMS"  # in the format of the sha256sum program, so `sha256sum -c SHA256SUMS` checks it too


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(folder: Path) -> None:
    """Write the checksums of all files in `folder` and put everything on the disk.

    Who may read the folder may read its files: some libraries write theirs for their owner only.
    """
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != SEAL)
    rights = folder.stat().st_mode & 0o666
    for file in files:
        file.chmod(rights)
        with open(file, "rb") as handle:
            os.fsync(handle.fileno())
    lines = [f"{sha256_file(p)}  {p.relative_to(folder)}\n" for p in files]
    # The count (a comment to sha256sum) tells when the list was cut off at the end of a line.
    write_text(folder / SEAL, "".join([*lines, f"# {len(files)} files\n"]))


def damage(folder: Path) -> str:
    """What is wrong with a sealed folder: "" when each file has its checksum, else a sentence."""
    seal_file = folder / SEAL
    if not seal_file.exists():
        return f"{seal_file} is missing"
    # Not splitlines(), which would take a flipped bit in a line's end for another kind of line end.
    lines = seal_file.read_bytes().decode("utf-8", "replace").split("\n")
    entries = [line.split("  ", 1) for line in lines[:-2]]
    if lines[-2:] != [f"# {len(entries)} files", ""]:
        return f"{seal_file} is damaged"
    for entry in entries:
        if len(entry) != 2:
            return f"{seal_file} is damaged"
        file = folder / entry[1]
        if not file.is_file():
            return f"{file} is missing"
        if sha256_file(file) != entry[0]:
            return f"{file} does not have its checksum in {SEAL}"
    return ""
