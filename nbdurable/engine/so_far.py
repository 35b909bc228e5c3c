"""How far an execution is at this moment, as the events that would tell it.

Invariant: looks at what is there, waits for nothing and changes nothing; what is told has
been committed, as for every event.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

from nbdurable.events import (
    AttemptFailed,
    AttemptStarted,
    Decided,
    StepCreated,
    StepDeferred,
    StepFinished,
    StepProgressed,
    StepReplayed,
)
from nbdurable.handles.combinators import Combinator, Select
from nbdurable.handles.handle import StepHandle
from nbdurable.handles.lifecycle import Phase
from nbdurable.records import HandleKind, Kind, Reason, Why
from nbdurable.steps.attempts import explain, place_of, told_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nbdurable.events import Event
    from nbdurable.handles.handle import Handle

_ENDED: Final = {Kind.VALUE: "done", Kind.ERROR: "failed", Kind.CANCELLED: "cancelled"}


def counts_of(handles: Sequence[Handle[object]]) -> dict[str, int]:
    """Return how many steps are done, replayed, failed, running and so on, by a view's words."""
    counts: dict[str, int] = {}
    for handle in handles:
        if isinstance(handle, StepHandle) and handle.kind is HandleKind.STEP:
            word = _word(handle)
            counts[word] = counts.get(word, 0) + 1
    return counts


def events_so_far(handles: Sequence[Handle[object]], began: float, most: int) -> list[Event]:
    """Return what tells of each handle how it is, in their order.

    Args:
        handles: The execution's, in the order of their places.
        began: When the execution began, in seconds since the epoch.
        most: So many handles at most are told of: those that are under way, or failed, first,
            then those that ended last.
    """
    chosen = [*handles]
    if len(chosen) > most:
        chosen.sort(key=lambda one: (one.durable and one.ended is not Kind.ERROR, -one.place))
        chosen = sorted(chosen[:most], key=lambda one: one.place)
    told = {one.place for one in chosen}
    replayed: set[int] = set()
    for one in chosen:
        of_branches = isinstance(one, Combinator) and {b.place for b in one.branches} <= replayed
        if of_branches or _is_replayed(one):
            replayed.add(one.place)
    return [event for one in chosen for event in _of(one, began, told, replayed)]


def _is_replayed(handle: Handle[object]) -> bool:
    if isinstance(handle, StepHandle):
        return handle.life.replayed
    return isinstance(handle, Combinator) and handle.replayed


def _of(
    handle: Handle[object], began: float, told: set[int], replayed: set[int]
) -> Iterator[Event]:
    if isinstance(handle, StepHandle):
        yield from _of_step(handle, began, told)
    elif isinstance(handle, Combinator):
        branches = tuple(one.place for one in handle.branches if one.place in told)
        parents = {getattr(one, "parent", None) for one in handle.branches}
        parent = parents.pop() if len(parents) == 1 else None
        place = handle.place
        yield StepCreated(
            place, handle.kind.value, handle.name, handle.label, began,
            parent if parent in told else None, branches,
        )  # fmt: skip
        if handle.durable:
            chosen = handle.chosen if isinstance(handle, Select) else None
            winner = chosen.place if chosen is not None else None
            kind = handle.ended or Kind.VALUE
            yield Decided(place, winner, kind, handle.number, place in replayed, began)


def _of_step(handle: StepHandle[object], began: float, told: set[int]) -> Iterator[Event]:
    place, life, found, running = (
        handle.place,
        handle.life,
        handle.life.checkpoint,
        handle.life.running,
    )
    inputs = tuple(one.place for one in handle.upstream if one.place in told)
    parent = handle.parent if handle.parent in told else None
    label = handle.label_text
    yield StepCreated(place, handle.kind.value, handle.name, label, began, parent, inputs=inputs)
    if handle.durable and life.replayed and found is not None:
        error = _told(found.payload) if found.kind is Kind.ERROR else ("", "")
        yield StepReplayed(
            place, found.kind, found.number, found.seconds, found.attempt, began, *error
        )
        return
    if life.phase is Phase.DEFERRED:
        yield StepDeferred(place, began)
        return
    started = running.started if running is not None else found.started if found else None
    number = life.last_attempt or 1
    if started is not None:
        reason = life.reason or Reason(Why.UNFINISHED)
        yield AttemptStarted(place, number, reason.why, reason.detail, started)
        if running is not None and (said := running.progress) is not None:
            yield StepProgressed(place, said.done, said.total, started)
    if handle.durable:
        seconds, kind = life.seconds, handle.ended or Kind.VALUE
        error = ("", "") if kind is Kind.VALUE else _error_of(handle)
        ended = (started if started is not None else began) + seconds
        saved = found is not None
        yield StepFinished(place, kind, handle.number, seconds, saved, error[0], ended, error[1])
    elif life.pause is not None and life.attempt_errors:
        failed = life.attempt_errors[-1].partition(" failed: ")[2]
        yield AttemptFailed(place, life.failed_attempts, failed, 0.0, began)


def _error_of(handle: StepHandle[object]) -> tuple[str, str]:
    ending = handle.life.ending
    error = ending.error if ending is not None else None
    return ("", "") if error is None else (explain(error), place_of(error))


_told: Final = functools.lru_cache(maxsize=256)(told_error)
"""A saved error is decoded once, however often it is told."""


def _word(handle: StepHandle[object]) -> str:
    life = handle.life
    if handle.durable:
        kind = handle.ended or Kind.VALUE
        if kind is Kind.VALUE and life.replayed:
            return "replayed"
        return "not saved" if kind is Kind.VALUE and life.checkpoint is None else _ENDED[kind]
    if life.phase is Phase.DEFERRED:
        return "not started"
    if life.running is not None:
        return "running"
    return "retrying" if life.pause is not None else "waiting"
