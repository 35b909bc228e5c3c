"""Values to payloads and back, and the signature over what is stored.

Invariant: the only module that pickles or unpickles. It never decides whether a
payload may be unpickled: callers verify the signature first (CONTRACT section 8).
Values are cloudpickle, protocol 5. Buffers of `LARGE` bytes or more (arrays, Arrow
columns) go out of band into object files, without a copy; so does a pickle that is
itself that large. Notebook classes are stored by reference, so
that ``isinstance`` holds in the next kernel. An error is stored as its type,
arguments and attributes, because the reduction that exceptions inherit fails for
classes whose ``__init__`` wants other arguments than ``args``.
"""

from __future__ import annotations

import contextlib
import hmac
import io
import pickle
import sys
import traceback
import types
from typing import Any, Protocol, Self

import cloudpickle

from .errors import CodecError, DecodeError, EncodeError, StoreError
from .libraries import Apart
from .records import Kind, Payload
from .reductions import reduction

# Immutable, without references, pickled the same by C: what an ordinary step returns.
_ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes})
_PROTOCOL = 5
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

    def end(self) -> None:
        """End the present buffer."""


class Objects(Protocol):
    """Where large buffers are kept."""

    def writer(self) -> Writer:
        """Give what writes those of one value."""

    def restore(self, pieces: bytes, *, proven: int = 0) -> list[memoryview]:
        """Give them back, so many of them compared with their digest."""


def encode(value: object, objects: Objects | None = None) -> Payload:
    """Encode ``value`` for the store; what is large of it goes to ``objects``, if there are any.

    Raises:
        EncodeError: The value, or something in it, can't be pickled.
        StoreError: What is large can't be written.
    """
    if type(value) in _ATOMS and sys.getsizeof(value) < LARGE:
        return Payload(_dumps(value, _PROTOCOL))
    return _pickle(value, objects)


def decode(data: bytes, pieces: bytes = b"", objects: Objects | None = None) -> Any:
    """Decode what `encode` gave. The caller has verified the signature.

    A pickle that lies in an object file is compared with its digest first: the
    signature covers that. Other buffers are data, mapped and not read.

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
            return pickle.loads(pickled, buffers=buffers)
    except DecodeError:
        raise
    except Exception as error:
        message = f"the saved value can't be restored here: {type(error).__name__}: {error}"
        raise DecodeError(message) from error


def pickles_in(data: bytes) -> int:
    """Give how many of the pieces that go with ``data`` are pickles: they come first."""
    return 0 if data else 1


def settle_value(value: object, objects: Objects | None = None) -> tuple[Payload, Any]:
    """Encode ``value`` and give the payload with what replay will give for it.

    Raises:
        EncodeError: The value can't be pickled, or not restored from its pickle.
        StoreError: What is large of it can't be written.
    """
    payload = encode(value, objects)
    if type(value) in _ATOMS:
        return payload, value
    try:
        return payload, decode(payload.data, payload.pieces, objects)
    except DecodeError as error:
        raise EncodeError(f"{_type_name(value)} pickles but does not unpickle: {error}") from error


def encode_error(error: BaseException) -> Payload:
    """Encode an exception as type, arguments, attributes, notes and traceback text.

    An attribute that can't be pickled is replaced by its repr: the type, the
    message and everything else of the error are worth keeping without it. A class
    that says itself how it is pickled is taken at its word, where that works.

    Raises:
        EncodeError: The exception's class or arguments can't be pickled.
    """
    ways = (_itself, _taken_apart) if _reduces_itself(type(error)) else (_taken_apart,)
    around = {
        "notes": _notes(error),
        "traceback": "".join(traceback.format_exception(error)),
    }
    for way in ways:
        try:
            payload = encode({**around, **way(error)})
            decode_error(payload.data)
            return payload
        except CodecError as failure:
            reason = failure
    if isinstance(reason, EncodeError):
        raise reason
    raise EncodeError(f"{type(error).__name__} can't be restored: {reason}") from reason


def decode_error(data: bytes) -> BaseException:
    """Restore an exception that `encode_error` stored.

    Raises:
        DecodeError: Its class is gone, or can't be made without its ``__init__``.
    """
    fields = decode(data)
    error = fields["error"] if "error" in fields else _put_together(fields)
    if not isinstance(error, BaseException):
        raise DecodeError(f"the saved error came back as a {_type_name(error)}")
    vars(error).pop("__notes__", None)
    for note in fields["notes"]:
        error.add_note(note)
    return error


def loading_fault(kind: Kind, data: bytes, pieces: bytes, objects: Objects) -> str:
    """Say why what is installed here can't load an outcome; nothing if it can.

    Nothing either if another thing is in the way: a notebook class that is not defined
    yet, or an object file. The caller has verified the signature.
    """
    try:
        if kind is Kind.VALUE:
            decode(data, pieces, objects)
        else:
            decode_error(data)
    except DecodeError as error:
        cause = error.__cause__
        return "" if cause is None or isinstance(cause, DecodeError) else str(error)
    except StoreError:
        pass  # it is told of where the value is asked for
    return ""


def traceback_text(data: bytes) -> str:
    """Give the traceback, as text, of an error that `encode_error` stored."""
    text: str = decode(data)["traceback"]
    return text


def sign(key: bytes, message: bytes) -> bytes:
    """Give the HMAC-SHA256 (RFC 2104) of `message`."""
    return hmac.digest(key, message, "sha256")


def signature_holds(key: bytes, signature: bytes, message: bytes) -> bool:
    """Tell whether `signature` is that of `message`, in constant time."""
    return hmac.compare_digest(hmac.digest(key, message, "sha256"), signature)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc] # cloudpickle is untyped
    """cloudpickle, but a class that the notebook can look up is stored by reference."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.modules: set[str] = set()

    def reducer_override(self, obj: Any) -> Any:
        module = (obj if isinstance(obj, _GLOBALS) else type(obj)).__module__
        if isinstance(module, str):
            self.modules.add(module.partition(".")[0])
        if isinstance(obj, type) and obj.__module__ == "__main__":
            if _lookup_main(obj.__qualname__) is obj:
                return _notebook_class, (obj.__qualname__,)
        elif hasattr(type(obj), "__nbdurable_identity__"):
            raise EncodeError("a handle can't be stored; return its .result() instead")
        elif isinstance(obj, types.GeneratorType | types.CoroutineType):
            raise EncodeError(f"a {type(obj).__name__} can't be stored; return a list instead")
        elif isinstance(obj, memoryview):
            content = pickle.PickleBuffer(obj) if obj.c_contiguous else obj.tobytes()
            return _view, (content, obj.format, obj.shape)
        elif (found := reduction(obj, _PROTOCOL, LARGE)) is not None:
            return found
        return super().reducer_override(obj)


_GLOBALS = (type, types.FunctionType, types.BuiltinFunctionType)


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
        """Give what writes to the value's object file."""
        if self.writer is None:
            assert self._objects is not None
            self.writer = self._stack.enter_context(self._objects.writer())
        return self.writer

    def end(self, buffers: list[memoryview]) -> bytes:
        """Write the large buffers; give the pickle if it is small."""
        if self.writer is not None:
            self.writer.end()
        for buffer in buffers:
            self.aside().write(buffer)
            self.aside().end()
        return self._memory.getvalue()


def _pickle(value: object, objects: Objects | None) -> Payload:
    buffers: list[memoryview] = []

    def stays(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < LARGE:
            return True
        buffers.append(raw)
        return False

    with contextlib.ExitStack() as stack:
        stream = _Stream(objects, stack)
        try:
            with Apart():
                pickler = _Pickler(
                    stream, protocol=_PROTOCOL, buffer_callback=stays if objects else None
                )
                pickler.dump(value)
        except (EncodeError, StoreError):
            raise
        except Exception as error:
            message = f"{_type_name(value)} can't be pickled: {type(error).__name__}: {error}"
            raise EncodeError(message) from error
        data = stream.end(buffers)
    pieces = b"" if stream.writer is None else stream.writer.pieces
    return Payload(data, pieces, frozenset(pickler.modules))


def _view(content: Any, form: str, shape: tuple[int, ...]) -> memoryview:
    """Make a saved memoryview again; one that is empty has one dimension."""
    flat: Any = memoryview(content).cast("B")
    view: memoryview = flat.cast(form, shape) if flat.nbytes else flat.cast(form)
    return view


def _lookup_main(qualname: str) -> object:
    found: object = sys.modules.get("__main__")
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found


def _notebook_class(qualname: str) -> object:
    """Look a notebook class up when a saved instance is restored."""
    found = _lookup_main(qualname)
    if found is None:
        raise DecodeError(
            f"class `{qualname}` is not defined in this notebook: run the cell that defines it, "
            f"then this one"
        )
    return found


def _reduces_itself(kind: type[BaseException]) -> bool:
    """Tell whether a class of exceptions has a reduction that is not Python's own for them."""
    owner = next(base for base in kind.__mro__ if "__reduce__" in vars(base))
    return owner.__module__ != "builtins" or "__reduce_ex__" in vars(kind)


def _itself(error: BaseException) -> dict[str, object]:
    return {"error": error}


def _taken_apart(error: BaseException) -> dict[str, object]:
    state = {name: _or_repr(part) for name, part in vars(error).items() if name != "__notes__"}
    fields: dict[str, object] = {"type": type(error), "state": state, "slots": _c_state(error)}
    if isinstance(error, BaseExceptionGroup):
        inner = [encode_error(one).data for one in error.exceptions]
        return {**fields, "message": error.message, "errors": inner}
    return {**fields, "args": error.args}


def _put_together(fields: dict[str, Any]) -> BaseException:
    """Make an exception without the ``__new__`` and ``__init__`` of its class."""
    kind: type[BaseException] = fields["type"]
    builtin: Any = next(base for base in kind.__mro__ if base.__module__ == "builtins")
    try:
        if "errors" in fields:
            inner = [decode_error(one) for one in fields["errors"]]
            error: BaseException = builtin.__new__(kind, fields["message"], inner)
        else:
            error = builtin.__new__(kind, *fields["args"])
            error.args = fields["args"]
        vars(error).update(fields["state"])
        for name, value in fields["slots"].items():
            setattr(error, name, value)
    except Exception as failure:
        message = f"the saved {kind.__name__} can't be restored: {failure}"
        raise DecodeError(message) from failure
    return error


def _notes(error: BaseException) -> tuple[str, ...]:
    notes = getattr(error, "__notes__", ())
    return tuple(note for note in notes if isinstance(note, str)) if type(notes) is list else ()


def _c_state(error: BaseException) -> dict[str, object]:
    """Give what C exceptions keep outside ``args`` and ``__dict__`` and let be set."""
    names: tuple[str, ...] = ()
    if isinstance(error, OSError):
        names = ("errno", "strerror", "filename", "filename2")
    elif isinstance(error, SyntaxError):
        names = ("msg", "filename", "lineno", "offset", "text", "end_lineno", "end_offset")
    elif isinstance(error, UnicodeError):
        names = ("encoding", "object", "start", "end", "reason")
    elif isinstance(error, ImportError):
        names = ("name", "path", "msg")
    elif isinstance(error, StopIteration):
        names = ("value",)
    elif isinstance(error, NameError | AttributeError):
        names = ("name",)
    found = {}
    for name in names:
        # Not each class has each, and a subclass may answer with code of its own.
        with contextlib.suppress(Exception):
            found[name] = getattr(error, name)
    return {name: value for name, value in found.items() if value is not None}


def _or_repr(value: object) -> object:
    try:
        settle_value(value)
    except EncodeError:
        try:
            return repr(value)
        except Exception:  # noqa: BLE001 - a repr of the user's
            return f"<{_type_name(value)}>"
    return value


def _type_name(value: object) -> str:
    kind = type(value)
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else (f"{kind.__module__}.{kind.__qualname__}")
    )
