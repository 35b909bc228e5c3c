"""current_step(): what a step's own code can ask about itself, and save.

Invariant: nothing is decided here; the run that the calling body belongs to is asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbdurable.errors import NotInRunError
from nbdurable.handles import scope

if TYPE_CHECKING:
    from nbdurable.handles.scope import Scope


class CurrentStep:
    """The step whose body this is; `current_step` gives it."""

    __slots__ = ("_where",)

    def __init__(self, where: Scope) -> None:
        self._where = where

    @property
    def attempt(self) -> int:
        """Which attempt of its call this is, from 1; those before a death count."""
        return self._where.run.current.attempt(self._where)

    @property
    def idempotency_key(self) -> str:
        """A key for what must happen once elsewhere, as a payment: 32 letters and digits.

        It is the same for every attempt of this call, whatever its code; a redo, other
        received values or another ``version=`` give another.
        """
        return self._where.run.current.idempotency_key(self._where)

    def progress(self, done: float, total: float | None = None) -> None:
        """Show how far the step is: ``progress(37, 90)``. Call it as often as you like.

        Raises:
            UsageError: One of them is no number.
        """
        self._where.run.current.progress(self._where, done, total)

    def save(self, value: object) -> None:
        """Keep `value` for the next attempt; it is durable when this returns.

        It takes the place of what was saved before, and is dropped once the step has a
        value, by a redo, and by another ``version=``. Editing the code keeps it.

        Raises:
            EncodeError: It can't be pickled; what was saved before stays.
            NotInRunError: This attempt was let go: it timed out or was cancelled.
            StoreError: It could not be written.
        """
        self._where.run.current.save(self._where, value)

    def saved(self, default: Any = None) -> Any:
        """Return what an attempt of this call has saved last, decoded anew; else `default`.

        Raises:
            UntrustedCheckpointError: It is not signed by this user's key.
            DecodeError: It can't be restored here.
        """
        return self._where.run.current.saved(self._where, default)

    def __repr__(self) -> str:
        """Name the attempt."""
        return f"<current step, attempt {self.attempt}>"


def current_step() -> CurrentStep:
    """Return what a step's code can ask about itself, and save: ``current_step().save(model)``.

    Raises:
        NotInRunError: This is not the body of a step of a run.
    """
    where = scope.current.get()
    if where is None:
        raise NotInRunError("current_step()")
    if where.parent is None:
        raise NotInRunError("current_step()", "it is used outside a step, whose code would call it")
    return CurrentStep(where)
