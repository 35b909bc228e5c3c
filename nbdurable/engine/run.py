"""One execution of a run: its collaborators, made for each other, and what handles ask of it.

Invariant: what code in the cell can see has been committed before it sees it, so it is what
the next execution will see (CONTRACT sections 3 to 5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbdurable.commit.acceptance import Acceptance
from nbdurable.commit.ledger import Ledger
from nbdurable.commit.observers import Observers
from nbdurable.commit.reasons import Reasons
from nbdurable.commit.state import State
from nbdurable.errors import NotInRunError, WaitTimeoutError
from nbdurable.events import Event, RunStarted
from nbdurable.fingerprint import Fingerprinter
from nbdurable.handles import scope
from nbdurable.handles.handle import StepHandle
from nbdurable.handles.scope import Scope
from nbdurable.records import HandleKind

from .among_handles import is_cancelled
from .calls import Calls
from .cancellation import Cancellation
from .claims import Claims
from .closing import Closing
from .combining import Combining
from .completions import Completions
from .contents import Contents
from .control import Control, Execution
from .current import Current
from .dataflow import Dataflow
from .delivery import Delivery
from .escaped import Escaped
from .holding import Holding
from .remote import Remote
from .replays import Replays
from .results import Results
from .retries import Retries
from .runner import Runner
from .scheduler import Scheduler
from .suspects import Suspects
from .timers import Timers
from .turns import Turns
from .usage import Usage
from .waiting import Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nbdurable.executors.clock import Clock
    from nbdurable.handles.combinators import Gather
    from nbdurable.handles.handle import Handle
    from nbdurable.steps.attempts import Running
    from nbdurable.steps.options import RunSettings
    from nbdurable.store import Identity, Opened, Store


class Run:
    """One execution; made by the session, used by handles and by the public functions.

    ``calls``, ``combining``, ``timers``, ``turns`` and ``current`` are what the public
    functions use; ``closing`` ends it, and ``control`` is for who looks on.
    """

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
        state = self._state = State(
            store, opened, Observers(observers, clock, opened.index.spent), leftovers
        )
        self.handles = state.handles
        self.scope = Scope(self, opened.run.encode("ascii"), None, settings.asynchronous)
        ledger = Ledger(state)
        # First what knows about outcomes: why steps run, what is shown, what errors escape.
        reasons = Reasons(state)
        acceptance = self._acceptance = Acceptance(
            state, reasons, settings.name, keep=settings.keep, confirm=settings.confirm
        )
        holding = Holding(opened, ledger.kept, reasons, acceptance)
        delivery = self._delivery = Delivery(self.scope, state, tee=settings.tee)
        escaped = Escaped(state, ledger, reasons)
        results = self._results = Results(
            state, ledger, reasons, delivery, escaped, verify=settings.verify
        )
        self.current = Current(state, ledger, self._refuse_ended)
        # Then what runs attempts, from those that decide to those that start.
        suspects = Suspects(state)
        remote = Remote(ledger, self.current, settings)
        retries = Retries(
            state, ledger, escaped=escaped, current=self.current, acceptance=acceptance
        )
        runner = Runner(
            state,
            ledger,
            retries,
            limit=settings.limit,
            scope_of=self._body_scope,
            delivery=delivery,
            escaped=escaped,
            suspects=suspects,
            remote=remote,
        )
        scheduler = self._scheduler = Scheduler(
            state,
            ledger,
            runner,
            settings=settings,
            reasons=reasons,
            retries=retries,
            suspects=suspects,
            escaped=escaped,
            acceptance=acceptance,
            remote=remote,
        )
        # Then what waits, and what ends steps without an attempt.
        self.turns = Turns(state, ledger, suspects.hold_nobody_back)
        waiting = self._waiting = Waiting(state, ledger, runner, delivery, self.turns)
        cancellation = self._cancellation = Cancellation(state, ledger)
        replays = Replays(state, ledger, results, cancellation, delivery)
        completions = Completions(state, ledger, waiting)
        # Last what makes handles, in program order.
        prints = Fingerprinter(strict=settings.strict)
        dataflow = Dataflow(
            state,
            ledger,
            prints,
            scheduler,
            results=results,
            cancellation=cancellation,
            acceptance=acceptance,
            holding=holding,
        )
        contents = Contents(state, prints)
        claims = Claims(
            state,
            ledger,
            self,
            prints,
            settings=settings,
            refuse_ended=self._refuse_ended,
            acceptance=acceptance,
            contents=contents,
            usage=Usage(state, ledger, prints, dataflow.plain_version),
            dataflow=dataflow,
            replays=replays,
            scheduler=scheduler,
        )
        self.timers = Timers(
            state, ledger, claims=claims, replays=replays, retries=retries, suspects=suspects
        )
        self.combining = Combining(
            state,
            ledger,
            self,
            refuse_ended=self._refuse_ended,
            cancellation=cancellation,
            completions=completions,
        )
        self.calls = Calls(
            state,
            claims,
            settings=settings,
            refuse_ended=self._refuse_ended,
            acceptance=acceptance,
            cancellation=cancellation,
            scheduler=scheduler,
            waiting=waiting,
            combining=self.combining,
        )
        self.closing = Closing(
            state,
            ledger,
            self.scope,
            scheduler=scheduler,
            waiting=waiting,
            delivery=delivery,
            completions=completions,
            dataflow=dataflow,
            acceptance=acceptance,
            reasons=reasons,
            holding=holding,
            escaped=escaped,
            turns=self.turns,
            contents=contents,
        )
        self._begun = RunStarted(
            settings.name, opened.run, opened.execution, len(opened.index.checkpoints), clock.time()
        )
        self._controlled = Execution(state, cancellation, self._begun)
        self.control = Control(self._controlled)

    def begin(self) -> None:
        """Tell that the execution has begun."""
        self._state.observers.emit(self._begun)

    def say(self, line: str) -> None:
        """Keep a line for the person at the screen, and show it; the same line only once."""
        self._state.observers.say(line)

    @property
    def notes(self) -> list[str]:
        """Lines for the person at the screen."""
        return self._state.observers.notes

    def step_count(self) -> int:
        """Return how many steps and timers were asked for."""
        return sum(isinstance(handle, StepHandle) for handle in self.handles)

    def time(self) -> float:
        """Return the clock's time: not recorded."""
        return self._state.observers.clock.time()

    def is_of_parent(self) -> bool:
        """Tell whether this is a forked child, and the run its parent's."""
        return self._state.store.is_of_parent()

    def _body_scope(self, handle: StepHandle[Any], asynchronous: bool) -> Scope:  # noqa: FBT001 - a callback
        return Scope(self, handle.call_id, handle.place, asynchronous)

    def _refuse_ended(self, where: Scope, what: str) -> None:
        """Refuse to start or decide anything for code whose run, or whose step, has ended.

        Raises:
            NotInRunError: It has; names `what` was asked for.
            SuspendedError: The execution is suspended.
            StoreLockedError: This is a forked child of the process that has the store.
        """
        self._state.store.refuse_fork()
        self._acceptance.refuse_suspended(where.parent)
        if self._state.ended:
            raise NotInRunError(what, "the run it belongs to has ended")
        if not where.live or is_cancelled(self.handles, where.parent):
            raise NotInRunError(what, "the step whose code this is has ended: it was let go")

    # --- what a handle asks of its run ----------------------------------------------------

    def demand(self, handle: StepHandle[Any], *, rearm: bool) -> None:
        """Start a step that was deferred, or arm a timer that began in an earlier execution."""
        life = handle.life
        if life.cancelled_by_race is not None and self._cancellation.settle(handle):
            return
        if handle.kind is HandleKind.TIMER:
            self.timers.arm(handle, rearm=rearm)
        elif life.work is not None and life.startable:
            self._scheduler.start(handle)

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
        self._state.store.refuse_fork()
        self._waiting.refuse_blocking(handle)
        self._waiting.wait(handle, show=show)

    async def wait_async(self, handle: Handle[Any]) -> None:
        """Wait on the running loop until `handle` is durable."""
        self._state.store.refuse_fork()
        await self._waiting.wait_async(handle)

    def wait_limited(self, handle: Handle[Any], seconds: float) -> None:
        """Wait as a recorded select of the handle against a timer.

        Raises:
            WaitTimeoutError: The timer ended first.
        """
        where = scope.current.get()
        if where is None:
            raise NotInRunError(f"{handle.label}.result(timeout=...)")
        timer = self.timers.after(where, seconds, "result timeout")
        if self.combining.select(where, (handle, timer)).winner is timer:
            raise WaitTimeoutError(handle.label, seconds)

    def receive(self, handle: StepHandle[Any]) -> Any:
        """Deliver a durable step's output once, and return its value or raise its error."""
        return self._results.receive(handle)

    def show(self, handle: StepHandle[Any]) -> None:
        """Show a durable step's output, once."""
        self._delivery.deliver(handle)

    def fresh(self, handle: StepHandle[Any]) -> Any:
        """Return a durable step's value, or error, decoded anew."""
        return self._results.fresh(handle)

    def error_of(self, handle: StepHandle[Any]) -> BaseException | None:
        """Return the error that a numbered step ended with."""
        return self._results.ending(handle).error

    def see(self, handle: StepHandle[Any]) -> None:
        """Commit that this error is seen, before it is."""
        self._results.see(handle)

    def show_before(self, gather: Gather[Any]) -> None:
        """Show the output of the steps that a failed gather had received in its order."""
        self._delivery.show_before(gather)
