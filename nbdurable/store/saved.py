"""A run's checkpoints, packed: a million small ones fit beside a person's data.

Invariant: each as it was committed, and each call's versions in commit order. Whoever
asks gets an equal `Checkpoint`, made anew; its signature is not verified yet. What is
held for one is its call and one piece of bytes, which the garbage collector never visits.
"""

from __future__ import annotations

import dataclasses
import marshal
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any

from nbdurable.records import Checkpoint, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

Identity = tuple[bytes, bytes]
"""(call, version)"""

Group = tuple[bytes, str]
"""(namespace, name): what the outcomes of one step are saved under"""

_FIELDS = tuple(field.name for field in dataclasses.fields(Checkpoint))
# Many checkpoints have these alike; they are held once for all that do.
_ALIKE = ("namespace", "name", "code", "execution", "kind")  # the kind comes last
_OWN = tuple(name for name in _FIELDS if name not in (*_ALIKE, "call"))

COLUMNS = (*_ALIKE, "call", *_OWN)
"""The fields of a row, in the order in which they are taken here."""

_CALL = len(_ALIKE)
_KIND, _NUMBER, _CAUSE, _STARTED, _SECONDS, _PIECES = map(
    COLUMNS.index, ("kind", "number", "cause", "started", "seconds", "pieces")
)
_in_order_of_fields = itemgetter(*map(COLUMNS.index, _FIELDS))
_number = attrgetter("number")
_KINDS = {kind.value: kind for kind in Kind}


def checkpoint_of(row: Sequence[Any]) -> Checkpoint:
    """Make a checkpoint of a row of `COLUMNS`."""
    return Checkpoint(*_in_order_of_fields((*_with_kind(row[:_CALL]), *row[_CALL:])))


def _with_kind(alike: Sequence[Any]) -> tuple[Any, ...]:
    # An unknown kind stays as it is: its signature fails where it is asked for.
    return (*alike[:_KIND], _KINDS.get(alike[_KIND], alike[_KIND]))


class Saved:
    """Checkpoints by call and version, and by namespace and name."""

    def __init__(self) -> None:
        self.last_number = 0
        self.last_ended = 0.0
        self._newest: dict[bytes, bytes] = {}
        self._older: dict[bytes, list[bytes]] = {}
        self._alike: list[tuple[Any, ...]] = []
        self._places: dict[tuple[Any, ...], tuple[int, list[bytes]]] = {}
        self._calls: dict[Group, list[bytes]] = {}
        self._special: dict[bytes, None] = {}  # calls that have an outcome without a value

    def __len__(self) -> int:
        return len(self._newest) + sum(map(len, self._older.values()))

    def __contains__(self, identity: Identity) -> bool:
        return self.get(identity) is not None

    def __iter__(self) -> Iterator[Checkpoint]:
        for call in self._newest:
            yield from self.versions(call)

    def add(self, rows: Iterable[tuple[Any, ...]], with_pieces: Callable[[bytes], object]) -> bool:
        """Take in committed rows of `COLUMNS`; stop and give False at one out of commit order.

        Args:
            rows: What the store holds.
            with_pieces: Called with the pieces of each that has some.
        """
        newest, older, special, pack = self._newest, self._older, self._special, marshal.dumps
        last, last_ended = self.last_number, self.last_ended
        before: tuple[Any, ...] = ()
        for row in rows:
            if row[_NUMBER] < last:
                return False
            last = row[_NUMBER]
            alike, call = row[:_CALL], row[_CALL]
            if alike != before:
                before = alike
                place, calls = self._place_of(alike)
            calls.append(call)
            if call in newest:
                older.setdefault(call, []).append(newest[call])
            newest[call] = pack((place, *row[_CALL + 1 :]))
            last_ended = max(last_ended, row[_STARTED] + row[_SECONDS])
            if row[_KIND] != _VALUE or row[_CAUSE]:
                special[call] = None
            if row[_PIECES]:
                with_pieces(row[_PIECES])
        self.last_number, self.last_ended = last, last_ended
        return True

    def _place_of(self, alike: tuple[Any, ...]) -> tuple[int, list[bytes]]:
        found = self._places.get(alike)
        if found is None:
            calls = self._calls.setdefault(alike[:2], [])
            found = self._places[alike] = len(self._alike), calls
            self._alike.append(_with_kind(alike))
        return found

    def get(self, identity: Identity) -> Checkpoint | None:
        """Give the checkpoint of a call and version, or None."""
        call, version = identity
        packed = self._newest.get(call)
        if packed is None:
            return None
        found = self._unpacked(call, packed)
        if found.version == version:
            return found
        return next((one for one in self.versions(call) if one.version == version), None)

    def has_value(self, identity: Identity) -> bool:
        """Tell whether a call and version has a value, and neither failed nor was cancelled."""
        call, version = identity
        for packed in (self._newest.get(call), *self._older.get(call, ())):
            if packed is not None:
                place, own_version, *_ = marshal.loads(packed)  # noqa: S302 - as in _unpacked
                if own_version == version:
                    return self._alike[place][_KIND] is Kind.VALUE
        return False

    def versions(self, call: bytes) -> list[Checkpoint]:
        """Give the checkpoints of a call, in commit order."""
        newest = self._newest.get(call)
        if newest is None:
            return []
        return [self._unpacked(call, one) for one in (*self._older.get(call, ()), newest)]

    def newest(self, call: bytes) -> Checkpoint | None:
        """Give the last checkpoint of a call, or None."""
        packed = self._newest.get(call)
        return None if packed is None else self._unpacked(call, packed)

    def calls(self, group: Group) -> dict[bytes, None]:
        """Give the calls that have a checkpoint of this namespace and name, the oldest first."""
        return dict.fromkeys(self._calls.get(group, ()))

    def groups(self) -> Collection[Group]:
        """Give each namespace and name under which there is a checkpoint."""
        return self._calls.keys()

    def without_value(self) -> list[Checkpoint]:
        """Give the errors, the cancellations, and what a decision is said to have caused."""
        found = [
            one
            for call in self._special
            for one in self.versions(call)
            if one.cause or one.kind is not Kind.VALUE
        ]
        return sorted(found, key=_number)

    def remove(self, checkpoints: Iterable[Checkpoint]) -> None:
        """Let go of checkpoints that are here."""
        gone: dict[bytes, set[int]] = {}
        groups: dict[Group, None] = {}
        for one in checkpoints:
            gone.setdefault(one.call, set()).add(one.number)
            groups[one.namespace, one.name] = None
        for call, numbers in gone.items():
            packed = [*self._older.pop(call, ()), self._newest[call]]
            kept = [one for one in packed if self._unpacked(call, one).number not in numbers]
            if kept:
                self._newest[call] = kept.pop()
            else:
                del self._newest[call]
            if kept:
                self._older[call] = kept
        for group in groups:
            self._calls[group][:] = [call for call in self._calls[group] if call in self._newest]

    def _unpacked(self, call: bytes, packed: bytes) -> Checkpoint:
        place, *own = marshal.loads(packed)  # noqa: S302 - packed by this very object
        return Checkpoint(*_in_order_of_fields((*self._alike[place], call, *own)))


_VALUE = Kind.VALUE.value
