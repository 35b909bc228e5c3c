"""Where a user's own library is in the way, the error or a note says what to do."""

import asyncio

import duckdb  # noqa: TID251 - as a user has it
import pytest

from nbdurable import go, step, workflow


def run(name, body, **options):
    """Run a body in a workflow on a store in memory; give the error and what was said."""
    session = workflow(name, store=":memory:", **options)
    try:
        with session:
            body()
    except Exception as error:
        return error, session.warnings
    return None, session.warnings


def test_asyncio_run_in_a_step_called_in_place():
    """In a cell that awaits, a step in place has a running loop: the error says what to do."""

    async def fetched():
        return 1

    @step
    def fetch():
        work = fetched()
        try:
            return asyncio.run(work)
        finally:
            work.close()  # where it was refused

    async def cell():
        async with workflow("w", store=":memory:"):
            assert await fetch.go() == 1, "on a thread of its own it works"
            fetch.with_options(name="in place")()

    with pytest.raises(RuntimeError, match="running event loop") as caught:
        asyncio.run(cell())
    (note,) = [one for one in caught.value.__notes__ if "in place" in one]
    assert "start it with .go(...)" in note


def test_a_connection_that_steps_share():
    """A connection among the inputs is told with what each step needs; a busy one says so, too."""
    con = duckdb.connect()

    def count():
        return con.execute("SELECT 42").fetchone()

    error, said = run("w", lambda: go(count).result())
    assert error is None
    told = [one for one in said if "(DuckDBPyConnection)" in one]
    assert told
    assert all(
        "steps that use it at once need `con.cursor()` each, or limit=1" in one for one in told
    )

    class ResourceInUseException(Exception):
        pass

    def busy():
        raise ResourceInUseException("connection is busy with another call; it refuses")

    error, _ = run("x", lambda: go(busy).result())
    assert any("use `con.cursor()` in each step" in note for note in error.__notes__)


def test_a_relation_as_a_result():
    """A lazy relation isn't saved; the cure is in the line that says so."""

    def lazy():
        return duckdb.sql("SELECT 1 AS a")

    error, said = run("w", lambda: go(lazy).result())
    assert error is None
    (told,) = [one for one in said if "not saved" in one]
    assert "return what it gives: .df(), .arrow() or .fetchall()" in told
