"""What a run asks of all its handles: whether a body was cancelled, and what its end needs.

Invariant: looks only; nothing is started or ended here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbdurable.handles.handle import StepHandle
from nbdurable.records import HandleKind, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from nbdurable.handles.handle import Handle
    from nbdurable.store import Identity, ReplayIndex


def steps_to_wait_for(handles: Sequence[Handle[Any]]) -> Iterable[StepHandle[Any]]:
    """Yield the steps that the end of the cell waits for, new ones included."""
    at = 0
    while at < len(handles):
        handle = handles[at]
        at += 1
        if (
            not isinstance(handle, StepHandle)
            or handle.kind is not HandleKind.STEP
            or not handle.is_claimed
        ):
            continue
        never_awaited = handle.life.awaitable and not handle.life.started
        if handle.durable or handle.broken is not None or never_awaited:
            continue
        if not is_passed_over(handles, handle):
            yield handle


def is_passed_over(handles: Sequence[Handle[Any]], handle: StepHandle[Any]) -> bool:
    """Tell whether the end does not wait for a step: it lost, or what started it did."""
    step: Handle[Any] | None = handle
    while isinstance(step, StepHandle) and not step.life.lost:
        step = None if step.parent is None else handles[step.parent]
    return step is not None


def is_cancelled(handles: Sequence[Handle[Any]], place: int | None) -> bool:
    """Tell whether the step at a place, or one that it is inside of, was cancelled."""
    while place is not None:
        step = handles[place]
        assert isinstance(step, StepHandle)
        if step.ended is Kind.CANCELLED:
            return True
        place = step.parent
    return False


def reused_of(handles: Iterable[Handle[Any]], index: ReplayIndex) -> Iterator[Identity]:
    """Yield the replayed outcomes that are not the newest of their calls: gc leaves them."""
    for handle in handles:
        if isinstance(handle, StepHandle) and handle.life.replayed:
            found = handle.life.checkpoint
            if found is not None and index.checkpoints.superseded(found):
                yield handle.identity
