"""Why a step ran: told when it starts, corrected when all calls are known.

Invariant: reads the replay index as it was when the execution began, and the
calls claimed since; decides nothing.
"""

from __future__ import annotations

import inspect
import sys
import threading
from contextlib import suppress
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from nbdurable.handles.call_identity import NAME_MARK
from nbdurable.handles.handle import Handle, StepHandle
from nbdurable.labels import duration
from nbdurable.records import REASONS, Kind, Reason, Why
from nbdurable.steps.attempts import arguments_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from nbdurable.records import Checkpoint
    from nbdurable.store import Group, Identity

    from .state import State


_MUCH = 1.0
"""Seconds of work from which on it is said what is done again."""


class Reasons:
    """One execution's whys."""

    def __init__(self, state: State) -> None:
        self._index = state.index
        self._retried = set(state.opened.retried)
        self._claimed = state.live
        self._observers = state.observers
        self._lock = threading.Lock()
        self._left: dict[Group, tuple[list[bytes], Iterator[bytes]]] = {}
        self._changed: dict[tuple[Group, bytes, bytes], str] = {}
        self._lost: dict[Identity, Reason] = {}
        self._lost_groups: set[Group] = set()
        self._unheld: dict[bytes, Reason] = {}
        self._said_unheld: set[tuple[Group, Reason]] = set()

    def why(self, handle: StepHandle[Any]) -> Reason:
        """Return why `handle` is about to run."""
        index = self._index
        if handle.identity in self._retried:
            return REASONS[Why.ERROR_RETRIED]
        if handle.identity in self._lost:
            return self._lost[handle.identity]
        if index.is_redone(handle.identity):
            return REASONS[Why.REDO]
        past = index.attempts.get(handle.identity)
        if past is not None:
            return REASONS[Why.NOT_SAVED if past.unsaved else Why.UNFINISHED]
        older = index.checkpoints.newest(handle.call_id)
        if older is None:
            # Now it can be told which argument changed only if a single saved call is left.
            left = self._unclaimed(_group(handle), 2)
            before = index.checkpoints.newest(left[0]) if len(left) == 1 else None
            arguments = arguments_text(handle.life.work)
            same = before is not None and before.arguments == arguments
            if same and before is not None and handle.version is not None:
                if before.code == handle.version.code and (masked := _masked(arguments)):
                    return Reason(Why.ARGUMENT_CHANGED, masked)
                # An inner function's code belongs to its call: the call is new, the code changed.
                return _changed(handle, self._code_changed(handle, before))
            return _argument_changed(before, arguments)
        assert handle.version is not None
        if handle.version.base and handle.call_id in self._unheld:
            return self._unheld[handle.call_id]
        if older.code == handle.version.code:
            return REASONS[Why.UPSTREAM_CHANGED]
        return _changed(handle, self._code_changed(handle, older))

    def retried(self, errors: Iterable[Identity]) -> None:
        """Take in that errors are tried again."""
        self._retried.update(errors)

    def lost(
        self,
        handle: StepHandle[Any],
        why: Why,
        fault: str,
        fault_of: Callable[[Checkpoint], str],
    ) -> None:
        """Take in that a step runs again because its saved outcome can't be restored.

        Once for each name, say of how many outcomes that is so; `fault_of` tells it.
        """
        group = _group(handle)
        with self._lock:
            self._lost[handle.identity] = Reason(why, fault)
            if group in self._lost_groups:
                return
            self._lost_groups.add(group)
        others = (one for one in self._newest(group) if one.call != handle.call_id)
        count = 1 + sum(bool(fault_of(found)) for found in others)
        self._observers.say(
            f"{count:,} saved {'outcome' if count == 1 else 'outcomes'} of {handle.name} can't be "
            f"restored, the first for {fault}: what is asked for of them runs again"
        )

    def unheld(
        self,
        handle: StepHandle[Any],
        why: Why,
        detail: str,
        is_unheld: Callable[[Checkpoint], bool],
    ) -> None:
        """Take in that a step runs again because its saved outcome's evidence does not hold.

        Once for each name and reason, say of how many outcomes that is so.
        """
        group, reason = _group(handle), Reason(why, detail)
        with self._lock:
            self._unheld[handle.call_id] = reason
            if (group, reason) in self._said_unheld:
                return
            self._said_unheld.add((group, reason))
        self._say_unmatched(handle, filter(is_unheld, self._newest(group)), detail)

    def corrected(self, handles: Iterable[Handle[Any]]) -> list[tuple[str, Identity]]:
        """Pair what ran as new with what was no longer asked for, now that both are known."""
        changed = []
        left: dict[Group, Iterator[bytes]] = {}
        for handle in handles:
            if not isinstance(handle, StepHandle) or handle.life.replayed:
                continue
            life, found = handle.life, handle.life.checkpoint
            if found is None or life.reason is None:
                continue
            if life.reason.why not in {Why.NEW, Why.ARGUMENT_CHANGED}:
                continue
            group = _group(handle)
            if group not in left:
                left[group] = iter(self._unclaimed(group))
            call = next(left[group], None)
            before = None if call is None else self._index.checkpoints.newest(call)
            if before is not None and before.arguments == found.arguments:
                continue
            reason = _argument_changed(before, found.arguments)
            if reason != life.reason:
                life.runs_because(reason)
                changed.append((str(reason), handle.identity))
        return changed

    def unasked(self, namespace: bytes, handles: Iterable[Handle[Any]]) -> tuple[Identity, ...]:
        """Return the saved outcomes that nobody asked for, where code ran that could have asked.

        Of those in `namespace`, which is the cell's, it is said how many they are.
        """
        saved = self._index.checkpoints
        ran = {one.call_id for one in handles if isinstance(one, StepHandle) and one.life.ran}
        found = [
            (group[0], call)
            for group in saved.groups()
            if group[0] == namespace or group[0] in ran
            for call in saved.calls(group)
            if call not in self._claimed
        ]
        if count := sum(one == namespace for one, _ in found):
            outcomes = "outcome was" if count == 1 else "outcomes were"
            self._observers.say(f"{count:,} saved {outcomes} not asked for this time")
        newest = [saved.newest(call) for _, call in found]
        return tuple((one.call, one.version) for one in newest if one is not None)

    def say_unseen(self, handles: Sequence[Handle[Any]]) -> None:
        """Say which steps failed without anybody having asked."""
        unseen = [
            handle.label
            for handle in handles
            if isinstance(handle, StepHandle)
            and handle.ended is Kind.ERROR
            and handle.life.checkpoint is not None
            and not handle.life.seen
            and not handle.life.lost
            # A failure that a body has passed on is told once, with the body's own.
            and (handle.parent is None or handles[handle.parent].ended is not Kind.ERROR)
        ]
        if unseen:
            self._observers.say(
                f"failed, and nobody asked: {', '.join(unseen[:5])}; the next run tries again"
            )

    def _newest(self, group: Group) -> Iterator[Checkpoint]:
        """Yield the last outcome of each call of a group, one at a time: there may be a million."""
        saved = self._index.checkpoints
        for call in saved.calls(group):
            newest = saved.newest(call)
            if newest is not None:
                yield newest

    def _unclaimed(self, group: Group, most: int | None = None) -> list[bytes]:
        """Return the calls with an outcome that nobody has asked for yet; `most` of them.

        What has been claimed never comes back, so it is looked at once.
        """
        with self._lock:
            found, rest = self._left.get(group) or ([], iter(self._index.checkpoints.calls(group)))
            found = [call for call in found if call not in self._claimed]
            while most is None or len(found) < most:
                call = next(rest, None)
                if call is None:
                    break
                if call not in self._claimed:
                    found.append(call)
            self._left[group] = found, rest
            return found

    def newest_of(self, handle: StepHandle[Any]) -> Iterator[Checkpoint]:
        """Yield the last outcome of each call of this step's name, one at a time."""
        return self._newest(_group(handle))

    def count_of(self, handle: StepHandle[Any], code: bytes) -> int:
        """Return how many calls of this step's name have an outcome of that code last."""
        return sum(found.code == code for found in self.newest_of(handle))

    def code_difference(self, now: Mapping[str, bytes] | None, code: bytes) -> str:
        """Name what differs between an earlier code and a step's parts; None is a `version=`."""
        if now is None:
            return "version="
        parts = self._index.code_parts.get(code, {})
        before = {name: one for name, one in parts.items() if name[:1] != NAME_MARK}
        return _differing(before, now)

    def _code_changed(self, handle: StepHandle[Any], older: Checkpoint) -> str:
        """Name what changed in the code; once for each name, say how many outcomes that touches."""
        assert handle.version is not None
        group = _group(handle)
        key = group, older.code, handle.version.code
        with self._lock:
            changed = self._changed.get(key)
            if changed is not None:
                return changed
            work = handle.life.work
            now = None if work is None else work.code_parts()
            changed = self._changed[key] = self.code_difference(now, older.code)
        unmatched = (found for found in self.newest_of(handle) if found.code == older.code)
        self._say_unmatched(handle, unmatched, changed or "its code")
        return changed

    def _say_unmatched(
        self, handle: StepHandle[Any], unmatched: Iterable[Checkpoint], changed: str
    ) -> None:
        """Say how many outcomes don't match any more, why, and what they took, if it is much."""
        took = [found.seconds for found in unmatched]
        count, seconds = len(took), sum(took)
        outcomes, match = ("outcome", "matches") if count == 1 else ("outcomes", "match")
        cost = f"; {'it' if count == 1 else 'they'} took {duration(seconds)}"
        self._observers.say(
            f"{count:,} saved {outcomes} of {handle.name} no longer {match}: {changed} changed"
            f"{cost if seconds >= _MUCH else ''}"
        )


def _group(handle: StepHandle[Any]) -> Group:
    return handle.namespace, handle.name


def _argument_changed(older: Checkpoint | None, arguments: str) -> Reason:
    if older is None:
        return REASONS[Why.NEW]
    return Reason(Why.ARGUMENT_CHANGED, _differing(_parts(older.arguments), _parts(arguments)))


def _changed(handle: StepHandle[Any], names: str) -> Reason:
    """Return that a step's code changed; or, where all that changed is data, that a value did."""
    work = handle.life.work
    function = None if work is None else inspect.unwrap(work.function)
    is_value = bool(names) and all(_is_value(function, name) for name in names.split(", "))
    return Reason(Why.VALUE_CHANGED if is_value else Why.CODE_CHANGED, names)


def _is_value(function: object, name: str) -> bool:
    """Return whether a name that a function reads, its own or a module's, is one of data."""
    module, _, attribute = name.rpartition(".")
    known = sys.modules.get(module)
    places: list[Mapping[str, object]] = [] if known is None else [vars(known)]
    if isinstance(function, FunctionType) and not module:
        places = [function.__globals__]
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=False)
        with suppress(ValueError):  # a name that is not bound yet
            places.insert(0, {free: cell.cell_contents for free, cell in cells})
    found = [place[attribute] for place in places if attribute in place]
    return bool(found) and not callable(found[0]) and not isinstance(found[0], ModuleType)


def _parts(text: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in text.split(";") if part)


def _masked(arguments: str) -> str:
    """Return the arguments of which no digest is kept, so that none can be seen to differ."""
    return ", ".join(name for name, digest in _parts(arguments).items() if digest == "masked")


def _differing(before: Mapping[str, object], after: Mapping[str, object]) -> str:
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return ", ".join(names)
