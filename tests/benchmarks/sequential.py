"""Steps one after the other, against the bare inserts that they can't do without.

The contenders save the same rows on the same disk, each round into new files: steps
called in place; the very rows that such steps saved, each inserted and committed by
DuckDB alone; the same with what DuckDB knows to make one row cheaper (parsed once, not
optimised); and a table of two columns, so that nobody can call the first baseline
inflated. They take turns every few rows, for a disk is never equally fast for a whole
second. Opening and closing the files is outside the times of all.
"""

from contextlib import contextmanager
from statistics import fmean, median
from time import perf_counter

import duckdb  # noqa: TID251 - it is what nbdurable is measured against

from nbdurable import step, workflow
from nbdurable.api import open_stores
from nbdurable.store.schema import TABLES

from .measure import Figure, at_most, expect, ratios, turns

NAME = "sequential"
STEPS = 300
IN_A_TURN = 20
TINY = "number BIGINT NOT NULL, payload BLOB NOT NULL"


@step
def double(number):
    """Do next to nothing."""
    return 2 * number


def run(settings):
    """Measure, and give the figures."""
    store = settings.new_folder("steps") / "store.duckdb"
    with steps(store) as call:
        for number in range(STEPS):
            call(number)
    rows, tiny = saved(store), saved(store, "number, payload")
    one_round(settings, rows, tiny)  # what is done once in a process is no step's cost
    rounds = [one_round(settings, rows, tiny) for _ in turns(settings.rounds, "steps, rows")]

    def each(average, name):
        return tuple(average(one[name]) for one in rounds)

    def ratio(average, name):
        return ratios(each(average, "steps"), each(average, name))

    same, lean = "INSERT + commit of the same row", "INSERT + commit, parsed once, unoptimised"
    small = "INSERT + commit, two columns"
    return [
        Figure(NAME, f"one of {STEPS} steps", "s", each(fmean, "steps")),
        Figure(NAME, same, "s", each(fmean, "inserts")),
        Figure(NAME, lean, "s", each(fmean, "lean")),
        Figure(NAME, small, "s", each(fmean, "tiny")),
        Figure(NAME, f"step / {same}", "x", ratio(fmean, "inserts"), at_most(1.2)),
        Figure(
            NAME, "likewise, but of a round's medians", "x", ratio(median, "inserts"), at_most(1.2)
        ),
        Figure(NAME, f"step / {lean}", "x", ratio(fmean, "lean")),
        Figure(NAME, f"step / {small}", "x", ratio(fmean, "tiny")),
    ]


def one_round(settings, rows, tiny):
    """Let the contenders take turns, and give each one's seconds, row by row."""
    folder = settings.new_folder("round")
    columns = TABLES["checkpoints"]
    with (
        steps(folder / "steps.duckdb") as call,
        inserts(folder / "inserts.duckdb", columns, rows) as insert,
        inserts(folder / "lean.duckdb", columns, rows, lean=True) as insert_lean,
        inserts(folder / "tiny.duckdb", TINY, tiny) as insert_tiny,
    ):
        contenders = {"steps": call, "inserts": insert, "lean": insert_lean, "tiny": insert_tiny}
        names = list(contenders)
        seconds = {name: [] for name in names}
        for turn, first in enumerate(range(0, STEPS, IN_A_TURN)):
            at = turn % len(names)
            for name in names[at:] + names[:at]:
                do = contenders[name]
                for number in range(first, first + IN_A_TURN):
                    started = perf_counter()
                    do(number)
                    seconds[name].append(perf_counter() - started)
    return seconds


@contextmanager
def steps(store):
    """Yield what calls the step in place; at the end, compare results and what was saved."""
    results = []
    with workflow(NAME, store=store):
        yield lambda number: results.append(double(number))
    open_stores.close_stores()
    expect(results, [2 * number for number in range(STEPS)], "results of the steps")
    expect(len(saved(store)), STEPS, "rows that the steps saved")


@contextmanager
def inserts(path, columns, rows, *, lean=False):
    """Yield what inserts and commits one of `rows`; at the end, compare what was saved."""
    with duckdb.connect(str(path)) as connection:
        connection.execute("SET threads = 1")  # with more, one row's commit takes longer
        connection.execute(f"CREATE TABLE saved ({columns})")
        insert = f"INSERT INTO saved VALUES ({', '.join('?' * len(rows[0]))})"
        if lean:
            connection.execute("PRAGMA disable_optimizer")
            (insert,) = connection.extract_statements(insert)
        yield lambda number: connection.execute(insert, rows[number])
        expect(connection.execute("FROM saved").fetchall(), rows, "rows inserted")


def saved(store, columns="*"):
    """Read, with DuckDB alone, what steps saved."""
    with duckdb.connect(str(store), read_only=True) as connection:
        return connection.execute(
            f"SELECT {columns} FROM nbdurable.checkpoints ORDER BY number"
        ).fetchall()
