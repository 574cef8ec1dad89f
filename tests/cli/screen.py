"""A terminal of a few lines of code: what a person sees after a program has written to it."""

import fcntl
import os
import pty
import re
import signal
import struct
import termios
import threading

_SEQUENCE = re.compile(r"\x1b\[(\d*)([A-Za-z])|\x1b\[([\d;]*)m")


class Screen:
    """columns: a longer line goes on in the next row, as in a real terminal. rows of text have no end: nothing scrolls."""

    def __init__(self, columns=80):
        self.columns, self.rows, self.x, self.y = columns, [[]], 0, 0

    def write(self, text):
        at = 0
        while at < len(text):
            found = _SEQUENCE.match(text, at)
            if found:
                at = found.end()
                if found[2]:
                    self._control(found[2], int(found[1] or 1))
                continue
            self._put(text[at])
            at += 1
        return len(text)

    def _control(self, letter, number):
        if letter == "A":
            self.y = max(0, self.y - number)
        elif letter == "K":
            del self.rows[self.y][self.x :]
        elif letter == "J":
            del self.rows[self.y][self.x :]
            del self.rows[self.y + 1 :]
        elif letter != "m":
            raise AssertionError(f"unknown control sequence {letter}")

    def _put(self, character):
        assert character != "\x1b", "an unknown control sequence"
        if character == "\r":
            self.x = 0
        elif character == "\n":
            self.x, self.y = 0, self.y + 1
        else:
            if self.x == self.columns:
                self._put("\n")
            row = self.rows[self.y]
            row += " " * (self.x + 1 - len(row))
            row[self.x] = character
            self.x += 1
        while len(self.rows) <= self.y:
            self.rows.append([])

    @property
    def lines(self):
        """What is on the screen, without empty lines at its end."""
        return "\n".join("".join(row).rstrip() for row in self.rows).rstrip().split("\n")

    def resize(self, columns):
        """As most terminals do: lines that are now too long are broken. The cursor stays at its character."""
        cursor = sum(-(-len(row) // columns) or 1 for row in self.rows[: self.y])
        self.rows = [row[i : i + columns] for row in self.rows for i in range(0, max(1, len(row)), columns)]
        self.columns, self.y = columns, cursor
        while len(self.rows) <= self.y:
            self.rows.append([])


def in_terminal(words, columns=80, rows=24, environment=None, during=lambda pid, output: None):
    """Run a command in a terminal of this size: (exit status, everything it wrote).

    during: called in a thread, with the process's id and a function that gives the output so far.
    """
    pid, master = pty.fork()
    if pid == 0:
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        os.environ.update({"TERM": "xterm", **(environment or {})})
        os.execvp(words[0], [str(word) for word in words])
    pieces = []
    helper = threading.Thread(target=during, args=(pid, lambda: b"".join(pieces).decode("utf-8", "replace")))
    helper.start()
    try:
        while True:
            try:
                piece = os.read(master, 65536)
            except OSError:  # Linux: the other side has closed it
                break
            if not piece:
                break
            pieces.append(piece)
    finally:
        helper.join()
        os.close(master)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        status = os.waitpid(pid, 0)[1]
    return os.waitstatus_to_exitcode(status), b"".join(pieces).decode("utf-8", "replace")
