"""Which step's output is shown when: once, in order, and live for the one that is waited for.

Invariant: a step's output goes to the code that started it, when that first receives
it, or at its end in `go` order; a loser's goes nowhere. What is shown live is what
would have been delivered at that place next, so a replay shows the same text in the
same order (CONTRACT section 6).
"""

from __future__ import annotations

import _thread
import contextlib
from typing import TYPE_CHECKING, Any, Self

from nbdurable.handles import scope
from nbdurable.handles.combinators import Gather, Select
from nbdurable.handles.handle import StepHandle
from nbdurable.interrupts import uninterrupted
from nbdurable.output import capture as output
from nbdurable.output.capture import Destination
from nbdurable.records import HandleKind, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from nbdurable.commit.state import State
    from nbdurable.executors.gates import Gate, LoopGate
    from nbdurable.handles.handle import Handle
    from nbdurable.handles.scope import Scope, Works
    from nbdurable.output.stage import Stage
    from nbdurable.records import Message
    from nbdurable.steps.attempts import Running

LIVE_SECONDS = 0.05
"""A wait shorter than this shows nothing live: what comes at once can be shown at its end."""


class Delivery:
    """One execution's output."""

    def __init__(self, home: Scope, state: State, *, tee: bool) -> None:
        self._home = home
        self._state = state
        self._tee = tee
        self._lock = _thread.allocate_lock()
        self._destinations: list[Destination] = []
        home.own_stage()

    # --- what is received --------------------------------------------------------------

    def deliver(self, handle: StepHandle[Any]) -> None:
        """Show a durable step's output, once, where the code that started it shows its own."""
        where = scope.current.get()
        if where is None or where.run is not self._home.run:
            where = self._home  # the caller stands in no code of this run: the run has ended
        work = scope.work.get()
        if work is not None and work.in_thread and where.parent is None:
            work.unshown.append(handle)  # shown when the cell's own code asks for this work
            return
        if handle.life.delivered is where or handle.namespace != where.namespace:
            return
        if where.parent is not None and not where.live:
            return  # the body was let go: its next attempt receives the output
        handle.life.deliver_to(where)
        stage = where.own_stage()
        messages = self._left(handle, stage)
        if messages:
            stage.deliver(messages)

    def replayed(self, handle: StepHandle[Any]) -> None:
        """With tee, show what is replayed at once."""
        if self._tee:
            self.deliver(handle)

    def show_before(self, gather: Gather[Any]) -> None:
        """Show what a gather had received before the failure that it ends with."""
        for step in _leading(gather):
            if not step.number or step.number >= gather.number:
                return
            self.deliver(step)

    def deliver_rest(self, handles: Iterable[Handle[Any]], works: Works | None) -> None:
        """Show, in `go` order, the output of steps that the cell never asked; losers' never.

        Before them that of steps in threads, in the order in which their work was handed over.
        """
        for work in works.handed if works is not None else ():
            for step in work.unshown:
                self.deliver(step)
        for handle in handles:
            if isinstance(handle, StepHandle) and handle.durable and not handle.life.lost:
                self.deliver(handle)

    def close(self) -> None:
        """Show nothing more of what still runs: the cell has ended."""
        for destination in (self._home.own_stage().destination, *self._destinations):
            destination.close()

    def _left(self, handle: StepHandle[Any], stage: Stage) -> Sequence[Message]:
        ending = handle.life.ending
        if ending is None:
            found = handle.life.checkpoint
            return output.loads(found.output) if found is not None else ()
        if ending.shown_at is not None and (self._tee or ending.shown_at is stage.destination):
            return ending.unshown
        return ending.messages

    # --- live ---------------------------------------------------------------------------

    def begun(self, handle: StepHandle[Any], running: Running) -> None:
        """Let an attempt's output be shown live if somebody waits for it."""
        if self._tee:
            assert handle.life.work is not None
            # Run in a copy of the context, because a coroutine's own context is in use already.
            destination: Destination = handle.life.work.context.copy().run(Destination, alone=False)
            self._destinations.append(destination)
            running.capture.follow(destination)
            return
        with self._lock:
            if (follower := handle.life.follower) is not None and _is_final(handle):
                running.capture.follow(follower)

    @contextlib.contextmanager
    def here(self, handle: StepHandle[Any], running: Running) -> Iterator[None]:
        """Show live what an attempt writes that runs in the block, in the calling thread."""
        stage = self.free_stage() if _is_final(handle) else None
        if stage is None:
            yield
            return
        stage.occupy()
        try:
            running.capture.follow(stage.destination)
            yield
        finally:
            running.capture.unfollow()
            stage.over()

    def watch(self, handle: Handle[Any]) -> Watch:
        """Make what shows live what a wait for `handle` waits for."""
        return Watch(self, _leading(handle))

    def watch_rest(
        self, handles: Sequence[Handle[Any]], passed_over: Callable[[StepHandle[Any]], bool]
    ) -> Watch:
        """Make what shows the rest, in `go` order, while the end of the cell waits for it.

        It waits no longer for what is `passed_over`.
        """
        return Watch(self, _in_order(handles), passed_over)

    def wait(self, handle: Handle[Any], gate: Gate, watch: Watch | None) -> None:
        """Block until `handle` is durable or broken off, which opens `gate`."""
        gate.wait(LIVE_SECONDS)
        if _is_over(handle):
            return
        with watch or self.watch(handle) as shown:
            while not shown.is_over(handle):
                with uninterrupted():
                    shown.go_on(gate.open)
                gate.wait()

    async def wait_async(
        self, handle: Handle[Any], gate: LoopGate, watch: Watch | None, entered: Watch | None
    ) -> None:
        """Await until `handle` is durable or broken off, which opens `gate`.

        What shows it meanwhile is the one that was `entered` already, or else `watch`.
        """
        await gate.wait(LIVE_SECONDS)
        if _is_over(handle):
            return
        blocks = contextlib.nullcontext(entered) if entered else watch or self.watch(handle)
        with blocks as shown:
            while not shown.is_over(handle):
                with uninterrupted():
                    shown.go_on(gate.open)
                await gate.wait()

    def follow(
        self, step: StepHandle[Any], destination: Destination, wake: Callable[[], object]
    ) -> None:
        """Show a step live; call `wake` when it is durable or broken off."""
        with self._lock:
            step.life.follow(destination)
            running = step.life.running
            if running is not None and _is_final(step):
                running.capture.follow(destination)
        with self._state.lock:
            if not _is_over(step):
                step.wake(wake)
                return
        wake()

    def unfollow(self, step: StepHandle[Any]) -> None:
        """Show it live no more."""
        with self._lock:
            step.life.follow(None)
            running = step.life.running
            if running is not None:
                running.capture.unfollow()

    def free_stage(self) -> Stage | None:
        """Return the stage of the calling code; None where another step is shown live on it.

        Nor is anything shown live for a task or thread that the cell has started
        itself: it has no order with what the cell shows; nor where displays are
        collected: each change of one would be, and nobody looks.
        """
        where = scope.current.get()
        if self._tee or where is None or where.run is not self._home.run or output.diverted():
            return None
        stage = where.own_stage()
        return None if stage.busy or where.strand() != stage.home else stage


class Watch:
    """Shows live, one after the other, the steps whose output comes next."""

    def __init__(
        self,
        delivery: Delivery,
        steps: Iterator[StepHandle[Any]],
        passed_over: Callable[[StepHandle[Any]], bool] = lambda _: False,
    ) -> None:
        self._delivery = delivery
        self._passed_over = passed_over
        self._steps = steps
        self._step: StepHandle[Any] | None = None
        self._stage: Stage | None = None
        self._namespace = b""

    def __enter__(self) -> Self:
        self._stage = self._delivery.free_stage()
        if self._stage is not None:
            self._stage.occupy()
            where = scope.current.get()
            assert where is not None
            self._namespace = where.namespace
        return self

    def __exit__(self, *_: object) -> None:
        stage, self._stage = self._stage, None
        if stage is not None:
            if self._step is not None:
                self._delivery.unfollow(self._step)
            stage.over()

    def is_over(self, handle: Handle[Any]) -> bool:
        """Tell whether nobody has to wait for `handle` any more."""
        over = _is_over(handle)
        return over or (isinstance(handle, StepHandle) and self._passed_over(handle))

    def show_ended(self) -> None:
        """Show what has ended of what comes next, which nobody need wait for."""
        with uninterrupted():
            self.go_on(lambda: None)

    def go_on(self, wake: Callable[[], object]) -> None:
        """Show what has ended, and the next one live; `wake` is called when that has ended."""
        stage = self._stage
        if stage is None:
            return
        while True:
            if self._step is None:
                self._step = next(self._steps, None)
            step = self._step
            if step is None or step.namespace != self._namespace:
                return  # the next step is not known yet, or its output is other code's to show
            if not _is_over(step):
                self._delivery.follow(step, stage.destination, wake)
                return
            self._step = None
            stage.vacate()
            if step.durable:
                self._delivery.deliver(step)
            stage.occupy()


def _leading(handle: Handle[Any]) -> Iterator[StepHandle[Any]]:
    """Yield the steps that `handle` delivers, each asked for when the last one has ended.

    It ends where nobody knows what comes next: after a failure, or with the branch of a
    select that is undecided.
    """
    stack: list[tuple[Handle[Any], Gather[Any] | None]] = [(handle, None)]
    while stack:
        one, gather = stack.pop()
        if gather is not None and not gather.return_exceptions and _has_failed(one):
            return  # the gather has failed with this branch, and delivers no later one
        if gather is not None:
            continue
        if isinstance(one, StepHandle):
            if one.kind is HandleKind.STEP:
                yield one
            if not one.durable:
                return
        elif isinstance(one, Gather):
            for branch in reversed(one.branches):
                stack += [(branch, one), (branch, None)]
        elif isinstance(one, Select):
            if one.chosen is None:
                return
            stack.append((one.chosen, None))


def _has_failed(branch: Handle[Any]) -> bool:
    return branch.ended is not Kind.VALUE


def _in_order(handles: Sequence[Handle[Any]]) -> Iterator[StepHandle[Any]]:
    """Yield a cell's own steps in `go` order, as long as none can become a loser any more."""
    undecided = [one for one in handles if isinstance(one, Select) and not one.number]
    at = 0
    while at < len(handles):
        handle = handles[at]
        at += 1
        undecided = [select for select in undecided if not select.number]
        if undecided:
            return
        if (
            isinstance(handle, StepHandle)
            and handle.kind is HandleKind.STEP
            and handle.parent is None
        ):
            life = handle.life
            never_awaited = life.awaitable and not life.started
            wanted = handle.is_claimed and not life.lost and not never_awaited
            if wanted and handle.broken is None:
                yield handle


def _is_over(handle: Handle[Any]) -> bool:
    return handle.durable or handle.broken is not None


def _is_final(handle: StepHandle[Any]) -> bool:
    """Tell whether the attempt under way is the last: the final one's output counts."""
    work = handle.life.work
    return work is not None and handle.life.failed_attempts >= work.options.policy.retries
