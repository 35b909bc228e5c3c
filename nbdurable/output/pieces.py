"""What was written, piece by piece, and what a terminal would show of it in the end.

Invariant: a piece is text of one stream from one source, one display or one warning. Carriage
returns overwrite what stands in their own piece and nothing else; but a line of stderr that
begins with one is a progress bar, which goes on past what is written elsewhere meanwhile.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Final

from nbdurable.records import Message

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

BAR: Final = "bar"
"""The kind of a progress bar that has ended: its last state, a whole line.

An empty one stands where the first bar began: there is the place in which they move.
"""

WHOLE: Final = frozenset({"display", "warning", BAR})
"""Kinds whose pieces are data: never joined, cut or overwritten; all others are text."""

_LONG: Final = 4096
"""A bar that was drawn in so many characters is kept as what they show."""


@dataclass(slots=True, eq=False)
class Piece:
    """Text of one stream, one display or one warning, from one source.

    ``bar`` tells a display that is a widget's progress bar, which moves.
    """

    kind: str
    texts: list[str]
    source: object
    display: str = ""
    widget: bool = False
    bar: bool = False

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

    def remove(self, piece: Piece) -> None:
        """Take out one piece."""
        self.pieces.remove(piece)
        self.size -= piece.size

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


class Bars:
    """Tells progress bars in what is written to stderr: lines that begin with a carriage return.

    A bar ends with its line. Each source has a line of its own that may go on.
    """

    __slots__ = ("_begun", "_lines")

    def __init__(self) -> None:
        self._begun = False
        self._lines: dict[object, str] = {}  # a bar so far; empty within any other line

    def take(self, data: str, source: object) -> list[tuple[str, str]]:
        """Return what there is to show of `data` now, by kinds: text of stderr, ended bars."""
        if "\r" not in data and not self._lines.get(source):
            self._leave_open(source, data)
            return [("stderr", data)]
        found: list[tuple[str, str]] = []
        for part in re.findall(r"[^\n]*\n|[^\n]+", data):
            before = self._lines.pop(source, None)
            line = (before or "") + part
            if before == "" or not line.startswith("\r"):
                self._leave_open(source, part)
                found.append(("stderr", part))
                continue
            # A carriage return alone may be the first half of a line's end.
            if not self._begun and line.strip("\r\n"):
                self._begun = True
                found.append((BAR, ""))
            if part.endswith("\n"):
                found += _ended(line)
            else:
                self._lines[source] = line if len(line) < _LONG else so_far(line)
        return _joined(found)

    def moving(self, source: object) -> str:
        """Return what is to be seen of a source's bar; empty if it draws none."""
        return overwritten(self._lines.get(source, ""))

    def rest(self) -> list[tuple[str, str, object]]:
        """Return what there is to show of bars that nobody has ended, with their sources."""
        left, self._lines = self._lines, {}
        return [(*one, source) for source, line in left.items() for one in _ended(line)]

    def drop(self, sources: Container[object]) -> None:
        """Forget the bars of `sources`."""
        self._lines = {one: line for one, line in self._lines.items() if one not in sources}

    def _leave_open(self, source: object, text: str) -> None:
        """Note whether what is no bar goes on in its line."""
        if text.endswith("\n"):
            self._lines.pop(source, None)
        elif text:
            self._lines[source] = ""


def _ended(line: str) -> list[tuple[str, str]]:
    """Return what a bar leaves, and what was written in its line when it had been blanked."""
    body = line.removesuffix("\n").removesuffix("\r")
    ending = "\n" if line.endswith("\n") else ""
    *before, last = body.split("\r")
    shown = overwritten(body)
    if not shown.strip():
        return [("stderr", ending)] if ending else []
    if last and before and before[-1] and not before[-1].strip():
        return [("stderr", last + ending)]
    return [(BAR, f"{shown}\n")]


def _joined(parts: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Join text that follows on text."""
    found: list[tuple[str, str]] = []
    for kind, run in groupby(parts, key=lambda part: part[0]):
        texts = [text for _, text in run]
        found += [(kind, text) for text in (texts if kind in WHOLE else ("".join(texts),))]
    return found


def messages_of(pieces: Iterable[Piece], *, settled: bool = True) -> tuple[Message, ...]:
    """Return pieces as messages; `settled`, lines that were overwritten at their last state."""
    parts = _settled(pieces) if settled else ((piece.kind, piece.text) for piece in pieces)
    return tuple(Message(*part) for part in _joined([*parts]))


def _settled(pieces: Iterable[Piece]) -> Iterator[tuple[str, str]]:
    bars = Bars()
    for piece in pieces:
        if piece.kind in WHOLE:
            yield piece.kind, piece.text
        elif piece.kind == "stderr":
            for kind, text in bars.take(piece.text, piece.source):
                yield kind, text if kind == BAR else last_state(text)
        else:
            yield piece.kind, last_state(piece.text)
    for kind, text, _ in bars.rest():
        yield kind, text


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
    lines = ["\r" * one.startswith("\r") + last_state(one) for one in done.split("\n") if newline]
    # A line that begins with a carriage return is told by that to be a bar.
    first = "\r" * before.startswith("\r")
    return "\n".join(lines) + newline + first + overwritten(before) + back + rest
