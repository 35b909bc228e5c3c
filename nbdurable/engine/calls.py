"""The verbs that code starts steps with: go, map, a call, a call in another thread, an await.

Invariant: each claims its calls where it is made, in program order, before it waits for or
starts anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbdurable.executors.limits import Limit
from nbdurable.handles.coroutines import StepCoroutine
from nbdurable.interrupts import uninterrupted

from .handed_over import ClaimedCall

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from nbdurable.commit.acceptance import Acceptance
    from nbdurable.commit.state import State
    from nbdurable.fingerprint import Held
    from nbdurable.handles.combinators import Gather
    from nbdurable.handles.handle import StepHandle
    from nbdurable.handles.scope import Scope
    from nbdurable.steps.options import RunSettings, StepOptions

    from .cancellation import Cancellation
    from .claims import Claims
    from .combining import Combining
    from .scheduler import Scheduler
    from .waiting import Waiting


class Calls:
    """One execution's calls."""

    def __init__(
        self,
        state: State,
        claims: Claims,
        *,
        settings: RunSettings,
        refuse_ended: Callable[[Scope, str], None],
        acceptance: Acceptance,
        cancellation: Cancellation,
        scheduler: Scheduler,
        waiting: Waiting,
        combining: Combining,
    ) -> None:
        self._state = state
        self._claims = claims
        self._settings = settings
        self._refuse_ended = refuse_ended
        self._acceptance = acceptance
        self._cancellation = cancellation
        self._scheduler = scheduler
        self._waiting = waiting
        self._combining = combining

    def go(
        self,
        where: Scope,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        options: StepOptions,
    ) -> StepHandle[Any]:
        """Claim the next call of `function` and start it, unless it is replayed."""
        handle = self._claims.claim(where, function, arguments, keywords, options)
        self._launch(handle)
        return handle

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
            handle = self._claims.claim(
                where, function, row, same, options, held=held, limits=shared
            )
            handles.append(handle)
            self._launch(handle)
        if limit is not None and limit > self._settings.limit < len(handles):
            works = [
                one.life.work for one in handles if one.life.work is not None and not one.durable
            ]
            self._state.observers.say_narrow(options.name, works, limit, self._settings.limit)
        return self._combining.gather(where, (handles,), return_exceptions=return_exceptions)

    def call(
        self,
        where: Scope,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        options: StepOptions,
    ) -> Any:
        """Run a sync step in the calling thread and return its value.

        Raises:
            UsageError: It would wait for an argument, and so block its own loop.
        """
        self._waiting.refuse_unknown(arguments, keywords)
        return self._perform(
            where, self._claims.claim(where, function, arguments, keywords, options)
        )

    def call_ahead(
        self,
        where: Scope,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        options: StepOptions,
    ) -> ClaimedCall:
        """Claim a sync step's call now; return what performs it in another thread."""
        handle = self._claims.claim(where, function, arguments, keywords, options)
        with self._state.lock:
            reserved = handle.life.reserve()

        def perform() -> Any:
            self._refuse_ended(where, handle.name)
            if reserved:
                with self._state.lock:
                    handle.life.release()
            return self._perform(where, handle)

        def forgo() -> None:
            handle.life.lose()
            self._state.losers.tell()

        return ClaimedCall(handle, perform, forgo)

    def call_async(
        self,
        where: Scope,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        options: StepOptions,
    ) -> Any:
        """Claim the call now, in program order; start it when it is awaited."""
        handle = self._claims.claim(where, function, arguments, keywords, options)
        handle.life.start_when_awaited()
        return StepCoroutine(handle, self._scheduler.launch)

    def _launch(self, handle: StepHandle[Any]) -> None:
        if not handle.durable:
            self._scheduler.pack(handle)
            with uninterrupted():
                self._scheduler.launch(handle)
            self._acceptance.refuse_suspended(handle.parent)

    def _perform(self, where: Scope, handle: StepHandle[Any]) -> Any:
        if handle.life.cancelled_by_race is not None:
            self._cancellation.settle(handle)
        if handle.life.startable:
            if self._scheduler.runs_here(handle):
                self._scheduler.perform_here(handle, in_cell=where.parent is None)
            else:
                self._launch(handle)
        if not handle.durable:
            self._waiting.refuse_needed(handle)
            self._waiting.wait(handle)
        handle.mark_asked()
        return handle.receive()
