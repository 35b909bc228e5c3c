"""What comes back is what was: errors and classes, in the first process and in the next.

Each program is run twice, in new processes. It says one line about each thing that its
steps gave; no body runs twice, and the second process must say what the first one said.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from nbdurable.api import open_stores
from nbdurable.store import Store

pytestmark = pytest.mark.timeout(120)

ERRORS = """
import concurrent.futures, json, socket, sqlite3, sys, threading
import httpx, pandas, pydantic, requests, sqlalchemy, tenacity
from nbdurable import step, workflow

class Slots(Exception):
    __slots__ = ("code",)
    def __init__(self, code): self.code = code
class SubSlots(Slots):
    __slots__ = ("__hidden", "unset")
    def __init__(self, code):
        super().__init__(code)
        self.__hidden = "h"
    def hidden(self): return self.__hidden
class ApiError(Exception):
    def __init__(self, message, request, *, body):
        super().__init__(message)
        self.message, self.request, self.body = message, request, body
class ApiStatusError(ApiError):
    def __init__(self, message, *, response, body):
        super().__init__(message, response.request, body=body)
        self.response, self.status_code = response, response.status_code
class Said(Exception):
    def __init__(self, path, *, line):
        super().__init__(path)
        self.path, self.line = path, line
    def __str__(self): return f"{self.path}:{self.line}"
class Guarded(Exception):
    def __init__(self, lock): self.lock = lock
class Holds(Exception):
    def __init__(self, words, **parts):
        super().__init__(words)
        vars(self).update(parts)
class Refuses(Exception):
    def __setattr__(self, name, value): raise AttributeError(name)
class Falsy(Exception):
    def __bool__(self): return False
def local():
    class LocalError(Exception):
        def __init__(self, *, code): self.code = code
        def __str__(self): return f"code {self.code}"
    class Narrower(LocalError): pass
    return LocalError, Narrower
LocalError, Narrower = local()
class Model(pydantic.BaseModel):
    number: int

def slots(): raise SubSlots(429)
def keyword_only():
    request = httpx.Request("GET", "http://u/")
    raise ApiStatusError("slow down", response=httpx.Response(429, request=request), body={"a": 1})
def text_of_attributes(): raise Said("a.py", line=3)
def requests_connection(): requests.get("http://127.0.0.1:9/")
def requests_status():
    response = requests.Response()
    response.status_code, response.reason, response.url = 500, "no", "http://u/"
    response.raise_for_status()
def requests_json():
    response = requests.Response()
    response._content = b"{"
    response.json()
def httpx_connection(): httpx.get("http://127.0.0.1:9/")
def httpx_status(): httpx.Response(503, request=httpx.Request("GET", "http://u/")).raise_for_status()
def of_pydantic(): Model(number="x")
def pandas_key(): pandas.DataFrame({"a": [1]})["b"]
def pandas_merge():
    two = pandas.DataFrame({"a": [1, 1]})
    two.merge(two, on="a", validate="1:1")
def of_sqlalchemy():
    with sqlalchemy.create_engine("sqlite://").connect() as connection:
        connection.execute(sqlalchemy.text("SELECT * FROM nowhere"))
def of_tenacity():
    @tenacity.retry(stop=tenacity.stop_after_attempt(2))
    def tried(): raise ValueError("again")
    tried()
def of_locals(): raise Narrower(code=3)
def caused():
    try:
        raise TimeoutError("slow upstream")
    except TimeoutError as low:
        raise RuntimeError("fetch failed") from low
def in_context():
    try:
        {}["k"]
    except KeyError:
        raise ValueError("while") from None
def noted():
    error = ValueError("v")
    error.add_note("first")
    error.add_note("second")
    raise error
def grouped():
    inner = Said("b.py", line=4)
    inner.__cause__ = OSError(2, "gone", "f")
    raise ExceptionGroup("g", [inner, ExceptionGroup("h", (SubSlots(5), KeyError("k")))])
def cyclic():
    one, two = ValueError("one"), KeyError("two")
    one.__cause__, two.__cause__, one.mine = two, one, one
    raise one
def deep():
    error = ValueError(0)
    for number in range(1, 3000):
        last, error = error, ValueError(number)
        error.__cause__ = last
    raise error
def deep_group():
    error = ValueError(0)
    for number in range(90): error = ExceptionGroup(str(number), [error])
    raise error
def with_lock(): raise Guarded(threading.Lock())
def with_socket():
    one = socket.socket()
    one.close()
    raise Holds("no", socket=one, fine=[1])
def with_error():
    inner = Holds("inner", left=1)
    inner.__cause__ = KeyError("why")
    raise Holds("outer", inner=inner)
def cause_with_lock():
    raise ValueError("v") from Holds("low", lock=threading.Lock())
def refuses(): raise Refuses("x")
def falsy():
    raise ValueError("v") from Falsy("f")
def leaves(): raise SubSlots(1) from sqlite3.OperationalError("locked")

KINDS = [
    slots, keyword_only, text_of_attributes, requests_connection, requests_status, requests_json,
    httpx_connection, httpx_status, of_pydantic, pandas_key, pandas_merge, of_sqlalchemy,
    of_tenacity, of_locals, caused, in_context, noted, grouped, cyclic, deep, deep_group,
    with_lock, with_socket, with_error, cause_with_lock, refuses, falsy, leaves,
]

def one(error):
    parts = {name: part if type(part) in {int, str} else type(part).__name__
             for name, part in vars(error).items()}
    said = [type(error).__qualname__, str(error), repr(error), repr(parts)]
    if isinstance(error, tenacity.RetryError):
        said[1:3] = [str(error.last_attempt.attempt_number), repr(error.last_attempt.exception())]
    if isinstance(error, Slots):
        said.append(f"{error.code} {error.hidden()} {hasattr(error, 'unset')}")
    return " ".join(said)

def about(error):
    said, seen, stack = [], set(), [error]
    while stack and len(said) < 12:
        error = stack.pop()
        if error is None or id(error) in seen: continue
        seen.add(id(error))
        links = type(error.__cause__).__name__, type(error.__context__).__name__
        said.append(f"{one(error)} {links} {error.__suppress_context__}")
        stack += [error.__context__, error.__cause__, vars(error).get("inner")]
        if isinstance(error, BaseExceptionGroup): stack += reversed(error.exceptions)
    return " | ".join(said)

with workflow("errors", store="s.duckdb") as run:
    for kind in KINDS:
        handle = step(kind).go()
        try:
            handle.result()
        except LocalError as error:
            found = f"caught {type(error) is Narrower} " + about(error)
        except Exception as error:
            found = about(error)
        print(json.dumps([kind.__name__, found]))
"""

CLASSES = """
import abc, collections, dataclasses, enum, functools, json, typing
import pydantic
from nbdurable import step, workflow

RATE = 1
T = typing.TypeVar("T")

class Row(pydantic.BaseModel):
    x: int
class Page(pydantic.BaseModel, typing.Generic[T]):
    items: list[T]
class Box(typing.Generic[T]):
    def __init__(self, content): self.content = content

def make():
    class Base:
        def total(self): return self.amount * RATE
    class Price(Base):
        made = 0
        kept = {}
        def __init__(self, amount):
            self.amount = amount
            Price.made += 1
            Price.kept[amount] = self.amount
        def total(self): return super().total()
        def itself(self): return Price
        class Unit:
            name = "EUR"
    @dataclasses.dataclass
    class Data:
        x: int
        y: list = dataclasses.field(default_factory=list)
    @dataclasses.dataclass(frozen=True, slots=True)
    class Frozen:
        x: int
    class Named(typing.NamedTuple):
        a: int
        b: str = "q"
    class Colour(enum.Enum):
        RED = 1
        BLUE = "b"
        def shown(self): return self.name.lower()
    class Flags(enum.Flag):
        X = enum.auto()
        Y = enum.auto()
    class Number(enum.IntEnum):
        THREE = 3
    class Abstract(abc.ABC):
        @abc.abstractmethod
        def rate(self): ...
    class Concrete(Abstract):
        def rate(self): return RATE
        @property
        def double(self): return 2 * RATE
        @functools.cached_property
        def triple(self): return 3 * RATE
        @classmethod
        def made(cls): return cls()
    class Meta(type):
        pass
    class OfMeta(metaclass=Meta):
        pass
    class Generic(typing.Generic[T]):
        def __init__(self, content): self.content = content
    class Model(pydantic.BaseModel):
        x: int
        rows: list[Row] = []
    class Slots:
        __slots__ = ("a", "__dict__")
    Pair = collections.namedtuple("Pair", "u v")
    Dynamic = type("Dynamic", (), {"rate": lambda self: RATE})
    class Wrong(Exception):
        pass
    return collections.namedtuple("Made", list(locals()))(**locals())
M = make()

def of_rate(rate):
    class Rated:
        def total(self): return 10 * rate
    return Rated
One, Two, Same, Twin = of_rate(1), of_rate(2), of_rate(3), of_rate(3)

@functools.cache
def late():
    class Late:
        pass
    return Late

def price(): return M.Price(3)
def nested(): return M.Price.Unit()
def the_class(): return M.Price
def data(): return M.Data(1, [2])
def frozen(): return M.Frozen(1)
def named(): return M.Named(1), M.Pair(1, 2)
def members(): return M.Colour.RED, M.Colour.BLUE, M.Flags.X | M.Flags.Y, M.Number.THREE
def abstract(): return M.Concrete.made()
def of_meta(): return M.OfMeta()
def dynamic(): return M.Dynamic()
def generics(): return M.Generic[Row](3), Box[Row](4), Box[M.Data](5)
def pages():
    models = Page[M.Model](items=[M.Model(x=2)])
    return Page[Row](items=[Row(x=1)]), models, Page[list[Row]](items=[])
def page_class(): return Page[Row]
def variables(): return T, list[T], dict[str, M.Price], Row | None
def model(): return M.Model(x=2)
def slots():
    made = M.Slots()
    made.a, made.b = 1, 2
    return made
def rated(): return One(), Two(), Same(), Twin()
def functions():
    k = 4
    return (lambda: RATE), (lambda: (RATE, k, M.Price)), M.Price(5).total
def in_body():
    class Body:
        def rate(self): return RATE
    return Body(), of_rate(7)()
def errors(): return [M.Wrong("a"), ValueError("b")]
def wrong(): raise M.Wrong("c")
def made_late(): return late()()

KINDS = [
    price, nested, the_class, data, frozen, named, members, abstract, of_meta, dynamic, generics,
    pages, page_class, variables, model, slots, rated, functions, in_body, errors,
]

def about(name, v):
    match name:
        case "price":
            live = M.Price(1).total(), M.Price.total.__globals__ is globals()
            return type(v) is M.Price, isinstance(v, M.Base), v.total(), v.itself() is M.Price, live
        case "nested": return type(v) is M.Price.Unit, v.name
        case "the_class": return v is M.Price
        case "data": return type(v) is M.Data, v == M.Data(1, [2]), repr(v)
        case "frozen": return type(v) is M.Frozen, v == M.Frozen(1)
        case "named": return type(v[0]) is M.Named, v[0].b, type(v[1]) is M.Pair, v[1].u
        case "members":
            kept = v[0] is M.Colour.RED, v[1] is M.Colour.BLUE, v[3] is M.Number.THREE
            return *kept, v[2] == M.Flags.X | M.Flags.Y, v[0].shown()
        case "abstract":
            kinds = type(v) is M.Concrete, isinstance(v, M.Abstract)
            return *kinds, v.rate(), v.double, v.triple
        case "of_meta": return type(v) is M.OfMeta, type(type(v)) is M.Meta
        case "dynamic": return type(v) is M.Dynamic, v.rate()
        case "generics":
            said = [one.__orig_class__ for one in v]
            return type(v[0]) is M.Generic, said == [M.Generic[Row], Box[Row], Box[M.Data]]
        case "pages":
            kinds = [type(one) for one in v]
            rows = type(v[0].items[0]) is Row, type(v[1].items[0]) is M.Model
            is_page = isinstance(v[0], Page)
            return kinds == [Page[Row], Page[M.Model], Page[list[Row]]], rows, is_page
        case "page_class": return v is Page[Row]
        case "variables": return v[0] is T, v[1:] == (list[T], dict[str, M.Price], Row | None)
        case "model": return type(v) is M.Model, v == M.Model(x=2)
        case "slots": return type(v) is M.Slots, v.a, v.b
        case "rated":
            kinds = [type(one) for one in v]
            return kinds == [One, Two, Same, Twin], [one.total() for one in v]
        case "functions": return v[0](), v[1]()[:2], v[1]()[2] is M.Price, v[2]()
        case "in_body":
            names = [type(one).__qualname__ for one in v]
            return v[0].rate(), names, isinstance(v[1], One), v[1].total()
        case "errors": return type(v[0]) is M.Wrong, [str(one) for one in v]

with workflow("classes", store="s.duckdb") as run:
    found = {kind.__name__: step(kind)() for kind in KINDS}
    RATE = 5
    for name, value in found.items():
        print(json.dumps([name, repr(about(name, value))]))
    try:
        step(wrong)()
    except M.Wrong as error:
        print(json.dumps(["wrong", str(error)]))
"""

EXPECTED = {
    "price": "(True, True, 15, True, (5, True))",
    "nested": "(True, 'EUR')",
    "the_class": "True",
    "data": "(True, True, 'make.<locals>.Data(x=1, y=[2])')",
    "frozen": "(True, True)",
    "named": "(True, 'q', True, 1)",
    "members": "(True, True, True, True, 'red')",
    "abstract": "(True, True, 5, 10, 15)",
    "of_meta": "(True, True)",
    "dynamic": "(True, 5)",
    "generics": "(True, True)",
    "pages": "(True, (True, True), True)",
    "page_class": "True",
    "variables": "(True, True)",
    "model": "(True, True)",
    "slots": "(True, 1, 2)",
    "rated": "(True, [10, 20, 30, 30])",
    "functions": "(5, (5, 4), True, 25)",
    "in_body": "(5, ['in_body.<locals>.Body', 'of_rate.<locals>.Rated'], False, 70)",
    "errors": "(True, ['a', 'b'])",
    "wrong": "c",
}

ERROR_PARTS = {
    "slots": "SubSlots 429 SubSlots(429) {} 429 h False ('NoneType', 'NoneType') False",
    "keyword_only": "'status_code': 429",
    "text_of_attributes": "Said a.py:3 Said('a.py')",
    "requests_connection": "ConnectionError HTTPConnectionPool(host='127.0.0.1', port=9): Max",
    "requests_status": "HTTPError 500 Server Error: no for url: http://u/",
    "requests_json": "JSONDecodeError",
    "httpx_connection": "ConnectError [Errno",
    "httpx_status": "HTTPStatusError",
    "of_pydantic": "ValidationError 1 validation error for Model",
    "pandas_key": "KeyError 'b' KeyError('b')",
    "pandas_merge": "MergeError",
    "of_sqlalchemy": "OperationalError (sqlite3.OperationalError) no such table: nowhere",
    "of_tenacity": "RetryError 2 ValueError('again')",
    "of_locals": "caught True local.<locals>.Narrower code 3",
    "caused": "('TimeoutError', 'TimeoutError') True | TimeoutError slow upstream",
    "in_context": "('NoneType', 'KeyError') True | KeyError 'k'",
    "noted": "ValueError v",
    "grouped": "h (2 sub-exceptions)",
    "cyclic": "('KeyError', 'NoneType') True | KeyError 'two'",
    "deep": "ValueError 2999 ",
    "deep_group": "ExceptionGroup 89 (1 sub-exception)",
    "with_lock": "Guarded <unlocked _thread.lock object",
    "with_socket": "'fine': 'list'",
    "with_error": "KeyError 'why'",
    "cause_with_lock": "| Holds low",
    "refuses": "Refuses x Refuses('x')",
    "falsy": "| Falsy f",
    "leaves": "| OperationalError locked",
}


class Process(NamedTuple):
    """What one process has said of each kind, what it has said to its user, what it ran."""

    said: dict
    told: str
    bodies: int


def run(folder, program, **options):
    """Run a program in a new process."""
    path = folder / "program.py"
    path.write_text(program + "\nimport sys\nprint(*run.notes, sep=chr(10), file=sys.stderr)\n")
    done = subprocess.run(
        [sys.executable, path.name],
        cwd=folder,
        env={**os.environ, **options},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = dict(json.loads(line) for line in done.stdout.splitlines())
    store = Store.open(folder / "s.duckdb")
    try:
        [(bodies,)] = store.rows("SELECT count(*) FROM nbdurable.checkpoints WHERE execution > 1")
    finally:
        store.close()
        open_stores.close_stores()
    return Process(said, done.stderr, bodies)


@pytest.fixture(scope="module")
def errors(tmp_path_factory):
    """Two processes that have met every error."""
    folder = tmp_path_factory.mktemp("errors")
    return [run(folder, ERRORS, PYTHONHASHSEED=seed) for seed in "12"]


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    """Two processes that have met every class."""
    folder = tmp_path_factory.mktemp("classes")
    return [run(folder, CLASSES, PYTHONHASHSEED=seed) for seed in "12"]


@pytest.mark.parametrize("kind", ERROR_PARTS)
def test_an_error_comes_back_as_it_was(errors, kind):
    """Type, words, attributes, slots, causes, contexts and members, on both passes."""
    first, again = errors
    assert ERROR_PARTS[kind] in first.said[kind]
    assert again.said[kind] == first.said[kind]


def test_no_error_is_met_twice(errors):
    """Every one of them was saved: the second process runs no body."""
    assert set(errors[0].said) == set(ERROR_PARTS)
    assert errors[1].bodies == 0


def test_what_is_kept_as_text_is_told_on_the_first_pass(errors):
    """Of which attributes only a text came back is said, once, when the step ends."""
    told = errors[0].told
    assert "with_socket(): of its error, `Holds.socket` can't be pickled and came back" in told
    assert "with_lock(): of its error, `Guarded.lock` can't be pickled" in told
    assert "cause_with_lock(): of its error, `Holds.lock` can't be pickled" in told
    assert "requests_connection(): of its error, `MaxRetryError.pool`" in told
    assert "keyword_only(): of its error" not in told
    assert "came back as text" not in errors[1].told


@pytest.mark.parametrize("kind", EXPECTED)
def test_a_class_comes_back_as_the_live_one(classes, kind):
    """`isinstance`, `except`, members and globals mean the same on both passes."""
    first, again = classes
    assert first.said[kind] == EXPECTED[kind]
    assert again.said[kind] == EXPECTED[kind]


def test_a_class_that_is_not_made_again_is_told(classes):
    """What only a step's body makes comes back apart from the live classes; that is said once."""
    first, again = classes
    assert "nothing has made in this session" not in first.told
    assert again.told.count("`in_body.<locals>.Body`, which nothing has made") == 1
    assert again.told.count("which nothing has made") == 2
    assert again.bodies == 0


TOUCHED = """
import enum, json, sys
from nbdurable import step, workflow

RATE = 1
def make():
    class Price:
        seen = []
        def total(self): return RATE
    class Colour(enum.Enum):
        RED = 1
    return Price, Colour
Price, Colour = make()
def parts():  # but for what `object.__reduce_ex__` keeps there
    kept = dict(vars(Price)), dict(vars(Colour)), dict(Colour._member_map_)
    kept[0].pop("__slotnames__", None)
    return kept
before = parts()
builtins = globals()["__builtins__"]

@step
def build(n):
    return Price(), Colour.RED, lambda: RATE

with workflow("touched", store="s.duckdb") as run:
    price, red, function = build(1)
    names = set(globals())
    RATE = 5
    function()
print(json.dumps(["classes", parts() == before]))
print(json.dumps(["globals", globals()["__builtins__"] is builtins]))
print(json.dumps(["read", [price.total(), function(), function.__globals__ is globals()]]))
print(json.dumps(["members", [red is Colour.RED, len(Colour)]]))
"""


def test_saving_and_replaying_change_nothing_in_the_program(tmp_path):
    """The live classes keep the very functions that they had, the globals what they held."""
    for _ in range(2):
        found = run(tmp_path, TOUCHED).said
        assert found == {
            "classes": True,
            "globals": True,
            "read": [5, 5, True],
            "members": [True, 1],
        }


LATER = """
import functools, json
from nbdurable import step, workflow

@functools.cache
def late():
    class Late:
        pass
    return Late

@step
def first(n): return late()()
@step
def second(n): return late()()

with workflow("later", store="s.duckdb") as run:
    one = first(1)
    print(json.dumps(["one", isinstance(one, type(one))]))
    late()
    two = second(1)
    print(json.dumps(["two", isinstance(two, late())]))
    print(json.dumps(["twice", type(first(1)) is type(first.go(1).result())]))
"""


def test_a_class_that_is_made_later(tmp_path):
    """Once its function has run, values are of the live class; one that came before is told."""
    first, again = run(tmp_path, LATER), run(tmp_path, LATER)
    assert first.said == again.said == {"one": True, "two": True, "twice": True}
    assert "made in this session" in again.told


OTHER = """
import json
from nbdurable import step, workflow

def make(rate):
    class Price:
        def total(self): return rate
    return Price
{live}

@step
def build(n): return make(1)()

with workflow("other", store="s.duckdb") as run:
    found = build(1)
    print(json.dumps(["total", found.total()]))
    print(json.dumps(["live", "Live" in globals() and isinstance(found, Live)]))
"""


@pytest.mark.parametrize("live", ["", "Live = make(2)"], ids=["none", "of another rate"])
def test_a_class_with_other_code_is_not_taken_for_it(tmp_path, live):
    """A live class of the same name that closes over something else is another class."""
    assert run(tmp_path, OTHER.format(live="")).said == {"total": 1, "live": False}
    assert run(tmp_path, OTHER.format(live=live)).said == {"total": 1, "live": False}


ENDS = """
import json
from nbdurable import step, workflow

@step
def rows(n):
    print("rows")
    return (one for one in range(3))
@step
def lines(n):
    print("lines")
    return open(__file__)
@step
def inside(n):
    print("inside")
    return {"file": open(__file__, "rb")}
@step
async def numbers(n):
    print("numbers")
    async def each():
        yield 1
    return each()
@step
def refused(n):
    print("refused")
    raise ValueError(open(__file__))

with workflow("ends", store="s.duckdb") as run:
    out = []
    import contextlib, io
    with contextlib.redirect_stdout(io.StringIO()) as caught:
        found = list(rows(1)), lines(1).readline(), inside(1)["file"].read(1)[:0]
        kind = type(numbers.go(1).result()).__name__
        try: refused(1)
        except ValueError as error: held = type(error.args[0]).__name__
print(json.dumps(["found", [found[0], found[1], kind, held]]))
"""


def test_what_is_open_is_handed_over_and_not_saved(tmp_path):
    """A generator and an open file are the caller's; the reason and the cure are told."""
    for _ in range(2):
        found = run(tmp_path, ENDS)
        assert found.said["found"] == [[0, 1, 2], "\n", "async_generator", "TextIOWrapper"]
        assert "rows(1): not saved: a generator can't be stored; return a list" in found.told
        assert "lines(1): not saved: an open file can't be stored; return its path" in found.told
        assert "inside(1): not saved: an open file can't be stored; return its" in found.told
        assert "numbers(1): not saved: an async generator can't be stored" in found.told
        assert (
            "refused(1): not saved: an argument of ValueError can't be stored: "
            "an open file can't be stored; return its path"
        ) in found.told
    store = Store.open(Path(tmp_path) / "s.duckdb")
    try:
        assert store.rows("SELECT count(*) FROM nbdurable.checkpoints") == [(0,)]
    finally:
        store.close()
