"""Questions about a store: its runs, their steps, why each ran, any SQL.

Invariant: a question makes no store and changes none.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from nbdurable import store as stores
from nbdurable.api.configuration import default_store, stores_at_hand
from nbdurable.api.open_stores import reading
from nbdurable.codec.values import decode
from nbdurable.errors import CodecError, StoreError, UsageError
from nbdurable.labels import printable
from nbdurable.records import RunStatus, RunSummary
from nbdurable.steps.attempts import told_error

from .at_hand import runs_in, store_holding

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nbdurable.store import Store


def runs(
    store: str | Path | None = None, *, wait: float = stores.QUESTION_WAIT_SECONDS
) -> list[RunSummary]:
    """Return a line about each run of the store, newest first; none if there is no store.

    Args:
        store: The DuckDB file; by default the one that a durable cell would use, and where no
            notebook is known, each one of the working folder.
        wait: How many seconds to wait for another process to let go of it.
    """
    places = stores_at_hand() if store is None else [stores.place_of(store)]
    found = [one for place in places for one in runs_in(place, wait)]
    return sorted(found, key=lambda one: one.created, reverse=True) if len(places) > 1 else found


def unfinished(
    store: str | Path | None = None, *, wait: float = stores.QUESTION_WAIT_SECONDS
) -> list[RunSummary]:
    """Return the newest run of each name where that run has not finished; as `runs`."""
    newest: dict[str, RunSummary] = {}
    for summary in runs(store, wait=wait):
        newest.setdefault(summary.name, summary)
    return [
        summary
        for summary in newest.values()
        if summary.status is not RunStatus.FINISHED and summary.executions
    ]


def status(store: str | Path | None = None) -> list[dict[str, object]]:
    """Return, for the newest run of each name, how far it is; and its step that was under way."""
    if store is None and len(there := stores_at_hand()) > 1:
        return [row for place in there for row in status(place)]
    rows = _rows(
        store,
        "SELECT workflow, status, saved, executions, created FROM nbdurable.runs "
        "QUALIFY row_number() OVER (PARTITION BY workflow ORDER BY created DESC) = 1 "
        "ORDER BY created DESC",
    )
    newest = {one.name: one for one in reversed(runs(store))} if rows else {}
    for row in rows:
        if (one := newest.get(str(row["workflow"]))) is not None and one.executions:
            unfinished = one.progress and one.status is not RunStatus.FINISHED
            row["status"] = f"{one.status} at {one.progress}" if unfinished else str(one.status)
    return rows


def steps(name: str | None = None, store: str | Path | None = None) -> list[dict[str, object]]:
    """Return the steps of the newest run called `name`, or of the newest run.

    An outcome of which its call has a newer one, of other code for one, is ``superseded``.
    Where one has failed, each row has an ``error``: how, in one line; of the first failures.
    """
    place = store_holding(name, store)
    with reading(place) as opened:
        if opened is None:
            return []
        columns, found = opened.answer(
            f"SELECT number, label AS step, status, round(seconds + {_EARLIER}, 3) AS seconds, "  # noqa: S608 - constants of ours
            f"attempts, started, call, version FROM nbdurable.steps s WHERE run = {_NEWEST} "
            "ORDER BY number NULLS LAST, started",
            [name],
        )
        rows = [dict(zip(columns, row, strict=True)) for row in found]
        newest = {row["call"]: row for row in rows if row["number"] is not None}
        for row in rows:
            last = newest.get(row["call"], row)
            if last is not row and row["started"] < last["started"]:
                row["status"] = "superseded"  # its call has a newer outcome
        identities = [(row.pop("call"), row.pop("version")) for row in rows]
        failed = [at for at, row in enumerate(rows) if row["status"] == "failed"]
        if failed:
            for row in rows:
                row["error"] = ""
        for at in failed[:_ERRORS_READ]:
            with suppress(CodecError):  # of one that can't be believed `why` tells
                outcome = stores.outcome_of(opened, identities[at])
                if outcome is not None:
                    rows[at]["error"] = told_error(outcome.payload)[0]
        return rows


def why(name: str | None = None, store: str | Path | None = None) -> list[dict[str, object]]:
    """Return, for each step of the newest run called `name`, why it ran when it last did."""
    store = store_holding(name, store)
    found = _rows(
        store,
        "SELECT label AS step, status, COALESCE(why, (SELECT any_value(a.error) "  # noqa: S608 - constants
        "FROM nbdurable.attempts a WHERE a.call = s.call AND a.version = s.version "
        "AND a.execution = s.execution AND a.ending = 'not saved')) AS why, "
        "lower(hex(call)) AS told, execution, started FROM nbdurable.steps s WHERE run = "
        + _NEWEST
        + " ORDER BY number NULLS LAST, started",
        [name],
    )
    last = _rows(
        store,
        f"""
        SELECT x.told FROM nbdurable.execution_log e
        JOIN nbdurable.execution_ends x ON x.execution = e.id
        WHERE e.run = {_NEWEST} ORDER BY e.id DESC LIMIT 1""",  # noqa: S608 - a constant
        [name],
    )
    told = _told(str(last[0]["told"])) if last else {}
    for row in found:
        text = told.get(str(row.pop("told")))
        if told:
            row["told"] = text or ""
    return found


def _told(text: str) -> dict[str, str]:
    """Return what the last execution told of each call; nothing where that can't be read."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    items = found.items() if isinstance(found, dict) else ()
    return {str(call): printable(str(said)) for call, said in items}


def query(sql: str, store: str | Path | None = None) -> Any:
    """Run SQL over the store, its views in reach by their names, and ``step('load')``.

    ``FROM step('load')`` is the table that a step called, or labelled, `load` gave: its
    newest outcome in the newest run that has one.

    Returns:
        A pandas DataFrame where pandas is installed, else a list of dicts; None
        for a statement without a result.

    Raises:
        StoreError: DuckDB's own message.
        UsageError: No finished step has that name, or several have; or its value is no
            table.
        CodecError: The step's value is not signed by this user's key, or can't be
            restored.
    """
    with reading(store) as opened:
        if opened is None:
            raise StoreError(f"there is no store at {store or default_store()} yet")
        return opened.frame(sql, _tables(opened, sql))


def answer(sql: str, store: str | Path | None = None) -> list[dict[str, object]]:
    """Return what `query` gives, as rows of plain values; none for a statement without result."""
    with reading(store) as opened:
        if opened is None:
            raise StoreError(f"there is no store at {store or default_store()} yet")
        columns, rows = opened.table(sql, _tables(opened, sql))
        return [dict(zip(columns, row, strict=True)) for row in rows]


def _tables(opened: Store, sql: str) -> dict[str, object]:
    """Return the values of the steps that a query names."""
    return {name: _value_of(opened, name) for name in {one.name for one in stores.mentions(sql)}}


def _value_of(opened: Store, name: str) -> object:
    found = opened.values_of(name, limit=_LABELS_LISTED + 1)
    if not found:
        raise UsageError(f"step({name!r}): no step of that name or label has finished")
    if len(found) > 1:
        labels = ", ".join(f"step({one.label!r})" for one in found[:_LABELS_LISTED])
        more = ", and more" if len(found) > _LABELS_LISTED else ""
        raise UsageError(f"step({name!r}): there are several; say which: {labels}{more}")
    value = decode(found[0].payload, found[0].pieces, opened.objects)
    if not _is_table(value):
        raise UsageError(
            f"step({name!r}): its value is a {type(value).__name__}, and SQL asks tables: a "
            f"DataFrame of pandas or polars, or an Arrow table"
        )
    return value


def _is_table(value: object) -> bool:
    """Tell whether DuckDB can read a value as a table, by what its library calls it."""
    kinds = {(kind.__module__.split(".")[0], kind.__name__) for kind in type(value).__mro__}
    return bool(kinds & _TABLES)


_LABELS_LISTED = 8
_ERRORS_READ = 20
_TABLES = {
    ("pandas", "DataFrame"),
    ("polars", "DataFrame"),
    ("polars", "LazyFrame"),
    ("pyarrow", "Table"),
    ("pyarrow", "RecordBatch"),
}


_EARLIER = """COALESCE((SELECT sum(a.seconds) FROM nbdurable.attempt_ends a
    WHERE a.call = s.call AND a.version = s.version AND a.attempt < s.attempts
    AND a.ending = 'error'), 0)"""
"""Seconds of the attempts before the one that a step ended with."""

_NEWEST = (
    "(SELECT run FROM nbdurable.runs WHERE workflow = $1 OR $1 IS NULL "
    "ORDER BY created DESC LIMIT 1)"
)


def _rows(
    store: str | Path | None, sql: str, parameters: Sequence[object] = ()
) -> list[dict[str, object]]:
    with reading(store) as opened:
        if opened is None:
            return []
        columns, rows = opened.answer(sql, parameters)
        return [dict(zip(columns, row, strict=True)) for row in rows]
