"""What a person changes of a run's past: outcomes to be made again, names.

Invariant: nothing here runs by itself, and nothing while the run is being executed; what
is about to be taken out is said before it is.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from nbdurable import store as stores
from nbdurable.api.configuration import clock
from nbdurable.api.open_stores import (
    close_stores,
    executed_at,
    leftovers_of,
    reading,
    undisturbed,
)
from nbdurable.errors import StoreError, UsageError
from nbdurable.handles.call_identity import BODY_PART, NAME_MARK, is_called
from nbdurable.labels import duration
from nbdurable.store import LOCK_WAIT_SECONDS

from .at_hand import store_holding
from .reports import instead

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from nbdurable.store import Redo, Store


def redo(
    name: str,
    labels: Sequence[str] = (),
    *,
    errors: bool = False,
    store: str | Path | None = None,
    say: Callable[[str], object] = lambda _: None,
) -> str:
    """Take outcomes of the newest run called `name` out, with what hung on them.

    The next pass of its cell makes them again. A body that started one of them runs again,
    too; the steps that a body started replay, unless they are named as well.

    Args:
        name: The run's name.
        labels: Names or labels of steps; none, all of them.
        errors: Only outcomes that are errors.
        store: The DuckDB file; by default the one that a durable cell would use.
        say: Is told, before anything is done, how many they are and what they took.

    Returns:
        A line that says how to go on.

    Raises:
        UsageError: There is no such run, or no such step, or nothing to take out; or the
            run is being executed.
        StoreError: There is no store, or it can't be written; then nothing is gone.
    """
    place = store_holding(name, store)
    wanted = Wanted(labels)
    with undisturbed(), reading(place, LOCK_WAIT_SECONDS) as opened:
        if opened is None:
            raise StoreError(f"there is no store at {place} yet")
        if name in executed_at(place):
            raise UsageError(f"redo {name}: it is running: wait until it has ended, or stop it")
        found = stores.plan_redo(opened, name, wanted.has, errors=errors)
        if found is None:
            known = [one.name for one in stores.summaries(opened)]
            raise UsageError(f"redo: no run is called {name}{instead(name, known)}")
        if missed := wanted.missed:
            raise UsageError(
                f"redo {name}: it has no saved outcome of {missed[0]}"
                f"{instead(missed[0], wanted.seen)}"
            )
        if not found.asked and not found.saves:
            what = "error" if errors else "outcome"
            raise UsageError(f"redo {name}: there is no saved {what} to take out")
        left = leftovers_of(found.run)
        if any((one.call, one.version) in left for one in found.taken) or any(
            call in found.saves for call, _ in left
        ):
            raise UsageError(
                f"redo {name}: steps of its interrupted cell still run and may be saved yet: run "
                f"that cell again, which adopts them, or restart the kernel"
            )
        say(redo_told(name, found))
        stores.redo(opened, found, clock().time())
    return f"{name}: run its cell again to make them anew"


def rename(old: str, new: str, store: str | Path | None = None) -> str:
    """Rename a run, or a step; its outcomes are found under the new name from then on.

    Where a run is called `old`, the run is meant; else the step, in every run that has
    outcomes of it.

    Raises:
        UsageError: Nothing is called `old`, or something is called `new`; or a run that it
            concerns is being executed.
        StoreError: There is no store, or it can't be written; then nothing has changed.
    """
    place = store_holding(old, store)
    if new != new.strip() or not new or not new.isprintable() or old == new:
        raise UsageError(f"rename {old} {new!r}: give another name, one that prints in one line")
    with undisturbed():
        with reading(place, LOCK_WAIT_SECONDS) as opened:
            if opened is None:
                raise StoreError(f"there is no store at {place} yet")
            running = executed_at(place)
            names = {one.name for one in stores.summaries(opened)}
            if old not in names:
                return _rename_step(opened, old, new, names, running)
            taken = _store_of_new(place, old, new)
            if new in names or (taken is not None and taken.exists()):
                raise UsageError(f"rename {old} {new}: another run is called {new}")
            if old in running:
                raise UsageError(f"rename {old} {new}: {old} is running: wait until it has ended")
            stores.rename_run(opened, old, new)
        if taken is not None:
            close_stores()
            stores.hand_over(Path(place), taken, keep=len(names) > 1)
    return f"the run {old} is called {new} now: name its cell so, `%%durable {new}`"


def _store_of_new(place: str, old: str, new: str) -> Path | None:
    """Return the store that a run has under its new name; None if it stays where it is.

    Where no notebook is known, a run is looked for in the store of its name.
    """
    path = Path(place)
    if path.stem != stores.run_stem(old):
        return None
    return path.with_name(f"{stores.run_stem(new)}.duckdb")


def _rename_step(opened: Store, old: str, new: str, names: set[str], running: Sequence[str]) -> str:
    found = stores.runs_of_step(opened, old)
    if not found:
        raise UsageError(f"rename {old} {new}: no run or step is called {old}{instead(old, names)}")
    if busy := [name for name in found.values() if name in running]:
        raise UsageError(f"rename {old} {new}: {busy[0]} is running: wait until it has ended")
    runs: dict[str, list[str]] = {}
    for run, name in found.items():
        parts = stores.parts_of_codes(opened, stores.codes_of_step(opened, run, old))
        called = {part.removeprefix(NAME_MARK) for one in parts.values() for part in one}
        qualified = [one for one in sorted(called) if is_called(one, old)]
        runs[run] = list(dict.fromkeys([*qualified, *stores.renamed_to(opened, run, old)]))
        if not runs[run]:
            raise UsageError(
                f"rename {old} {new}: {old} was defined inside a function, or has no code of its "
                f"own: its calls can't be found under another name"
            )
        other = stores.parts_of_codes(opened, stores.codes_of_step(opened, run, new))
        mine = {one.get(BODY_PART) for one in parts.values()}
        taken = any(one.get(BODY_PART) not in mine for one in other.values())
        if taken or (not other and stores.codes_of_step(opened, run, new)):
            raise UsageError(
                f"rename {old} {new}: {name} has outcomes of another step called {new}; nothing "
                f"was changed"
            )
    count = stores.rename_step(opened, runs, old, new, now=clock().time())
    where = ", ".join(dict.fromkeys(found.values()))
    return f"{where}: {new} has the {counted(count, 'outcome')} of {old} now"


class Wanted:
    """Steps as a person names them: by name or label, its quotes and spaces as they please."""

    def __init__(self, words: Iterable[str]) -> None:
        self.seen: set[str] = set()
        self._words: dict[str, str] = {}
        self._met: set[str] = set()
        pending = ""
        for word in words:  # a shell takes `add(1, 2)` apart at the space
            pending = f"{pending} {word}" if pending else word
            if pending.count("(") <= pending.count(")"):
                self._words[_bare(pending)] = pending
                pending = ""
        if pending:
            self._words[_bare(pending)] = pending

    def has(self, name: str, label: str) -> bool:
        """Tell whether a step is meant; where none was named, all are."""
        self.seen.add(name)
        found = {_bare(name), _bare(label)} & self._words.keys()
        self._met |= found
        return bool(found) or not self._words

    @property
    def missed(self) -> list[str]:
        """What was named and is no step."""
        return [said for word, said in self._words.items() if word not in self._met]


def _bare(label: str) -> str:
    return re.sub(r"[\s'\"]", "", label)


def redo_told(name: str, found: Redo) -> str:
    """Say in a line what a redo takes out, and what that took to make."""
    asked = found.asked
    names = list(dict.fromkeys(one.name for one in asked))
    of = f" of {', '.join(names[:3])}{' and others' if len(names) > 3 else ''}" if names else ""  # noqa: PLR2004
    took = f", which took {duration(sum(one.seconds for one in asked))}" if asked else ""
    said = [f"{counted(len(asked), 'outcome')}{of}{took}"]
    parts = [
        (len(found.saves), "save of work in progress", "saves of work in progress"),
        (len(found.above), "body above, which received it", "bodies above, which received them"),
        (len(found.decisions), "decision", "decisions"),
        (len(found.cancelled), "cancellation", "cancellations"),
    ]
    said += [f"{count:,} {one if count == 1 else many}" for count, one, many in parts if count]
    stay = "; the steps that they started replay, unless they are named too" if found.bodies else ""
    return f"redo {name} takes out {'; '.join(said)}{stay}"


def counted(number: int, what: str) -> str:
    """Write a number of things."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
