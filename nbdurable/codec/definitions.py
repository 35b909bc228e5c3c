"""Classes and functions that no module holds by name: found again in the live program, or apart.

Invariant: restoring one changes nothing in the live program. A class comes back as the
live class of the same qualname, bases and code where there is one: its definition is then
not even unpickled. Else it is made anew, apart from every live class, and that is told.
A function keeps its own code and cells and reads the live globals of its module.

This module pickles nothing itself: `nbdurable.codec.values` hands in what does.
"""

from __future__ import annotations

import contextvars
import dis
import enum
import functools
import importlib
import re
import secrets
import sys
import threading
import types
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from weakref import WeakKeyDictionary, WeakSet, WeakValueDictionary

from nbdurable.errors import DecodeError
from nbdurable.fingerprint.prints import digest16
from nbdurable.fingerprint.source import instructions
from nbdurable.pickled import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

Definition = tuple[bytes, bytes]
"""Two pickles: what makes an empty class, and what fills it (which may name the class)."""

_ATOMS = (type(None), bool, int, float, complex, str, bytes)
_VOLATILE = frozenset({"__dict__", "__weakref__", "__doc__", "__module__", "__annotations__"})
_MOST_ITEMS = 1_000
"""A longer container in a class or a closure is compared by its length."""

_HEARD = frozenset({"__init_subclass__", "__pydantic_init_subclass__"})
_MAKERS = frozenset({"__new__", "__init__", "__prepare__", "mro"})
_QUIET = sys.stdlib_module_names | {"pydantic"}

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_FUNCTIONS = (types.FunctionType, classmethod, staticmethod, property)

# Not `kind.__qualname__`, for which a metaclass may run code of its own.
_qualname: Callable[[type], str] = vars(type)["__qualname__"].__get__

_lock = threading.RLock()
_tokens: WeakKeyDictionary[type, bytes] = WeakKeyDictionary()
_made: WeakValueDictionary[bytes, type] = WeakValueDictionary()
_apart: WeakSet[type] = WeakSet()
_proven: WeakSet[type] = WeakSet()


class Known(NamedTuple):
    """By what a class that is stored by value is found again."""

    module: str
    qualname: str
    kind: type
    bases: tuple[type, ...]
    code: bytes
    later: int


class Decoding:
    """What one decode knows of classes: those of its own encode, those that it has made.

    Args:
        loads: What unpickles.
        known: The live classes that were just encoded.
        say: Is told of a class that was made anew.
        remade: What is made anew though it lives, to see whether that can be done.
    """

    __slots__ = ("_definitions", "_known", "_loads", "_remade", "_restored", "_say", "_token")

    def __init__(
        self,
        loads: Callable[[bytes], Any],
        known: Mapping[bytes, type],
        say: Callable[[str], object] | None,
        remade: Mapping[bytes, Definition] | None = None,
    ) -> None:
        self._loads = loads
        self._known = known
        self._say = say
        self._remade = remade or {}
        self._definitions: dict[bytes, Definition] = dict(self._remade)
        self._restored: dict[bytes, type] = {}

    def __enter__(self) -> Self:
        self._token = _decoding.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _decoding.reset(self._token)

    def restored(
        self, token: bytes, pickled: bytes, definitions: Mapping[bytes, Definition]
    ) -> type:
        """Return the live class that is meant, or one that is made apart from it.

        Args:
            token: The class as this encode has named it.
            pickled: What it is `Known` by, which may name other such classes.
            definitions: What this class and those are made again from.
        """
        self._definitions.update(definitions)
        found = self._restored.get(token) or self._known.get(token)
        if found is None:
            known = Known(*self._loads(pickled))
            found = None if token in self._remade else _live(known)
            if found is None:
                found = self._apart(token, known)
            self._restored[token] = found
        return found

    def _apart(self, token: bytes, known: Known) -> type:
        if token in self._remade:
            return self._make(token, known.qualname)
        with _lock:
            found = _made.get(token)
            if found is None:
                found = self._make(token, known.qualname)
                _tokens[found] = token
                _made[token] = found
        self._tell(known)
        return found

    def remake(self, token: bytes, qualname: str) -> None:
        """Make a class anew, unless another that names it has had it made."""
        if token not in self._restored:
            self._make(token, qualname)

    def _make(self, token: bytes, qualname: str) -> type:
        """Make a class from its definition; while that is read, it can name the class.

        Raises:
            DecodeError: The class can't be made from it.
        """
        try:
            empty, content = self._definitions[token]
            make, arguments = self._loads(empty)
            made: type = make(*arguments)
            made.__qualname__ = qualname
            _apart.add(made)
            self._restored[token] = made
            fill, state = self._loads(content)
            fill(made, state)
        except Exception as error:
            raise DecodeError(
                f"class `{qualname}` can't be made again ({type(error).__name__}: {error}): make "
                f"it outside of steps, before its value is asked for"
            ) from error
        return made

    def _tell(self, known: Known) -> None:
        if self._say is not None:
            self._say(
                f"a saved value is of the class `{known.qualname}`, which nothing has made in this "
                f"session so far: it came back with a class of its own, and `isinstance` and "
                f"`except` take that for another; make the class outside of steps, before its "
                f"value is asked for"
            )


_decoding: contextvars.ContextVar[Decoding] = contextvars.ContextVar("nbdurable_decoding")
_notebook: contextvars.ContextVar[dict[str, Any] | None] = contextvars.ContextVar(
    "nbdurable_notebook", default=None
)


class InNotebook:
    """A block in which ``__main__`` is a given namespace, for what is encoded and decoded."""

    __slots__ = ("_namespace", "_token")

    def __init__(self, namespace: dict[str, Any]) -> None:
        self._namespace = namespace

    def __enter__(self) -> None:
        self._token = _notebook.set(self._namespace)

    def __exit__(self, *_: object) -> None:
        _notebook.reset(self._token)


def main_namespace() -> dict[str, Any]:
    """Return the namespace in which the names of ``__main__`` are looked up."""
    given = _notebook.get()
    return vars(sys.modules["__main__"]) if given is None else given


@frozen("class_of")
def class_of(token: bytes, pickled: bytes, definitions: dict[bytes, Definition]) -> type:
    """Restore a class that was stored by value: what its pickle calls."""
    return _decoding.get().restored(token, pickled, definitions)


@frozen("function_of")
def function_of(
    code: types.CodeType, module: str, closure: tuple[types.CellType, ...] | None
) -> types.FunctionType:
    """Restore a function over the live globals of its module: what its pickle calls."""
    if module == "__main__":
        space = main_namespace()
    else:
        space = vars(sys.modules.get(module) or importlib.import_module(module))
    return types.FunctionType(code, space, closure=closure)


def contents(closure: tuple[types.CellType, ...] | None) -> dict[int, Any]:
    """Return what the cells of a closure hold, by their places; empty ones are left out."""
    full = [(at, cell) for at, cell in enumerate(closure or ()) if _is_full(cell)]
    return {at: cell.cell_contents for at, cell in full}


@frozen("fill_function")
def fill_function(
    function: types.FunctionType, state: tuple[dict[str, Any], dict[str, Any], dict[int, Any]]
) -> None:
    """Set the cells' contents, the defaults and the attributes of a restored function."""
    attributes, slots, held = state
    vars(function).update(attributes)
    closure = function.__closure__ or ()
    for at, content in held.items():
        closure[at].cell_contents = content
    for name, value in slots.items():
        setattr(function, name, value)


def prove(
    definitions: Mapping[bytes, Definition],
    classes: Mapping[bytes, type],
    loads: Callable[[bytes], Any],
) -> None:
    """See once that classes can be made again from what is saved of them.

    Those of whose making the program would hear (``__init_subclass__``, a metaclass) are
    taken at their word.

    Raises:
        DecodeError: One of them can't be made again.
    """
    unproven = {
        token: one
        for token, one in definitions.items()
        if classes[token] not in _proven and _makes_no_noise(classes[token])
    }
    known = {token: kind for token, kind in classes.items() if token not in unproven}
    with (decoding := Decoding(loads, known, None, unproven)):
        for token in unproven:
            decoding.remake(token, _qualname(classes[token]))
    _proven.update(classes[token] for token in unproven)


def _makes_no_noise(kind: type) -> bool:
    """Tell whether making a class like `kind` runs nothing of the program's."""
    meta: type = type(kind)
    heard = [base for base in kind.__mro__[1:] if vars(base).keys() & _HEARD]
    heard += [base for base in meta.__mro__ if vars(base).keys() & _MAKERS]
    return all(one.__module__.partition(".")[0] in _QUIET for one in heard)


@frozen("parametrised")
def parametrised(origin: Any, arguments: tuple[Any, ...]) -> Any:
    """Restore a parametrised generic class: what its pickle calls."""
    return origin[arguments]


def generic(kind: type) -> tuple[Any, tuple[Any, ...]] | None:
    """Return what `kind` is a parametrised class of, and with what; None if it is no such class."""
    said = vars(kind).get("__pydantic_generic_metadata__")
    if not said or said.get("origin") is None:
        return None
    origin, arguments = said["origin"], said["args"]
    return (origin, arguments) if origin[arguments] is kind else None


def live_module(function: types.FunctionType) -> str | None:
    """Return the name of the module whose namespace `function` reads; None if it is of none."""
    if function.__globals__ is _notebook.get():
        return "__main__"
    name = function.__globals__.get("__name__")
    module = sys.modules.get(name) if isinstance(name, str) else None
    return name if module is not None and vars(module) is function.__globals__ else None


def token_of(kind: type) -> bytes:
    """Return by what the pickles of one encode name a class; one that is made again keeps it."""
    with _lock:
        return _tokens.setdefault(kind, secrets.token_bytes(16))


def known_of(kind: type) -> Known:
    """Return by what a class will be found again, in this process or another."""
    name = _qualname(kind)
    first = Known(kind.__module__, name, type(kind), kind.__bases__, code_of(kind), 0)
    equals = _equals(first)
    later = len(equals) - 1 - equals.index(kind) if kind in equals else 0
    return first._replace(later=later)


def _live(known: Known) -> type | None:
    """Return the live class that is meant: of several that are equal, by the order of their making.

    It is counted from the newest, since those that an earlier run of a cell has left behind
    may still be there.
    """
    equals = _equals(known)
    if not equals:
        return None
    return equals[-1 - known.later] if known.later < len(equals) else equals[-1]


def _equals(known: Known) -> list[type]:
    """Return the live classes of this name, these bases and this code, the oldest first."""
    base = known.bases[0] if known.bases else object
    live: list[type] = type.__subclasses__(base)
    return [
        one
        for one in live
        if _qualname(one) == known.qualname
        and one not in _apart
        and one.__module__ == known.module
        and one.__bases__ == known.bases
        and type(one) is known.kind
        and code_of(one) == known.code
    ]


# --- what a class is compared by --------------------------------------------------------


def code_of(kind: type) -> bytes:
    """Return a digest of a class's code: its functions, what they close over, its constants.

    Not of docstrings and positions, and not of what changes while it is used: containers,
    and the attributes that its own functions assign.
    """
    return digest16(repr(_class_text(kind, set())).encode("utf-8", "backslashreplace"))


def _class_text(kind: type, seen: set[int]) -> tuple[Any, ...]:
    seen.add(id(kind))
    written = set(_written(kind))
    parts: list[Any] = [
        (name, _text(value, seen, whole=False))
        for name, value in sorted(vars(kind).items())
        if name not in _VOLATILE
        and name not in written
        and (not name.startswith("__") or isinstance(value, _FUNCTIONS))
    ]
    if isinstance(kind, enum.EnumMeta):
        members: list[enum.Enum] = list(kind)
        parts += [(one.name, _text(one.value, seen, whole=True)) for one in members]
    annotations = vars(kind).get("__annotations__", {})
    said = [(name, _ADDRESS.sub("", str(one))) for name, one in annotations.items()]
    return kind.__module__, kind.__qualname__, tuple(parts), tuple(said)


def _text(value: Any, seen: set[int], *, whole: bool) -> Any:
    """Write a value out, the same in every process; `whole`, with what containers hold."""
    if isinstance(value, enum.Enum):
        return type(value).__qualname__, value.name
    if type(value) in _ATOMS:
        return type(value).__name__, value
    if id(value) in seen:
        return "again", type(value).__qualname__
    if isinstance(value, types.FunctionType):
        return _function_text(value, seen | {id(value)})
    if isinstance(value, classmethod | staticmethod | types.MethodType):
        return type(value).__name__, _text(value.__func__, seen, whole=whole)
    if isinstance(value, property):
        parts = (value.fget, value.fset, value.fdel)
        return "property", [_text(one, seen, whole=whole) for one in parts]
    if isinstance(value, functools.cached_property):
        return "cached_property", _text(value.func, seen, whole=whole)
    if isinstance(value, type):
        local = "<locals>" in value.__qualname__
        return _class_text(value, seen) if local else (value.__module__, value.__qualname__)
    if type(value) in {tuple, frozenset} or (whole and type(value) in {list, dict, set}):
        return _container_text(value, seen | {id(value)}, whole=whole)
    return type(value).__module__, type(value).__qualname__


def _container_text(value: Any, seen: set[int], *, whole: bool) -> Any:
    if len(value) > _MOST_ITEMS:
        return type(value).__name__, len(value)
    if isinstance(value, dict):
        items: list[Any] = [
            (_text(name, seen, whole=whole), _text(one, seen, whole=whole))
            for name, one in value.items()
        ]
    else:
        items = [_text(one, seen, whole=whole) for one in value]
    ordered = sorted(items, key=repr) if isinstance(value, set | frozenset) else items
    return type(value).__name__, ordered


def _function_text(function: types.FunctionType, seen: set[int]) -> Any:
    cells = [
        _text(cell.cell_contents, seen, whole=True) if _is_full(cell) else "empty"
        for cell in function.__closure__ or ()
    ]
    defaults = [_text(one, seen, whole=True) for one in function.__defaults__ or ()]
    keywords = _text(function.__kwdefaults__, seen, whole=True)
    return instructions(_without_docstring(function)), defaults, keywords, cells


def _without_docstring(function: types.FunctionType) -> types.CodeType:
    code = function.__code__
    constants = code.co_consts
    if constants and isinstance(constants[0], str) and constants[0] == function.__doc__:
        return code.replace(co_consts=(None, *constants[1:]))
    return code


def _written(kind: type) -> Iterator[str]:
    """Yield the names of attributes that a class's own functions assign."""
    for value in vars(kind).values():
        function = getattr(value, "__func__", getattr(value, "fget", value))
        if isinstance(function, types.FunctionType):
            for step in dis.get_instructions(function.__code__):
                if step.opname == "STORE_ATTR":
                    yield step.argval


def _is_full(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True
