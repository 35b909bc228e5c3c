"""What a step knows of itself: its attempt, its key, how far it is, what it has saved.

Invariant: a save is durable when `save` returns, and belongs to the call, to the values
that it received and to its `version=`, not to its code: fixing the body keeps it. It is
dropped in the transaction that gives the step a value. An attempt that belongs to nobody
any more (timed out, cancelled, let go) saves nothing.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nbdurable.codec.outcomes import settle_value
from nbdurable.codec.values import decode, pickles_in
from nbdurable.commit.entries import Progressed, WorkSaved
from nbdurable.errors import DecodeError, EncodeError, NotInRunError, UsageError
from nbdurable.events import StepProgressed
from nbdurable.handles.handle import StepHandle
from nbdurable.records import Save, digest_of
from nbdurable.store import drop_saves, verify_amendment

if TYPE_CHECKING:
    from collections.abc import Callable

    from nbdurable.commit.ledger import Ledger
    from nbdurable.commit.state import State
    from nbdurable.handles.scope import Scope
    from nbdurable.steps.attempts import Running
    from nbdurable.store import Batch

SHOWN_SECONDS = 0.1
"""How often an attempt's progress is told to whoever looks."""

STORED_SECONDS = 0.5
"""How often it is stored, so that a death shows how far the step was."""


@dataclass(slots=True)
class _Told:
    """How far an attempt is, and when that was last told (seconds since the epoch)."""

    done: float = 0.0
    total: float = 0.0
    shown: float = 0.0
    stored: float = 0.0
    due: bool = False


class Current:
    """One execution's answers to `current_step()`; each is asked with the scope of a body."""

    def __init__(
        self, state: State, ledger: Ledger, refuse_ended: Callable[[Scope, str], None]
    ) -> None:
        self._ledger = ledger
        self._index = state.index
        self._handles = state.handles
        self._refuse_ended = refuse_ended

    def attempt(self, where: Scope) -> int:
        """Return which attempt of its call this is, from 1."""
        return self._running(where).number

    def idempotency_key(self, where: Scope) -> str:
        """Return what every attempt of the call has in common, until it is redone."""
        handle = self._handle(where)
        redone = self._index.redone.get(handle.call_id)
        if redone is not None:
            cure = "`%durable restart NAME` starts a run without it"
            verify_amendment(self._index, redone, f"that {handle.label} was redone", cure)
        times = 0 if redone is None else redone.ordinal
        return digest_of(b"idempotency", handle.call_id, _state(handle), b"%d" % times).hex()

    # --- what it saves ------------------------------------------------------------

    def save(self, where: Scope, value: object) -> None:
        """Make `value` durable for the next attempt, in the place of what was saved before.

        Raises:
            EncodeError: It can't be pickled; what was saved before stays.
            NotInRunError: The attempt belongs to nobody any more; nothing was saved.
            StoreError: It could not be written.
        """
        self._refuse_ended(where, "current_step().save()")
        handle, running, ledger = self._handle(where), self._running(where), self._ledger
        try:
            payload, _ = settle_value(value, ledger.store.objects)
        except EncodeError as error:
            raise EncodeError(f"{handle.label}: current_step().save(): {error}") from error
        save = Save(
            call=handle.call_id,
            state=_state(handle),
            code=handle.code_digest,
            execution=ledger.execution,
            attempt=running.number,
            name=handle.name,
            label=handle.label,
            saved=ledger.observers.clock.time(),
            payload=payload.data,
            pieces=payload.pieces,
            signature=b"",
        )
        told: _Told | None = running.progress
        progress = None if told is None else (told.done, told.total)
        entry = WorkSaved(ledger, self._index, handle, running, save, where, progress)
        ledger.journal.enqueue(entry, kick=False)
        ledger.journal.flush()
        if entry.error is not None:
            raise entry.error
        if entry.refused:
            raise NotInRunError(
                "current_step().save()", "the step whose code this is has ended: it was let go"
            )

    def saved(self, where: Scope, default: object) -> Any:
        """Return what an attempt of this call has saved last, or `default`.

        Raises:
            UntrustedCheckpointError: It is not signed by this user's key.
            DecodeError: It can't be restored here.
        """
        handle = self._handle(where)
        with self._ledger.lock:
            save = self._index.saves.get(handle.call_id)
        if save is None or save.state != _state(handle):
            return default
        cure = f"`%durable redo NAME {handle.name}` drops it"
        verify_amendment(self._index, save, f"what {handle.label} has saved", cure)
        say, objects = self._ledger.observers.say, self._ledger.store.objects
        if save.pieces and (fault := objects.fault(save.pieces, proven=pickles_in(save.payload))):
            say(f"{handle.label}: what it had saved can't be restored, for {fault}: it starts anew")
            return default
        try:
            value = decode(save.payload, save.pieces, objects, say=say)
        except DecodeError as error:
            raise DecodeError(f"{error}; or {cure}") from error
        if save.code != handle.code_digest:
            say(f"{handle.label}: its code changed; it goes on from what the earlier code saved")
        return value

    def drops(self, handle: StepHandle[Any]) -> Callable[[Batch], None] | None:
        """Return what takes out a step's saves with its value; None if there are none."""
        call = handle.call_id
        if call not in self._index.saves and call not in self._index.progressed:
            return None

        def drop(batch: Batch) -> None:
            drop_saves(batch, [call])
            self._index.saves.pop(call, None)
            self._index.progressed.discard(call)

        return drop

    # --- how far it is ------------------------------------------------------------

    def progress(self, where: Scope, done: float, total: float | None) -> None:
        """Tell how far the attempt is, at most every `SHOWN_SECONDS`; the last word is told.

        Raises:
            UsageError: One of them is no number.
        """
        refuse_numbers(done, total)
        handle, running = self._handle(where), self._running(where)
        if not self._is_under_way(handle, running, where):
            return
        told: _Told | None = running.progress
        if told is None:
            told = _Told()
            running.tell_progress(told)
        told.done, told.total = float(done), float(total or 0.0)
        self._tell(handle, running, where, told, last=done == total)

    def _tell(
        self, handle: StepHandle[Any], running: Running, where: Scope, told: _Told, *, last: bool
    ) -> None:
        now = self._ledger.observers.clock.time()
        if last or now - told.shown >= SHOWN_SECONDS:
            told.shown = now
            if self._ledger.observers.heard:
                self._ledger.observers.emit(
                    StepProgressed(handle.place, told.done, told.total, now)
                )
        if last or now - told.stored >= STORED_SECONDS:
            told.stored = now
            entry = Progressed(self._ledger, self._index, handle, running, where, told)
            self._ledger.journal.enqueue(entry)
        elif not told.due:
            told.due = True
            self._ledger.observers.clock.call_later(
                STORED_SECONDS - (now - told.stored),
                lambda: self._tell_late(handle, running, where, told),
            )

    def _tell_late(
        self, handle: StepHandle[Any], running: Running, where: Scope, told: _Told
    ) -> None:
        told.due = False
        if self._is_under_way(handle, running, where):
            self._tell(handle, running, where, told, last=True)

    def _is_under_way(self, handle: StepHandle[Any], running: Running, where: Scope) -> bool:
        mine = handle.life.running is running and not running.over
        return mine and where.live and not handle.number and not self._ledger.closed

    def _handle(self, where: Scope) -> StepHandle[Any]:
        assert where.parent is not None
        handle = self._handles[where.parent]
        assert isinstance(handle, StepHandle)
        return handle

    @staticmethod
    def _running(where: Scope) -> Running:
        running: Running = where.attempt
        return running


def _state(handle: StepHandle[Any]) -> bytes:
    """Return what a save belongs to besides the call: received values, and `version=`."""
    version, work = handle.version, handle.life.work
    assert version is not None
    given = work is not None and work.options.version is not None
    return digest_of(version.upstream, version.code if given else b"")


def refuse_numbers(done: object, total: object) -> None:
    """Raise UsageError for a progress that is no number."""
    for name, value in (("done", done), ("total", total)):
        if value is None and name == "total":
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 <= value <= sys.float_info.max:  # type: ignore[operator] # a number by now
            raise UsageError(
                f"current_step().progress({name}={value!r}): give a number, 0 or more, as in "
                f"progress(37, 90)"
            )
