"""What goes wrong, said so that a person can mend it: what happened, why, and the fix.

Every failure that a user can cause or meet (bad input, a full disk, a damaged file) is raised as a
`UserError`; the command line prints it and ends with its exit code. Anything else that escapes is a
bug in crystalline, and a traceback is then the right thing to see.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable
from typing import Any

# Exit codes of `cllm`, documented in docs/commands.md. 130 is the shell's own code for Ctrl-C.
EXIT_OK = 0
EXIT_FAILED = 1  # the input or the data cannot be used as asked
EXIT_USAGE = 2  # a flag or a setting is wrong
EXIT_BUSY = 3  # another process works in this run folder
EXIT_DAMAGED = 4  # a file of the run folder is damaged and there is no good copy
EXIT_SYSTEM = 5  # no disk space, no permission, no memory
EXIT_INTERRUPTED = 130


class UserError(Exception):
    """A failure with its reason and its remedy.

    what: what could not be done, in one sentence.
    why: the cause, with the offending value or path.
    fix: what to type or change.
    exit_code: what `cllm` ends with.
    """

    def __init__(self, what: str, why: str, fix: str, exit_code: int = EXIT_FAILED) -> None:
        super().__init__(f"{what}\n  why: {why}\n  fix: {fix}")
        self.what, self.why, self.fix, self.exit_code = what, why, fix, exit_code

    def __reduce__(self) -> tuple[type[UserError], tuple[Any, ...]]:
        return UserError, (self.what, self.why, self.fix, self.exit_code)  # so that a process can send it to another


class Interrupted(Exception):
    """The user asked to stop (Ctrl-C or SIGTERM), and everything worth keeping is on disk."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that there was not enough memory, in the words of Python, the system or PyTorch."""
    if isinstance(error, RuntimeError):
        words = ("allocate memory", "DefaultCPUAllocator", "out of memory", "ALLOC_FAILED")  # the last: of cuBLAS
        return any(word in str(error) for word in words)
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)


def suggest(name: str, valid: Iterable[str]) -> str:
    """ "did you mean 'x'?", or the list of valid names when none is near."""
    names = sorted(valid)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else f"use one of: {', '.join(names)}"


def from_os_error(error: OSError, doing: str) -> UserError:
    """Turn the operating system's refusal into a `UserError` (ENOSPC, EACCES, EROFS, ...)."""
    where = f" ({error.filename})" if error.filename else ""
    fixes = {
        errno.ENOSPC: "free some disk space, then give the same command again: it continues",
        errno.EDQUOT: "free some of your disk quota, then give the same command again",
        errno.EACCES: "check the permissions of this path, or choose another run folder",
        errno.EPERM: "check the permissions of this path, or choose another run folder",
        errno.EROFS: "choose a run folder on a disk that can be written",
    }
    fix = fixes.get(error.errno or 0, "check this path, then give the same command again")
    return UserError(f"could not {doing}", f"{error.strerror or error}{where}", fix, EXIT_SYSTEM)
