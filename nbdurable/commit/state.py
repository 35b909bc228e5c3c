"""What the collaborators of one execution share, stated once and handed to each at construction.

Invariant: everything that more than one of them changes is here, and changes with `lock` held.
The journal's lock is taken before it, never while it is held. Nothing here is replaced: each
of them holds the same objects for as long as the execution lasts.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from nbdurable.handles.handle import Handle, StepHandle
    from nbdurable.steps.attempts import Running
    from nbdurable.store import Identity, Opened, Store

    from .observers import Observers


class State:
    """One execution: what it started from, its handles, and who watches.

    ``handles`` are all that were made, each at the index by which it is known to views;
    ``live`` are the steps and timers among them by the id of their call, and ``children``
    by the index of the step whose body made them. ``leftovers`` are bodies of earlier
    executions that still run in this process. Once it has ``ended``, nothing starts.
    """

    __slots__ = (
        "children", "ended", "execution", "handles", "index", "leftovers", "live", "lock", "losers",
        "observers", "opened", "run", "store",
    )  # fmt: skip

    def __init__(
        self,
        store: Store,
        opened: Opened,
        observers: Observers,
        leftovers: dict[Identity, Running],
    ) -> None:
        self.store = store
        self.opened = opened
        self.index = opened.index
        self.run = opened.run
        self.execution = opened.execution
        self.observers = observers
        self.leftovers = leftovers
        self.lock = threading.RLock()
        self.losers = Losers()
        self.ended = False
        self.handles: list[Handle[Any]] = []
        self.live: dict[bytes, StepHandle[Any]] = {}
        self.children: dict[int, list[StepHandle[Any]]] = {}

    def end(self) -> None:
        """Let nothing start from now on."""
        with self.lock:
            self.ended = True

    def index_of(self, retracted: StepHandle[Any] | None) -> int:
        """Return the index of the next handle: a new one, or that of what was taken out."""
        return len(self.handles) if retracted is None else retracted.place

    def add(self, handle: StepHandle[Any]) -> None:
        """Take in a step or timer that was claimed. The lock is held."""
        self.handles[handle.place : handle.place + 1] = [handle]  # in the place of a retracted one
        self.live[handle.call_id] = handle
        if handle.parent is not None:
            self.children.setdefault(handle.parent, []).append(handle)


class Losers:
    """Whom to tell that more steps have lost: the end of a cell, which waits for none of them."""

    __slots__ = ("_listener",)

    def __init__(self) -> None:
        self._listener: Callable[[], object] | None = None

    def listen(self, listener: Callable[[], object]) -> None:
        """Call `listener` from now on, and none that listened before: a cell has one end."""
        self._listener = listener

    def tell(self) -> None:
        """Say that more have lost."""
        if self._listener is not None:
            self._listener()
