"""What was written, piece by piece, and what a terminal would show of it in the end.

Invariant: a piece is text of one stream from one source, one display or one warning. Carriage
returns overwrite what stands in their own piece and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Final

from nbdurable.records import Message

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

WHOLE: Final = frozenset({"display", "warning"})
"""Kinds whose pieces are data: never joined, cut or overwritten; all others are text."""


@dataclass(slots=True, eq=False)
class Piece:
    """Text of one stream, one display or one warning, from one source."""

    kind: str
    texts: list[str]
    source: object
    display: str = ""
    widget: bool = False

    @property
    def text(self) -> str:
        """The text, or the JSON of a display or warning."""
        return "".join(self.texts)

    @property
    def size(self) -> int:
        """How many characters that is."""
        return sum(map(len, self.texts))


class Roll:
    """Pieces in the order in which they were written."""

    __slots__ = ("pieces", "size")

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.size = 0

    def add(self, kind: str, data: str, source: object) -> Piece:
        """Add to the last piece if it goes on, or begin one."""
        self.size += len(data)
        last = self.pieces[-1] if self.pieces else None
        if last is not None and last.kind == kind and last.source is source and kind not in WHOLE:
            last.texts.append(data)
            return last
        piece = Piece(kind, [data], source)
        self.pieces.append(piece)
        return piece

    def insert_before_last(self, piece: Piece) -> None:
        """Put a piece before the one that may go on."""
        self.size += piece.size
        self.pieces.insert(len(self.pieces) - 1, piece)

    def drop(self, sources: Container[object], *, displays_only: bool = False) -> bool:
        """Take out what came from `sources`; tell whether that was anything."""
        dropped = [
            piece
            for piece in self.pieces
            if piece.source in sources and (piece.kind == "display" or not displays_only)
        ]
        gone = set(map(id, dropped))
        self.pieces = [piece for piece in self.pieces if id(piece) not in gone]
        self.size -= sum(piece.size for piece in dropped)
        return bool(dropped)

    def shows(self, display: str) -> list[Piece]:
        """Return the displays with this id."""
        return [piece for piece in self.pieces if piece.display == display] if display else []

    def replace(self, piece: Piece, data: str) -> None:
        """Give a piece another text."""
        self.size += len(data) - piece.size
        piece.texts = [data]

    def compact(self) -> None:
        """Make room: drop what carriage returns have overwritten, as progress bars do."""
        for piece in self.pieces:
            if piece.kind not in WHOLE:
                self.replace(piece, so_far(piece.text))


def messages_of(pieces: Iterable[Piece], *, settled: bool = True) -> tuple[Message, ...]:
    """Return pieces as messages; `settled`, lines that were overwritten at their last state."""
    found: list[Message] = []
    for kind, run in groupby(pieces, key=lambda piece: piece.kind):
        texts = [piece.text for piece in run]
        if kind in WHOLE:
            found += [Message(kind, text) for text in texts]
        else:
            found.append(Message(kind, "".join(map(last_state, texts) if settled else texts)))
    return tuple(found)


def last_state(text: str) -> str:
    """Keep of each line what a terminal would show after its carriage returns."""
    if "\r" not in text:
        return text
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n".join(overwritten(line) if "\r" in line else line for line in lines)


def overwritten(line: str) -> str:
    """Return what a terminal shows of one line."""
    shown = ""
    for part in line.split("\r"):
        shown = part + shown[len(part) :]
    return shown


def so_far(text: str) -> str:
    """As `last_state`, but the last line can go on: its cursor stays where it is."""
    if "\r" not in text:
        return text
    done, newline, line = text.rpartition("\n")
    before, back, rest = line.rpartition("\r")
    return last_state(done) + newline + overwritten(before) + back + rest
