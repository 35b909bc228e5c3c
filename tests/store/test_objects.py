"""Object files: what is large is written once, synced before its row, mapped, and checked."""

import contextlib
import errno
import os
import resource
import stat
import sys
import tempfile
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from nbdurable import DecodeError, StoreError, StoreFullError, go, step, workflow
from nbdurable.api import open_stores
from nbdurable.codec.outcomes import settle_value
from nbdurable.codec.values import LARGE, decode, encode
from nbdurable.store import journal, objects
from nbdurable.store.objects import Objects

MIB = 1 << 20
ARRAY = np.arange(LARGE // 4, dtype="f8")


@pytest.fixture
def folder(tmp_path):
    """Return the folder of a store that has not been made yet."""
    return tmp_path / "store.duckdb.objects"


@pytest.fixture
def store(tmp_path):
    """Yield the path of a store; leave none open."""
    yield tmp_path / "store.duckdb"
    open_stores.close_stores()


def put(kept, *contents):
    """Write buffers, and give what they are found by."""
    with kept.writer() as writer:
        for content in contents:
            writer.write(memoryview(content))
            writer.end()
    return writer.pieces


def got(views):
    """Return the bytes of buffers."""
    return [bytes(view) for view in views]


def size_of(folder):
    """Return the bytes of all files."""
    return sum(path.stat().st_size for path in folder.iterdir())


def linux_only(what):
    """Mark a test that asks Linux."""
    return pytest.mark.skipif(sys.platform != "linux", reason=f"asks Linux for {what}")


# --- written, kept once, given back ---------------------------------------------------------


def test_buffers_come_back_writable_and_apart(folder):
    """Each restore gives memory of its own, aligned, and the file never changes."""
    kept = Objects(folder)
    contents = [b"first" * 1000, b"second" * 999, os.urandom(3 * MIB + 1)]
    pieces = put(kept, *contents)
    [path] = folder.iterdir()
    before = path.read_bytes()
    one, two = kept.restore(pieces), kept.restore(pieces)
    assert got(one) == got(two) == contents
    for view in one:
        assert np.frombuffer(view, "u1").ctypes.data % 64 == 0
        view[0:4] = b"MINE"
    assert got(two) == got(kept.restore(pieces)) == contents
    assert path.read_bytes() == before


def test_equal_buffers_of_one_value_are_stored_once_and_given_apart(folder):
    """What is changed through one of two equal buffers is not changed in the other."""
    kept = Objects(folder)
    pieces = put(kept, b"same" * 500, b"other", b"same" * 500)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2500
    one, _, three = kept.restore(pieces)
    one[0:4] = b"MINE"
    assert bytes(three) == b"same" * 500


def test_a_buffer_that_another_value_has_is_stored_once(folder):
    """In this process, and in the next, which learns of it from the rows; but not if it is gone."""
    first = put(Objects(folder), b"a" * 5000)
    kept = Objects(folder)
    kept.remember(first)
    pieces = put(kept, b"b" * 700, b"a" * 5000)
    assert sorted(path.stat().st_size for path in folder.iterdir()) == [732, 5032]
    assert put(kept, b"a" * 5000, b"b" * 700)
    assert len(list(folder.iterdir())) == 2
    assert got(kept.restore(pieces)) == [b"b" * 700, b"a" * 5000]
    for path in folder.iterdir():
        path.write_bytes(b"damaged" * 1000)
    assert got(kept.restore(put(kept, b"a" * 5000))) == [b"a" * 5000]


def test_an_unchanged_array_is_hashed_and_not_written(folder, monkeypatch):
    """Saved again, in this process or the next, it costs no write."""
    kept = Objects(folder)
    first = encode({"a": ARRAY, "n": 1}, kept)
    written = []
    monkeypatch.setattr(objects, "write_hook", written.append)
    assert encode({"a": ARRAY, "n": 2}, kept).pieces == first.pieces
    later = Objects(folder)
    later.remember(first.pieces)
    assert encode({"a": ARRAY, "n": 3}, later).pieces == first.pieces
    assert written == []
    encode({"a": ARRAY + 1, "n": 3}, later)
    assert max(written) == ARRAY.nbytes


def test_a_file_that_was_written_to_is_compared_again(folder):
    """Even if its length and its time are as before."""
    kept = Objects(folder)
    encode([ARRAY], kept)
    (path,) = folder.iterdir()
    before = path.stat()
    with path.open("r+b") as file:
        file.write(b"?")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    payload = encode([ARRAY], kept)
    assert (decode(payload.data, payload.pieces, kept)[0] == ARRAY).all()


@pytest.mark.parametrize("cut", [1, 31, 32, 33])
def test_a_file_that_lost_its_end_is_not_used_again(folder, cut):
    """What is written anew is whole, even where the buffer's own bytes were all there."""
    kept = Objects(folder)
    put(kept, b"a" * 5000)
    (path,) = folder.iterdir()
    path.write_bytes(path.read_bytes()[:-cut])
    assert got(kept.restore(put(kept, b"a" * 5000), proven=1)) == [b"a" * 5000]


def test_rows_that_nobody_signed_are_not_believed(folder):
    """Pieces of a row are a hint where content may lie: what is there is compared."""
    kept = Objects(folder)
    pieces = put(kept, b"right" * 100)
    digest = pieces[-32:]
    wrong = put(kept, b"wrong" * 100)
    kept.remember(wrong[:-32] + digest)
    kept.remember(b"no piece at all")
    kept.remember(wrong[:32] + bytes(7) + b"\x05" + (1 << 60).to_bytes(8, "big") + digest)
    assert got(kept.restore(put(kept, b"right" * 100))) == [b"right" * 100]


def test_the_same_content_has_the_same_name(folder, tmp_path):
    """Files are named by what is in them, whoever writes them; one that is there is replaced."""
    for kept in (Objects(folder), Objects(folder), Objects(tmp_path / "other")):
        put(kept, b"content" * 100, b"more")
    names = [[path.name for path in one.iterdir()] for one in (folder, tmp_path / "other")]
    assert names[0] == names[1]
    assert len(names[0]) == 1


def test_nothing_is_left_of_what_failed(folder):
    """An exception while a value is written leaves no file."""
    kept = Objects(folder)
    with contextlib.suppress(ZeroDivisionError), kept.writer() as writer:
        writer.write(memoryview(b"half"))
        assert len(list(folder.iterdir())) == 1
        raise ZeroDivisionError
    assert list(folder.iterdir()) == []


def test_drafts_of_dead_processes_are_removed(folder):
    """What a process left when it died is removed by the next; its own drafts are not."""
    kept = Objects(folder)
    put(kept, b"x")
    mine, other = (
        folder / f"{os.getpid()}-{1:016x}.draft",
        folder / f"{os.getpid() + 1}-{1:016x}.draft",
    )
    mine.touch()
    other.touch()
    put(Objects(folder), b"y")
    assert mine.exists()
    assert not other.exists()


def test_without_a_folder(monkeypatch, tmp_path):
    """A store in memory has its files in a folder for temporary ones, until it is closed."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    kept = Objects(None)
    assert list(tmp_path.iterdir()) == [], "nothing is made before it is needed"
    assert got(kept.restore(put(kept, b"x" * 1000))) == [b"x" * 1000]
    assert len(list(tmp_path.iterdir())) == 1
    kept.close()
    assert list(tmp_path.iterdir()) == []


def test_one_folder_for_all_threads(monkeypatch, tmp_path):
    """Steps that are the first to be large at one moment get one folder."""
    together = threading.Barrier(4)
    make = tempfile.TemporaryDirectory

    def slowly(**options):
        threading.Event().wait(0.05)
        return make(dir=tmp_path, **options)

    def write(content):
        together.wait(10)
        return put(kept, content)

    monkeypatch.setattr(tempfile, "TemporaryDirectory", slowly)
    kept = Objects(None)
    contents = [bytes([number]) * 1000 for number in range(4)]
    with ThreadPoolExecutor(4) as threads:
        pieces = list(threads.map(write, contents))
    assert len(list(tmp_path.iterdir())) == 1
    assert [got(kept.restore(one))[0] for one in pieces] == contents
    kept.close()


# --- the order on the disk ------------------------------------------------------------------


def test_synced_before_the_row(store, monkeypatch):
    """File synced, named, folder synced, and only then the transaction with the row."""
    seen = []

    def watch(module, name, what):
        call = getattr(module, name)

        def watched(*arguments, **keywords):
            seen.append(what(*arguments))
            return call(*arguments, **keywords)

        monkeypatch.setattr(module, name, watched)

    watch(os, "fsync", lambda fd: "folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
    watch(os, "rename", lambda *_: "named")
    monkeypatch.setattr(journal, "commit_hook", lambda moment, _: seen.append(moment))
    with workflow("w", store=store):
        seen.clear()
        step(array)()
        up_to_the_row = seen[: seen.index("before")]
    assert up_to_the_row == ["folder", "file", "named", "folder"]


def array():
    """Return a large array."""
    return ARRAY.copy()


def test_encoded_outside_the_journals_lock(store, monkeypatch):
    """While a large value is written, others commit."""
    free = []
    with workflow("w", store=store) as run:
        lock = run._state.store.journal.lock

        def try_to_commit(_):
            free.append(lock.acquire(timeout=5))
            lock.release()

        monkeypatch.setattr(objects, "write_hook", try_to_commit)
        go(array).result()
    assert free == [True]


# --- memory ---------------------------------------------------------------------------------


def peak(function):
    """Return the most memory, in bytes, that `function` took beyond what there was."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        kept = function()
        return tracemalloc.get_traced_memory()[1] - before, kept
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.ones(8 * MIB),
        lambda: {"a": np.ones(4 * MIB), "b": [np.full((4, MIB), 2.0, order="F")]},
        lambda: bytes(64 * MIB),
    ],
    ids=["array", "arrays", "bytes"],
)
def test_no_copy_of_what_is_large(folder, make):
    """Encoding and decoding 64 MiB takes next to no memory of its own."""
    value = make()
    most, _ = peak(lambda: settle_value(value, Objects(folder)))
    assert size_of(folder) >= 64 * MIB
    assert most < 2 * MIB


def test_one_copy_of_a_strided_array(folder):
    """A strided array is laid out once, when it is saved, and mapped afterwards."""
    value = np.ones((4, 4 * MIB))[:, ::2]
    most, payload = peak(lambda: encode(value, Objects(folder)))
    assert most < value.nbytes + MIB
    most, found = peak(lambda: decode(payload.data, payload.pieces, Objects(folder)))
    assert most < MIB
    np.testing.assert_array_equal(found, value)


def test_no_copy_of_a_column_of_strings(folder):
    """A pandas column of strings is not put together anew, as pandas would to pickle it."""
    frame = pd.DataFrame({"s": pd.Series(["a text of some length"] * 400_000, dtype="str")})
    arrow = pa.default_memory_pool()
    counted = pa.proxy_memory_pool(arrow)
    pa.set_memory_pool(counted)
    try:
        payload = encode(frame, Objects(folder))
    finally:
        pa.set_memory_pool(arrow)
    assert size_of(folder) > 8 * MIB
    assert (counted.max_memory() or 0) < MIB
    pd.testing.assert_frame_equal(decode(payload.data, payload.pieces, Objects(folder)), frame)


def test_no_copy_of_a_pickle_that_is_large(folder):
    """A pickle of many objects goes to its file while it is made."""
    value = [bytes([number]) * 50_000 for number in range(250)]
    most, payload = peak(lambda: encode(value, Objects(folder)))
    assert (payload.data, len(list(folder.iterdir()))) == (b"", 1)
    assert size_of(folder) > 11 * MIB
    assert most < MIB


@linux_only("the maps of this process")
def test_a_map_ends_with_its_last_view_and_holds_no_descriptor(folder):
    """A thousand large values need no thousand descriptors; what is let go of is unmapped."""
    kept = Objects(folder)
    pieces = put(kept, b"x" * 5000)
    opened = len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    def maps():
        return Path("/proc/self/maps").read_text().count(str(folder))

    held = [kept.restore(pieces) for _ in range(50)]
    assert len(os.listdir("/proc/self/fd")) == opened  # noqa: PTH208
    assert maps() == 50
    array = np.frombuffer(held[0][0], "u1")[10:20]
    del held
    assert maps() == 1
    assert bytes(array) == b"x" * 10
    del array
    assert maps() == 0


def test_read_where_there_is_no_map(folder, monkeypatch):
    """What can't be mapped (a limit, an odd disk) is read."""
    kept = Objects(folder)
    pieces = put(kept, os.urandom(2 * MIB), b"x")
    mapped = kept.restore(pieces)
    monkeypatch.setattr(objects, "_mmap", lambda *_: objects._FAILED)
    read = kept.restore(pieces)
    assert got(read) == got(mapped)
    assert isinstance(read[0].obj, bytearray)
    read[1][0:1] = b"y"


# --- damage ---------------------------------------------------------------------------------

DAMAGES = {
    "is missing": lambda path: path.unlink(),
    "is cut short": lambda path: os.truncate(path, path.stat().st_size - 1),
    "has another end": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?"),
    "has another content": lambda path: path.write_bytes(b"?" + path.read_bytes()[1:]),
}


@pytest.mark.parametrize("said", DAMAGES)
def test_damage_is_told(folder, said):
    """A file that is gone, short or changed has a reason; content is compared where asked."""
    kept = Objects(folder)
    pieces = put(kept, b"x" * 5000)
    assert kept.fault(pieces, proven=1) == ""
    [path] = folder.iterdir()
    DAMAGES[said](path)
    short = path.name[:12]
    assert kept.fault(pieces, proven=1) == f"object file {short} {said}"
    with pytest.raises(DecodeError, match=f"{short} {said}; run the cell again"):
        kept.restore(pieces, proven=1)
    if said == "has another content":
        assert kept.fault(pieces) == ""
        assert kept.restore(pieces)
    else:
        assert kept.fault(pieces) == kept.fault(pieces, proven=1)
        with pytest.raises(DecodeError):
            kept.restore(pieces)


def test_a_pickle_that_was_changed_is_not_unpickled(folder):
    """A pickle in a file is compared with what was signed, each time, before it runs code."""
    kept = Objects(folder)
    payload = encode([bytes([number]) * 5000 for number in range(250)], kept)
    assert payload.data == b""
    [path] = folder.iterdir()
    content = path.read_bytes()
    path.write_bytes(b"N.".ljust(len(content) - 32, b".") + content[-32:])
    with pytest.raises(DecodeError, match="has another content"):
        decode(payload.data, payload.pieces, kept)


def test_what_cant_be_read_is_not_called_gone(folder, monkeypatch):
    """A file that is there and can't be opened is a store's error, and its step is not run."""
    kept = Objects(folder)
    pieces = put(kept, b"x" * 5000)

    def refuse(path, *_):
        raise OSError(errno.EMFILE, "Too many open files", str(path))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StoreError, match="can't be read: Too many open files"):
        kept.restore(pieces)


@pytest.mark.parametrize(
    ("code", "kind"), [(errno.ENOSPC, StoreFullError), (errno.EIO, StoreError)]
)
def test_what_cant_be_written(folder, monkeypatch, code, kind):
    """A full disk and a broken one are told apart; nothing half is left."""
    kept = Objects(folder)

    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "pwrite", refuse)
    with pytest.raises(kind, match=os.strerror(code)) as caught:
        put(kept, b"x")
    assert type(caught.value) is kind
    assert list(folder.iterdir()) == []


def test_a_folder_that_cant_be_made(tmp_path):
    """A folder that can't be made is an error with a cure."""
    (tmp_path / "taken").write_text("")
    with pytest.raises(StoreError, match=r"could not be made: .*configure\(store"):
        Objects(tmp_path / "taken" / "x").writer()


@contextlib.contextmanager
def no_file_larger_than(size):
    """Let the system refuse larger files, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("way", ["in place", "thread", "async"])
def test_a_disk_that_is_full(store, way):
    """The cell gets the store's error, nothing is recorded, and the next pass goes on."""
    ran = []

    def large():
        ran.append("sync")
        return np.ones(2 * MIB)

    async def large_async():
        ran.append("async")
        return np.ones(2 * MIB)

    def program():
        small = go(len, "abc").result()
        if way == "in place":
            return small, step(large)()
        return small, go(large if way == "thread" else large_async).result()

    with pytest.raises(StoreFullError, match="the disk is full"):  # noqa: SIM117
        with no_file_larger_than(4 * MIB), workflow("w", store=store):
            program()
    assert list(Path(f"{store}.objects").iterdir()) == []
    with workflow("w", store=store):
        small, value = program()
    assert (small, value.sum()) == (3, 2 * MIB)
    assert len(ran) == 2
