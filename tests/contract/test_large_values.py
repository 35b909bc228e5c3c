"""Large values (CONTRACT section 8): back as they were, writable, from files that never change."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression

from nbdurable import UsageError, configure, gather, go, race, select, step, workflow
from nbdurable.api import configuration, open_stores
from nbdurable.codec.values import LARGE
from nbdurable.events import AttemptStarted, StepCreated
from nbdurable.inspection import queries as questions
from nbdurable.store import Store, check

MANY = LARGE // 4


@pytest.fixture
def store(tmp_path):
    """Yield the path of a store; leave none open."""
    yield tmp_path / "store.duckdb"
    open_stores.close_stores()


@dataclass
class Measured:
    """A dataclass of large parts."""

    name: str
    array: np.ndarray
    frame: pd.DataFrame


class Ran:
    """One execution of a program in a store: its value, its notes, the bodies that ran."""

    def __init__(self, store, program):
        self._events = []
        run = workflow("w", store=store, observers=[self._events.append])
        try:
            with run:
                self.value = program()
        finally:
            self.notes = run.notes
            open_stores.close_stores()

    @property
    def bodies(self):
        """Return the labels of the bodies that ran."""
        labels = {one.step: one.label for one in self._events if isinstance(one, StepCreated)}
        return [labels[one.step] for one in self._events if isinstance(one, AttemptStarted)]


def files(store):
    """Return the object files of a store."""
    folder = Path(f"{store}.objects")
    return sorted(folder.iterdir()) if folder.exists() else []


def problems(store):
    """Return what `check` finds."""
    with contextlib.closing(Store.open(store)) as opened:
        return check(opened)


# --- every kind of value --------------------------------------------------------------------


def numbers(*shape):
    """Return numbers that compress badly."""
    return np.random.default_rng(0).standard_normal(shape or MANY)


def texts():
    """Return texts, one of them missing."""
    return [None, *(f"text {number} größe" for number in range(MANY))]


def strided():
    """Return an array that is every second number of another."""
    return numbers(4, MANY)[:, ::2]


def read_only():
    """Return an array that can't be written."""
    array = numbers()
    array.flags.writeable = False
    return array


def structured():
    """Return an array of records."""
    return np.zeros(MANY, dtype=[("a", "i4"), ("b", "f8", 2), ("c", "U3")])


def object_array():
    """Return an array of objects."""
    return np.array([*texts(), {"a": 1}, (2,)], dtype=object)


def arrow():
    """Return an Arrow table, a slice of another."""
    columns = {
        "t": texts(),
        "n": pa.array(range(MANY + 1)),
        "d": pa.array(texts()).dictionary_encode(),
    }
    return pa.table(columns).slice(7)


def polars_frame():
    """Return a polars frame."""
    return pl.DataFrame({"t": texts(), "n": range(MANY + 1), "l": [[1, 2]] * (MANY + 1)})


def pandas_frame():
    """Return a pandas frame of the plain kinds."""
    times = pd.date_range("2026-01-01", periods=MANY + 1, freq="s", tz="Europe/Vienna")
    columns = {"n": numbers(MANY + 1), "i": range(MANY + 1), "s": pd.Series(texts(), dtype="str")}
    return pd.DataFrame(
        {
            **columns,
            "t": times,
            "c": pd.Categorical(["a", "b", "a"] * ((MANY + 3) // 3))[: MANY + 1],
        }
    )


def pandas_of(dtype):
    """Return what makes a pandas series of texts."""
    return lambda: pd.Series(texts(), dtype=dtype, name="texts")


def indexed():
    """Return a frame with an index of two levels and one of names."""
    index = pd.MultiIndex.from_product([range(MANY // 2), ["x", "y"]], names=["a", None])
    return pd.DataFrame({("p", 1): numbers(), ("q", 2): numbers()}, index=index)


def forest():
    """Return a forest that was fitted."""
    return RandomForestRegressor(20, random_state=0).fit(numbers(2000, 3), numbers(2000))


def linear():
    """Return a linear model with many coefficients."""
    return LinearRegression().fit(numbers(3, MANY), numbers(3))


VALUES = {
    "array": numbers,
    "array of dimensions": lambda: numbers(3, 5, MANY // 8),
    "Fortran order": lambda: np.asfortranarray(numbers(300, 300)),
    "strided": strided,
    "reversed": lambda: numbers()[::-1],
    "read-only": read_only,
    "structured": structured,
    "booleans": lambda: numbers(8 * MANY) > 0,
    "times": lambda: np.arange(MANY).astype("M8[ns]"),
    "big endian": lambda: np.arange(MANY, dtype=">i8"),
    "object array": object_array,
    "masked": lambda: np.ma.masked_less(numbers(), 0),
    "memoryview": lambda: memoryview(numbers()),
    "memoryview of dimensions": lambda: memoryview(numbers(4, MANY)),
    "memoryview, strided": lambda: memoryview(numbers())[::2],
    "bytes": lambda: bytes(range(256)) * (LARGE // 128),
    "bytearray": lambda: bytearray(range(256)) * (LARGE // 128),
    "str": lambda: "größe" * LARGE,
    "int": lambda: 1 << 9 * LARGE,
    "objects": lambda: [{"number": number, "text": str(number)} for number in range(MANY)],
    "pandas": pandas_frame,
    "pandas, indexed": indexed,
    "pandas object": pandas_of("object"),
    "pandas str": pandas_of("str"),
    "pandas Arrow": pandas_of(pd.ArrowDtype(pa.string())),
    "polars": polars_frame,
    "polars series": lambda: pl.Series("s", texts()),
    "Arrow": arrow,
    "scikit-learn forest": forest,
    "scikit-learn linear": linear,
    "dict": lambda: {"a": numbers(), "b": [pandas_frame()], "c": 1},
    "dataclass": lambda: Measured("m", numbers(), pandas_frame()),
}
SMALL = {
    "empty": lambda: np.empty((0, 5)),
    "no dimensions": lambda: np.array(1.5),
    "small": lambda: np.arange(10),
    "small strided": lambda: np.arange(10)[::3],
    "empty frame": pd.DataFrame,
    "small memoryview": lambda: memoryview(b"abc"),
    "empty memoryview": lambda: memoryview(b""),
}


def assert_same(found, value):
    """Compare by type and content."""
    assert type(found) is type(value)
    if isinstance(value, pd.DataFrame):
        pd.testing.assert_frame_equal(found, value)
    elif isinstance(value, pd.Series):
        pd.testing.assert_series_equal(found, value)
    elif isinstance(value, np.ndarray):
        np.testing.assert_array_equal(found, value)
        assert (found.dtype, found.shape) == (value.dtype, value.shape)
        assert found.flags.f_contiguous == value.flags.f_contiguous or not value.flags.forc
        assert found.flags.writeable == value.flags.writeable
    elif isinstance(value, pl.DataFrame | pl.Series | pa.Table):
        assert found.equals(value)
    elif isinstance(value, memoryview):
        assert (found.format, found.shape, found.tobytes()) == (
            value.format,
            value.shape,
            value.tobytes(),
        )
    elif isinstance(value, RandomForestRegressor | LinearRegression):
        asked = np.ones((2, value.n_features_in_))
        np.testing.assert_array_equal(found.predict(asked), value.predict(asked))
    elif isinstance(value, dict):
        assert list(found) == list(value)
        for name in value:
            assert_same(found[name], value[name])
    elif isinstance(value, Measured):
        assert_same(vars(found), vars(value))
    elif isinstance(value, list) and isinstance(value[0], pd.DataFrame):
        assert_same(found[0], value[0])
    else:
        same = found == value
        assert same, "not shown, for it is large"


@pytest.mark.parametrize("name", [*VALUES, *SMALL])
def test_comes_back_as_it_was(store, name):
    """On the first run and on replay a value is what the body returned."""
    make = {**VALUES, **SMALL}[name]

    def program():
        return step(make, name="make")()

    first, again = Ran(store, program), Ran(store, program)
    assert_same(first.value, make())
    assert_same(again.value, make())
    assert (first.bodies, again.bodies) == (["make()"], [])
    assert bool(files(store)) == (name in VALUES)
    assert problems(store) == []


@pytest.mark.parametrize("name", ["array", "Fortran order", "strided", "structured", "bytearray"])
def test_what_the_cell_writes_into_a_value_stays_with_the_cell(store, name):
    """A restored array is the cell's own: writing into it changes no file and no other decode."""
    make = VALUES[name]

    def program():
        handle = go(make)
        mine = handle.result()
        mine[:] = mine[::-1]
        return go(np.array, handle).result(), np.array(mine)

    for _ in range(2):
        received, mine = Ran(store, program).value
        np.testing.assert_array_equal(received, np.array(make()))
        np.testing.assert_array_equal(mine, np.array(make())[::-1])
        assert problems(store) == []


def test_each_step_gets_memory_of_its_own(store):
    """What one step writes into what it received, no other step sees."""

    def spoil(array):
        array[:] = 0
        return float(array.sum())

    def total(array):
        return float(array.sum())

    def program():
        made = go(np.ones, MANY)
        spoilt = go(spoil, made).result()
        return spoilt, go(total, made).result(), float(made.result().sum())

    assert Ran(store, program).value == (0.0, MANY, MANY)


def test_equal_values_are_stored_once(store):
    """A buffer that is there is not stored again, whichever step of whichever pass returns it."""

    def again(number):
        return {"same": np.full(MANY, -1.0), "own": np.full(MANY, float(number))}

    for count in (3, 6):
        Ran(store, lambda: [go(again, number).result() for number in range(count)])  # noqa: B023
        size = sum(path.stat().st_size for path in files(store))
        assert size == (1 + count) * MANY * 8 + 32 * count


def test_equal_values_of_concurrent_steps_are_stored_once(store):
    """What is the whole of several values has one file, whoever is first."""

    def again(number):
        return {"number": number, "same": np.full(MANY, -1.0)}

    Ran(store, lambda: gather(go(again, number) for number in range(8)).result())
    [path] = files(store)
    assert path.stat().st_size == MANY * 8 + 32


def test_the_views_know_the_size(store):
    """`steps` gives the bytes of a value, those beside the database included."""
    Ran(store, lambda: go(np.ones, MANY).result())
    [row] = questions.query("SELECT bytes FROM steps", store).to_dict("records")
    assert MANY * 8 < row["bytes"] < MANY * 8 + 1000


def test_a_part_of_something_larger_is_saved_alone(store):
    """What a small frame was cut from is not saved with it."""

    def part():
        return pd.DataFrame({"s": pd.Series(texts() * 4, dtype="str")}).iloc[2 * MANY : 3 * MANY]

    ran = Ran(store, step(part))
    whole = sum(map(len, texts()[1:])) + 8 * MANY
    assert whole / 2 < sum(path.stat().st_size for path in files(store)) < 1.2 * whole
    assert_same(Ran(store, step(part)).value, ran.value)


def test_in_memory(tmp_path, monkeypatch):
    """A store in memory takes large values, too."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for _ in range(2):
        ran = Ran(":memory:", lambda: go(numbers).result())
        assert_same(ran.value, numbers())
    assert list(tmp_path.iterdir()) == []


# --- what is lost runs again ----------------------------------------------------------------


def missing(path):
    """Lose a file."""
    path.unlink()


def short(path):
    """Lose the end of a file."""
    os.truncate(path, path.stat().st_size // 2)


def changed(path):
    """Change a file, and leave its length."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def load(number):
    """Return an array."""
    return np.full(MANY, float(number))


def exchanged(path):
    """Put another value's file in the place of one."""
    path.write_bytes(next(other for other in path.parent.iterdir() if other != path).read_bytes())


@pytest.mark.parametrize(
    ("damage", "said"),
    [(missing, "is missing"), (short, "is cut short"), (exchanged, "has another end")],
)
def test_what_is_lost_runs_again(store, damage, said):
    """A step whose file is gone or short runs again, says so first, and is whole afterwards."""

    def program():
        return [float(go(load, number).result().sum()) for number in (1, 2, 3)]

    expected = Ran(store, program).value
    lost = files(store)[1]
    whole = lost.read_bytes()
    damage(lost)
    assert any("can't be restored" in one and said in one for one in problems(store))
    again = Ran(store, program)
    assert again.value == expected
    assert len(again.bodies) == 1
    name = lost.name[:12]
    assert (
        f"1 saved outcome of load can't be restored, the first for object file {name} {said}: "
        "what is asked for of them runs again"
    ) in again.notes
    [row] = questions.query("SELECT why FROM steps WHERE why <> 'new'", store).to_dict("records")
    assert row["why"] == f"value lost: object file {name} {said}"
    assert lost.read_bytes() == whole
    assert problems(store) == []
    assert Ran(store, program).bodies == []


def test_how_many_are_lost_is_said_before_the_first_runs(store):
    """The cell says once, for all outcomes of a step, how many can't be restored."""

    def program():
        return [len(go(load, number).result()) for number in (1, 2, 3)]

    Ran(store, program)
    for path in files(store):
        path.unlink()
    again = Ran(store, program)
    assert len(again.bodies) == 3
    [said] = [one for one in again.notes if "can't be restored" in one]
    assert said.startswith("3 saved outcomes of load can't be restored, the first for")


def test_lost_behind_a_handle(store):
    """What is found late, through what it received, runs again as well."""

    def double(array):
        return array * 2

    def program():
        return float(go(double, go(load, 2)).result().sum())

    assert Ran(store, program).value == 4 * MANY
    before = {path.name for path in files(store)}
    step_of = {}
    for path in files(store):
        step_of[np.frombuffer(path.read_bytes())[0]] = path
    for lost, bodies in (
        ([4.0], ["double(load)"]),
        ([2.0, 4.0], ["load(2)", "double(load)"]),
    ):
        for number in lost:
            step_of[number].unlink()
        again = Ran(store, program)
        assert (again.value, again.bodies) == (4 * MANY, bodies)
        assert {path.name for path in files(store)} == before
        assert Ran(store, program).bodies == []


@pytest.mark.parametrize("combine", [select, race])
def test_a_decision_that_a_lost_value_won_is_made_again(store, combine):
    """A winner's lost value opens its decision, and what a race cancelled runs again."""

    def program():
        first = go(load, 1)
        first.result()
        chosen = combine(first, go(load, 2))
        return float(chosen.result()[0])

    assert Ran(store, program).value == 1.0
    for path in files(store):
        path.unlink()
    assert Ran(store, program).value == 1.0
    assert problems(store) == []
    assert Ran(store, program).bodies == []


def test_a_file_that_goes_in_mid_run(store):
    """What is gone between the replay and the first look is an error that names the cure."""
    Ran(store, lambda: go(load, 1).result())

    def program():
        handle = go(load, 1)
        files(store)[0].unlink()
        return handle.result()

    with pytest.raises(Exception, match="is missing; run the cell again") as caught:
        Ran(store, program)
    assert type(caught.value).__name__ == "DecodeError"
    assert Ran(store, lambda: go(load, 1).result()).bodies == ["load(1)"]


def test_content_is_compared_where_that_is_asked_for(store, monkeypatch):
    """With `configure(verify=True)` a changed array runs again; `check` finds it in any case."""
    monkeypatch.setattr(configuration._state, "settings", configuration._state.settings)
    expected = Ran(store, lambda: go(load, 1).result()).value.copy()  # a map shows the file
    changed(files(store)[0])
    assert any("has another content" in one for one in problems(store))
    unread = Ran(store, lambda: go(load, 1).result())
    assert unread.bodies == []
    assert not np.array_equal(unread.value, expected)
    configure(verify=True)
    again = Ran(store, lambda: go(load, 1).result())
    assert again.bodies == ["load(1)"]
    np.testing.assert_array_equal(again.value, expected)
    assert problems(store) == []
    assert Ran(store, lambda: go(load, 1).result()).bodies == []
    with pytest.raises(UsageError, match=r"configure\(verify='yes'\): give True or False"):
        configure(verify="yes")
    configure(verify=None)


def test_a_pickle_in_a_file_is_always_compared(store):
    """A pickle runs code: one that was changed in its file is not unpickled, and runs again."""
    make = VALUES["objects"]
    Ran(store, step(make, name="make"))
    [path] = files(store)
    bomb = b"cbuiltins\nexec\n(S'raise SystemExit(\"unpickled\")'\ntR."
    path.write_bytes(bomb.ljust(path.stat().st_size, b"."))
    again = Ran(store, step(make, name="make"))
    assert again.bodies == ["make()"]
    assert_same(again.value, make())
