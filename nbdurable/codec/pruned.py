"""Tracebacks as a person wants them: without the engine's frames between the user's own.

Invariant: nothing of an error but its traceback is touched, and a defect of ours stays to be
seen.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from nbdurable.errors import DurableError

if TYPE_CHECKING:
    from types import TracebackType

_PACKAGE: Final = str(Path(__file__).parents[1])


def prune(error: BaseException) -> None:
    """Take nbdurable's frames out of an error's traceback, and of those it hangs on.

    What is left reads as if the cell had called its functions itself. Whoever catches an error
    for this and lets it go on by a bare ``raise`` leaves no frame either. A frame
    of ours stays where an error that is not ours ends in it: that is a defect,
    and hiding it would help nobody.
    """
    pending, seen = [error], set[int]()
    while pending:
        current = pending.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        current.__traceback__ = _pruned(current)
        pending += [e for e in (current.__cause__, current.__context__) if e is not None]
        if isinstance(current, BaseExceptionGroup):
            pending += current.exceptions


def _pruned(error: BaseException) -> TracebackType | None:
    """Relink the traceback around the frames that are nbdurable's."""
    frames: list[TracebackType] = []
    entry = error.__traceback__
    while entry is not None:
        frames.append(entry)
        entry = entry.tb_next
    others = [at for at, frame in enumerate(frames) if not _is_ours(frame)]
    # Ours alone are a step's error or an interrupted wait; anything else is a defect.
    defect = isinstance(error, Exception) and not isinstance(error, DurableError)
    if not others:
        return error.__traceback__ if defect else None
    kept = [
        frame
        for at, frame in enumerate(frames)
        if not _is_ours(frame) or (defect and at > others[-1] and not _is_hidden(frame))
    ]
    for frame, following in zip(kept, [*kept[1:], None], strict=True):
        frame.tb_next = following
    return kept[0]


def _is_ours(entry: TracebackType) -> bool:
    return entry.tb_frame.f_code.co_filename.startswith(_PACKAGE)


def _is_hidden(entry: TracebackType) -> bool:
    return bool(entry.tb_frame.f_locals.get("__tracebackhide__"))
