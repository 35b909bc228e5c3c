"""Stores, held open while they are used, and which runs are being executed.

Invariant: a store is open only while somebody uses it, and shortly after; one run
has at most one execution at a time in this process (the file's lock holds off
the others).
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from nbdurable import store as stores
from nbdurable.errors import StoreLockedError, UsageError
from nbdurable.executors.clock import Clock, SystemClock
from nbdurable.store import MEMORY

from .configuration import default_store
from .live_status import LiveStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nbdurable.steps.attempts import Running
    from nbdurable.store import Identity, Store

LINGER_SECONDS = 0.5
"""How long a store stays open after its last use: the next cell need not open it again."""


@dataclass(slots=True, eq=False)
class Open:
    """A store that is held, for how many, and what would end a wait to close it."""

    store: Store
    status: LiveStatus
    users: int = 0
    cancel_close: Callable[[], None] | None = None


@dataclass(slots=True)
class _State:
    """What this process holds; one instance, `_state`."""

    clock: Clock = field(default_factory=SystemClock)
    lock: threading.RLock = field(default_factory=threading.RLock)
    opens: dict[str, Open] = field(default_factory=dict)
    executing: dict[tuple[str, str], str] = field(default_factory=dict)
    leftovers: dict[str, dict[Identity, Running]] = field(default_factory=dict)
    inherited: dict[str, int] = field(default_factory=dict)
    """Stores that were open in the process from which this one was forked, with its id."""


_state = _State()


def _leave_to_parent() -> None:
    """Hold nothing in a forked child: what its parent has open is the parent's."""
    parents = {place: os.getppid() for place in _state.opens if place != MEMORY}
    inherited = {**parents, **_state.inherited}
    _state.__init__(inherited=inherited)  # type: ignore[misc] # every other field begins anew


os.register_at_fork(after_in_child=_leave_to_parent)


@contextlib.contextmanager
def executing(place: str, name: str) -> Iterator[None]:
    """Mark a run as being executed; the mark stays unless beginning it fails."""
    with _state.lock:
        holder = _state.executing.get((place, name))
        if holder is not None:
            raise UsageError(
                f"{name} is being executed already, by {holder}: a run has one execution at a "
                f"time; wait for it, or give this one another name or id="
            )
        _state.executing[place, name] = threading.current_thread().name
    try:
        yield
    except BaseException:  # an interrupt, too, leaves no mark
        _state.executing.pop((place, name), None)
        raise


def executed(place: str, name: str) -> None:
    """Take off the mark of `executing`."""
    _state.executing.pop((place, name), None)


def executed_at(place: str) -> list[str]:
    """Return the names of the runs of a store that are being executed."""
    return [name for at, name in list(_state.executing) if at == place]  # others begin and end


def leftovers_of(run: str) -> dict[Identity, Running]:
    """Return the bodies of a run that outlived their execution, to be added to and taken from."""
    return _state.leftovers.setdefault(run, {})


def acquire(place: str, wait: float = stores.LOCK_WAIT_SECONDS) -> Open:
    """Return a store, open until it is released as often as it was acquired."""
    with _state.lock:
        _give_up(place)
        found = _state.opens.get(place)
        if place in _state.inherited:
            raise StoreLockedError(stores.forked_sentence(place, _state.inherited[place]))
        if found is None:
            found = _state.opens[place] = Open(
                stores.Store.open(place, wait=wait), LiveStatus(place)
            )
        if found.cancel_close is not None:
            found.cancel_close()
            found.cancel_close = None
        found.users += 1
        return found


def _may_write(place: str) -> bool:
    return all(os.access(path, os.W_OK) for path in (place, Path(place).parent))


def _give_up(place: str) -> None:
    """Let go of a store on which a commit failed, or whose file was taken away.

    Whoever still uses it closes it.
    """
    with _state.lock:
        found = _state.opens.get(place)
        if found is not None and (found.store.broken or found.store.is_gone()):
            del _state.opens[place]
            if not found.users:
                found.store.close()


def release(place: str, found: Open) -> None:
    """Let go of what `acquire` returned; nobody else uses it, it is closed a little later."""
    with _state.lock:
        found.users -= 1
        if found.users:
            return
        if _state.opens.get(place) is not found:
            found.store.close()
        elif place != MEMORY:
            found.cancel_close = _state.clock.call_later(
                LINGER_SECONDS, functools.partial(_close_unused, place, found)
            )


def _close_unused(place: str, found: Open) -> None:
    with _state.lock:
        if _state.opens.get(place) is found and not found.users:
            del _state.opens[place]
            found.store.close()


def let_go(place: str) -> None:
    """Take a store that is in use out of those that are held; its last user closes it."""
    del _state.opens[place]


def unused(store: str | Path | None) -> str:
    """Return the path of a store that this process doesn't hold open.

    Raises:
        UsageError: A durable cell is using it.
    """
    place = stores.place_of(store or default_store())
    if (found := _state.opens.get(place)) is not None:
        _close_unused(place, found)
    if place in _state.opens:
        raise UsageError(f"{place} is in use by a durable cell: wait until it has ended")
    return place


def is_open(place: str) -> bool:
    """Tell whether this process has a store open."""
    return place in _state.opens


def undisturbed() -> threading.RLock:
    """Return the lock under which no store is opened or closed, and no run begun."""
    return _state.lock


def close_stores() -> None:
    """Close every store that no run uses, at once."""
    with _state.lock:  # a thread that is closing one must not be in DuckDB when Python ends
        for place, found in list(_state.opens.items()):
            _close_unused(place, found)


# A connection that is still open when the interpreter ends makes DuckDB print what it leaks.
atexit.register(close_stores)


@contextlib.contextmanager
def reading(
    store: str | Path | None = None, wait: float = stores.QUESTION_WAIT_SECONDS
) -> Iterator[Store | None]:
    """Yield the store for a question, or None where there is no file; never makes one.

    A store that this process may not write is opened to be read.
    """
    place = stores.place_of(store or default_store())
    _give_up(place)
    if place not in _state.opens and (place == MEMORY or not Path(place).is_file()):
        yield None
        return
    if place not in _state.opens and place not in _state.inherited and not _may_write(place):
        with contextlib.closing(stores.Store.open_to_read(place, wait=wait)) as opened:
            yield opened
        return
    found = acquire(place, wait)
    try:
        yield found.store
    finally:
        release(place, found)
