"""A table of values: each line is unlike every other line, and all values in a line are equal.

Run as a program it prints the digests, so that two processes can be compared.
"""

from __future__ import annotations

import array
import collections
import copy
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import functools
import json
import pathlib
import random
import re
import sys
import types
import uuid
import zoneinfo
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pydantic
from sklearn.linear_model import Ridge

from nbdurable.fingerprint import Fingerprinter


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: int
    y: int = 0


@dataclasses.dataclass(slots=True)
class Slotted:
    x: int
    tags: set[str] = dataclasses.field(default_factory=set)


class Pair(NamedTuple):
    x: int
    y: int


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Level(enum.IntEnum):
    LOW = 1


class Flags(enum.Flag):
    A = 1
    B = 2


class Model(pydantic.BaseModel):
    name: str
    size: int = 3


class Plain:
    def __init__(self, **state: Any) -> None:
        self.__dict__.update(state)


class Slots:
    __slots__ = ("a", "b")

    def __init__(self, a: Any) -> None:
        self.a = a


class MyList(list):  # type: ignore[type-arg]
    pass


class MyInt(int):
    pass


class MyDict(dict):  # type: ignore[type-arg]
    pass


class Stated:
    def __init__(self, a: int) -> None:
        self.a = a
        self.noise = object()

    def __getstate__(self) -> dict[str, int]:
        return {"a": self.a}


def double(x: int) -> int:
    return x * 2


def triple(x: int) -> int:
    return x * 3


def adder(n: int) -> Any:
    return lambda x: x + n


def _cyclic() -> list[Any]:
    a: list[Any] = [1]
    a.append(a)
    return a


def _tree(label: str) -> Plain:
    root = Plain(label=label)
    root.children = [Plain(parent=root, n=n) for n in range(3)]  # type: ignore[attr-defined]
    return root


def _arrow(*parts: list[Any], kind: Any = None) -> Any:
    return pa.chunked_array([pa.array(p, type=kind) for p in parts], type=kind)


def _seeded(n: int) -> Any:
    return np.random.default_rng(n)


V = ["v" * 3, "w"]
A = np.arange(9, dtype="i8").reshape(3, 3)
LONG = list(range(5000))
WORDS = [f"word {n}" for n in range(100)]
UTC = dt.UTC
STRUCT = np.array([(1, 2.0), (3, 4.0)], dtype=[("a", "i1"), ("b", "f8")])
ALIGNED = np.zeros(2, dtype=np.dtype([("a", "i1"), ("b", "f8")], align=True))
STRINGS = pd.Series(["a", "bb", None, "dddd", "e"])
FRAME = pd.DataFrame({"a": [1, 2, 3], "b": ["x", "y", None], "c": [1.5, np.nan, 2.5]})
CAT = pd.Series(["a", "b", "a"], dtype="category")
NOON = dt.datetime(2026, 1, 2, 12, 30, 1, 5)  # noqa: DTZ001
WIDE = pa.array(["a", "bb", None, "dddd", "e", "ff"])

TABLE: dict[str, list[Any]] = {
    "none": [None],
    "true": [True],
    "false": [False],
    "1": [1],
    "1.0": [1.0],
    "'1'": ["1"],
    "b'1'": [b"1"],
    "bytearray 1": [bytearray(b"1")],
    "1+0j": [1 + 0j],
    "-1": [-1],
    "0": [0],
    "0.0": [0.0],
    "-0.0": [-0.0],
    "big": [2**70, 2**70],
    "huge": [10**5000],
    "nan": [float("nan"), -float("nan")],
    "inf": [float("inf")],
    "np 1 i8": [np.int64(1)],
    "np 1 i4": [np.int32(1)],
    "np 1 f8": [np.float64(1)],
    "np true": [np.bool_(True)],
    "np str": [np.str_("1")],
    "np longdouble": [np.longdouble(1) / 3, np.longdouble(1) / 3],
    "empty str": [""],
    "surrogate": ["\ud800"],
    "umlaut": ["ü"],
    "umlaut bytes": ["ü".encode()],
    "ellipsis": [...],
    "notimplemented": [NotImplemented],
    "[]": [[]],
    "()": [()],
    "{}": [{}],
    "set()": [set()],
    "frozenset()": [frozenset()],
    "[1]": [[1]],
    "(1,)": [(1,)],
    "{1}": [{1}],
    "frozenset({1})": [frozenset({1})],
    "[1, 2]": [[1, 2]],
    "[[1], 2]": [[[1], 2]],
    "[[1, 2]]": [[[1, 2]]],
    "[1, [2]]": [[1, [2]]],
    "'a-b','c'": [["a-b", "c"]],
    "'a','b-c'": [["a", "b-c"]],
    "'ab',''": [["ab", ""]],
    "'','ab'": [["", "ab"]],
    "[v, v]": [[V, V], [V, ["vvv", "w"]], [copy.deepcopy(V), V]],
    "dict": [{"a": 1, "b": 2}, copy.copy({"a": 1, "b": 2})],
    "dict reordered": [{"b": 2, "a": 1}],
    "dict swapped": [{"a": 2, "b": 1}],
    "dict int": [{1: "a", 2: "b"}],
    "dict int reordered": [{2: "b", 1: "a"}],
    "dict as list": [[("a", 1), ("b", 2)]],
    "dict mixed": [{1: "a", "b": 2, (3,): None}],
    "dict mixed reordered": [{(3,): None, "b": 2, 1: "a"}],
    "ordered ab": [collections.OrderedDict(a=1, b=2)],
    "ordered ba": [collections.OrderedDict(b=2, a=1)],
    "defaultdict": [collections.defaultdict(int, a=1)],
    "defaultdict list": [collections.defaultdict(list, a=1)],
    "counter": [collections.Counter("abca")],
    "counter reordered": [collections.Counter("caba")],
    "chainmap": [collections.ChainMap({"a": 1}, {"b": 2})],
    "proxy": [types.MappingProxyType({"a": 1, "b": 2})],
    "proxy reordered": [types.MappingProxyType({"b": 2, "a": 1})],
    "deque": [collections.deque([1, 2])],
    "deque 3": [collections.deque([1, 2], maxlen=3)],
    "set of str": [set("abcdefgh"), set("hgfedcba")],
    "frozenset of str": [frozenset("abcdefgh")],
    "set mixed": [{1, "a", (2, "b"), frozenset("xyz")}, {frozenset("zyx"), (2, "b"), "a", 1}],
    "nested set": [{"k": {frozenset("ab"), frozenset("cd")}}],
    "long": [LONG, list(LONG)],
    "long+1": [[*LONG[:-1], 0]],
    "long mixed": [["x", *LONG], ["x", *LONG]],
    "long float": [[float(x) for x in LONG]],
    "long tuple": [tuple(LONG)],
    "words": [WORDS, [*WORDS]],
    "word dict": [dict.fromkeys(WORDS, 1)],
    "word dict reversed": [dict.fromkeys(reversed(WORDS), 1)],
    "trues": [[True] * 20],
    "ones": [[1] * 20],
    "cyclic": [_cyclic(), _cyclic()],
    "tree": [_tree("a"), _tree("a"), copy.deepcopy(_tree("a"))],
    "tree b": [_tree("b")],
    "range": [range(3), range(3)],
    "slice": [slice(3)],
    "decimal": [decimal.Decimal("1.10")],
    "decimal 2": [decimal.Decimal("1.1")],
    "fraction": [fractions.Fraction(1, 3), fractions.Fraction(2, 6)],
    "uuid": [uuid.UUID(int=5)],
    "path": [pathlib.Path("a/b"), pathlib.Path("a") / "b"],
    "pure path": [pathlib.PurePosixPath("a/b")],
    "path str": ["a/b"],
    "datetime": [NOON],
    "datetime utc": [NOON.replace(tzinfo=UTC)],
    "datetime paris": [NOON.replace(tzinfo=zoneinfo.ZoneInfo("Europe/Paris"))],
    "datetime fold": [NOON.replace(fold=1)],
    "date": [NOON.date()],
    "time": [NOON.time()],
    "timedelta": [dt.timedelta(hours=1), dt.timedelta(seconds=3600)],
    "enum": [Color.RED],
    "enum blue": [Color.BLUE],
    "int enum": [Level.LOW],
    "flag": [Flags.A | Flags.B, Flags.B | Flags.A],
    "flag a": [Flags.A],
    "pattern": [re.compile("a+")],
    "pattern i": [re.compile("a+", re.IGNORECASE)],
    "pair": [Pair(1, 2)],
    "pair as tuple": [(1, 2)],
    "point": [Point(1, 2), Point(y=2, x=1)],
    "frozen": [Frozen(1, 2)],
    "slotted": [Slotted(1, set("abc")), Slotted(1, set("cba"))],
    "pydantic": [Model(name="a"), Model(name="a", size=3)],
    "pydantic 4": [Model(name="a", size=4)],
    "plain": [Plain(a=1, b=2), Plain(b=2, a=1)],
    "plain 2": [Plain(a=1, b=3)],
    "slots": [Slots(1), Slots(1)],
    "slots 2": [Slots(2)],
    "my list": [MyList([1, 2])],
    "my int": [MyInt(1)],
    "my dict": [MyDict(a=1, b=2)],
    "my dict reordered": [MyDict(b=2, a=1)],
    "stated": [Stated(1), Stated(1)],
    "stated 2": [Stated(2)],
    "exception": [ValueError("a"), ValueError("a")],
    "exception b": [ValueError("b")],
    "type error": [TypeError("a")],
    "function": [double],
    "function 3": [triple],
    "closure 1": [adder(1), adder(1)],
    "closure 2": [adder(2)],
    "class": [Plain],
    "builtin": [len],
    "builtin class": [int],
    "partial": [functools.partial(double, 1), functools.partial(double, 1)],
    "partial 2": [functools.partial(double, 2)],
    "method": [Color.RED.__class__.__repr__],
    "module": [json],
    "random": [random.Random(1), random.Random(1)],
    "random 2": [random.Random(2)],
    "array": [array.array("i", [1, 2])],
    "array h": [array.array("h", [1, 2])],
    "memoryview": [memoryview(b"abc")],
    "lambda set": [lambda x: x in {"a", "b", "c"}],
    "namespace": [types.SimpleNamespace(a=1)],
    "a": [A, A.copy(), np.asfortranarray(A), np.arange(18).reshape(3, 6)[:, :3] * 0 + A],
    "a.T": [A.T, np.ascontiguousarray(A.T)],
    "a as f8": [A.view("f8")],
    "a as u8": [A.view("u8")],
    "a big endian": [A.astype(">i8")],
    "a (9,)": [A.reshape(9)],
    "a (1, 9)": [A.reshape(1, 9)],
    "a (2, 3)": [A.reshape(9)[:6].reshape(2, 3)],
    "a (3, 2)": [A.reshape(9)[:6].reshape(3, 2)],
    "strided": [np.arange(20)[::2], np.arange(20)[::2].copy()],
    "a list": [A.tolist()],
    "object a-b": [np.array(["a-b", "c"], dtype=object)],
    "object b-c": [np.array(["a", "b-c"], dtype=object)],
    "unicode array": [np.array(["ab", "c"])],
    "unicode array 2": [np.array(["a", "bc"])],
    "datetime64": [np.array(["2026-01-01"], "M8[D]")],
    "datetime64 s": [np.array(["2026-01-01"], "M8[s]")],
    "bool array": [np.array([True, False])],
    "u1 array": [np.array([1, 0], "u1")],
    "empty array": [np.zeros((0, 3))],
    "empty array 2": [np.zeros((3, 0))],
    "0-d": [np.array(5)],
    "structured": [STRUCT, STRUCT.copy()],
    "structured names": [STRUCT.astype([("a", "i1"), ("c", "f8")])],
    "aligned": [ALIGNED],
    "complex array": [np.array([1 + 2j])],
    "longdouble array": [np.arange(3, dtype=np.longdouble) / 3],
    "masked": [np.ma.array([1, 2], mask=[0, 1])],
    "masked 2": [np.ma.array([1, 2], mask=[1, 0])],
    "dtype": [np.dtype("i8")],
    "rng": [_seeded(1), _seeded(1)],
    "rng 2": [_seeded(2)],
    "series": [pd.Series([1, 2]), pd.Series([1, 2])],
    "series name": [pd.Series([1, 2], name="n")],
    "series i4": [pd.Series([1, 2], dtype="i4")],
    "series Int64": [pd.Series([1, 2], dtype="Int64")],
    "series Int64 NA": [pd.Series([1, None], dtype="Int64"), pd.Series([1, 7], dtype="Int64").where([True, False])],
    "series index": [pd.Series([1, 2], index=["a", "b"])],
    "str 0:2": [STRINGS[:2].reset_index(drop=True), pd.Series(["a", "bb"])],
    "str 3:5": [STRINGS[3:5].reset_index(drop=True), pd.Series(["dddd", "e"])],
    "str all": [STRINGS, STRINGS.copy(), pd.concat([STRINGS[:2], STRINGS[2:]])],
    "str object": [STRINGS.astype(object)],
    "frame": [FRAME, FRAME.copy(), pd.DataFrame({c: FRAME[c] for c in "abc"})],
    "frame renamed": [FRAME.rename(columns={"a": "z"})],
    "frame reordered": [FRAME[["b", "a", "c"]]],
    "frame index": [FRAME.set_index("a")],
    "frame slice": [FRAME.iloc[1:], FRAME.copy().iloc[1:].copy()],
    "frame multi": [pd.DataFrame({"a": [1]}, index=pd.MultiIndex.from_tuples([(1, "x")], names=["m", "n"]))],
    "frame multi names": [pd.DataFrame({"a": [1]}, index=pd.MultiIndex.from_tuples([(1, "x")], names=["m", "o"]))],
    "categorical": [CAT, CAT.copy()],
    "categorical as str": [CAT.astype(str)],
    "categorical ordered": [CAT.cat.as_ordered()],
    "tz": [pd.Series(pd.to_datetime(["2026-01-01"]).tz_localize("UTC"))],
    "tz paris": [pd.Series(pd.to_datetime(["2026-01-01"]).tz_localize("Europe/Paris"))],
    "no tz": [pd.Series(pd.to_datetime(["2026-01-01"]))],
    "period": [pd.Series(pd.period_range("2026-01", periods=2, freq="M"))],
    "interval": [pd.Series(pd.interval_range(0, 2))],
    "sparse": [pd.Series(pd.arrays.SparseArray([0, 0, 1]))],
    "arrow dtype": [pd.Series([1, 2], dtype="int64[pyarrow]")],
    "timestamp": [pd.Timestamp("2026-01-01"), pd.Timestamp("2026-01-01")],
    "timestamp 2": [pd.Timestamp("2026-01-02")],
    "NA": [pd.NA],
    "NaT": [pd.NaT],
    "index": [pd.Index([1, 2, 4])],
    "index name": [pd.Index([1, 2, 4], name="i")],
    "polars": [pl.DataFrame({"a": [1, None], "b": ["x", "yy"]}), pl.concat([pl.DataFrame({"a": [1], "b": ["x"]}), pl.DataFrame({"a": [None], "b": ["yy"]}, schema={"a": pl.Int64, "b": pl.String})])],
    "polars renamed": [pl.DataFrame({"z": [1, None], "b": ["x", "yy"]})],
    "polars slice": [pl.Series("s", ["a", "b", "c"])[1:], pl.Series("s", ["b", "c"])],
    "polars slice 2": [pl.Series("s", ["a", "b", "c"])[:2]],
    "polars list": [pl.Series("s", [[1, 2], None, [3]])],
    "polars list 2": [pl.Series("s", [[1], None, [2, 3]])],
    "polars cat": [pl.Series("s", ["a", "b"], dtype=pl.Categorical)],
    "polars struct": [pl.Series("s", [{"a": 1}, {"a": 2}])],
    "arrow 0:2": [WIDE[:2], pa.array(["a", "bb"])],
    "arrow 1:3": [WIDE[1:3], pa.array(["bb", None])],
    "arrow 3:5": [WIDE[3:5], pa.array(["dddd", "e"])],
    "arrow chunks": [_arrow([1, 2, None], [4]), _arrow([1], [2, None, 4]), _arrow([1, 2], [], [None, 4], kind=pa.int64())],
    "arrow chunks 2": [_arrow([1, 2, 3], [4])],
    "arrow large": [pa.array(["a"], pa.large_string())],
    "arrow view": [pa.array(["a", "b" * 40], pa.string_view())],
    "arrow bool": [pa.array([True, False, True])[1:], pa.array([False, True])],
    "arrow list": [_arrow([[1, 2], None], [[3]], kind=pa.list_(pa.int64())), _arrow([[1, 2]], [None, [3]], kind=pa.list_(pa.int64()))],
    "arrow list 2": [_arrow([[1], None], [[2, 3]])],
    "arrow struct": [pa.array([{"a": 1, "b": "x"}, None])],
    "arrow dict": [pa.array(["a", "b", "a"]).dictionary_encode()],
    "arrow map": [pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64()))],
    "arrow null": [pa.nulls(3)],
    "arrow null 2": [pa.nulls(4)],
    "arrow decimal": [pa.array([decimal.Decimal("1.1")])],
    "arrow ts": [pa.array([NOON])],
    "arrow table": [pa.table({"a": [1, 2], "b": ["x", "y"]}), pa.concat_tables([pa.table({"a": [1], "b": ["x"]}), pa.table({"a": [2], "b": ["y"]})])],
    "arrow table renamed": [pa.table({"c": [1, 2], "b": ["x", "y"]})],
    "arrow scalar": [pa.scalar(1)],
    "arrow type": [pa.int64()],
    "ridge": [Ridge(alpha=2.0), Ridge(alpha=2.0)],
    "ridge fitted": [Ridge().fit([[1.0], [2.0]], [1.0, 2.0]), Ridge().fit([[1.0], [2.0]], [1.0, 2.0])],
    "ridge default": [Ridge()],
}  # fmt: skip


def digests() -> dict[str, list[str]]:
    """Digest everything in the table."""
    fp = Fingerprinter()
    return {name: [fp.value(v).digest.hex() for v in vs] for name, vs in TABLE.items()}


if __name__ == "__main__":
    json.dump(digests(), sys.stdout)
