"""Errors of other libraries whose cause lies in how steps run: what to do is added as a note.

Invariant: an error is only added to, once; which one it is is told by its own words.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class _Hint(NamedTuple):
    """A note for errors of a class of this name, any where it is empty, that say this."""

    kind: str
    sign: str
    note: str


_SHARED: Final = (
    "A DuckDB connection that steps use at once mixes up their results: use `con.cursor()` in each "
    "step, or `limit=1` on it."
)

_HINTS: Final = (
    _Hint(
        "ConnectionException",
        "same database file with a different configuration",
        "nbdurable has this file open as its store while a durable cell runs, and shortly after. "
        "In this kernel duckdb.connect(path) without read_only= and config= shares it; settings "
        "can be made afterwards, by SET.",
    ),
    _Hint("ResourceInUseException", "connection is busy with another call", _SHARED),
    _Hint("InvalidInputException", "No open result set", _SHARED),
    _Hint("InvalidInputException", "closed pending query result", _SHARED),
    _Hint(
        "RuntimeError",
        "asyncio.run() cannot be called from a running event loop",
        "A step that is called in place runs in the thread of the cell, whose loop is running: "
        "make the step `async def` and await what it ran by asyncio.run, or start it with "
        ".go(...): its body has a thread of its own then.",
    ),
)


def add_hint(error: BaseException | None) -> None:
    """Add what to do to an error whose cause is known."""
    for hint in _HINTS:
        if type(error).__name__ == hint.kind and hint.sign in str(error):
            assert error is not None
            if hint.note not in getattr(error, "__notes__", ()):
                error.add_note(hint.note)
            return
