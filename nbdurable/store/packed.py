"""A run's checkpoints, packed: a million small ones fit beside a person's data.

Invariant: each as it was committed, and each call's versions in commit order. Whoever
asks gets an equal `Checkpoint`, made anew; its signature is not verified yet. What is
held for one is its call and one piece of bytes, neither tracked by the garbage collector.
"""

from __future__ import annotations

import itertools
import marshal
import sys
from operator import attrgetter
from typing import TYPE_CHECKING, Any, cast

from nbdurable.records import Checkpoint, Kind

from .heads import SIGNATURE_BYTES, Sum

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

Identity = tuple[bytes, bytes]
"""(call, version)"""

Group = tuple[bytes, str]
"""(namespace, name): what the outcomes of one step are saved under"""

# First what many have alike, which is held once for all of them: the group, and the next four.
COLUMNS = (
    "namespace", "name", "kind", "code", "execution", "code_evidence", "call", "version", "number",
    "cause", "label", "arguments", "attempt", "started", "seconds", "payload", "pieces", "output",
    "base", "file_evidence", "signature",
)  # fmt: skip
"""The fields of a row, in the order in which they are taken here."""

_KIND, _CALL, _NUMBER, _CAUSE, _STARTED, _SECONDS, _PIECES = map(
    COLUMNS.index, ("kind", "call", "number", "cause", "started", "seconds", "pieces")
)
_number = attrgetter("number")
_KINDS = {kind.value: kind for kind in Kind}
_VALUE = Kind.VALUE.value


def checkpoint_of(row: Sequence[Any]) -> Checkpoint:
    """Make a checkpoint of a row of `COLUMNS`."""
    fields = dict(zip(COLUMNS, row, strict=True))
    fields["signature"] = fields["signature"][:SIGNATURE_BYTES]
    return Checkpoint(**{**fields, "kind": _kind_of(fields["kind"])})


def _kind_of(text: str) -> Kind:
    # An unknown kind stays as it is: its signature fails where it is asked for.
    return _KINDS.get(text, cast("Kind", text))


class Saved:
    """Checkpoints by call and version, and by namespace and name."""

    def __init__(self) -> None:
        self.last_number = 0
        self.last_ended = 0.0
        self._newest: dict[bytes, bytes] = {}
        self._older: dict[bytes, list[bytes]] = {}
        self._calls: dict[Group, list[bytes]] = {}
        self._groups: list[Group] = []
        self._alike: list[tuple[Kind, bytes, int, bytes]] = []
        self._last: tuple[bytes, Checkpoint | None] = (b"", None)
        self._special: dict[bytes, None] = {}  # calls that have an outcome without a value
        self.sum = Sum()
        """What the rows that were taken in add up to; see `heads`"""

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
        count, total, newest_head, value = 0, 0, b"", int.from_bytes
        groups: dict[Group, int] = {}
        kinds: dict[tuple[Any, ...], int] = {}
        before: tuple[Any, ...] = ()
        for row in rows:
            if row[_NUMBER] < last:
                return False
            last = row[_NUMBER]
            shared, call = row[:_CALL], row[_CALL]
            if shared != before:
                before = shared
                group = groups.get(shared[:_KIND])
                if group is None:
                    group = self._new_group(*shared[:_KIND])
                    groups[self._groups[group]] = group
                calls = self._calls[self._groups[group]]
                alike = kinds.get(shared[_KIND:])
                if alike is None:
                    alike = kinds[shared[_KIND:]] = len(self._alike)
                    self._alike.append((_kind_of(shared[_KIND]), *shared[_KIND + 1 :]))
            calls.append(call)
            if call in newest:
                older.setdefault(call, []).append(newest[call])
            signature = row[-1]
            if len(signature) > SIGNATURE_BYTES:
                newest_head = max(newest_head, signature[SIGNATURE_BYTES:])
                signature = signature[:SIGNATURE_BYTES]
            count += 1
            total += value(signature)
            newest[call] = pack((group, alike, *row[_CALL + 1 : -1], signature))
            last_ended = max(last_ended, row[_STARTED] + row[_SECONDS])
            if row[_KIND] != _VALUE or row[_CAUSE]:
                special[call] = None
            if row[_PIECES]:
                with_pieces(row[_PIECES])
        self.last_number, self.last_ended = last, last_ended
        self.sum.take(count, total, newest_head)
        return True

    def _new_group(self, namespace: bytes, name: str) -> int:
        group = namespace, sys.intern(name)  # sub-workflows have one name, and many namespaces
        self._groups.append(group)
        self._calls.setdefault(group, [])
        return len(self._groups) - 1

    def get(self, identity: Identity) -> Checkpoint | None:
        """Return the checkpoint of a call and version, or None."""
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
                _, alike, own_version, *_ = marshal.loads(packed)  # noqa: S302 - as in _unpacked
                if own_version == version:
                    return self._alike[alike][0] is Kind.VALUE
        return False

    def versions(self, call: bytes) -> list[Checkpoint]:
        """Return the checkpoints of a call, in commit order."""
        newest = self._newest.get(call)
        if newest is None:
            return []
        return [self._unpacked(call, one) for one in (*self._older.get(call, ()), newest)]

    def knows(self, call: bytes) -> bool:
        """Tell whether a call has a checkpoint."""
        return call in self._newest

    def newest(self, call: bytes) -> Checkpoint | None:
        """Return the last checkpoint of a call, or None."""
        packed = self._newest.get(call)
        return None if packed is None else self._unpacked(call, packed)

    def superseded(self, checkpoint: Checkpoint) -> bool:
        """Tell whether a later version of its call has a checkpoint."""
        newest = self.newest(checkpoint.call) if self._older.get(checkpoint.call) else None
        return newest is not None and newest.number != checkpoint.number

    def calls(self, group: Group) -> dict[bytes, None]:
        """Return the calls that have a checkpoint of this namespace and name, the oldest first."""
        return dict.fromkeys(self._calls.get(group, ()))

    def groups(self) -> Collection[Group]:
        """Return each namespace and name under which there is a checkpoint."""
        return self._calls.keys()

    def without_value(self) -> list[Checkpoint]:
        """Return the errors, the cancellations, and what a decision is said to have caused."""
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
        stay: dict[bytes, Iterator[bool]] = {}
        for call, numbers in gone.items():
            if call not in self._newest:
                continue  # it was committed after these were taken in
            packed = [*self._older.get(call, ()), self._newest[call]]
            stays = [self._unpacked(call, one).number not in numbers for one in packed]
            stay[call] = iter(stays)
            kept = list(itertools.compress(packed, stays))
            # Another thread may ask meanwhile: what stays is to be found at every moment.
            if kept:
                *older, self._newest[call] = kept
                self._older[call] = older
            else:
                del self._newest[call]
                self._older.pop(call, None)
        for group in groups:
            # A call stands there once for each version, in the same order.
            calls = self._calls.get(group, [])
            calls[:] = [call for call in calls if call not in stay or next(stay[call], True)]

    def _unpacked(self, call: bytes, packed: bytes) -> Checkpoint:
        last, found = self._last  # a step that replays asks more than once for its own
        if last is packed and found is not None:
            return found
        found = self._made(call, packed)
        self._last = packed, found
        return found

    def _made(self, call: bytes, packed: bytes) -> Checkpoint:
        # Written out, for each step that replays waits for it.
        (
            group, alike, version, number, cause, label, arguments, attempt, started, seconds,
            payload, pieces, output, base, file_evidence, signature,
        ) = marshal.loads(packed)  # fmt: skip  # noqa: S302 - packed by this very object
        namespace, name = self._groups[group]
        kind, code, execution, code_evidence = self._alike[alike]
        return Checkpoint(
            call, version, code, namespace, number, cause, execution, kind, name, label, arguments,
            attempt, started, seconds, payload, pieces, output, base, code_evidence, file_evidence,
            signature,
        )  # fmt: skip
