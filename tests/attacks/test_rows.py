"""Rows of one's own store that somebody has taken out, put back, doubled, moved or exchanged.

Threat: a shared folder, or a store that came back changed. Each row is signed as it is; what
is attacked is which rows there are. Rule: told, refused or run again; never in silence
another value, another winner, another order, another name.
"""
# ruff: noqa: ISC004 - a statement may be longer than a line

import contextlib
import re
import shutil

import duckdb  # noqa: TID251 - tampers with stores
import pytest

from nbdurable import (
    DurableError,
    UntrustedCheckpointError,
    after,
    current_step,
    go,
    select,
    sleep,
    step,
    workflow,
)
from nbdurable.api import open_stores
from nbdurable.events import AttemptStarted
from nbdurable.inspection import amending, maintenance
from nbdurable.inspection import queries as questions
from nbdurable.store import connection as connecting

RAN = []


def double(number):
    """Say that it ran, and double."""
    RAN.append(number)
    return 2 * number


def refuse(number):
    """Fail."""
    RAN.append(number)
    raise ValueError(f"refused {number}")


def tries():
    """Return which attempt this is."""
    return current_step().attempt


def program():
    """Run steps, a race by time, an error that is seen, a timer."""
    first = go(double, 1)
    values = [first.result(), select(go(double, 2), first).result()]
    values.append(select(after(0.01), first).index)
    with contextlib.suppress(ValueError):
        go(refuse, 3).result()
    sleep(0.001)
    values.append(go(double, 4).result())
    values.append(go(tries).result())
    return values


VALUES = [2, 2, 1, 8, 1]


def execute(path, name="w", body=program, **options):
    """Run the program; return its value, how many bodies ran, and what was told."""
    events = []
    try:
        with workflow(name, store=path, observers=[events.append], **options) as running:
            value = body()
    finally:
        open_stores.close_stores()
    return value, sum(isinstance(one, AttemptStarted) for one in events), running.notes


def tamper(path, *statements):
    """Change a closed store by SQL."""
    with duckdb.connect(str(path)) as connection:
        for statement in statements:
            connection.execute(statement)
    connecting.known.clear()


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Return a store in which the program has run."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "s.duckdb"
    assert execute(path)[0] == VALUES
    RAN.clear()
    yield path
    open_stores.close_stores()


def test_the_store_itself(path):
    """Unchanged it replays, and nothing is told."""
    assert execute(path) == (VALUES, 0, [])


LABELLED = "(SELECT rowid FROM nbdurable.checkpoints WHERE label = '{}')"
OTHER_TIME = 1e9
ROWS = {
    "an outcome taken out": [
        "DELETE FROM nbdurable.checkpoints WHERE label = 'double(1)'"
    ],
    "an error taken out": ["DELETE FROM nbdurable.checkpoints WHERE kind = 'error'"],
    "a timer taken out": ["DELETE FROM nbdurable.checkpoints WHERE name LIKE 'sleep%'"],
    "all decisions taken out": ["DELETE FROM nbdurable.decision_log"],
    "one decision taken out": [
        "DELETE FROM nbdurable.decision_log WHERE number = 1",
    ],
    "that an error was seen taken out": ["DELETE FROM nbdurable.seen_errors"],
    "the execution taken out": ["DELETE FROM nbdurable.execution_log"],
    "an outcome twice": [
        "INSERT INTO nbdurable.checkpoints FROM nbdurable.checkpoints WHERE label = 'double(4)'"
    ],
    "a decision twice": ["INSERT INTO nbdurable.decision_log FROM nbdurable.decision_log LIMIT 1"],
    "the end twice": ["INSERT INTO nbdurable.execution_ends FROM nbdurable.execution_ends"],
    "the run twice": ["INSERT INTO nbdurable.run_log FROM nbdurable.run_log"],
    "an execution that was never": [
        "INSERT INTO nbdurable.execution_log SELECT * REPLACE (id + 1 AS id) "
        "FROM nbdurable.execution_log"
    ],
    "a failed attempt that was never": [
        "INSERT INTO nbdurable.attempt_ends BY NAME SELECT call, version, 7 AS attempt, execution, "
        "name, label, started, seconds, 'error' AS ending, '' AS error, false AS concluded, {} "
        "FROM nbdurable.checkpoints WHERE label = 'tries()'"
    ],
    "attempts that died and never were": [
        "INSERT INTO nbdurable.starts BY NAME SELECT call, version, 9 AS attempt, execution, name, "
        "label, started, {} FROM nbdurable.checkpoints WHERE label = 'tries()'",
        "DELETE FROM nbdurable.checkpoints WHERE label = 'tries()'",
    ],
    "a seen error that was never": [
        "INSERT INTO nbdurable.seen_errors BY NAME SELECT call, version, execution, {} "
        "FROM nbdurable.checkpoints WHERE label = 'double(1)'"
    ],
    "another run's name": ["UPDATE nbdurable.run_log SET name = 'other'"],
    "another creation": ["UPDATE nbdurable.run_log SET created = 1"],
    "another time": ["UPDATE nbdurable.checkpoints SET started = started + 100000"],
    "another duration": ["UPDATE nbdurable.checkpoints SET seconds = seconds + 100000"],
    "another attempt": ["UPDATE nbdurable.checkpoints SET attempt = 5"],
    "another execution": [
        "UPDATE nbdurable.checkpoints SET execution = 2 WHERE label = 'double(4)'"
    ],
    "another label": ["UPDATE nbdurable.checkpoints SET label = 'double(9)' WHERE number = 1"],
    "another status": ["UPDATE nbdurable.execution_ends SET status = 'failed'"],
    "another list of escaped errors": [
        "UPDATE nbdurable.execution_ends SET listed = (SELECT call || version "
        "FROM nbdurable.checkpoints WHERE kind = 'error')"
    ],
    "another list of what was reused": [
        "UPDATE nbdurable.execution_ends SET reused = (SELECT call || version "
        "FROM nbdurable.checkpoints WHERE label = 'double(1)')"
    ],
    "rows exchanged between calls": [
        "UPDATE nbdurable.checkpoints AS t SET signature = s.signature "
        "FROM nbdurable.checkpoints AS s WHERE t.label = 'double(1)' AND s.label = 'double(4)'"
    ],
    "a winner that lost": [
        "UPDATE nbdurable.decision_log SET winner = losers[1:16] WHERE octet_length(losers) > 0"
    ],
    "a decision of another number": ["UPDATE nbdurable.decision_log SET number = number + 1"],
    "no heads": [
        *(f"UPDATE nbdurable.{table} SET signature = signature[1:32]" for table in (
            "checkpoints", "decision_log", "execution_ends", "execution_log", "run_log",
            "seen_errors", "starts", "draws", "contents")),
        "DELETE FROM nbdurable.heads",
    ],
    "an older head": [
        "DELETE FROM nbdurable.execution_ends",
        "DELETE FROM nbdurable.checkpoints WHERE label = 'double(1)'",
    ],
}  # fmt: skip


def signature_of(path, table):
    """Return the column by which an inserted row has a signature, where its table has one."""
    with duckdb.connect(str(path)) as connection:
        columns = [row[0] for row in connection.execute(f"DESCRIBE nbdurable.{table}").fetchall()]
    return "repeat('x'::BLOB, 32) AS signature" if "signature" in columns else "1 AS nothing"


@pytest.mark.parametrize("named", ROWS)
def test_which_rows_there_are(path, named):
    """Refused by its name, told, or run again: the value and the order are what they were."""
    statements = ROWS[named]
    for table in ("attempt_ends", "starts", "seen_errors"):
        if f"INTO nbdurable.{table} BY NAME" in statements[0]:
            given = signature_of(path, table)
            statements = [
                one.replace("{}", given).replace(", 1 AS nothing", "") for one in statements
            ]
    with contextlib.suppress(duckdb.CatalogException):  # a table that was not there before
        tamper(path, *statements)
    refused = ""
    try:
        value, ran, told = execute(path)
    except UntrustedCheckpointError as error:
        refused = str(error)
    if refused:
        assert re.search(r"\A[^\n]+your key[^\n]+\Z", refused)
        return
    assert value == VALUES
    assert told or ran, "nothing was said of it"


def test_an_older_outcome_put_back(path, tmp_path):
    """An outcome that `redo` has taken out is signed, and belongs to another time."""
    before = tmp_path / "before.duckdb"
    shutil.copy(path, before)
    amending.redo("w", ["double(4)"], store=path)
    execute(path)
    tamper(
        path,
        f"ATTACH '{before}' AS old (READ_ONLY)",
        "INSERT INTO nbdurable.checkpoints SELECT * FROM old.nbdurable.checkpoints "
        "WHERE label = 'double(4)'",
        "DELETE FROM nbdurable.checkpoints WHERE label = 'double(4)' AND execution > 1",
    )
    with pytest.raises(UntrustedCheckpointError, match="taken out, put back"):
        execute(path)


def test_a_run_of_another_store(path, tmp_path):
    """All rows of a run, put into another store of the same user's, are not believed there."""
    other = tmp_path / "other.duckdb"
    execute(other, name="x", body=lambda: go(double, 8).result())
    with duckdb.connect(str(path)) as connection:
        tables = [
            row[0]
            for row in connection.execute(
                "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'nbdurable'"
            ).fetchall()
        ]
    tamper(
        other,
        f"ATTACH '{path}' AS mine (READ_ONLY)",
        *(f"INSERT INTO nbdurable.{one} SELECT * FROM mine.nbdurable.{one}"
          for one in tables if one != "meta"),
    )  # fmt: skip
    with pytest.raises(DurableError):
        execute(other)


def test_rows_of_a_run_moved_to_another_run(path):
    """A step's outcomes can't be carried from one run of a store to another."""
    execute(path, name="x", body=lambda: go(double, 8).result())
    tamper(path, "UPDATE nbdurable.checkpoints SET execution = 1 WHERE execution = 2")
    for name, body in (("w", program), ("x", lambda: go(double, 8).result())):
        with pytest.raises(UntrustedCheckpointError):
            execute(path, name=name, body=body)


def test_a_damaged_run_costs_no_other(path):
    """Another run of the same store goes on."""
    execute(path, name="x", body=lambda: go(double, 8).result())
    tamper(path, "DELETE FROM nbdurable.checkpoints WHERE label = 'double(1)'")
    with pytest.raises(UntrustedCheckpointError, match="what is saved of w"):
        execute(path)
    assert execute(path, name="x", body=lambda: go(double, 8).result()) == (16, 0, [])


def test_the_last_transaction_taken_out(path):
    """That is an earlier moment of the same store: it goes on from there, as after a death."""
    tamper(path, "DELETE FROM nbdurable.execution_ends")
    assert [one.status for one in questions.runs(path)] == ["died"]
    open_stores.close_stores()
    assert execute(path)[0] == VALUES


def test_the_way_out(path):
    """`restart` leaves a run that is not believed."""
    execute(path, name="x", body=lambda: go(double, 8).result())
    tamper(path, "DELETE FROM nbdurable.checkpoints WHERE label = 'double(1)'")
    maintenance.restart("w", path)
    value, ran, _ = execute(path)
    assert value == VALUES
    assert ran


def test_a_table_of_a_step_of_a_changed_run(path):
    """`FROM step(...)` gives nothing out of a run whose rows were exchanged."""
    execute(path, body=lambda: step(lambda: {"n": [1]}, name="load").go().result())
    tamper(path, "DELETE FROM nbdurable.seen_errors")
    with pytest.raises(UntrustedCheckpointError, match="is not what your key signed"):
        questions.query("FROM step('load')", path)


@pytest.mark.parametrize("age", ["0", "1e18"])
def test_how_old_a_run_is(path, age):
    """`--max-age` goes by signed times: a changed one starts no run, and keeps none, in silence."""
    tamper(path, f"UPDATE nbdurable.checkpoints SET started = {age}")
    with pytest.raises(UntrustedCheckpointError):
        execute(path, max_age=3600.0)


def test_what_is_asked_of_a_changed_run(path):
    """gc, redo and rename sign no row anew that they haven't found signed."""
    tamper(path, "DELETE FROM nbdurable.checkpoints WHERE label = 'double(1)'")
    for act in (
        lambda: amending.redo("w", store=path),
        lambda: amending.rename("w", "v", store=path),
    ):
        with pytest.raises(UntrustedCheckpointError):
            act()
        open_stores.close_stores()
    with pytest.raises(UntrustedCheckpointError):
        execute(path)
