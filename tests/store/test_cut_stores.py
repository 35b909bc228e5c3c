"""A database file and its write-ahead log cut anywhere: a prefix of what was committed, or refused.

A disk that lost its last writes, or a copy that was broken off, leaves such files. Each is
opened; what is refused stays as it is.
"""

import shutil

import duckdb  # noqa: TID251 - makes the file of small blocks, and keeps its log
import pytest

from nbdurable import StoreCorruptError, go, workflow
from nbdurable.api import open_stores
from nbdurable.store import Store, check, connection

STEP = 512  # bytes from cut to cut
OUTCOMES = 30


def save(path, numbers):
    """Save an outcome each, in a transaction each."""
    with workflow("w", store=path):
        for number in numbers:
            assert go(str, number).result() == str(number)


@pytest.fixture(scope="module")
def files(tmp_path_factory, signing_key):
    """Return a file and its log, as a kernel leaves them that is killed; half is in each."""
    path = tmp_path_factory.mktemp("cut") / "store.duckdb"
    duckdb.connect(str(path), config={"default_block_size": 16_384}).close()
    save(path, range(OUTCOMES // 2))
    open_stores.close_stores()  # which folds the log into the file
    save(path, range(OUTCOMES))
    store = open_stores._state.opens[str(path)].store
    assert len(store.rows("SELECT 1 FROM nbdurable.checkpoints")) == OUTCOMES
    kept = path.read_bytes(), path.with_name("store.duckdb.wal").read_bytes()
    open_stores.close_stores()
    return kept


def opened(folder, file, log):
    """Open a store of these bytes; give its outcomes' numbers, None if it was refused as it was."""
    path = folder / "store.duckdb"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    path.write_bytes(file)
    if log is not None:
        path.with_name("store.duckdb.wal").write_bytes(log)
    before = {one.name: one.read_bytes() for one in folder.iterdir()}
    connection.known.clear()
    store, refused = None, ""
    try:
        store = Store.open(path)
    except StoreCorruptError as error:
        refused = str(error)
    if store is None:
        assert str(path) in refused
        assert {one.name: one.read_bytes() for one in folder.iterdir()} == before
        return None
    try:
        numbers = [one for (one,) in store.rows("SELECT number FROM nbdurable.checkpoints")]
        assert check(store) == []
    finally:
        store.close()
    return sorted(numbers)


def test_a_log_cut_anywhere(files, tmp_path):
    """The transactions before the cut are there, and none of those after it."""
    file, log = files
    counts = []
    for cut in [*range(0, len(log), STEP), len(log)]:
        numbers = opened(tmp_path / "cut", file, log[:cut])
        assert numbers is None or numbers == list(range(1, len(numbers) + 1)), cut
        counts.append(None if numbers is None else len(numbers))
    there = [count for count in counts if count is not None]
    assert there == sorted(there)
    assert there[-1] == OUTCOMES
    assert len(set(there)) > 5, counts


def test_a_file_cut_anywhere(files, tmp_path):
    """A file that has lost its end is refused, or nothing of it is lost."""
    file, log = files
    refused = 0
    for cut in range(0, len(file), STEP):
        for beside in (None, log):
            if cut == 0 and beside is None:
                continue  # an empty file is a new store
            numbers = opened(tmp_path / "cut", file[:cut], beside)
            refused += numbers is None
            expected = OUTCOMES if beside else OUTCOMES // 2
            assert numbers in (None, list(range(1, expected + 1))), (cut, beside is None)
    assert refused > len(file) // STEP
