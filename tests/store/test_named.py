"""``FROM step('load')``: what is read as a step's name, whose value is found, what is refused."""

import pickle  # noqa: TID251 - armed, so that unpickling fails a test

import duckdb  # noqa: TID251 - tampers with a store
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from nbdurable import StoreError, UntrustedCheckpointError, UsageError, go, step, workflow
from nbdurable.api import open_stores
from nbdurable.inspection import maintenance
from nbdurable.inspection import queries as questions
from nbdurable.store import mentions
from nbdurable.store.named import with_tables

# --- what is a mention -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "names"),
    [
        ("FROM step('load')", ["load"]),
        ("FROM STEP ( 'load' ) AS l JOIN step('load(1)') r USING (a)", ["load", "load(1)"]),
        ("FROM step(/* which */ 'load' -- this\n)", ["load"]),
        ("SELECT * FROM (FROM step('it''s'))", ["it's"]),
        ("SELECT 'größe 𝄞' FROM step('größe 𝄞')", ["größe 𝄞"]),
        ("SELECT 'FROM step(''load'')'", []),
        ("SELECT $$ step('load') $$, E'\\'step(', 1 -- step('load')", []),
        ("SELECT 1 /* step('load') */", []),
        ("SELECT t.step('load'), \"step\"('load'), my_step('load')", []),
        ("FROM step(name), step('a', 'b'), step(), step(E'load')", []),
        ("FROM step('load", []),
        ("FROM step('load'", []),
        ("SELECT '\ud800' FROM step('load')", []),
        ("", []),
    ],
)
def test_mentions(sql, names):
    """A step is named outside strings, comments, quoted and qualified names only."""
    assert [one.name for one in mentions(sql)] == names


def test_only_mentions_are_replaced():
    """What is no mention goes to DuckDB letter by letter."""
    sql = "SELECT 'ü step(''x'')' AS s, \"a\"  FROM step('x\"y')  l, t -- step('x')"
    assert with_tables(sql) == sql.replace("step('x\"y')", '"step(\'x""y\')"')


# --- whose value -----------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path):
    """Yield a path for a store, and leave none open."""
    yield tmp_path / "store.duckdb"
    open_stores.close_stores()


def load(numbers):
    """Return a frame."""
    return pd.DataFrame({"n": list(numbers)})


def run(path, *steps, name="w"):
    """Run steps as an execution."""
    with workflow(name, store=path):
        return [one().result() for one in steps]


def ask(sql, path):
    """Ask, and give the first column."""
    return questions.query(sql, path).iloc[:, 0].tolist()


@pytest.mark.parametrize("kind", [pd.DataFrame, pl.DataFrame, pa.table])
def test_a_table_is_asked_by_name(path, kind):
    """A step's table of any of the three libraries is asked as a table, beside the views."""
    run(path, lambda: go(step(lambda: kind({"n": [1, 2, 3]}), name="load", version=1)))
    assert ask("SELECT sum(n) FROM step('load')", path) == [6]
    assert ask("SELECT l.n FROM step('load') l, steps WHERE l.n = 2", path) == [2]
    assert ask("SELECT n FROM step('load()') WHERE 'step(''load'')' <> ''", path) == [1, 2, 3]
    assert ask("CREATE TABLE main.kept AS FROM step('load'); FROM kept", path) == [1, 2, 3]


def test_the_newest_outcome_in_the_newest_run(path):
    """An edit's new outcome comes first, and a newer run; another workflow hides nothing."""
    for version in (1, 2):
        made = step(lambda v=version: load([v]), name="load", version=version)
        run(path, made.go)
    assert ask("FROM step('load')", path) == [2]
    maintenance.restart("w", path)
    run(path, step(lambda: load([3]), name="load", version=1).go)
    assert ask("FROM step('load')", path) == [3]
    run(path, step(lambda: load([4]), name="other", version=1).go, name="another")
    assert ask("FROM step('load')", path) == [3]


def test_several_of_a_name(path):
    """Where a name has several steps the error lists their labels, any of which will do."""
    run(path, lambda: go(load, (1,)), lambda: go(load, (2,)))
    with pytest.raises(UsageError, match=r"several.*step\('load\(\(1,\)\)'\), step\('load\(\(2,\)"):
        ask("FROM step('load')", path)
    assert ask("FROM step('load((2,))')", path) == [2]
    assert ask("SELECT a.n + b.n FROM step('load((2,))') a, step('load((1,))') b", path) == [3]


def test_many_of_a_name(path):
    """A long list of labels is cut."""
    run(path, *(lambda n=n: go(load, (n,)) for n in range(10)))
    with pytest.raises(UsageError, match=r"load\(\(7,\)\)'\), and more$"):
        ask("FROM step('load')", path)


def test_what_is_no_table(path):
    """A missing step, one that failed, a value that is no table: each is named."""
    run(path, step(lambda: [1], name="listed", version=1).go)
    with pytest.raises(UsageError, match=r"step\('nothing'\): no step of that name"):
        ask("FROM step('nothing')", path)
    with pytest.raises(UsageError, match=r"step\('listed'\): its value is a list"):
        ask("FROM step('listed')", path)
    with pytest.raises(StoreError, match="nowhere"):
        ask("FROM nowhere, step('load'", path)


def test_a_step_that_is_not_signed(path, monkeypatch):
    """A changed value is refused before it is unpickled."""
    run(path, lambda: go(load, (1,)))
    open_stores.close_stores()
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE nbdurable.checkpoints SET payload = payload || 'x'::BLOB")
    loaded = []
    monkeypatch.setattr(pickle, "loads", loaded.append)
    with pytest.raises(UntrustedCheckpointError, match=r"load\(\(1,\)\)"):
        ask("FROM step('load')", path)
    assert loaded == []
