"""A model in one file, `.cllm`: everything that a checkpoint folder needs to be used, in an uncompressed zip archive.

    model.safetensors       the weights, fp32
    recipe.json             every setting, settled
    tokenizer.json codes.json
    about.json              name, licence, where it is from, how it was trained
    SHA256SUMS

So any zip program opens it, and what it unpacks is a folder that every verb takes as a model. The same model gives
the same bytes. Reading unpacks into a temporary folder that is gone when the process ends, and checks every byte: a
damaged file is named, and what is wrong in it.
"""

from __future__ import annotations

import atexit
import errno
import hashlib
import io
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from crystalline.errors import EXIT_DAMAGED, UserError
from crystalline.run_folder import SEAL, damage, reporting_os_errors

ABOUT = "about.json"
SUFFIX = ".cllm"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")  # of a file in it: no folder, nothing hidden
_ALWAYS_THE_SAME = (1980, 1, 1, 0, 0, 0)  # a date, which the format wants for each file
_COPY_BYTES = 1 << 20


def pack(path: Path, files: Mapping[str, Path | bytes]) -> None:
    """Write `path` with these files and their checksums. files: name -> where it is, or what is in it."""
    sums = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, content in sorted(files.items()):
            digest = hashlib.sha256()
            with _opened(content) as source, archive.open(_entry(name), "w", force_zip64=True) as target:
                while data := source.read(_COPY_BYTES):
                    digest.update(data)
                    target.write(data)
            sums.append(f"{digest.hexdigest()}  {name}\n")
        archive.writestr(_entry(SEAL), "".join([*sums, f"# {len(sums)} files\n"]))


def _opened(content: Path | bytes) -> BinaryIO:
    return io.BytesIO(content) if isinstance(content, bytes) else open(content, "rb")


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _ALWAYS_THE_SAME)
    entry.external_attr = 0o644 << 16
    return entry


def unpack(path: Path) -> Path:
    """A temporary folder with what is in `path`, checked.

    Raises UserError (exit code 4) when it is damaged, and (1) when it is no such file.
    """
    with reporting_os_errors(f"read {path}"):
        if not zipfile.is_zipfile(path):
            raise _unreadable(path, "it is no .cllm file, or its end is missing")
        top = Path(tempfile.mkdtemp(prefix="cllm-"))
        atexit.register(_remove, top, os.getpid())
        folder = top / (path.stem or "model")
        folder.mkdir()
        try:
            with zipfile.ZipFile(path) as archive:
                _extract(archive, path, folder)
        except UserError:
            raise
        except Exception as error:  # the library raises many kinds for an archive that is damaged
            if isinstance(error, OSError) and error.errno != errno.EINVAL:  # a place before the beginning
                raise
            raise _unreadable(path, str(error)) from error
    if reason := damage(folder):
        raise _unreadable(path, reason.replace(f"{folder}{os.sep}", ""))
    listed = {line.split("  ", 1)[-1] for line in (folder / SEAL).read_text("utf-8").split("\n")}
    if more := {file.name for file in folder.iterdir()} - listed - {SEAL}:
        raise _unreadable(path, f"{', '.join(sorted(more))} has no checksum in it")
    return folder


def _extract(archive: zipfile.ZipFile, path: Path, folder: Path) -> None:
    seen: set[str] = set()
    for info in archive.infolist():
        name = info.filename
        if not _NAME.fullmatch(name) or name in seen:
            raise _unreadable(path, f"it has a file {name!r}, which no .cllm file has")
        if info.compress_type != zipfile.ZIP_STORED:  # so it cannot become larger than the file is
            raise _unreadable(path, f"{name} is compressed")
        seen.add(name)
        with archive.open(info) as source, open(folder / name, "xb") as target:
            shutil.copyfileobj(source, target, _COPY_BYTES)


def _unreadable(path: Path, why: str) -> UserError:
    return UserError(
        f"could not read {path}", why, "get the file again, or give the path of a run folder", EXIT_DAMAGED
    )


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # not in a process that was forked from the one that reads it
        shutil.rmtree(folder, ignore_errors=True)
