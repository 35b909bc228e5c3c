"""Arguments, notes, handles, what moved, and the floor: the fingerprinter as the run uses it."""

from __future__ import annotations

import ast
import asyncio
import copy
import dataclasses
import functools
import io
import itertools
import math
import pathlib
import pickle
import socket
import sqlite3
import subprocess
import sys
import threading
import types
import weakref
from collections import OrderedDict, deque
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from fingerprint_kit.notebook import cell
from hypothesis import given, settings
from hypothesis import strategies as st

from nbdurable.errors import FingerprintError, UsageError
from nbdurable.fingerprint import Fingerprinter, Note, Print, arrays, contains, frames, values

PACKAGE = pathlib.Path(values.__file__).parent


def digest(value, **options):
    """Digest one value."""
    return Fingerprinter(**options).value(value).digest


# --- binding


def two(a, b=2, *rest, k=3, **more):
    """Take arguments of every kind."""


EQUAL_CALLS = [
    ((1,), {}),
    ((1, 2), {}),
    ((), {"a": 1}),
    ((1,), {"b": 2}),
    ((), {"b": 2, "a": 1, "k": 3}),
]


def test_a_call_has_one_digest_however_it_is_written():
    """By position, by name, in any order, with or without its defaults."""
    fp = Fingerprinter()
    assert len({fp.arguments(two, a, k).digest for a, k in EQUAL_CALLS}) == 1


@pytest.mark.parametrize(
    "call",
    [((2, 1), {}), ((1, 3), {}), ((1, 2, 3), {}), ((1,), {"k": 4}), ((1,), {"z": 1}), ((1.0,), {}),
     ((True,), {}), (("1",), {}), (([1],), {}), ((1, 2, (3,)), {}), ((1, 2, 3, 4), {})],
)  # fmt: skip
def test_unequal_calls_have_unequal_digests(call):
    """Swapped, retyped, more, or in another parameter."""
    fp = Fingerprinter()
    others = [((1,), {}), *[((2, 1), {}), ((1, 2, 3), {}), ((1,), {"k": 4})]]
    mine = fp.arguments(two, *call).digest
    assert mine not in {fp.arguments(two, *o).digest for o in others if o != call}


def test_parts_name_the_parameters():
    """The name of each parameter has a digest of its own, so that `why` can say which."""
    fp = Fingerprinter()
    one, other = fp.arguments(two, (1,), {}), fp.arguments(two, (1, 5), {"z": 1})
    assert [n for n, _ in one.parts] == ["a", "b", "k"]
    assert [n for n, _ in other.parts] == ["a", "b", "k", "z"]
    assert {n for n, d in set(other.parts) - set(one.parts)} == {"b", "z"}
    assert all(len(d) == 8 for _, d in one.parts)
    assert len(one.digest) == 16


def test_a_method_names_its_self():
    """`self` is a parameter like another, called as the method calls it."""
    book = cell(
        "class C:\n    def __init__(this, n): this.n = n\n    def m(this, x): return x\n    def __call__(this, x): return x"
    )
    fp = Fingerprinter()
    one, other = book["C"](1), book["C"](2)
    assert [n for n, _ in fp.arguments(one.m, (1,), {}).parts] == ["this", "x"]
    assert fp.arguments(one.m, (1,), {}).digest != fp.arguments(other.m, (1,), {}).digest
    assert fp.arguments(one.m, (1,), {}).digest == fp.arguments(book["C"](1).m, (), {"x": 1}).digest
    assert [n for n, _ in fp.arguments(one, (1,), {}).parts] == ["this", "x"]


def test_partials_wrappers_classes_and_builtins_bind():
    """Whatever is called, the digest says with what."""

    @functools.wraps(two)
    def wrapper(*a, **k):
        return two(*a, **k)

    fp = Fingerprinter()
    assert fp.arguments(wrapper, (1,), {}).digest == fp.arguments(wrapper, (), {"a": 1}).digest
    bound = functools.partial(two, 1)
    assert fp.arguments(bound, (5,), {}).digest == fp.arguments(two, (1, 5), {}).digest
    assert fp.arguments(len, ([1],), {}).digest != fp.arguments(len, ([2],), {}).digest
    assert fp.arguments(max, (1, 2), {}).digest != fp.arguments(max, (2, 1), {}).digest
    assert fp.arguments(dict, (), {"a": 1}).digest != fp.arguments(dict, (), {"a": 2}).digest
    point = dataclasses.make_dataclass("P", ["x", ("y", int, 0)])
    assert fp.arguments(point, (1,), {}).digest == fp.arguments(point, (1, 0), {}).digest


def test_a_call_that_does_not_fit_is_left_to_the_body():
    """Too few, too many or unknown: a digest all the same, and not that of another call."""
    fp = Fingerprinter()

    def f(a):
        return a

    calls = [((), {}), ((1,), {}), ((1, 2), {}), ((1,), {"a": 2}), ((1,), {"z": 2})]
    assert len({fp.arguments(f, *c).digest for c in calls}) == len(calls)


def test_ignored_parameters_are_left_out():
    """`ignore=` names parameters, the star and keyword ones included."""
    fp = Fingerprinter()
    ignore = frozenset({"k", "rest", "z"})
    one = fp.arguments(two, (1, 2, 3), {"k": 1, "z": threading.Lock()}, ignore=ignore)
    assert one.digest == fp.arguments(two, (1, 2, 4), {"k": 2, "z": 5}, ignore=ignore).digest
    assert one.notes == ()
    assert [n for n, _ in one.parts] == ["a", "b"]


def test_a_changed_default_is_the_default_from_then_on():
    """Defaults are looked up again, as Python does."""

    def f(a=1):
        return a

    fp = Fingerprinter()
    one = fp.arguments(f, (), {}).digest
    f.__defaults__ = (2,)
    assert fp.arguments(f, (), {}).digest != one
    assert fp.arguments(f, (1,), {}).digest == one


def test_a_memoising_default_is_no_argument():
    """A default that the function itself changes doesn't make the next call another."""
    f = cell("def f(n, memo={}):\n    memo[n] = 1\n    return memo")["f"]
    fp = Fingerprinter()
    one = fp.arguments(f, (1,), {})
    f(1)
    assert fp.arguments(f, (1,), {}).digest == one.digest
    assert one.moved() == ()
    assert fp.arguments(f, (1, {}), {}).digest != fp.arguments(f, (1, {1: 1}), {}).digest


# --- notes


class Client:
    """Holds what another process can't have."""

    def __init__(self, **state: Any) -> None:
        self.lock = threading.Lock()
        self.__dict__.update(state)


def test_what_has_no_comparable_state_is_left_out_and_noted():
    """The note names parameter, attribute and type; the rest still counts."""
    fp = Fingerprinter()

    def f(conn, client):
        return conn

    with sqlite3.connect(":memory:") as conn:
        one = fp.arguments(f, (conn, Client(n=1)), {})
        two = fp.arguments(f, (conn, Client(n=2)), {})
    conn.close()
    assert one.notes == (
        Note("not compared", "conn", "Connection"),
        Note("not compared", "client.lock", "lock"),
    )
    assert str(one.notes[0]) == "not compared: `conn` (Connection)"
    assert one.digest != two.digest
    with pytest.raises(FingerprintError, match=r"`client.lock` \(lock\).*ignore="):
        Fingerprinter(strict=True).value(Client(), "client")


async def _coroutine():
    """Do nothing."""


def test_live_objects_are_noted_never_crash_and_tell_types_apart(tmp_path):
    """Locks, sockets, files, threads, generators, coroutines, loops, weak references."""
    (tmp_path / "a").write_text("")
    coroutine = _coroutine()
    loop = asyncio.new_event_loop()
    live: list[Any] = [
        threading.Lock(), threading.RLock(), threading.Thread(), threading.Condition(),
        coroutine, loop, weakref.ref(Client), threading.local(),
    ]  # fmt: skip
    with (tmp_path / "a").open() as file, socket.socket() as sock:
        live += [file, sock]
        fp = Fingerprinter()
        prints = [fp.value(v, "it") for v in live]
    coroutine.close()
    loop.close()
    for value, found in zip(live, prints, strict=True):
        assert [(n.kind, n.where) for n in found.notes] == [("not compared", "it")], value
    assert len({p.digest for p in prints}) == len(prints)


def test_in_a_librarys_instance_one_such_leaf_names_the_instance():
    """Nobody knows its attributes by name: "not compared: `it` (ThreadPoolExecutor)"."""
    import concurrent.futures  # noqa: PLC0415
    import queue  # noqa: PLC0415

    fp = Fingerprinter()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        assert fp.value(pool, "it").notes == (Note("not compared", "it", "ThreadPoolExecutor"),)
    assert fp.value([queue.Queue()], "q").notes == (Note("not compared", "q", "Queue"),)
    held = Client(lock=None, pool=queue.Queue())
    assert fp.value(held, "self").notes == (Note("not compared", "self.pool", "Queue"),)


class Refuses:
    """Fails to say its state."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __reduce_ex__(self, protocol):
        raise self.error


class RefusesState(Refuses):
    """Fails in another place."""

    __reduce_ex__ = object.__reduce_ex__

    def __getstate__(self):
        raise self.error


@pytest.mark.parametrize("kind", [Refuses, RefusesState])
def test_an_error_in_the_users_own_pickling_is_a_note(kind):
    """It names the error's type and never crashes the run."""
    one = Fingerprinter().value(kind(ZeroDivisionError()), "it")
    assert one.notes == (Note("not compared", "it", f"{kind.__name__}: ZeroDivisionError"),)


class Endless:
    """Gives a new object each time it is asked for its state."""

    def __getstate__(self):
        return {"next": Endless()}


def test_what_never_ends_is_an_error_with_a_way_out():
    """Too deep a nest says `key=`, `ignore=`, `version=`."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, Endless()):
        with pytest.raises(FingerprintError, match=r"`it` .*nested too deeply.*key=.*ignore="):
            Fingerprinter().value(value, "it")


def test_a_property_or_a_lazy_attribute_is_never_run():
    """Looking changes nothing and calls no code but pickle's hooks."""
    text = "class C:\n    def __getattr__(self, name):\n        if name.startswith('__'): raise AttributeError\n        1 / 0\n    @property\n    def p(self): 1 / 0"
    assert Fingerprinter().value(cell(text)["C"]()).notes == ()


def test_a_cached_property_is_no_state():
    """Computing it once doesn't make the object another."""
    book = cell(
        "import functools\nclass C:\n    @functools.cached_property\n    def p(self): return [1]"
    )
    value = book["C"]()
    one = Fingerprinter().value(value)
    assert value.p
    assert Fingerprinter().value(value).digest == one.digest
    assert one.moved() == ()


def test_a_class_level_memo_is_no_input():
    """What methods keep in the class, through `self` or `cls`, doesn't make it another."""
    text = """
class C:
    memo = {}
    count = 0
    limit = 5
    def m(self, k): self.memo[k] = 1
    @classmethod
    def n(cls): cls.count += 1
"""
    book = cell(text)
    fp = Fingerprinter()
    value = book["C"]()
    one = fp.value(value)
    value.m(1)
    value.n()
    assert fp.value(value).digest == one.digest
    assert one.moved() == ()
    assert {n.where for n in one.notes} == {"C.memo", "C.count"}
    book["C"].limit = 6
    assert fp.value(value).digest != one.digest


# --- instances and their classes


def test_an_instance_counts_with_its_classes_code():
    """An edited method, or its helper, makes every instance another; its docstring doesn't."""
    text = "def h(): return 1\nclass C:\n    def m(self):\n        '''Say.'''\n        return h()\nv = C()"
    one = digest(cell(text)["v"])
    assert one == digest(cell(text.replace("Say", "Do"))["v"])
    assert one != digest(cell(text.replace("return 1", "return 2"))["v"])
    assert one != digest(cell(text.replace("return h()", "return -h()"))["v"])


def test_functions_as_arguments_count_by_code():
    """Lambdas, closures, partials, methods; a function moved by a line is the same."""
    texts = ["lambda x: x + 1", "lambda x: x + 2", "(lambda n: lambda x: x + n)(1)",
             "(lambda n: lambda x: x + n)(2)", "functools.partial(int, base=2)"]  # fmt: skip
    made = [digest(cell(f"import functools\nf = {t}")["f"]) for t in texts]
    assert len(set(made)) == len(texts)
    assert made == [digest(cell(f"import functools\n\n\n# moved\nf = {t}")["f"]) for t in texts]


def test_a_redefined_notebook_class_is_the_same_if_its_text_is():
    """Running the class's cell again changes no instance's digest."""
    text = "import dataclasses\n@dataclasses.dataclass\nclass P:\n    x: int\n    def m(self): return self.x\nv = P(1)"
    fp = Fingerprinter()
    assert fp.value(cell(text)["v"]).digest == fp.value(cell("#\n" + text)["v"]).digest
    assert (
        fp.value(cell(text)["v"]).digest
        != fp.value(cell(text.replace("x: int", "x: str"))["v"]).digest
    )


def test_types_of_one_name_are_told_apart():
    """A class in one module isn't its namesake in another, nor a namedtuple a tuple."""
    one, other = (type("P", (), {"__module__": m}) for m in ("__main__", "elsewhere"))
    assert digest(one()) != digest(other())


def test_shared_and_dense_object_graphs_take_no_time():
    """Neither many routes to one object nor a web of cycles multiply the work."""
    tower: list[Any] = [1, "x", 2.0]
    for _ in range(60):
        tower = [tower, tower]
    web = [types.SimpleNamespace(n=n) for n in range(60)]
    for node in web:
        node.others = list(web)
    pairs: tuple[Any, ...] = ([],)
    for _ in range(60):
        pairs = (pairs, pairs)
    fp = Fingerprinter()
    for value in (tower, web, pairs):
        assert fp.value(value).digest == fp.value(copy.deepcopy(value)).digest


def test_cycles_of_different_shapes_differ():
    """A list in itself, one level up or two, alone or with a twin."""
    a: list[Any] = []
    a.append(a)
    b: list[Any] = [[]]
    b[0].append(b)
    c: list[Any] = [[]]
    c[0].append(c[0])
    d: list[Any] = [1]
    d.append(d)
    e: dict[str, Any] = {}
    e["a"] = e
    f: dict[str, Any] = {"a": {}}
    f["a"]["b"] = f
    assert len({digest(v) for v in (a, b, c, d, e, f, [], [[]])}) == 8


# --- handles


class Handle:
    """Stands for a handle."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lock = threading.Lock()

    def __nbdurable_identity__(self) -> bytes:
        return self.name.encode()


def test_a_handle_counts_by_its_identity():
    """Alone and in lists, tuples and dicts; its state is never looked at."""
    fp = Fingerprinter(strict=True)
    shapes = [lambda h: h, lambda h: [h], lambda h: (h, 1), lambda h: {"a": [h]}]
    found = [fp.value(shape(Handle(name))).digest for shape in shapes for name in "ab"]
    assert len(set(found)) == 8
    assert found == [fp.value(shape(Handle(name))).digest for shape in shapes for name in "ab"]
    assert fp.value(b"a").digest not in found


@pytest.mark.parametrize(
    "wrap",
    [
        lambda h: {h},
        lambda h: frozenset([h]),
        lambda h: types.SimpleNamespace(h=h),
        lambda h: deque([h]),
        lambda h: OrderedDict(a=h),
        lambda h: {h: 1},
        lambda h: functools.partial(print, h),
        lambda h: lambda: h,
        lambda h: [Client(h=h)],
        lambda h: np.array([h], dtype=object),
        lambda h: pd.DataFrame({"a": [h]}),
        dataclasses.make_dataclass("P", ["x"]),
        lambda h: h.__nbdurable_identity__,
    ],
)
def test_a_handle_elsewhere_is_a_usage_error(wrap):
    """The message says how to pass it, and names where it is."""
    with pytest.raises(UsageError, match=r"`.*pass the handle itself as an argument"):
        Fingerprinter().value(wrap(Handle("a")), "it")


# --- moved


def test_nothing_mutable_nothing_moved():
    """Atoms, tuples of them and frozen things are not looked at again."""
    fp = Fingerprinter()
    one = fp.arguments(two, (1, "a"), {"k": (1, (2, "b"), frozenset("ab"), 1.5, None)})
    assert one._moved.__name__ == "nothing_moved" or one._moved.__self__._inputs == []
    assert one.moved() == ()


MUTATIONS: list[tuple[Any, Any]] = [
    (lambda: [1], lambda v: v.append(2)),
    (lambda: {"a": [1]}, lambda v: v["a"].append(2)),
    (lambda: ([1],), lambda v: v[0].append(2)),
    (lambda: {1}, lambda v: v.add(2)),
    (lambda: bytearray(b"a"), lambda v: v.extend(b"b")),
    (lambda: Client(n=1), lambda v: setattr(v, "n", 2)),
    (lambda: Client(n=1), lambda v: setattr(v, "new", 2)),
    (lambda: Client(n=[1]), lambda v: v.n.append(2)),
    (lambda: np.zeros(3), lambda v: v.__setitem__(0, 1)),
    (lambda: np.zeros((3, 3))[::2], lambda v: v.__setitem__((0, 0), 1)),
    (lambda: pd.DataFrame({"a": [1]}), lambda v: v.__setitem__("b", 1)),
    (lambda: pd.DataFrame({"a": [1]}), lambda v: setattr(v, "columns", ["b"])),
    (lambda: pd.Series([1]), lambda v: v.__setitem__(0, 2)),
    (lambda: deque([1]), lambda v: v.append(2)),
    (lambda: OrderedDict(a=1, b=2), lambda v: v.move_to_end("a")),
    (lambda: types.SimpleNamespace(a=1), lambda v: setattr(v, "a", 2)),
    (lambda: np.random.default_rng(1), lambda v: v.random()),
    (lambda: __import__("random").Random(1), lambda v: v.random()),
    (lambda: functools.partial(print, [1]), lambda v: v.args[0].append(2)),
    (lambda: [[n] for n in range(100)], lambda v: v[50].append(1)),
]  # fmt: skip


@pytest.mark.parametrize("at", range(len(MUTATIONS)))
def test_what_changed_in_place_has_moved(at):
    """The parameter's name and the very object that was passed."""
    make, mutate = MUTATIONS[at]
    fp = Fingerprinter()
    value = make()
    one = fp.arguments(two, ("a", value), {"k": [1]})
    assert one.moved() == ()
    assert one.moved(sample=True) == ()
    mutate(value)
    ((name, what),) = one.moved()
    assert name == "b"
    assert what is value
    assert fp.arguments(two, ("a", value), {"k": [1]}).digest != one.digest


def test_self_moves_like_any_argument():
    """`go(model.fit, X)` changes the model: it is named as the method names it."""
    book = cell("class M:\n    def fit(self, x): self.w = x")
    model = book["M"]()
    one = Fingerprinter().arguments(model.fit, (1,), {})
    model.fit(1)
    assert one.moved() == (("self", model),)


def test_a_value_that_can_no_longer_be_read_has_moved():
    """No error from looking."""
    value: list[Any] = [1]
    one = Fingerprinter().value(value, "v")
    value[0] = {Handle("a")}
    assert one.moved() == (("v", value),)


@pytest.mark.parametrize("kind", ["array", "strided", "arrow", "frame", "list"])
def test_big_objects_are_sampled_at_the_end(kind, monkeypatch):
    """Above the limit `sample=True` looks at blocks: ends and middle, not everything."""
    monkeypatch.setattr(arrays, "BIG", 1_000_000)
    monkeypatch.setattr(frames, "BIG", 1_000_000)
    monkeypatch.setattr(values, "_SAMPLED", 100_000)
    base = np.zeros(4_000_000, "u1")
    value: Any = {
        "array": base,
        "strided": base.reshape(2000, 2000)[:, ::2],
        "arrow": pa.array(base),
        "frame": pd.DataFrame({"a": base}),
        "list": [0] * 500_000,
    }[kind]
    one = Fingerprinter().value({"deep": [value]}, "v")
    assert one.moved(sample=True) == ()
    target = value if kind == "list" else base
    if kind == "frame":
        value.iloc[-1, 0] = 7
    else:
        target[0] = 7
    assert [n for n, _ in one.moved(sample=True)] == ["v"]
    assert [n for n, _ in one.moved()] == ["v"]


def test_seconds_are_told_when_they_matter():
    """Nothing below a millisecond, more above."""
    fp = Fingerprinter()
    assert fp.value(1).seconds == 0.0
    assert fp.value([object() for _ in range(20_000)]).seconds > 0.001


# --- contains


def test_contains_finds_by_identity():
    """In lists, tuples, dicts, sets, dataclasses, slots and attributes; equals don't count."""
    wanted: list[int] = []
    point = dataclasses.make_dataclass("P", ["x"], slots=True)
    for result in (wanted, [wanted], (1, [wanted]), {"a": wanted}, types.SimpleNamespace(a=[wanted]),
                   point(wanted), deque([wanted]), {1: (2, [wanted])}):  # fmt: skip
        assert contains(result, wanted)
    for result in ([], [[]], {"a": []}, None, "wanted", point([])):
        assert not contains(result, wanted)
    key = frozenset({object()})
    assert contains({key}, key)
    assert contains({key: 1}, key)


def test_contains_ends():
    """Cycles and huge results are no trap."""
    cycle: list[Any] = []
    cycle.append(cycle)
    assert not contains(cycle, object())
    assert not contains([[n] for n in range(500_000)], object())


# --- threads


def test_one_fingerprinter_serves_many_threads():
    """Concurrent calls give what single ones do."""
    book = cell("cfg = {'a': 1}\ndef h(x): return cfg, x\ndef f(x): return h(x)")
    fp = Fingerprinter()
    want = Fingerprinter().code(book["f"]).digest
    errors: list[object] = []
    start = threading.Barrier(8)

    def work():
        start.wait()
        for n in range(200):
            if fp.code(book["f"]).digest != want:
                errors.append("code")
            if fp.arguments(book["f"], ([n],), {}).digest != digest_of(n):
                errors.append(n)

    def digest_of(n):
        return Fingerprinter().arguments(book["f"], ([n],), {}).digest

    threads = [threading.Thread(target=work) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert errors == []


# --- properties

leaves = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
    | st.complex_numbers() | st.dates() | st.datetimes() | st.timedeltas() | st.uuids()
    | st.decimals() | st.fractions()
)  # fmt: skip
hashables = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=5,
)
nested = st.recursive(
    leaves | hashables,
    lambda inner: (
        st.lists(inner, max_size=20)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(hashables, inner, max_size=4)
        | st.dictionaries(st.text(max_size=2), inner, max_size=20)
        | st.sets(hashables, max_size=4)
    ),
    max_leaves=30,
)


def spelled(value: Any) -> Any:
    """Write a value out with its types: the oracle for equality."""
    if isinstance(value, float):
        return ("float", "nan") if math.isnan(value) else ("float", value.hex())
    if isinstance(value, complex):
        return ("complex", spelled(value.real), spelled(value.imag))
    if isinstance(value, (list, tuple)):
        return (type(value).__name__, tuple(spelled(v) for v in value))
    if isinstance(value, (set, frozenset)):
        return (type(value).__name__, tuple(sorted(map(repr, map(spelled, value)))))
    if isinstance(value, dict):
        return ("dict", tuple((spelled(k), spelled(v)) for k, v in value.items()))
    return (type(value).__name__, repr(value))


@settings(max_examples=300, deadline=None)
@given(nested)
def test_a_copy_or_a_pickle_round_trip_has_the_same_digest(value):
    """Over recursive builtin values."""
    want = digest(value)
    assert digest(copy.deepcopy(value)) == want
    assert digest(pickle.loads(pickle.dumps(value, protocol=5))) == want


@settings(max_examples=300, deadline=None)
@given(st.lists(nested, min_size=2, max_size=6))
def test_digests_differ_exactly_where_values_do(many):
    """Against a spelling of the values that says type and content."""
    for one in many:
        for other in many:
            assert (digest(one) == digest(other)) == (spelled(one) == spelled(other))


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(hashables, st.integers(), max_size=8), st.randoms())
def test_insertion_order_leaves_no_trace(value, random):
    """Sets and instances built in another order are the same; of a dict the order counts."""
    items = list(value.items())
    random.shuffle(items)
    assert (digest(dict(items)) == digest(value)) == (items == list(value.items()))
    assert digest({k for k, _ in items}) == digest(set(value))
    named = [(f"a{place}", item) for place, item in enumerate(value.items())]
    one, other = types.SimpleNamespace(), types.SimpleNamespace()
    one.__dict__.update(named)
    random.shuffle(named)
    other.__dict__.update(named)
    assert digest(one) == digest(other)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.none() | st.text(max_size=5), max_size=30),
    st.lists(st.integers(0, 30), max_size=4),
    st.integers(0, 10),
)
def test_arrow_chunks_and_offsets_leave_no_trace(items, cuts, spare):
    """Any way to cut a column into chunks and slices gives one digest."""
    whole = pa.chunked_array([pa.array(items, pa.string())])
    bounds = [0, *sorted(min(c, len(items)) for c in cuts), len(items)]
    padded = pa.array(["pad"] * spare + items + [None] * spare, pa.string())
    parts = [padded[spare + a : spare + b] for a, b in itertools.pairwise(bounds)]
    assert digest(pa.chunked_array(parts, pa.string())) == digest(whole)
    assert digest(pa.chunked_array([pa.array([*items, "more"], pa.string())])) != digest(whole)


# --- the floor


def test_only_the_standard_library_xxhash_and_the_ground_are_imported():
    """The floor of this package; numpy and the like are looked up in sys.modules."""
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                continue  # of this package itself
            names = []
            if isinstance(node, ast.Import):
                names = [a.name for a in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                top = name.partition(".")[0]
                ours = name.startswith(
                    ("nbdurable.fingerprint", "nbdurable.errors", "nbdurable.labels")
                )
                assert ours or top == "xxhash" or top in sys.stdlib_module_names, (path, name)


def test_importing_it_loads_no_array_library():
    """A kernel that uses none pays for none."""
    code = (
        "import sys, nbdurable.fingerprint as f; p = f.Fingerprinter(); p.value([1, {2}, print]);"
        "print([m for m in ('numpy', 'pandas', 'polars', 'pyarrow', 'torch', 'IPython', 'pydantic')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_print_shows_its_digest():
    """And nothing of the values."""
    one = Fingerprinter().value("secret")
    assert isinstance(one, Print)
    assert repr(one) == f"Print({one.digest.hex()})"
    assert io.StringIO(repr(one)).read().count("secret") == 0
