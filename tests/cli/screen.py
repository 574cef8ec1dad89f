"""A terminal of a few lines of code: what a person sees after a program has written to it."""

import fcntl
import os
import pty
import re
import struct
import termios
import threading

from commands import Command

_SEQUENCE = re.compile(r"\x1b\[(\d*)([A-Za-z])|\x1b\[([\d;]*)m")


class Screen:
    """columns: a longer line goes on in the next row, as in a real terminal. Rows have no end: nothing scrolls."""

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


def in_terminal(*words, folder, columns=80, rows=24, during=lambda command, output: None):
    """Run a command in a terminal of this size: (exit code, everything it wrote).

    during: called in a thread, with the command and a function that gives the output so far.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    pieces = []
    with Command(*words, folder=folder, terminal=theirs) as command:
        os.close(theirs)
        helper = threading.Thread(target=during, args=(command, lambda: b"".join(pieces).decode("utf-8", "replace")))
        helper.start()
        while True:
            try:
                pieces.append(os.read(ours, 65536))
            except OSError:  # Linux: nobody holds the other side any more
                break
            if not pieces[-1]:
                break
        code = command.wait().code
        helper.join()
    os.close(ours)
    return code, b"".join(pieces).decode("utf-8", "replace")
