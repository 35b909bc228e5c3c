"""One execution of a run: program order, handles, waiting, the end.

Invariant: a call gets its identity where it is made, in program order; what code
in the cell can see has been committed before it sees it, so it is what the next
execution will see (CONTRACT sections 3 to 5).
"""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import contextvars
import functools
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import output, scope
from .bodies import Bodies
from .codec import decode, decode_error, traceback_text
from .combinators import Combinator, Gather, Select, flatten, leaves_of, refuse_twice
from .completion import AsCompleted, not_saved
from .delivery import Delivery, Gate, LoopGate
from .entries import Cancelled, Closed, Found, Undone
from .errors import (
    NotInRunError,
    StepCancelledError,
    StoreError,
    UsageError,
    WaitTimeoutError,
)
from .executors import Limit, Threads, call_in, running_loop
from .fingerprint import Fingerprinter
from .handles import Handle, StepHandle, digest_of, handles_in, with_values
from .interrupts import uninterrupted
from .label import label_of
from .ledger import Ledger
from .news import News
from .progress import ago
from .reasons import Reasons
from .records import (
    Call,
    Checkpoint,
    Decision,
    Event,
    Kind,
    RunFinished,
    RunStarted,
    RunStatus,
    Version,
)
from .scope import Scope
from .step import Ending, StepOptions, Work, explain, is_async
from .store import correct_whys, pack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from .delivery import Watch
    from .executors import Clock
    from .fingerprint import Held, Print
    from .step import Running
    from .store import Batch, Identity, Opened, Store

_TIMER_VERSION = Version(b"", b"", digest_of(b"timer"))


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What a workflow was asked for that its run needs."""

    name: str
    strict: bool = False
    limit: int = 6
    asynchronous: bool = False
    tee: bool = False


class Run:
    """One execution; made by the session, used by handles and by the public functions."""

    def __init__(
        self,
        store: Store,
        opened: Opened,
        settings: RunSettings,
        *,
        clock: Clock,
        observers: Sequence[Callable[[Event], None]] = (),
        leftovers: dict[Identity, Running],
    ) -> None:
        self.settings = settings
        self.strict = settings.strict
        self.opened = opened
        self.execution = opened.execution
        self.handles: list[Handle[Any]] = []
        self.scope = Scope(self, opened.run.encode("ascii"), None, settings.asynchronous)
        self._store = store
        self._index = opened.index
        self._prints = Fingerprinter(strict=settings.strict)
        self._live: dict[bytes, StepHandle[Any]] = {}
        self._limits: dict[StepOptions, Limit] = {}
        self._completions: weakref.WeakSet[AsCompleted] = weakref.WeakSet()
        self._children: dict[int, list[StepHandle[Any]]] = {}
        self._unsettled: dict[int, StepHandle[Any]] = {}
        self._versions: dict[bytes, Version] = {}
        self._errors: dict[int, tuple[BaseException, list[Identity]]] = {}
        self._news = News(observers, clock)
        self._ledger = Ledger(store, opened.index, opened.execution, self._news)
        self._ledger.halt = self._halt
        self._lock = self._ledger.lock
        self._receiving = Threads(1, "nbdurable-receive")
        self._reasons = Reasons(opened, self._live, self._news)
        self._delivery = Delivery(self.scope, self._ledger, tee=settings.tee)
        self._bodies = Bodies(
            self._ledger,
            opened.index,
            self._reasons,
            limit=settings.limit,
            careful=opened.previous is RunStatus.DIED,
            leftovers=leftovers,
            scope_of=self._body_scope,
            delivery=self._delivery,
        )

    @property
    def notes(self) -> list[str]:
        """Lines for the person at the screen."""
        return self._news.notes

    def said(self) -> tuple[str, ...]:
        """Give the notes, and before them that all came from a finished run, and how old it is."""
        replayed = self.opened.previous is RunStatus.FINISHED and not self.ran()
        if not replayed or not self._index.last_saved:
            return tuple(self.notes)
        age = ago(self._news.clock.time() - self._index.last_saved)
        return (f"replayed: saved {age}, --new to recompute", *self.notes)

    def begin(self) -> None:
        """Say that the execution has begun."""
        self._news.emit(
            RunStarted(
                self.settings.name,
                self.opened.run,
                self.execution,
                len(self._index.checkpoints),
                self._news.clock.time(),
            )
        )

    # --- program order: a call gets its identity -----------------------------------

    def go(
        self,
        where: Scope,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        options: StepOptions,
    ) -> StepHandle[Any]:
        """Claim the next call of `function` and start it, unless it is replayed."""
        handle = self._claim(where, function, arguments, keywords, options)
        if not handle.durable:
            with uninterrupted():
                self._bodies.launch(handle)
        return handle

    def map(
        self,
        where: Scope,
        function: Callable[..., Any],
        items: Iterable[Any],
        same: dict[str, Any],
        options: StepOptions,
        *,
        limit: int | None,
        return_exceptions: bool,
    ) -> Gather[Any]:
        """Start `function` for each of `items`, and gather; `same` is digested once for all."""
        shared = () if limit is None else (Limit(limit),)
        held: Held = dict.fromkeys(same)
        handles = []
        for item in items:
            handle = self._claim(where, function, (item,), same, options, held=held, limits=shared)
            handles.append(handle)
            if not handle.durable:
                with uninterrupted():
                    self._bodies.launch(handle)
        return self.gather(where, (handles,), return_exceptions=return_exceptions)

    def call(
        self,
        where: Scope,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        options: StepOptions,
    ) -> Any:
        """Run a sync step in the calling thread and give its value.

        Raises:
            UsageError: It would wait for an argument, and so block its own loop.
        """
        if where.asynchronous and running_loop():
            for received in handles_in(arguments, keywords):
                if not received.known:
                    raise _would_block(received)
        handle = self._claim(where, function, arguments, keywords, options)
        if handle.cancelled_by_race is not None:
            self._settle_cancelled(handle)
        if not handle.durable and not handle.pending and not handle.started:
            if options.timeout is None and not self._bodies.left_over(handle):
                self._bodies.perform_here(handle, in_cell=where.parent is None)
            else:
                with uninterrupted():
                    self._bodies.launch(handle)
        if not handle.durable:
            self._refuse_blocking(handle)
            self.wait_here(handle)
        handle.asked = True
        return handle.receive()

    def call_async(
        self,
        where: Scope,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        options: StepOptions,
    ) -> Any:
        """Claim the call now, in program order; start it when it is awaited."""
        handle = self._claim(where, function, arguments, keywords, options)
        handle.held = True

        async def called() -> Any:
            if not handle.durable and not handle.started:
                self._bodies.launch(handle)
            return await handle

        return called()

    def _claim(
        self,
        where: Scope,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        options: StepOptions,
        *,
        held: Held | None = None,
        limits: tuple[Limit, ...] = (),
    ) -> StepHandle[Any]:
        self._refuse_ended(where, options.name)
        code = None
        if options.version is None:
            code = self._prints.code(function, ignore=options.ignore)
        inputs = self._inputs(function, arguments, keywords, options, held)
        handle, again = self._claim_call(where, options.name, inputs.digest, "step")
        if again:
            return handle  # an earlier attempt of the parent has started it
        code_digest = code.digest if code is not None else _digest_of_version(options.version)
        handle.code = code_digest
        handle.upstream = tuple(handles_in(arguments, keywords))
        handle.version = self._version(code_digest, handle.upstream)
        found = self._index.checkpoints.get(handle.pair)
        if found is None:
            # It may have been cancelled before its version was known.
            found = self._index.checkpoints.get((handle.call.id, bytes(16)))
        if found is not None and self._replay_found(handle, found):
            return handle
        parameters = self._prints.parameters(function) if arguments else ()
        handle.label_text = label_of(options.name, arguments, keywords, parameters)
        handle.work = Work(
            label=handle.label_text,
            function=function,
            arguments=arguments,
            keywords=keywords,
            options=options,
            code=code,
            inputs=inputs,
            context=contextvars.copy_context(),
            is_async=is_async(function),
            loop=running_loop() if where.asynchronous else None,
            strict=self.strict,
            limits=limits if options.limit is None else (*limits, self._limit_of(options)),
        )
        handle.work.limits += self._bodies.room_of(handle)
        self._news.created(handle)
        self._news.say_prints(options.name, code, inputs)
        if handle.version is None:
            self._await_upstream(handle)
        elif handle.upstream:
            handle.work.arguments, handle.work.keywords = with_values(arguments, keywords)
        return handle

    def _inputs(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        options: StepOptions,
        held: Held | None,
    ) -> Print:
        if options.key is not None:
            return self._prints.value(options.key(*arguments, **keywords), "key")
        return self._prints.arguments(
            function, arguments, keywords, ignore=options.ignore, held=held
        )

    def _limit_of(self, options: StepOptions) -> Limit:
        assert options.limit is not None
        with self._lock:
            return self._limits.setdefault(options, Limit(options.limit))

    def _claim_call(
        self, where: Scope, name: str, inputs: bytes, kind: str
    ) -> tuple[StepHandle[Any], bool]:
        """Give the handle of the next call, and whether it was there already."""
        with self._lock:
            strand = where.strand()
            count, first = where.occurrences.get((name, inputs), (0, strand))
            if count and first != strand:
                raise UsageError(
                    f"{name}: the same call with the same arguments comes from two tasks or "
                    f"threads, which have no order between them: give one of them another "
                    f"`name=`, or tell them apart with `key=`"
                )
            where.occurrences[name, inputs] = (count + 1, strand)
            identity = digest_of(where.namespace, name.encode(), inputs, b"%d" % count)
            found = self._live.get(identity)
            if found is not None:
                return found, True
            call = Call(where.namespace, name, inputs, count, identity)
            handle: StepHandle[Any] = StepHandle(
                self, len(self.handles), call, kind=kind, parent=where.parent
            )
            self.handles.append(handle)
            self._live[identity] = handle
            if where.parent is not None:
                self._children.setdefault(where.parent, []).append(handle)
            return handle, False

    def _version(self, code: bytes, upstream: tuple[Handle[Any], ...]) -> Version | None:
        """Give the version, or None while an upstream outcome is not there or failed."""
        if not upstream:
            version = self._versions.get(code)
            if version is None:
                version = self._versions[code] = Version(code, b"", digest_of(code, b""))
            return version
        for handle in upstream:
            if not handle.durable or handle.ended is not Kind.VALUE:
                return None
        received = digest_of(*[self._outcome_digest(handle) for handle in upstream])
        return Version(code, received, digest_of(code, received))

    def _outcome_digest(self, handle: Handle[Any]) -> bytes:
        """Give the digest of an outcome, by value and not by pickle: equal ones are equal."""
        if handle.digest is None:
            handle.digest = self._prints.value(handle.fresh(), handle.name).digest
        return handle.digest

    def _body_scope(self, handle: StepHandle[Any], asynchronous: bool) -> Scope:  # noqa: FBT001 - a callback
        return Scope(self, handle.call.id, handle.place, asynchronous)

    def _refuse_ended(self, where: Scope, what: str) -> None:
        if self._bodies.ended or not where.live:
            raise NotInRunError(what, "the run it belongs to has ended")

    # --- replay -------------------------------------------------------------------

    def _replay_found(self, handle: StepHandle[Any], found: Checkpoint) -> bool:
        """Replay a checkpoint, unless it is a cancellation that may not stand any more."""
        if found.kind is Kind.CANCELLED:
            if found.code != handle.code_digest:
                return False  # cancelled before its version was known, under another code
            if found.cause:
                self._index.verify(found)
                self._lost_before(handle, found)
                return False
        handle.label_text = found.label
        self._replay(handle, found)
        return True

    def _replay(self, handle: StepHandle[Any], found: Checkpoint) -> None:
        self._news.created(handle)
        try:
            self._index.verify(found)
        except BaseException as error:
            self._ledger.break_off(handle, error)
            raise
        with self._lock:
            handle.take_checkpoint(found)
            handle.durable = True
        self._news.replayed(handle)
        self._delivery.replayed(handle)

    def _restored(self, handle: StepHandle[Any]) -> Ending:
        """Give the ending of a numbered handle, decoded from its checkpoint the first time."""
        ending = handle.ending
        if ending is None:
            found = handle.checkpoint
            assert found is not None
            ending = Ending(found.kind, messages=output.loads(found.output))
            if found.kind is Kind.VALUE:
                ending.value = decode(found.payload)
            else:
                ending.error = decode_error(found.payload)
                ending.error.__cause__ = _Traceback(traceback_text(found.payload))
            with self._lock:
                # Another thread may have restored it meanwhile: all get one object.
                if handle.ending is None:
                    handle.ending = ending
                ending = handle.ending
        return ending

    # --- combinators and timers --------------------------------------------------------

    def select(
        self,
        where: Scope,
        handles: Sequence[Any],
        *,
        success: bool = False,
        kind: type[Select[Any]] = Select,
    ) -> Select[Any]:
        """Make a select over `handles`; decided at once where the store or the numbers tell."""
        what = kind.kind
        self._refuse_ended(where, what)
        branches = flatten(handles, what)
        if not branches:
            raise UsageError(f"{what}() needs at least one handle: there is nothing to wait for")
        refuse_twice(branches, what)
        self._refuse_foreign(branches, what)
        self._settle_below(branches)
        with uninterrupted(), self._lock:
            select: Select[Any] = kind(self, len(self.handles), branches, success=success)
            self.handles.append(select)
            self._news.combined(select, where.parent)
            stored = self._index.decision_for(select.identity, select.set_members())
            if stored is not None:
                select.apply(stored)
                if select.number:
                    self._known_at_once(select)
                elif select.chosen is not None:
                    select.chosen.observed_by(select)
                return select
            select.observe()
            if select.evaluate():
                self._ledger.journal.enqueue(Closed(self._ledger, select))
        self._break_over(select)
        return select

    def gather(
        self, where: Scope, handles: Sequence[Any], *, return_exceptions: bool = False
    ) -> Gather[Any]:
        """Make a gather over `handles`, or over the values of one dict."""
        self._refuse_ended(where, "gather")
        keys = None
        if len(handles) == 1 and isinstance(handles[0], dict):
            keys, handles = tuple(handles[0]), (tuple(handles[0].values()),)
        branches = flatten(handles, "gather")
        self._refuse_foreign(branches, "gather")
        self._settle_below(branches)
        with uninterrupted(), self._lock:
            gather: Gather[Any] = Gather(
                self,
                len(self.handles),
                branches,
                keys=keys,
                return_exceptions=return_exceptions,
            )
            self.handles.append(gather)
            self._news.combined(gather, where.parent)
            gather.observe()
            if gather.evaluate():
                if all(branch.durable or not branch.number for branch in branches):
                    self._known_at_once(gather)
                else:
                    self._ledger.journal.enqueue(Closed(self._ledger, gather))
        self._break_over(gather)
        return gather

    def time(self) -> float:
        """Give the clock's time: not recorded."""
        return self._news.clock.time()

    def after(self, where: Scope, seconds: float, name: str = "after") -> StepHandle[Any]:
        """Make a timer handle: done `seconds` after it was first made."""
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds >= 0:
            raise UsageError(f"{name}({seconds!r}): give a number of seconds, 0 or more")
        return self._timer(where, name, f"{seconds:g}", seconds=float(seconds))

    def at(self, where: Scope, until: float, shown: str) -> StepHandle[Any]:
        """Make a timer handle that is done at a time (seconds since the epoch), never re-armed."""
        return self._timer(where, "sleep", f"until={shown}", until=until)

    def _timer(
        self,
        where: Scope,
        name: str,
        shown: str,
        *,
        seconds: float = 0.0,
        until: float | None = None,
    ) -> StepHandle[Any]:
        self._refuse_ended(where, name)
        kind, due = (b"seconds", seconds) if until is None else (b"until", until)
        inputs = digest_of(kind, repr(due).encode())
        handle, again = self._claim_call(where, name, inputs, "timer")
        if again:
            return handle
        handle.version = _TIMER_VERSION
        handle.timer_seconds = seconds
        handle.until = until
        handle.label_text = f"{name}({shown})"
        found = self._index.checkpoints.get(handle.pair)
        if found is not None and self._replay_found(handle, found):
            return handle
        self._news.created(handle)
        if handle.cancelled_by_race is not None:
            return handle
        past = self._index.attempts.get(handle.pair)
        if past is None:
            with uninterrupted():
                self._bodies.arm(handle, rearm=True)
        else:
            handle.last_attempt = past.last
            handle.wake_time = past.started + handle.timer_seconds
        return handle

    # --- as_completed -------------------------------------------------------------------

    def as_completed(self, where: Scope, handles: Sequence[Any]) -> AsCompleted:
        """Make an iterator over `handles` in the order in which they end."""
        self._refuse_ended(where, "as_completed")
        branches = flatten(handles, "as_completed")
        refuse_twice(branches, "as_completed")
        self._refuse_foreign(branches, "as_completed")
        self._settle_below(branches)
        if any(branch.number and not branch.durable for branch in branches):
            self._ledger.journal.flush()
        late = [leaf for leaf in leaves_of(branches) if self._first_stored(leaf)]
        completion = AsCompleted(self, branches, where, late)
        with uninterrupted(), self._lock:
            for branch in branches:
                if branch.durable or branch.broken is not None:
                    completion.came(branch)
                else:
                    branch.wake(functools.partial(self._came, weakref.ref(completion), branch))
            self._completions.add(completion)
        return completion

    def _first_stored(self, leaf: StepHandle[Any]) -> int:
        """Give the lowest number that a step without one may still find for itself, or 0."""
        if leaf.number or leaf.kind != "step":
            return 0
        found = self._index.versions.get(leaf.call.id, ())
        numbers = [one.number for one in found if one.code == leaf.code_digest]
        return min(numbers, default=0)

    def _came(self, completion: weakref.ref[AsCompleted], branch: Handle[Any]) -> None:
        with self._lock:
            if (found := completion()) is not None:
                found.came(branch)

    def next_completed(self, completion: AsCompleted) -> Handle[Any]:
        """Block until the next one has ended, and give it."""
        where = scope.current.get()
        if where is not None and where.asynchronous and running_loop():
            raise UsageError(
                "as_completed: a `for` loop would block the cell's own event loop: write "
                "`async for handle in as_completed(...)`"
            )
        wanted = self._wanted(completion)
        while True:
            gate = _thread.allocate_lock()
            gate.acquire()
            taken = self._take_next(completion, wanted, gate.release)
            if taken is not None:
                return self._given(completion, taken)
            self._demand_left(completion)
            self._ledger.journal.kick()
            with self._slots_given():
                gate.acquire()

    async def next_completed_async(self, completion: AsCompleted) -> Handle[Any]:
        """Await that the next one has ended, and give it."""
        loop = asyncio.get_running_loop()
        wanted = self._wanted(completion)
        while True:
            done = loop.create_future()
            wake = functools.partial(call_in, loop, _resolve, done)
            taken = self._take_next(completion, wanted, wake)
            if taken is not None:
                return self._given(completion, taken)
            self._demand_left(completion)
            self._ledger.journal.kick()
            with self._slots_given(), self._bodies.coroutines.blocked():
                await done

    def _demand_left(self, completion: AsCompleted) -> None:
        """Start what is not started, but what an earlier pass left only if nothing else is left."""
        stored = None
        if completion.identity in self._index.decisions:
            stored = self._index.decision_for(completion.identity, completion.members())
        lost = {call for call, _ in stored.losers} if stored is not None else set()
        left = tuple(completion.left.values())
        others = [one for one in left if not all(leaf.call.id in lost for leaf in one.leaves())]
        with uninterrupted():
            for branch in others or left:
                branch.demand(asked=False, rearm=True)

    def _wanted(self, completion: AsCompleted) -> Handle[Any] | None:
        """Give the handle that a decision puts at this position, where there is one."""
        key = completion.position_key()
        if key not in self._index.decisions:
            return None
        stored = self._index.decision_for(key, completion.members())
        if stored is None:
            return None
        left = completion.left.values()
        return next((one for one in left if one.identity == stored.winner), None)

    def _take_next(
        self,
        completion: AsCompleted,
        wanted: Handle[Any] | None,
        waker: Callable[[], object],
    ) -> Handle[Any] | None:
        with self._lock:
            taken = completion.take(wanted)
            if taken is None:
                if self._bodies.ended:
                    raise NotInRunError("as_completed", "the run it belongs to has ended")
                completion.waker = waker
            return taken

    def _given(self, completion: AsCompleted, taken: Handle[Any]) -> Handle[Any]:
        """Commit the position where numbers alone will not tell it, and give `taken`.

        What was not saved has no number next time. And what waits for its upstream may
        find that it has a lower one, with which it will come first next time.
        """
        if taken.broken is not None and not taken.durable:
            raise taken.broken
        earlier = any(0 < self._first_stored(leaf) < taken.number for leaf in completion.late)
        if earlier or not_saved(taken):
            completion.position -= 1
            key = completion.position_key()
            completion.position += 1
            self._commit_completion(completion, key, taken.identity, ())
        taken.mark_known()
        return taken

    def leave(self, completion: AsCompleted) -> None:
        """Make losers of what was not asked for, and commit that.

        Not for a body that has ended meanwhile: by an error, a timeout or a cancellation.
        """
        where = completion.scope
        cancelled = where.parent is not None and self.handles[where.parent].number
        if completion.over or self._bodies.ended or not where.live or cancelled:
            return
        completion.over = True
        if not completion.left:
            return
        losing = completion.losing_leaves()
        with self._lock:
            for leaf in losing:
                leaf.lost = True
        losers = tuple(sorted(leaf.pair for leaf in losing))
        self._commit_completion(completion, completion.identity, bytes(16), losers)
        self._ledger.lost_more()

    def _commit_completion(
        self, completion: AsCompleted, key: bytes, winner: bytes, losers: tuple[Identity, ...]
    ) -> None:
        number = completion.last_number
        members = completion.members()
        if self._index.decision_for(key, members) is not None:
            return
        if not self._ledger.first_decision(key, members):
            return

        def write(batch: Batch) -> None:
            decision = Decision(key, members, winner, number, self.execution, losers, b"")
            self._ledger.add_decision(batch, decision, "as_completed", "")

        self._store.commit(write)

    def _break_over(self, combinator: Combinator[Any]) -> None:
        """Break a new combinator off if a branch that it needs was, before it was made."""
        for branch in combinator.branches:
            error = branch.broken
            if error is not None and not combinator.number and combinator.breaks(error):
                self._ledger.break_off(combinator, error)

    def _known_at_once(self, combinator: Combinator[Any]) -> None:
        combinator.durable = True
        self._news.ended(combinator, replayed=True)

    def _refuse_foreign(self, branches: Iterable[Handle[Any]], what: str) -> None:
        for branch in branches:
            if branch.run_of() is not self:
                raise UsageError(
                    f"{what}: {branch.label} belongs to another run or an earlier execution; start "
                    f"it in this one"
                )

    # --- handles as arguments -----------------------------------------------------------

    def _await_upstream(self, handle: StepHandle[Any]) -> None:
        with uninterrupted(), self._lock:
            failed = [one for one in handle.upstream if one.number and one.ended is not Kind.VALUE]
            if failed:
                handle.take_from(min(failed, key=lambda one: (one.number, one.place)))
                self._ledger.journal.enqueue(Closed(self._ledger, handle))
                return
            open_ends = [one for one in handle.upstream if not one.durable and one.broken is None]
            distinct = {upstream.place: upstream for upstream in open_ends}.values()
            handle.pending = len(distinct) or 1
            for upstream in distinct:
                upstream.wake(functools.partial(self._upstream_ended, handle))
                if not upstream.number:
                    upstream.observed_by(handle)  # whose failure it takes at once
        if not self._bodies.is_stored_loser(handle):
            for upstream in distinct:
                upstream.demand(asked=True)
        if not distinct:
            self._upstream_ended(handle)  # one of them was broken off

    def _upstream_ended(self, handle: StepHandle[Any]) -> None:
        """One more upstream outcome is durable; with the last one the step can start."""
        with self._lock:
            if handle.pending > 1:
                handle.pending -= 1
                return
        if handle.number:
            return  # it has its upstream's failure, or was cancelled
        # The last count stays until the step can start: nobody else may start it meanwhile.
        for upstream in handle.upstream:
            if upstream.broken is not None and not upstream.durable:
                self._ledger.break_off(handle, upstream.broken)
                return
        # This may be the journal's thread, which must not decode and digest what may be large.
        self._receiving.submit(functools.partial(self._receive_upstream, handle))

    def _receive_upstream(self, handle: StepHandle[Any]) -> None:
        """Learn a step's version from what its upstream gave; find its outcome or start it."""
        work = handle.work
        assert work is not None
        try:
            handle.version = self._version(handle.code, handle.upstream)
            found = self._index.checkpoints.get(handle.pair)
            if found is not None and found.cause:
                self._lost_before(handle, found)
            if found is not None:
                self._index.verify(found)
            if found is not None and not found.cause:
                self._take(handle, found)
                return
            work.arguments, work.keywords = with_values(work.arguments, work.keywords)
        except Exception as error:  # noqa: BLE001 - raised where the step is waited for
            self._ledger.break_off(handle, error)
            return
        handle.pending = 0
        self._bodies.launch(handle)

    def _take(self, handle: StepHandle[Any], found: Checkpoint) -> None:
        """End a step with a checkpoint that is known late to be its own."""
        handle.started = True
        handle.pending = 0
        self._ledger.journal.enqueue(Found(self._ledger, handle, found))

    def fresh(self, handle: StepHandle[Any]) -> Any:
        """Decode a durable step's value, or error, anew; what was not saved is itself."""
        found = handle.checkpoint
        if found is None:
            ending = self._restored(handle)
            return ending.value if ending.error is None else ending.error
        return decode(found.payload) if found.kind is Kind.VALUE else decode_error(found.payload)

    def demand(self, handle: StepHandle[Any], *, rearm: bool) -> None:
        """Start a step that was deferred, or arm a timer that began in an earlier execution."""
        if handle.cancelled_by_race is not None and self._settle_cancelled(handle):
            return
        if handle.kind == "timer":
            self._bodies.arm(handle, rearm=rearm)
        elif handle.work is not None and not handle.pending and not handle.started:
            self._bodies.start(handle)

    # --- cancellation ------------------------------------------------------------------

    def cancel(self, handle: Handle[Any]) -> None:
        """Commit the cancellation of what has not ended at or below `handle`."""
        if self._bodies.ended:
            raise NotInRunError(f"{handle.label}.cancel()", "its run has ended")
        leaves = []
        for leaf in handle.leaves():
            if leaf.cancelled_by_race is not None:
                self._take(leaf, leaf.cancelled_by_race)
            elif not leaf.number:
                leaves.append(leaf)
        with uninterrupted():
            self._ledger.journal.enqueue(Cancelled(self._ledger, leaves), kick=False)
            self._ledger.journal.flush()

    def _lost_before(self, handle: StepHandle[Any], found: Checkpoint) -> None:
        with self._lock:
            handle.cancelled_by_race = found
            self._unsettled[handle.place] = handle

    def _settle_below(self, branches: Iterable[Handle[Any]]) -> None:
        """Settle what lost a race in an earlier execution: a combinator goes by numbers."""
        if not self._unsettled:
            return
        with uninterrupted():
            leaves = {leaf.place: leaf for branch in branches for leaf in branch.leaves()}
            for leaf in leaves.values():
                if leaf.cancelled_by_race is not None:
                    self._settle_cancelled(leaf)
            self._ledger.journal.flush()

    def _settle_cancelled(self, handle: StepHandle[Any]) -> bool:
        """End a step that lost a race, if that race stands; else let it run again.

        The race may come later in program order than who asks. It stands as long as
        none of its branches has been claimed with another version.
        """
        with self._lock:
            found, handle.cancelled_by_race = handle.cancelled_by_race, None
            self._unsettled.pop(handle.place, None)
            if found is None:
                return handle.started
            if self._stands(found):
                self._take(handle, found)
                return True
        self._ledger.journal.enqueue(Undone(self.opened.run, found), kick=False)
        return False

    def _stands(self, cancellation: Checkpoint) -> bool:
        race = self._index.race_of(cancellation)
        for call, version, code in race.branches if race is not None else ():
            live = self._live.get(call)
            if live is None:
                continue
            known = live.version is not None and any(version)
            if live.code_digest != code or (known and live.pair[1] != version):
                return False
        return race is not None

    def _halt(self, handle: StepHandle[Any]) -> None:
        """Stop a cancelled step's body, and what its body has started."""
        self._bodies.halt(handle)
        for child in self._children.get(handle.place, ()):
            if not child.number:
                child.started = True
                self._halt(child)
                stopped = StepCancelledError(child.label, "the step that started it was cancelled")
                self._ledger.break_off(child, stopped)

    # --- waiting and receiving -------------------------------------------------------------

    def wait(self, handle: Handle[Any]) -> None:
        """Block until `handle` is durable.

        Raises:
            UsageError: It would block the loop that the handle needs.
            NotInRunError: The run ended without it.
        """
        where = scope.current.get()
        if where is not None and where.asynchronous and not handle.known and running_loop():
            raise _would_block(handle)
        self._refuse_blocking(handle)
        self.wait_here(handle)

    def wait_here(self, handle: Handle[Any], rest: Watch | None = None) -> None:
        """Block the calling thread until `handle` is durable; at the end with the `rest`."""
        gate = Gate()
        if self._has_to_wait(handle, gate.open, asked=rest is None):
            with self._slots_given():
                self._delivery.wait(handle, gate, rest)
        self._awoken(handle)

    def _refuse_blocking(self, handle: Handle[Any]) -> None:
        """Refuse to block the loop that `handle` still needs."""
        loop = running_loop()
        if loop is not None and not handle.known and _needs(handle, loop):
            raise _would_block(handle)

    @contextlib.contextmanager
    def _slots_given(self) -> Iterator[None]:
        """Count in no limit while waiting: what is waited for may need the room."""
        where = scope.current.get()
        limits = tuple(where.limits) if where is not None and where.live else ()
        for limit in limits:
            limit.give()
        try:
            with self._bodies.threads.blocked():
                yield
        finally:
            for limit in limits:
                limit.take_back()

    async def wait_async(self, handle: Handle[Any], rest: Watch | None = None) -> None:
        """Wait on the running loop until `handle` is durable; at the end with the `rest`."""
        gate = LoopGate()
        if self._has_to_wait(handle, gate.open, asked=rest is None):
            with self._slots_given(), self._bodies.coroutines.blocked():
                await self._delivery.wait_async(handle, gate, rest)
        self._awoken(handle)

    def _has_to_wait(self, handle: Handle[Any], wake: Callable[[], object], *, asked: bool) -> bool:
        """Start what is waited for; False if it has ended, else `wake` is called when it does.

        At the end of a cell, which does not ask, also when steps have lost meanwhile.
        """
        if not asked:
            self._ledger.lost_more = wake
        with uninterrupted():
            handle.demand(asked=asked)
        with self._lock:
            if handle.durable or handle.broken is not None:
                return False
            self._refuse_unresolved(handle)
            handle.wake(wake)
        self._ledger.journal.kick()
        return True

    def wait_limited(self, handle: Handle[Any], seconds: float) -> None:
        """Wait as a recorded select of the handle against a timer."""
        where = scope.current.get()
        if where is None:
            raise NotInRunError(f"{handle.label}.result(timeout=...)")
        timer = self.after(where, seconds, "result timeout")
        if self.select(where, (handle, timer)).winner is timer:
            raise WaitTimeoutError(handle.label, seconds)

    def _awoken(self, handle: Handle[Any]) -> None:
        if handle.broken is not None:
            raise handle.broken
        if handle.durable:
            handle.mark_known()

    def _refuse_unresolved(self, handle: Handle[Any]) -> None:
        if self._bodies.ended:
            raise NotInRunError(
                handle.label, "it had not ended when its run did, so nothing will end it now"
            )

    def receive(self, handle: StepHandle[Any]) -> Any:
        """Deliver a durable step's output once, and give its value or raise its error."""
        ending = self._restored(handle)
        self._delivery.deliver(handle)
        if ending.error is None:
            return ending.value
        handle.see()
        raise ending.error

    def show_before(self, gather: Gather[Any]) -> None:
        """Show the output of the steps that a failed gather had received in its order."""
        self._delivery.show_before(gather)

    def error_of(self, handle: StepHandle[Any]) -> BaseException | None:
        """Give the error that a numbered step ended with, decoded the first time."""
        return self._restored(handle).error

    def see(self, handle: StepHandle[Any]) -> None:
        """Commit that the cell has seen this error, before it sees it."""
        error = self._restored(handle).error
        assert error is not None
        # A parent may end with the very error of its child: then both ended with it.
        _, ended_with_it = self._errors.setdefault(id(error), (error, []))
        ended_with_it.append(handle.pair)
        if handle.seen or self._bodies.ended:
            return
        handle.seen = True
        if handle.checkpoint is not None:
            pair = handle.pair
            self._store.commit(lambda batch: batch.add("seen_errors", (*pair, self.execution)))

    # --- the end ---------------------------------------------------------------------------

    def finish(self, error: BaseException | None) -> None:
        """End the execution from the thread of the cell: wait, or stop where `error` escapes."""
        if error is None:
            try:
                self._leave_completions()
                rest = self._delivery.watch_rest(self.handles, self._is_passed_over)
                for handle in self._rest():
                    self.wait_here(handle, rest)
            except BaseException as late:
                self._end(late)
                raise
        self._end(error)

    async def finish_async(self, error: BaseException | None) -> None:
        """End the execution on the cell's loop: as `finish`."""
        if error is None:
            try:
                self._leave_completions()
                rest = self._delivery.watch_rest(self.handles, self._is_passed_over)
                for handle in self._rest():
                    await self.wait_async(handle, rest)
            except BaseException as late:
                self._end(late)
                raise
        self._end(error)

    def step_count(self) -> int:
        """Give how many steps and timers were asked for."""
        return sum(isinstance(handle, StepHandle) for handle in self.handles)

    def ran(self) -> bool:
        """Tell whether any body was started."""
        return any(isinstance(one, StepHandle) and one.ran for one in self.handles)

    def _rest(self) -> Iterable[StepHandle[Any]]:
        """Give the steps that the end of the cell waits for, new ones included."""
        at = 0
        while at < len(self.handles):
            handle = self.handles[at]
            at += 1
            if not isinstance(handle, StepHandle) or handle.kind != "step":
                continue
            never_awaited = handle.held and not handle.started
            if handle.durable or handle.broken is not None or never_awaited:
                continue
            if not self._is_passed_over(handle):
                yield handle

    def _is_passed_over(self, handle: StepHandle[Any]) -> bool:
        """Tell whether the end does not wait for a step: it lost, or what started it did."""
        step: Handle[Any] | None = handle
        while isinstance(step, StepHandle) and not step.lost:
            step = None if step.parent is None else self.handles[step.parent]
        return step is not None

    def _leave_completions(self) -> None:
        for completion in tuple(self._completions):
            if completion.scope is self.scope:
                self.leave(completion)

    def _end(self, error: BaseException | None) -> None:
        self.scope.live = False
        self._receiving.close()
        still_running = self._bodies.stop(tuple(self.handles), keep=error is not None)
        self._ledger.journal.flush()
        self._ledger.close()
        status = _status_of(error)
        if error is None:
            self._delivery.deliver_rest(tuple(self.handles))
            self._reasons.say_unasked(self.scope.namespace)
            self._say_unseen()
        elif still_running:
            self._news.say(f"still running: {', '.join(still_running)}; a re-run adopts them")
        self._delivery.close()
        now = self._news.clock.time()
        try:
            self._write_end(status, now, error)
        except StoreError:
            # A store that broke in mid-run has been reported by what broke; the missing
            # end makes the next execution treat this one as died, which loses nothing.
            if error is None:
                raise
        finally:
            for handle in tuple(self.handles):
                if not handle.durable and handle.broken is None:
                    late = NotInRunError(handle.label, "it had not ended when its run did")
                    self._ledger.break_off(handle, late)
            self._news.emit(RunFinished(status, now, self.said()))

    def _write_end(self, status: RunStatus, now: float, error: BaseException | None) -> None:
        listed = pack(tuple(self._listed(error)))
        corrected = self._reasons.corrected(self.handles)

        def write(batch: Batch) -> None:
            if corrected:
                correct_whys(batch, corrected)
            text = "" if error is None else explain(error)
            batch.add("execution_ends", (self.execution, status.value, now, text, listed))

        self._store.commit(write)

    def _say_unseen(self) -> None:
        unseen = [
            handle.label
            for handle in self.handles
            if isinstance(handle, StepHandle)
            and handle.ended is Kind.ERROR
            and handle.checkpoint is not None
            and not handle.seen
            and not handle.lost
        ]
        if unseen:
            self._news.say(
                f"failed, and nobody asked: {', '.join(unseen[:5])}; the next run tries again"
            )

    def _listed(self, error: BaseException | None) -> list[Identity]:
        """Give the errors in the escaping exception's causes, contexts and groups."""
        found: dict[Identity, None] = {}
        stack, visited = [error], set()
        while stack:
            one = stack.pop()
            if one is None or id(one) in visited:
                continue
            visited.add(id(one))
            if id(one) in self._errors:
                found.update(dict.fromkeys(self._errors[id(one)][1]))
            stack += [one.__cause__, one.__context__]
            if isinstance(one, BaseExceptionGroup):
                stack += one.exceptions
        return list(found)


class _Traceback(Exception):  # noqa: N818 - a text that tracebacks print, not an error
    """The traceback text of a replayed error, shown as its cause."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def _digest_of_version(version: str | None) -> bytes:
    return digest_of(b"version", str(version).encode())


def _status_of(error: BaseException | None) -> RunStatus:
    if error is None:
        return RunStatus.FINISHED
    if isinstance(error, KeyboardInterrupt | asyncio.CancelledError):
        return RunStatus.INTERRUPTED
    return RunStatus.FAILED


def _would_block(handle: Handle[Any]) -> UsageError:
    return UsageError(
        f"waiting for {handle.label} here would block the cell's own event loop: write "
        f"`await {handle.name or 'handle'}` (`await` the handle, then ask it)"
    )


def _needs(handle: Handle[Any], loop: asyncio.AbstractEventLoop) -> bool:
    """Tell whether something at, below or upstream of `handle` still has to run on `loop`."""
    stack, visited = [handle], set()
    while stack:
        one = stack.pop()
        if one.durable or one.place in visited:
            continue
        visited.add(one.place)
        if isinstance(one, Combinator):
            stack += one.branches
        elif isinstance(one, StepHandle):
            stack += one.upstream
            if one.work is not None and one.work.is_async and one.work.loop is loop:
                return True
    return False


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
