"""What stands in schema `nbdurable`, compared with ours before a row of it is read.

Invariant: asks DuckDB's own catalogue only, and by names that nothing in a file can
take. A view in a table's place, a trigger, a macro, a generated column: each would
run SQL that somebody else wrote as soon as the schema is read or written, so a
schema that holds one is refused whole.
"""

from __future__ import annotations

import functools

import duckdb

from nbdurable.errors import StoreCorruptError

from .schema import TABLES, VIEWS

_IN_SCHEMA = "WHERE database_name = $1 AND lower(schema_name) = 'nbdurable'"
_CATALOGUE = " UNION ALL ".join(
    f"SELECT '{kind}', {kind}_name, {sql} FROM duckdb_{kinds}() {_IN_SCHEMA}"  # noqa: S608 - constants
    for kind, kinds, sql in (
        ("table", "tables", "sql"),
        ("view", "views", "sql"),
        ("index", "indexes", "''"),
        ("trigger", "triggers", "''"),
        ("sequence", "sequences", "''"),
        ("type", "types", "''"),
    )
)
_MACROS = f"SELECT DISTINCT 'macro', function_name, '' FROM duckdb_functions() {_IN_SCHEMA}"  # noqa: S608 - constants

Catalogue = dict[tuple[str, str], str]
"""The SQL of each (kind, name) of the schema, in DuckDB's own words"""


def own_functions(database: str) -> str:
    """Return the statement after which every function and operator is DuckDB's own.

    By default a macro in `main` called `count`, or `+`, comes before DuckDB's. The
    schema must be there; nothing can be created on a connection that executed it.
    """
    quoted = '"' + database.replace('"', '""') + '"'
    path = f"system.main,{quoted}.nbdurable".replace("'", "''")
    return f"SET search_path = '{path}'"


def database_of(connection: duckdb.DuckDBPyConnection) -> str:
    """Return what DuckDB calls the file of a connection: others may be attached beside it."""
    # A macro of the file could take the bare name.
    name: str
    ((name,),) = connection.execute('SELECT "system"."main".current_database()').fetchall()
    return name


def has_user_tables(connection: duckdb.DuckDBPyConnection) -> bool:
    """Tell whether tables or views of the user's are in the file."""
    own = "database_name = $1 AND schema_name <> 'nbdurable'"
    with connection.cursor() as cursor:
        database = database_of(cursor)
        cursor.execute("SET search_path = 'system.main'")
        found = cursor.execute(
            f"SELECT 1 FROM duckdb_tables() WHERE {own} UNION ALL "  # noqa: S608 - constants
            f"SELECT 1 FROM duckdb_views() WHERE {own} AND NOT internal LIMIT 1",
            [database],
        ).fetchall()
    return bool(found)


def foreign_query(limit: int) -> str:
    """Return the query for tables, views, types and functions of the user's in the file $1."""
    parts = [
        f"SELECT DISTINCT concat('{kind} ', schema_name, '.', {name}) AS it "  # noqa: S608 - constants
        f"FROM duckdb_{kinds}() WHERE database_name = $1 AND schema_name <> 'nbdurable'{own}"
        for kind, kinds, name, own in (
            ("table", "tables", "table_name", ""),
            ("view", "views", "view_name", " AND NOT internal"),
            ("type", "types", "type_name", " AND NOT internal"),
            ("sequence", "sequences", "sequence_name", ""),
            ("macro", "functions", "function_name", " AND NOT internal"),
        )
    ]
    return f"{' UNION ALL '.join(parts)} ORDER BY it LIMIT {limit}"


def lay(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the schema with its tables and views."""
    connection.execute("CREATE SCHEMA IF NOT EXISTS nbdurable")
    for table, columns in TABLES.items():
        connection.execute(f"CREATE TABLE nbdurable.{table} ({columns})")
    lay_views(connection)


def lay_views(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the views."""
    for view, query in VIEWS.items():
        connection.execute(f"CREATE VIEW nbdurable.{view} AS {query}")


def catalogue_of(connection: duckdb.DuckDBPyConnection, *, macros: bool) -> Catalogue:
    """Return what stands in the schema.

    Args:
        connection: To the store.
        macros: Look for macros, too: that takes 10 ms. Nothing of ours calls a
            function by a name that they could take.
    """
    query = f"{_CATALOGUE} UNION ALL {_MACROS}" if macros else _CATALOGUE
    with connection.cursor() as cursor:
        database = database_of(cursor)
        cursor.execute("SET search_path = 'system.main'")
        rows = cursor.execute(query, [database]).fetchall()
    return {(kind, name): sql for kind, name, sql in rows}


def refuse_foreign(path: str, found: Catalogue, *, only: str = "") -> None:
    """Make sure that what stands in the schema is what this version would lay.

    Args:
        path: The store, for the message.
        found: What stands there.
        only: Look at this table alone.

    Raises:
        StoreCorruptError: Something is foreign, changed or gone; says what.
    """
    expected = expected_catalogue()
    if only:
        found = {key: sql for key, sql in found.items() if key[1] == only}
        expected = {key: sql for key, sql in expected.items() if key[1] == only}
    if foreign := [f"{kind} {name}" for kind, name in found if (kind, name) not in expected]:
        raise StoreCorruptError(
            f"{path}: its schema `nbdurable` holds what nbdurable did not make: "
            f"{', '.join(sorted(foreign))}. That could run in the place of ours, so no row was "
            f"read. The file was left as it is: move it away, or name another store with "
            f"configure(store=...) or NBDURABLE_STORE"
        )
    if gone := [f"{kind} {name}" for kind, name in expected if (kind, name) not in found]:
        raise StoreCorruptError(
            f"{path} is damaged: its schema `nbdurable` lacks {', '.join(sorted(gone))}; it was "
            f"left as it is: restore it from a copy, or move it away, or name another store with "
            f"configure(store=...) or NBDURABLE_STORE"
        )
    changed = [
        f"{kind} {name}" for (kind, name), sql in found.items() if sql != expected[kind, name]
    ]
    if changed:
        raise StoreCorruptError(
            f"{path}: its schema `nbdurable` was changed: {', '.join(sorted(changed))} is not as "
            f"nbdurable made it, so no row was read. The file was left as it is: restore it from "
            f"a copy, or move it away, or name another store with configure(store=...) or "
            f"NBDURABLE_STORE"
        )


@functools.cache
def expected_catalogue() -> Catalogue:
    """Return the schema that this version lays, in the words of this DuckDB; remembered."""
    with duckdb.connect(":memory:", config={"threads": 1}) as connection:
        lay(connection)
        return catalogue_of(connection, macros=False)
