"""Values to payloads and back, and the signature over what is stored.

Invariant: the only module that pickles or unpickles. It never decides whether a
payload may be unpickled: callers verify the signature first (CONTRACT section 8).
Values are cloudpickle, protocol 5. Buffers of `LARGE` bytes or more (arrays, Arrow
columns) go out of band into object files, without a copy; so does a pickle that is
itself that large. Notebook classes are stored by reference, so that ``isinstance`` holds
in the next kernel; classes that no name leads to, so that they are found again
(`nbdurable.codec.definitions`). An error is stored as its type, arguments and attributes
(`nbdurable.codec.failures`), because the reduction that exceptions inherit fails for classes
whose ``__init__`` wants other arguments than ``args``, and loses its cause.
"""

from __future__ import annotations

import contextlib
import functools
import io
import pickle
import sys
import types
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import cloudpickle

from nbdurable.errors import CodecError, DecodeError, EncodeError, StoreError
from nbdurable.isolation import Apart
from nbdurable.pickled import frozen
from nbdurable.records import Payload

from . import definitions, failures
from .definitions import Decoding
from .pointers import Data
from .reductions import reduction

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping

    from .definitions import Definition

# Immutable, without references, pickled the same by C: what an ordinary step returns.
ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes})
_PROTOCOL = 5
_CLASS_OF = definitions.class_of.__qualname__.encode()  # in each pickle that defines a class
_dumps = pickle.dumps


LARGE = 256 * 1024
"""Bytes from which a buffer, or a pickle, is cheaper in a file of its own than in a row."""


class Writer(Protocol):
    """What writes the large buffers of one value; after its ``with`` block all is durable."""

    pieces: bytes

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None: ...

    def write(self, data: memoryview) -> None:
        """Add bytes to the present buffer."""

    def end(self, *, leads: bool = False) -> None:
        """End the present buffer; with `leads` it is compared whenever it is used."""

    def put(self, data: memoryview, *, leads: bool = False) -> None:
        """Add a whole buffer, unless it is there already; with `leads` as by `end`."""


class Objects(Protocol):
    """Where large buffers are kept."""

    def writer(self) -> Writer:
        """Return what writes those of one value."""

    def restore(self, pieces: bytes, *, proven: int = 0) -> list[memoryview]:
        """Return them back, so many of them compared with their digest."""


def encode(value: object, objects: Objects | None = None) -> Payload:
    """Encode ``value`` for the store; what is large of it goes to ``objects``, if there are any.

    Raises:
        EncodeError: The value, or something in it, can't be pickled.
        StoreError: What is large can't be written.
    """
    if type(value) in ATOMS and sys.getsizeof(value) < LARGE:
        return Payload(_dumps(value, _PROTOCOL))
    return pickled(value, objects, Shared())


def decode(
    data: bytes,
    pieces: bytes = b"",
    objects: Objects | None = None,
    *,
    say: Callable[[str], object] | None = None,
    known: Mapping[bytes, type] | None = None,
) -> Any:
    """Decode what `encode` gave. The caller has verified the signature.

    Args:
        data: The pickle, or nothing where it lies in an object file.
        pieces: What lies in object files.
        objects: Where they are.
        say: Is told of a class that had to be made anew.
        known: The classes that were stored by value, where this process has just done so.

    A pickle that lies in an object file is compared with its digest first: the
    signature covers that; so is a buffer that says where others lie. Other buffers are data,
    mapped and not read.

    Raises:
        DecodeError: A class or module is gone or changed; says what to run. Or an
            object file is missing or damaged.
        StoreError: An object file can't be read.
    """
    pickled: bytes | memoryview = data
    buffers: list[memoryview] = []
    if pieces:
        assert objects is not None, "who stores large buffers has them"
        buffers = objects.restore(pieces, proven=pickles_in(data))
        if not data:
            pickled = buffers.pop(0)
    try:
        with Apart():  # a restored figure is not pyplot's: it would pop up at the cell's end
            if not pieces and _CLASS_OF not in data:
                return pickle.loads(pickled)
            with Decoding(pickle.loads, known or {}, say):
                return pickle.loads(pickled, buffers=buffers)
    except DecodeError:
        raise
    except Exception as error:
        message = f"the saved value can't be restored here: {type(error).__name__}: {error}"
        raise DecodeError(message) from error


def pickles_in(data: bytes) -> int:
    """Return how many of the pieces that go with ``data`` are pickles: they come first."""
    return 0 if data else 1


class Shared:
    """What one encode knows, through all the pickles that it tries and that it consists of.

    ``classes`` are those stored by value, ``definitions`` what they are made again from.
    ``texts`` is None for a value, which is stored as it is or not at all; for an error, the
    attributes that are kept as text, by their values' ids. ``whole`` are the errors that must
    come back with their words, ``reworded`` those of whose arguments one is kept as text,
    ``linked`` those whose causes and contexts are stored apart. ``data`` knows the buffers
    that hold numbers alone.
    """

    __slots__ = (
        "classes", "data", "definitions", "linked", "modules", "own", "reworded", "texts", "tried",
        "whole",
    )  # fmt: skip

    def __init__(self) -> None:
        self.data = Data()
        self.modules: set[str] = set()
        self.classes: dict[bytes, type] = {}
        self.definitions: dict[bytes, Definition] = {}
        self.texts: dict[int, str] | None = None
        self.whole: Container[int] = ()
        self.reworded: set[int] = set()
        self.linked: Container[int] = ()
        self.own: dict[int, tuple[object, bool]] = {}
        self.tried: dict[int, tuple[object, object]] = {}


class Pickler(cloudpickle.Pickler):  # type: ignore[misc] # cloudpickle is untyped
    """cloudpickle, but what the live program has is stored so that it is found there again.

    Args:
        file: Where the pickle goes.
        shared: What this encode knows.
        defines: Whether this pickle is part of a class's definition: the pickle around
            it carries the definitions.
        buffer_callback: As pickle has it.
    """

    def __init__(
        self,
        file: Any,
        shared: Shared,
        *,
        defines: bool = False,
        buffer_callback: Callable[[pickle.PickleBuffer], object] | None = None,
    ) -> None:
        super().__init__(file, protocol=_PROTOCOL, buffer_callback=buffer_callback)
        self._shared = shared
        self._modules = shared.modules
        self._sent: set[bytes] | None = None if defines else set()
        self._cells: set[int] = set()
        self._plain: set[type] = set()

    def reducer_override(self, obj: Any) -> Any:
        """Return how an object is pickled; NotImplemented for as pickle does it."""
        if type(obj) in self._plain:
            return NotImplemented
        is_class = isinstance(obj, type)
        module = (obj if is_class or isinstance(obj, _GLOBALS) else type(obj)).__module__
        root = module.partition(".")[0] if isinstance(module, str) else "__main__"
        self._modules.add(root)
        if is_class:
            return self._class(obj)
        if isinstance(obj, types.FunctionType):
            return self._function(obj)
        if isinstance(obj, BaseException):
            return self._error(obj)
        if isinstance(obj, _EACH):
            return self._each(obj)
        if isinstance(obj, Future) or root in _BY_CONTENT:
            self._shared.data.meet(obj, root)
            found = reduction(obj, _PROTOCOL, LARGE)
            return NotImplemented if found is None else found
        if hasattr(type(obj), "__nbdurable_identity__"):
            raise EncodeError("a handle can't be stored", "return its .result() instead")
        if not self._shared.data.meet(obj, root):
            self._plain.add(type(obj))
        return NotImplemented

    def _each(self, obj: Any) -> Any:
        """Store what is looked at one by one, whatever its type, or refuse it."""
        if isinstance(obj, memoryview):
            content = pickle.PickleBuffer(obj) if obj.c_contiguous else obj.tobytes()
            return _view, (content, obj.format, obj.shape)
        if isinstance(obj, types.CellType) and id(obj) in self._cells:
            return types.CellType, ()
        if isinstance(obj, TypeVar) and named_here(obj.__name__) is obj:
            return _notebook_class, (obj.__name__,)
        if isinstance(obj, _UNSTORABLE):
            _refuse(obj)
        return NotImplemented

    def _class(self, obj: type) -> Any:
        """Store a class by its name, as a parametrised generic, or by its definition."""
        if (parts := definitions.generic(obj)) is not None:
            return definitions.parametrised, parts
        if obj.__module__ == "__main__" and named_here(obj.__qualname__) is obj:
            return _notebook_class, (obj.__qualname__,)
        reduced = super().reducer_override(obj)
        if not isinstance(reduced, tuple) or len(reduced) < len(("make", "with", "state")):
            return reduced
        token = definitions.token_of(obj)
        self._define(token, obj, reduced)
        # By itself: it may name other such classes, whose definitions come with this one's.
        known = self._apart(tuple(definitions.known_of(obj)), defines=True)
        if self._sent is None:
            return definitions.class_of, (token, known, {})
        found = self._shared.definitions
        new = {one: found[one] for one in found if one not in self._sent}
        self._sent.update(new)
        return definitions.class_of, (token, known, new)

    def _define(self, token: bytes, obj: type, reduced: tuple[Any, ...]) -> None:
        """Pickle what a class is made again from, once; other classes are named in it."""
        classes = self._shared.classes
        if token in classes:
            return
        classes[token] = obj
        make, arguments, state, _, _, fill = reduced
        # Without cloudpickle's own token, by which it would fill the live class.
        *arguments, _, more = arguments
        try:
            empty = self._apart((make, (*arguments, None, more)), defines=True)
            content = self._apart((fill, state), defines=True)
        except EncodeError:
            del classes[token]
            raise
        self._shared.definitions[token] = empty, content

    def _function(self, obj: types.FunctionType) -> Any:
        """Store a function that no module holds by name over the live globals of its module."""
        reduced = super().reducer_override(obj)
        home = definitions.live_module(obj)
        if home is None or not isinstance(reduced, tuple):
            return reduced
        attributes, slots = reduced[2]
        del slots["__globals__"], slots["_cloudpickle_submodules"]
        # Functions that share a variable share its cell. What is in it comes with the state,
        # for that may be the function itself.
        closure = slots.pop("__closure__")
        self._cells.update(map(id, closure or ()))
        return (
            definitions.function_of,
            (obj.__code__, home, closure),
            (attributes, slots, definitions.contents(closure)),
            None,
            None,
            definitions.fill_function,
        )

    def _error(self, obj: BaseException) -> Any:
        linked = id(obj) in self._shared.linked
        if failures.reduces_itself(type(obj)) and self._says_itself(obj):
            return failures.own_reduction(obj, _PROTOCOL, linked=linked)
        return failures.reduction(obj, functools.partial(self._keep, obj), linked=linked)

    def _says_itself(self, obj: BaseException) -> bool:
        """Tell whether the reduction of an error's class gives back what the error was."""
        own = self._shared.own
        if id(obj) not in own:
            own[id(obj)] = obj, True
            try:
                own[id(obj)] = obj, failures.same(self._tried(obj), obj)
            except CodecError:
                own[id(obj)] = obj, False
        return own[id(obj)][1]

    def _keep(self, error: BaseException, name: str, value: object) -> object:
        """Return a part of an error, or the text that is stored in its place.

        Raises:
            EncodeError: It is an argument of an error that must come back whole.
        """
        shared = self._shared
        if shared.texts is None or type(value) in ATOMS:
            return value
        if id(value) not in shared.tried:
            shared.tried[id(value)] = value, value
            try:
                self._tried(value)
            except CodecError as reason:
                if name == "args":
                    name = failures.attribute(error, value) or name
                    shared.reworded.add(id(error))
                if name == "args" and id(error) in shared.whole:
                    del shared.tried[id(value)]
                    said = f"an argument of {type(error).__name__} can't be stored"
                    raise EncodeError(f"{said}: {reason.args[0]}", *reason.args[1:]) from reason
                shared.tried[id(value)] = value, _as_text(value)
                shared.texts[id(value)] = f"{type(error).__name__}.{name}"
        return shared.tried[id(value)][1]

    def _tried(self, value: object) -> Any:
        """Return what comes back of a value.

        Raises:
            CodecError: Nothing does.
        """
        return decode(self._apart(value), known=self._shared.classes)

    def _apart(self, value: object, *, defines: bool = False) -> bytes:
        """Return a pickle of its own for a part of what is pickled."""
        stream = io.BytesIO()
        dump(Pickler(stream, self._shared, defines=defines), value)
        return stream.getvalue()


_BY_CONTENT = frozenset({"numpy", "pandas", "torch"})  # whose values decide how they are pickled
_GLOBALS = (types.FunctionType, types.BuiltinFunctionType)
_UNSTORABLE = (
    types.GeneratorType,
    types.CoroutineType,
    types.AsyncGeneratorType,
    io.TextIOWrapper,
    io.BufferedReader,
    io.BufferedWriter,
    io.BufferedRandom,
    io.FileIO,
)
_EACH = (
    types.BuiltinFunctionType,
    types.CellType,
    TypeVar,
    memoryview,
    *_UNSTORABLE,
)


def _refuse(value: object) -> None:
    """Refuse what would be stored as something else, or not at all; standard streams are names."""
    if isinstance(value, io.IOBase):
        if value is sys.stdout or value is sys.stderr:
            return
        raise EncodeError("an open file can't be stored", "return its path, or what it holds")
    if isinstance(value, types.GeneratorType):
        raise EncodeError("a generator can't be stored", "return a list instead")
    if isinstance(value, types.AsyncGeneratorType):
        raise EncodeError("an async generator can't be stored", "return a list instead")
    raise EncodeError("a coroutine can't be stored", "`await` it and return what it gives")


def dump(pickler: Pickler, value: object) -> None:
    """Let a pickler pickle a value.

    Raises:
        EncodeError: It, or something in it, can't be pickled.
        StoreError: What is large can't be written.
    """
    try:
        with Apart():
            pickler.dump(value)
    except (EncodeError, StoreError):
        raise
    except Exception as error:
        message = f"{type_name(value)} can't be pickled: {type(error).__name__}: {error}"
        lazy = "DuckDBPyRelation" in message
        cure = "return what it gives: .df(), .arrow() or .fetchall()" if lazy else ""
        raise EncodeError(message, cure) from error


class _Stream:
    """A pickle while it is made: in memory as long as it is small, then in an object file."""

    def __init__(self, objects: Objects | None, stack: contextlib.ExitStack) -> None:
        self._objects = objects
        self._stack = stack
        self._memory = io.BytesIO()
        self.writer: Writer | None = None

    def write(self, data: Any) -> None:
        """Add what the pickler gives: bytes, or an object that holds some."""
        raw = pickle.PickleBuffer(data).raw()
        if self.writer is None:
            if self._objects is None or self._memory.tell() + raw.nbytes < LARGE:
                self._memory.write(raw)
                return
            self.aside().write(self._memory.getbuffer())
            self._memory = io.BytesIO()
        self.aside().write(raw)

    def aside(self) -> Writer:
        """Return what writes to the value's object file."""
        if self.writer is None:
            assert self._objects is not None
            self.writer = self._stack.enter_context(self._objects.writer())
        return self.writer

    def end(self, buffers: list[memoryview], data: Data) -> bytes:
        """Write the large buffers; give the pickle if it is small."""
        if self.writer is not None:
            self.writer.end()
        for buffer in buffers:
            self.aside().put(buffer, leads=data.leads(buffer))
        return self._memory.getvalue()


def pickled(value: object, objects: Objects | None, shared: Shared) -> Payload:
    """Pickle `value`, its large buffers into object files; as `encode`."""
    buffers: list[memoryview] = []

    def stays(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < LARGE:
            return True
        buffers.append(raw)
        return False

    with contextlib.ExitStack() as stack:
        stream = _Stream(objects, stack)
        dump(Pickler(stream, shared, buffer_callback=stays if objects else None), value)
        data = stream.end(buffers, shared.data)
    pieces = b"" if stream.writer is None else stream.writer.pieces
    return Payload(data, pieces, frozenset(shared.modules))


@frozen("view")
def _view(content: Any, form: str, shape: tuple[int, ...]) -> memoryview:
    """Make a saved memoryview again; one that is empty has one dimension."""
    flat: Any = memoryview(content).cast("B")
    view: memoryview = flat.cast(form, shape) if flat.nbytes else flat.cast(form)
    return view


def named_here(qualname: str) -> object:
    """Return what a qualified name leads to in the notebook; None if it leads nowhere."""
    first, *rest = qualname.split(".")
    found: object = definitions.main_namespace().get(first)
    for part in rest:
        found = getattr(found, part, None)
    return found


@frozen("notebook_class")
def _notebook_class(qualname: str) -> object:
    """Look a notebook class up when a saved instance is restored."""
    found = named_here(qualname)
    if found is None:
        raise DecodeError(
            f"class `{qualname}` is not defined in this notebook: run the cell that defines it, "
            f"then this one"
        )
    return found


def _as_text(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - a repr of the user's
        return f"<{type_name(value)}>"


def type_name(value: object) -> str:
    """Return what a message calls the type of `value`."""
    kind = type(value)
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else (f"{kind.__module__}.{kind.__qualname__}")
    )
