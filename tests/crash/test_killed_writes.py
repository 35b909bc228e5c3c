"""A kill while a large value is written: nothing of it counts, and nothing is in its way."""

import numpy as np
import pytest

from nbdurable import go, step
from nbdurable.engine import runner

SIZE = 5 << 20  # bytes


def two_arrays(probe):
    """Return two arrays, each with a file of its own."""

    def fill(number):
        probe.effect(f"fill({number})")
        return np.full(SIZE // 8, float(number))

    return [float(go(fill, number).result().sum()) for number in (1, 2)]


def two_arrays_alone(probe):
    """As `two_arrays`; only outcomes are committed, however slow the machine is.

    A wait for another thread's step may have its start committed on its own.
    """
    runner.STARTS_SECONDS = 3_600.0  # in this process, which is the program's own

    @step
    def fill(number):
        probe.effect(f"fill({number})")
        return np.full(SIZE // 8, float(number))

    return [float(fill(number).sum()) for number in (1, 2)]


def files(bench):
    """Return the names of the object files, drafts apart."""
    names = sorted(path.name for path in (bench.folder / "store.duckdb.objects").iterdir())
    drafts = [name for name in names if name.endswith(".draft")]
    return [name for name in names if name not in drafts], drafts


@pytest.mark.parametrize("written", [1, 3 << 20, SIZE])
def test_killed_in_mid_write(bench, written):
    """What was cut off is never taken for the value; its step runs again, and leaves no more."""
    assert bench.run(two_arrays, kill=("writing", written)).killed
    finished, [draft] = files(bench)
    assert finished == []
    assert (bench.folder / "store.duckdb.objects" / draft).stat().st_size >= written
    again = bench.run(two_arrays)
    assert again.value == [SIZE / 8, SIZE / 4], again.traceback
    assert bench.effects() == {"fill(1)": 2, "fill(2)": 1}
    finished, drafts = files(bench)
    assert (len(finished), drafts) == (2, [])
    assert bench.check()[0] == []


def test_killed_between_the_file_and_its_row(bench):
    """A file that no row names is harmless; its step runs again, and gives it the same name."""
    assert bench.run(two_arrays_alone, kill=("before", 2)).killed
    orphans, _ = files(bench)
    assert len(orphans) == 1
    assert bench.check() == ([], [])
    assert bench.run(two_arrays_alone).value == [SIZE / 8, SIZE / 4]
    assert bench.effects() == {"fill(1)": 2, "fill(2)": 1}
    finished, _ = files(bench)
    assert set(orphans) < set(finished)
    assert len(finished) == 2
    assert bench.check()[0] == []
