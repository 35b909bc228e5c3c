"""How values of numpy, pandas, Arrow, polars, torch and matplotlib share what can change.

Invariant: no library is imported here; a value that exists has loaded its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from nbdurable.fingerprint.prints import state_of

from .looking import STILL, attributes, inside
from .memory import Mode, is_buffer

if TYPE_CHECKING:
    from .memory import Memory

_FIRST_THAT_COPIES = 3  # the version of pandas from which on a write never shows in another frame
_EXTENSION = ("_ndarray", "_data", "_mask", "_pa_array", "_left", "_right", "_sparse_values")


Look = Callable[[Any, Any, int], Sequence[Any]]


class Meeting(Protocol):
    """What a look asks of the walk that it is part of."""

    memory: Memory
    held: list[Any]
    details: list[tuple[int, str]]
    bases: list[tuple[int, int]]

    def meet(self, value: Any) -> bool:
        """Meet an object that is a link by its identity alone."""


def look_for(cls: type) -> Look | None:
    """Return how to look into a library's class; None for what has attributes like any other."""
    modules = sys.modules
    numpy: Any = modules.get("numpy")
    if numpy is not None and hasattr(numpy, "ndarray"):
        if issubclass(cls, numpy.ndarray):
            return _array
        if issubclass(cls, numpy.void):
            return _row
        if issubclass(cls, (numpy.generic, numpy.dtype, numpy.ufunc)):
            STILL.add(cls)
            return _nothing
        if cls.__module__.startswith("numpy.random"):
            return _generator
    for name, find in _FINDERS.items():
        module: Any = modules.get(name)
        look: Look | None = find(module, cls) if module is not None else None
        if look is not None:
            return look
    return None


def _nothing(_: Any, __: Any, ___: int) -> Sequence[Any]:
    return ()


def _row(links: Meeting, row: Any, number: int) -> Sequence[Any]:
    """Look into a row of a structured array, which lies in the array."""
    if row.dtype.hasobject:
        return [row.base]
    links.memory.array(row, number, Mode.WRITTEN)
    return ()


def _array(links: Meeting, array: Any, number: int) -> Sequence[Any]:
    links.memory.array(array, number)
    if not array.flags.writeable:
        links.details.append((number, "read only"))
    more = inside(attributes(array)) if type(array) is not sys.modules["numpy"].ndarray else ()
    root = array.base
    while root is not None and type(root).__module__ == "numpy":
        root = getattr(root, "base", None)
    if root is not None and not isinstance(root, bytes) and not is_buffer(root):
        links.bases.append((id(root), number))
    if array.dtype.hasobject and array.size:
        items = array.reshape(-1).tolist()
        links.held.append(items)
        return [*inside(items), *more]
    return more


def _generator(_: Meeting, value: Any, __: int) -> Sequence[Any]:
    """Return the source of bits: two generators can share one."""
    bits = getattr(value, "bit_generator", None) or getattr(value, "_bit_generator", None)
    return [bits] if bits is not None and bits is not value else ()


# --- pandas


def _pandas(pandas: Any, cls: type) -> Any:
    if not hasattr(pandas, "DataFrame"):
        return None
    if issubclass(cls, (pandas.DataFrame, pandas.Series)):
        return _frame
    if issubclass(cls, pandas.Index):
        return _index
    if issubclass(cls, pandas.api.extensions.ExtensionArray):
        return _extension
    if issubclass(cls, (pandas.Timestamp, pandas.Timedelta, pandas.Period, pandas.Interval)):
        return _nothing
    if cls.__module__.startswith("pandas.core.") and hasattr(cls, "obj"):
        return _lazily
    return None


def _lazily(_: Meeting, value: Any, __: int) -> Sequence[Any]:
    """Look into what computes when it is asked: a grouping, a window; by what it is made of."""
    state = state_of(value)
    return inside([state.get(name) for name in ("obj", "keys")])


def _frames_copy() -> bool:
    """Tell whether pandas copies a block that is in use elsewhere before it writes to it."""
    pandas = sys.modules["pandas"]
    if int(pandas.__version__.partition(".")[0]) >= _FIRST_THAT_COPIES:
        return True
    return bool(pandas.options.mode.copy_on_write)


def _frame(links: Meeting, frame: Any, number: int) -> Sequence[Any]:
    mode = Mode.TRACKED if _frames_copy() else Mode.WRITTEN
    manager = frame._mgr  # noqa: SLF001 - there is no other way to its blocks
    found: list[Any] = []
    for block in manager.blocks:
        values = block.values
        found += _memory_of(links, values, number, mode)
    state = state_of(frame)
    more = [state[name] for name in sorted(state) if name not in {"_mgr", "_item_cache"}]
    return [*manager.axes, *inside(more), *found]


def _memory_of(links: Meeting, values: Any, number: int, mode: Mode) -> Sequence[Any]:
    """Take in where a block's values lie; return the objects in it."""
    numpy = sys.modules["numpy"]
    if isinstance(values, numpy.ndarray):
        links.memory.array(values, number, mode)
        if values.dtype.hasobject and values.size:
            items = values.reshape(-1).tolist()
            links.held.append(items)
            return inside(items)
        return ()
    # An object of pandas' own, exchanged before a write if it is in use elsewhere, like a block.
    links.memory.add(id(values), id(values) + 1, mode, values, number)
    found: list[Any] = []
    for part in _parts(values):
        if isinstance(part, numpy.ndarray):
            found += _memory_of(links, part, number, mode)
        elif type(part).__module__.partition(".")[0] == "pyarrow":
            arrow_array(links, part, number)
    return found


def _parts(values: Any) -> list[Any]:
    """Return what an extension array is made of."""
    found = [getattr(values, name, None) for name in _EXTENSION]
    return [one for one in found if one is not None]


def _extension(links: Meeting, values: Any, number: int) -> Sequence[Any]:
    links.memory.add(id(values), id(values) + 1, Mode.WRITTEN, values, number)
    found: list[Any] = []
    for part in _parts(values):
        if type(part).__module__.partition(".")[0] == "numpy":
            links.memory.array(part, number)
            if part.dtype.hasobject and part.size:
                items = part.reshape(-1).tolist()
                links.held.append(items)
                found += inside(items)
        else:
            found.append(part)
    return found


def _index(_: Meeting, index: Any, __: int) -> Sequence[Any]:
    """Return nothing but objects: an index's own memory is never written to."""
    if index.dtype == object and index.nlevels == 1:
        items = index.tolist()
        return inside(items)
    levels = getattr(index, "_levels", None)
    return list(levels) if levels is not None else ()


# --- Arrow and polars


def _arrow(arrow: Any, cls: type) -> Any:
    if not hasattr(arrow, "Table"):
        return None
    if issubclass(cls, (arrow.Table, arrow.RecordBatch)):
        return arrow_table
    if issubclass(cls, (arrow.ChunkedArray, arrow.Array)):
        return arrow_array
    if issubclass(cls, (arrow.Scalar, arrow.DataType, arrow.Field, arrow.Schema)):
        return _nothing
    return None


def arrow_table(links: Meeting, table: Any, number: int) -> Sequence[Any]:
    """Look into what can't change but where others can write to its memory."""
    for column in table.columns:
        arrow_array(links, column, number)
    return ()


def arrow_array(links: Meeting, value: Any, number: int) -> Sequence[Any]:
    """Look into a column, in one piece or in several."""
    for chunk in getattr(value, "chunks", (value,)):
        for part in chunk.buffers():
            if part is not None:
                links.memory.add(part.address, part.address + part.size, Mode.READ, value, number)
    return ()


UNLINKED = frozenset({arrow_table, arrow_array})
"""Looks into what can't change itself."""


def _polars(polars: Any, cls: type) -> Any:
    if not hasattr(polars, "DataFrame"):
        return None
    named = (polars.DataFrame, polars.Series, polars.LazyFrame, polars.Expr)
    return _nothing if issubclass(cls, named) else None


# --- torch


def _torch(torch: Any, cls: type) -> Any:
    if not hasattr(torch, "Tensor"):
        return None
    if issubclass(cls, torch.Tensor):
        return _tensor
    if issubclass(cls, (torch.dtype, torch.device, torch.Size)):
        return _nothing
    return None


def _tensor(links: Meeting, tensor: Any, number: int) -> Sequence[Any]:
    try:
        storage = tensor.untyped_storage()
        low, size = storage.data_ptr(), storage.nbytes()
    except (AttributeError, NotImplementedError, RuntimeError):
        return inside(attributes(tensor))
    links.memory.add(low, low + size, Mode.WRITTEN, tensor, number)
    return [tensor.grad, *inside(attributes(tensor))]


# --- matplotlib


def _matplotlib(artist: Any, cls: type) -> Any:
    drawn = issubclass(cls, artist.Artist) or cls.__module__.startswith("matplotlib.")
    return _artist if drawn else None


def figure_of(value: Any) -> Any:
    """Return the figure that an artist is part of, or a colour bar; None if it is of none."""
    state = state_of(value)
    axes = state.get("ax")
    figure = getattr(value if axes is None else axes, "figure", None)
    while figure is not None and getattr(figure, "figure", figure) is not figure:
        figure = figure.figure
    return figure if hasattr(figure, "stale_callback") else None


def _artist(_: Meeting, value: Any, __: int) -> Sequence[Any]:
    """Return the figure alone, for all that is drawn in it changes with it."""
    figure = figure_of(value)
    if figure is None:
        return inside(attributes(value))
    return [] if figure is value else [figure]


_FINDERS: dict[str, Callable[[Any, type], Any]] = {
    "pandas": _pandas,
    "pyarrow": _arrow,
    "polars": _polars,
    "torch": _torch,
    "matplotlib.artist": _matplotlib,
}
