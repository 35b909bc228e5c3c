"""One execution of a run: calls in program order, combinators, the end.

Invariant: a call gets its identity where it is made, in program order; what code
in the cell can see has been committed before it sees it, so it is what the next
execution will see (CONTRACT sections 3 to 5).
"""

from __future__ import annotations

import contextvars
import functools
from typing import TYPE_CHECKING, Any

from nbdurable.commit.acceptance import Acceptance
from nbdurable.commit.entries import Closed
from nbdurable.commit.ledger import Ledger
from nbdurable.commit.observers import News
from nbdurable.commit.reasons import Reasons
from nbdurable.errors import NotInRunError, StoreError, UsageError, WaitTimeoutError
from nbdurable.events import Event, RunFinished, RunStarted
from nbdurable.evidence import FileRules
from nbdurable.executors.limits import Limit
from nbdurable.executors.loops import running_loop
from nbdurable.fingerprint import Fingerprinter
from nbdurable.handles import scope
from nbdurable.handles.call_identity import call_id, received_as
from nbdurable.handles.combinators import Combinator, Gather, Select, flatten, refuse_twice
from nbdurable.handles.coroutines import StepCoroutine, never_awaited
from nbdurable.handles.handle import Handle, StepHandle, handles_in, with_values
from nbdurable.handles.scope import Scope
from nbdurable.interrupts import uninterrupted
from nbdurable.labels import ago, label_of, telling
from nbdurable.records import Call, Checkpoint, Kind, RunStatus
from nbdurable.steps.attempts import Work, explain, is_async
from nbdurable.steps.draws import draw_again
from nbdurable.steps.hints import add_hint
from nbdurable.store import correct_whys, drop_decisions, pack, pack_used

from .cancellation import Cancellation
from .claims import Claims
from .closing import is_cancelled, is_passed_over, reused_of, steps_to_wait_for
from .completions import Completions
from .contents import Contents
from .control import Control, Execution
from .current import Current
from .dataflow import Dataflow
from .delivery import Delivery
from .escaped import Escaped, status_of
from .handed_over import ClaimedCall
from .holding import Holding
from .pinned import Pinned
from .program_order import ProgramOrder
from .results import Received
from .scheduler import Bodies
from .timers import Timers
from .turns import Turns
from .usage import Usage
from .waiting import Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from nbdurable.executors.clock import Clock
    from nbdurable.fingerprint import Held
    from nbdurable.steps.attempts import Running
    from nbdurable.steps.options import RunSettings, StepOptions
    from nbdurable.store import Batch, Identity, Opened, Store

    from .completions import AsCompleted
    from .usage import Claim


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
        self._news = News(observers, clock, opened.index.spent)
        self._ledger = Ledger(store, opened.index, opened.execution, self._news)
        self._lock = self._ledger.lock
        self._reasons = Reasons(opened, self._live, self._news)
        self._acceptance = Acceptance(
            store, opened, self._reasons, self._news, settings.name,
            keep=settings.keep, confirm=settings.confirm,
        )  # fmt: skip
        self._holding = Holding(opened, self._ledger.kept, self._reasons, self._acceptance)
        self._rules = FileRules(store.path)
        self._unseen = ""
        self._program_order = ProgramOrder(self._ledger, opened)
        self._delivery = Delivery(self.scope, self._ledger, tee=settings.tee)
        self._escaped = Escaped(self._ledger, opened.index, self._reasons, opened.run)
        self.current = Current(self._ledger, opened.index, self.handles, self._refuse_ended)
        self._bodies = Bodies(
            self._ledger,
            opened.index,
            self._reasons,
            settings=settings,
            careful=opened.previous is RunStatus.DIED,
            leftovers=leftovers,
            scope_of=self._body_scope,
            delivery=self._delivery,
            escaped=self._escaped,
            current=self.current,
            acceptance=self._acceptance,
        )
        self._received = Received(
            self._ledger, opened, self._reasons, self._delivery, self._escaped,
            verify=settings.verify,
        )  # fmt: skip
        self.turns = Turns(self._ledger, opened, self.handles, self._bodies.hold_nobody_back)
        self._waiting = Waiting(self._ledger, self._bodies, self._delivery, self.turns)
        self._cancellation = Cancellation(
            self._ledger, opened.index, self._bodies, opened.run,
            live=self._live, children=self._escaped.children,
        )  # fmt: skip
        self._dataflow = Dataflow(
            self._ledger,
            opened.index,
            self._prints,
            self._bodies,
            received=self._received,
            cancellation=self._cancellation,
            acceptance=self._acceptance,
            holding=self._holding,
        )
        self._contents = Contents(self._ledger, opened.index, self._prints)
        self._usage = Usage(
            self._ledger, opened.index, self._prints, self._live, self._dataflow.plain_version
        )
        pinned = Pinned(self._prints.places) if settings.pin_packages else None
        self._claims = Claims(self._prints, self._usage, self._contents, pinned)
        self._completions = Completions(
            self._ledger, opened.index, self._bodies, self._waiting, self.handles
        )
        self._timers = Timers(
            opened.index, self._bodies, self._news, claim=self._claim_timer,
            replay=self._replay_found,
        )  # fmt: skip
        self._begun = RunStarted(
            settings.name, opened.run, self.execution, len(opened.index.checkpoints), clock.time()
        )
        self._controlled = Execution(
            self.handles, self._ledger, opened.index, self._bodies, self._cancellation, self._begun
        )
        self.control = Control(self._controlled)

    def say(self, line: str) -> None:
        """Keep a line for the person at the screen, and show it; the same line only once."""
        self._news.say(line)

    @property
    def notes(self) -> list[str]:
        """Lines for the person at the screen."""
        return self._news.notes

    def said(self) -> tuple[str, ...]:
        """Return the notes; before them that all came from a finished run, and how old it is."""
        replayed = self.opened.previous is RunStatus.FINISHED and not self.ran()
        replayed = replayed and self._acceptance.suspended is None
        if not replayed or not self._index.last_saved:
            # No warning of this cell's, so a quiet one does not show it.
            return (*self.notes, self._unseen) if self._unseen and self.ran() else tuple(self.notes)
        age = ago(self._news.clock.time() - self._index.last_saved)
        return (f"replayed: saved {age}, --new to recompute", *self.notes)

    def begin(self) -> None:
        """Say that the execution has begun."""
        self._news.emit(self._begun)

    def note_unseen(self, why: str) -> None:
        """Say at the end, if a body ran, why the code that bodies run can't be seen here."""
        self._unseen = why

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
        self._launch(handle)
        return handle

    def _launch(self, handle: StepHandle[Any]) -> None:
        if not handle.durable:
            self._bodies.pack(handle)
            with uninterrupted():
                self._bodies.launch(handle)
            self._acceptance.refuse_suspended(handle.parent)

    def map(
        self,
        where: Scope,
        function: Callable[..., Any],
        rows: Iterable[tuple[Any, ...]],
        same: dict[str, Any],
        options: StepOptions,
        *,
        limit: int | None,
        return_exceptions: bool,
    ) -> Gather[Any]:
        """Start `function` with each of `rows`, and gather; `same` is digested once for all."""
        shared = () if limit is None else (Limit(limit, kept=True),)
        held: Held = dict.fromkeys(same)
        handles = []
        for row in rows:
            handle = self._claim(where, function, row, same, options, held=held, limits=shared)
            handles.append(handle)
            self._launch(handle)
        if limit is not None and limit > self.settings.limit < len(handles):
            works = [one.work for one in handles if one.work is not None and not one.durable]
            self._news.say_narrow(options.name, works, limit, self.settings.limit)
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
        self._waiting.refuse_unknown(arguments, keywords)
        return self._perform(where, self._claim(where, function, arguments, keywords, options))

    def call_ahead(
        self,
        where: Scope,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        options: StepOptions,
    ) -> ClaimedCall:
        """Claim a sync step's call now; return what performs it in another thread."""
        handle = self._claim(where, function, arguments, keywords, options)
        waits = not handle.durable and not handle.started and not handle.pending
        handle.pending = 1 if waits else handle.pending  # nobody else is to start it

        def perform() -> Any:
            self._refuse_ended(where, handle.name)
            if waits:
                handle.pending = 0
            return self._perform(where, handle)

        def forgo() -> None:
            handle.lost = True
            self._ledger.lost_more()

        return ClaimedCall(handle, perform, forgo)

    def _perform(self, where: Scope, handle: StepHandle[Any]) -> Any:
        if handle.cancelled_by_race is not None:
            self._cancellation.settle(handle)
        if not handle.durable and not handle.pending and not handle.started:
            if self._bodies.runs_here(handle):
                self._bodies.perform_here(handle, in_cell=where.parent is None)
            else:
                self._launch(handle)
        if not handle.durable:
            self._waiting.refuse_needed(handle)
            self._waiting.wait(handle)
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
        return StepCoroutine(handle, self._bodies.launch)

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
        pool = self._bodies.pool_of(options, function)
        claim = self._claims.claim(where, function, arguments, keywords, options, held)
        upstream = tuple(handles_in(arguments, keywords))
        handle, again = self._claim_call(
            where, options.name, claim.inputs.digest, "step", claim=claim, upstream=upstream
        )
        if again:
            return handle  # an earlier attempt of the parent has started it
        if claim.code is not None and where.parent is not None:
            self._ledger.kept.learn(handle.code, claim.code)
        handle.upstream = upstream
        reads = options.reads or self.settings.reads
        handle.version = self._dataflow.version(handle, reads)
        found = self._index.checkpoints.get(handle.pair)
        if found is None:
            # It may have been cancelled before its version was known.
            found = self._index.checkpoints.get((handle.call.id, bytes(16)))
        found = found or self._acceptance.of(handle, function, claim.parts)
        if found is not None and self._replay_found(handle, found):
            if (states := self._index.draws.get(handle.pair)) is not None:
                draw_again(states, (claim.inputs, claim.code))
            return handle
        parameters = self._prints.parameters(function) if arguments else ()
        shown = telling(keywords, held) if held else keywords
        handle.label_text = label_of(options.name, arguments, shown, parameters)
        handle.work = Work(
            label=handle.label_text,
            function=function,
            arguments=arguments,
            keywords=keywords,
            options=options,
            code=claim.code,
            inputs=claim.inputs,
            called=claim.called,
            use=self._usage.use_of(handle, claim),
            bases=claim.bases,
            context=contextvars.copy_context(),
            is_async=is_async(function),
            objects=self._store.objects,
            loop=running_loop() if where.asynchronous else None,
            strict=self.strict,
            rules=self._rules,
            reads=reads,
            limits=limits if options.limit is None else (*limits, self._limit_of(options)),
            pool=pool,
        )
        if claim.code is not None and claim.code.contents:
            self._contents.written_by(handle, claim.code)
        handle.work.limits += self._bodies.room_of(handle)
        self._news.created(handle)
        self._news.say_prints(options.name, claim.code, claim.inputs)
        if handle.version is None:
            self._dataflow.await_upstream(handle)
        elif handle.upstream:
            handle.work.arguments, handle.work.keywords = with_values(arguments, keywords)
        return handle

    def _limit_of(self, options: StepOptions) -> Limit:
        assert options.limit is not None
        with self._lock:
            return self._limits.setdefault(options, Limit(options.limit))

    def _claim_call(
        self,
        where: Scope,
        name: str,
        inputs: bytes,
        kind: str,
        *,
        claim: Claim | None = None,
        upstream: tuple[Handle[Any], ...] = (),
    ) -> tuple[StepHandle[Any], bool]:
        """Return the handle of the next call, and whether it was there already."""
        code = claim.code_digest if claim is not None else b""
        with self._lock:
            self._refuse_ended(where, name)  # it may have been cancelled by now
            called = claim.called if claim is not None else name
            count = self._program_order.occurrence(where, name, called, inputs)
            identity = call_id(where.namespace, called, inputs, count)
            if not self._index.checkpoints.knows(identity):
                former = self._acceptance.former(where.namespace, name, called, inputs, count, code)
                identity = identity if former is None or former in self._live else former
            if claim is not None and self._usage.knows_any:
                identity, code = self._usage.resolve(identity, claim, upstream)
            found = self._live.get(identity)
            if found is not None and not found.retracted:
                return found, True
            call = Call(where.namespace, name, inputs, count, identity)
            place = len(self.handles) if found is None else found.place
            handle: StepHandle[Any] = StepHandle(self, place, call, kind=kind, parent=where.parent)
            handle.code = code
            handle.received_as = received_as(where, called, inputs, identity)
            self.handles[place : place + 1] = [handle]  # in the place of what was taken out
            self._live[identity] = handle
            if where.parent is not None:
                self._escaped.started_by(where.parent, handle)
            return handle, False

    def _claim_timer(self, where: Scope, name: str, inputs: bytes) -> tuple[StepHandle[Any], bool]:
        self._refuse_ended(where, name)
        return self._claim_call(where, name, inputs, "timer")

    def _body_scope(self, handle: StepHandle[Any], asynchronous: bool) -> Scope:  # noqa: FBT001 - a callback
        return Scope(self, handle.call.id, handle.place, asynchronous)

    def is_of_parent(self) -> bool:
        """Tell whether this is a forked child, and the run its parent's."""
        return self._store.is_of_parent()

    def _refuse_ended(self, where: Scope, what: str) -> None:
        self._store.refuse_fork()
        self._acceptance.refuse_suspended(where.parent)
        if self._bodies.ended:
            raise NotInRunError(what, "the run it belongs to has ended")
        if not where.live or is_cancelled(self.handles, where.parent):
            raise NotInRunError(what, "the step whose code this is has ended: it was let go")

    # --- replay -------------------------------------------------------------------

    def _replay_found(self, handle: StepHandle[Any], found: Checkpoint) -> bool:
        """Replay a checkpoint, unless it is a cancellation that may not stand any more."""
        if found.kind is Kind.CANCELLED:
            if found.code != handle.code_digest:
                return False  # cancelled before its version was known, under another code
            if found.cause:
                self._index.verify(found)
                self._cancellation.lost_before(handle, found)
                return False
        return self._replay(handle, found)

    def _replay(self, handle: StepHandle[Any], found: Checkpoint) -> bool:
        handle.label_text = found.label
        try:
            self._index.verify(found)
            restorable = self._received.restorable(handle, found)
        except BaseException as error:
            self._news.created(handle)
            self._ledger.break_off(handle, error)
            raise
        if not restorable:
            return False
        self._news.created(handle)
        with self._lock:
            handle.take_checkpoint(found)
            handle.durable = True
        self._news.replayed(handle)
        self._delivery.replayed(handle)
        return True

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

        def is_decided() -> bool:
            like = kind(self, len(self.handles), branches, success=success)
            return self._index.decision_for(like.identity, like.set_members()) is not None

        self._cancellation.settle_below(branches, is_decided)
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
        self._cancellation.settle_below(branches)
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
            if gather.identity in self._index.decisions:
                stored = self._index.decision_for(gather.identity, gather.set_members())
                if stored is not None:
                    gather.apply(stored)
            gather.observe()
            if gather.evaluate():
                told = gather.replayed or gather.chosen is None
                if told and all(branch.durable or not branch.number for branch in branches):
                    self._known_at_once(gather)
                else:
                    self._ledger.journal.enqueue(Closed(self._ledger, gather))
        self._break_over(gather)
        return gather

    def time(self) -> float:
        """Return the clock's time: not recorded."""
        return self._news.clock.time()

    def after(self, where: Scope, seconds: float, name: str = "after") -> StepHandle[Any]:
        """Make a timer handle: done `seconds` after it was first made."""
        return self._timers.after(where, seconds, name)

    def at(self, where: Scope, until: float, shown: str) -> StepHandle[Any]:
        """Make a timer handle that is done at a time (seconds since the epoch), never re-armed."""
        return self._timers.at(where, until, shown)

    def as_completed(self, where: Scope, handles: Sequence[Any]) -> AsCompleted:
        """Make an iterator over `handles` in the order in which they end."""
        self._refuse_ended(where, "as_completed")
        branches = flatten(handles, "as_completed")
        refuse_twice(branches, "as_completed")
        self._refuse_foreign(branches, "as_completed")
        self._cancellation.settle_below(branches)
        return self._completions.make(where, branches)

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

    # --- what a handle asks of its run ----------------------------------------------------

    def demand(self, handle: StepHandle[Any], *, rearm: bool) -> None:
        """Start a step that was deferred, or arm a timer that began in an earlier execution."""
        if handle.cancelled_by_race is not None and self._cancellation.settle(handle):
            return
        if handle.kind == "timer":
            self._bodies.arm(handle, rearm=rearm)
        elif handle.work is not None and not handle.pending and not handle.started:
            self._bodies.start(handle)

    def cancel(self, handle: Handle[Any]) -> None:
        """Commit the cancellation of what has not ended at or below `handle`."""
        where = scope.current.get() or self.scope
        self._refuse_ended(where, f"{handle.label}.cancel()")
        self._cancellation.cancel(handle)

    def wait(self, handle: Handle[Any], *, show: bool = True) -> None:
        """Block until `handle` is durable; with `show`, show live what it will deliver.

        Raises:
            UsageError: It would block the loop that the handle needs.
            NotInRunError: The run ended without it.
        """
        self._store.refuse_fork()
        self._waiting.refuse_blocking(handle)
        self._waiting.wait(handle, show=show)

    async def wait_async(self, handle: Handle[Any]) -> None:
        """Wait on the running loop until `handle` is durable."""
        self._store.refuse_fork()
        await self._waiting.wait_async(handle)

    def wait_limited(self, handle: Handle[Any], seconds: float) -> None:
        """Wait as a recorded select of the handle against a timer."""
        where = scope.current.get()
        if where is None:
            raise NotInRunError(f"{handle.label}.result(timeout=...)")
        timer = self.after(where, seconds, "result timeout")
        if self.select(where, (handle, timer)).winner is timer:
            raise WaitTimeoutError(handle.label, seconds)

    def receive(self, handle: StepHandle[Any]) -> Any:
        """Deliver a durable step's output once, and give its value or raise its error."""
        return self._received.receive(handle)

    def show(self, handle: StepHandle[Any]) -> None:
        """Show a durable step's output, once."""
        self._delivery.deliver(handle)

    def fresh(self, handle: StepHandle[Any]) -> Any:
        """Decode a durable step's value, or error, anew."""
        return self._received.fresh(handle)

    def error_of(self, handle: StepHandle[Any]) -> BaseException | None:
        """Return the error that a numbered step ended with."""
        return self._received.ending(handle).error

    def see(self, handle: StepHandle[Any]) -> None:
        """Commit that this error is seen, before it is."""
        self._received.see(handle)

    def show_before(self, gather: Gather[Any]) -> None:
        """Show the output of the steps that a failed gather had received in its order."""
        self._delivery.show_before(gather)

    # --- the end ---------------------------------------------------------------------------

    def finish(self, error: BaseException | None) -> None:
        """End the execution from the thread of the cell: wait, or stop where `error` escapes."""
        if error is None:
            try:
                self._completions.leave_all(self.scope)
                passed_over = functools.partial(is_passed_over, self.handles)
                rest = self._delivery.watch_rest(self.handles, passed_over)
                for handle in steps_to_wait_for(self.handles):
                    self._waiting.wait(handle, rest)
                self._acceptance.refuse_suspended(None)
            except BaseException as late:
                self._end(late)
                raise
        self._end(error)

    async def finish_async(self, error: BaseException | None) -> None:
        """End the execution on the cell's loop: as `finish`."""
        if error is None:
            try:
                self._completions.leave_all(self.scope)
                passed_over = functools.partial(is_passed_over, self.handles)
                rest = self._delivery.watch_rest(self.handles, passed_over)
                for handle in steps_to_wait_for(self.handles):
                    await self._waiting.wait_async(handle, rest)
                self._acceptance.refuse_suspended(None)
            except BaseException as late:
                self._end(late)
                raise
        self._end(error)

    def step_count(self) -> int:
        """Return how many steps and timers were asked for."""
        return sum(isinstance(handle, StepHandle) for handle in self.handles)

    def ran(self) -> bool:
        """Tell whether any body was started."""
        return any(isinstance(one, StepHandle) and one.ran for one in self.handles)

    def _end(self, error: BaseException | None) -> None:
        add_hint(error)
        self.scope.live = False
        self._dataflow.close()
        still_running = self._bodies.stop(tuple(self.handles), keep=error is not None)
        self._ledger.journal.flush()
        self._ledger.close()
        status = status_of(error)
        unasked: tuple[Identity, ...] = ()
        told = ""
        if error is None:
            self._delivery.deliver_rest(tuple(self.handles), self.scope.works)
            unasked = self._reasons.unasked(self.scope.namespace, self.handles)
            self._reasons.say_unseen(self.handles)
            told = self._holding.tell(self.handles, self._news.say)
        elif still_running:
            self._news.say(f"still running: {', '.join(still_running)}; a re-run adopts them")
        if forgotten := never_awaited(self.handles):
            self._news.say(forgotten)
        self._delivery.close()
        now = self._news.clock.time()
        try:
            self._write_end(status, now, error, (unasked, told))
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

    def _write_end(
        self,
        status: RunStatus,
        now: float,
        error: BaseException | None,
        told: tuple[tuple[Identity, ...], str],
    ) -> None:
        listed = pack(tuple(self._escaped.listed(error)))
        reused = pack_used(tuple(reused_of(self.handles, self._index)), told[0])
        corrected = self._reasons.corrected(self.handles)
        undone = self.turns.escaped(error)

        def write(batch: Batch) -> None:
            if corrected:
                correct_whys(batch, corrected)
            if undone:
                drop_decisions(batch, self.opened.run, undone)
            self._contents.write(batch)
            text = "" if error is None else explain(error)
            self._acceptance.settle(batch)
            row = (self.execution, status.value, now, text, listed, reused, told[1])
            batch.add("execution_ends", row)

        self._store.commit(write)
