"""One execution of a run: program order, outcome numbers, decisions, the end.

Invariant: every outcome takes its number in `Settled.write`, under the
journal's lock, together with every decision that it closes; a handle becomes
durable, wakes its waiters and is shown only after that transaction. What code in
the cell can see is therefore what the next execution will see.
"""

from __future__ import annotations

import _thread
import asyncio
import contextvars
import functools
import heapq
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import output, scope
from .codec import decode, decode_error, encode, sign, traceback_text
from .combinators import Combinator, Gather, Select, flatten, refuse_twice
from .entries import AttemptEnded, Closed, Found, Passed, Settled, Started
from .errors import (
    DurableError,
    NotInRunError,
    StepCancelledError,
    StoreError,
    UsageError,
    WaitTimeoutError,
)
from .executors import Clock, Coroutines, LoopThread, Threads, running_loop
from .fingerprint import Fingerprinter
from .handles import Handle, StepHandle, digest_of, handles_in, with_values
from .label import label_of
from .records import (
    AttemptFailed,
    AttemptStarted,
    Call,
    Checkpoint,
    Decided,
    Decision,
    Event,
    Kind,
    Noticed,
    RunFinished,
    RunStarted,
    RunStatus,
    StepCreated,
    StepDeferred,
    StepFinished,
    StepLetGo,
    StepReplayed,
    Version,
    Why,
)
from .scope import Scope
from .step import (
    Ending,
    Running,
    StepOptions,
    Work,
    attempt,
    attempt_async,
    backoff,
    explain,
    failure,
    is_async,
    is_generator_function,
    timed_out,
)
from .store import checkpoint_fields, decision_fields, pack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .fingerprint import Print
    from .store import Batch, Identity, Opened, Store

ASYNC_LIMIT = 100
STARTS_SECONDS = 0.25
_TIMER_VERSION = Version(b"", b"", digest_of(b"timer"))
_background = LoopThread("nbdurable-loop")


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What a workflow was asked for that its run needs."""

    name: str
    strict: bool = False
    limit: int = 6
    asynchronous: bool = False


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
        self.lock = threading.RLock()
        self.handles: list[Handle[Any]] = []
        self.notes: list[str] = []
        self._store = store
        self._index = opened.index
        self._clock = clock
        self._observers = tuple(observers)
        self._leftovers = leftovers
        self._prints = Fingerprinter(strict=settings.strict)
        self._next_number = opened.index.next_number
        self._live: dict[Identity, StepHandle[Any]] = {}
        self._claimed: set[bytes] = set()
        self._said: set[str] = set()
        self._codes_written: set[bytes] = set()
        self._starts_due = False
        self._ended = False
        self._errors: dict[int, tuple[BaseException, Identity]] = {}
        self._threads = Threads(settings.limit)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._coroutines = Coroutines(self._steps_loop, ASYNC_LIMIT)
        self.scope = Scope(self, opened.run.encode("ascii"), None, settings.asynchronous)

    # --- the beginning ------------------------------------------------------------

    def begin(self) -> None:
        """Say that the execution has begun; in an async cell, on its loop."""
        if self.settings.asynchronous:
            self._loop = asyncio.get_running_loop()
        self._emit(
            RunStarted(
                self.settings.name,
                self.opened.run,
                self.execution,
                len(self._index.checkpoints),
                self._clock.time(),
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
            self._launch(handle)
        return handle

    def call(
        self,
        where: Scope,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        options: StepOptions,
    ) -> Any:
        """Run a sync step in the calling thread and give its value."""
        handle = self._claim(where, function, arguments, keywords, options)
        if not handle.durable and not handle.pending:
            if options.timeout is None and handle.pair not in self._leftovers:
                self._perform_here(where, handle)
            else:
                self._launch(handle)
        if not handle.durable:
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
                self._launch(handle)
            return await handle

        return called()

    def _claim(
        self,
        where: Scope,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        options: StepOptions,
    ) -> StepHandle[Any]:
        self._refuse_ended(where, options.name)
        if is_generator_function(function):
            raise UsageError(
                f"{options.name} is a generator function, whose result can't be saved: return a list"
            )
        code = None if options.version is not None else self._prints.code(
            function, ignore=options.ignore
        )
        inputs = self._inputs(function, arguments, keywords, options)
        call = self._count(where, options.name, inputs.digest)
        code_digest = (
            code.digest if code is not None else digest_of(b"version", repr(options.version).encode())
        )
        again = self._live.get((call.id, b""))
        if again is not None:
            return again  # an earlier attempt of the parent has started it
        upstream = tuple(handles_in(arguments, keywords))
        handle: StepHandle[Any] = self._enroll(call, "step", where.parent)
        handle.upstream = upstream
        handle.version = self._version(code_digest, upstream)
        found = None
        if handle.version is not None:
            found = self._index.checkpoints.get((call.id, handle.version.id))
        if found is not None:
            self._created(handle, found.label)
            self._replay(handle, found)
            return handle
        handle.work = Work(
            label=label_of(options.name, arguments, keywords, [name for name, _ in inputs.parts]),
            function=function,
            arguments=arguments,
            keywords=keywords,
            options=options,
            code=code,
            inputs=inputs,
            context=contextvars.copy_context(),
            is_async=is_async(function),
            strict=self.strict,
        )
        self._created(handle, handle.work.label)
        self._note_prints(options.name, code, inputs)
        if handle.version is None:
            self._await_upstream(handle, code_digest)
        return handle

    def _inputs(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        options: StepOptions,
    ) -> Print:
        if options.key is not None:
            return self._prints.value(options.key(*arguments, **keywords), "key")
        return self._prints.arguments(function, arguments, keywords, ignore=options.ignore)

    def _count(self, where: Scope, name: str, inputs: bytes) -> Call:
        with self.lock:
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
        self._claimed.add(identity)
        return Call(where.namespace, name, inputs, count, identity)

    def _version(self, code: bytes, upstream: tuple[Handle[Any], ...]) -> Version | None:
        """Give the version, or None while an upstream outcome is not there or failed."""
        received = b""
        for handle in upstream:
            if not handle.durable or handle.ended is not Kind.VALUE:
                return None
        if upstream:
            received = digest_of(*[self._outcome_digest(handle) for handle in upstream])
        return Version(code, received, digest_of(code, received))

    def _outcome_digest(self, handle: Handle[Any]) -> bytes:
        return self._prints.value(handle.receive(), handle.name).digest

    def _enroll(self, call: Call, kind: str, parent: int | None) -> StepHandle[Any]:
        with self.lock:
            handle: StepHandle[Any] = StepHandle(
                self, len(self.handles), call, kind=kind, parent=parent
            )
            self.handles.append(handle)
            self._live[call.id, b""] = handle
        return handle

    def _created(self, handle: StepHandle[Any], label: str) -> None:
        handle.label_text = label
        if self._observers:
            self._emit(
                StepCreated(
                    handle.place, handle.kind, handle.name, label, self._clock.time(), handle.parent
                )
            )

    def _refuse_ended(self, where: Scope, what: str) -> None:
        if self._ended or not where.live:
            raise NotInRunError(what, "the run it belongs to has ended")

    # --- replay -------------------------------------------------------------------

    def _replay(self, handle: StepHandle[Any], found: Checkpoint) -> None:
        self._index.verify(found)
        with self.lock:
            handle.take_checkpoint(found)
            handle.durable = True
        if self._observers:
            self._emit_replayed(handle, found)

    def _emit_replayed(self, handle: StepHandle[Any], found: Checkpoint) -> None:
        self._emit(
            StepReplayed(
                handle.place,
                found.kind,
                found.number,
                found.seconds,
                found.attempt,
                self._clock.time(),
            )
        )

    def _restored(self, handle: StepHandle[Any]) -> Ending:
        """Give the ending of a durable handle, decoded from its checkpoint the first time."""
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
            handle.ending = ending
        return ending

    # --- starting bodies ------------------------------------------------------------

    def _launch(self, handle: StepHandle[Any]) -> None:
        """Start, adopt or defer a step that has no checkpoint."""
        if handle.pending or handle.started or self._ended:
            return
        if self._is_stored_loser(handle) and not handle.asked:
            handle.deferred = True
            self._emit(StepDeferred(handle.place, self._clock.time()))
            return
        self._start(handle)

    def _is_stored_loser(self, handle: StepHandle[Any]) -> bool:
        if handle.version is not None:
            return handle.pair in self._index.losers
        return handle.call.id in self._index.loser_calls

    def demand(self, handle: StepHandle[Any], *, rearm: bool) -> None:
        """Start a step that was deferred, or arm a timer that began in an earlier execution."""
        if handle.kind == "timer":
            self._arm(handle, rearm=rearm)
        elif handle.pending:
            for upstream in handle.upstream:
                upstream.demand(asked=True)
        elif handle.work is not None and not handle.started and not self._ended:
            self._start(handle)

    def _start(self, handle: StepHandle[Any]) -> None:
        work = handle.work
        assert work is not None
        with self.lock:
            if handle.started:
                return
            handle.started = True
            handle.deferred = False
            leftover = self._leftovers.pop(handle.pair, None)
        self._recall_attempts(handle)
        if leftover is not None:
            handle.running = leftover
            self._say(f"{handle.label}: still running from before; it was adopted, not started again")
            leftover.adopt(functools.partial(self._conclude, handle, leftover))
            return
        self._dispatch(handle)

    def _dispatch(self, handle: StepHandle[Any]) -> None:
        assert handle.work is not None
        if handle.work.is_async:
            self._coroutines.submit(
                functools.partial(self._perform_async, handle), handle.work.context
            )
        else:
            self._threads.submit(functools.partial(self._perform, handle))

    def _recall_attempts(self, handle: StepHandle[Any]) -> None:
        past = self._index.attempts.get(handle.pair)
        if past is not None:
            handle.last_attempt = past.last
            handle.failed_attempts = past.failed
        why, reason = self._why(handle)
        handle.why = f"{why.value}: {reason}" if reason else why.value

    def _open_attempt(self, handle: StepHandle[Any]) -> Running:
        handle.last_attempt += 1
        running = Running(lambda _: None, handle.last_attempt, self._clock.time())
        running.adopt(functools.partial(self._conclude, handle, running))
        handle.running = running
        self._store.journal.enqueue(Started(handle, running, self.execution), kick=False)
        if not self._starts_due:
            self._starts_due = True
            self._clock.call_later(STARTS_SECONDS, self._write_starts)
        if self._observers:
            why, _, reason = handle.why.partition(": ")
            self._emit(
                AttemptStarted(handle.place, running.number, Why(why), reason, running.started)
            )
        return running

    def _write_starts(self) -> None:
        """Commit the starts of bodies that take longer: a death then shows what was in flight."""
        self._starts_due = False
        if not self._ended:
            self._store.journal.enqueue(_Nothing())

    def _body_scope(self, handle: StepHandle[Any], *, asynchronous: bool) -> Scope:
        return Scope(self, handle.call.id, handle.place, asynchronous)

    def _perform(self, handle: StepHandle[Any]) -> None:
        """Run one attempt on a thread of the run."""
        if self._ended:
            return
        work = handle.work
        assert work is not None
        running = self._open_attempt(handle)
        body = self._body_scope(handle, asynchronous=False)
        work.context.run(scope.current.set, body)
        cancel = None
        if work.options.timeout is not None:
            cancel = self._clock.call_later(
                work.options.timeout, functools.partial(self._expire, handle, running, body)
            )
        ending = attempt(work)
        if cancel is not None:
            cancel()
        running.end(ending)

    async def _perform_async(self, handle: StepHandle[Any]) -> None:
        if self._ended:
            return
        work = handle.work
        assert work is not None
        running = self._open_attempt(handle)
        body = self._body_scope(handle, asynchronous=True)
        token = scope.current.set(body)
        try:
            ending = await attempt_async(work)
        finally:
            scope.current.reset(token)
        running.end(ending)

    def _perform_here(self, where: Scope, handle: StepHandle[Any]) -> None:
        """Run attempts in the calling thread until one ends the step."""
        work = handle.work
        assert work is not None
        handle.started = True
        self._recall_attempts(handle)
        endings: list[Ending] = []
        # Retried attempts are shown when they have ended: the final one's output counts.
        through = where.parent is None and not work.options.policy.retries
        while True:
            running = self._open_attempt(handle)
            running.fence()
            running.adopt(endings.append)
            work.context.run(scope.current.set, self._body_scope(handle, asynchronous=False))
            running.end(attempt(work, through=through))
            ending = endings.pop()
            if ending.interrupt:
                assert ending.error is not None
                handle.running = None
                self.break_off(handle, ending.error)
                raise ending.error
            wait = self._retry_wait(handle, ending)
            if wait is None:
                break
            self._attempt_failed(handle, running, ending, wait)
            self._pause(wait)
        settled = self._settle(handle, running, ending)
        settled.in_cell = where.parent is None
        self._store.journal.enqueue(settled, kick=False)
        self._store.journal.flush()

    def _pause(self, seconds: float) -> None:
        gate = _thread.allocate_lock()
        gate.acquire()
        cancel = self._clock.call_later(seconds, gate.release)
        try:
            gate.acquire()
        except BaseException:
            cancel()
            raise

    def _expire(self, handle: StepHandle[Any], running: Running, body: Scope) -> None:
        if running.fence():
            body.live = False
            self._threads.let_go()
            assert handle.work is not None
            self._conclude(handle, running, timed_out(handle.work))

    # --- attempts end -----------------------------------------------------------------

    def _conclude(self, handle: StepHandle[Any], running: Running, ending: Ending) -> None:
        """Retry, or settle: called once for each attempt, in whatever thread it ended."""
        if ending.interrupt:
            assert ending.error is not None
            self.break_off(handle, _as_cancelled(handle, ending.error))
            return
        wait = self._retry_wait(handle, ending)
        if wait is not None:
            self._attempt_failed(handle, running, ending, wait)
            self._clock.call_later(wait, functools.partial(self._dispatch, handle))
            return
        self._store.journal.enqueue(self._settle(handle, running, ending))

    def _retry_wait(self, handle: StepHandle[Any], ending: Ending) -> float | None:
        """Give the wait before the next attempt, or None if there is none."""
        assert handle.work is not None
        policy = handle.work.options.policy
        if (
            ending.kind is not Kind.ERROR
            or ending.final
            or ending.interrupt
            or self._ended
            or handle.failed_attempts >= policy.retries
            or ending.error is None
            or not policy.accepts(ending.error)
        ):
            return None
        handle.failed_attempts += 1
        return backoff(policy, handle.failed_attempts)

    def _attempt_failed(
        self, handle: StepHandle[Any], running: Running, ending: Ending, wait: float
    ) -> None:
        assert ending.error is not None
        now = self._clock.time()
        text = explain(ending.error)
        handle.attempt_errors.append(f"attempt {running.number} failed: {text}")
        self._store.journal.enqueue(AttemptEnded(handle, running, self.execution, now, text))
        self._emit(AttemptFailed(handle.place, running.number, text, wait, now))

    def _settle(self, handle: StepHandle[Any], running: Running, ending: Ending) -> Settled:
        if ending.note:
            self._say(ending.note)
        if ending.error is not None and handle.attempt_errors:
            for line in handle.attempt_errors:
                ending.error.add_note(line)
            ending.payload = failure(ending.error).payload
        return Settled(self, handle, running, ending, self._clock.time())

    # --- numbers and decisions -----------------------------------------------------------

    def take_number(self) -> int:
        """Give the next place in the commit order. The lock is held."""
        number = self._next_number
        self._next_number += 1
        return number

    def close_over(self, first: Handle[Any], batch: Batch) -> list[Handle[Any]]:
        """End every combinator that `first` completes, decisions into `batch`.

        Combinators are visited in the order in which they were made: one that
        contains another was made later, so when it looks, all below is settled.
        """
        resolved: list[Handle[Any]] = [first]
        if not first.observers:
            return resolved
        ready: list[tuple[int, Combinator[Any]]] = []
        queued: set[int] = set()

        def tell(handle: Handle[Any]) -> None:
            for observer in handle.observers:
                assert isinstance(observer, Combinator)
                if observer.number:
                    continue
                observer.notice(handle)
                if observer.place not in queued:
                    queued.add(observer.place)
                    heapq.heappush(ready, (observer.place, observer))

        tell(first)
        while ready:
            _, observer = heapq.heappop(ready)
            queued.discard(observer.place)
            if observer.number or not observer.evaluate():
                continue
            resolved.append(observer)
            if isinstance(observer, Select) and not observer.replayed:
                self.write_decision(observer, batch)
            tell(observer)
        return resolved

    def write_decision(self, select: Select[Any], batch: Batch) -> None:
        """Add a select's decision to the transaction. The lock is held."""
        if select.chosen is None:
            return  # all failed: nothing was chosen, and the errors' numbers tell as much
        decision = Decision(
            key=select.identity,
            branches=select.set_members(),
            winner=select.chosen.identity,
            number=select.number,
            execution=self.execution,
            losers=select.losers(),
            signature=b"",
        )
        batch.add(
            "decision_log",
            (
                decision.key,
                pack(decision.branches),
                decision.winner,
                pack(decision.losers),
                decision.number,
                decision.execution,
                select.label,
                select.chosen.label,
                self._clock.time(),
                sign(self._store.key, *decision_fields(self._store.id, decision)),
            ),
        )

    def write_checkpoint(self, settled: Settled, batch: Batch) -> None:
        """Sign a checkpoint and add it to the transaction. The lock is held."""
        handle, running, ending = settled.handle, settled.running, settled.ending
        assert handle.version is not None
        assert ending.payload is not None
        work = handle.work
        unsigned = Checkpoint(
            call=handle.call.id,
            version=handle.version.id,
            code=handle.version.code,
            namespace=handle.call.namespace,
            number=handle.number,
            execution=self.execution,
            kind=ending.kind,
            name=handle.name,
            label=handle.label_text,
            arguments=_arguments_text(work) if work is not None else "",
            attempt=running.number,
            started=running.started,
            seconds=handle.seconds,
            payload=ending.payload.data,
            output=output.dumps(ending.messages),
            signature=b"",
        )
        signature = sign(self._store.key, *checkpoint_fields(self._store.id, unsigned))
        batch.add(
            "checkpoints",
            (
                unsigned.call,
                unsigned.version,
                unsigned.code,
                unsigned.namespace,
                unsigned.number,
                unsigned.execution,
                unsigned.kind.value,
                unsigned.name,
                unsigned.label,
                unsigned.arguments,
                handle.why,
                unsigned.attempt,
                unsigned.started,
                unsigned.seconds,
                unsigned.payload,
                unsigned.output,
                signature,
            ),
        )
        handle.checkpoint = unsigned
        self._write_code(handle, batch)
        if ending.kind is Kind.ERROR and settled.in_cell:
            handle.seen = True
            batch.add("seen_errors", (*handle.pair, self.execution))

    def _write_code(self, handle: StepHandle[Any], batch: Batch) -> None:
        """Save what a code digest is made of, once, so that `why` can name what changed."""
        work = handle.work
        if work is None or work.code is None:
            return
        code = work.code.digest
        if code in self._codes_written or code in self._index.code_parts:
            return
        self._codes_written.add(code)
        for part, digest in work.code.parts:
            batch.add("codes", (code, part, digest))

    def make_durable(self, resolved: list[Handle[Any]]) -> None:
        """Wake whoever waits for these, and show them."""
        wakes: list[Callable[[], object]] = []
        with self.lock:
            for handle in resolved:
                handle.durable = True
                if handle.waiters:
                    wakes += handle.waiters
                    handle.waiters = []
        if self._observers:
            for handle in resolved:
                self._emit_ended(handle)
        for wake in wakes:
            wake()

    def _emit_ended(self, handle: Handle[Any]) -> None:
        if not isinstance(handle, StepHandle):
            self._emit_decided(handle, replayed=False)
        elif handle.replayed:
            assert handle.checkpoint is not None
            self._emit_replayed(handle, handle.checkpoint)
        else:
            error = handle.error()
            self._emit(
                StepFinished(
                    handle.place,
                    handle.ended or Kind.VALUE,
                    handle.number,
                    handle.seconds,
                    handle.checkpoint is not None,
                    "" if error is None else explain(error),
                    self._clock.time(),
                )
            )

    def break_off(self, handle: Handle[Any], error: BaseException) -> None:
        """Raise `error` wherever `handle`, or a combinator above it, is waited for."""
        wakes: list[Callable[[], object]] = []
        with self.lock:
            stack: list[Handle[Any]] = [handle]
            while stack:
                one = stack.pop()
                if one.durable or one.broken is not None:
                    continue
                one.broken = error
                wakes += one.waiters
                one.waiters = []
                stack += [above for above in one.observers if isinstance(above, Combinator)]
        for wake in wakes:
            wake()

    # --- combinators and timers --------------------------------------------------------

    def select(self, where: Scope, handles: Sequence[Any], *, success: bool = False) -> Select[Any]:
        """Make a select over `handles`; decided at once where the store or the numbers tell."""
        self._refuse_ended(where, "select")
        branches = flatten(handles, "select")
        if not branches:
            raise UsageError("select() needs at least one handle: there is nothing to wait for")
        refuse_twice(branches, "select")
        self._refuse_foreign(branches, "select")
        with self.lock:
            select: Select[Any] = Select(self, len(self.handles), branches, success=success)
            self.handles.append(select)
            self._combined(select)
            stored = self._index.decision_for(select.identity, select.set_members())
            if stored is not None:
                select.apply(stored)
                if select.number:
                    self._known_at_once(select)
                elif select.chosen is not None:
                    select.chosen.observers.append(select)
                return select
            select.observe()
            if select.evaluate():
                self._store.journal.enqueue(Closed(self, select))
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
        with self.lock:
            gather: Gather[Any] = Gather(
                self,
                len(self.handles),
                branches,
                keys=keys,
                return_exceptions=return_exceptions,
            )
            self.handles.append(gather)
            self._combined(gather)
            gather.observe()
            if gather.evaluate():
                if all(branch.durable or not branch.number for branch in branches):
                    self._known_at_once(gather)
                else:
                    self._store.journal.enqueue(Closed(self, gather))
        return gather

    def after(self, where: Scope, seconds: float, name: str = "after") -> StepHandle[Any]:
        """Make a timer handle: done `seconds` after it was first made."""
        self._refuse_ended(where, name)
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds >= 0:
            raise UsageError(f"{name}({seconds!r}): give a number of seconds, 0 or more")
        call = self._count(where, name, digest_of(b"seconds", repr(float(seconds)).encode()))
        again = self._live.get((call.id, b""))
        if again is not None:
            return again
        handle = self._enroll(call, "timer", where.parent)
        handle.version = _TIMER_VERSION
        handle.timer_seconds = float(seconds)
        self._created(handle, f"{name}({seconds:g})")
        found = self._index.checkpoints.get(handle.pair)
        if found is not None:
            self._replay(handle, found)
            return handle
        past = self._index.attempts.get(handle.pair)
        if past is None:
            self._arm(handle, rearm=True)
        else:
            handle.last_attempt = past.last
            handle.wake = past.started + handle.timer_seconds
        return handle

    def _arm(self, handle: StepHandle[Any], *, rearm: bool) -> None:
        with self.lock:
            if handle.started or self._ended:
                return
            handle.started = True
        now = self._clock.time()
        if rearm or handle.wake is None:
            handle.wake = now + handle.timer_seconds
            handle.last_attempt += 1
        running = Running(lambda _: None, handle.last_attempt, handle.wake - handle.timer_seconds)
        handle.running = running
        handle.why = Why.NEW.value if handle.last_attempt == 1 else Why.UNFINISHED.value
        self._store.journal.enqueue(Started(handle, running, self.execution))
        self._emit(AttemptStarted(handle.place, handle.last_attempt, Why.NEW, "", now))
        handle.cancel_timer = self._clock.call_later(
            handle.wake - now, functools.partial(self._fire, handle, running)
        )

    def _fire(self, handle: StepHandle[Any], running: Running) -> None:
        if not self._ended:
            ending = Ending(Kind.VALUE, payload=encode(None))
            self._store.journal.enqueue(
                Settled(self, handle, running, ending, self._clock.time())
            )

    def _combined(self, combinator: Combinator[Any]) -> None:
        if self._observers:
            self._emit(
                StepCreated(
                    combinator.place,
                    combinator.kind,
                    combinator.name,
                    combinator.label,
                    self._clock.time(),
                    None,
                    tuple(branch.place for branch in combinator.branches),
                )
            )

    def _known_at_once(self, combinator: Combinator[Any]) -> None:
        combinator.durable = True
        self._emit_decided(combinator, replayed=True)

    def _emit_decided(self, combinator: Handle[Any], *, replayed: bool) -> None:
        if self._observers:
            chosen = combinator.chosen if isinstance(combinator, Select) else None
            self._emit(
                Decided(
                    combinator.place,
                    chosen.place if chosen is not None else None,
                    combinator.ended or Kind.VALUE,
                    combinator.number,
                    replayed,
                    self._clock.time(),
                )
            )

    def _refuse_foreign(self, branches: Iterable[Handle[Any]], what: str) -> None:
        for branch in branches:
            if branch.run_of() is not self:
                raise UsageError(
                    f"{what}: {branch.label} belongs to another run or an earlier execution; start "
                    f"it in this one"
                )

    # --- handles as arguments -----------------------------------------------------------

    def _await_upstream(self, handle: StepHandle[Any], code: bytes) -> None:
        with self.lock:
            open_ends = [upstream for upstream in handle.upstream if not upstream.durable]
            handle.pending = len({upstream.place for upstream in open_ends}) or 1
            handle.code = code
            distinct = {upstream.place: upstream for upstream in open_ends}.values()
            for upstream in distinct:
                upstream.waiters.append(functools.partial(self._upstream_ended, handle))
        if not self._is_stored_loser(handle):
            for upstream in distinct:
                upstream.demand(asked=True)
        if not open_ends:
            self._upstream_ended(handle)

    def _upstream_ended(self, handle: StepHandle[Any]) -> None:
        """One more upstream outcome is durable; with the last one the step can start."""
        with self.lock:
            handle.pending -= 1
            if handle.pending:
                return
        failed = [one for one in handle.upstream if one.ended is not Kind.VALUE]
        if failed:
            first = min(failed, key=lambda one: (one.number, one.place))
            self._store.journal.enqueue(Passed(self, handle, first))
            return
        handle.version = self._version(handle.code, handle.upstream)
        assert handle.version is not None
        assert handle.work is not None
        found = self._index.checkpoints.get(handle.pair)
        if found is not None:
            self._store.journal.enqueue(Found(self, handle, found))
            return
        handle.work.arguments, handle.work.keywords = with_values(
            handle.work.arguments, handle.work.keywords, self._own_copy
        )
        self._launch(handle)

    def _own_copy(self, handle: Handle[Any]) -> Any:
        """Give a received value that nobody else holds."""
        value = handle.receive()
        return decode(encode(value).data)

    # --- waiting and receiving -------------------------------------------------------------

    def wait(self, handle: Handle[Any]) -> None:
        """Block until `handle` is durable.

        Raises:
            UsageError: It would block the loop that the handle needs.
            NotInRunError: The run ended without it.
        """
        where = scope.current.get()
        if where is not None and where.asynchronous and not handle.known and running_loop():
            raise UsageError(
                f"waiting for {handle.label} here would block the cell's own event loop: write "
                f"`await {handle.name or 'handle'}` (`await` the handle, then ask it)"
            )
        self.wait_here(handle)

    def wait_here(self, handle: Handle[Any]) -> None:
        """Block the calling thread until `handle` is durable."""
        handle.demand(asked=True)
        gate = _thread.allocate_lock()
        gate.acquire()
        with self.lock:
            waiting = not handle.durable and handle.broken is None
            if waiting:
                self._refuse_unresolved(handle)
                handle.waiters.append(gate.release)
        if waiting:
            with self._threads.blocked():
                gate.acquire()
        self._awoken(handle)

    async def wait_async(self, handle: Handle[Any]) -> None:
        """Wait on the running loop until `handle` is durable."""
        handle.demand(asked=True)
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        with self.lock:
            waiting = not handle.durable and handle.broken is None
            if waiting:
                self._refuse_unresolved(handle)
                handle.waiters.append(
                    functools.partial(loop.call_soon_threadsafe, _resolve, done)
                )
        if waiting:
            with self._coroutines.blocked():
                await done
        self._awoken(handle)

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
        handle.mark_known()

    def _refuse_unresolved(self, handle: Handle[Any]) -> None:
        if self._ended:
            raise NotInRunError(
                handle.label, "it had not ended when its run did, so nothing will end it now"
            )

    def receive(self, handle: StepHandle[Any]) -> Any:
        """Deliver a durable step's output once, and give its value or raise its error."""
        ending = self._restored(handle)
        if not handle.delivered:
            handle.delivered = True
            if not ending.shown:
                output.deliver(ending.messages)
        if ending.error is None:
            return ending.value
        if ending.interrupt:
            raise ending.error
        self.see(handle)
        self._errors[id(ending.error)] = (ending.error, handle.pair)
        raise ending.error

    def see(self, handle: StepHandle[Any]) -> None:
        """Commit that the cell has seen this error, before it sees it."""
        if handle.seen or self._ended:
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
                self._wait_for_rest()
            except BaseException as late:
                self._end(late)
                raise
        self._end(error)

    async def finish_async(self, error: BaseException | None) -> None:
        """End the execution on the cell's loop: as `finish`."""
        if error is None:
            try:
                for handle in self._rest():
                    await self.wait_async(handle)
            except BaseException as late:
                self._end(late)
                raise
        self._end(error)

    def _wait_for_rest(self) -> None:
        for handle in self._rest():
            self.wait_here(handle)

    def _rest(self) -> Iterable[StepHandle[Any]]:
        """Give the steps that the end of the cell waits for, new ones included."""
        at = 0
        while at < len(self.handles):
            handle = self.handles[at]
            at += 1
            if isinstance(handle, StepHandle) and not handle.durable and handle.kind == "step":
                if (handle.lost and not handle.asked) or handle.broken is not None:
                    continue
                if handle.held and not handle.started:
                    continue  # a call whose coroutine was never awaited
                yield handle

    def _end(self, error: BaseException | None) -> None:
        with self.lock:
            self._ended = True
        self.scope.live = False
        self._threads.close()
        still_running = self._stop_bodies(keep=error is not None)
        self._coroutines.close()
        self._store.journal.flush()
        status = _status_of(error)
        if error is None:
            self._deliver_rest()
        listed = self._listed(error)
        if still_running:
            self._say("still running: " + ", ".join(still_running) + "; a re-run adopts them")
        if status is RunStatus.FINISHED:
            self._note_unasked()
            self._note_unseen()
        now = self._clock.time()
        text = "" if error is None else explain(error)
        changed = self._corrected_whys()

        def write(batch: Batch) -> None:
            for why, pair in changed:
                batch.execute(
                    "UPDATE nbdurable.checkpoints SET why = ? WHERE call = ? AND version = ?",
                    (why, *pair),
                )
            batch.add(
                "execution_ends", (self.execution, status.value, now, text, pack(tuple(listed)))
            )

        try:
            self._store.commit(write)
        except StoreError:
            # A store that broke in mid-run has been reported by what broke; the missing
            # end makes the next execution treat this one as died, which loses nothing.
            if error is None:
                raise
        finally:
            self._abandon()
            self._emit(RunFinished(status, now, tuple(self.notes)))

    def _stop_bodies(self, *, keep: bool) -> list[str]:
        """Fence what still runs; with `keep`, a re-run in this process may adopt threads."""
        names = []
        for handle in list(self.handles):
            if not isinstance(handle, StepHandle) or handle.number:
                continue
            if handle.cancel_timer is not None:
                handle.cancel_timer()
            running = handle.running
            if running is None or handle.kind != "step" or not running.fence():
                continue
            assert handle.work is not None
            reason = "cancelled" if handle.work.is_async else "let go"
            if keep and not handle.work.is_async:
                self._leftovers[handle.pair] = running
                names.append(handle.label)
                reason = "still running"
            self._emit(StepLetGo(handle.place, reason, self._clock.time()))
        return names

    def _abandon(self) -> None:
        """Wake whoever still waits: nothing will end what is open now."""
        for handle in list(self.handles):
            if not handle.durable and handle.broken is None:
                error = NotInRunError(handle.label, "it had not ended when its run did")
                self.break_off(handle, error)

    def _deliver_rest(self) -> None:
        for handle in list(self.handles):
            if isinstance(handle, StepHandle) and handle.durable and not handle.delivered:
                if handle.parent is not None or (handle.lost and not handle.asked):
                    continue
                handle.delivered = True
                if handle.ending is None:
                    assert handle.checkpoint is not None
                    output.deliver(output.loads(handle.checkpoint.output))
                elif not handle.ending.shown:
                    output.deliver(handle.ending.messages)

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
                found[self._errors[id(one)][1]] = None
            stack += [one.__cause__, one.__context__]
            if isinstance(one, BaseExceptionGroup):
                stack += one.exceptions
        return list(found)

    def step_count(self) -> int:
        """Give how many steps and timers were asked for."""
        return sum(isinstance(handle, StepHandle) for handle in self.handles)

    def ran(self) -> bool:
        """Tell whether any body was started."""
        return any(isinstance(one, StepHandle) and one.running is not None for one in self.handles)

    # --- why, and what a person is told -----------------------------------------------------

    def _why(self, handle: StepHandle[Any]) -> tuple[Why, str]:
        index = self._index
        if handle.pair in self.opened.retried:
            return Why.ERROR_RETRIED, ""
        if handle.pair in index.attempts:
            return Why.UNFINISHED, ""
        older = index.versions.get(handle.call.id)
        if older:
            assert handle.version is not None
            if older[-1].code == handle.version.code:
                return Why.UPSTREAM_CHANGED, ""
            return Why.CODE_CHANGED, self._say_changed(handle, older[-1])
        return self._argument_changed(handle, self._older_calls(handle)[:2], only=True)

    def _older_calls(self, handle: StepHandle[Any]) -> list[Checkpoint]:
        named = self._index.named.get((handle.call.namespace, handle.name), [])
        latest = {found.call: found for found in named}
        return [found for found in latest.values() if found.call not in self._claimed]

    def _argument_changed(
        self, handle: StepHandle[Any], older: list[Checkpoint], *, only: bool
    ) -> tuple[Why, str]:
        if not older or (only and len(older) > 1) or handle.work is None:
            return Why.NEW, ""
        before = dict(part.split("=", 1) for part in older[0].arguments.split(";") if part)
        after = dict(part.split("=", 1) for part in _arguments_text(handle.work).split(";") if part)
        names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        return Why.ARGUMENT_CHANGED, ", ".join(names)

    def _say_changed(self, handle: StepHandle[Any], older: Checkpoint) -> str:
        """Name what changed in the code; once for each name, say how many outcomes that touches."""
        assert handle.version is not None
        assert handle.work is not None
        if handle.work.code is None:
            reason = "version="
        else:
            before = self._index.code_parts.get(older.code, {})
            after = dict(handle.work.code.parts)
            names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
            reason = ", ".join(names)
        named = self._index.named[handle.call.namespace, handle.name]
        latest = {found.call: found for found in named}
        count = sum(found.code != handle.version.code for found in latest.values())
        outcomes = "outcome" if count == 1 else "outcomes"
        self._say(
            f"{count:,} saved {outcomes} of {handle.name} no longer match: "
            f"{reason or 'its code'} changed"
        )
        return reason

    def _corrected_whys(self) -> list[tuple[str, Identity]]:
        """Pair what ran as new with what was no longer asked for, now that both are known."""
        changed = []
        left: dict[tuple[bytes, str], list[Checkpoint]] = {}
        for handle in self.handles:
            if not isinstance(handle, StepHandle) or handle.checkpoint is None:
                continue
            if handle.work is None or not handle.why.startswith((Why.NEW, Why.ARGUMENT_CHANGED)):
                continue
            group = (handle.call.namespace, handle.name)
            older = left.setdefault(group, self._older_calls(handle))
            why, reason = self._argument_changed(handle, older, only=False)
            del older[:1]
            text = f"{why.value}: {reason}" if reason else why.value
            if text != handle.why:
                handle.why = text
                changed.append((text, handle.pair))
        return changed

    def _note_unasked(self) -> None:
        own = self.scope.namespace
        unasked = {
            found.call
            for found in self._index.checkpoints.values()
            if found.namespace == own and found.call not in self._claimed
        }
        if unasked:
            outcomes = "outcome was" if len(unasked) == 1 else "outcomes were"
            self._say(f"{len(unasked):,} saved {outcomes} not asked for this time")

    def _note_unseen(self) -> None:
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
            self._say(
                f"failed, and nobody asked: {', '.join(unseen[:5])}; the next run tries again"
            )

    def _note_prints(self, name: str, *prints: Print | None) -> None:
        for one in prints:
            for note in one.notes if one is not None else ():
                self._say(f"{name}: {note}")

    def _say(self, line: str) -> None:
        with self.lock:
            if line in self._said:
                return
            self._said.add(line)
            self.notes.append(line)
        self._emit(Noticed(line, self._clock.time()))

    def _emit(self, event: Event) -> None:
        for observer in self._observers:
            observer(event)

    def _steps_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop if self._loop is not None else _background.loop


class _Traceback(Exception):  # noqa: N818 - a text that tracebacks print, not an error
    """The traceback text of a replayed error, shown as its cause."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class _Nothing:
    """An entry whose commit takes along what was enqueued before it."""

    def write(self, batch: Batch) -> None:
        """Add nothing."""

    def committed(self) -> None:
        """Nobody waits."""

    def failed(self, error: DurableError) -> None:
        """Nobody waits."""


def _as_cancelled(handle: StepHandle[Any], error: BaseException) -> BaseException:
    if isinstance(error, asyncio.CancelledError):
        return StepCancelledError(handle.label, "its body was cancelled from inside")
    return error


def _status_of(error: BaseException | None) -> RunStatus:
    if error is None:
        return RunStatus.FINISHED
    if isinstance(error, KeyboardInterrupt | asyncio.CancelledError):
        return RunStatus.INTERRUPTED
    return RunStatus.FAILED


def _arguments_text(work: Work) -> str:
    if work.inputs is None:
        return ""
    return ";".join([f"{name}={digest.hex()}" for name, digest in work.inputs.parts])


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
