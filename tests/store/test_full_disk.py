"""A disk that becomes full in each place where that can happen, and is freed again.

Real disks, that is (`support.small_disk`). What was acknowledged is kept, the error says
what is full and what to do, and the run resumes: saved outcomes are replayed, decided
selects stay decided. Values are random, so that what ran again would show.
"""

import hashlib
import os

import pytest
from support import small_disk

from nbdurable import StoreFullError, after, as_completed, go, select, workflow
from nbdurable.api import open_stores
from nbdurable.inspection import maintenance
from nbdurable.inspection import queries as questions
from nbdurable.store import check

pytestmark = pytest.mark.timeout(100)


@pytest.fixture(params=["a full disk", "files that can't grow"])
def run(request, tmp_path):
    """Return a function that runs one of this module's on a small disk."""

    def on_disk(function, *arguments, **options):
        mounted = request.param == "a full disk"
        return small_disk.run(function, tmp_path / "disk", *arguments, mounted=mounted, **options)

    return on_disk


@pytest.fixture(params=["here", "anew"])
def where(request):
    """Say where the run is resumed: in the same process, or in a new one."""
    return request.param


# --- the cell ----------------------------------------------------------------------------

RAN = []


def random_bytes(number, size):
    """Return bytes that no second call gives."""
    RAN.append(number)
    return os.urandom(size)


def random_name(number):
    """As `random_bytes`: one step of another name, for a select."""
    RAN.append(-number)
    return os.urandom(8)


def digest(value):
    """Return what tells a value apart, for JSON."""
    return hashlib.sha256(value).hexdigest()[:16]


class Cell:
    """A durable cell that notes what was acknowledged, value by value."""

    def __init__(self, disk):
        self.store = disk.folder / "store.duckdb"
        self.got = {}

    def decide(self):
        """Decide a select: a branch that ends at once against one that never does."""
        first = select(after(3_600), go(random_name, 1))
        self.got["winner"] = f"{first.index} {digest(first.result())}"

    def ask(self, number, size):
        """Run one step and note what it gave."""
        self.got[str(number)] = digest(go(random_bytes, number, size).result())

    def problems(self):
        """Return what `check` finds."""
        open_stores.close_stores()
        with open_stores.reading(self.store) as store:
            return check(store)


def resumed(disk, numbers, size):
    """Run the cell to its end; give what it got, and which steps ran for it."""
    RAN.clear()
    cell = Cell(disk)
    with workflow("w", store=cell.store):
        cell.decide()
        for number in range(numbers):
            cell.ask(number, size)
    assert cell.problems() == []
    return cell.got, RAN


def resume(disk, cell, where, numbers, size):
    """Free the disk, resume, and compare: what was acknowledged did not run again."""
    acknowledged = dict(cell.got)
    assert cell.problems() == []
    disk.free()
    if where == "here":
        got, ran = resumed(disk, numbers, size)
    else:
        got, ran = disk.anew(resumed, numbers, size)
    assert {name: got.get(name) for name in acknowledged} == acknowledged
    assert not {str(number) for number in ran} & set(acknowledged)
    assert -1 not in ran
    return ran


def refused(act):
    """Do what finds the disk full; give what is said."""
    with pytest.raises(StoreFullError) as caught:
        act()
    return str(caught.value)


def is_told(disk, said, name):
    """Tell whether an error says what could not be written, where, and what to do."""
    place = str(disk.folder / name)
    return said.startswith(f"the disk is full: {place}") and (
        said.endswith("free some space on that disk and run the cell again to resume")
    )


# --- rows --------------------------------------------------------------------------------


def fill_with_rows(disk, where):
    """Run a cell whose rows fill the disk."""
    cell = Cell(disk)

    def act():
        with workflow("w", store=cell.store):
            cell.decide()
            cell.ask(0, 2_000)
            disk.fill(40_000)
            for number in range(1, 100):
                cell.ask(number, 2_000)

    assert is_told(disk, refused(act), "store.duckdb.wal")
    assert 2 < len(cell.got) < 90
    # It is still full: what is there can be asked, and nothing of it is lost.
    RAN.clear()
    refused(lambda: resumed(disk, 100, 2_000))
    assert RAN in ([], [len(cell.got) - 1])
    open_stores.close_stores()
    (summary,) = questions.runs(cell.store)
    assert summary.saved >= len(cell.got)
    ran = resume(disk, cell, where, 100, 2_000)
    assert len(ran) >= 100 - len(cell.got)


def test_rows(run, where):
    """The disk becomes full between one step and the next."""
    run(fill_with_rows, where)


def fill_with_batches(disk, where, size, leaving):
    """Run many concurrent steps, whose group commits fill the disk."""
    cell = Cell(disk)

    def act():
        with workflow("w", store=cell.store):
            cell.decide()
            disk.fill(leaving)
            started = [go(random_bytes, number, size) for number in range(300)]
            for handle in as_completed(started):
                cell.got[str(started.index(handle))] = digest(handle.result())

    said = refused(act)
    assert is_told(disk, said, "store.duckdb.wal"), said
    assert len(cell.got) < 300
    resume(disk, cell, where, 300, size)


@pytest.mark.parametrize(("size", "leaving"), [(100, 60_000), (20_000, 250_000)])
def test_batches(run, where, size, leaving):
    """It becomes full in a transaction of many rows: as the disk it is, not as a rollback."""
    run(fill_with_batches, where, size, leaving)


def open_first(disk):
    """Open a store where there is none, on a disk that is full; and once more with room."""
    store = disk.folder / ".nbdurable" / "notebook.duckdb"
    with workflow("w", store=disk.folder / "other.duckdb"):
        pass  # the key is there
    disk.fill(longest=0)

    def act():
        with workflow("w", store=store):
            go(random_name, 1).result()

    said = refused(act)
    assert is_told(disk, said, ".nbdurable"), said
    disk.free()
    act()
    return (store.parent / ".gitignore").read_text(encoding="ascii")


def test_the_first_opening(run):
    """It is full when the store is made: what could only be begun is in nobody's way."""
    assert run(open_first) == "*\n"


# --- large values --------------------------------------------------------------------------

LARGE = 3 << 20


def fill_with_large(disk, where):
    """Run a cell whose large value's file finds no room."""
    cell = Cell(disk)

    def act():
        with workflow("w", store=cell.store):
            cell.decide()
            cell.ask(0, LARGE)
            disk.fill(LARGE // 2, longest=LARGE // 2)
            cell.ask(1, LARGE)

    said = refused(act)
    assert is_told(disk, said, "store.duckdb.objects"), said
    assert len(cell.got) == 2
    assert len([name for name in disk.files() if "objects" in name]) == 1, "a draft was left"
    assert resume(disk, cell, where, 2, LARGE) == [1]


def test_a_large_value(run, where):
    """It becomes full while an object file is written."""
    run(fill_with_large, where)


def go_on_without_large(disk):
    """Catch the error of a large value, and go on with small ones."""
    cell = Cell(disk)
    with workflow("w", store=cell.store):
        cell.decide()
        cell.ask(0, LARGE)
        disk.fill(LARGE // 2, longest=LARGE // 2)
        refused(lambda: cell.ask(1, LARGE))
        cell.ask(2, 100)
    assert cell.got.pop("2")
    return resume(disk, cell, "here", 2, LARGE)


def test_smaller_ones_go_on(run):
    """A large value that finds no room breaks nothing else: its step runs again next time."""
    assert run(go_on_without_large) == [1]


# --- checkpointing -------------------------------------------------------------------------

ROW = 200_000  # bytes: 90 of them fill a write-ahead log


def fill_with_checkpoint(disk, where):
    """Run a cell until DuckDB folds its write-ahead log into a file that can't grow."""
    cell = Cell(disk)

    def act(numbers):
        with workflow("w", store=cell.store):
            cell.decide()
            for number in numbers:
                cell.ask(number, ROW)

    act(range(100))
    open_stores.close_stores()
    assert not (disk.folder / "store.duckdb.wal").exists()
    disk.fill(18 << 20, longest=cell.store.stat().st_size)
    said = refused(lambda: act(range(300)))
    assert is_told(disk, said, "store.duckdb"), said
    assert len(cell.got) > 150
    resume(disk, cell, where, 300, ROW)


def test_a_checkpoint(run, where):
    """It becomes full while the write-ahead log is folded into the file: both are kept."""
    run(fill_with_checkpoint, where, size="128m")


# --- collecting ----------------------------------------------------------------------------


HEADERS, BLOCK = 12_288, 262_144  # bytes: how a file of DuckDB's is laid out


def fill_and_collect(disk, leaving, longest):
    """Collect garbage where there is no room for it."""
    cell = Cell(disk)
    for numbers, size in ((40, 100_000), (10, 100)):
        with workflow("w", store=cell.store, new=True):
            cell.decide()
            for number in range(numbers):
                cell.ask(number, size)
    kept = {name: cell.got[name] for name in ["winner", *map(str, range(10))]}
    open_stores.close_stores()
    before = cell.store.stat().st_size
    disk.fill(leaving, longest=longest)
    said = refused(lambda: maintenance.collect(cell.store, remove=True))
    assert "free some space" in said
    open_stores.close_stores()
    left = {"store.duckdb", "store.duckdb.wal", "store.duckdb.lock"}
    assert set(disk.files()) <= left, "a half-made copy was left"
    disk.free()
    assert resumed(disk, 10, 100) == (kept, [])
    maintenance.collect(cell.store, remove=True)
    assert cell.store.stat().st_size < before / 2
    assert resumed(disk, 10, 100) == (kept, [])


@pytest.mark.parametrize(
    ("leaving", "longest"),
    # Of files that can't grow: none of DuckDB's blocks may be cut in two.
    [(0, 0), (4_096, HEADERS), (40_000, HEADERS), (300_000, HEADERS + 2 * BLOCK)],
    ids=["rows", "begun", "its log", "copied"],
)
def test_collecting(run, leaving, longest):
    """Garbage that can't be taken out, or a file that can't be made small, loses nothing."""
    run(fill_and_collect, leaving, longest)
