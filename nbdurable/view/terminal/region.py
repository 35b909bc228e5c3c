"""The lines at the bottom of a terminal that are drawn over and over, below what is printed.

Invariant: what others write comes out unchanged, whole and in its order, through the
stream that they wrote it to: the lines are taken off the screen before and drawn anew
after. The cursor is never hidden and stands below the lines, so that whatever ends the
process leaves a terminal in order.
"""

from __future__ import annotations

import builtins
import os
import re
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final, TextIO

from rich.text import Text

from nbdurable.interrupts import uninterrupted
from nbdurable.output import streams
from nbdurable.output.pieces import so_far

if TYPE_CHECKING:
    from collections.abc import Callable

_SOON: Final = 0.05
"""Seconds between two drawings because of what others write; in between it stays away."""

_LONG: Final = 4000
"""A line of others that is longer and not complete is not written anew."""

_UNTOLD: Final = "\0"
"""Stands for such a line, and counts as one on which somebody draws."""

# Colours are no matter; what moves the cursor is.
_STYLE = re.compile(r"\x1b\[[0-9;:]*m|\x1b\]8;.*?(?:\x1b\\|\x07)")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class Region:
    """The lines of whoever shows some, one group below the other.

    Args:
        stream: The terminal; not a stand-in that passes on to it.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._lock = threading.RLock()
        self._groups: dict[object, list[str]] = {}
        self._guests = 0
        self._widths: list[int] = []
        self._drawn_at = 0.0
        self._drawing = False
        self._asking = 0
        self._input: Callable[..., str] = builtins.input
        # What stands before the cursor on its line; None where that is not known.
        self._line: str | None = None

    def join(self) -> None:
        """Watch what is written; each call wants one `leave`."""
        with uninterrupted(), self._lock:
            self._guests += 1
            if self._guests == 1:
                self._line = None
                streams.interpose(self._pass)
                self._input = builtins.input
                builtins.input = self._ask

    def leave(self) -> None:
        """Watch no more."""
        with uninterrupted(), self._lock:
            self._guests -= 1
            if self._guests == 0:
                streams.interpose(None)
                if builtins.input == self._ask:
                    builtins.input = self._input

    def room(self, who: object) -> int:
        """Return how many lines `who` may show."""
        with self._lock:
            sharing = len(self._groups.keys() | {who})
        return max(1, (self.size().lines - 2) // sharing)

    def size(self) -> os.terminal_size:
        """Return the terminal's columns and lines, as they are now."""
        try:
            columns, lines = os.get_terminal_size(self.stream.fileno())
        except (OSError, ValueError):
            columns, lines = 0, 0
        return os.terminal_size((columns or 80, lines or 24))

    def show(self, who: object, lines: list[str]) -> None:
        """Draw these lines in place of those that `who` showed before; none takes them off."""
        with uninterrupted(), self._lock:
            if lines:
                self._groups[who] = lines
            else:
                self._groups.pop(who, None)
            if self._free():
                self._draw()

    def say(self, text: str) -> None:
        """Write complete lines above the region."""
        with uninterrupted(), self._lock:
            self._erase()
            self._emit(("\n" if self._line else "") + text + "\n")
            self._line = ""
            if self._free():
                self._draw()

    # --- what others write --------------------------------------------------------------

    def _pass(self, stream: TextIO, write: Callable[[str], int], text: str) -> int:
        """Let `text` through, above the region."""
        with uninterrupted(), self._lock:
            if self._drawing:
                return write(text)
            self._erase()
            written = write(text)
            if self._line is not None or "\n" in text:
                self._line = _goes_on((self._line or "") + text)
            over = self._line == "" and time.monotonic() - self._drawn_at >= _SOON
            if over and self._groups and self._free():
                stream.flush()
                self._draw()
            return written

    def _ask(self, *prompt: object) -> str:
        """Read a line, as `input` does, with nothing drawn meanwhile."""
        with uninterrupted(), self._lock:
            self._erase()
            self._asking += 1
        try:
            return self._input(*prompt)
        finally:
            with uninterrupted(), self._lock:
                self._asking -= 1
                self._line = ""

    # --- with the lock held -------------------------------------------------------------

    def _free(self) -> bool:
        """Tell whether lines may be drawn: nobody types, or draws on this line."""
        return not self._asking and (
            self._line is None or not _CONTROL.search(_STYLE.sub("", self._line))
        )

    def _draw(self) -> None:
        """Draw the lines, over those that are there."""
        lines = [line for group in self._groups.values() for line in group]
        if not lines:
            self._erase()
            return
        before = self._up()
        if not self._widths:
            before += self._fresh_line()
        self._emit(before + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J")
        self._widths = [_cells(line) for line in lines]
        self._drawn_at = time.monotonic()

    def _fresh_line(self) -> str:
        """Return what brings the cursor to a line that nothing stands on."""
        self._flush_others()
        if self._line is None:
            # Blanks to the edge run over into the next line unless this one is empty.
            self._line = ""
            return " " * (self._columns() - 1) + "\r"
        return "\n" if self._line else ""

    def _erase(self) -> None:
        """Take the lines off, and put the cursor where who writes has left it."""
        if not self._widths:
            return
        back = self._up()
        if self._line:
            rows = max(1, -(-_cells(self._line) // self._columns()))
            back += f"\x1b[{rows}A\r"
        # First, lest an interrupt in between takes off lines that are not ours the next time.
        self._widths = []
        self._emit(f"{back}\x1b[J{self._line or ''}")

    def _up(self) -> str:
        """Return what brings the cursor to the first of the lines, though they be wrapped now."""
        columns = self._columns()
        rows = sum(max(1, -(-width // columns)) for width in self._widths)
        return f"\r\x1b[{rows}A" if rows else ""

    def _columns(self) -> int:
        return self.size().columns

    def _flush_others(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            _quietly(getattr(stream, "flush", None))

    def _emit(self, text: str) -> None:
        """Write to the terminal; one that has gone is nobody's loss."""
        self._drawing = True
        try:
            _quietly(streams.bare(self.stream), text)
            _quietly(self.stream.flush)
        finally:
            self._drawing = False


def _quietly(act: Callable[..., object] | None, *arguments: Any) -> None:
    """Do it, unless the stream is closed, or the terminal has gone."""
    if act is not None:
        try:
            act(*arguments)
        except (OSError, ValueError):
            return


def _goes_on(text: str) -> str:
    """Return what stands on the last line of `text`."""
    line = so_far(text.rpartition("\n")[2])
    return line if len(line) <= _LONG else _UNTOLD


def _cells(line: str) -> int:
    """Return how many columns a line takes."""
    return Text.from_ansi(line).cell_len
