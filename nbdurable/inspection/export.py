"""`export`: the steps of a run as a Parquet or a JSON file.

Invariant: a value's signature is verified before it is unpickled; the file is whole
or not there.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from nbdurable import store as stores
from nbdurable.api import open_stores
from nbdurable.codec.outcomes import decode_error
from nbdurable.codec.values import decode
from nbdurable.errors import CodecError, StoreError, UsageError
from nbdurable.records import Kind

from .reports import as_json, aware, no_run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nbdurable.records import Checkpoint
    from nbdurable.store import Store

    from .reports import Row

_COLUMNS = {
    "workflow": "VARCHAR",
    "run": "VARCHAR",
    "number": "BIGINT",
    "name": "VARCHAR",
    "label": "VARCHAR",
    "status": "VARCHAR",
    "seconds": "DOUBLE",
    "attempts": "BIGINT",
    "why": "VARCHAR",
    "started": "TIMESTAMP",
    "execution": "BIGINT",
    "bytes": "BIGINT",
}


def export(store: str, run: str, target: Path, *, values: bool = False) -> int:
    """Write the steps of a run to a Parquet or JSON file.

    Args:
        store: The store.
        run: A run's name (its newest run), or the id of one, 8 letters or more of it.
        target: The file, ``.parquet`` or ``.json``; one that is there is replaced.
        values: Add what each step gave, as JSON where it is plain data, else as its
            repr; an error as its type and message. That unpickles them.

    Returns:
        How many steps were written.

    Raises:
        UsageError: No run is called so, or the file has another ending.
        CodecError: A value is not signed by this user's key.
        StoreError: The file can't be written.
    """
    if target.suffix not in {".parquet", ".json"}:
        raise UsageError(f"{target}: the file's name ends in .parquet or .json, which says how")
    with open_stores.reading(store) as opened:
        assert opened is not None
        found = _run_of(opened, run)
        names = ", ".join(_COLUMNS)
        rows = opened.rows(
            f"SELECT {names}, call, version FROM nbdurable.steps "  # noqa: S608 - names of ours
            "WHERE run = ? ORDER BY number NULLS LAST, started",
            [found],
        )
        written = [dict(zip(_COLUMNS, row, strict=False)) for row in rows]
        if values:
            index = stores.load_index(opened, found)
            opened.heads.verify(found, run, index.checkpoints.sum)
            for (*_, call, version), row in zip(rows, written, strict=True):
                checkpoint = index.checkpoints.get((call, version))
                if checkpoint is not None:
                    index.verify(checkpoint)
                row["value"] = None if checkpoint is None else _value(opened, checkpoint)
    if target.suffix == ".json":
        _write_json(target, aware(written))
    else:
        columns = {**_COLUMNS, "value": "VARCHAR"} if values else _COLUMNS
        lines = [[_as_text(name, value) for name, value in row.items()] for row in written]
        stores.write_parquet(target, columns, lines)
    return len(written)


def _run_of(opened: Store, run: str) -> str:
    found = opened.rows(
        "SELECT run FROM nbdurable.runs WHERE workflow = $1 "
        "OR (length($1) >= 8 AND starts_with(run, $1)) "
        "ORDER BY workflow = $1 DESC, created DESC LIMIT 1",
        [run],
    )
    if not found:
        raise no_run(run, {one.name for one in stores.summaries(opened)})
    return str(found[0][0])


def _value(store: Store, checkpoint: Checkpoint) -> object:
    try:
        match checkpoint.kind:
            case Kind.VALUE:
                value = decode(checkpoint.payload, checkpoint.pieces, store.objects)
            case Kind.ERROR:
                error = decode_error(checkpoint.payload)
                return f"{type(error).__name__}: {error}"
            case _:
                return None
    except CodecError as error:
        return f"can't be restored: {error}"
    return value if _is_plain(value) else _repr(value)


def _repr(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001 - a repr of the user's
        return f"<{type(value).__name__}, whose repr raises {type(error).__name__}>"


def _is_plain(value: object) -> bool:
    match value:
        case None | bool() | int() | str() | float():
            return True
        case list():
            return all(_is_plain(one) for one in value)
        case dict():
            return all(isinstance(key, str) and _is_plain(one) for key, one in value.items())
    return False


def _as_text(name: str, value: Any) -> object:
    """Return a value as JSON text: a column of Parquet has one type."""
    return as_json(value) if name == "value" and value is not None else value


def _write_json(target: Path, rows: Sequence[Row]) -> None:
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    lines = ",\n".join(as_json(row) for row in rows)
    try:
        with draft.open("x", encoding="utf-8") as file:
            file.write(f"[\n{lines}\n]\n")
        draft.replace(target)
    except OSError as error:
        raise StoreError(f"{target} can't be written: {error.strerror or error}") from error
