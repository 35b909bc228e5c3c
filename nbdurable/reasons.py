"""Why a step ran: told when it starts, corrected when all calls are known.

Invariant: reads the replay index as it was when the execution began, and the
calls claimed since; decides nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .handles import Handle, StepHandle
from .records import Why
from .step import arguments_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .news import News
    from .records import Checkpoint
    from .store import Identity, Opened


class Reasons:
    """One execution's whys."""

    def __init__(self, opened: Opened, claimed: Mapping[bytes, object], news: News) -> None:
        self._index = opened.index
        self._retried = opened.retried
        self._claimed = claimed
        self._news = news

    def why(self, handle: StepHandle[Any]) -> str:
        """Give why `handle` is about to run, as ``why`` or ``why: detail``."""
        index = self._index
        if handle.pair in self._retried:
            return Why.ERROR_RETRIED.value
        if handle.pair in index.attempts:
            return Why.UNFINISHED.value
        older = index.versions.get(handle.call.id)
        if not older:
            # Which argument changed can be told now only where one call stands for one.
            candidates = self._unclaimed(handle)
            return self._argument_changed(handle, candidates if len(candidates) == 1 else [])
        assert handle.version is not None
        if older[-1].code == handle.version.code:
            return Why.UPSTREAM_CHANGED.value
        return _text(Why.CODE_CHANGED, self._code_changed(handle, older[-1]))

    def corrected(self, handles: Iterable[Handle[Any]]) -> list[tuple[str, Identity]]:
        """Pair what ran as new with what was no longer asked for, now that both are known."""
        changed = []
        left: dict[tuple[bytes, str], list[Checkpoint]] = {}
        for handle in handles:
            if not isinstance(handle, StepHandle) or handle.work is None:
                continue
            if not handle.why.startswith((Why.NEW, Why.ARGUMENT_CHANGED)):
                continue
            group = (handle.call.namespace, handle.name)
            if group not in left:
                left[group] = self._unclaimed(handle)
            text = self._argument_changed(handle, left[group])
            del left[group][:1]
            if text != handle.why and handle.checkpoint is not None:
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

    def _unclaimed(self, handle: StepHandle[Any]) -> list[Checkpoint]:
        named = self._index.named.get((handle.call.namespace, handle.name), [])
        latest = {found.call: found for found in named}
        return [found for found in latest.values() if found.call not in self._claimed]

    def _argument_changed(self, handle: StepHandle[Any], older: list[Checkpoint]) -> str:
        if not older:
            return Why.NEW.value
        before = _parts(older[0].arguments)
        after = _parts(arguments_text(handle.work))
        return _text(Why.ARGUMENT_CHANGED, _differing(before, after))

    def _code_changed(self, handle: StepHandle[Any], older: Checkpoint) -> str:
        """Name what changed in the code; once for each name, say how many outcomes that touches."""
        assert handle.version is not None
        if handle.work is None or handle.work.code is None:
            changed = "version="
        else:
            before = self._index.code_parts.get(older.code, {})
            changed = _differing(before, dict(handle.work.code.parts))
        named = self._index.named[handle.call.namespace, handle.name]
        latest = {found.call: found for found in named}
        count = sum(found.code != handle.version.code for found in latest.values())
        self._news.say(
            f"{count:,} saved {'outcome' if count == 1 else 'outcomes'} of {handle.name} no longer "
            f"match: {changed or 'its code'} changed"
        )
        return changed


def _text(why: Why, detail: str) -> str:
    return f"{why.value}: {detail}" if detail else why.value


def _parts(text: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in text.split(";") if part)


def _differing(before: Mapping[str, object], after: Mapping[str, object]) -> str:
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return ", ".join(names)
