"""What is asked about a store from outside a notebook, as rows, for people and programs.

Invariant: a store that is missing is an error and is never made; times are aware,
so that whoever prints them can say where they are.
"""

from __future__ import annotations

import difflib
import json
import math
import shlex
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from nbdurable import store as stores
from nbdurable.api import configuration
from nbdurable.errors import StoreError, UsageError
from nbdurable.labels import harmless, printable
from nbdurable.records import RunStatus
from nbdurable.view.progress import State

from . import queries as questions
from .history import recall
from .live import live_note, live_runs, view_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from nbdurable.store import Survey
    from nbdurable.view.progress import StepView

    from .live import LiveRun
    from .maintenance import Collected

Row = dict[str, object]


class Told(NamedTuple):
    """The rows of an answer, and what is to be said beside them."""

    rows: list[Row]
    note: str = ""


def store_at(named: str | Path | None) -> str:
    """Return the store that is meant: a store's path, a notebook's, or the default one.

    Raises:
        StoreError: There is none.
    """
    place = _only_store() if named is None else str(named)
    if place.endswith(".ipynb"):
        place = configuration.store_of(Path(place))
    place = stores.place_of(place)
    if not Path(place).is_file():
        raise StoreError(
            f"there is no store at {place}; name one, or its notebook, with --store, or run this "
            f"in the notebook's folder with NBDURABLE_STORE set"
        )
    return place


def _only_store() -> str:
    """Return the store that is named by a setting, or the only one of the working folder.

    Raises:
        UsageError: There are several.
    """
    there = configuration.stores_at_hand()
    if len(there) < 2:  # noqa: PLR2004 - there is no choice
        return configuration.default_store()
    words = [_as_named(Path(place)) for place in there]
    listed = ", ".join(words[:_LISTED]) + (", ..." if len(words) > _LISTED else "")
    raise UsageError(
        f"there are {len(there)} stores in {Path(there[0]).parent}: say which one is meant with "
        f"--store and one of {listed}"
    )


_LISTED = 8


def _as_named(store: Path) -> str:
    """Return how a store is named shortest: by its notebook, if that is there."""
    notebook = store.parent.with_name(f"{store.stem}.ipynb")
    named = Path(notebook.name) if notebook.is_file() else Path(store.parent.name, store.name)
    return shlex.quote(str(named))


# --- Rows --------------------------------------------------------------------------------


def runs(store: str) -> Told:
    """Return a row a run, newest first; of a store that is held, the runs that are live."""
    if live := live_runs(store):
        return Told([_live_row(one) for one in live], live_note(store, live))
    rows: list[Row] = [
        {
            "name": one.name,
            "status": str(one.status),
            "saved": one.saved,
            "in_flight": one.in_flight,
            "executions": one.executions,
            "created": instant(one.created),
            "last_started": instant(one.last_started),
            "last_ended": (None if one.last_ended is None else instant(one.last_ended)),
            "run": one.id,
        }
        for one in questions.runs(store)
    ]
    return Told(rows)


def status(store: str, name: str | None = None) -> Told:
    """Return a row a run name: how far its newest run is; as `runs`.

    Raises:
        UsageError: No run has that name.
    """
    if live := live_runs(store):
        rows = [{column: _live_row(one)[column] for column in _STATUS} for one in live]
        note = live_note(store, live)
    else:
        rows = [
            {column: row.get("workflow" if column == "name" else column) for column in _STATUS}
            for row in aware(questions.status(store))
        ]
        note = ""
    chosen = [row for row in rows if name in {None, row["name"]}]
    if name is not None and not chosen:
        raise no_run(name, [str(row["name"]) for row in rows])
    return Told(chosen, note)


_STATUS = ("name", "status", "saved", "executions", "created")


def _live_row(one: LiveRun) -> Row:
    return {
        "name": one.begun.name,
        "status": str(RunStatus.RUNNING),
        "saved": one.saved,
        "in_flight": one.in_flight,
        "executions": one.begun.execution,
        "created": None,
        "last_started": datetime.fromtimestamp(one.begun.at, UTC),
        "last_ended": None,
        "run": one.begun.run,
    }


def steps(store: str, name: str | None) -> Told:
    """Return a row a step of the newest run called `name`, or of the newest run.

    Of a store that is held, of the run that is live.

    Raises:
        UsageError: No run has that name.
    """
    if live := live_runs(store):
        chosen = [one for one in live if name in {None, one.begun.name}]
        if not chosen:
            raise no_run(name or "", [one.begun.name for one in live])
        view = view_of(max(chosen, key=lambda one: one.begun.at))
        there = [row for row in view.steps.values() if not row.combinator]
        failed = any(row.state is State.FAILED for row in there)
        rows = [_live_step(row) | ({"error": row.error} if failed else {}) for row in there]
        return Told(rows, live_note(store, live))
    return Told(_steps(store, name))


def _live_step(row: StepView) -> Row:
    started = row.started
    return {
        "number": row.number,
        "step": row.label or row.name,
        "status": str(row.state),
        "seconds": None if row.seconds is None else round(row.seconds, 3),
        "attempts": row.attempts,
        "started": None if started is None else datetime.fromtimestamp(started, UTC),
    }


def _steps(store: str, name: str | None) -> list[Row]:
    return aware(questions.steps(_known(store, name), store))


def why(store: str, name: str | None) -> list[Row]:
    """Return why each step ran when it last did; as `steps`."""
    return aware(questions.why(_known(store, name), store))


def of_step(rows: list[Row], step: str | None, run: str | None) -> list[Row]:
    """Return the rows of the steps that have a name or label; all if none is asked for.

    Raises:
        UsageError: No step has it.
    """
    if step is None:
        return rows
    found = [row for row in rows if step in {row["step"], called(row)}]
    if not found:
        there = instead(step, {called(row) for row in rows})
        raise UsageError(f"{run or 'the newest run'} has no step {step}{there}")
    return found


def called(row: Row) -> str:
    """Return a step's name, which its label begins with."""
    return str(row["step"]).partition("(")[0]


_MOST_ERRORS = 3


def errors_of(store: str | None, name: str, step: str) -> list[str]:
    """Return the errors, with their tracebacks, of the steps that have a name or label.

    At most three, the first of them; none if no such step has failed.
    """
    found = recall(name, store)
    if found is None:
        return []
    failed = [
        place
        for place, row in found.view.steps.items()
        if row.state is State.FAILED and step in {row.label, row.name}
    ]
    return [
        text
        for place in failed[:_MOST_ERRORS]
        for term, text, _ in found.facts(place)
        if term == "Error"
    ]


def _known(store: str, name: str | None) -> str | None:
    if name is not None:
        names = {one.name for one in questions.runs(store)}
        if name not in names:
            raise no_run(name, names)
    return name


def no_run(name: str, names: Iterable[str]) -> UsageError:
    """Return the error that says that no run has this name, and which is meant, or there is."""
    return UsageError(f"no run is called {name}{instead(name, names)}")


def instead(name: str, names: Iterable[str]) -> str:
    """Say which of the names that there are is meant, or which there are."""
    known = sorted(set(names))
    if near := difflib.get_close_matches(name, known, n=1, cutoff=0.5):
        return f": did you mean {near[0]}?"
    return f"; there are {', '.join(known)}" if known else "; there are none yet"


def aware(rows: list[Row]) -> list[Row]:
    """Say of the views' times that they are in UTC."""
    return [
        {
            name: value.replace(tzinfo=UTC) if isinstance(value, datetime) else value
            for name, value in row.items()
        }
        for row in rows
    ]


def plain(value: object) -> object:
    """Return a value of SQL as JSON has it: ISO times, hexadecimal bytes, no NaN."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case bytes():
            return value.hex()
        case list() | tuple():
            return [plain(one) for one in value]
        case dict():
            return {str(key): plain(one) for key, one in value.items()}
        case _:
            return str(value)


def as_json(value: object) -> str:
    """Write a value as JSON that every reader reads."""
    text = json.dumps(plain(value), ensure_ascii=False, allow_nan=False)
    # What a terminal would obey, and a lone surrogate, which is no text to UTF-8.
    return text if text.isascii() or harmless(text) == text else json.dumps(plain(value))


def size_of(size: float) -> str:
    """Say a number of bytes for a person."""
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:  # noqa: PLR2004 - that is what the units are
            return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} GiB"


# --- Trust -------------------------------------------------------------------------------


def told(found: Survey) -> str:
    """Say in a few lines what a survey found, before the steps that it lists."""
    size = sum(one.bytes for one in found.steps)
    whose = "your key signed this store" if found.ours else "another key signed this store"
    counts = f"{len(found.runs)} runs, {len(found.steps)} saved steps, {size_of(size)} of values"
    lines = [
        f"{found.path}: {whose}",
        f"{counts}; {found.unsigned} rows are not signed with your key",
        f"its pickles look up {_listed(found.globals)}",
        f"beside the store the file holds {_listed(found.others)}",
        *(f"contradicts itself: {problem}" for problem in found.problems[:_MOST_TOLD]),
        f"digest {found.digest}",
    ]
    return "\n".join(map(printable, lines))


_MOST_TOLD = 40


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_TOLD:,} more" if len(names) > _MOST_TOLD else ""
    return f"{', '.join(one[:_LONGEST] for one in names[:_MOST_TOLD])}{more}" or "nothing"


_LONGEST = 200


def surveyed(found: Survey) -> list[Row]:
    """Return a row a step of a survey."""
    return [
        {
            "workflow": one.workflow,
            "step": one.label,
            "outcome": one.kind,
            "started": instant(one.started),
            "seconds": one.seconds,
            "bytes": one.bytes,
        }
        for one in found.steps
    ]


def instant(seconds: float) -> datetime | None:
    """Return a time as a store says it; None for what no clock gives."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None  # whoever wrote a foreign store may say anything


# --- What is no longer needed --------------------------------------------------------------


def collected(found: Collected) -> list[Row]:
    """Return a row a run of which something is no longer needed."""
    return [
        {
            "name": one.name,
            "what": "a run that a newer one replaced" if one.whole else "superseded outcomes",
            "outcomes": one.outcomes,
            "bytes": one.size,
            "created": instant(one.created),
            "run": one.run,
        }
        for one in found.found
    ]


def collected_told(found: Collected, how: str) -> str:
    """Say in a line what was found, or taken out; `how` takes it out."""
    outcomes = sum(one.outcomes for one in found.found)
    what = f"{outcomes:,} outcomes of {size_of(sum(one.size for one in found.found))}"
    if found.files:
        what += f", and {found.files:,} object files of {size_of(found.files_size)}"
    if not found.found and not found.files:
        return "there is nothing that is no longer needed"
    if not found.removed:
        return f"no longer needed: {what}; `{how}` takes them out, for good"
    smaller = f"; the database is {size_of(found.freed)} smaller" if found.freed else ""
    return f"taken out: {what}{smaller}"
