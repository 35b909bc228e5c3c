"""Buffers that say where others lie: a changed one would end the kernel, so each is compared.

Threat: a project folder that somebody else has packed, and whose files are this user's own
once they are unpacked. Offsets of texts and lists, positions in a dictionary, which values are
there: libraries follow them without a look. What is data alone is mapped, and not read.
"""

import contextlib
import dataclasses
import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse

from nbdurable import DecodeError, go, workflow
from nbdurable.api import open_stores
from nbdurable.codec import values
from nbdurable.events import AttemptStarted
from nbdurable.store import Store, objects

ROWS = 70_000
BITS = 3_000_000
"""So many values have a bitmap that lies in a file."""


def words():
    """Return texts of more than a few letters."""
    return [f"text {number}" for number in range(ROWS)]


def ones(count):
    """Return so many numbers, every other of which is not there."""
    return np.arange(count) % 2 == 1


@dataclasses.dataclass
class Held:
    """A class of a project's own."""

    places: object


LEADING = {
    "texts": (lambda: pa.array(words(), pa.large_string()), 1, 1),
    "short texts": (lambda: pa.array(words()), 1, 1),
    "bytes": (lambda: pa.array([one.encode() for one in words()]), 1, 1),
    "views of texts": (lambda: pa.array([one * 2 for one in words()], pa.string_view()), 1, 0),
    "lists": (lambda: pa.array([[1.5]] * ROWS), 1, 1),
    "lists of texts": (lambda: pa.array([[one] for one in words()]), 2, 1),
    "a struct of texts": (lambda: pa.array([{"a": one} for one in words()]), 1, 1),
    "a map": (lambda: pa.array([[(one, 1)] for one in words()], pa.map_(pa.string(), "i8")), 4, 0),
    "a dictionary's positions": (lambda: pa.array(words()).dictionary_encode(), 3, 0),
    "which values are there": (lambda: pa.array(np.arange(BITS), "i8", mask=ones(BITS)), 1, 1),
    "a table": (lambda: pa.table({"a": words(), "b": np.arange(ROWS)}), 1, 2),
    "a chunked column": (lambda: pa.chunked_array([pa.array(words())] * 2), 2, 2),
    "a frame's texts": (lambda: pd.DataFrame({"a": words(), "b": np.arange(ROWS) / 3}), 1, 2),
    "categories of a frame": (
        lambda: pd.DataFrame({"a": pd.Categorical.from_codes(np.arange(ROWS) % 300, range(300))}),
        0,
        0,
    ),
    "many categories": (lambda: pd.Categorical(np.arange(ROWS)), 2, 0),
    "an index of many levels": (
        lambda: pd.Series(1.0, pd.MultiIndex.from_arrays([range(ROWS), range(ROWS)])).to_frame(),
        2,
        1,
    ),
    "a sparse matrix": (
        lambda: scipy.sparse.csr_matrix((np.ones(ROWS), (range(ROWS), range(ROWS)))),
        2,
        1,
    ),
    "positions in an object of a project's own": (lambda: Held(np.arange(ROWS)), 1, 0),
}  # fmt: skip
"""A value, how many of its files' buffers lead, and how many are data."""

DATA = {
    "floats": lambda: np.arange(ROWS) / 3,
    "whole numbers": lambda: np.arange(ROWS),
    "a list of arrays": lambda: [np.arange(ROWS), np.arange(ROWS) / 3],
    "a frame of numbers": lambda: pd.DataFrame({"a": np.arange(ROWS), "b": np.arange(ROWS) / 3}),
    "Arrow's numbers": lambda: pa.array(np.arange(ROWS)),
    "lists of one length": lambda: pa.FixedSizeListArray.from_arrays(np.arange(ROWS) / 3, 4),
}
"""Values that are mapped, and not read."""


def kept(folder, make):
    """Return a value as it is saved, where its files are, and its buffers in them."""
    files = objects.Objects(folder)
    payload = values.encode(make(), files)
    return payload, files, objects._unpack(payload.pieces)


def changed(files, piece):
    """Let one number of a buffer lead far away; return what puts it back."""
    file = files.path(piece.file)
    before = file.read_bytes()
    at = piece.offset + piece.length // 16 * 8
    file.write_bytes(before[:at] + b"\x77" * 8 + before[at + 8 :])
    return lambda: file.write_bytes(before)


def test_the_attack_itself(tmp_path):
    """A wrong offset, followed, ends the process."""
    program = tmp_path / "program.py"
    program.write_text(
        "import pickle, numpy as np, pyarrow as pa\n"
        "texts, parts = pa.array([str(at) for at in range(9)], pa.large_string()), []\n"
        "data = pickle.dumps(texts, 5, buffer_callback=lambda one: parts.append(one.raw()))\n"
        "offsets = np.frombuffer(parts[0], 'i8').copy()\n"
        "offsets[4:] = (1 << 45) + 8 * np.arange(len(offsets) - 4)\n"
        "pickle.loads(data, buffers=[offsets, *parts[1:]])[5].as_py()\n"
    )
    done = subprocess.run([sys.executable, str(program)], capture_output=True, check=False)
    assert done.returncode < 0


@pytest.mark.parametrize("named", LEADING)
def test_what_leads_elsewhere_is_compared(tmp_path, named):
    """Whichever of them is changed, the value counts as lost before anything follows it."""
    make, leading, data = LEADING[named]
    payload, files, pieces = kept(tmp_path, make)
    found = [one for one in pieces if one.leads]
    assert len(found) >= leading
    assert len(pieces) - len(found) >= data
    proven = values.pickles_in(payload.data)
    assert files.fault(payload.pieces, proven=proven) == ""
    values.decode(payload.data, payload.pieces, files)
    for piece in found:
        put_back = changed(files, piece)
        assert "has another content" in files.fault(payload.pieces, proven=proven)
        with pytest.raises(DecodeError, match="has another content"):
            values.decode(payload.data, payload.pieces, files)
        put_back()


@pytest.mark.parametrize("named", DATA)
def test_what_is_data_is_mapped(tmp_path, named):
    """It is not read: a gibibyte is back at once."""
    payload, files, pieces = kept(tmp_path, DATA[named])
    assert pieces
    assert [one for one in pieces if one.leads] == []
    changed(files, pieces[0])
    assert files.fault(payload.pieces, proven=values.pickles_in(payload.data)) == ""
    values.decode(payload.data, payload.pieces, files)


def test_a_frame_of_polars_is_one_pickle(tmp_path):
    """Which is read once, and compared, as a whole."""
    payload, files, pieces = kept(
        tmp_path, lambda: pl.DataFrame({"a": [f"{n * 7919:x}" for n in range(3 * ROWS)]})
    )
    assert (len(pieces), payload.data) == (1, b"")
    changed(files, pieces[0])
    assert "has another content" in files.fault(payload.pieces, proven=1)


def test_the_step_runs_again(tmp_path, monkeypatch):
    """As over any value whose file is lost; the cell says so."""
    monkeypatch.chdir(tmp_path)
    store = tmp_path / "s.duckdb"

    def run():
        events = []
        with workflow("w", store=store, observers=[events.append]) as running:
            value = go(lambda: pa.array(words(), pa.large_string())).result()
        open_stores.close_stores()
        return value, [one for one in events if isinstance(one, AttemptStarted)], running.notes

    assert run()[1]
    assert not run()[1]
    with contextlib.closing(Store.open(store)) as opened:
        ((pieces,),) = opened.rows("SELECT pieces FROM nbdurable.checkpoints")
        changed(opened.objects, next(one for one in objects._unpack(pieces) if one.leads))
    value, ran, notes = run()
    assert ran
    assert value.to_pylist() == words()
    assert any("has another content" in note for note in notes)
