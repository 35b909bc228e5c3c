"""A small terminal: what a person sees of what a program wrote to its pseudo-terminal."""

from __future__ import annotations

import os
import re
import sys

import pexpect

_TOKEN = re.compile(
    r"\x1b\[([?>=]?)([0-9;:]*)([A-Za-z])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[=>()][A-B0]?|.",
    re.DOTALL,
)
_BEGUN = re.compile(r"\x1b(?:\[[?>=]?[0-9;:]*|\][^\x07\x1b]*\x1b?)?\Z")


class Screen:
    """Lines and a cursor; what scrolls out at the top is kept. Colours are dropped."""

    def __init__(self, columns=100, rows=24):
        self.columns, self.rows = columns, rows
        self.lines = [""]
        self.row = self.column = 0
        self.asked_for = set()
        self._cut = ""

    def feed(self, text):
        """Take what a program wrote; a code that was cut off waits for its rest."""
        text = self._cut + text
        whole = len(text)
        if (begun := _BEGUN.search(text)) is not None:
            whole = begun.start()
        self._cut = text[whole:]
        for found in _TOKEN.finditer(text[:whole]):
            if found[3]:
                self._control(found[1] + found[3], found[2])
            elif len(found[0]) == 1:
                self._letter(found[0])

    @property
    def text(self):
        """All lines, without blanks at their ends, nor empty lines at the bottom."""
        return "\n".join(line.rstrip() for line in self.lines).rstrip("\n")

    def _letter(self, letter):
        if letter == "\n":
            self._move(self.row + 1, self.column)
        elif letter == "\r":
            self.column = 0
        elif letter == "\b":
            self.column = max(0, self.column - 1)
        elif letter >= " ":
            if self.column == self.columns:
                self._move(self.row + 1, 0)
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[: self.column] + letter + line[self.column + 1 :]
            self.column += 1

    def _move(self, row, column):
        top = max(0, len(self.lines) - self.rows)
        self.row, self.column = max(top, row), column
        while len(self.lines) <= self.row:
            self.lines.append("")

    def _control(self, what, numbers):
        number = int(numbers or 1) if numbers.isdecimal() or not numbers else 1
        if what == "A":
            self._move(self.row - number, self.column)
        elif what == "B":
            self._move(self.row + number, self.column)
        elif what == "C":
            self.column = min(self.columns - 1, self.column + number)
        elif what == "D":
            self.column = max(0, self.column - number)
        elif what in {"J", "K"}:
            assert numbers in {"", "0", "2"}, (what, numbers)
            start = 0 if numbers == "2" else self.column
            self.lines[self.row] = self.lines[self.row][:start]
            if what == "J":
                del self.lines[self.row + 1 :]
        else:
            self.asked_for.add(what + numbers)


class Terminal:
    """A program in a pseudo-terminal, and what is seen of it."""

    def __init__(self, arguments, folder, *, columns=100, rows=24, **env):
        inherited = {
            k: v for k, v in os.environ.items() if k not in {"CI", "NO_COLOR", "COLUMNS", "LINES"}
        }
        self.child = pexpect.spawn(
            sys.executable,
            [str(one) for one in arguments],
            cwd=str(folder),
            env=inherited | {"TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1"} | env,
            encoding="utf-8",
            timeout=60,
            dimensions=(rows, columns),
        )
        self.screen = Screen(columns, rows)
        self.written = ""
        self.seen = []

    def until(self, wanted):
        """Take what comes until ``wanted(screen text)`` holds; give that text."""
        while not wanted(self.screen.text):
            try:
                came = self.child.read_nonblocking(65_536, timeout=60)
            except pexpect.EOF:
                assert wanted(self.screen.text), self.screen.text
                break
            self.written += came
            self.screen.feed(came)
            self.seen.append(self.screen.text)
        return self.screen.text

    def wait(self, *words):
        """Take what comes until all these words, or patterns, are on the screen at once.

        What a program writes at once can come in two pieces: what is looked for on the
        same screen belongs into one call.
        """
        return self.until(
            lambda text: all(
                word in text if isinstance(word, str) else word.search(text) for word in words
            )
        )

    def end(self):
        """Take what comes until the program ends; give all that is left on the screen."""
        while True:
            try:
                came = self.child.read_nonblocking(65_536, timeout=60)
            except pexpect.EOF:
                break
            self.written += came
            self.screen.feed(came)
            self.seen.append(self.screen.text)
        self.child.close()
        return self.screen.text

    def close(self):
        """End the program if it still runs."""
        self.child.close(force=True)
