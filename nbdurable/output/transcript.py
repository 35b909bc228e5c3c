"""What a cell has shown so far, kept so that a step's part of it can be taken back.

Invariant: what is remembered is what is on the screen, or nothing is taken back.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from .pieces import Piece, Roll

if TYPE_CHECKING:
    from collections.abc import Callable, Container

SCREEN_CHARACTERS = 10_000_000
"""More than this of a cell is not remembered."""


class Screen:
    """What a cell has shown, so that a step's part of it can be taken back.

    A front end can only be told to clear the whole cell: what is to stay is shown
    anew. Who shows something holds the lock while it is noted and shown.
    """

    def __init__(
        self, clear: Callable[[bool], object], emit: Callable[[str, str, object], object]
    ) -> None:
        self._clear = clear
        self._emit = emit
        self._roll = Roll()
        self._lost = False
        self.lock = threading.RLock()

    def note(self, kind: str, data: str, source: object, display: str = "") -> None:
        """Remember a piece that is being shown."""
        with self.lock:
            if self._lost:
                return
            self._roll.add(kind, data, source).display = display
            if self._roll.size > SCREEN_CHARACTERS:
                self._roll, self._lost = Roll(), True

    def change(self, display: str, data: str) -> bool:
        """Remember that a display is shown with another content; False if it is not here."""
        with self.lock:
            pieces = self._roll.shows(display)
            for piece in pieces:
                self._roll.replace(piece, data)
            return bool(pieces)

    def forget(self) -> None:
        """The cell is being cleared."""
        with self.lock:
            self._roll, self._lost = Roll(), False

    def retract(self, sources: Container[object], *, more: bool) -> None:
        """Take from the screen what came from `sources`; `more` tells that output follows."""
        with self.lock:
            if not self._lost and self._roll.drop(sources):
                self._show_anew(more=more)

    def open_line(self) -> object:
        """Return the source of the line that is shown last, if it is not complete; else None."""
        with self.lock:
            last = self._roll.pieces[-1] if self._roll.pieces else None
            if last is None or last.kind == "display" or last.texts[-1].endswith("\n"):
                return None
            return last.source

    def insert(self, data: str, display: str) -> None:
        """Show a display before what is shown last."""
        with self.lock:
            self._roll.insert_before_last(Piece("display", [data], None, display))
            self._show_anew(more=True)

    def _show_anew(self, *, more: bool) -> None:
        self._clear(more or bool(self._roll.pieces))
        for piece in self._roll.pieces:
            self._emit(piece.kind, piece.text, piece.source)
