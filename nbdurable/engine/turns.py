"""Whose turn it is among tasks that await handles: the lowest outcome number first.

Invariant: a task that awaits a handle goes on only when its loop has come to rest, and the
lowest number among those that have ended goes first. Numbers are the same on every pass, so
tasks go on in one order live and on replay, whatever bodies and commits take. What clocks
decided, an await that was cancelled and a timeout that passed, is a recorded event with the
last number that had been given before: later ones wait until it has happened again
(CONTRACT section 4).
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

from nbdurable import interrupts
from nbdurable.handles import scope
from nbdurable.interrupts import uninterrupted
from nbdurable.records import NOBODY, Decision, digest_of
from nbdurable.store import drop_decisions

from .among_handles import is_cancelled
from .standstill import nobody_can_go_on

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nbdurable.commit.ledger import Ledger
    from nbdurable.commit.state import State
    from nbdurable.handles.handle import Handle
    from nbdurable.handles.scope import Scope
    from nbdurable.store import Member

MOST_ROUNDS = 100
"""A loop that has not come to rest after so many rounds is taken to be busy for good."""
BLIND_ROUNDS = 20
"""A loop that doesn't show what it has ready is given so many rounds to come to rest."""
GRACE_SECONDS = 1.0
"""What was cancelled before pends so much longer than it did then, at least."""
MARK = "_nbdurable_passed"
"""The attribute of an error that names the recorded events that it tells of."""


class Awaiting:
    """One await of a handle, by a task; ``held`` is the event that cancelled it before."""

    __slots__ = (
        "began", "handle", "held", "interrupts", "key", "over", "ready", "retry", "turn", "where",
    )  # fmt: skip

    def __init__(self, handle: Handle[Any], key: bytes, began: float, where: Scope | None) -> None:
        self.handle = handle
        self.key = key
        self.began = began
        self.where = where
        self.interrupts = interrupts.arrived()
        self.held: Decision | None = None
        self.turn: asyncio.Future[None] | None = None
        self.retry: asyncio.TimerHandle | None = None
        self.ready = False
        self.over = False


class Turns:
    """One execution's awaits, on whatever loops they are."""

    def __init__(self, state: State, ledger: Ledger, counting: Callable[[], object]) -> None:
        """Look at what an execution starts from; `counting` is called as a timeout begins."""
        self._counting = counting
        self._ledger = ledger
        self._index = state.index
        self._run = state.run
        self._handles = state.handles
        self._counts: dict[bytes, int] = {}
        self._last_place = state.index.last_place
        self._rows: dict[asyncio.AbstractEventLoop, _Row] = {}

    # --- an await ----------------------------------------------------------------

    def enter(self, handle: Handle[Any]) -> Awaiting:
        """Take note that the running task awaits `handle`."""
        loop = asyncio.get_running_loop()
        count = self._counts.get(handle.call_id, 0)
        self._counts[handle.call_id] = count + 1
        mine = Awaiting(handle, b"%d" % count, loop.time(), scope.current.get())
        row = self._rows.get(loop)
        if row is None:
            row = self._rows[loop] = _Row(loop)
        row.enter(mine)
        if self._index.decisions:
            key = _await_key(mine)
            if key in self._index.decisions:
                mine.held = self._index.decision_for(key, members_of(handle))
            if mine.held is not None:
                row.hold(mine, mine.held.number)
                self._look_later(row, mine, mine.held.seconds + GRACE_SECONDS)
        return mine

    async def turn(self, mine: Awaiting) -> None:
        """Await the turn of one whose handle has ended; of what is held, until it is cancelled."""
        row = self._rows[asyncio.get_running_loop()]
        if row.is_turn(mine):
            return
        mine.turn = row.loop.create_future()
        if mine.held is None:
            row.queue(mine)
        await mine.turn

    def leave(self, mine: Awaiting) -> None:
        """Let the others go on: this await is over."""
        row = self._rows[asyncio.get_running_loop()]
        mine.over = True
        if mine.retry is not None:
            mine.retry.cancel()
        row.leave(mine)

    def cancelled(self, mine: Awaiting, error: BaseException) -> None:
        """Commit that an await was cancelled, before its code hears of it.

        Not if a person's interrupt did it, or the end of the run or of the body it stands in.
        """
        where = mine.where
        if where is None or mine.interrupts != interrupts.arrived() or not self._counts_in(where):
            return
        decision = mine.held
        if decision is None:
            row = self._rows[asyncio.get_running_loop()]
            seconds = row.loop.time() - mine.began
            decision = self._record(
                _await_key(mine), members_of(mine.handle), row.highest, seconds,
                f"await {mine.handle.label}",
            )  # fmt: skip
        mark(error, decision.key)

    def _counts_in(self, where: Scope) -> bool:
        if not where.live or self._ledger.closed:
            return False
        parent = where.parent
        ended = parent is not None and self._handles[parent].number
        return not ended and not is_cancelled(self._handles, parent)

    # --- a timeout ---------------------------------------------------------------------

    def begin_timed(self, where: Scope, name: str, seconds: float, *, exact: bool = True) -> Timed:
        """Take note that a timeout of asyncio's counts from now in code of this run.

        ``exact`` tells that `seconds` is what its code says; else it was measured.
        """
        self._counting()
        loop = asyncio.get_running_loop()
        said = repr(seconds).encode() if exact else b""
        content = digest_of(b"timeout", where.namespace, name.encode(), said)
        count = self._counts.get(content, 0)
        self._counts[content] = count + 1
        row = self._rows.get(loop)
        if row is None:
            row = self._rows[loop] = _Row(loop)
        timed = Timed(self, row, digest_of(content, b"%d" % count), where, name, seconds)
        if timed.key in self._index.decisions:
            found = self._index.decision_for(timed.key, ())
            if found is not None:
                timed.recorded = timed.expected = True
                timed.place = found.place
                row.hold(timed, found.number)
                later = found.seconds + GRACE_SECONDS
                timed.retry = loop.call_later(later, self._let_go_of, timed)
        return timed

    def last_number(self) -> int:
        """Return the number of the outcome that was committed last, on any pass."""
        return self._ledger.last_number

    def may_time_out(self) -> bool:
        """Tell whether a timeout of asyncio's counts in code of this run on the running loop."""
        row = self._rows.get(asyncio.get_running_loop())
        return row is not None and row.timed > 0

    def passed(self, timed: Timed, seconds: float) -> None:
        """Commit that a timeout has passed, before its code hears of it."""
        if not timed.recorded and self._counts_in(timed.where):
            timed.recorded = True
            label = f"{timed.name} {seconds:.3g} s"
            self._record(timed.key, (), timed.row.highest, seconds, label)

    def not_passed(self, timed: Timed) -> None:
        """Tell that what had timed out in an earlier pass came in time in this one."""
        if self._counts_in(timed.where):
            self._ledger.observers.say(
                f"{timed.name} of {timed.seconds:.3g} s: it passed in an earlier pass, and not in "
                f"this one, where what it bounds ended before (only waits for steps are recorded: "
                f"what a thread or asyncio.sleep takes is not)"
            )

    def _let_go_of(self, timed: Timed) -> None:
        """Hold nothing for a timeout any more that lasts longer than when it was recorded."""
        timed.recorded, timed.place = False, 0
        timed.row.leave(timed)
        self._drop([timed.key])

    # --- records -------------------------------------------------------------------------

    def _record(
        self, key: bytes, members: tuple[Member, ...], number: int, seconds: float, label: str
    ) -> Decision:
        self._last_place += 1
        execution, least = self._ledger.execution, 1e-6
        clock = max(seconds, least), self._last_place
        decision = Decision(key, members, NOBODY, number, execution, (), b"", *clock)
        if self._ledger.first_decision(decision):
            self._ledger.store.commit(
                lambda batch: self._ledger.add_decision(batch, decision, label, "passed")
            )
        return decision

    def _drop(self, keys: Sequence[bytes]) -> None:
        with uninterrupted():
            self._ledger.store.commit(lambda batch: drop_decisions(batch, self._run, keys))
        for key in keys:
            self._index.decisions.pop(key, None)

    def escaped(self, error: BaseException | None) -> list[bytes]:
        """Return the recorded events that ended the cell: they don't stand, as its errors don't."""
        found: list[bytes] = []
        stack, visited = [error], set()
        while stack:
            one = stack.pop()
            if one is None or id(one) in visited:
                continue
            visited.add(id(one))
            found += getattr(one, MARK, ())
            stack += [one.__cause__, one.__context__]
            if isinstance(one, BaseExceptionGroup):
                stack += one.exceptions
        return found

    # --- what is not cancelled any more ---------------------------------------------------

    def _look_later(self, row: _Row, mine: Awaiting, seconds: float) -> None:
        mine.retry = row.loop.call_later(seconds, self._look, row, mine)

    def _look(self, row: _Row, mine: Awaiting) -> None:
        """Let an await go on if nobody is left who could cancel it."""
        if mine.over or mine.held is None:
            return
        waiting = {one.turn for one in row.entered if one.turn is not None}
        if not mine.handle.durable or not nobody_can_go_on(
            row.loop, mine.where, self._handles, waiting
        ):
            self._look_later(row, mine, GRACE_SECONDS)
            return
        self._ledger.observers.say(
            f"await {mine.handle.label}: it was cancelled in an earlier pass, and nothing is left "
            f"in this one that would cancel it: it gets its outcome"
        )
        self._drop([mine.held.key])
        mine.held = None
        row.let_go(mine)
        if mine.turn is not None:
            row.queue(mine)


class Timed:
    """A timeout of asyncio's that counts in code of a run."""

    __slots__ = (
        "began",
        "expected",
        "has_passed",
        "is_over",
        "key",
        "name",
        "place",
        "recorded",
        "retry",
        "row",
        "seconds",
        "turns",
        "where",
    )

    def __init__(  # noqa: PLR0917 - what it is known by
        self, turns: Turns, row: _Row, key: bytes, where: Scope, name: str, seconds: float
    ) -> None:
        self.turns = turns
        self.row = row
        self.key = key
        self.where = where
        self.name = name
        self.seconds = seconds
        self.began = row.loop.time()
        row.count(1)
        self.recorded = False
        self.expected = False  # it passed in an earlier pass
        self.has_passed = False
        self.place = 0
        self.is_over = False
        self.retry: asyncio.TimerHandle | None = None

    def fire(self, go_on: Callable[[], object]) -> None:
        """Let its code hear that it has passed, when its turn comes and that is committed."""
        self.row.fire(self, go_on, self.turns.last_number())

    def passed(self) -> None:
        """Commit that it has passed."""
        self.has_passed = True
        self.turns.passed(self, self.row.loop.time() - self.began)

    def mark(self, error: BaseException) -> None:
        """Let an error be known to tell of it."""
        if self.recorded:
            mark(error, self.key)

    def over(self, error: type[BaseException] | None = None) -> None:
        """Let the others go on: it has passed, or its code has ended before, by `error` if any."""
        self.is_over = True
        if self.expected and not self.has_passed and issubclass(error or Exception, Exception):
            self.turns.not_passed(self)
        self.row.count(-1)
        if self.retry is not None:
            self.retry.cancel()
        self.row.leave(self)


class _Due(NamedTuple):
    """A timeout whose time has come; what has a number up to ``last`` had ended before."""

    timed: Timed
    go_on: Callable[[], object]
    last: int


class _Row:
    """The awaits of one loop: they go on one by one, each when the loop has come to rest."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.highest = 0
        self.timed = 0
        self.entered: dict[Awaiting, None] = {}
        self._queued: list[tuple[int, int, Awaiting]] = []
        self._order = itertools.count()
        self._early: dict[Awaiting, int] = {}
        self._holding: dict[Awaiting | Timed, int] = {}
        self._looking = False
        self._rounds = 0
        self._fired: list[_Due] = []

    def count(self, more: int) -> None:
        """Count the timeouts under way."""
        self.timed += more

    def fire(self, timed: Timed, go_on: Callable[[], object], last: int) -> None:
        """Call `go_on` for a timeout that is due, when the loop has come to rest.

        What has a number up to `last` had ended before.
        """
        self._fired.append(_Due(timed, go_on, last))
        self._look_soon()

    def enter(self, mine: Awaiting) -> None:
        """Take in one that awaits; one that has its number already must not be overtaken."""
        self.entered[mine] = None
        if mine.handle.number and not mine.handle.durable:
            self._early[mine] = mine.handle.number

    def leave(self, one: Awaiting | Timed) -> None:
        """Let go of one that is over."""
        if isinstance(one, Awaiting):
            self.entered.pop(one, None)
            self._early.pop(one, None)
        self.let_go(one)

    def hold(self, one: Awaiting | Timed, number: int) -> None:
        """Let nobody go on with a higher number until `one` is over."""
        self._holding[one] = number

    def let_go(self, one: Awaiting | Timed) -> None:
        """Hold nobody for `one` any more."""
        self._holding.pop(one, None)
        if self._queued or self._fired:
            self._look_soon()

    def is_turn(self, mine: Awaiting) -> bool:
        """Tell whether one that has ended may go on at once."""
        if mine.handle.broken is not None and not mine.handle.durable:
            return True
        if mine.held is not None or self._queued or self._fired or not self._at_rest(blind=False):
            return False
        return self._pass(mine.handle.number, mine)

    def queue(self, mine: Awaiting) -> None:
        """Let one go on when its turn comes."""
        heapq.heappush(self._queued, (mine.handle.number, next(self._order), mine))
        self._early.pop(mine, None)
        self._look_soon()

    def _pass(self, number: int, mine: Awaiting) -> bool:
        early = [one for other, one in self._early.items() if other is not mine]
        if early and min(early) < number:
            return False
        if self._holding and number > min(self._holding.values()):
            return False
        self.highest = max(self.highest, number)
        return True

    def _at_rest(self, *, blind: bool) -> bool:
        ready = getattr(self.loop, "_ready", None)
        if ready is not None:
            return not ready or self._rounds >= MOST_ROUNDS
        return blind and self._rounds >= BLIND_ROUNDS

    def _look_soon(self) -> None:
        if not self._looking:
            self._looking = True
            self._rounds = 0
            self.loop.call_soon(self._look)

    def _look(self) -> None:
        if not self._at_rest(blind=True):
            self._rounds += 1
            self.loop.call_soon(self._look)
            return
        self._looking = False
        if self._fire_next():
            return
        due = None if not self._fired or self._places_held() else self._fired[0]
        if due is None:
            self._go_on_next()
        elif not (self._has_queued(due.last) and self._go_on_next()):
            self._fire(due)

    def _has_queued(self, last: int) -> bool:
        return any(number <= last and not one.over for number, _, one in self._queued)

    def _go_on_next(self) -> bool:
        while self._queued:
            number, _, mine = self._queued[0]
            turn = mine.turn
            if mine.over or turn is None or turn.done():
                heapq.heappop(self._queued)
                continue
            if not self._pass(number, mine):
                return False  # who is waited for looks again when it is over
            heapq.heappop(self._queued)
            turn.set_result(None)
            self._look_soon()
            return True
        return False

    def _fire_next(self) -> bool:
        """Let the next timeout be heard of that passed before; False if none is due now."""
        self._fired = [one for one in self._fired if not one.timed.is_over]
        recorded = [one for one in self._fired if one.timed.place]
        due = min(recorded, key=lambda one: one.timed.place, default=None)
        if due is None:
            return False
        timed = due.timed
        if min(self._places_held(), default=timed.place) < timed.place:
            return False  # that one fires, too, and is looked at then
        # What had gone on before it goes on before it, also what is not awaited yet.
        last = self._holding.get(timed, 0)
        if self._has_queued(last) or self.highest < last:
            return False
        self._fire(due)
        return True

    def _places_held(self) -> list[int]:
        return [one.place for one in self._holding if isinstance(one, Timed)]

    def _fire(self, due: _Due) -> None:
        self._fired.remove(due)
        due.timed.passed()
        self._holding.pop(due.timed, None)
        due.go_on()
        self._look_soon()


def mark(error: BaseException, key: bytes) -> None:
    """Let an error be known to tell of a recorded event."""
    setattr(error, MARK, (*getattr(error, MARK, ()), key))


def members_of(handle: Handle[Any]) -> tuple[Member, ...]:
    """Return call, version and code of every step at or below a handle, sorted."""
    return tuple(sorted((*leaf.identity, leaf.code_digest) for leaf in handle.leaves()))


def _await_key(mine: Awaiting) -> bytes:
    return digest_of(b"await", mine.handle.call_id, mine.key)
