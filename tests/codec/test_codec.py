"""Values and errors to payloads and back: what a replay gives is what the first run got."""

import asyncio
import collections
import datetime as dt
import enum
import json
import math
import re
import subprocess
import sys
import threading
import traceback
import types
import urllib.error
from pathlib import Path

import numpy as np
import pandas as pd
import pydantic
import pytest

from nbdurable import DecodeError, EncodeError, go, workflow
from nbdurable.api import open_stores
from nbdurable.codec import signing
from nbdurable.codec.outcomes import (
    decode_error,
    encode_error,
    settle_error,
    settle_value,
    traceback_text,
)
from nbdurable.codec.signing import sign, signature_holds
from nbdurable.codec.values import decode, encode


@pytest.fixture(autouse=True)
def closed():
    """Leave no store open behind a test."""
    yield
    open_stores.close_stores()


@pytest.fixture
def main(monkeypatch):
    """Return what makes a class the notebook's: found in ``__main__`` by its name."""

    def define(cls, name=None):
        name = name or cls.__name__
        cls.__module__, cls.__qualname__ = "__main__", name
        monkeypatch.setattr(sys.modules["__main__"], name, cls, raising=False)
        return cls

    return define


# --- values --------------------------------------------------------------------------

Pair = collections.namedtuple("Pair", "a b")  # noqa: PYI024 - the plain kind is meant


class Colour(enum.Enum):
    """An enum of this module."""

    RED = 1


VALUES = [
    None,
    True,
    0,
    -(2**400),
    1.5,
    -0.0,
    math.inf,
    1 + 2j,
    "",
    "größe \ud800 \0 \n",
    b"\0\xff",
    bytearray(b"x"),
    [1, [2, (3,)], {"a": {4}}],
    frozenset({1, 2}),
    Pair(1, "b"),
    Colour.RED,
    dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
    Path("a/b"),
    range(3),
    ...,
    int,
    json.loads,
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_round_trip(value):
    """A value comes back equal and of its own type."""
    payload = encode(value)
    found = decode(payload.data)
    assert type(found) is type(value)
    assert found == value
    assert repr(found) == repr(value)


def test_round_trip_of_what_is_not_equal_to_itself():
    """NaN, arrays and frames come back bit by bit."""
    assert math.isnan(decode(encode(math.nan).data))
    array = np.arange(12.0).reshape(3, 4)[:, ::2]
    found = decode(encode(array).data)
    np.testing.assert_array_equal(found, array)
    found[0, 0] = 7
    assert found[0, 0] == 7, "it can be written"
    frame = pd.DataFrame({"a": ["x", None], "b": [1.5, 2.5]}, index=["i", "j"])
    pd.testing.assert_frame_equal(decode(encode(frame).data), frame)


def test_round_trip_keeps_shape():
    """What is one object twice stays one; what contains itself still does."""
    shared = [1]
    left, right = decode(encode((shared, shared)).data)
    assert left is right
    loop = []
    loop.append(loop)
    found = decode(encode(loop).data)
    assert found[0] is found


def test_functions_that_no_module_holds():
    """Lambdas and closures come back with what they close over."""
    offset = 40
    found = decode(encode(lambda number: number + offset).data)
    assert found(2) == 42


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (threading.Lock(), "lock can't be pickled"),
        ([{"deep": threading.Lock()}], "list can't be pickled"),
        ((number for number in range(3)), "a generator can't be stored; return a list"),
        ([(number for number in range(3))], "generator can't be stored"),
        (Path(__file__).open("rb"), "an open file can't be stored; return its path"),  # noqa: SIM115 - closed below
    ],
    ids=["lock", "inside", "generator", "generator inside", "file"],
)
def test_what_cant_be_stored(value, said):
    """What can't be pickled, alone or inside, is an EncodeError that names it."""
    with pytest.raises(EncodeError, match=said):
        encode(value)
    with pytest.raises(EncodeError, match=said):
        settle_value(value)
    if hasattr(value, "close"):
        value.close()


def test_coroutine_cant_be_stored():
    """A coroutine is refused by name."""

    async def soon():
        return 1

    coroutine = soon()
    with pytest.raises(EncodeError, match="a coroutine can't be stored"):
        encode([coroutine])
    coroutine.close()


def test_handle_cant_be_stored():
    """A handle, alone or inside, is refused with what to store instead."""
    with workflow("w", store=":memory:"):
        handle = go(abs, -1)
        for value in (handle, [handle], {"a": (handle,)}):
            with pytest.raises(EncodeError, match=r"handle can't be stored; return its .result"):
                encode(value)
        assert handle.result() == 1


def test_too_deep():
    """A value that is nested too deeply for pickle is an EncodeError, not a crash."""
    deep = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(EncodeError, match="recursion"):
        encode(deep)
    while deep:
        deep = deep.pop()


class RaisesOnLoad:
    """Pickles, but does not unpickle."""

    def __reduce__(self):
        return _raise, ("no way back",)


def _raise(text):
    raise OSError(text)


def test_what_pickles_but_does_not_unpickle():
    """It is refused before it is stored, and named if it is stored all the same."""
    payload = encode(RaisesOnLoad())
    with pytest.raises(DecodeError, match="can't be restored here: OSError: no way back"):
        decode(payload.data)
    with pytest.raises(EncodeError, match=r"RaisesOnLoad pickles but does not unpickle.*no way"):
        settle_value(RaisesOnLoad())


@pytest.mark.parametrize("data", [b"", b"junk", encode([1, 2, 3]).data[:-4]])
def test_damaged_payload(data):
    """A payload that is no pickle is a DecodeError."""
    with pytest.raises(DecodeError, match="can't be restored here"):
        decode(data)


# --- what replay gives ---------------------------------------------------------------


class Forgetful:
    """Loses a field when it is pickled."""

    def __init__(self):
        self.kept, self.lost = 1, 2

    def __getstate__(self):
        return {"kept": self.kept, "lost": None}


def make_forgetful():
    """Return one."""
    return Forgetful()


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_settled_is_what_replay_gives(value):
    """`settle_value` gives the payload, and what decoding it gives."""
    payload, settled = settle_value(value)
    assert type(settled) is type(decode(payload.data))
    assert settled == decode(payload.data)


def test_first_run_gets_what_replay_gives(tmp_path):
    """What a pickle loses is lost on the first run already, so no run differs from another."""

    def program():
        found = go(make_forgetful).result()
        return found.kept, found.lost

    values = []
    for _ in range(2):
        with workflow("w", store=tmp_path / "s.duckdb"):
            values.append(program())
    assert values == [(1, None), (1, None)]


def test_settled_is_nobody_elses():
    """What is handed out is decoded: the body's own object can't move it."""
    value = [1]
    _, settled = settle_value(value)
    value.append(2)
    assert settled == [1]


# --- notebook classes ----------------------------------------------------------------


def test_notebook_class_is_stored_by_reference(main):
    """An instance of a notebook class comes back as one of the class that is there now."""

    class Point:
        def __init__(self, x):
            self.x = x

    old = main(Point)
    data = encode([old(3)]).data

    class Point:
        pass

    new = main(Point)
    [found] = decode(data)
    assert isinstance(found, new)
    assert found.x == 3


def test_nested_notebook_class(main):
    """A class inside a class is found by its whole name."""

    class Outer:
        class Inner:
            pass

    main(Outer)
    Outer.Inner.__module__, Outer.Inner.__qualname__ = "__main__", "Outer.Inner"
    data = encode(Outer.Inner()).data
    assert isinstance(decode(data), Outer.Inner)


def test_class_that_the_name_no_longer_means(main):
    """An instance of a class that was defined anew keeps its own class, with its own code."""

    class Point:
        def name(self):
            return "old"

    old = main(Point)()

    class Point:
        def name(self):
            return "new"

    main(Point)
    assert decode(encode(old).data).name() == "old"


def test_notebook_class_that_is_gone(main, monkeypatch):
    """The error names the class and what to run."""

    class Vanished:
        pass

    class VanishedError(Exception):
        pass

    data = encode({"a": main(Vanished)()}).data
    failed = encode_error(main(VanishedError)("x")).data
    grouped = encode_error(ExceptionGroup("g", [VanishedError("y")])).data
    monkeypatch.delattr(sys.modules["__main__"], "Vanished")
    monkeypatch.delattr(sys.modules["__main__"], "VanishedError")
    with pytest.raises(DecodeError, match=r"class `Vanished` is not defined.*run the cell that"):
        decode(data)
    with pytest.raises(DecodeError, match="class `VanishedError` is not defined"):
        decode_error(failed)
    with pytest.raises(DecodeError, match="class `VanishedError` is not defined"):
        decode_error(grouped)


WRITE = """
import sys
from nbdurable.codec.values import encode
from nbdurable.codec.outcomes import encode_error
class Point:
    pass
class Refused(Exception):
    def __init__(self, *, code):
        super().__init__(f"code {code}")
        self.code = code
point = Point()
point.x = 3
print(encode(point).data.hex())
print(encode_error(Refused(code=7)).data.hex())
"""
READ = """
import sys
from nbdurable.codec.values import decode
from nbdurable.codec.outcomes import decode_error
class Point:
    pass
class Refused(Exception):
    def __init__(self, *, code):
        pass
point = decode(bytes.fromhex(sys.argv[1]))
error = decode_error(bytes.fromhex(sys.argv[2]))
print(isinstance(point, Point), point.x, isinstance(error, Refused), error, error.code)
"""


def test_the_next_process():
    """In the next process ``isinstance`` holds, for values and for errors."""
    written = [sys.executable, "-c", WRITE]
    payloads = subprocess.run(written, capture_output=True, text=True, check=True).stdout.split()
    read = [sys.executable, "-c", READ, *payloads]
    found = subprocess.run(read, capture_output=True, text=True, check=True).stdout
    assert found == "True 3 True code 7 7\n"


# --- errors --------------------------------------------------------------------------


class KeywordOnly(Exception):
    """Its ``__init__`` takes other arguments than ``args``."""

    def __init__(self, *, code):
        super().__init__(f"code {code}")
        self.code = code


class OddNew(Exception):
    """Its ``__new__`` does too."""

    def __new__(cls, *, code):
        """Take a code."""
        return super().__new__(cls)

    def __init__(self, *, code):
        self.code = code

    def __str__(self):
        return f"odd {self.code}"


class TwoToOne(Exception):
    """Passes on fewer arguments than it takes."""

    def __init__(self, left, right):
        super().__init__(left + right)


class Reduced(Exception):
    """Says itself how it is pickled, and keeps its state where only that finds it."""

    __slots__ = ("hidden",)

    def __init__(self, hidden):
        super().__init__("reduced")
        self.hidden = hidden

    def __reduce__(self):
        return Reduced, (self.hidden,)


class KeepsAll(Exception):
    """Says itself how it is pickled, notes included."""

    def __reduce__(self):
        return KeepsAll, self.args, vars(self)


class WrongReduced(Exception):
    """Says itself how it is pickled, wrongly."""

    def __init__(self, text):
        super().__init__(text)

    def __reduce__(self):
        return WrongReduced, ()


class Group(ExceptionGroup):
    """A group of another signature."""

    def __new__(cls, errors, code):
        """Take errors and a code."""
        made = super().__new__(cls, f"group {code}", errors)
        made.code = code
        return made

    def derive(self, errors):
        """Make one like it."""
        return Group(errors, self.code)


def raised(function, *arguments):
    """Return what a call raises."""
    try:
        function(*arguments)
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


class Model(pydantic.BaseModel):
    """A model that refuses."""

    number: int


ERRORS = [
    ValueError("no", 42),
    KeyError("k"),
    ZeroDivisionError(),
    AssertionError(["unhashable"]),
    raised(lambda: 1 / 0),
    raised(lambda: {}.nothing),
    raised(lambda: nothing),  # noqa: F821 - it is the point
    raised(__import__, "no_such_module"),
    raised(compile, "a b\n", "file.py", "exec"),
    raised("\ud800".encode),
    raised(b"\xff".decode),
    raised(open, "/no/such/file"),
    FileNotFoundError(2, "gone", "one", None, "two"),
    OSError(13, "denied"),
    OSError("only a text"),
    BlockingIOError(11, "busy", 5),
    StopIteration(5),
    TimeoutError(),
    subprocess.CalledProcessError(3, ["a", "b"], b"out", b"err"),
    raised(json.loads, "{"),
    re.error("bad", "(", 1),
    asyncio.IncompleteReadError(b"abc", 10),
    asyncio.CancelledError("away"),
    KeywordOnly(code=7),
    OddNew(code=8),
    TwoToOne("a", "b"),
    Reduced("h"),
    WrongReduced("w"),
    SystemError("odd \ud800 \0"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_error_round_trip(error):
    """An error comes back as itself: type, sentence, arguments, attributes, C state."""
    found = decode_error(encode_error(error).data)
    assert type(found) is type(error)
    assert str(found) == str(error)
    assert repr(found) == repr(error)
    assert {**vars(found)} == {**vars(error)}
    for name in ("args", "errno", "strerror", "filename", "filename2", "reason", "start", "object",
                 "lineno", "text", "name", "path", "value", "hidden", "code"):  # fmt: skip
        assert getattr(found, name, None) == getattr(error, name, None), name


def test_error_of_a_library_in_c():
    """An error that only its own reduction can restore says what it said."""
    error = raised(lambda: Model(number="x"))
    found = decode_error(encode_error(error).data)
    assert isinstance(found, pydantic.ValidationError)
    assert found.errors() == error.errors()
    assert str(found) == str(error)


def test_c_state_that_is_not_there():
    """An error whose C state was never set, or is answered by code that fails, is stored."""

    class Unset(UnicodeDecodeError):
        def __init__(self):
            self.mine = 1

    class Answers(ImportError):
        @property
        def path(self):
            raise RuntimeError("no path")

    assert decode_error(encode_error(Unset()).data).mine == 1
    assert decode_error(encode_error(Answers("gone", name="x")).data).name == "x"


def test_groups():
    """A group comes back with its errors, odd ones and groups among them."""
    inner = ExceptionGroup("inner", [KeyError("k"), KeywordOnly(code=1)])
    inner.add_note("a note inside")
    error = ExceptionGroup("outer", [OddNew(code=2), inner, Group([ValueError(3)], 4)])
    error.mine = "attribute"
    found = decode_error(encode_error(error).data)
    assert type(found) is ExceptionGroup
    assert str(found) == str(error)
    assert found.mine == "attribute"
    assert [type(one) for one in found.exceptions] == [OddNew, ExceptionGroup, Group]
    assert found.exceptions[0].code == 2
    assert found.exceptions[1].__notes__ == ["a note inside"]
    assert found.exceptions[1].exceptions[1].code == 1
    assert found.exceptions[2].code == 4
    assert found.exceptions[2].message == "group 4"
    assert found.subgroup(KeyError).exceptions[0].exceptions[0].args == ("k",)


def test_a_group_of_interrupts():
    """A group that holds an interrupt stays a group of its kind."""
    found = decode_error(encode_error(BaseExceptionGroup("b", [KeyboardInterrupt()])).data)
    assert isinstance(found.exceptions[0], KeyboardInterrupt)


GROUP = ExceptionGroup("g", [KeyError()])


@pytest.mark.parametrize("error", [ValueError("v"), Reduced("h"), KeepsAll("k"), GROUP])
def test_notes(error):
    """Notes come back, each once."""
    error.add_note("first")
    error.add_note("second")
    assert decode_error(encode_error(error).data).__notes__ == ["first", "second"]


@pytest.mark.parametrize("notes", [5, None, "text", ["fine", 7]])
def test_notes_that_are_none(notes):
    """What was put in the notes' place and is no text does not hold the error up."""
    error = ValueError("v")
    error.__notes__ = notes
    found = decode_error(encode_error(error).data)
    assert str(found) == "v"
    assert getattr(found, "__notes__", []) == (["fine"] if isinstance(notes, list) else [])


class Unprintable:
    """Can neither be pickled nor shown."""

    def __reduce__(self):
        raise TypeError("no")

    def __repr__(self):
        raise RuntimeError("no repr either")


def test_attributes_that_cant_be_stored():
    """They are replaced by their repr, or by their class; the rest of the error is kept."""
    error = KeywordOnly(code=7)
    error.lock = threading.Lock()
    error.unprintable = Unprintable()
    error.fine = [1, 2]
    found = decode_error(encode_error(error).data)
    assert (found.code, found.fine, str(found)) == (7, [1, 2], "code 7")
    assert "lock" in found.lock
    assert found.unprintable == f"<{__name__}.Unprintable>"


def test_arguments_that_cant_be_stored():
    """An error whose arguments can't be pickled is not stored; which ones is said."""
    with pytest.raises(EncodeError, match="can't be pickled"):
        encode_error(ValueError(threading.Lock()))
    with pytest.raises(EncodeError, match="can't be pickled"):
        encode_error(ExceptionGroup("g", [ValueError(threading.Lock())]))


def test_errors_that_cant_come_back():
    """An error that pickles but can't be restored is refused before it is stored."""
    with pytest.raises(EncodeError, match=r"argument of ValueError can't be stored.*no way back"):
        encode_error(ValueError(RaisesOnLoad()))
    error = ValueError("v")
    error.part = RaisesOnLoad()
    assert "RaisesOnLoad" in decode_error(encode_error(error).data).part


class BecomesAnother(Exception):
    """Comes back as no error at all."""

    def __reduce__(self):
        return str, ("not an error",)


def test_a_reduction_that_gives_no_error():
    """A class whose reduction gives something else is taken apart instead."""
    found = decode_error(encode_error(BecomesAnother("x")).data)
    assert isinstance(found, BecomesAnother)
    assert found.args == ("x",)


def test_traceback_text():
    """The traceback is kept as text, with its causes; the error shows where it was raised."""

    def fail():
        try:
            raise KeyError("the cause")
        except KeyError as error:
            raise ValueError("the error") from error

    payload = encode_error(raised(fail))
    text = traceback_text(payload.data)
    assert "the cause" in text
    assert "the error" in text
    assert 'raise ValueError("the error") from error' in text
    found = decode_error(payload.data)
    shown = traceback.extract_tb(found.__traceback__)
    assert [line.name for line in shown] == ["raised", "fail"]
    assert shown[-1].line == 'raise ValueError("the error") from error'
    assert found.__cause__.args == ("the cause",)


def test_an_error_that_cant_say_itself():
    """An error whose ``__str__`` fails is stored all the same."""

    class Mute(Exception):
        def __str__(self):
            raise RuntimeError("mute")

    found = decode_error(encode_error(Mute(1)).data)
    assert found.args == (1,)


def chained():
    """Raise an error with a cause, in the context of another."""
    try:
        {}["k"]
    except KeyError:
        raise KeywordOnly(code=1) from OSError(2, "gone", "f")


def test_what_an_error_hangs_on():
    """Cause and context come back whole; what the first pass gets has the live frames."""
    error = raised(chained)
    settled = settle_error(error)
    for found in (settled.error, decode_error(settled.payload.data)):
        assert found is not error
        assert found.__suppress_context__
        assert (found.__cause__.errno, found.__cause__.filename) == (2, "f")
        assert found.__context__.args == ("k",)
        assert not found.__context__.__suppress_context__
        names = [line.name for line in traceback.extract_tb(found.__traceback__)]
        assert names == ["raised", "chained"]
    assert settled.error.__traceback__ is error.__traceback__
    assert settled.as_text == ()


def test_errors_in_values():
    """An error that a step returns keeps its cause; what can't be pickled of it is refused."""
    error = raised(chained)
    error.__cause__.__cause__ = error
    [found] = decode(encode([error]).data)
    assert found.__cause__.__cause__ is found
    assert found.__context__.args == ("k",)
    error.lock = threading.Lock()
    with pytest.raises(EncodeError, match="lock"):
        encode([error])


def test_an_argument_that_is_an_attribute():
    """What an error holds as an attribute is kept as text there, and among its arguments."""

    class Holds(Exception):
        def __init__(self, lock, code):
            self.lock, self.code = lock, code

        def __str__(self):
            return f"code {self.code}"

    settled = settle_error(Holds(threading.Lock(), 3))
    assert settled.as_text == ("Holds.lock",)
    assert settled.error.args == (settled.error.lock, 3)
    assert str(settled.error) == "code 3"


def test_other_words_are_not_saved():
    """An error that would say something else, or nothing, is refused with the words it has."""

    class Reads(Exception):
        def __init__(self, words, part):
            super().__init__(words)
            self.part = part

        def __str__(self):
            return f"locked {self.part.locked()}"

    error = Reads("w", threading.Lock())
    with pytest.raises(EncodeError, match="Reads would come back with other words than 'locked F"):
        settle_error(error)
    outer = ValueError("v")
    outer.__cause__ = error
    assert settle_error(outer).as_text == ("Reads.part", "str(Reads)")


def test_http_error():
    """An error that is a file too comes back with its code and reason."""
    error = urllib.error.HTTPError("http://x", 404, "Not Found", None, None)
    found = decode_error(encode_error(error).data)
    assert (found.code, found.reason, str(found)) == (404, "Not Found", "HTTP Error 404: Not Found")
    error.close()


def broken_error():
    """Raise an error that nothing can look into."""
    error = ValueError("v")
    error.bad = Unprintable()
    error.__notes__ = 5
    raise error


def test_no_error_stops_a_run(tmp_path):
    """A step whose error is hard to store ends all the same, and replays."""
    for _ in range(2):
        with workflow("w", store=tmp_path / "s.duckdb"):
            error = go(broken_error).outcome().error
            assert str(error) == "v"


# --- signatures ----------------------------------------------------------------------


def test_signature():
    """A signature holds for its key and message alone."""
    signature = sign(b"key", b"message")
    assert len(signature) == 32
    assert signature_holds(b"key", signature, b"message")
    assert not signature_holds(b"other", signature, b"message")
    assert not signature_holds(b"key", signature, b"messagf")
    assert not signature_holds(b"key", signature[:-1], b"message")
    assert not signature_holds(b"key", b"", b"message")


def test_signature_is_that_of_the_standard():
    """It is HMAC-SHA256 as RFC 4231 gives it (test case 2)."""
    expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert sign(b"Jefe", b"what do ya want for nothing?").hex() == expected


def test_compared_in_constant_time(monkeypatch):
    """Signatures are compared by `hmac.compare_digest`."""
    asked = []
    told = types.SimpleNamespace(
        digest=signing.hmac.digest,
        compare_digest=lambda left, right: asked.append((left, right)) or True,
    )
    monkeypatch.setattr(signing, "hmac", told)
    assert signature_holds(b"key", b"anything", b"message")
    assert len(asked) == 1
