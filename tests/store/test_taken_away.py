"""A store whose place is taken away: removed, moved, replaced, or made read-only in mid-run.

Nothing is acknowledged that nobody could read again; the error says what became of the
store and what to do; afterwards the run resumes, or starts anew if its store is gone.
"""

import os
import shutil

import pytest
from support import small_disk

from nbdurable import StoreError, go, workflow
from nbdurable.api import configuration, open_stores
from nbdurable.inspection import maintenance
from nbdurable.inspection import queries as questions
from nbdurable.store import check

pytestmark = pytest.mark.timeout(100)

SMALL, LARGE = 10, 300_000
RAN = []


def random_bytes(number, size):
    """Return bytes that no second call gives."""
    RAN.append(number)
    return os.urandom(size)


def cell(store, size, act=None, after=3, steps=6):
    """Run a cell; `act` is done after so many steps. Give what was acknowledged."""
    got = []
    RAN.clear()
    try:
        with workflow("w", store=store):
            for number in range(steps):
                if number == after and act is not None:
                    act()
                got.append(go(random_bytes, number, size).result())
    except StoreError as error:
        return got, str(error)
    return got, ""


def problems(store):
    """Return what `check` finds in a store that is opened anew."""
    open_stores.close_stores()
    with open_stores.reading(store) as opened:
        return check(opened)


@pytest.fixture
def store(tmp_path):
    """Yield where a notebook's store would be."""
    yield tmp_path / "project" / ".nbdurable" / "notebook.duckdb"
    open_stores.close_stores()


def is_told(said):
    """Tell whether an error says what became of the store, and both ways out."""
    return (
        ("was removed" in said)
        and ("put it back and run the cell again to resume" in said)
        and said.endswith("run the cell again without it to start anew")
    )


# --- removed -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("what", ["the file", "the store's folder", "the notebook's folder"])
def test_removed(store, what, size):
    """Nothing more is acknowledged; the same process starts anew, and resumes from that."""
    remove = {
        "the file": store.unlink,
        "the store's folder": lambda: shutil.rmtree(store.parent),
        "the notebook's folder": lambda: shutil.rmtree(store.parents[1]),
    }[what]
    got, said = cell(store, size, remove)
    assert len(got) == 3
    assert is_told(said)
    again, said = cell(store, size)
    assert (len(again), said, RAN) == (6, "", list(range(6)))
    assert problems(store) == []
    assert cell(store, size) == (again, "")
    assert RAN == []


def test_removed_between_two_cells(store):
    """A store that is still open from the last cell is not used when its file is gone."""
    first, _ = cell(store, SMALL)
    shutil.rmtree(store.parent)
    assert questions.runs(store) == []
    assert not store.exists(), "a question has made a store"
    again, said = cell(store, SMALL)
    assert said == ""
    assert again != first
    assert problems(store) == []


@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["small", "large"])
def test_moved_and_put_back(store, tmp_path, size):
    """What was acknowledged is where the folder is: put back, it is replayed."""
    got, said = cell(store, size, lambda: store.parent.rename(tmp_path / "elsewhere"))
    assert is_told(said)
    open_stores.close_stores()
    (tmp_path / "elsewhere").rename(store.parent)
    again, said = cell(store, size)
    assert (again[:3], said) == (got, "")
    assert not set(RAN) & {0, 1, 2}
    assert problems(store) == []


def test_replaced_by_another(store, tmp_path):
    """The store that took its place keeps its write-ahead log, and what is in it."""
    other = tmp_path / "other.duckdb"
    theirs, _ = cell(other, SMALL)
    places = [(other, store), (other.with_name("other.duckdb.wal"), _log(store))]
    kept = [(place.read_bytes(), to) for place, to in places]
    assert all(content for content, _ in kept)

    def replace():
        for content, to in kept:
            to.unlink()
            to.write_bytes(content)

    got, said = cell(store, SMALL, replace)
    assert len(got) == 3
    assert "replaced" in said
    open_stores.close_stores()
    assert cell(store, SMALL) == (theirs, "")
    assert RAN == []


def test_replaced_after_the_cell(store, tmp_path, monkeypatch):
    """The same, where no commit could tell: when the store is let go."""
    monkeypatch.setattr(open_stores, "LINGER_SECONDS", 60)
    other = tmp_path / "other.duckdb"
    theirs, _ = cell(other, SMALL)
    cell(store, SMALL)
    for place, to in ((other, store), (other.with_name("other.duckdb.wal"), _log(store))):
        content = place.read_bytes()
        to.unlink()
        to.write_bytes(content)
    open_stores.close_stores()
    assert cell(store, SMALL) == (theirs, "")
    assert RAN == []


def _log(store):
    return store.with_name(f"{store.name}.wal")


def test_only_the_object_files(store):
    """The run goes on; the next one makes the values again whose files are gone."""
    got, said = cell(store, LARGE, lambda: shutil.rmtree(f"{store}.objects"))
    assert (len(got), said) == (6, "")
    again, said = cell(store, LARGE)
    assert said == ""
    assert again[3:] == got[3:]
    assert RAN == [0, 1, 2]
    assert problems(store) == []


def test_the_working_folder(tmp_path, monkeypatch):
    """Without a notebook the store is in the working folder: one that is gone is said."""
    monkeypatch.delenv("NBDURABLE_STORE", raising=False)
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(StoreError, match="the working folder was removed or moved"):
        configuration.default_store()


# --- read-only ---------------------------------------------------------------------------


@pytest.fixture(params=["a read-only disk", "permissions"])
def run(request, tmp_path):
    """Return a function that runs one of this module's where that can be had."""
    mounted = request.param == "a read-only disk"
    return lambda function, *arguments: small_disk.run(
        function, tmp_path / "disk", *arguments, mounted=mounted, size="128m"
    )


def read_only_from_the_start(disk, size):
    """Run a cell, make its folder read-only, run it again, make it writable, run it again."""
    project = disk.folder / "project"
    store = project / ".nbdurable" / "notebook.duckdb"
    got, _ = cell(store, size, steps=3)
    open_stores.close_stores()
    before = disk.files()
    disk.read_only(project)
    told = []
    for place in (store, project / "other" / ".nbdurable" / "notebook.duckdb"):
        _, said = cell(place, size)
        told.append(said)
    (run,) = questions.runs(store)
    assert (run.name, run.saved) == ("w", 3), "who may not write can still ask"
    with pytest.raises(StoreError) as asked:
        maintenance.restart("w", store)
    told.append(str(asked.value))
    assert RAN == []
    disk.writable(project)
    assert disk.files() == before
    again, said = cell(store, size)
    assert (again[:3], said, RAN) == (got, "", [3, 4, 5])
    assert problems(store) == []
    return told


@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["small", "large"])
def test_read_only(run, size):
    """A store that can't be written is refused with the two ways out, and stays as it was."""
    told = run(read_only_from_the_start, size)
    for said in told:
        assert "make it writable, or name another store" in said, said


def read_only_in_mid_run(disk, size, steps):
    """Make the folder of a store read-only in mid-run, and writable again after it."""
    project = disk.folder / "project"
    store = project / ".nbdurable" / "notebook.duckdb"
    got, said = cell(store, size, lambda: disk.read_only(project), steps=steps)
    open_stores.close_stores()
    disk.writable(project)
    assert problems(store) == []
    again, told = cell(store, size, steps=steps)
    assert told == ""
    assert again[: len(got)] == got
    assert not set(range(len(got))) & set(RAN)
    assert problems(store) == []
    return len(got), said


@pytest.fixture
def permitted(tmp_path):
    """Return a function that runs one of this module's where permissions bind.

    A disk on which a file is being written can't be made read-only as a whole.
    """
    return lambda function, *arguments: small_disk.run(
        function, tmp_path / "disk", *arguments, mounted=False
    )


def test_read_only_in_mid_run(permitted):
    """Files that are open can still be written: small values go on."""
    assert permitted(read_only_in_mid_run, SMALL, 6) == [6, ""]


def test_read_only_in_mid_run_with_large_values(permitted):
    """A file of its own can't be made: that is said, and the run resumes."""
    count, said = permitted(read_only_in_mid_run, LARGE, 6)
    assert count == 3
    assert "make its folder writable, or name another store" in said


def test_read_only_in_mid_run_at_a_checkpoint(permitted):
    """DuckDB can't remove the log that it has folded in: nothing is lost, whoever notices."""
    count, said = permitted(read_only_in_mid_run, 200_000, 120)
    assert count < 120
    assert said.endswith("make its folder writable and run the cell again to resume")
    assert "notebook.duckdb.wal" in said
