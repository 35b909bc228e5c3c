"""Why a step ran: told when it starts, corrected when all calls are known.

Invariant: reads the replay index as it was when the execution began, and the
calls claimed since; decides nothing.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from .handles import Handle, StepHandle
from .records import Why
from .step import arguments_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from .news import News
    from .records import Checkpoint
    from .store import Identity, Opened


_Group = tuple[bytes, str]  # namespace and name: what the outcomes of one step are saved under


class Reasons:
    """One execution's whys."""

    def __init__(self, opened: Opened, claimed: Mapping[bytes, object], news: News) -> None:
        self._index = opened.index
        self._retried = opened.retried
        self._claimed = claimed
        self._news = news
        self._lock = threading.Lock()
        self._left: dict[_Group, dict[bytes, Checkpoint]] = {}
        self._changed: dict[tuple[_Group, bytes, bytes], str] = {}
        self._lost: dict[Identity, str] = {}
        self._lost_groups: set[_Group] = set()

    def why(self, handle: StepHandle[Any]) -> str:
        """Give why `handle` is about to run, as ``why`` or ``why: detail``."""
        index = self._index
        if handle.pair in self._retried:
            return Why.ERROR_RETRIED.value
        if handle.pair in self._lost:
            return self._lost[handle.pair]
        past = index.attempts.get(handle.pair)
        if past is not None:
            return (Why.NOT_SAVED if past.unsaved else Why.UNFINISHED).value
        older = index.versions.get(handle.call.id)
        if not older:
            # Which argument changed can be told now only where one call stands for one.
            left = self._unclaimed(_group(handle), 2)
            before = left[0] if len(left) == 1 else None
            return _argument_changed(before, arguments_text(handle.work))
        assert handle.version is not None
        if older[-1].code == handle.version.code:
            return Why.UPSTREAM_CHANGED.value
        return _text(Why.CODE_CHANGED, self._code_changed(handle, older[-1]))

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
            self._lost[handle.pair] = _text(why, fault)
            if group in self._lost_groups:
                return
            self._lost_groups.add(group)
            latest = {found.call: found for found in self._index.named[group]}
        latest.pop(handle.call.id)
        count = 1 + sum(bool(fault_of(found)) for found in latest.values())
        self._news.say(
            f"{count:,} saved {'outcome' if count == 1 else 'outcomes'} of {handle.name} can't be "
            f"restored, the first for {fault}: what is asked for of them runs again"
        )

    def corrected(self, handles: Iterable[Handle[Any]]) -> list[tuple[str, Identity]]:
        """Pair what ran as new with what was no longer asked for, now that both are known."""
        changed = []
        left: dict[_Group, Iterator[Checkpoint]] = {}
        for handle in handles:
            if not isinstance(handle, StepHandle) or handle.checkpoint is None or handle.replayed:
                continue
            if not handle.why.startswith((Why.NEW, Why.ARGUMENT_CHANGED)):
                continue
            group = _group(handle)
            if group not in left:
                left[group] = iter(self._unclaimed(group))
            text = _argument_changed(next(left[group], None), handle.checkpoint.arguments)
            if text != handle.why:
                handle.why = text
                changed.append((text, handle.pair))
        return changed

    def say_unasked(self, namespace: bytes) -> None:
        """Say how many saved outcomes of `namespace` were not asked for."""
        unasked = {
            found.call
            for found in self._index.checkpoints.values()
            if found.namespace == namespace and found.call not in self._claimed
        }
        if unasked:
            outcomes = "outcome was" if len(unasked) == 1 else "outcomes were"
            self._news.say(f"{len(unasked):,} saved {outcomes} not asked for this time")

    def _unclaimed(self, group: _Group, most: int | None = None) -> list[Checkpoint]:
        """Give the latest outcomes of calls that nobody has asked for yet; `most` of them.

        What has been claimed never comes back, so it is looked at once.
        """
        with self._lock:
            left = self._left.get(group)
            if left is None:
                named = self._index.named.get(group, ())
                left = self._left[group] = {found.call: found for found in named}
            found, gone = [], []
            for call, checkpoint in left.items():
                if call in self._claimed:
                    gone.append(call)
                else:
                    found.append(checkpoint)
                    if len(found) == most:
                        break
            for call in gone:
                del left[call]
            return found

    def _code_changed(self, handle: StepHandle[Any], older: Checkpoint) -> str:
        """Name what changed in the code; once for each name, say how many outcomes that touches."""
        assert handle.version is not None
        group = _group(handle)
        key = group, older.code, handle.version.code
        with self._lock:
            changed = self._changed.get(key)
            if changed is not None:
                return changed
            if handle.work is None or handle.work.code is None:
                changed = "version="
            else:
                before = self._index.code_parts.get(older.code, {})
                changed = _differing(before, dict(handle.work.code.parts))
            self._changed[key] = changed
            latest = {found.call: found for found in self._index.named[group]}
        count = sum(found.code != handle.version.code for found in latest.values())
        self._news.say(
            f"{count:,} saved {'outcome' if count == 1 else 'outcomes'} of {handle.name} no longer "
            f"match: {changed or 'its code'} changed"
        )
        return changed


def _group(handle: StepHandle[Any]) -> _Group:
    return handle.call.namespace, handle.name


def _argument_changed(older: Checkpoint | None, arguments: str) -> str:
    if older is None:
        return Why.NEW.value
    return _text(Why.ARGUMENT_CHANGED, _differing(_parts(older.arguments), _parts(arguments)))


def _text(why: Why, detail: str) -> str:
    return f"{why.value}: {detail}" if detail else why.value


def _parts(text: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in text.split(";") if part)


def _differing(before: Mapping[str, object], after: Mapping[str, object]) -> str:
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return ", ".join(names)
