"""A call on its way to a worker: a function and its arguments as one pickle.

Invariant: what a worker gets is what is in this process's memory: functions and classes of
the notebook by value, those of modules by name. A notebook class is, in the worker, found
under its name in the main module, so that what comes back of it is the notebook's own class.
"""

from __future__ import annotations

import io
import marshal
import pickle
import sys
from collections.abc import Callable  # noqa: TC003 - read at run time
from types import AsyncGeneratorType, CodeType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, NamedTuple

import cloudpickle

from nbdurable.errors import DecodeError, EncodeError
from nbdurable.isolation import Apart

from .values import LARGE, type_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PROTOCOL = 5


class Packed(NamedTuple):
    """A call as a pickle and the large buffers that go with it, which are not copied."""

    data: bytes
    buffers: tuple[memoryview, ...]


class _Shipper(cloudpickle.Pickler):  # type: ignore[misc] # cloudpickle is untyped
    """cloudpickle, but notebook classes keep their place, and handles stay here."""

    def reducer_override(self, obj: Any) -> Any:
        if hasattr(type(obj), "__nbdurable_identity__"):
            raise EncodeError("a handle can't be sent to a worker", "pass its .result() instead")
        if isinstance(obj, CodeType):
            # cloudpickle hides the file, by which tracebacks and evidence know it.
            return _code, (marshal.dumps(obj),)
        if isinstance(obj, io.IOBase) and obj not in {sys.stdout, sys.stderr}:
            raise EncodeError("an open file can't be sent to a worker", "pass its path instead")
        if isinstance(obj, _RUNNING):
            raise EncodeError("what is running can't be sent to a worker", "pass a list instead")
        reduced = super().reducer_override(obj)
        if isinstance(obj, type) and _is_main(obj) and isinstance(reduced, tuple):
            make, arguments, *rest = reduced
            return (_main_class, (obj.__qualname__, make, arguments), *rest)
        return reduced


def _is_main(cls: type) -> bool:
    main = sys.modules.get("__main__")
    return cls.__module__ == "__main__" and vars(main).get(cls.__qualname__) is cls


_RUNNING = (GeneratorType, CoroutineType, AsyncGeneratorType)


def _code(data: bytes) -> Any:
    """Make code again; kernel and worker are of one version of Python."""
    return marshal.loads(data)  # noqa: S302 - as any pickle, and it comes from the kernel


def _main_class(name: str, make: Callable[..., type], arguments: tuple[Any, ...]) -> type:
    """Make a notebook class in a worker, whose main module holds it from then on."""
    made = make(*arguments)
    setattr(sys.modules["__main__"], name, made)
    return made


def pack_call(
    function: Callable[..., Any], arguments: Sequence[Any], keywords: Mapping[str, Any]
) -> Packed:
    """Pickle a call for a worker; buffers of `LARGE` bytes and more stay outside.

    Raises:
        EncodeError: Something can't be pickled; names it, and says what to do.
    """
    buffers: list[memoryview] = []

    def stays(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < LARGE:
            return True
        buffers.append(raw)
        return False

    call = (function, tuple(arguments), dict(keywords))
    try:
        data = _dumped(call, stays)
    except Exception as error:
        raise _named(function, arguments, keywords, error) from error
    return Packed(data, tuple(buffers))


def _dumped(value: object, stays: Callable[[pickle.PickleBuffer], bool] | None = None) -> bytes:
    stream = io.BytesIO()
    with Apart():
        _Shipper(stream, protocol=_PROTOCOL, buffer_callback=stays).dump(value)
    return stream.getvalue()


def unpack_call(
    data: bytes | memoryview, buffers: Sequence[memoryview | bytes]
) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    """Return the function and its arguments, in a worker.

    Raises:
        DecodeError: Something of it can't be made here.
    """
    try:
        with Apart():
            function, arguments, keywords = pickle.loads(data, buffers=buffers)
    except Exception as error:
        raise DecodeError(f"{type(error).__name__}: {error}") from error
    return function, arguments, keywords


def _named(
    function: Callable[..., Any],
    arguments: Sequence[Any],
    keywords: Mapping[str, Any],
    error: Exception,
) -> EncodeError:
    """Return an error that names what of a call can't be pickled, and what to do."""
    parts = {f"argument {at + 1}": one for at, one in enumerate(arguments)}
    parts |= {f"argument `{name}`": one for name, one in keywords.items()}
    for name, value in parts.items():
        if (reason := _fault(value)) is not None:
            return _said(f"{name} (a {type_name(value)})", reason)
    code = getattr(function, "__code__", None)
    if code is not None:
        names = {*code.co_names, *(n for c in code.co_consts for n in getattr(c, "co_names", ()))}
        for name in sorted(names & getattr(function, "__globals__", {}).keys()):
            value = function.__globals__[name]
            if (reason := _fault(value)) is not None:
                return _said(f"`{name}` (a {type_name(value)}), which its code uses,", reason)
        cells = getattr(function, "__closure__", None) or ()
        for name, cell in zip(code.co_freevars, cells, strict=False):
            if (reason := _fault(cell.cell_contents)) is not None:
                where = f"`{name}` (a {type_name(cell.cell_contents)}), which it captures,"
                return _said(where, reason)
    return _said("the call", error)


def _fault(value: object) -> Exception | None:
    """Return why a value can't be pickled for a worker; None if it can."""
    try:
        _dumped(value)
    except Exception as error:  # noqa: BLE001 - whatever an object's own reduction raises
        return error
    return None


def _said(what: str, reason: Exception) -> EncodeError:
    why = str(reason.args[0]) if isinstance(reason, EncodeError) else f"{reason}"
    cure = reason.cure if isinstance(reason, EncodeError) else ""
    return EncodeError(
        f"{what} can't be pickled for a worker: {why}",
        cure or 'make it inside the step, or run the step here with executor="threads"',
    )
