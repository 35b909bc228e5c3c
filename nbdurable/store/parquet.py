"""Rows as a Parquet file, written by DuckDB.

Invariant: the file is whole or not there: it is written beside its place, then
moved. Nothing of a store is open while it is written.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import duckdb

from nbdurable.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def write_parquet(path: Path, columns: Mapping[str, str], rows: Sequence[Sequence[object]]) -> None:
    """Write rows as a Parquet file.

    Args:
        path: The file; one that is there is replaced.
        columns: Names and DuckDB's types.
        rows: Values in the order of the columns.

    Raises:
        StoreError: It can't be written.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    typed = ", ".join(f'"{name}" {kind}' for name, kind in columns.items())
    place = str(draft).replace("'", "''")
    try:
        with duckdb.connect(":memory:", config={"threads": 1}) as connection:
            connection.execute(f"CREATE TABLE rows ({typed})")
            appender = connection.appender("rows")
            appender.append_rows(rows)
            appender.flush()
            del appender  # one that outlives its connection makes DuckDB print a leak
            connection.execute(f"COPY rows TO '{place}' (FORMAT parquet)")
        draft.replace(path)
    except (duckdb.Error, OSError) as error:
        draft.unlink(missing_ok=True)
        raise StoreError(f"{path} can't be written: {str(error).splitlines()[0]}") from error
