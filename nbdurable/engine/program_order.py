"""The order of calls: which of several equal ones each is.

Invariant: within one strand (a task, a thread, handed-over work) equal calls are counted as
they are made. Work that was handed over has an order where it was handed over, but runs in
none: which of several equal calls is whose is recorded, so that every pass gives each its
own (CONTRACT section 3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbdurable.errors import UsageError
from nbdurable.handles import scope
from nbdurable.handles.call_identity import call_id
from nbdurable.records import Placed, RunStatus
from nbdurable.store import add_amendment, verify_amendment

if TYPE_CHECKING:
    from nbdurable.commit.state import State
    from nbdurable.errors import DurableError
    from nbdurable.handles.scope import Scope
    from nbdurable.store import Batch, ReplayIndex

Owner = tuple[bytes, int]
"""The path of a piece of work, and which of its own equal calls this is."""


class ProgramOrder:
    """One execution's order of equal calls; the run's lock is held where it is asked."""

    def __init__(self, state: State) -> None:
        self._execution = state.execution
        self._journal = state.store.journal
        self._index = state.index
        self._run = state.run
        self._finished = state.opened.previous is RunStatus.FINISHED
        self._beside: dict[tuple[int, str, bytes], _Beside] = {}
        self._scopes: dict[int, Scope] = {}

    def occurrence(self, where: Scope, name: str, called: str, inputs: bytes) -> int:
        """Return which of the equal calls of its scope this one is.

        Raises:
            UsageError: One came from another task or thread, with no order between the two.
        """
        strand = where.strand()
        count, first = where.occurrences.get((called, inputs), (0, strand))
        works = where.works
        if works is None and first == strand and not self._index.placed:
            where.occurrences[called, inputs] = (count + 1, strand)
            if where.home is None:
                where.settle(strand)
            return count
        path = _path_here(where, strand)
        if path is None or (first != strand and self._path_of(where, first) is None):
            if count and first != strand:
                raise UsageError(
                    f"{name}: the same call with the same arguments comes from two tasks or "
                    f"threads, which have no order between them: give one of them another "
                    f"`name=`, or tell them apart with `key=`"
                )
            where.occurrences[called, inputs] = (count + 1, strand)
            return count
        where.occurrences[called, inputs] = (count + 1, first)
        beside = self._beside_of(where, called, inputs, count, first)
        present = works.paths if works is not None else set()
        place = beside.place(path, strand, present, finished=self._finished)
        if works is not None and (works.handed or beside.shared) and (new := beside.unrecorded()):
            self._record(new)
        return place

    def _path_of(self, where: Scope, strand: int) -> bytes | None:
        if strand == where.home:
            return b""
        return None if where.works is None else where.works.strands.get(strand)

    def _beside_of(
        self, where: Scope, called: str, inputs: bytes, count: int, first: int
    ) -> _Beside:
        key = id(where), called, inputs
        found = self._beside.get(key)
        if found is None:
            self._scopes[id(where)] = where  # kept alive, because the key is its address
            found = self._beside[key] = _Beside(self._index, where, called, inputs)
            for position in range(count):
                path = self._path_of(where, first)
                assert path is not None
                found.take(position, (path, position), first)
        return found

    def _record(self, owners: list[tuple[bytes, Owner]]) -> None:
        rows = [
            Placed(self._run, call, path, position, self._execution, b"")
            for call, (path, position) in owners
        ]
        # The rows go into the next transaction, so before any outcome of these calls.
        self._journal.enqueue(_Placements(self._index, rows), kick=False)


def _path_here(where: Scope, strand: int) -> bytes | None:
    """Return the path of the calling code; None if it was not handed over in any order."""
    mine = scope.work.get()
    if mine is None:
        if where.home is None:
            where.settle(strand)
        return b"" if strand == where.home else None
    if not mine.is_of(strand) or where.works is None:
        return None
    where.works.strands[strand] = mine.path
    return mine.path


class _Beside:
    """Equal calls of one scope that come from several strands."""

    def __init__(self, index: ReplayIndex, where: Scope, called: str, inputs: bytes) -> None:
        self._index = index
        self._call = where.namespace, called, inputs
        self._counts: dict[int, int] = {}
        self._recorded: dict[Owner, int] = {}
        self._paths: dict[int, bytes] = {}
        self._taken: dict[int, Owner] = {}
        self._new: list[tuple[int, Owner]] = []
        self._first_free = 0
        self._end = 0
        self._strands: set[int] = set()
        while self._is_known(self._end):
            self._end += 1

    @property
    def shared(self) -> bool:
        """Whether more than one strand has made such a call."""
        return len(self._strands) > 1

    def _id(self, place: int) -> bytes:
        namespace, called, inputs = self._call
        return call_id(namespace, called, inputs, place)

    def _is_known(self, place: int) -> bool:
        call = self._id(place)
        found = self._index.placed.get(call)
        if found is not None:
            cure = "`%durable restart NAME` starts a run without it"
            verify_amendment(self._index, found, "the recorded order of equal calls", cure)
            self._recorded[found.path, found.position] = place
            self._paths[place] = found.path
        return found is not None or self._index.checkpoints.knows(call)

    def take(self, place: int, owner: Owner, strand: int) -> None:
        """Let a place be that of a call."""
        self._taken[place] = owner
        if self._recorded.get(owner) != place:
            self._new.append((place, owner))
        while self._first_free in self._taken:
            self._first_free += 1
        self._end = max(self._end, place + 1)
        self._strands.add(strand)
        self._counts[strand] = self._counts.get(strand, 0) + 1

    def place(self, path: bytes, strand: int, present: set[bytes], *, finished: bool) -> int:
        """Return the place of the next call of a strand: its own of an earlier pass, or a free one.

        What is recorded for work that is `present` in this pass is free last of all, and only
        if that pass had `finished`: one that died may not have recorded all that were made.
        """
        owner = path, self._counts.get(strand, 0)
        found = self._recorded.get(owner)
        if found is None or found in self._taken:
            others = [
                place
                for place in range(self._first_free, self._end)
                if place not in self._taken and self._paths.get(place) != b""
            ]
            free = (place for place in others if self._paths.get(place) not in present)
            last = others[0] if finished and others else self._end
            found = next(free, last)
        self.take(found, owner, strand)
        return found

    def unrecorded(self) -> list[tuple[bytes, Owner]]:
        """Return the calls whose owners are not in the store yet, each once."""
        new, self._new = self._new, []
        return [(self._id(place), owner) for place, owner in new]


class _Placements:
    """Which of several equal calls are whose."""

    def __init__(self, index: ReplayIndex, rows: list[Placed]) -> None:
        self._index = index
        self._rows = rows

    def write(self, batch: Batch) -> None:
        """Add them."""
        for row in self._rows:
            add_amendment(batch, self._index, row)

    def committed(self) -> None:
        """Nobody waits for them."""

    def failed(self, error: DurableError) -> None:
        """Nobody waits for them: the calls' outcomes fail too."""
