"""What a step writes, sent on while it runs, so that in the end its last state is shown.

Invariant: after `end` what was shown is what the capture holds, whatever was taken
back, changed, or held up by a pause meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from .pieces import BAR, WHOLE, Bars, Piece, Roll, last_state, messages_of, overwritten, so_far

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from nbdurable.records import Message

_PARTS = 64
"""A line in so many parts is looked through for what it has overwritten."""


class Place(Protocol):
    """Where it is shown."""

    alone: bool

    @property
    def raw(self) -> bool:
        """Tell whether carriage returns are understood there."""

    @property
    def lasting(self) -> bool:
        """Tell whether text that was shown there can't be taken back."""

    @property
    def bars(self) -> bool:
        """Tell whether bars are shown apart as long as they move, and as text when they end."""

    def emit(self, kind: str, data: str, source: object) -> None:
        """Show a piece."""

    def move(self, bar: object, state: str) -> None:
        """Show how far a bar is, by its text or its display; nothing ends that."""

    def retract(self, sources: Container[object], *, more: bool) -> None:
        """Take back what came from `sources`; `more` tells that other output follows."""


class Live:
    """Sends pieces on, so that what is shown in the end is their last state.

    Where carriage returns are understood, they go on as they come, and the cursor is
    left behind the text of a piece; where others write too, when they are flushed.
    Elsewhere a line goes on when it is complete. A bar that moves is shown apart, and goes on
    when it has ended, as one line.
    """

    def __init__(self, destination: Place) -> None:
        self._destination = destination
        self._emit: Callable[[str, str, object], object] = destination.emit
        self._raw = destination.raw
        self.lasting = destination.lasting
        self._alone = destination.alone
        self._bars = Bars() if destination.bars else None
        self._moving: set[object] = set()
        self._held = ""
        self._piece: Piece | None = None
        self._line: list[str] = []
        self._shown: set[object] = set()
        self._kept: list[tuple[Piece, str]] | None = None

    def send(self, piece: Piece, data: str | None = None) -> None:
        """Show a piece, or what of it has come now."""
        if self._kept is not None:
            self._kept.append((piece, piece.text if data is None else data))
            return
        if piece is not self._piece:
            self._settle()
            self._piece = piece
        self._shown.add(piece.source)
        if piece.bar and self._bars is not None:
            self._move(piece, piece.text)
        elif piece.kind in WHOLE:
            self._emit(piece.kind, piece.text, piece.source)
        elif piece.kind == "stderr" and self._bars is not None:
            self._send_bars(self._bars, piece, piece.text if data is None else data)
        else:
            self._send_text(piece, piece.text if data is None else data)

    def forget(self, piece: Piece) -> None:
        """Show a widget's bar no more; what it leaves, if anything, is sent as another piece."""
        if self._kept is not None:
            self._kept = [kept for kept in self._kept if kept[0] is not piece]
        self._move(piece, "")

    def move(self, bar: object, state: str) -> None:
        """Show how far a bar is of a step that writes here, too."""
        if self._kept is None:
            self._move(bar, state)

    def change(self, piece: Piece, update: str) -> None:
        """Show a display with another content."""
        if self._kept is None or all(kept is not piece for kept, _ in self._kept):
            self._destination.emit("display", update, piece.source)

    def retract(self, sources: Container[object], *, more: bool) -> None:
        """Take back what came from `sources`."""
        if self._kept is not None:
            self._kept = [kept for kept in self._kept if kept[0].source not in sources]
        if self._piece is not None and self._piece.source in sources:
            self._piece, self._line, self._held = None, [], ""
        if self._bars is not None:
            self._bars.drop(sources)
        for bar in [one for one in self._moving if getattr(one, "source", one) in sources]:
            self._move(bar, "")
        if any(source in sources for source in self._shown):
            self._destination.retract(sources, more=more)

    def pause(self) -> None:
        """Keep what follows."""
        if self._kept is None:
            self._kept = []

    def go_on(self) -> None:
        """Show what was kept, and what follows."""
        kept, self._kept = self._kept or [], None
        for piece, data in kept:
            self.send(piece, data)

    def flush(self) -> None:
        """Show what is held back only because others write here, too."""
        if self._piece is not None and self._kept is None:
            held, self._held = self._held, ""
            self._show(self._piece, held)

    def end(self) -> tuple[Message, ...]:
        """Show what is held back of a line; or, in a pause, give what was not shown."""
        rest = Roll()
        if self._kept is not None:
            self._emit = rest.add
            self.go_on()
        self._settle()
        for kind, text, source in self._bars.rest() if self._bars is not None else ():
            self._emit(kind, text, source)
        for bar in tuple(self._moving):
            self._move(bar, "")
        return messages_of(rest.pieces, settled=False)

    def _send_bars(self, bars: Bars, piece: Piece, data: str) -> None:
        """Show what of stderr is no bar, and the bars that have ended; the last one moves."""
        for kind, text in bars.take(data, piece.source):
            if kind == BAR:
                self._move(piece.source, "")
                self._emit(kind, text, piece.source)
            else:
                self._send_text(piece, text)
        self._move(piece.source, bars.moving(piece.source) if self._alone else "")

    def _move(self, bar: object, state: str) -> None:
        """Show how far a bar is, where somebody looks; nothing takes it away."""
        if state and self._raw:
            self._moving.add(bar)
        elif bar not in self._moving:
            return
        else:
            self._moving.discard(bar)
        self._destination.move(bar, state)

    def _send_text(self, piece: Piece, data: str) -> None:
        done, newline, rest = data.rpartition("\n")
        if newline:
            if not self._raw:
                self._show(piece, last_state("".join((*self._line, done, newline))))
            self._line = []
        if rest:
            self._line.append(rest)
            if len(self._line) > _PARTS and any("\r" in part for part in self._line):
                self._line = [so_far("".join(self._line))]
        if self._raw and self._alone:
            self._show(piece, data)
        elif self._raw:
            done, newline, self._held = (self._held + data).rpartition("\n")
            self._show(piece, done + newline)

    def _settle(self) -> None:
        """Show what is held back of the last piece's line, and leave the cursor behind it."""
        self.flush()
        piece, line = self._piece, "".join(self._line)
        self._piece, self._line = None, []
        if piece is None or not line:
            return
        if not self._raw:
            self._show(piece, last_state(line))
        elif "\r" in line:
            self._show(piece, "\r" + overwritten(line))

    def _show(self, piece: Piece, text: str) -> None:
        if text:
            self._emit(piece.kind, text, piece.source)
