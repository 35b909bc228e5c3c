"""What pickles in a store name of ours: public names, and names that never move."""

import io
import pickle  # noqa: TID251 - its names are looked at
from concurrent.futures import Future
from typing import Generic, TypeVar

import pytest

import nbdurable
from nbdurable import StepTimeoutError, gather, pickled, select, step
from nbdurable.codec import outcomes, values
from nbdurable.plain import ambient

FROZEN = {
    "ambient_changes", "ambient_edit", "array_over", "block", "block_users", "class_of", "code",
    "defined", "dict_view", "entropy", "error", "fill_error", "fill_function", "fill_objects",
    "fill_own_error", "function_named", "function_of", "future", "itself", "kept", "lru",
    "memoryview_over", "notebook_class", "objects", "parametrised", "proxy", "read_only", "region",
    "set_attributes", "step", "tensor", "view",
}  # fmt: skip
"""Stores hold these names. Add to them; never take one out."""

T = TypeVar("T")


@pytest.fixture
def named(monkeypatch):
    """Return the set of (module, name) that unpickling asks for from now on."""
    asked = set()

    class Unpickler(pickle.Unpickler):
        def find_class(self, module, name):
            asked.add((module, name))
            return super().find_class(module, name)

    def loads(data, *, buffers=None):
        return Unpickler(io.BytesIO(data), buffers=buffers).load()

    monkeypatch.setattr(pickle, "loads", loads)
    return asked


def inner():
    """Return a class, an instance and a closure that no module holds by name."""
    rate = 3

    class Local(Generic[T]):
        def scaled(self, x):
            return x * rate

    def closure(x):
        return select, gather, closure, x * rate

    return Local, Local(), Local[int], closure


@step(retries=2, backoff=0.5, retry_on=OSError, version="7", ignore={"client"})
def quote(source, client=None):
    """Ask for a price."""
    return source


class OwnWay(Exception):
    """An error that says itself how it is pickled."""

    def __reduce__(self):
        return OwnWay, (), {"code": 3}


def finished():
    """Return a future that has its result."""
    done = Future()
    done.set_result(3)
    return done


VALUES = [
    ambient.Entropy(bytes(16), {"random": (3, (1, 2), None)}),
    ambient.Changes({"sys.path": (None, ambient.Edit((), (), ("/x",)))}),
    *inner(),
    quote,
    quote.with_options(name="other"),
    memoryview(b"abc"),
    finished(),
    [quote],
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_name_what_never_moves(named, value):
    """A name of ours in a pickle is public or frozen."""
    values.decode(values.encode(value).data)
    assert_never_moving(named)


ERRORS = [
    OwnWay(),
    StepTimeoutError("quote('a')", 3),
    ExceptionGroup("two", [OSError(1), KeyError("a")]),
    ValueError("a", inner()[0]),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_name_what_never_moves(named, error):
    """So it is in an error's pickle; our own errors go by their public names."""
    outcomes.decode_error(outcomes.encode_error(error).data)
    assert_never_moving(named)
    assert any(module == "nbdurable.pickled" for module, _ in named)


def assert_never_moving(named):
    """Fail if a name of ours is neither public nor frozen."""
    ours = {one for one in named if one[0].partition(".")[0] == "nbdurable"}
    allowed = {("nbdurable.pickled", name) for name in FROZEN}
    allowed |= {("nbdurable", name) for name in nbdurable.__all__}
    assert ours <= allowed


def test_the_frozen_names_are_all_there():
    """A name that goes makes stores unreadable; one that comes is added above."""
    there = {name for name, value in vars(pickled).items() if callable(value)}
    assert there - {"frozen", "TypeVar", "F"} == FROZEN


def test_a_name_is_given_once():
    """Two functions behind one name would be one function to a pickle."""
    with pytest.raises(ValueError, match="pickles know view already"):
        pickled.frozen("view")(inner)


def test_a_step_comes_back_with_its_options():
    """A step in a value is the same step: function, name, policy, version."""
    back = values.decode(values.encode(quote).data)
    assert back("a") == "a"
    assert back._options == quote._options
    assert (back.__name__, back.__doc__) == ("quote", "Ask for a price.")


def test_public_names_say_where_they_are_imported_from():
    """`help`, tracebacks and pickles show `nbdurable.select`, wherever its code lies."""
    for name in nbdurable.__all__:
        assert getattr(nbdurable, name).__module__ == "nbdurable"
