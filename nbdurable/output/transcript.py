"""What a cell has shown so far, kept so that a step's part of it can be taken back.

Invariant: what is remembered is what is on the screen, or nothing is taken back. Bars that
move have a display of their own, which stands where the first of them was, empty when none
moves: so what is left is the same where nobody has seen them move.
"""

from __future__ import annotations

import contextvars
import json
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

from .pieces import Piece, Roll

if TYPE_CHECKING:
    from collections.abc import Callable, Container

SCREEN_CHARACTERS = 10_000_000
"""More than this of a cell is not remembered."""

PERIOD = 0.2
"""Seconds between two states of bars that are text."""


class Screen:
    """What a cell has shown, so that a step's part of it can be taken back.

    A front end can only be told to clear the whole cell: what is to stay is shown
    anew. Who shows something holds the lock while it is noted and shown.
    """

    def __init__(
        self,
        clear: Callable[[bool], object],
        emit: Callable[[str, str, object], object],
        draw: Callable[[str, list[dict[str, Any]]], object] | None = None,
    ) -> None:
        self._clear = clear
        self._emit = emit
        self._draw = draw
        self._place = ""
        self._bars: dict[object, dict[str, Any]] = {}
        self._drawn: set[object] = set()
        self._drawn_at = 0.0
        self._later: threading.Timer | None = None
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
            self._place, self._drawn = "", set()

    def retract(self, sources: Container[object], *, more: bool) -> None:
        """Take from the screen what came from `sources`; `more` tells that output follows."""
        with self.lock:
            if not self._lost and self._roll.drop(sources):
                if not self._roll.shows(self._place):
                    self._place, self._drawn = "", set()
                self._show_anew(more=more)

    def reserve(self, source: object) -> None:
        """Display nothing, once, where bars are to move, of which `source` has the first."""
        with self.lock:
            if not self._place:
                self._place = uuid.uuid4().hex
                bundle = {"data": {}, "metadata": {}, "transient": {"display_id": self._place}}
                self.note("display", json.dumps(bundle), source, self._place)
                self._emit("display", json.dumps(bundle), None)

    def move(self, bar: object, state: str) -> None:
        """Show how far a bar is, a widget's by its display; nothing takes it away."""
        with self.lock:
            if self._draw is None:
                return
            if not state:
                self._bars.pop(bar, None)
                if bar in self._drawn:
                    self._draw_bars()
            elif isinstance(bar, Piece):
                self._bars[bar] = json.loads(state)
                self._draw_bars()
            else:
                self._bars[bar] = {"data": {"text/plain": state}}
                self._draw_soon()

    def _draw_soon(self) -> None:
        wait = self._drawn_at + PERIOD - time.monotonic()
        if wait <= 0:
            self._draw_bars()
        elif self._later is None:
            draw = contextvars.copy_context().run
            self._later = threading.Timer(wait, draw, (self._draw_bars,))
            self._later.name, self._later.daemon = "nbdurable bars", True
            self._later.start()

    def _draw_bars(self) -> None:
        """Show what moves now; what a timer was to show is shown by that, too."""
        with self.lock:
            if self._later is not None:
                self._later.cancel()
                self._later = None
            if self._draw is None or not self._place or not (self._bars or self._drawn):
                return
            self._drawn, self._drawn_at = set(self._bars), time.monotonic()
            self._draw(self._place, list(self._bars.values()))

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
        if self._drawn:
            self._draw_bars()
