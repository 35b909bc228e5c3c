"""Which store a question is about that names none.

Invariant: a store is opened only if it can hold the answer; which one is meant is never
guessed between two.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nbdurable import store as stores
from nbdurable.api.configuration import default_store, known_store, stores_at_hand
from nbdurable.api.open_stores import reading

if TYPE_CHECKING:
    from nbdurable.records import RunSummary


def store_holding(name: str | None, store: str | Path | None = None) -> str:
    """Return the store that is named; else the one at hand that holds the run called `name`.

    Of several that hold it, the one in which it was begun last. Where none does, the one
    that was used last: it can say which runs there are.

    Raises:
        UsageError: Neither store nor run is named, and there are several stores.
    """
    if store is not None:
        return stores.place_of(store)
    if name is None or known_store() is not None:
        return default_store()
    there = stores_at_hand()
    if len(there) < 2:  # noqa: PLR2004 - there is no choice
        return default_store()
    begun = {
        place: max((one.created for one in runs_in(place) if one.name == name), default=None)
        for place in there
    }
    holding = [place for place, created in begun.items() if created is not None]
    if not holding:
        return max(there, key=lambda place: Path(place).stat().st_mtime)
    return max(holding, key=lambda place: begun[place] or 0.0)


def runs_in(place: str, wait: float = stores.QUESTION_WAIT_SECONDS) -> list[RunSummary]:
    """Return the runs of one store, newest first; none if there is no store."""
    with reading(place, wait) as opened:
        return stores.summaries(opened) if opened is not None else []
