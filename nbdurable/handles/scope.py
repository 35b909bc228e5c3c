"""Where code stands: in which run, under which step, in which strand of its order.

Invariant: told by a ContextVar alone, so it follows a body into its thread, its
task and whatever copies their context, and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import threading
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nbdurable.errors import NotInRunError

if TYPE_CHECKING:
    from nbdurable.engine.run import Run
    from nbdurable.executors.limits import Room
    from nbdurable.output.capture import Stage


@dataclass(slots=True)
class Scope:
    """One namespace of calls: a run's cell, or one attempt of a step's body.

    ``occurrences`` counts identical calls in program order; each count keeps the
    strand (task or thread) that the first of them came from, for two strands
    have no order between them.
    """

    run: Run
    namespace: bytes
    parent: int | None
    asynchronous: bool
    live: bool = True
    limits: list[Room] = field(default_factory=list)
    occurrences: dict[tuple[str, bytes], tuple[int, int]] = field(default_factory=dict)
    stage: Stage | None = None

    def end(self) -> None:
        """Let what is left of this body start and decide nothing more, and hold up nobody."""
        self.live = False
        self.give_limits()

    def give_limits(self) -> None:
        """Make room for others of the limits that this body counts in, once."""
        while self.limits:
            self.limits.pop().give()

    def strand(self) -> int:
        """Give what tells apart the places that code in this scope can run at."""
        place: object = threading.current_thread()
        if self.asynchronous:
            with contextlib.suppress(RuntimeError):
                place = asyncio.current_task() or place
        known = _strands.get(place)
        if known is None:
            known = _strands[place] = next(_numbers)
        return known


# By number, not by address: Python puts a new task where one was that is gone.
_strands: weakref.WeakKeyDictionary[object, int] = weakref.WeakKeyDictionary()
_numbers = itertools.count()

current: contextvars.ContextVar[Scope | None] = contextvars.ContextVar(
    "nbdurable_scope", default=None
)


def _where(operation: str) -> Scope:
    where = current.get()
    if where is None:
        raise NotInRunError(operation)
    return where
