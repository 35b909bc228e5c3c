"""What a store no longer needs, and that nothing else goes."""

import os
import shutil

import duckdb  # noqa: TID251 - the file, as another program sees it
import pytest

from nbdurable import StoreError, StoreFullError, UsageError, gather, go, select, step, workflow
from nbdurable.api import open_stores
from nbdurable.inspection import maintenance
from nbdurable.inspection import queries as questions
from nbdurable.store import Store, check
from nbdurable.testing import ManualClock, clock_of_runs


@pytest.fixture
def path(tmp_path):
    """A store's path; it is closed after the test."""
    yield tmp_path / "store.duckdb"
    open_stores.close_stores()


def compute(number, ran):
    """Note that it ran."""
    ran.append(number)
    return "x" * number


def cell(path, *, version="1", name="w", **options):
    """Run a cell of three steps; give what ran."""
    ran = []
    with workflow(name, store=path, **options):
        steps = [step(compute, version=version, ignore=("ran",)).go(n, ran) for n in (10, 20, 30)]
        gather(steps).result()
    return sorted(ran)


def problems(path):
    """Return what `check` finds."""
    open_stores.close_stores()
    store = Store.open(path)
    try:
        return check(store)
    finally:
        store.close()


def rows(path, sql):
    """Ask the store."""
    open_stores.close_stores()
    with duckdb.connect(str(path)) as connection:
        return connection.execute(sql).fetchall()


def test_superseded_outcomes_go(path):
    """Of each call the newest outcome stays; editing back runs it again."""
    cell(path, version="1")
    cell(path, version="2")
    found = maintenance.collect(path).found
    assert [(one.name, one.whole, one.outcomes) for one in found] == [("w", False, 3)]
    assert found[0].size > 60
    assert cell(path, version="1") == []  # it was only looked at
    assert cell(path, version="2") == []
    assert maintenance.collect(path, remove=True).removed
    assert problems(path) == []
    assert cell(path, version="2") == []
    assert maintenance.collect(path).found == ()
    assert cell(path, version="1") == [10, 20, 30]


def test_what_was_gone_back_to_stays(path):
    """The last execution used the older outcomes: it is they that are needed."""
    cell(path, version="1")
    cell(path, version="2")
    cell(path, version="1")
    assert maintenance.collect(path, remove=True).found == ()
    assert cell(path, version="1") == []


def test_an_unfinished_run_loses_nothing(path):
    """Whatever is superseded in it may be what it goes on with."""
    cell(path, version="1")
    cell(path, version="2")
    with pytest.raises(ZeroDivisionError), workflow("w", store=path):
        go(divmod, 1, 0).result()
    assert maintenance.collect(path, remove=True).found == ()
    assert cell(path, version="1") == []


def test_replaced_runs_go(path):
    """A newer run of the same name replaces the older ones; other names stay."""
    for _ in range(3):
        cell(path, new=True)
    cell(path, name="other")
    found = maintenance.collect(path, remove=True).found
    assert [(one.name, one.whole, one.outcomes) for one in found] == [("w", True, 3)] * 2
    assert problems(path) == []
    assert [one.name for one in questions.runs(path)] == ["other", "w"]
    assert cell(path) == []
    assert cell(path, name="other") == []
    for table in ("execution_log", "execution_ends"):
        ((count,),) = rows(path, f"SELECT count(*) FROM nbdurable.{table}")
        assert count == 4


def test_nothing_of_the_last_hours(path):
    """With an age, what is younger stays."""
    clock = ManualClock()
    with clock_of_runs(clock):
        cell(path, new=True, version="0")
        clock.advance(3600)
        cell(path, new=True, version="1")
        clock.advance(3600)
        cell(path, version="2")
        clock.advance(3600)
        assert maintenance.collect(path, older_than=4 * 3600).found == ()
        assert [one.whole for one in maintenance.collect(path, older_than=2.5 * 3600).found] == [
            True
        ]
        found = maintenance.collect(path, older_than=1.5 * 3600).found
        assert sorted(one.whole for one in found) == [False, True]


def race(path, version):
    """Let two steps race, both to their ends; give the winner."""
    with workflow("w", store=path):
        both = step(compute, version=version, ignore=("ran",)).go(1, []), go(len, "ab")
        first = select(both)
        gather(both).result()
        return first.winner.label


def test_decisions_go_with_their_branches(path):
    """What a superseded branch had decided is not needed either."""
    race(path, "1")
    winner = race(path, "2")
    assert rows(path, "SELECT count(*) FROM nbdurable.decision_log") == [(2,)]
    maintenance.collect(path, remove=True)
    assert rows(path, "SELECT count(*) FROM nbdurable.decision_log") == [(1,)]
    assert problems(path) == []
    assert race(path, "2") == winner


def test_codes_go_with_their_outcomes(path):
    """The parts of a code that no outcome has any more are gone."""

    def first():
        return 1

    cell(path)
    with workflow("w", store=path, new=True):
        go(first).result()
    before = rows(path, "SELECT count(*) FROM nbdurable.codes")
    with workflow("w", store=path, new=True):
        go(len, "a").result()
    maintenance.collect(path, remove=True)
    assert before > rows(path, "SELECT count(*) FROM nbdurable.codes")


def big(path, version):
    """Save 200 outcomes that do not compress, each in its row."""
    with workflow("w", store=path):
        gather(step(os.urandom, version=version).go(30_000 + n) for n in range(200)).result()


def test_the_file_becomes_small(path):
    """Room that taken out rows leave is given back; the store goes on under its name."""
    big(path, "1")
    big(path, "2")
    open_stores.close_stores()
    before = path.stat().st_size
    assert maintenance.collect(path, remove=True).freed > 3_000_000
    assert path.stat().st_size < before - 3_000_000
    assert sorted(one.name for one in path.parent.iterdir()) == [
        "store.duckdb",
        "store.duckdb.lock",
    ]
    assert problems(path) == []
    assert questions.runs(path)[0].saved == 200


def large(path, version, size=2_000_000):
    """Save an outcome in an object file."""
    with workflow("w", store=path):
        return step(bytes, key=lambda _: "the same", version=version).go(size).result()


def files(path):
    """Return the names of a store's object files."""
    open_stores.close_stores()
    return {one.name for one in path.with_name(path.name + ".objects").iterdir()}


def test_object_files_go_with_their_outcomes(path):
    """What no row names any more is taken out, after the rows; what one names stays."""
    large(path, "1")
    kept = files(path)
    large(path, "2", 3_000_000)
    both = files(path)
    assert kept < both
    path.with_name(path.name + ".objects").joinpath("123-0123456789abcdef.draft").write_bytes(
        b"half"
    )
    found = maintenance.collect(path)
    assert (found.files, found.removed) == (2, False)  # one is the draft of one who died
    large(path, "3")  # its content is there already
    found = maintenance.collect(path)
    assert found.files == 1  # and the draft is gone: whoever writes next clears up
    assert found.files_size > 3_000_000
    maintenance.collect(path, remove=True)
    assert files(path) == kept
    assert problems(path) == []
    assert large(path, "3") == bytes(2_000_000)
    assert questions.runs(path)[0].executions == 4


def test_not_while_a_let_go_body_may_be_saved(path, monkeypatch):
    """A body that the next execution may adopt has perhaps written a file already."""
    large(path, "1")
    (run,) = questions.runs(path)
    monkeypatch.setitem(open_stores._state.leftovers, "a run of another store", {(b"", b""): None})
    assert maintenance.collect(path).found == ()
    monkeypatch.setitem(open_stores._state.leftovers, run.id, {(b"", b""): None})
    with pytest.raises(UsageError, match="still run"):
        maintenance.collect(path)


def test_a_users_database_is_not_replaced(path):
    """Tables of the user's own are in it: rows go, the file stays."""
    big(path, "1")
    big(path, "2")
    rows(path, "CREATE TABLE mine AS SELECT 1 AS one")
    inode = path.stat().st_ino
    assert maintenance.collect(path, remove=True).freed == 0
    assert path.stat().st_ino == inode
    assert rows(path, "SELECT * FROM mine") == [(1,)]
    assert maintenance.collect(path).found == ()


def test_a_database_that_the_user_holds_open_is_not_replaced(path):
    """What they write later would go into a file that has no name any more."""
    big(path, "1")
    big(path, "2")
    open_stores.close_stores()
    with duckdb.connect(str(path)) as mine:
        assert maintenance.collect(path, remove=True).freed == 0
        mine.execute("CREATE TABLE later AS SELECT 1 AS one")
    assert rows(path, "SELECT * FROM later") == [(1,)]


def test_the_half_copy_of_one_who_died_goes(path):
    """The next who makes the file small takes it away."""
    big(path, "1")
    path.with_name(f"{path.name}.0a1b2c3d.compacting").write_bytes(b"half")
    maintenance.collect(path, remove=True)
    assert sorted(one.name for one in path.parent.iterdir()) == [path.name, f"{path.name}.lock"]


def test_a_copy_that_does_not_fit_changes_nothing(path, monkeypatch):
    """A full disk while the file is made small is said; the store is as it was."""
    big(path, "1")
    big(path, "2")

    def full(*_):
        raise duckdb.IOException('Could not write file "x": No space left on device')

    monkeypatch.setattr(Store, "copy_to", full)
    with pytest.raises(StoreFullError):
        maintenance.collect(path, remove=True)
    monkeypatch.undo()
    assert problems(path) == []
    assert questions.runs(path)[0].saved == 200


def test_dead_in_mid_copy(path):
    """A half-written copy is nobody's store."""
    big(path, "1")
    open_stores.close_stores()
    store = Store.open(path)
    draft = path.with_name("draft")
    store.copy_to(draft)
    store.close()
    shutil.copy(draft, path.with_name(f"{path.name}.0a1b2c3d.compacting"))
    assert questions.runs(path)[0].saved == 200


def test_not_while_a_cell_runs(path):
    """A durable cell of this process uses the store."""
    with workflow("w", store=path), pytest.raises(UsageError, match="w is running"):
        maintenance.collect(path)


def test_without_a_store(path):
    """There is none: none is made."""
    with pytest.raises(StoreError, match="there is no store"):
        maintenance.collect(path, remove=True)
    assert not path.exists()


def test_a_store_in_memory():
    """It has no file to make small."""
    with workflow("gc", store=":memory:"):
        go(len, "a").result()
    assert maintenance.collect(":memory:", remove=True).freed == 0
