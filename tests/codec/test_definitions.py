"""Classes and functions that no module holds by name: found again, or made apart."""

import abc
import concurrent.futures
import functools
import gc
import sys
import threading
import types
import typing

import pytest

from nbdurable import DecodeError, EncodeError
from nbdurable.codec.outcomes import settle_error, settle_value
from nbdurable.codec.values import decode, encode

RATE = 1

SOURCE = """
def make(rate=1):
    class Price:
        made = 0
        kept = {}
        limit = 10
        def __init__(self, amount=1):
            self.amount = amount
            Price.made += 1
            Price.kept[amount] = amount
        def total(self):
            return self.amount * rate
    return Price
"""


def make_of(source, **values):
    """Return what `make` of a source gives, as code of this module."""
    space = {"__name__": __name__}
    exec(source, space)
    function = space["make"]
    return types.FunctionType(
        function.__code__, globals(), "make", function.__defaults__, function.__closure__
    )(**values)


@pytest.fixture(autouse=True)
def _nothing_left():
    """Leave no class of another test alive."""
    yield
    gc.collect()


# --- the live class --------------------------------------------------------------------


def test_the_live_class_is_given_back_untouched():
    """The class of an instance is the live one, whose functions stay the very same."""
    live = make_of(SOURCE)
    before = dict(vars(live))
    data = encode(live(3)).data
    before |= {"made": 1, "__slotnames__": live.__slotnames__}
    assert type(decode(data)) is live
    assert dict(vars(live)) == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("def make(", "\n\n\ndef make("),
        ("def total(self):", 'def total(self):\n            "Say so."'),
        ("class Price:", "class Price:\n        'A price.'"),
        ("kept = {}", "kept = {9: 9}"),
        ("made = 0", "made = 5"),
    ],
    ids=["position", "docstring", "class docstring", "container", "counter"],
)
def test_what_is_no_code_does_not_part_classes(old, new):
    """Positions, docstrings, containers, and what the class's own code assigns don't count."""
    data = encode(make_of(SOURCE)()).data
    gc.collect()
    live = make_of(SOURCE.replace(old, new))
    assert type(decode(data)) is live


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("* rate", "+ rate"),
        ("amount=1", "amount=2"),
        ("limit = 10", "limit = 11"),
        ("rate=1", "rate=2"),
        ("Price", "Cost"),
        ("class Price:", "class Price(list):"),
        ("limit = 10", "limit: int = 10"),
        ("limit = 10", "limit = 10\n        more = 1"),
        ("def total(self)", "@property\n        def total(self)"),
    ],
    ids=["code", "default", "constant", "closure", "name", "base", "annotation", "more", "kind"],
)
def test_what_is_code_parts_classes(old, new):
    """A live class that differs in its code is another: the value comes back apart from it."""
    data = encode(make_of(SOURCE)(4)).data
    gc.collect()
    live = make_of(SOURCE.replace(old, new))
    said = []
    found = decode(data, say=said.append)
    assert type(found) is not live
    assert type(found).__qualname__ == "make.<locals>.Price"
    assert (found.total(), type(found).limit) == (4, 10)
    [line] = said
    assert line.startswith("a saved value is of the class `make.<locals>.Price`, which nothing")


def test_of_equal_classes_the_newest_is_meant():
    """What an earlier run of a cell has left behind is not taken for the class of today."""
    old = make_of(SOURCE)
    data = encode(old()).data
    new = make_of(SOURCE)
    assert type(decode(data)) is new
    _, settled = settle_value(old())
    assert type(settled) is old, "what was just encoded is known"


def test_equal_classes_are_told_by_their_order():
    """Two that are equal are counted from the newest, in another session as in this."""
    one, two = make_of(SOURCE), make_of(SOURCE)
    data = encode([one(), two()]).data
    assert [type(found) for found in decode(data)] == [one, two]
    again = make_of(SOURCE), make_of(SOURCE)
    assert [type(found) for found in decode(data)] == list(again)


class Noisy(type):
    """A metaclass that answers for names with code of its own."""

    def __getattribute__(cls, name):
        if name == "__qualname__":
            raise RuntimeError("asked")
        return super().__getattribute__(name)


def test_other_classes_run_no_code():
    """Live classes are compared by name without running what their metaclass says."""

    class Loud(metaclass=Noisy):
        pass

    live = make_of(SOURCE)
    assert type(decode(encode(live()).data)) is live
    assert type(Loud) is Noisy


# --- apart ------------------------------------------------------------------------------

NESTED = """
def make():
    class Base:
        registered = []
        def total(self):
            return RATE
        def other(self):
            return Derived
    class Derived(Base):
        parent = Base
        def itself(self):
            return __class__
        def total(self):
            return super().total()
    return Derived
"""


def test_apart_classes_are_whole(monkeypatch):
    """A class that is made anew has its bases, itself and live globals, once a session."""
    data = encode(make_of(NESTED)()).data
    other = encode(make_of(NESTED)()).data
    gc.collect()
    found = decode(data)
    kind = type(found)
    assert kind.__mro__[1] is kind.parent
    assert found.itself() is found.other() is kind
    assert type(decode(data)) is kind
    assert type(decode(encode(found).data)) is kind
    assert type(decode(other)) is not kind, "two that were two stay two"
    monkeypatch.setitem(globals(), "RATE", 7)
    assert found.total() == 7


def test_a_class_that_is_made_later_is_found():
    """What is apart is never taken for a live class, and gives way to it."""
    data = encode(make_of(SOURCE)()).data
    gc.collect()
    apart = type(decode(data))
    live = make_of(SOURCE)
    assert type(decode(data)) is live is not apart


def test_abstract_classes_and_slots():
    """Classes with metaclass, slots and abstract methods come back apart as well."""

    def made():
        class Abstract(abc.ABC):
            @abc.abstractmethod
            def one(self): ...

        class Concrete(Abstract):
            __slots__ = ("a",)

            def one(self):
                return self.a

        found = Concrete()
        found.a = 3
        return found

    data = encode(made()).data
    gc.collect()
    found = decode(data)
    assert found.one() == 3
    assert type(type(found)) is abc.ABCMeta
    with pytest.raises(TypeError, match="abstract"):
        type(found).__mro__[1]()


def test_many_threads_make_one_class():
    """Threads that decode at one moment get one class that is made apart."""
    data = encode(make_of(SOURCE)()).data
    gc.collect()
    gate = threading.Barrier(8)

    def found():
        gate.wait()
        return decode(data)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(found) for _ in range(8)]
        values = [future.result() for future in futures]
    assert len({type(value) for value in values}) == 1
    assert all(value.total() == 1 for value in values)


def test_what_cant_be_made_again_is_not_saved():
    """A class whose definition gives no class is refused before it is saved."""

    def made():
        return typing.TypedDict("Fields", {"a": int})

    with pytest.raises(EncodeError, match=r"class `Fields` can't be made again \(TypeError.*make"):
        settle_value([made()])

    class Wrong(Exception):
        fields = made()

    with pytest.raises(EncodeError, match="class `Fields` can't be made again"):
        settle_error(Wrong("x"))


class Registered:
    """Keeps its subclasses, as plug-ins do."""

    kept: typing.ClassVar = []

    def __init_subclass__(cls):
        Registered.kept.append(cls)


class Registers(type):
    """A metaclass that keeps its classes."""

    kept: typing.ClassVar = []

    def __init__(cls, *arguments):
        super().__init__(*arguments)
        Registers.kept.append(cls)


def test_saving_makes_no_class_that_the_program_hears_of():
    """Where a base or a metaclass keeps its classes, saving adds none."""

    class Plugin(Registered):
        pass

    class Kept(metaclass=Registers):
        pass

    class Error(Exception, metaclass=Registers):
        pass

    assert [type(one) for one in settle_value([Plugin(), Kept()])[1]] == [Plugin, Kept]
    assert type(settle_error(Error()).error) is Error
    assert Registered.kept == [Plugin]
    assert Registers.kept == [Kept, Error]
    kept = object.__subclasses__()
    settle_value([Plugin(), Kept()])
    assert object.__subclasses__() == kept


# --- functions --------------------------------------------------------------------------


def test_a_function_reads_live_globals(monkeypatch):
    """A restored function has the globals of its module, and leaves them as they are."""
    builtins = globals()["__builtins__"]
    found = decode(encode(lambda: RATE).data)
    assert found.__globals__ is globals()
    assert globals()["__builtins__"] is builtins
    monkeypatch.setitem(globals(), "RATE", 9)
    assert found() == 9


def test_functions_that_share_a_variable():
    """A cell that two functions share is one cell afterwards, too, and another than before."""
    count = 0

    def add():
        nonlocal count
        count += 1
        return count

    def get():
        return count

    def factorial(number):
        return 1 if number < 2 else number * factorial(number - 1)

    add_again, get_again, factorial_again = decode(encode((add, get, factorial)).data)
    assert (add_again(), add_again(), get_again(), get()) == (1, 2, 2, 0)
    assert factorial_again(5) == 120
    assert factorial_again.__closure__[0].cell_contents is factorial_again


def test_a_function_of_a_module_that_is_gone(monkeypatch):
    """The error names the module."""
    module = types.ModuleType("fleeting")
    exec("value = 2\nmade = lambda: value", vars(module))
    monkeypatch.setitem(sys.modules, "fleeting", module)
    data = encode(module.made).data
    assert decode(data)() == 2
    monkeypatch.delitem(sys.modules, "fleeting")
    with pytest.raises(DecodeError, match="No module named 'fleeting'"):
        decode(data)


def test_a_function_of_no_module():
    """Globals that are no module's are saved with the function, apart from the live ones."""
    space = {"value": 3, "__name__": "nowhere"}
    exec("def made(): return value", space)
    found = decode(encode(space["made"]).data)
    space["value"] = 4
    assert found() == 3


# --- generics, futures, files -----------------------------------------------------------


def test_a_variable_of_the_notebook(monkeypatch):
    """A type variable that the notebook has is that variable."""
    variable = typing.TypeVar("variable")
    monkeypatch.setattr(sys.modules["__main__"], "variable", variable, raising=False)
    assert decode(encode(list[variable]).data).__args__[0] is variable


def test_a_finished_future():
    """A future that is over comes back with its result or error; one under way can't."""
    done, failed, waiting = (concurrent.futures.Future() for _ in range(3))
    done.set_result([1])
    done.mine = "attribute"
    failed.set_exception(ValueError("v"))
    done_again, failed_again = decode(encode([done, failed]).data)
    assert (done_again.result(), done_again.mine) == ([1], "attribute")
    assert failed_again.exception().args == ("v",)
    called = []
    done_again.add_done_callback(called.append)
    assert called == [done_again]
    with pytest.raises(EncodeError, match="can't be pickled"):
        encode(waiting)


def test_standard_streams_are_names(monkeypatch, tmp_path):
    """What writes to the screen is stored as the name of the screen."""
    with (tmp_path / "screen").open("w") as screen:
        monkeypatch.setattr(sys, "stdout", screen)
        found = decode(encode(functools.partial(print, file=screen)).data)
        assert found.keywords["file"] is screen


def test_open_files_are_refused(tmp_path):
    """An open file, alone or inside, is refused with what to do instead."""
    for mode in ("w", "r", "r+", "wb", "rb", "r+b"):
        with (tmp_path / "f").open(mode) as file:
            for value in (file, {"deep": [file]}):
                with pytest.raises(EncodeError) as caught:
                    encode(value)
                assert caught.value.cure == "return its path, or what it holds"
                assert "an open file can't be stored; return" in str(caught.value)
